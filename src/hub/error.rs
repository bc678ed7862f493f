//! Why something was not fetched or published. Knows messages; decides nothing.

use std::path::PathBuf;

/// See the module's text. Addresses stand without their queries, which may hold signatures; a token stands nowhere.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A build that cannot open a connection.
    #[error(
        "this build cannot open a connection, so it has no `{command}`\n\
         hint: on a connected machine: `cargo build --release --features hub`; this one stays sealed on purpose"
    )]
    NotBuilt {
        /// The subcommand.
        command: &'static str,
    },
    /// The user forbade connections.
    #[error("HF_HUB_OFFLINE is set, so no connection is opened\nhint: unset it for this command")]
    Offline,
    /// A name that no repository can have, or a revision, or an address.
    #[error("{what} is `{got}`, want {want}\nhint: {hint}")]
    Malformed {
        /// What it names.
        what: &'static str,
        /// As given.
        got: String,
        /// What is possible.
        want: &'static str,
        /// An example.
        hint: &'static str,
    },
    /// Publishing needs an account.
    #[error(
        "no token, so nothing can be published\nhint: make one that may write at {endpoint}/settings/tokens and set HF_TOKEN, \
         or run `hf auth login`"
    )]
    NoToken {
        /// The Hub.
        endpoint: String,
    },
    /// Argilla wants to know who asks.
    #[error(
        "no API key, so nothing can be sent to {url}\nhint: set ARGILLA_API_KEY, or give --api-key-file FILE; the key stands on the \
         user's page there"
    )]
    NoApiKey {
        /// The server.
        url: String,
    },
    /// The user said no.
    #[error("{what}; nothing was {done}\nhint: {hint}")]
    Declined {
        /// What was not agreed to.
        what: String,
        /// `fetched`, `published`.
        done: &'static str,
        /// How to agree without being asked.
        hint: &'static str,
    },
    /// 404, or 401 for what does not exist.
    #[error("{url}: not found ({status}{said})\nhint: {hint}")]
    NotFound {
        /// The address.
        url: String,
        /// HTTP's number.
        status: u16,
        /// What the server said, with `: ` before it.
        said: String,
        /// What to look at.
        hint: String,
    },
    /// 401 or 403.
    #[error("{url}: no access ({status}{said})\nhint: {hint}")]
    NoAccess {
        /// The address.
        url: String,
        /// HTTP's number.
        status: u16,
        /// What the server said, with `: ` before it.
        said: String,
        /// What to do.
        hint: String,
    },
    /// The repository, or Argilla's dataset, has nothing that can be used here, or has it under other conditions.
    #[error("{repo}: {what}\nhint: {hint}")]
    Unusable {
        /// The repository, or the dataset's name.
        repo: String,
        /// Got and expected.
        what: String,
        /// What to ask for instead.
        hint: String,
    },
    /// The disk is too small.
    #[error(
        "{path}: {need} bytes are to be fetched and {free} are free\nhint: make room, or set HF_HUB_CACHE to a folder on another disk"
    )]
    NoRoom {
        /// The cache.
        path: PathBuf,
        /// Bytes that are missing there.
        need: u64,
        /// Bytes that the disk has, less a reserve.
        free: u64,
    },
    /// No answer, or one that broke off, however often it was tried.
    #[error(
        "{url}: {what}\nhint: what is complete is kept, and the same command goes on from there; HF_ENDPOINT, \
         or for Argilla --url, names the server"
    )]
    Connection {
        /// The address.
        url: String,
        /// What happened.
        what: String,
    },
    /// A number that says that it cannot be had now.
    #[error("{url}: the server answers {status}{said}\nhint: {hint}")]
    Status {
        /// The address.
        url: String,
        /// HTTP's number.
        status: u16,
        /// What the server said, with `: ` before it.
        said: String,
        /// When to try again.
        hint: String,
    },
    /// An answer that is none of the Hub's.
    #[error("{url}: {what}\nhint: is that server (HF_ENDPOINT, or for Argilla --url) one that speaks the interface?")]
    Answer {
        /// The address.
        url: String,
        /// Got and expected.
        what: String,
    },
    /// A file that is not what the listing of its commit says.
    #[error(
        "{file}: {what} is {got}, expected {expected}\nhint: nothing of it was kept; run the command again, and if it stays so \
         do not trust this server or what stands between"
    )]
    Mismatch {
        /// Its path in the repository.
        file: String,
        /// `its size`, `its sha256`, …
        what: &'static str,
        /// As it came.
        got: String,
        /// As listed.
        expected: String,
    },
    /// A file or folder of this machine.
    #[error("cannot {action} {}: {source}\nhint: check the path, its permissions and the room on its disk", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl HubError {
    /// Whether the command line, and not the Hub, has to change.
    pub fn is_usage(&self) -> bool {
        use HubError::{Declined, Malformed, NoApiKey, NoToken, NotBuilt, Offline};
        matches!(
            self,
            NotBuilt { .. } | Offline | Malformed { .. } | NoToken { .. } | NoApiKey { .. } | Declined { .. }
        )
    }

    /// Whether what was asked for cannot be used as it is.
    pub fn is_not_usable(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::NoAccess { .. } | Self::Unusable { .. })
    }
}

/// A server's words for a line of a message: no control characters and no changes of direction, which could make a terminal show
/// something else, and no more than a line's worth.
pub(super) fn clean(text: &str) -> String {
    const MAX_CHARACTERS: usize = 200;
    let turns = |c: char| matches!(c, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    let words = text.split(|c: char| c.is_whitespace() || c.is_control() || turns(c)).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ").chars().take(MAX_CHARACTERS).collect()
}
