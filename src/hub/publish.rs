//! A finished dataset onto the Hub: what differs from what is there, agreed to, sent, and made visible by one commit.
//! Knows the order of things and compares hashes; how content is sent is in `upload`.

use std::path::{Path, PathBuf};

use super::cache::io_error;
use super::client::Client;
use super::digest::Hasher;
use super::listing::{self, RemoteFile};
use super::upload::Uploader;
use super::{Dialogue, Hub, HubError, PublishRequest, Published, RepoId, Transfer, UploadOffer};

/// The branch that is published to.
pub(super) const BRANCH: &str = "main";
/// Folders of a dataset whose files are all read as its rows: one that stays from an earlier publication would be too.
const ROW_FOLDERS: [&str; 3] = ["data/", "raw/", "votes/"];

/// A file that is to be published.
pub(super) struct LocalFile {
    /// Its path in the repository.
    pub(super) path: String,
    /// Where it lies.
    pub(super) source: PathBuf,
    pub(super) size_bytes: u64,
    pub(super) sha256: String,
    pub(super) blob_id: String,
}

/// What is on the Hub already.
struct Remote {
    commit: Option<String>,
    files: Vec<RemoteFile>,
    private: bool,
}

/// Makes the repository's branch hold the folder's files; a repository that does already is left as it is.
///
/// # Errors
/// See [`HubError`]. The commit is the last step: before it nothing is visible, and the same call does it all again.
pub fn publish(
    hub: &Hub,
    request: &PublishRequest,
    dialogue: &mut dyn Dialogue<UploadOffer>,
) -> Result<Published, HubError> {
    let repo = &request.repo;
    let client = Client::new(hub)?;
    if !client.has_token() {
        return Err(HubError::NoToken { endpoint: client.endpoint().to_owned() });
    }
    let files = local_files(&request.folder)?;
    let mut remote = look(&client, repo)?;
    if request.private && remote.commit.is_some() && !remote.private {
        return Err(HubError::Unusable {
            repo: repo.id.clone(),
            what: "the repository is there and public, --private was asked for".to_owned(),
            hint: "make it private in its settings, give another --repo, or leave --private out".to_owned(),
        });
    }
    let is_there = |file: &LocalFile| remote.files.iter().any(|other| other.path == file.path && same(file, other));
    let (unchanged, changed): (Vec<_>, Vec<_>) = files.iter().partition(|file| is_there(file));
    let is_left = |other: &&RemoteFile| {
        let of_rows = ROW_FOLDERS.iter().any(|folder| other.path.starts_with(folder));
        of_rows && !files.iter().any(|file| file.path == other.path)
    };
    let removed: Vec<String> = remote.files.iter().filter(is_left).map(|file| file.path.clone()).collect();
    let url = listing::page(&client, repo);
    if let Some(commit) = remote.commit.clone().filter(|_| changed.is_empty() && removed.is_empty()) {
        return Ok(Published { repo: repo.clone(), url, commit, num_sent: 0, num_removed: 0 });
    }
    let one = |file: &&LocalFile| Transfer { path: file.path.clone(), size_bytes: file.size_bytes };
    dialogue.agree(&UploadOffer {
        repo: repo.clone(),
        created: remote.commit.is_none().then_some(request.private),
        files: changed.iter().map(one).collect(),
        num_unchanged: unchanged.len(),
        removed: removed.clone(),
    })?;
    let uploader = Uploader { client: &client, repo };
    if remote.commit.is_none() {
        uploader.create(request.private)?;
        remote = look(&client, repo)?;
    }
    let large = uploader.send_contents(&changed, |sent| dialogue.position(sent))?;
    let commit = uploader.commit(&request.summary, remote.commit.as_deref(), &changed, &large, &removed)?;
    Ok(Published { repo: repo.clone(), url, commit, num_sent: changed.len(), num_removed: removed.len() })
}

/// What the branch holds; nothing if there is no such repository.
fn look(client: &Client, repo: &RepoId) -> Result<Remote, HubError> {
    match listing::resolve(client, repo, BRANCH) {
        Ok(found) => {
            let files = listing::files(client, repo, &found.commit)?;
            Ok(Remote { commit: Some(found.commit), files, private: found.private })
        }
        Err(HubError::NotFound { .. }) => Ok(Remote { commit: None, files: Vec::new(), private: false }),
        Err(error) => Err(error),
    }
}

fn same(file: &LocalFile, other: &RemoteFile) -> bool {
    let hash = other.sha256.as_ref().map_or(&file.blob_id, |_| &file.sha256);
    other.size_bytes == file.size_bytes && hash == other.etag()
}

/// All files below `folder` in order of path, hashed; what begins with a dot is somebody's leftover and no part of a dataset.
fn local_files(folder: &Path) -> Result<Vec<LocalFile>, HubError> {
    let mut files = Vec::new();
    let mut folders = vec![(folder.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(io_error("read", &folder))? {
            let entry = entry.map_err(io_error("read", &folder))?;
            let source = entry.path();
            let kind = entry.file_type().map_err(io_error("read", &source))?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            if name.starts_with('.') {
                continue;
            }
            let path = format!("{prefix}{name}");
            if kind.is_dir() {
                folders.push((source, format!("{path}/")));
            } else if kind.is_file() {
                files.push(hashed(path, source)?);
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn hashed(path: String, source: PathBuf) -> Result<LocalFile, HubError> {
    let open = || std::fs::File::open(&source).map_err(io_error("open", &source));
    let size_bytes = open()?.metadata().map_err(io_error("read", &source))?.len();
    let (mut sha256, mut blob_id) = (Hasher::sha256(), Hasher::git_blob(size_bytes));
    for hasher in [&mut sha256, &mut blob_id] {
        hasher.read(&mut open()?).map_err(io_error("read", &source))?;
    }
    Ok(LocalFile { path, size_bytes, sha256: sha256.finish(), blob_id: blob_id.finish(), source })
}
