//! How content gets onto the Hub: which files its large-file storage wants, those sent there, and one commit over all.
//! Knows the interface's shapes; decides nothing of what is published.

use std::collections::BTreeMap;
use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::cache::io_error;
use super::client::{Ask, Client, Fault, Payload, shown};
use super::error::clean;
use super::listing::{api, is_commit, page};
use super::publish::{BRANCH, LocalFile};
use super::{HubError, RepoId};

/// The first bytes by which the Hub tells text from other content.
const SAMPLE_BYTES: u64 = 512;
const LFS_TYPE: &str = "application/vnd.git-lfs+json";

/// Sends to one repository.
pub(super) struct Uploader<'a> {
    pub(super) client: &'a Client,
    pub(super) repo: &'a RepoId,
}

#[derive(Deserialize)]
struct Preupload {
    files: Vec<Mode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mode {
    path: String,
    upload_mode: String,
}

#[derive(Deserialize)]
struct Batch {
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    oid: String,
    #[serde(default)]
    actions: BTreeMap<String, Action>,
    error: Option<ObjectError>,
}

#[derive(Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct ObjectError {
    code: u16,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Committed {
    commit_oid: String,
}

impl Uploader<'_> {
    /// Makes the repository. That it is there already is fine.
    pub(super) fn create(&self, private: bool) -> Result<(), HubError> {
        let url = format!("{}/api/repos/create", self.client.endpoint());
        let (owner, name) = self.repo.id.split_once('/').unwrap_or_default();
        let body = json!({"type": "dataset", "organization": owner, "name": name, "private": private}).to_string();
        match self.client.persist(|| self.client.once(&Ask::post(&url, &body))) {
            Ok(_) | Err(HubError::Status { status: 409, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sends what belongs into the large-file storage and gives the paths of these files. `position` is told the bytes that are
    /// there; those of small files, which travel with the commit, are counted at the end.
    pub(super) fn send_contents(
        &self,
        files: &[&LocalFile],
        mut position: impl FnMut(u64),
    ) -> Result<Vec<String>, HubError> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let large = self.large(files)?;
        let wanted: Vec<&LocalFile> = files.iter().copied().filter(|file| large.contains(&file.path)).collect();
        let mut num_sent = 0;
        if !wanted.is_empty() {
            let mut objects = self.batch(&wanted)?;
            for file in &wanted {
                let at = objects.iter().position(|object| object.oid == file.sha256);
                // Two files of one content are one object.
                if let Some(at) = at {
                    self.send(file, objects.swap_remove(at))?;
                }
                num_sent += file.size_bytes;
                position(num_sent);
            }
        }
        position(files.iter().map(|file| file.size_bytes).sum());
        Ok(large)
    }

    /// Asks which files the large-file storage wants.
    fn large(&self, files: &[&LocalFile]) -> Result<Vec<String>, HubError> {
        let url = api(self.client, self.repo, &format!("preupload/{BRANCH}"));
        let one = |file: &&LocalFile| -> Result<Value, HubError> {
            let mut sample = Vec::new();
            std::fs::File::open(&file.source)
                .and_then(|open| open.take(SAMPLE_BYTES).read_to_end(&mut sample))
                .map_err(io_error("read", &file.source))?;
            Ok(json!({"path": file.path, "size": file.size_bytes, "sample": STANDARD.encode(sample)}))
        };
        let listed = files.iter().map(one).collect::<Result<Vec<_>, _>>()?;
        let body = json!({"files": listed}).to_string();
        let (answer, _) = self.client.persist(|| self.client.json::<Preupload>(&Ask::post(&url, &body)))?;
        if let Some(file) = files.iter().find(|file| !answer.files.iter().any(|mode| mode.path == file.path)) {
            return Err(HubError::Answer { url: shown(&url), what: format!("says nothing of {}", file.path) });
        }
        Ok(answer.files.into_iter().filter(|mode| mode.upload_mode == "lfs").map(|mode| mode.path).collect())
    }

    /// Asks where to send them.
    fn batch(&self, files: &[&LocalFile]) -> Result<Vec<Object>, HubError> {
        let url = format!("{}.git/info/lfs/objects/batch", page(self.client, self.repo));
        let one = |file: &&LocalFile| json!({"oid": file.sha256, "size": file.size_bytes});
        let body = json!({
            "operation": "upload",
            "transfers": ["basic"],
            "hash_algo": "sha256",
            "ref": {"name": BRANCH},
            "objects": files.iter().map(one).collect::<Vec<_>>(),
        });
        let body = body.to_string();
        let accept = [("accept", LFS_TYPE)];
        let ask = Ask { method: "POST", url: &url, headers: &accept, payload: Payload::Text(LFS_TYPE, &body) };
        let (answer, _) = self.client.persist(|| self.client.json::<Batch>(&ask))?;
        let left = files.iter().find(|file| !answer.objects.iter().any(|object| object.oid == file.sha256));
        match left {
            Some(file) => Err(HubError::Answer { url: shown(&url), what: format!("says nothing of {}", file.path) }),
            None => Ok(answer.objects),
        }
    }

    /// Sends one content, unless it is there.
    fn send(&self, file: &LocalFile, object: Object) -> Result<(), HubError> {
        if let Some(error) = object.error {
            let said = format!(": {}", clean(&error.message));
            let hint = "run the same command again later".to_owned();
            return Err(HubError::Status { url: page(self.client, self.repo), status: error.code, said, hint });
        }
        let Some(upload) = object.actions.get("upload") else { return Ok(()) };
        let headers: Vec<(&str, &str)> =
            upload.header.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))).collect();
        let ask = Ask { method: "PUT", url: &upload.href, headers: &headers, payload: Payload::File(&file.source) };
        self.client.persist(|| self.moved(&ask))?;
        if let Some(verify) = object.actions.get("verify") {
            let body = json!({"oid": file.sha256, "size": file.size_bytes}).to_string();
            let ask = Ask { method: "POST", url: &verify.href, headers: &[], payload: Payload::Text(LFS_TYPE, &body) };
            self.client.persist(|| self.moved(&ask))?;
        }
        Ok(())
    }

