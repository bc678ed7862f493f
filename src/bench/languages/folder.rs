//! A bench's folder: a run for each language, the tables, and the pages made of them. Knows names of files; opens no run by itself.

use std::path::{Path, PathBuf};

use crate::run::RunDir;

use super::super::BenchError;

/// Paths of a bench.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchDir {
    root: PathBuf,
}

impl BenchDir {
    /// The bench at `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The run of a language. Its folder is called after the code; what could not be a folder's name everywhere becomes `_`.
    pub fn run(&self, language: &str) -> RunDir {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c.to_ascii_lowercase() } else { '_' };
        RunDir::new(&self.root.join("languages").join(language.chars().map(plain).collect::<String>()))
    }

    /// Figures that follow from the journals.
    pub fn figures(&self) -> PathBuf {
        self.root.join("figures.parquet")
    }

    /// Figures of the machine and the clock.
    pub fn measured(&self) -> PathBuf {
        self.root.join("measured.parquet")
    }

    /// Peaks of memory, a [`super::Memory`] a line.
    pub fn memory(&self) -> PathBuf {
        self.root.join("memory.jsonl")
    }

    /// The page for a browser.
    pub fn page(&self) -> PathBuf {
        self.root.join("report.html")
    }

    /// The same as text.
    pub fn markdown(&self) -> PathBuf {
        self.root.join("report.md")
    }

    /// The runs that are there, with their folders' names, sorted.
    ///
    /// # Errors
    /// [`BenchError::NoBench`] if there is none, or the folder cannot be read.
    pub fn runs(&self) -> Result<Vec<(String, RunDir)>, BenchError> {
        let folder = self.root.join("languages");
        let no_bench = || BenchError::NoBench { path: self.root.clone() };
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(no_bench()),
            Err(source) => return Err(BenchError::Io { path: folder, source }),
            Ok(entries) => entries,
        };
        let named = entries.filter_map(|entry| Some((entry.ok()?.file_name().into_string().ok()?, ())));
        let mut runs: Vec<(String, RunDir)> = named
            .map(|(name, ())| (name.clone(), RunDir::new(&folder.join(name))))
            .filter(|(_, run)| run.lock().exists() && run.prompts().exists())
            .collect();
        runs.sort_by(|a, b| a.0.cmp(&b.0));
        if runs.is_empty() { Err(no_bench()) } else { Ok(runs) }
    }
}
