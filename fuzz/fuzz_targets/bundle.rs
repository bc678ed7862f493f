//! A bundle from anywhere, as a tar and as a manifest: it is refused, or all that it names and installs lies inside its own folders.
//! Knows the two forms that bytes can have; what is in a file of a bundle is not looked at.

#![no_main]

use std::path::{Component, Path};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pairwright::bundle::install::{Outcome, Target, install};
use pairwright::bundle::{Bundle, Manifest};
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));

fn is_inside(path: &str) -> bool {
    Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::parse(bytes, Path::new("m")) {
        assert!(manifest.files.iter().all(|file| is_inside(&file.path)));
        assert!(manifest.items.iter().all(|item| is_inside(&item.folder)));
        let again = Manifest::parse(&manifest.to_bytes(), Path::new("m")).expect("what was read can be written");
        assert_eq!(again, manifest);
        assert_eq!(manifest.sums(bytes).lines().count(), manifest.files.len() + 1);
    }
    let (path, place) = (FOLDER.path().join("b.tar"), FOLDER.path().join("t"));
    std::fs::write(&path, bytes).expect("write the file");
    let Ok(mut bundle) = Bundle::open(&path) else { return };
    let is_whole = bundle.check(&mut |_| ()).is_ok();
    let done = install(&mut bundle, &Target::Folder(place.clone()), &mut |_| ());
    match &done {
        Ok(items) => {
            assert!(is_whole || items.is_empty(), "what is installed was whole");
            let there =
                |outcome: &Outcome| matches!(outcome, Outcome::Installed(at) if at.starts_with(&place) && at.is_dir());
            assert!(items.iter().all(|item| there(&item.outcome)));
        }
        Err(_) => assert!(!place.exists(), "of what is refused nothing is left"),
    }
    let _ = std::fs::remove_dir_all(&place);
});
