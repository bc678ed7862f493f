//! From what a user calls a model or a dataset to the files of it on this machine: a path, an id in the Hugging Face cache, a name of
//! `models list`.
//! Knows where to look; fetches nothing.

use std::path::{Path, PathBuf};

use crate::bundle::hf_cache::{Cache, Identity};
use crate::bundle::{BundleError, Kind, integrity, is_repo};
use crate::cli::exit::UsageError;
use crate::config;
use crate::gguf;
use crate::model::ModelError;
use crate::registry::Registry;

/// A model or dataset on this machine.
pub(super) struct Found {
    /// Its folder, or its file.
    pub(super) path: PathBuf,
    /// What the hub calls it, if that is known from where it was found.
    pub(super) identity: Option<Identity>,
}

/// No cache can be named.
fn no_cache() -> anyhow::Error {
    UsageError("no folder for the cache: no home is known\nhint: set HF_HUB_CACHE".to_owned()).into()
}

/// The Hugging Face cache of this user.
pub(super) fn cache() -> anyhow::Result<Cache> {
    config::hub_cache().map(Cache::new).ok_or_else(no_cache)
}

/// `OWNER/NAME` and `REVISION` of `OWNER/NAME@REVISION`.
pub(super) fn id_of(text: &str) -> Option<(&str, Option<&str>)> {
    let (repo, revision) = text.split_once('@').map_or((text, None), |(repo, revision)| (repo, Some(revision)));
    is_repo(repo).then_some((repo, revision))
}

/// The hub's id, and the commit that the list of models names, of a name in that list.
pub(super) fn listed(name: &str) -> anyhow::Result<Option<(String, Option<String>)>> {
    let entry = Registry::embedded()?.find(name).ok().map(|entry| (entry.hub_id.clone(), entry.commit.clone()));
    Ok(entry)
}

/// Finds `text`: a path; `ID=PATH`, a path that is said to hold that commit; an id in the cache; for models a name of the list.
pub(super) fn find(kind: Kind, text: &str, cache: &Cache) -> anyhow::Result<Found> {
    let path = Path::new(text);
    if path.exists() {
        return Ok(Found { path: path.to_owned(), identity: None });
    }
    if let Some((id, path)) = text.split_once('=')
        && let Some((repo, revision)) = id_of(id)
    {
        let is_commit = |revision: &&str| revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit());
        let identity = Identity {
            repo: repo.to_owned(),
            commit: revision.filter(is_commit).map(str::to_lowercase),
            revision: revision.filter(|revision| !is_commit(revision)).map(str::to_owned),
        };
        return Ok(Found { path: PathBuf::from(path), identity: Some(identity) });
    }
    let (repo, revision) = match id_of(text) {
        Some((repo, revision)) => (repo.to_owned(), revision.map(str::to_owned)),
        None if kind == Kind::Model => match listed(text)? {
            Some((repo, _)) => (repo, None),
            None => return Err(missing(kind, text, None, cache)),
        },
        None => return Err(missing(kind, text, None, cache)),
    };
    match cache.find(kind, &repo, revision.as_deref()) {
        Some(snapshot) => Ok(Found { path: snapshot.dir, identity: Some(snapshot.identity) }),
        None => Err(missing(kind, &repo, revision.as_deref(), cache)),
    }
}

fn missing(kind: Kind, id: &str, revision: Option<&str>, cache: &Cache) -> anyhow::Error {
    let dataset = if kind == Kind::Dataset { " --dataset" } else { "" };
    let revision = revision.map(|revision| format!(" --revision {revision}")).unwrap_or_default();
    let command = format!("pairwright pull{dataset} {id}{revision}");
    BundleError::Missing { id: id.to_owned(), cache: cache.root().to_owned(), command }.into()
}

/// The folders in `dir` that hold a model each, by name, with what the hub calls them where they say so.
pub(in crate::cli) fn local_models(dir: &Path) -> Vec<(PathBuf, Option<Identity>)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let is_model = |path: &PathBuf| {
        let is_gguf = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
        path.join("config.json").exists() || is_gguf || matches!(gguf::locate(path), Ok(Some(_)) if path.is_dir())
    };
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_model).collect();
    found.sort();
    let named = |path: PathBuf| {
        let identity = integrity::expectation(&path).ok().flatten().and_then(|list| list.identity);
        (path, identity)
    };
    found.into_iter().map(named).collect()
}

/// The GGUF files that a path means, if it means any.
pub(super) fn gguf_files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    Ok(gguf::locate(path).map_err(ModelError::from).map_err(crate::generate::TextModelError::from)?.unwrap_or_default())
}
