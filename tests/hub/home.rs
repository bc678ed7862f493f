//! A home of its own for each test: a cache, no token, no proxy, and the small Hub as the only one.
//! Knows processes and the cache's layout; makes no claim.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::program::{Outcome, program, tree};
use super::server::{COMMIT, Server, TOKEN, blob_id, sha256};

/// See the module's text.
pub struct Home {
    pub dir: TempDir,
    pub server: Server,
    pub token: Option<&'static str>,
}

impl Home {
    /// With a token that opens everything.
    pub fn new(server: Server) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), server, token: Some(TOKEN) }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where models and datasets lie.
    pub fn cache(&self) -> PathBuf {
        self.path().join("hub")
    }

    /// The command, not yet started.
    pub fn command(&self, arguments: &[&str]) -> assert_cmd::Command {
        let mut command = program(arguments);
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
            command.env_remove(name);
        }
        for name in ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_HUB_OFFLINE"] {
            command.env_remove(name);
        }
        command.env("HF_HOME", self.path()).env("HF_ENDPOINT", self.server.endpoint());
        if let Some(token) = self.token {
            command.env("HF_TOKEN", token);
        }
        command
    }

    /// Runs to the end.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        outcome(self.command(arguments).output().unwrap())
    }

    /// Runs, wants success, gives what was said on stderr.
    pub fn done(&self, arguments: &[&str]) -> String {
        let outcome = self.run(arguments);
        assert_eq!(outcome.code, Some(0), "{arguments:?}\n{}", outcome.stderr);
        assert!(!outcome.stderr.contains(TOKEN) && !outcome.stdout.contains(TOKEN), "a token is for nobody");
        outcome.stderr
    }

    /// Runs, wants this exit code, one error with all of `said` and a hint; and no snapshot, no branch, no named content.
    pub fn refused(&self, code: i32, arguments: &[&str], said: &[&str]) -> String {
        let outcome = self.run(arguments);
        let stderr = outcome.stderr;
        assert_eq!(outcome.code, Some(code), "{arguments:?}\n{stderr}");
        assert_eq!(stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "one error: {stderr}");
        for word in said.iter().chain(&["\nhint: "]) {
            assert!(stderr.contains(word), "want {word:?} in:\n{stderr}");
        }
        for word in ["panicked", ".rs:", "Os {", "Err(", "s3cr3t", TOKEN] {
            assert!(!stderr.contains(word), "{word:?} is not for users:\n{stderr}");
        }
        assert_eq!(outcome.stdout, "", "stdout is for data");
        self.holds_nothing_half();
        stderr
    }

    /// No snapshot, branch or listing is there, and content has its name only if it is what the name says.
    pub fn holds_nothing_half(&self) {
        for (path, content) in tree(&self.cache()) {
            let Some(bytes) = content else { continue };
            let name = path.display().to_string();
            let of_snapshot = name.contains("/snapshots/") || name.contains("/refs/") || name.contains("/trees/");
            assert!(!of_snapshot, "{name} looks whole");
            if let Some((_, hash)) = name.split_once("/blobs/").filter(|(_, hash)| !hash.ends_with(".incomplete")) {
                assert!(hash == sha256(&bytes) || hash == blob_id(&bytes), "{name} is something else");
            }
        }
    }

    /// The folder of a repository's only commit.
    pub fn snapshot(&self, folder: &str) -> PathBuf {
        self.cache().join(folder).join("snapshots").join(COMMIT)
    }
}

/// What a process left, as text.
pub fn outcome(output: std::process::Output) -> Outcome {
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
