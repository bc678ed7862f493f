//! The Hugging Face Hub: models and datasets fetched from it, finished datasets published on it; and an Argilla server, which records
//! are pushed to. The only place that opens a connection to another machine, and only in a build with the feature `hub`; without it a
//! twin says which build has the command. Knows both interfaces and the Hub's cache on disk; deliberately knows no flag, no
//! environment and no terminal.

mod error;
mod request;

#[cfg(feature = "hub")]
mod cache;
#[cfg(feature = "hub")]
mod choice;
#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod digest;
#[cfg(feature = "hub")]
mod fetch;
#[cfg(feature = "hub")]
mod listing;
#[cfg(feature = "hub")]
mod publish;
#[cfg(feature = "hub")]
mod pull;
#[cfg(feature = "hub")]
mod push;
#[cfg(feature = "hub")]
mod service;
#[cfg(feature = "hub")]
mod upload;

#[cfg(not(feature = "hub"))]
mod absent;

#[cfg(not(feature = "hub"))]
pub use absent::{HELP_NOTE, publish, pull, push};
pub use error::HubError;
#[cfg(feature = "hub")]
pub use publish::publish;
#[cfg(feature = "hub")]
pub use pull::{HELP_NOTE, pull};
#[cfg(feature = "hub")]
pub use push::push;
pub use request::{
    Argilla, Dialogue, Hub, Licence, PublishRequest, Published, PullOffer, PullRequest, Pulled, PushOffer, PushRequest,
    Pushed, RepoId, RepoKind, Transfer, UploadOffer,
};
