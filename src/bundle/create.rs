//! Making a bundle: what was collected is planned, sized and then written once, hashing on the way; under another name until all of it is
//! there, so that what a cut-off create leaves does not look whole.
//! Knows files and their order; nothing of models. The same input gives the same bytes: no times, no owners, no order of a folder.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::digest::{self, Digests};
use super::error::io_error;
use super::manifest::{Entry, Item, MANIFEST_FILE, Manifest, SUMS_FILE};
use super::parts::{MAX_PARTS, PartWriter, part_path, sums_path};
use super::source::{Collected, Content, SourceFile};
use super::{BundleError, tar, texts};
use crate::provenance::{folder_of, sha256_file, sync_folder};

/// In what form a bundle is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A folder.
    Folder(PathBuf),
    /// One tar, or parts of it.
    Tar {
        /// Its name; parts have a number behind it.
        path: PathBuf,
        /// Bytes of a part.
        part_bytes: Option<u64>,
    },
}

impl Output {
    /// What the user named.
    pub fn path(&self) -> &Path {
        match self {
            Self::Folder(path) | Self::Tar { path, .. } => path,
        }
    }
}

/// A bundle that could be written.
#[derive(Debug)]
pub struct Plan {
    items: Vec<Item>,
    files: Vec<SourceFile>,
    output: Output,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The manifest.
    pub manifest: Manifest,
    /// The folder, the tar, or its parts and the list of their sums.
    pub paths: Vec<PathBuf>,
    /// Bytes on disk.
    pub size_bytes: u64,
}

impl Plan {
    /// Puts together what was collected, with the texts that a bundle brings along.
    ///
    /// # Errors
    /// Two things of one name, names that do not fit, an output that is there already, a disk that is too small.
    pub fn new(collected: Vec<Collected>, output: Output) -> Result<Self, BundleError> {
        let mut plan = Self { items: Vec::new(), files: Vec::new(), output };
        for Collected { item, files } in collected {
            plan.items.push(item);
            plan.files.extend(files);
        }
        plan.items.sort_by(|a, b| a.folder.cmp(&b.folder));
        let texts = texts::files(&plan.items, &plan.files, &plan.output);
        plan.files.extend(texts);
        plan.files.sort_by(|a, b| a.path.cmp(&b.path));
        let out = plan.output.path().to_path_buf();
        let unfit = |what: String, hint: &str| BundleError::Source { path: out.clone(), what, hint: hint.to_owned() };
        // A reader refuses the same things, in the same words.
        let manifest = plan.manifest(&[]);
        Manifest::parse(&manifest.to_bytes(), &out).map_err(|error| match error {
            BundleError::Unsafe { what, .. } => unfit(what, "give each model and dataset once, under a plain name"),
            other => other,
        })?;
        if let Some(file) = plan.files.iter().find(|file| !tar::fits(&file.path)) {
            return Err(unfit(format!("the path {:?} is too long", file.path), "shorten the name of its folder"));
        }
        plan.check_output()?;
        Ok(plan)
    }

    fn check_output(&self) -> Result<(), BundleError> {
        let path = self.output.path();
        let there = match &self.output {
            Output::Tar { path, part_bytes: Some(part_bytes) } => {
                let parts = self.length().div_ceil(*part_bytes);
                if parts > MAX_PARTS {
                    let what = format!("{parts} parts, want at most {MAX_PARTS}");
                    let hint = "take a larger --split".to_owned();
                    return Err(BundleError::Source { path: path.clone(), what, hint });
                }
                part_path(path, 0).exists() || sums_path(path).exists() || path.exists()
            }
            _ => path.exists(),
        };
        if there {
            return Err(BundleError::Exists { path: path.to_owned(), what: "" });
        }
        let wanted_bytes = self.length();
        match crate::provenance::free_bytes(folder_of(path)) {
            Some(free_bytes) if free_bytes < wanted_bytes => {
                Err(BundleError::NoSpace { path: folder_of(path).to_owned(), wanted_bytes, free_bytes })
            }
            _ => Ok(()),
        }
    }

    /// What it holds.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Files of an item and their bytes.
    pub fn size_of(&self, item: &Item) -> (usize, u64) {
        let own = self.files.iter().filter(|file| super::manifest::inside(&file.path, &item.folder).is_some());
        own.fold((0, 0), |(count, sum), file| (count + 1, sum + file.size_bytes))
    }