    /// A request whose answer is only whether it worked; one that leads elsewhere did not.
    fn moved(&self, ask: &Ask<'_>) -> Result<(), Fault> {
        self.client.once(ask).map(drop)
    }

    /// Makes all of it visible. Tried once: whether a commit whose answer was lost took place is seen by the next publication,
    /// which compares first.
    pub(super) fn commit(
        &self,
        summary: &str,
        parent: Option<&str>,
        files: &[&LocalFile],
        large: &[String],
        removed: &[String],
    ) -> Result<String, HubError> {
        let url = api(self.client, self.repo, &format!("commit/{BRANCH}"));
        let mut header = json!({"summary": summary, "description": ""});
        if let Some(parent) = parent {
            header["parentCommit"] = parent.into();
        }
        let mut lines = vec![json!({"key": "header", "value": header})];
        for file in files {
            lines.push(if large.contains(&file.path) {
                let value = json!({"path": file.path, "algo": "sha256", "oid": file.sha256, "size": file.size_bytes});
                json!({"key": "lfsFile", "value": value})
            } else {
                let bytes = std::fs::read(&file.source).map_err(io_error("read", &file.source))?;
                let value = json!({"path": file.path, "content": STANDARD.encode(bytes), "encoding": "base64"});
                json!({"key": "file", "value": value})
            });
        }
        lines.extend(removed.iter().map(|path| json!({"key": "deletedFile", "value": {"path": path}})));
        let body = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        let payload = Payload::Text("application/x-ndjson", &body);
        let ask = Ask { method: "POST", url: &url, headers: &[], payload };
        let answer = self.client.json::<Committed>(&ask);
        let (committed, _) = answer.map_err(|fault| match fault {
            Fault::Passing(error, _) | Fault::Final(error) => changed_meanwhile(error),
        })?;
        if !is_commit(&committed.commit_oid) {
            let what = format!("the commit is `{}`, want 40 hexadecimal digits", clean(&committed.commit_oid));
            return Err(HubError::Answer { url: shown(&url), what });
        }
        Ok(committed.commit_oid)
    }
}

/// The Hub refuses a commit whose parent is no longer the newest.
fn changed_meanwhile(error: HubError) -> HubError {
    match error {
        HubError::Status { url, status: status @ (409 | 412), said, .. } => {
            let hint = "somebody else changed the repository meanwhile; run the same command again: it compares first";
            HubError::Status { url, status, said, hint: hint.to_owned() }
        }
        other => other,
    }
}
