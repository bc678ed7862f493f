//! The embedded demonstration: a few dozen prompts and a toy model, so that a whole run works without a download.
//! Knows files and bytes only: the prompts are read and the model is loaded by the paths any other source takes.
//!
//! The toy is made by `scripts/make_demo_model.py`, which says what it is trained to imitate. It is no language model.

use std::fs;
use std::io;
use std::path::Path;

/// Name under which the toy appears in candidates, verdicts, the lock file and the card.
pub const MODEL_LABEL: &str = "pairwright-demo-toy (not a language model)";

/// The toy's model card, which states its licence.
const CARD: &str = "README.md";

/// Licence of the embedded prompts and model: this package's.
pub const LICENSE: &str = "apache-2.0";

const PROMPTS: &str = include_str!("prompts.jsonl");

/// Name and content of each file of the model directory, in the order they are written. `config.json` is last: a directory
/// that has it has the others.
const MODEL_FILES: [(&str, &[u8]); 7] = [
    (CARD, include_bytes!("model/README.md")),
    ("model.safetensors", include_bytes!("model/model.safetensors")),
    ("tokenizer.json", include_bytes!("model/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("model/tokenizer_config.json")),
    ("chat_template.jinja", include_bytes!("model/chat_template.jinja")),
    ("generation_config.json", include_bytes!("model/generation_config.json")),
    ("config.json", include_bytes!("model/config.json")),
];

/// The demonstration's prompts with human answers: JSONL with Aya's column names, one object per line, UTF-8.
pub fn prompts_jsonl() -> &'static str {
    PROMPTS
}

/// Writes prompts and toy into `dir`, as `prompts.jsonl` and `model`.
///
/// # Errors
/// As [`write_model_dir`].
pub fn write(dir: &Path) -> io::Result<()> {
    write_model_dir(&dir.join("model"))?;
    write_if_different(dir, "prompts.jsonl", PROMPTS.as_bytes())
}

/// Writes prompts and toy as [`write()`] does, into a temporary folder that goes when what is returned is dropped.
///
/// # Errors
/// As [`write_model_dir`].
pub fn write_temporary() -> io::Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("pairwright-demo-").tempdir()?;
    write(folder.path())?;
    Ok(folder)
}

/// Writes the toy as a Hugging Face model directory, so that it is loaded as any other model is.
///
/// Creates `dir` and its parents where missing. A file that is already there with the same bytes is left untouched; any
/// other is replaced by a rename, so a reader sees the old file or the new one, never a part. Files of other names in `dir`
/// are left alone. Several processes may do this at once.
///
/// # Errors
/// The first `io::Error` of creating, writing or renaming, with the path in its message.
pub fn write_model_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir).map_err(|error| with_path(&error, "create the directory", dir))?;
    for (name, content) in MODEL_FILES {
        write_if_different(dir, name, content)?;
    }
    Ok(())
}

/// Whether `dir` holds the toy, so that whoever loads it can label it.
pub fn is_model_dir(dir: &Path) -> bool {
    // Without its card, or with another, it is still the toy.
    let mut files = MODEL_FILES.iter().filter(|(name, _)| *name != CARD);
    files.all(|(name, content)| has_content(&dir.join(name), content))
}

fn write_if_different(dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let path = dir.join(name);
    if has_content(&path, content) {
        return Ok(());
    }
    // The process and thread ids keep two writers from sharing a temporary file; the rename stays inside one directory.
    let temporary = dir.join(format!(".{name}.{}-{:?}.tmp", std::process::id(), std::thread::current().id()));
    let written = fs::write(&temporary, content).and_then(|()| fs::rename(&temporary, &path));
    written.map_err(|error| {
        // The temporary file may not exist; the first error is the one to report.
        let _ = fs::remove_file(&temporary);
        with_path(&error, "write", &path)
    })
}

/// True if `path` is a file of exactly these bytes. Compares the size first, so a foreign large file is not read.
fn has_content(path: &Path, content: &[u8]) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == content.len() as u64)
        && fs::read(path).is_ok_and(|found| found == content)
}

fn with_path(error: &io::Error, action: &str, path: &Path) -> io::Error {
    io::Error::new(
        error.kind(),
        format!(
            "the demonstration model: cannot {action} {}: {error}\nhint: choose a folder this user may write to",
            path.display()
        ),
    )
}
