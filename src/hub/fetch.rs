//! One file from the Hub into the cache: resumed where it broke off, measured and hashed, and named when it is right.
//! Knows bytes and ranges; deliberately does not know why the file is wanted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use ureq::http::header;

use super::cache::{RepoCache, io_error};
use super::client::{Answer, Ask, Client, Fault, broken, shown};
use super::digest::Hasher;
use super::error::clean;
use super::listing::{RemoteFile, escaped, page};
use super::{HubError, RepoId};
use crate::provenance::{folder_of, sync_folder};

/// So many new bytes make up for the failures before them: a slow line that breaks now and then is patient work, not an error.
const PROGRESS_BYTES: u64 = 1 << 20;
const BUFFER_BYTES: usize = 1 << 17;

/// What all files of a pull share.
pub(super) struct Fetcher<'a> {
    pub(super) client: &'a Client,
    pub(super) repo: &'a RepoId,
    pub(super) commit: &'a str,
    pub(super) cache: &'a RepoCache,
}

/// A file that grows.
struct Partial {
    file: File,
    path: PathBuf,
    hasher: Hasher,
    num_bytes: u64,
}

impl Fetcher<'_> {
    /// Fetches `file`, whose lock the caller holds. `position` is told how many of its bytes are here.
    ///
    /// # Errors
    /// What the server or the disk did; [`HubError::Mismatch`] if the content is not what the listing says.
    pub(super) fn fetch(&self, file: &RemoteFile, mut position: impl FnMut(u64)) -> Result<(), HubError> {
        let mut partial = self.open(file)?;
        let mut is_resumed = partial.num_bytes > 0;
        loop {
            self.complete(file, &mut partial, &mut position)?;
            partial.file.sync_all().map_err(io_error("sync", &partial.path))?;
            let (what, got) = (partial.hasher.name(), partial.hasher.finish());
            if got == file.etag() {
                let blob = self.cache.blob(file);
                fs::rename(&partial.path, &blob).map_err(io_error("rename a fetched file to", &blob))?;
                let folder = folder_of(&blob);
                return sync_folder(folder).map_err(|error| io_error("sync", folder)(io::Error::other(error)));
            }
            fs::remove_file(&partial.path).map_err(io_error("remove", &partial.path))?;
            if !is_resumed {
                let (file, expected) = (file.path.clone(), file.etag().to_owned());
                return Err(HubError::Mismatch { file, what, got, expected });
            }
            // What an earlier pull left may have been spoilt since: once more, from the beginning.
            is_resumed = false;
            partial = self.open(file)?;
        }
    }

    /// What an earlier pull left, hashed again; or an empty file.
    fn open(&self, file: &RemoteFile) -> Result<Partial, HubError> {
        let path = self.cache.partial(file);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut handle = open.map_err(io_error("open", &path))?;
        let mut partial = Partial {
            hasher: hasher(file),
            num_bytes: 0,
            file: handle.try_clone().map_err(io_error("open", &path))?,
            path,
        };
        partial.num_bytes = partial.hasher.read(&mut handle).map_err(io_error("read", &partial.path))?;
        if partial.num_bytes > file.size_bytes {
            partial.restart(file)?;
        }
        Ok(partial)
    }

    /// Asks until all bytes are here.
    fn complete(
        &self,
        file: &RemoteFile,
        partial: &mut Partial,
        position: &mut impl FnMut(u64),
    ) -> Result<(), HubError> {
        let mut num_failures = 0;
        position(partial.num_bytes);
        while partial.num_bytes < file.size_bytes {
            let before = partial.num_bytes;
            match self.piece(file, partial, position) {
                Ok(()) => {}
                Err(Fault::Final(error)) => return Err(error),
                Err(Fault::Passing(error, wait_s)) => {
                    if partial.num_bytes >= before.saturating_add(PROGRESS_BYTES) {
                        num_failures = 0;
                    }
                    self.client.wait(&mut num_failures, error, wait_s)?;
                }
            }
        }
        Ok(())
    }

    /// One request for all that is missing, and as much of the answer as comes.
    fn piece(&self, file: &RemoteFile, partial: &mut Partial, position: &mut impl FnMut(u64)) -> Result<(), Fault> {
        let base = page(self.client, self.repo);
        let url = format!("{base}/resolve/{}/{}", self.commit, escaped(&file.path));
        let range = format!("bytes={}-", partial.num_bytes);
        let headers = [("range", range.as_str())];
        let headers = if partial.num_bytes > 0 { &headers[..] } else { &[] };
        let mut answer = self.client.once(&Ask { headers, ..Ask::get(&url) })?;
        self.check(file, &answer)?;
        if !partial.continues(&answer, file, &url)? {
            partial.restart(file)?;
            position(0);
        }
        let mut body = answer.response.body_mut().with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) if partial.num_bytes == file.size_bytes => return Ok(()),
                Ok(0) => {
                    let what = format!("{} broke off at {} of {} bytes", file.path, partial.num_bytes, file.size_bytes);
                    return Err(Fault::Passing(HubError::Connection { url: shown(&url), what }, None));
                }
                Ok(read) => read,
                Err(error) => return Err(broken(&url, &ureq::Error::from(error))),
            };
            let bytes = buffer.get(..read).unwrap_or_default();
            if partial.num_bytes + read as u64 > file.size_bytes {
                partial.restart(file)?;
                fs::remove_file(&partial.path).map_err(io_error("remove", &partial.path))?;
                let (got, expected) = ("more".to_owned(), format!("{} bytes", file.size_bytes));
                return Err(HubError::Mismatch { file: file.path.clone(), what: "its length", got, expected }.into());
            }
            partial.file.write_all(bytes).map_err(io_error("write", &partial.path))?;
            partial.hasher.update(bytes);
            partial.num_bytes += read as u64;
            position(partial.num_bytes);
        }
    }

    /// What the Hub says beside a file must be what its listing said.
    fn check(&self, file: &RemoteFile, answer: &Answer) -> Result<(), HubError> {
        let size = file.size_bytes.to_string();
        let pairs = [
            ("its commit", &answer.commit, self.commit),
            ("its hash by the header", &answer.etag, file.etag()),
            ("its length by the header", &answer.size, size.as_str()),
        ];
        for (what, got, expected) in pairs {
            if let Some(got) = got.as_ref().filter(|got| *got != expected) {
                let (file, got, expected) = (file.path.clone(), clean(got), expected.to_owned());
                return Err(HubError::Mismatch { file, what, got, expected });
            }
        }
        Ok(())
    }
}

