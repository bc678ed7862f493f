//! What a repository holds: a revision resolved to its commit, and the list of that commit's files, every page of it.
//! Knows the shapes of the Hub's answers and believes none of them unchecked; fetches no file.

use serde::Deserialize;

use super::client::{Ask, Client, shown};
use super::error::clean;
use super::{HubError, Licence, RepoId, RepoKind};

/// More pages than any repository of a model or a dataset has, at up to 1,000 files each.
const MAX_PAGES: usize = 1_000;
/// More files than that is no model and no dataset of rows.
const MAX_FILES: usize = 200_000;

/// What the Hub says of a revision.
pub(super) struct Revision {
    /// 40 hexadecimal digits.
    pub(super) commit: String,
    /// As the card says.
    pub(super) licence: Licence,
    /// Whether there is a form to accept.
    pub(super) gated: bool,
    /// Whether only its owners see it.
    pub(super) private: bool,
}

/// A file of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemoteFile {
    /// With `/`, inside the repository.
    pub(super) path: String,
    /// Its length.
    pub(super) size_bytes: u64,
    /// Git's id of what Git holds: the file, or a pointer to it.
    pub(super) blob_id: String,
    /// Hash of a file in the large-file storage.
    pub(super) sha256: Option<String>,
    /// Its hash in the Hub's newer storage; handed on, not used.
    pub(super) xet_hash: Option<String>,
}

impl RemoteFile {
    /// What the cache names the content by.
    pub(super) fn etag(&self) -> &str {
        self.sha256.as_deref().unwrap_or(&self.blob_id)
    }
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    private: bool,
    #[serde(default)]
    gated: serde_json::Value,
    #[serde(default, rename = "cardData")]
    card: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    oid: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Lfs>,
    #[serde(rename = "xetHash")]
    xet_hash: Option<String>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

/// `models` or `datasets`, as the interface's addresses have it.
pub(super) fn plural(kind: RepoKind) -> &'static str {
    match kind {
        RepoKind::Model => "models",
        RepoKind::Dataset => "datasets",
    }
}

/// The repository's page, which is also the start of its files' addresses.
pub(super) fn page(client: &Client, repo: &RepoId) -> String {
    match repo.kind {
        RepoKind::Model => format!("{}/{}", client.endpoint(), repo.id),
        RepoKind::Dataset => format!("{}/datasets/{}", client.endpoint(), repo.id),
    }
}

/// An address of the interface: `…/api/models/OWNER/NAME/REST`.
pub(super) fn api(client: &Client, repo: &RepoId, rest: &str) -> String {
    format!("{}/api/{}/{}/{rest}", client.endpoint(), plural(repo.kind), repo.id)
}

/// A path as an address has it.
pub(super) fn escaped(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    path.bytes().map(one).collect()
}

/// Is this a commit's name?
pub(super) fn is_commit(text: &str) -> bool {
    is_hex(text, 40)
}