    /// Bytes of all files, which are read once.
    pub fn content_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }

    /// Bytes that it takes on disk.
    pub fn length(&self) -> u64 {
        let manifest = self.manifest(&[]);
        tar::length(&tar::places(&manifest, &manifest.to_bytes()))
    }

    /// Where it goes.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// The manifest with these hashes, or with zeros: it has the same length either way.
    fn manifest(&self, digests: &[Digests]) -> Manifest {
        let one = |(index, file): (usize, &SourceFile)| {
            let digests = digests.get(index);
            Entry {
                path: file.path.clone(),
                size_bytes: file.size_bytes,
                sha256: digests.map_or_else(|| "0".repeat(64), |digests| digests.sha256.clone()),
                blob_id: digests.map_or_else(|| "0".repeat(40), |digests| digests.blob_id.clone()),
                lfs: file.lfs,
            }
        };
        Manifest::new(self.items.clone(), self.files.iter().enumerate().map(one).collect())
    }

    /// Writes it. `progress` is told the bytes copied since it was last called.
    ///
    /// # Errors
    /// A file that cannot be read or written, that changed meanwhile, or that is not what its commit says. Nothing is left then.
    pub fn write(&self, progress: &mut dyn FnMut(u64)) -> Result<Written, BundleError> {
        let out = self.output.path();
        let name = out.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let work = folder_of(out).join(format!(".{name}.partial"));
        remove(&work)?;
        fs::create_dir_all(&work).map_err(io_error("create", &work))?;
        let written = match &self.output {
            Output::Folder(path) => self.write_folder(&work, path, progress),
            Output::Tar { path, part_bytes } => self.write_tar(&work, path, *part_bytes, progress),
        };
        let removed = remove(&work);
        let written = written?;
        removed?;
        sync_folder(folder_of(out))?;
        Ok(written)
    }

    fn write_folder(&self, work: &Path, out: &Path, progress: &mut dyn FnMut(u64)) -> Result<Written, BundleError> {
        let root = work.join("bundle");
        let mut digests = Vec::new();
        for file in &self.files {
            let to = root.join(&file.path);
            let mut target = create_file(&to)?;
            digests.push(self.copy(file, &to, &mut target, progress)?);
            target.sync_all().map_err(io_error("write", &to))?;
            make_executable(&to, file)?;
        }
        let manifest = self.manifest(&digests);
        let bytes = manifest.to_bytes();
        for (name, content) in [(SUMS_FILE, manifest.sums(&bytes).as_bytes()), (MANIFEST_FILE, &bytes)] {
            let to = root.join(name);
            let mut target = create_file(&to)?;
            target.write_all(content).and_then(|()| target.sync_all()).map_err(io_error("write", &to))?;
        }
        fs::rename(&root, out).map_err(io_error("rename a finished folder to", out))?;
        let size_bytes = manifest.size_bytes() + bytes.len() as u64;
        Ok(Written { manifest, paths: vec![out.to_owned()], size_bytes })
    }

    /// The manifest comes first in the tar and is known last: its place is left out at first.
    fn write_tar(
        &self,
        work: &Path,
        out: &Path,
        part_bytes: Option<u64>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Written, BundleError> {
        let name = Path::new(out.file_name().unwrap_or_default());
        let aside = work.join(name);
        let mut writer = PartWriter::new(&aside, part_bytes);
        let draft = self.manifest(&[]);
        let places = tar::places(&draft, &draft.to_bytes());
        let length = tar::length(&places);
        let mut digests = Vec::new();
        for place in &places {
            writer.seek_to(place.header_at)?;
            // INFALLIBLE: Plan::new refused paths that have no header
            let header = place.header().expect("a path that fits");
            writer.write_all(&header).map_err(io_error("write", &aside))?;
            if let Some(file) = self.file_at(place, digests.len()) {
                digests.push(self.copy(file, &aside, &mut writer, progress)?);
                pad(&mut writer, place.padding()).map_err(io_error("write", &aside))?;
            }
        }
        let end = places.last().map_or(0, |place| place.content_at() + place.size_bytes + place.padding());
        writer.seek_to(end)?;
        pad(&mut writer, length - end).map_err(io_error("write", &aside))?;
        let manifest = self.manifest(&digests);
        let bytes = manifest.to_bytes();
        let sums = manifest.sums(&bytes);
        for (place, content) in places.iter().zip([&bytes[..], sums.as_bytes()]) {
            writer.seek_to(place.content_at())?;
            writer.write_all(content).map_err(io_error("write", &aside))?;
            pad(&mut writer, place.padding()).map_err(io_error("write", &aside))?;
        }
        writer.close()?;
        let made = writer.paths(length);
        let mut lines = String::new();
        let mut paths = Vec::new();
        // The first part last: a set without it is not found.
        for from in made.iter().rev() {
            let name = from.file_name().unwrap_or_default();
            let to = out.with_file_name(name);
            if part_bytes.is_some() {
                lines = format!("{}  {}\n{lines}", sha256_file(from)?, name.to_string_lossy());
            }
            paths.insert(0, (from.clone(), to));
        }
        if part_bytes.is_some() {
            let (from, to) = (sums_path(&aside), sums_path(out));
            fs::write(&from, lines).map_err(io_error("write", &from))?;
            paths.push((from, to));
        }
        for (from, to) in paths.iter().rev() {
            fs::rename(from, to).map_err(io_error("rename a finished file to", to))?;
        }
        Ok(Written { manifest, paths: paths.into_iter().map(|(_, to)| to).collect(), size_bytes: length })
    }

    /// The file that `place` is for, which is the next one; none for the manifest and the sums.
    fn file_at(&self, place: &tar::Place, index: usize) -> Option<&SourceFile> {
        self.files.get(index).filter(|file| file.path == place.path)
    }

    fn copy(
        &self,
        file: &SourceFile,
        to: &Path,
        target: &mut dyn Write,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Digests, BundleError> {
        let (mut reader, from): (Box<dyn Read + '_>, &Path) = match &file.content {
            Content::File(from) => (Box::new(File::open(from).map_err(io_error("read", from))?), from),
            Content::Text(text) => (Box::new(&text[..]), to),
        };
        let mut left = file.size_bytes;
        let copied = digest::copy(&mut reader, file.size_bytes, file.lfs, |piece| {
            // What is beyond the size shows in the digests, and must not reach the next file's place.
            let within = piece.get(..usize::try_from(left).unwrap_or(usize::MAX)).unwrap_or(piece);
            left -= within.len() as u64;
            progress(piece.len() as u64);
            target.write_all(within)
        });
        let got = copied.map_err(io_error("copy", from))?;
        let unfit = |what: String, hint: String| BundleError::Source { path: from.to_owned(), what, hint };
        if got.size_bytes != file.size_bytes {
            return Err(unfit("it changed while it was read".to_owned(), "wait until it is written".to_owned()));
        }
        let expected = file.expected.as_ref();
        let sha256 = expected.and_then(|file| file.sha256.as_ref()).is_some_and(|want| *want != got.sha256);
        let blob_id = expected.and_then(|file| file.blob_id.as_ref()).is_some_and(|want| *want != got.blob_id);
        if sha256 || blob_id {
            let hint = "the file is damaged: fetch it again".to_owned();
            return Err(unfit("it has other bytes than its commit's hash says".to_owned(), hint));
        }
        Ok(got)
    }
}

fn pad(writer: &mut impl Write, count: u64) -> std::io::Result<()> {
    let zeros = [0; tar::BLOCK as usize];
    let mut left = count;
    while left > 0 {
        let piece = left.min(tar::BLOCK);
        writer.write_all(zeros.get(..piece as usize).unwrap_or(&zeros))?;
        left -= piece;
    }
    Ok(())
}

fn create_file(path: &Path) -> Result<File, BundleError> {
    let folder = folder_of(path);
    fs::create_dir_all(folder).map_err(io_error("create", folder))?;
    File::create_new(path).map_err(io_error("create", path))
}

/// Programs are made to run.
fn make_executable(path: &Path, file: &SourceFile) -> Result<(), BundleError> {
    if file.path.starts_with("bin/") { set_executable(path) } else { Ok(()) }
}

/// Lets everybody run a file, on systems where that is a property of files.
pub(super) fn set_executable(path: &Path) -> Result<(), BundleError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(io_error("change", path))?;
    }
    Ok(())
}

/// Removes a folder and what is in it, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), BundleError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}
