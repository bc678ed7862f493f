//! `BUNDLE.json`: what a bundle holds, file by file, and what each of these files is of. Read with distrust, written always the same.
//! Knows names, sizes and sums; opens none of the files.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::BundleError;
use super::paths::{self, Names};

/// Name of the manifest.
pub const MANIFEST_FILE: &str = "BUNDLE.json";
/// Name of the list of sums that `sha256sum -c` takes.
pub const SUMS_FILE: &str = "SHA256SUMS";
/// Version of the manifest's layout; a reader refuses a newer one.
pub const FORMAT_VERSION: u32 = 1;
/// Most bytes of a manifest: a hundred thousand files are far below.
pub const MAX_MANIFEST_BYTES: u64 = 64 << 20;

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A model's folder.
    Model,
    /// Prompts.
    Dataset,
    /// This program.
    Binary,
}

/// One model, dataset or program: a folder of the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// What it is.
    pub kind: Kind,
    /// Its folder, for example `models/org--name@0123456789ab`.
    pub folder: String,
    /// `OWNER/NAME` on the hub, if known.
    pub repo: Option<String>,
    /// The branch or tag that was asked for.
    pub revision: Option<String>,
    /// Forty hexadecimal digits, if known.
    pub commit: Option<String>,
    /// The licence that its card states.
    pub licence: Option<String>,
    /// Languages that a table of prompts was cut down to; empty: it is whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub languages: Vec<String>,
    /// System that a program runs on, for example `x86_64-linux`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Files of it that stayed behind, since loading them can run code.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

impl Item {
    /// Repository and commit of an item that is, file by file, what the hub has.
    pub fn hub(&self) -> Option<(&str, &str)> {
        self.languages.is_empty().then_some((self.repo.as_deref()?, self.commit.as_deref()?))
    }

    /// How people call it.
    pub fn name(&self) -> &str {
        self.repo.as_deref().unwrap_or(&self.folder)
    }
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Path in the bundle, with `/`.
    pub path: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Lower-case hex SHA-256.
    pub sha256: String,
    /// What git calls it (SHA-1); where `lfs`, what git calls its pointer.
    pub blob_id: String,
    /// Whether the hub keeps it outside of git, under its SHA-256.
    pub lfs: bool,
}

impl Entry {
    /// The name of its content in a Hugging Face cache.
    pub fn etag(&self) -> &str {
        if self.lfs { &self.sha256 } else { &self.blob_id }
    }
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the layout.
    pub format_version: u32,
    /// Version of this tool that wrote it.
    pub tool_version: String,
    /// In the order of their folders.
    pub items: Vec<Item>,
    /// All files but the manifest and the list of sums, in the order of their paths' bytes.
    pub files: Vec<Entry>,
}

impl Manifest {
    /// A manifest of this version; sorts.
    pub fn new(mut items: Vec<Item>, mut files: Vec<Entry>) -> Self {
        items.sort_by(|a, b| a.folder.cmp(&b.folder));
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Self { format_version: FORMAT_VERSION, tool_version: env!("CARGO_PKG_VERSION").to_owned(), items, files }
    }

    /// Reads a manifest; `origin` names it in errors.
    ///
    /// # Errors
    /// What is no manifest, is one of a later version, or holds a path that no bundle of ours holds.
    pub fn parse(bytes: &[u8], origin: &Path) -> Result<Self, BundleError> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let path = || origin.to_path_buf();
        let not_one = |error: serde_json::Error| BundleError::NotABundle {
            path: path(),
            what: format!("its {MANIFEST_FILE} cannot be read: {error}"),
        };
        let Version { format_version } = serde_json::from_slice(bytes).map_err(not_one)?;
        if format_version != FORMAT_VERSION {
            return Err(BundleError::NewerFormat { path: path(), got: format_version });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(not_one)?;
        match manifest.fault() {
            Some(what) => Err(BundleError::Unsafe { path: path(), what: format!("its {MANIFEST_FILE} has {what}") }),
            None => Ok(manifest),
        }
    }

