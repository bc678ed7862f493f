//! What is asked of the Hub and what comes back, in both builds. Knows names and conditions; opens no connection.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use super::HubError;

/// Where the Hub is, who asks, and where files are kept.
#[derive(Clone)]
pub struct Hub {
    /// `https://huggingface.co`, or a mirror.
    pub endpoint: String,
    /// Sent to `endpoint` alone.
    pub token: Option<String>,
    /// The cache that Python's huggingface_hub shares.
    pub cache: PathBuf,
    /// Whether the user forbade connections.
    pub offline: bool,
    /// After so many seconds without a byte a connection counts as broken.
    pub silence_s: u64,
    /// How often a request is tried again that failed in passing.
    pub num_retries: u32,
}

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RepoKind {
    /// Weights, configuration, tokenizer.
    Model,
    /// Rows.
    Dataset,
}

/// A repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepoId {
    /// What it holds.
    pub kind: RepoKind,
    /// `OWNER/NAME`.
    pub id: String,
}

impl RepoId {
    /// From `OWNER/NAME`.
    ///
    /// # Errors
    /// [`HubError::Malformed`].
    pub fn parse(kind: RepoKind, id: &str) -> Result<Self, HubError> {
        const MAX_CHARACTERS: usize = 96;
        let is_name = |half: &str| {
            let plain = half.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            plain && !half.is_empty() && !half.starts_with(['-', '.']) && !half.ends_with(['-', '.'])
        };
        let halves: Vec<&str> = id.split('/').collect();
        let odd = id.len() > MAX_CHARACTERS || id.contains("--") || id.contains("..");
        if odd || halves.len() != 2 || !halves.iter().all(|half| is_name(half)) {
            return Err(HubError::Malformed {
                what: "the repository",
                got: super::error::clean(id),
                want: "OWNER/NAME of letters, digits, `-`, `_` and `.`",
                hint: "for example CohereLabs/aya_dataset",
            });
        }
        Ok(Self { kind, id: id.to_owned() })
    }
}

/// What to fetch.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// From where.
    pub repo: RepoId,
    /// Branch, tag or commit.
    pub revision: String,
    /// Weights or data by name, with `*` and `?`; empty: what is usual.
    pub patterns: Vec<String>,
}

/// Under which terms something is published, as its card says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Licence {
    /// The Hub's id for it, `apache-2.0`.
    pub id: Option<String>,
    /// Its name where the id is `other`.
    pub name: Option<String>,
    /// Where it can be read.
    pub link: Option<String>,
}

/// A file that is to be moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Transfer {
    /// Its path in the repository.
    pub path: String,
    /// Its length.
    pub size_bytes: u64,
}

/// What a pull is about to fetch, and under which terms.
#[derive(Debug, Clone)]
pub struct PullOffer {
    /// The repository.
    pub repo: RepoId,
    /// The commit: 40 hexadecimal digits.
    pub commit: String,
    /// As the card says.
    pub licence: Licence,
    /// Whether its owners ask for a form to be accepted first.
    pub gated: bool,
    /// Files that are not here yet.
    pub files: Vec<Transfer>,
    /// Bytes of these that are.
    pub num_bytes_here: u64,
}

/// What a pull left.
#[derive(Debug, Clone, Serialize)]
pub struct Pulled {
    /// The repository.
    #[serde(flatten)]
    pub repo: RepoId,
    /// The commit.
    pub commit: String,
    /// As the card says.
    pub licence: Licence,
    /// The folder of the snapshot.
    pub path: PathBuf,
    /// All chosen files.
    pub files: Vec<Transfer>,
    /// How many were fetched now; the others were here.
    pub num_fetched: usize,
    /// Bytes of the files that were fetched now.
    pub num_bytes_fetched: u64,
}

/// What to publish.
#[derive(Debug, Clone)]
pub struct PublishRequest {
    /// Whereto.
    pub repo: RepoId,
    /// Whether nobody else may see it.
    pub private: bool,
    /// The folder whose files are published; those whose names begin with a dot are not.
    pub folder: PathBuf,
    /// The commit's first line.
    pub summary: String,
}

/// What a publication is about to change.
#[derive(Debug, Clone)]
pub struct UploadOffer {
    /// The repository.
    pub repo: RepoId,
    /// Whether it has to be made, and would then be private.
    pub created: Option<bool>,
    /// Files that are not there yet, or other ones.
    pub files: Vec<Transfer>,
    /// Files that are there already.
    pub num_unchanged: usize,
    /// Data files of an earlier publication that this one does not have.
    pub removed: Vec<String>,
}

/// What a publication left.
#[derive(Debug, Clone, Serialize)]
pub struct Published {
    /// The repository.
    #[serde(flatten)]
    pub repo: RepoId,
    /// Its page.
    pub url: String,
    /// The commit; of an earlier publication if nothing was to do.
    pub commit: String,
    /// Files that were sent.
    pub num_sent: usize,
    /// Files that were removed.
    pub num_removed: usize,
}

/// An Argilla server, and who asks.
#[derive(Clone)]
pub struct Argilla {
    /// `http://127.0.0.1:6900`, without `/api`.
    pub url: String,
    /// Sent there alone, and never shown.
    pub api_key: Option<String>,
    /// Whether the user forbade connections.
    pub offline: bool,
    /// After so many seconds without a byte a connection counts as broken.
    pub silence_s: u64,
    /// How often a request is tried again that failed in passing.
    pub num_retries: u32,
}

/// A dataset for an Argilla server, in the shapes of its package's files.
#[derive(Debug, Clone)]
pub struct PushRequest {
    /// The workspace's name; `None`: the only one that the user has.
    pub workspace: Option<String>,
    /// The dataset's name; made where there is none, else added to.
    pub dataset: String,
    /// `settings.json`: fields, questions, metadata, guidelines, distribution.
    pub settings: Value,
    /// `records.json`: each with an id, which makes that a record sent twice is there once.
    pub records: Vec<Value>,
}

/// What a push is about to send.
#[derive(Debug, Clone)]
pub struct PushOffer {
    /// The workspace's name.
    pub workspace: String,
    /// Whether the dataset is made now.
    pub is_new: bool,
    /// Records.
    pub num_records: u64,
    /// UTF-8 bytes of them.
    pub num_bytes: u64,
}

/// What a push left.
#[derive(Debug, Clone, Serialize)]
pub struct Pushed {
    /// The server.
    pub url: String,
    /// The workspace's name.
    pub workspace: String,
    /// The dataset's name.
    pub dataset: String,
    /// Its id there.
    pub id: String,
    /// Records that were sent.
    pub num_records: u64,
    /// Of these, records that were there before.
    pub num_known: u64,
    /// Responses that were sent.
    pub num_responses: u64,
    /// Responses that stayed here, since the same person has one on that record there, which may be later.
    pub num_kept: u64,
}

/// Who is asked and told while files move.
pub trait Dialogue<Offer> {
    /// Whether to go on; called only if there is something to do.
    ///
    /// # Errors
    /// [`HubError::Declined`] where nobody can be asked.
    fn agree(&mut self, offer: &Offer) -> Result<(), HubError>;

    /// So many bytes of the offer have been moved.
    fn position(&mut self, num_bytes: u64);

    /// A line for people.
    fn note(&mut self, line: &str);
}
