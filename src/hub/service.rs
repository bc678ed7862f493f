//! Which interface a server speaks: how it is told who asks, and what a user can do where it refuses.
//! Knows words and one header; deliberately knows no connection and no address.

use super::HubError;
use super::error::clean;

/// Whose interface it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// The Hugging Face Hub's, or a mirror's.
    Hub,
    /// That of an Argilla 2 server.
    Argilla,
}

impl Service {
    /// What is said of an address that is none.
    pub(super) fn no_address(self, got: &str) -> HubError {
        let (what, hint) = match self {
            Self::Hub => ("HF_ENDPOINT", "for example https://huggingface.co"),
            Self::Argilla => ("--url", "for example http://127.0.0.1:6900, without /api behind it"),
        };
        HubError::Malformed { what, got: clean(got), want: "an address", hint }
    }

    /// What is said of a secret that no header can hold.
    pub(super) fn no_secret(self) -> HubError {
        let (what, hint) = match self {
            Self::Hub => ("the token", "look at HF_TOKEN, or at the file that `hf auth login` left"),
            Self::Argilla => ("the API key", "look at ARGILLA_API_KEY, or at the file of --api-key-file"),
        };
        HubError::Malformed { what, got: "(kept secret)".to_owned(), want: "letters and digits in one line", hint }
    }

    /// The header that says who asks, with its value.
    pub(super) fn header(self, secret: &str) -> (&'static str, String) {
        match self {
            Self::Hub => ("authorization", format!("Bearer {secret}")),
            Self::Argilla => ("x-argilla-api-key", secret.to_owned()),
        }
    }

    /// What to look at where something is not found.
    pub(super) fn not_found(self, has_secret: bool) -> String {
        match (self, has_secret) {
            (Self::Hub, _) => {
                let private = if has_secret { "that the token may see it" } else { "HF_TOKEN if it is private" };
                format!("check the spelling and --revision; a dataset wants --dataset; {private}")
            }
            (Self::Argilla, _) => {
                "is --url an Argilla server of version 2, without /api behind it, and is the dataset still there?"
                    .to_owned()
            }
        }
    }

    /// What to do where somebody may not; `code` is the Hub's own word for why.
    pub(super) fn no_access(self, code: &str, has_secret: bool) -> &'static str {
        match (self, code, has_secret) {
            (Self::Hub, _, false) => {
                "set HF_TOKEN, or run `hf auth login`; a gated repository also wants its form accepted"
            }
            (Self::Hub, "GatedRepo", true) => "accept the form on the repository's page with the account of this token",
            (Self::Hub, _, true) => {
                "the token is not valid, or may not do this: make another one, with the rights for it"
            }
            (Self::Argilla, ..) => {
                "the API key is not valid, or its user may not do this: an owner or an admin of the workspace may; the key stands on \
                 the user's page there"
            }
        }
    }

    /// What to do where a server takes a request and refuses what it says.
    pub(super) fn refused(self, status: u16) -> &'static str {
        match (self, status) {
            (Self::Argilla, 409 | 422) => {
                "the server refuses what was sent, and kept nothing of this call; if it names a user, look at --users: all of its ids \
                 must be there"
            }
            _ => "run the same command again later",
        }
    }
}
