//! Reading a bundle with distrust, as a folder, a tar or parts of one: its form is checked when it is opened, its bytes when they are read.
//! Knows what a whole bundle is; writes nothing.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::digest;
use super::error::{io_error, name_some};
use super::manifest::{Entry, MANIFEST_FILE, MAX_MANIFEST_BYTES, Manifest, SUMS_FILE};
use super::parts::Parts;
use super::{BundleError, tar};

/// What systems leave on disks by themselves.
const DROPPINGS: [&str; 7] =
    [".DS_Store", "Thumbs.db", "desktop.ini", "lost+found", "System Volume Information", ".Trashes", ".fseventsd"];

/// A bundle whose form is right.
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
    manifest: Manifest,
    bytes: Vec<u8>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Folder,
    Tar(Parts, Vec<tar::Place>),
}

impl Bundle {
    /// Opens the folder, the tar, or the set of parts that `path` names by its first part or without a number. Every name, size and
    /// header is looked at, no content.
    ///
    /// # Errors
    /// What is no bundle, is cut short, has something behind its end, or holds what no bundle of ours holds.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        if path.is_dir() { Self::open_folder(path) } else { Self::open_tar(path) }
    }

    /// What it holds.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest's own bytes.
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// As the user named it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// In what form it is, in words.
    pub fn form(&self) -> String {
        match &self.place {
            Place::Folder => "a folder".to_owned(),
            Place::Tar(parts, _) if parts.count() == 1 => "a tar".to_owned(),
            Place::Tar(parts, _) => format!("a tar in {} parts", parts.count()),
        }
    }

    fn open_folder(path: &Path) -> Result<Self, BundleError> {
        let file = path.join(MANIFEST_FILE);
        let not_one = |what: String| BundleError::NotABundle { path: path.to_owned(), what };
        let metadata =
            fs::symlink_metadata(&file).map_err(|_| not_one(format!("there is no {MANIFEST_FILE} in it")))?;
        if !metadata.is_file() || metadata.len() > MAX_MANIFEST_BYTES {
            return Err(not_one(format!("its {MANIFEST_FILE} is no plain file of at most 64 MiB")));
        }
        let bytes = fs::read(&file).map_err(io_error("read", &file))?;
        let manifest = Manifest::parse(&bytes, path)?;
        let bundle = Self { path: path.to_owned(), manifest, bytes, place: Place::Folder };
        bundle.check_folder()?;
        Ok(bundle)
    }

    /// Holds the names in the folder against the manifest: plain files of the right size, and no others.
    fn check_folder(&self) -> Result<(), BundleError> {
        let mut found = BTreeSet::new();
        let mut folders = vec![(self.path.clone(), String::new())];
        while let Some((folder, prefix)) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(io_error("read", &folder))? {
                let entry = entry.map_err(io_error("read", &folder))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let kind = entry.file_type().map_err(io_error("read", &entry.path()))?;
                let path = format!("{prefix}{name}");
                if DROPPINGS.contains(&name.as_str()) || name.starts_with("._") {
                    continue;
                } else if kind.is_dir() {
                    folders.push((entry.path(), format!("{path}/")));
                } else if kind.is_file() {
                    found.insert(path);
                } else {
                    let kind = if kind.is_symlink() { "a symbolic link" } else { "a device" };
                    return Err(self.unsafe_with(format!("{path:?} in it is {kind}, want a file")));
                }
            }
        }
        let own = [MANIFEST_FILE, SUMS_FILE];
        let wanted: BTreeSet<&str> = self.manifest.files.iter().map(|file| file.path.as_str()).chain(own).collect();
        let missing: Vec<&&str> = wanted.iter().filter(|path| !found.contains(**path)).collect();
        if !missing.is_empty() {
            return Err(self.damaged(format!("missing: {}", name_some(&missing))));
        }
        let strays: Vec<&String> = found.iter().filter(|path| !wanted.contains(path.as_str())).collect();
        if !strays.is_empty() {
            return Err(
                self.unsafe_with(format!("it holds files that its manifest does not name: {}", name_some(&strays)))
            );
        }
        for file in &self.manifest.files {
            let place = self.path.join(&file.path);
            let size = fs::metadata(&place).map_err(io_error("read", &place))?.len();
            if size != file.size_bytes {
                return Err(self.damaged(format!("{} has {size} bytes, want {}", file.path, file.size_bytes)));
            }
        }
        Ok(())
    }

    fn open_tar(path: &Path) -> Result<Self, BundleError> {
        let mut parts = Parts::find(path)?;
        let not_one = |what: String| BundleError::NotABundle { path: path.to_owned(), what };
        let mut header = [0; tar::BLOCK as usize];
        let is_long = parts.len() >= tar::BLOCK;
        if is_long {
            parts.read_exact(&mut header).map_err(io_error("read", path))?;
        }
        let Some(size) = tar::manifest_size(&header).filter(|size| *size <= MAX_MANIFEST_BYTES) else {
            let what = if is_long { tar::describe(&header) } else { format!("{} bytes", parts.len()) };
            return Err(not_one(format!("it begins with {what}, want a tar whose first file is {MANIFEST_FILE}")));
        };
        let cut = |parts: &Parts, want: u64| BundleError::Damaged {
            path: path.to_owned(),
            what: format!("it has {} bytes, want {want}: it is cut short, or a part of it is missing", parts.len()),
        };
        if parts.len() < tar::BLOCK + size {
            return Err(cut(&parts, tar::BLOCK + size));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        parts.read_exact(&mut bytes).map_err(io_error("read", path))?;
        let manifest = Manifest::parse(&bytes, path)?;
        let places = tar::places(&manifest, &bytes);
        let length = tar::length(&places);
        if parts.len() < length {
            return Err(cut(&parts, length));
        }
        let more = parts.len() - length;
        let mut bundle = Self { path: path.to_owned(), manifest, bytes, place: Place::Tar(parts, places.clone()) };
        bundle.check_headers(&places, length)?;
        if more > 0 {
            return Err(bundle.unsafe_with(format!("{more} bytes stand behind its end")));
        }
        Ok(bundle)
    }

    /// Every header is the one that follows from the manifest, and what is between and behind the files is zeros.
    fn check_headers(&mut self, places: &[tar::Place], length: u64) -> Result<(), BundleError> {
        let path = self.path.clone();
        for place in places {
            let found = self.bytes_at(place.header_at, tar::BLOCK).map_err(io_error("read", &path))?;
            let Some(want) = place.header() else {
                return Err(self.unsafe_with(format!("the path {:?}, which does not fit into a tar", place.path)));
            };
            if found != want {
                let what = format!(
                    "where {:?} of {} bytes should begin stands {}{}",
                    place.path,
                    place.size_bytes,
                    tar::describe(&found),
                    self.part_note(place.header_at, place.content_at())
                );
                return Err(self.unsafe_with(what));
            }
            let after = place.content_at() + place.size_bytes;
            let padding = self.bytes_at(after, place.padding()).map_err(io_error("read", &path))?;
            if padding.iter().any(|byte| *byte != 0) {
                return Err(self.unsafe_with(format!("something stands behind the content of {:?}", place.path)));
            }
        }
        let end = places.last().map_or(0, |place| place.content_at() + place.size_bytes + place.padding());
        let rest = self.bytes_at(end, length - end).map_err(io_error("read", &path))?;
        if rest.iter().any(|byte| *byte != 0) {
            return Err(self.unsafe_with(format!("at its end stands {}", tar::describe(&rest))));
        }
        Ok(())
    }

    fn bytes_at(&mut self, at: u64, count: u64) -> io::Result<Vec<u8>> {
        let Place::Tar(parts, _) = &mut self.place else { return Ok(Vec::new()) };
        parts.seek_to(at);
        let mut bytes = vec![0; usize::try_from(count).unwrap_or(0)];
        parts.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Which parts bytes `from` to `to` lie in, where there are several.
    fn part_note(&self, from: u64, to: u64) -> String {
        match &self.place {
            Place::Tar(parts, _) if parts.count() > 1 => {
                format!(" (in {}: are all parts of one set, and in their order?)", parts.names(from, to.max(from + 1)))
            }
            _ => String::new(),
        }
    }

    /// Hands the content of a file of the manifest to `write`, piece by piece, and checks it. What was written before an error is of a
    /// damaged file.
    ///
    /// # Errors
    /// A sum that is not the manifest's; reading and writing.
    pub fn copy(&mut self, entry: &Entry, write: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), BundleError> {
        let mut place_note = String::new();
        let got = match &mut self.place {
            Place::Folder => {
                let from = self.path.join(&entry.path);
                let mut file = open_plain(&from).map_err(io_error("read", &from))?;
                digest::copy(&mut file, entry.size_bytes, entry.lfs, write).map_err(io_error("copy", &from))?
            }
            Place::Tar(parts, places) => {
                let Some(place) = places.iter().find(|place| place.path == entry.path) else {
                    return Err(self.damaged(format!("{} is not in it", entry.path)));
                };
                let (from, to) = (place.content_at(), place.content_at() + place.size_bytes);
                parts.seek_to(from);
                let mut content = parts.take(entry.size_bytes);
                let got = digest::copy(&mut content, entry.size_bytes, entry.lfs, write);
                let got = got.map_err(io_error("copy from", &self.path))?;
                place_note = self.part_note(from, to);
                got
            }
        };
        let Entry { path, size_bytes, sha256, blob_id, .. } = entry;
        if got.size_bytes != *size_bytes {
            return Err(
                self.damaged(format!("{path} has {} bytes or more, want {size_bytes}{place_note}", got.size_bytes))
            );
        }
        if got.sha256 != *sha256 {
            return Err(self.damaged(format!("{path} has the SHA-256 {}, want {sha256}{place_note}", got.sha256)));
        }
        if got.blob_id != *blob_id {
            return Err(self.damaged(format!("{path} has the git hash {}, want {blob_id}{place_note}", got.blob_id)));
        }
        Ok(())
    }

    /// The list of sums is the one that follows from the manifest.
    ///
    /// # Errors
    /// Another list, or none.
    pub fn check_sums(&mut self) -> Result<(), BundleError> {
        let want = self.manifest.sums(&self.bytes).into_bytes();
        let path = self.path.clone();
        let found = match &self.place {
            Place::Folder => {
                let file = path.join(SUMS_FILE);
                let mut found = Vec::new();
                let open = open_plain(&file).map_err(io_error("read", &file))?;
                open.take(want.len() as u64 + 1).read_to_end(&mut found).map_err(io_error("read", &file))?;
                found
            }
            Place::Tar(_, places) => {
                let place = places.get(1).map_or(0, tar::Place::content_at);
                self.bytes_at(place, want.len() as u64).map_err(io_error("read", &path))?
            }
        };
        if found == want { Ok(()) } else { Err(self.damaged(format!("{SUMS_FILE} does not fit its {MANIFEST_FILE}"))) }
    }

    /// Reads and hashes all of it. `progress` is told the bytes read since it was last called.
    ///
    /// # Errors
    /// The first file that is not as the manifest says.
    pub fn check(&mut self, progress: &mut dyn FnMut(u64)) -> Result<(), BundleError> {
        self.check_sums()?;
        for entry in self.manifest.files.clone() {
            self.copy(&entry, |piece| {
                progress(piece.len() as u64);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn damaged(&self, what: String) -> BundleError {
        BundleError::Damaged { path: self.path.clone(), what }
    }

    fn unsafe_with(&self, what: String) -> BundleError {
        BundleError::Unsafe { path: self.path.clone(), what }
    }
}

/// Opens a file that is no link, as it was when the folder was looked at.
fn open_plain(path: &Path) -> io::Result<File> {
    if fs::symlink_metadata(path)?.is_file() { File::open(path) } else { Err(io::Error::other("it is no plain file")) }
}
