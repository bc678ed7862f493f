//! Putting a bundle's items in place: into a folder, or into a Hugging Face cache. Each is complete or not there; what a cut-off install
//! had copied is used again, what a bad bundle had brought is taken away again.
//! Knows both layouts; reads through [`Bundle`], which checks every byte.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::create::{remove, set_executable};
use super::error::io_error;
use super::hf_cache::{Cache, Tree, TreeFile};
use super::manifest::{Entry, Item, Kind, MANIFEST_FILE, inside};
use super::{Bundle, BundleError};
use crate::provenance::{folder_of, sha256_file, sha256_hex, sync_folder, write_atomic};

/// Digits of the manifest's hash in the name of the folder where files wait.
const SHORT: usize = 12;

/// Where items go.
#[derive(Debug, Clone)]
pub enum Target {
    /// `DIR/models/…`, `DIR/datasets/…`, `DIR/bin`.
    Folder(PathBuf),
    /// What is, file by file, of the hub goes into the cache; the rest is left.
    Cache(Cache),
}

/// What became of an item.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "place")]
pub enum Outcome {
    /// It is there now.
    Installed(PathBuf),
    /// It was there, with every file.
    Present(PathBuf),
    /// It has no repository and commit, or is a part of a table: a cache has no place for it.
    NotOfTheHub,
}

/// An item and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Installed {
    /// The item's folder in the bundle.
    pub item: String,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What else should be said.
    pub note: Option<String>,
}

/// An install under way.
struct Work<'a> {
    bundle: &'a mut Bundle,
    progress: &'a mut dyn FnMut(u64),
    /// What this run made, in order: taken away again if the bundle turns out to be bad.
    made: Vec<PathBuf>,
}

/// Installs every item. `progress` is told the bytes copied since it was last called.
///
/// # Errors
/// A bad bundle, of which nothing is left; something else in the way; a disk that is full, after which the same command goes on.
pub fn install(
    bundle: &mut Bundle,
    target: &Target,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<Installed>, BundleError> {
    bundle.check_sums()?;
    let items = bundle.manifest().items.clone();
    for text in bundle.manifest().files.clone() {
        // What is of no item is not installed, and has to be right all the same.
        if items.iter().all(|item| inside(&text.path, &item.folder).is_none()) {
            bundle.copy(&text, |_| Ok(()))?;
        }
    }
    check_space(bundle, target, &items)?;
    let mut work = Work { bundle, progress, made: Vec::new() };
    let done = match target {
        Target::Folder(dir) => work.fill_folder(dir, &items),
        Target::Cache(cache) => items.iter().map(|item| work.fill_cache(cache, item)).collect(),
    };
    if let Err(error) = &done
        && !error.is_of_the_machine()
    {
        work.undo();
    }
    done
}

/// Bytes of what is not in place yet fit onto the disk.
fn check_space(bundle: &Bundle, target: &Target, items: &[Item]) -> Result<(), BundleError> {
    let manifest = bundle.manifest();
    let place = match target {
        Target::Folder(dir) => dir.as_path(),
        Target::Cache(cache) => cache.root(),
    };
    let is_missing = |item: &&Item| match target {
        Target::Folder(dir) => !is_present(bundle, &dir.join(&item.folder), item),
        Target::Cache(cache) => item.hub().is_some_and(|_| !is_cached(bundle, cache, item)),
    };
    let missing = items.iter().filter(is_missing).flat_map(|item| manifest.files_of(item));
    let wanted_bytes = missing.fold(0_u64, |sum, (_, file)| sum.saturating_add(file.size_bytes));
    match crate::provenance::free_bytes(place) {
        Some(free_bytes) if free_bytes < wanted_bytes => {
            Err(BundleError::NoSpace { path: place.to_owned(), wanted_bytes, free_bytes })
        }
        _ => Ok(()),
    }
}

/// Whether `place` has every file of the item, and says that it is this item; of a program, which has no such note, by its sum.
fn is_present(bundle: &Bundle, place: &Path, item: &Item) -> bool {
    if item.kind == Kind::Binary {
        let same = |(path, file): (&str, &Entry)| sha256_file(&place.join(path)).is_ok_and(|sum| sum == file.sha256);
        return bundle.manifest().files_of(item).all(same);
    }
    let receipt = bundle.manifest().of_item(item).to_bytes();
    fs::read(place.join(MANIFEST_FILE)).is_ok_and(|found| found == receipt) && has_all(bundle, place, item)
}

fn has_all(bundle: &Bundle, place: &Path, item: &Item) -> bool {
    let right = |(path, file): (&str, &Entry)| has(&place.join(path), file);
    bundle.manifest().files_of(item).all(right)
}

/// Whether there is a file of the right size.
fn has(path: &Path, file: &Entry) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == file.size_bytes)
}

