//! Runs the real binary and looks at what it said and left: exit code, both streams, every file of a folder.
//! Knows processes and files; makes no claim about what a command should do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use assert_cmd::Command;

/// What a process left behind.
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The binary with `arguments`, in an environment where dates are pinned and nothing is coloured.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pairwright"));
    command.args(arguments).env("PAIRWRIGHT_DATE", "2026-11-22").env("NO_COLOR", "1").env_remove("RUST_BACKTRACE");
    command
}

/// Runs to the end.
pub fn run(arguments: &[&str]) -> Outcome {
    let output = program(arguments).output().expect("the binary starts");
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
    }
}

/// Runs to the end and wants success; gives stdout.
pub fn done(arguments: &[&str]) -> String {
    let outcome = run(arguments);
    assert_eq!(outcome.code, Some(0), "{arguments:?}\n{}", outcome.stderr);
    outcome.stdout
}

/// A model directory of the fixtures.
pub fn fixture_model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name)
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// Every file under `dir` with its bytes, folders with `None`; empty if there is no such folder.
pub fn tree(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a folder entry").path();
            let content = if path.is_dir() {
                folders.push(path.clone());
                None
            } else {
                // Of a link that leads nowhere, where it leads.
                let target = |_| std::fs::read_link(&path).map(|to| to.into_os_string().into_encoded_bytes());
                Some(std::fs::read(&path).or_else(target).expect("a file of the folder"))
            };
            found.insert(path.strip_prefix(dir).expect("inside").to_owned(), content);
        }
    }
    found
}
