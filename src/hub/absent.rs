//! What stands in for the Hub in a build without the feature `hub`: the same names, and one clear error.
//! Knows no connection; that there is none is its point.

use super::{
    Argilla, Dialogue, Hub, HubError, PublishRequest, Published, PullOffer, PullRequest, Pulled, PushOffer,
    PushRequest, Pushed, UploadOffer,
};

/// What `--help` adds to the commands that need the Hub.
pub const HELP_NOTE: &str = " (needs a build with the feature `hub`; this one cannot open a connection)";

/// Fetches nothing.
///
/// # Errors
/// Always [`HubError::NotBuilt`].
pub fn pull(_: &Hub, _: &PullRequest, _: &mut dyn Dialogue<PullOffer>) -> Result<Pulled, HubError> {
    Err(HubError::NotBuilt { command: "pull" })
}

/// Publishes nothing.
///
/// # Errors
/// Always [`HubError::NotBuilt`].
pub fn publish(_: &Hub, _: &PublishRequest, _: &mut dyn Dialogue<UploadOffer>) -> Result<Published, HubError> {
    Err(HubError::NotBuilt { command: "publish" })
}

/// Pushes nothing.
///
/// # Errors
/// Always [`HubError::NotBuilt`].
pub fn push(_: &Argilla, _: &PushRequest, _: &mut dyn Dialogue<PushOffer>) -> Result<Pushed, HubError> {
    Err(HubError::NotBuilt { command: "push-argilla" })
}