fn hasher(file: &RemoteFile) -> Hasher {
    if file.sha256.is_some() { Hasher::sha256() } else { Hasher::git_blob(file.size_bytes) }
}

impl Partial {
    /// Forgets all bytes.
    fn restart(&mut self, file: &RemoteFile) -> Result<(), HubError> {
        self.file.set_len(0).map_err(io_error("write", &self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(io_error("write", &self.path))?;
        self.hasher = hasher(file);
        self.num_bytes = 0;
        Ok(())
    }

    /// Whether the answer goes on where the file ends; `false`: it begins anew.
    fn continues(&self, answer: &Answer, file: &RemoteFile, url: &str) -> Result<bool, Fault> {
        if answer.response.status().as_u16() != 206 {
            return Ok(self.num_bytes == 0);
        }
        let header = answer.response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let said = header.unwrap_or_default();
        let start = said.trim().strip_prefix("bytes ").and_then(|rest| rest.split_once('-'));
        if start.is_some_and(|(start, _)| start.parse() == Ok(self.num_bytes)) {
            return Ok(true);
        }
        let what = format!(
            "{}: the answer is the range `{}`, asked for was `bytes {}-` of {}",
            file.path,
            clean(said),
            self.num_bytes,
            file.size_bytes
        );
        Err(HubError::Answer { url: shown(url), what }.into())
    }
}
