//! Bundles: what goes in comes out, byte for byte; what is bad is refused with one error and leaves nothing.
//! Through the real binary where users are, through the library where every byte is tried.

#[path = "bundle/cache.rs"]
mod cache;
#[path = "bundle/create.rs"]
mod create;
#[path = "bundle/hostile.rs"]
mod hostile;
#[path = "bundle/install.rs"]
mod install;
#[path = "bundle/page.rs"]
mod page;
#[path = "support/program.rs"]
mod program;
#[path = "bundle/sealed.rs"]
mod sealed;
#[path = "bundle/verify.rs"]
mod verify;
#[path = "bundle/want.rs"]
mod want;
#[path = "support/workshop.rs"]
mod workshop;

use std::path::{Path, PathBuf};

use program::{Outcome, fixture_model, program, text, tree};
use workshop::Workshop;

/// A commit that no repository has.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The binary with a Hugging Face cache inside the workshop, in the workshop's folder.
fn run(workshop: &Workshop, arguments: &[&str]) -> Outcome {
    let mut command = program(arguments);
    command.env("HF_HUB_CACHE", workshop.path("hub")).current_dir(workshop.path("."));
    let output = command.output().expect("the binary starts");
    let utf8 = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Outcome { code: output.status.code(), stdout: utf8(output.stdout), stderr: utf8(output.stderr) }
}

/// The same, which must succeed; gives both streams.
fn done(workshop: &Workshop, arguments: &[&str]) -> String {
    let outcome = run(workshop, arguments);
    assert_eq!(outcome.code, Some(0), "{arguments:?}\n{}", outcome.stderr);
    outcome.stdout + &outcome.stderr
}

/// The same, which must fail with one error, all of `said` in it, a hint, and no change on disk.
fn refused(workshop: &Workshop, code: i32, arguments: &[&str], said: &[&str]) {
    let before = tree(&workshop.path("."));
    let Outcome { code: got, stderr, .. } = run(workshop, arguments);
    assert_eq!(got, Some(code), "{arguments:?}\n{stderr}");
    assert_eq!(stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "one error: {stderr}");
    assert!(stderr.contains("\nhint: "), "{stderr}");
    for word in said {
        assert!(stderr.contains(word), "want {word:?} in:\n{stderr}");
    }
    let after = tree(&workshop.path("."));
    let names = |tree: &std::collections::BTreeMap<PathBuf, Option<Vec<u8>>>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after), "{arguments:?} left something");
    assert!(before == after, "{arguments:?} changed a file");
}

/// A copy of a fixture model as the folder `name`, with a card that states a licence.
fn model(workshop: &Workshop, name: &str, fixture: &str) -> PathBuf {
    for entry in std::fs::read_dir(fixture_model(fixture)).expect("the fixture") {
        let from = entry.expect("an entry").path();
        let content = std::fs::read(&from).expect("a file");
        workshop.write(&format!("{name}/{}", from.file_name().unwrap().to_str().unwrap()), content);
    }
    workshop.write(&format!("{name}/README.md"), "---\nlicense: apache-2.0\n---\n");
    workshop.path(name)
}

/// The same in the workshop's Hugging Face cache as `org/name`, in blobs with links to them, and with the list of its files.
fn cached_model(workshop: &Workshop, name: &str, fixture: &str) -> PathBuf {
    let plain = model(workshop, "plain", fixture);
    let tar = workshop.arg("seed.tar");
    let named = format!("org/{name}@{COMMIT}={}", text(&plain));
    done(workshop, &["bundle", "create", "--models", &named, "-o", &tar]);
    done(workshop, &["bundle", "install", &tar, "--hf-cache"]);
    std::fs::remove_file(tar).unwrap();
    std::fs::remove_dir_all(plain).unwrap();
    workshop.path(&format!("hub/models--org--{name}/snapshots/{COMMIT}"))
}

/// A bundle of a few hundred bytes of prompts, as a folder or a tar.
fn small_bundle(workshop: &Workshop, name: &str) -> PathBuf {
    let prompts = workshop.prompts("p.jsonl", &workshop::ROWS[..2]);
    done(workshop, &["bundle", "create", "--dataset", text(&prompts), "-o", name, "-q"]);
    workshop.path(name)
}

/// Replaces text in a file, which must be there.
fn replace(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}