    /// As indented JSON with a line end.
    pub fn to_bytes(&self) -> Vec<u8> {
        // INFALLIBLE: strings, numbers and lists of them are always JSON
        let mut text = serde_json::to_vec_pretty(self).expect("plain data is JSON");
        text.push(b'\n');
        text
    }

    /// The list that `sha256sum -c` takes, of a manifest in these bytes.
    pub fn sums(&self, manifest: &[u8]) -> String {
        let own: String = Sha256::digest(manifest).iter().map(|byte| format!("{byte:02x}")).collect();
        let lines = self.files.iter().map(|file| format!("{}  {}\n", file.sha256, file.path));
        std::iter::once(format!("{own}  {MANIFEST_FILE}\n")).chain(lines).collect()
    }

    /// Bytes of all files.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.size_bytes))
    }

    /// The files of an item, each with its path inside the item's folder.
    pub fn files_of<'a>(&'a self, item: &'a Item) -> impl Iterator<Item = (&'a str, &'a Entry)> {
        self.files.iter().filter_map(|file| Some((inside(&file.path, &item.folder)?, file)))
    }

    /// The manifest of one item alone, with paths inside its folder: what lies in the folder of an installed item.
    pub fn of_item(&self, item: &Item) -> Self {
        let alone = |(path, file): (&str, &Entry)| Entry { path: path.to_owned(), ..file.clone() };
        Self {
            format_version: self.format_version,
            tool_version: self.tool_version.clone(),
            items: vec![item.clone()],
            files: self.files_of(item).map(alone).collect(),
        }
    }

    /// What no manifest of ours has.
    fn fault(&self) -> Option<String> {
        let mut names = Names::default();
        for own in [MANIFEST_FILE, SUMS_FILE] {
            names.add(own);
        }
        for (index, file) in self.files.iter().enumerate() {
            let before = index.checked_sub(1).and_then(|before| self.files.get(before));
            if let Some(fault) = paths::fault(&file.path).or_else(|| names.add(&file.path)) {
                return Some(fault);
            }
            if before.is_some_and(|before| before.path >= file.path) {
                return Some(format!("{:?} out of order", file.path));
            }
            if !paths::is_hex(&file.sha256, 64) || !paths::is_hex(&file.blob_id, 40) {
                return Some(format!("sums of {:?} that are none", file.path));
            }
        }
        let sum = self.files.iter().try_fold(0_u64, |sum, file| sum.checked_add(file.size_bytes));
        if sum.is_none_or(|sum| sum > 1 << 50) {
            return Some("files that together are larger than any disk".to_owned());
        }
        self.items.iter().enumerate().find_map(|(index, item)| self.fault_of(item, index))
    }

    fn fault_of(&self, item: &Item, index: usize) -> Option<String> {
        let own_folder = match item.kind {
            Kind::Model => "models/",
            Kind::Dataset => "datasets/",
            Kind::Binary => "bin",
        };
        let folder = &item.folder;
        let well_placed = match item.kind {
            Kind::Binary => folder == own_folder,
            _ => folder.strip_prefix(own_folder).is_some_and(|rest| !rest.contains('/')),
        };
        if let Some(fault) = paths::fault(folder) {
            return Some(fault);
        }
        if !well_placed || self.items[..index].iter().any(|other| other.folder.eq_ignore_ascii_case(folder)) {
            return Some(format!("the folder {folder:?} in a wrong place, or twice"));
        }
        if item.repo.as_ref().is_some_and(|repo| !paths::is_repo(repo)) {
            return Some(format!("{:?}, which is no OWNER/NAME", item.repo));
        }
        if item.commit.as_ref().is_some_and(|commit| !paths::is_hex(commit, 40)) {
            return Some(format!("{:?}, which is no commit", item.commit));
        }
        let texts = item.licence.iter().chain(&item.target).chain(&item.languages).chain(&item.left_out);
        if let Some(text) = texts.clone().find(|text| text.len() > 1000 || text.chars().any(char::is_control)) {
            return Some(format!("the text {:?}", text.chars().take(40).collect::<String>()));
        }
        item.revision.as_ref().and_then(|revision| paths::fault(revision))
    }
}

/// `path` inside `folder`.
pub(super) fn inside<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    path.strip_prefix(folder)?.strip_prefix('/')
}
