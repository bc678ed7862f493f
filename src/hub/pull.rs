//! A model or a dataset into the cache: one commit, its terms agreed to, every file verified, nothing visible before it is whole.
//! Knows the order of things; what each of them is lies in the files beside.

use super::cache::RepoCache;
use super::client::Client;
use super::fetch::Fetcher;
use super::listing::{self, RemoteFile};
use super::{Dialogue, Hub, HubError, PullOffer, PullRequest, Pulled, Transfer, choice};

/// What `--help` adds to the commands that need the Hub.
pub const HELP_NOTE: &str = "";

/// Fetches what is missing of the commit that the revision names now, and lets the cache name it.
///
/// # Errors
/// See [`HubError`]. What is complete by then stays, and the next call goes on from there.
pub fn pull(hub: &Hub, request: &PullRequest, dialogue: &mut dyn Dialogue<PullOffer>) -> Result<Pulled, HubError> {
    let repo = &request.repo;
    let client = Client::new(hub)?;
    let revision = listing::resolve(&client, repo, &request.revision)?;
    let commit = revision.commit.as_str();
    let all = listing::files(&client, repo, commit)?;
    let chosen = choice::choose(repo, &all, &request.patterns)?;
    let cache = RepoCache::new(&hub.cache, repo);
    let missing = missing(&cache, &chosen);
    let num_bytes: u64 = missing.iter().fold(0, |sum, file| file.size_bytes.saturating_add(sum));
    if !missing.is_empty() {
        let num_bytes_here = missing.iter().map(|file| cache.num_bytes_here(file)).sum();
        cache.check_room(num_bytes.saturating_sub(num_bytes_here))?;
        dialogue.agree(&PullOffer {
            repo: repo.clone(),
            commit: commit.to_owned(),
            licence: revision.licence.clone(),
            gated: revision.gated,
            files: missing.iter().map(|file| transfer(file)).collect(),
            num_bytes_here,
        })?;
    }
    let fetcher = Fetcher { client: &client, repo, commit, cache: &cache };
    let mut num_done = 0;
    for file in &missing {
        let waits = || format!("{}: another pull is at it; waiting for that one", file.path);
        let _held = cache.lock(file, || dialogue.note(&waits()))?;
        if !cache.has(file) {
            fetcher.fetch(file, |here| dialogue.position(num_done + here))?;
        }
        num_done += file.size_bytes;
        dialogue.position(num_done);
    }
    cache.write_listing(commit, &all)?;
    let path = cache.link_all(commit, &chosen)?;
    cache.write_ref(&request.revision, commit)?;
    Ok(Pulled {
        repo: repo.clone(),
        commit: commit.to_owned(),
        licence: revision.licence,
        path,
        files: chosen.iter().map(transfer).collect(),
        num_fetched: missing.len(),
        num_bytes_fetched: num_bytes,
    })
}

/// The files whose content is not here, each content once.
fn missing<'a>(cache: &RepoCache, chosen: &'a [RemoteFile]) -> Vec<&'a RemoteFile> {
    let mut missing: Vec<&RemoteFile> = Vec::new();
    for file in chosen.iter().filter(|file| !cache.has(file)) {
        if !missing.iter().any(|other| other.etag() == file.etag()) {
            missing.push(file);
        }
    }
    missing
}

fn transfer(file: &RemoteFile) -> Transfer {
    Transfer { path: file.path.clone(), size_bytes: file.size_bytes }
}