fn snapshot_dir(cache: &Cache, item: &Item) -> Option<PathBuf> {
    let (repo, commit) = item.hub()?;
    Some(cache.repo_dir(item.kind, repo).join("snapshots").join(commit))
}

fn is_cached(bundle: &Bundle, cache: &Cache, item: &Item) -> bool {
    let Some((repo, commit)) = item.hub() else { return false };
    let dir = cache.repo_dir(item.kind, repo);
    let tree = dir.join("trees").join(format!("{commit}.json"));
    let name = item.revision.as_deref().unwrap_or("main");
    let is_named = fs::read_to_string(dir.join("refs").join(name)).is_ok_and(|text| text.trim() == commit);
    is_named && tree.is_file() && snapshot_dir(cache, item).is_some_and(|place| has_all(bundle, &place, item))
}

impl Work<'_> {
    /// Items wait in a folder of their own until all are whole; then each is put in place by one rename.
    fn fill_folder(&mut self, dir: &Path, items: &[Item]) -> Result<Vec<Installed>, BundleError> {
        let short = sha256_hex(self.bundle.manifest_bytes());
        let staging = dir.join(format!(".pairwright-{}.partial", short.get(..SHORT).unwrap_or(&short)));
        let mut done = Vec::new();
        let mut wanted = Vec::new();
        for item in items {
            let place = dir.join(&item.folder);
            if is_present(self.bundle, &place, item) {
                done.push(Installed { item: item.folder.clone(), outcome: Outcome::Present(place), note: None });
                continue;
            }
            let own = self.bundle.manifest().of_item(item).to_bytes();
            let is_ours = fs::read(place.join(MANIFEST_FILE)).is_ok_and(|found| found == own);
            if place.symlink_metadata().is_ok() && !is_ours && item.kind != Kind::Binary {
                return Err(BundleError::Exists { path: place, what: " and is something else" });
            }
            wanted.push((item, place));
        }
        if !wanted.is_empty() {
            self.make_dir(&staging)?;
            // Whatever was copied before is of a file with the right sum: it got its name only then.
            self.made.push(staging.clone());
        }
        for (item, _) in &wanted {
            self.stage(&staging, item)?;
        }
        for (item, place) in wanted {
            self.make_dir(folder_of(&place))?;
            if item.kind == Kind::Binary {
                done.push(self.put_program(&staging, item, place)?);
                continue;
            }
            let old = staging.join("replaced");
            if place.symlink_metadata().is_ok() {
                fs::rename(&place, &old).map_err(io_error("move away", &place))?;
            }
            fs::rename(staging.join(&item.folder), &place).map_err(io_error("put in place", &place))?;
            sync_folder(folder_of(&place))?;
            remove(&old)?;
            done.push(Installed { item: item.folder.clone(), outcome: Outcome::Installed(place), note: None });
        }
        remove(&staging)?;
        done.sort_by(|a, b| a.item.cmp(&b.item));
        Ok(done)
    }

    /// A program takes the place of an older one, and other things in that folder stay.
    fn put_program(&mut self, staging: &Path, item: &Item, place: PathBuf) -> Result<Installed, BundleError> {
        self.make_dir(&place)?;
        for (name, file) in self.bundle.manifest().files_of(item) {
            let to = place.join(name);
            fs::rename(staging.join(&file.path), &to).map_err(io_error("put in place", &to))?;
        }
        sync_folder(&place)?;
        Ok(Installed { item: item.folder.clone(), outcome: Outcome::Installed(place), note: None })
    }

    /// Copies the item's files to where they wait, but those that are there.
    fn stage(&mut self, staging: &Path, item: &Item) -> Result<(), BundleError> {
        let files: Vec<Entry> = self.bundle.manifest().files_of(item).map(|(_, file)| file.clone()).collect();
        for file in files {
            let to = staging.join(&file.path);
            if has(&to, &file) {
                (self.progress)(file.size_bytes);
                continue;
            }
            self.copy(&file, &to)?;
            if item.kind == Kind::Binary {
                set_executable(&to)?;
            }
        }
        if item.kind != Kind::Binary {
            let receipt = self.bundle.manifest().of_item(item).to_bytes();
            write_atomic(&staging.join(&item.folder).join(MANIFEST_FILE), &receipt)?;
        }
        Ok(())
    }

    /// Copies a file under another name, checks it, makes it durable, and gives it its name.
    fn copy(&mut self, file: &Entry, to: &Path) -> Result<(), BundleError> {
        let folder = folder_of(to);
        self.make_dir(folder)?;
        let name = to.file_name().unwrap_or_default().to_string_lossy();
        let aside = folder.join(format!(".{name}.partial"));
        let _ = fs::remove_file(&aside);
        let mut target = File::create_new(&aside).map_err(io_error("create", &aside))?;
        let progress = &mut self.progress;
        let copied = self.bundle.copy(file, |piece| {
            progress(piece.len() as u64);
            target.write_all(piece)
        });
        let synced = copied.and_then(|()| target.sync_all().map_err(io_error("write", &aside)));
        if let Err(error) = synced.and_then(|()| fs::rename(&aside, to).map_err(io_error("name", to))) {
            // Best effort: the error that is reported is the one that matters.
            let _ = fs::remove_file(&aside);
            return Err(error);
        }
        Ok(())
    }

    /// Blobs first, then the links of the snapshot, then its list of files, and the branch's name last: a program that looks by name sees
    /// the old commit or all of the new one.
    fn fill_cache(&mut self, cache: &Cache, item: &Item) -> Result<Installed, BundleError> {
        let told = |outcome, note| Installed { item: item.folder.clone(), outcome, note };
        let (Some((repo, commit)), Some(snapshot)) = (item.hub(), snapshot_dir(cache, item)) else {
            return Ok(told(Outcome::NotOfTheHub, None));
        };
        if is_cached(self.bundle, cache, item) {
            return Ok(told(Outcome::Present(snapshot), None));
        }
        let dir = cache.repo_dir(item.kind, repo);
        let files: Vec<(String, Entry)> =
            self.bundle.manifest().files_of(item).map(|(path, file)| (path.to_owned(), file.clone())).collect();
        for (_, file) in &files {
            let blob = dir.join("blobs").join(file.etag());
            if has(&blob, file) {
                (self.progress)(file.size_bytes);
                continue;
            }
            let _ = fs::remove_file(&blob);
            self.copy(file, &blob)?;
            self.made.push(blob);
        }
        for (path, file) in &files {
            let at = snapshot.join(path);
            if !has(&at, file) {
                self.make_dir(folder_of(&at))?;
                link(&dir, &at, path, file)?;
                self.made.push(at);
            }
        }
        let one = |(path, file): &(String, Entry)| {
            let in_lfs = file.lfs.then(|| file.sha256.clone());
            let tree_file = TreeFile {
                size: file.size_bytes,
                blob_id: Some(file.blob_id.clone()),
                lfs_size: in_lfs.as_ref().map(|_| file.size_bytes),
                lfs_sha256: in_lfs,
                xet_hash: None,
            };
            (path.clone(), tree_file)
        };
        let tree = Tree::new(files.iter().map(one).collect::<BTreeMap<_, _>>());
        let tree_path = dir.join("trees").join(format!("{commit}.json"));
        // INFALLIBLE: strings and numbers under strings are always JSON
        let bytes = serde_json::to_vec(&tree).expect("plain data is JSON");
        self.make_dir(folder_of(&tree_path))?;
        write_atomic(&tree_path, &bytes)?;
        let name = item.revision.as_deref().unwrap_or("main");
        let reference = dir.join("refs").join(name);
        self.make_dir(folder_of(&reference))?;
        let before = fs::read_to_string(&reference).ok().map(|text| text.trim().to_owned());
        write_atomic(&reference, commit.as_bytes())?;
        let moved = before.filter(|before| before != commit);
        let note = moved.map(|before| format!("`{name}` was commit {before} before, which is still there"));
        Ok(told(Outcome::Installed(snapshot), note))
    }

    /// Makes a folder and those above it, and remembers the topmost that is new.
    fn make_dir(&mut self, dir: &Path) -> Result<(), BundleError> {
        let new = dir.ancestors().take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists()).last();
        let new = new.map(Path::to_path_buf);
        fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        self.made.extend(new);
        Ok(())
    }

    /// Takes away what this run made, newest first; a folder with everything in it, for nobody else has written there.
    fn undo(&mut self) {
        for path in self.made.drain(..).rev() {
            // Best effort: the error that is reported is the bundle's.
            let _ = match path.symlink_metadata() {
                Ok(found) if found.is_dir() => fs::remove_dir_all(&path),
                _ => fs::remove_file(&path),
            };
        }
    }
}

/// Puts a blob into a snapshot: a relative link where the disk has links, a second name or a copy where it does not.
fn link(repo_dir: &Path, at: &Path, path: &str, file: &Entry) -> Result<(), BundleError> {
    let _ = fs::remove_file(at);
    let blob = repo_dir.join("blobs").join(file.etag());
    let up = "../".repeat(path.matches('/').count() + 2);
    symlink(&format!("{up}blobs/{}", file.etag()), at)
        .or_else(|_| fs::hard_link(&blob, at))
        .or_else(|_| fs::copy(&blob, at).map(drop))
        .map_err(io_error("link", at))
}

#[cfg(unix)]
fn symlink(to: &str, at: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(to, at)
}

#[cfg(not(unix))]
fn symlink(_to: &str, _at: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}