fn is_hex(text: &str, num_digits: usize) -> bool {
    text.len() == num_digits && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Refuses a name that no branch, tag or commit has: it also becomes a path below `refs`.
pub(super) fn check_revision(revision: &str) -> Result<(), HubError> {
    let plain = revision.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    let parts = revision.split('/').all(|part| !part.is_empty() && !part.starts_with(['.', '-']));
    if plain && parts && !revision.contains("..") && revision.len() <= 255 {
        return Ok(());
    }
    Err(HubError::Malformed {
        what: "--revision",
        got: clean(revision),
        want: "a branch, a tag or a commit",
        hint: "for example main, or 40 hexadecimal digits",
    })
}

/// The commit that `revision` is now, and the terms.
pub(super) fn resolve(client: &Client, repo: &RepoId, revision: &str) -> Result<Revision, HubError> {
    check_revision(revision)?;
    let url = api(client, repo, &format!("revision/{}", revision.replace('/', "%2F")));
    let (info, _) = client.persist(|| client.json::<Info>(&Ask::get(&url)))?;
    if !is_commit(&info.sha) || (is_commit(revision) && info.sha != revision) {
        let want = if is_commit(revision) { revision } else { "40 hexadecimal digits" };
        let what = format!("the commit is `{}`, want {want}", clean(&info.sha));
        return Err(HubError::Answer { url: shown(&url), what });
    }
    let field = |name: &str| match info.card.as_ref()?.get(name)? {
        serde_json::Value::String(text) => Some(clean(text)),
        serde_json::Value::Array(several) => {
            let texts: Vec<String> = several.iter().filter_map(|one| one.as_str().map(clean)).collect();
            (!texts.is_empty()).then(|| texts.join(", "))
        }
        _ => None,
    };
    let licence = Licence { id: field("license"), name: field("license_name"), link: field("license_link") };
    let gated = !matches!(info.gated, serde_json::Value::Null | serde_json::Value::Bool(false));
    Ok(Revision { commit: info.sha, licence, gated, private: info.private })
}

/// Every file of `commit`, in order of path.
pub(super) fn files(client: &Client, repo: &RepoId, commit: &str) -> Result<Vec<RemoteFile>, HubError> {
    let first = api(client, repo, &format!("tree/{commit}?recursive=true&expand=false"));
    let mut files = Vec::new();
    let mut next = Some(first.clone());
    let mut num_pages = 0;
    while let Some(url) = next {
        num_pages += 1;
        if num_pages > MAX_PAGES || files.len() > MAX_FILES {
            let what = format!("the list of files is longer than {MAX_PAGES} pages or {MAX_FILES} files");
            return Err(HubError::Answer { url: shown(&first), what });
        }
        let (entries, link) = client.persist(|| client.json::<Vec<Entry>>(&Ask::get(&url)))?;
        for entry in entries.into_iter().filter(|entry| entry.kind == "file") {
            files.push(checked(entry).map_err(|what| HubError::Answer { url: shown(&url), what })?);
        }
        next = link.as_deref().and_then(next_page).map(|next| on_the_hub(client, next));
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    if let Some(pair) = files.windows(2).find(|pair| pair[0].path == pair[1].path) {
        let what = format!("the file `{}` is listed twice", clean(&pair[0].path));
        return Err(HubError::Answer { url: shown(&first), what });
    }
    Ok(files)
}

/// A file whose names are safe to become paths here.
fn checked(entry: Entry) -> Result<RemoteFile, String> {
    let odd = |part: &str| part.is_empty() || part == "." || part == ".." || part.ends_with([' ', '.']);
    let steers = |c: char| c.is_control() || c == '\\' || c == ':';
    if entry.path.split('/').any(odd) || entry.path.contains(steers) {
        return Err(format!("the file `{}` has a name that leads elsewhere", clean(&entry.path)));
    }
    let sha256 = entry.lfs.as_ref().map(|lfs| lfs.oid.trim_start_matches("sha256:").to_owned());
    if !is_commit(&entry.oid) || sha256.as_ref().is_some_and(|hash| !is_hex(hash, 64)) {
        return Err(format!("the file `{}` has a hash that is none", clean(&entry.path)));
    }
    let xet_hash = entry.xet_hash.filter(|hash| is_hex(hash, 64));
    let size_bytes = entry.lfs.map_or(entry.size, |lfs| lfs.size);
    Ok(RemoteFile { path: entry.path, size_bytes, blob_id: entry.oid, sha256, xet_hash })
}

/// The address of the next page in a header `Link: <address>; rel="next"`.
fn next_page(link: &str) -> Option<&str> {
    let is_next = |part: &&str| part.contains("rel=\"next\"") || part.contains("rel=next");
    let (_, rest) = link.split(",").find(is_next)?.split_once('<')?;
    Some(rest.split_once('>')?.0)
}

/// A mirror may name the original in its links: the page is asked for where the first one was.
fn on_the_hub(client: &Client, next: &str) -> String {
    if client.is_hub(next) {
        return next.to_owned();
    }
    let path = next.split_once("://").map_or(next, |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
    let scheme_end = client.endpoint().find("://").map_or(0, |at| at + 3);
    let host_end = client.endpoint().get(scheme_end..).and_then(|rest| rest.find('/')).map(|at| scheme_end + at);
    let base = host_end.and_then(|end| client.endpoint().get(..end)).unwrap_or(client.endpoint());
    format!("{base}/{}", path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, oid: &str, lfs: Option<&str>) -> Entry {
        let lfs = lfs.map(|oid| Lfs { oid: oid.to_owned(), size: 7 });
        Entry { kind: "file".into(), path: path.into(), oid: oid.into(), size: 130, lfs, xet_hash: None }
    }

    #[test]
    fn names_that_lead_elsewhere_and_hashes_that_are_none_are_refused() {
        let (git, sha256) = ("0".repeat(40), "a".repeat(64));
        let file = checked(entry("data/train-0.parquet", &git, Some(&sha256))).unwrap();
        assert_eq!((file.size_bytes, file.etag()), (7, sha256.as_str()));
        assert_eq!(checked(entry("a", &git, None)).unwrap().etag(), git);
        for path in ["", "/a", "../a", "a/../b", "a//b", "./a", "a/", "a\\b", "c:/a", "a\nb", "a\0", "a. ", ".."] {
            assert!(checked(entry(path, &git, None)).is_err(), "{path:?}");
        }
        for hash in ["", "../../x", &"g".repeat(40), &"A".repeat(40), &"0".repeat(39)] {
            assert!(checked(entry("a", hash, None)).is_err(), "{hash}");
            assert!(checked(entry("a", &git, Some(hash))).is_err(), "{hash}");
        }
    }

    #[test]
    fn revisions_become_no_path_outside() {
        for good in ["main", "refs/pr/1", "v1.0", &"0".repeat(40)] {
            assert!(check_revision(good).is_ok(), "{good}");
        }
        for wrong in ["", "..", "a/../b", "/a", "a/", "-x", "a b", "a?b", "a\nb", ".git", &"a".repeat(256)] {
            assert!(check_revision(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn pages_and_paths_are_read_and_written_as_addresses() {
        let link = "<https://a/x?y>; rel=\"prev\", <https://a/t?cursor=b%3D>; rel=\"next\"";
        assert_eq!(next_page(link), Some("https://a/t?cursor=b%3D"));
        assert_eq!(next_page("<https://a>; rel=\"last\""), None);
        assert_eq!(escaped("a b/ä#?%.bin"), "a%20b/%C3%A4%23%3F%25.bin");
    }
}
