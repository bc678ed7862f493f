//! Bundles: models, prompts and the program itself in one folder or tar that a machine without a network can take, check and install.
//!
//! [`source`] collects what goes in, [`create`] writes it, [`Bundle`] opens it with distrust, [`install`] puts it in place; [`integrity`]
//! holds a model's folder against the list of files that its bundle or its Hugging Face cache has of it.
//! Knows files, sums and folders. What a model is, whether it runs and what a row of prompts means is for others; nothing here opens a
//! connection.

pub mod create;
mod digest;
mod error;
pub mod hf_cache;
pub mod install;
pub mod integrity;
mod manifest;
mod parts;
mod paths;
mod read;
mod secrets;
pub mod source;
mod tar;
mod texts;
mod want;

pub use error::{BundleError, gigabytes};
pub use manifest::{Entry, Item, Kind, MANIFEST_FILE, Manifest, SUMS_FILE};
pub use paths::is_repo;
pub use read::Bundle;
pub use secrets::Secret;
pub use want::Want;

/// The kind of machine that this program runs on, for example `x86_64-linux`.
pub fn target() -> String {
    format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
}
