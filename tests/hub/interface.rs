//! The Hub's interface as the small server speaks it: revisions, listings in pages, files, and all that publishing takes.
//! Knows the shapes of questions and answers; what goes wrong is put in by `server`.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::server::{Action, Reply, Repo, Seen, State, TOKEN, blob_id, ranged, sha256};

fn answer(value: &Value) -> Reply {
    let headers = vec![("Content-Type".to_owned(), "application/json; charset=utf-8".to_owned())];
    Reply { status: 200, headers, body: value.to_string().into_bytes() }
}

fn error(status: u16, code: &str, message: &str) -> Reply {
    let headers = [("X-Error-Code", code), ("X-Error-Message", message)];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Reply { status, headers, body: json!({"error": message}).to_string().into_bytes() }
}

/// The answer to one request.
pub fn reply(request: &Seen, state: &mut State, store: SocketAddr, action: Option<&Action>) -> Reply {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let authorised = request.headers.get("authorization").is_some_and(|given| *given == format!("Bearer {TOKEN}"));
    if request.headers.contains_key("authorization") && !authorised {
        return error(401, "", "Invalid credentials in Authorization header");
    }
    if request.method == "POST" && !authorised {
        return error(401, "", "Invalid username or password.");
    }
    match parts[..] {
        ["api", "repos", "create"] => create(request, state),
        ["api", kind, owner, name, "revision", revision] => {
            let name = format!("{kind}/{owner}/{name}");
            with(state, &name, authorised, |repo, _| {
                if ![repo.commit.as_str(), "main", "refs%2Fpr%2F1"].contains(&revision) {
                    return error(404, "RevisionNotFound", "Invalid rev id: nowhere");
                }
                answer(&json!({
                    "_id": "0", "id": name, "sha": repo.commit, "private": repo.private, "cardData": repo.card,
                    "gated": if repo.gated { json!("auto") } else { json!(false) }, "siblings": [],
                }))
            })
        }
        ["api", kind, owner, name, "tree", commit] => {
            with(state, &format!("{kind}/{owner}/{name}"), authorised, |repo, state| {
                if commit != repo.commit {
                    return error(404, "RevisionNotFound", "no such commit");
                }
                tree(repo, state, path, query, &request.headers["host"])
            })
        }
        ["api", "datasets", owner, name, "preupload", "main"] => {
            with(state, &format!("datasets/{owner}/{name}"), authorised, |_, _| preupload(request))
        }
        ["datasets", owner, name, "info", "lfs", "objects", "batch"] if name.ends_with(".git") => {
            let name = name.trim_end_matches(".git");
            with(state, &format!("datasets/{owner}/{name}"), authorised, |_, state| batch(request, state, store))
        }
        ["verify"] => answer(&json!({})),
        ["api", "datasets", owner, name, "commit", "main"] => {
            commit(request, state, &format!("datasets/{owner}/{name}"))
        }
        ["datasets", owner, name, "resolve", commit, ..] => {
            let file = parts[5..].join("/");
            with(state, &format!("datasets/{owner}/{name}"), authorised, |repo, _| {
                resolve(repo, commit, &file, request, store, action)
            })
        }
        [owner, name, "resolve", commit, ..] => {
            let file = parts[4..].join("/");
            with(state, &format!("models/{owner}/{name}"), authorised, |repo, _| {
                resolve(repo, commit, &file, request, store, action)
            })
        }
        _ => error(404, "", "no such page"),
    }
}

/// Lets in who may see the repository. Whoever may not does not learn that it is there.
fn with(state: &State, name: &str, authorised: bool, then: impl FnOnce(&Repo, &State) -> Reply) -> Reply {
    match state.repos.get(name) {
        Some(repo) if authorised || !(repo.private || repo.gated) => then(repo, state),
        Some(repo) if repo.gated => error(401, "GatedRepo", "Access to this model is restricted."),
        _ if authorised => error(404, "RepoNotFound", "Repository not found"),
        _ => error(401, "RepoNotFound", "Invalid username or password."),
    }
}

fn tree(repo: &Repo, state: &State, path: &str, query: &str, host: &str) -> Reply {
    let start: usize = query.split("cursor=").nth(1).map_or(0, |at| at.parse().unwrap());
    let one = |path: &String| {
        let bytes = &repo.files[path];
        let mut entry = json!({"type": "file", "oid": blob_id(bytes), "size": bytes.len(), "path": path});
        if repo.large.contains(path) {
            // Git itself holds a pointer; its id is that of the pointer.
            entry["oid"] = blob_id(format!("pointer to {path}").as_bytes()).into();
            entry["lfs"] = json!({"oid": sha256(bytes), "size": bytes.len(), "pointerSize": 134});
            entry["xetHash"] = "ab".repeat(32).into();
        }
        entry
    };
    let page: Vec<Value> = repo.files.keys().skip(start).take(state.page_size).map(one).collect();
    let mut entries = vec![json!({"type": "directory", "oid": "0".repeat(40), "size": 0, "path": "data"})];
    entries.extend(page);
    let mut reply = answer(&Value::Array(entries));
    let next = start + state.page_size;
    if next < repo.files.len() {
        let host = state.link_host.clone().unwrap_or_else(|| format!("http://{host}"));
        let link = format!("<{host}{path}?recursive=true&cursor={next}>; rel=\"next\"");
        reply.headers.push(("Link".to_owned(), link));
    }
    reply
}

fn resolve(repo: &Repo, commit: &str, file: &str, request: &Seen, store: SocketAddr, action: Option<&Action>) -> Reply {
    let file = file.replace("%20", " ");
    let Some(bytes) = repo.files.get(&file).filter(|_| commit == repo.commit) else {
        return error(404, "EntryNotFound", "Entry not found");
    };
    let mut headers = vec![("X-Repo-Commit".to_owned(), repo.commit.clone())];
    let etag = format!("\"{}\"", repo.etag(&file));
    if !repo.large.contains(&file) {
        headers.push(("ETag".to_owned(), etag));
        return ranged(bytes, request, headers, action);
    }
    headers.push(("X-Linked-Etag".to_owned(), etag));
    headers.push(("X-Linked-Size".to_owned(), bytes.len().to_string()));
    headers.push(("Location".to_owned(), format!("http://{store}/blobs/{}?signature=s3cr3t", sha256(bytes))));
    Reply { status: 302, headers, body: Vec::new() }
}

fn create(request: &Seen, state: &mut State) -> Reply {
    let asked: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(asked["type"], "dataset");
    let name = format!("datasets/{}/{}", asked["organization"].as_str().unwrap(), asked["name"].as_str().unwrap());
    if state.repos.contains_key(&name) {
        return error(409, "", "You already created this dataset repo");
    }
    let mut repo = Repo::new(&[(".gitattributes", b"*.parquet filter=lfs\n")]);
    repo.private = asked["private"].as_bool().unwrap();
    state.repos.insert(name.clone(), repo);
    answer(&json!({"url": name, "id": "0"}))
}

fn preupload(request: &Seen) -> Reply {
    let asked: Value = serde_json::from_slice(&request.body).unwrap();
    let one = |file: &Value| {
        let path = file["path"].as_str().unwrap();
        assert!(!STANDARD.decode(file["sample"].as_str().unwrap()).unwrap().is_empty());
        let mode = if path.ends_with(".parquet") { "lfs" } else { "regular" };
        json!({"path": path, "uploadMode": mode, "shouldIgnore": false, "oid": null})
    };
    answer(&json!({"files": asked["files"].as_array().unwrap().iter().map(one).collect::<Vec<_>>()}))
}

fn batch(request: &Seen, state: &State, store: SocketAddr) -> Reply {
    assert_eq!(request.headers["content-type"], "application/vnd.git-lfs+json");
    let asked: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!((&asked["operation"], &asked["transfers"]), (&json!("upload"), &json!(["basic"])));
    let one = |object: &Value| {
        let oid = object["oid"].as_str().unwrap();
        let mut answer = json!({"oid": oid, "size": object["size"]});
        if !state.stored.contains_key(oid) {
            let upload =
                json!({"href": format!("http://{store}/upload/{oid}?signature=s3cr3t"), "header": {"x-kind": "basic"}});
            let verify = json!({"href": format!("http://{}/verify", request.headers["host"])});
            answer["actions"] = json!({"upload": upload, "verify": verify});
        }
        answer
    };
    let objects: Vec<Value> = asked["objects"].as_array().unwrap().iter().map(one).collect();
    answer(&json!({"transfer": "basic", "objects": objects}))
}

/// All of a commit or nothing of it.
fn commit(request: &Seen, state: &mut State, name: &str) -> Reply {
    assert_eq!(request.headers["content-type"], "application/x-ndjson");
    let text = String::from_utf8(request.body.clone()).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let Some(mut repo) = state.repos.get(name).cloned() else { return error(404, "RepoNotFound", "no such dataset") };
    for line in &lines {
        let value = &line["value"];
        let path = value["path"].as_str().unwrap_or_default().to_owned();
        match line["key"].as_str().unwrap() {
            "header" => {
                assert!(!value["summary"].as_str().unwrap().is_empty());
                if value["parentCommit"].as_str().is_some_and(|parent| parent != repo.commit) {
                    return error(412, "", "A commit has happened since. Please refresh and try again.");
                }
            }
            "file" => {
                assert_eq!(value["encoding"], "base64");
                repo.files.insert(path, STANDARD.decode(value["content"].as_str().unwrap()).unwrap());
            }
            "lfsFile" => {
                assert_eq!(value["algo"], "sha256");
                let oid = value["oid"].as_str().unwrap();
                let Some(bytes) = state.stored.get(oid).filter(|bytes| sha256(bytes) == oid) else {
                    return error(400, "", "lfs object is not there, or not what its hash says");
                };
                assert_eq!(value["size"], bytes.len());
                repo.files.insert(path.clone(), bytes.clone());
                repo.large.push(path);
            }
            "deletedFile" => {
                repo.files.remove(&path).unwrap();
            }
            other => panic!("an operation `{other}`"),
        }
    }
    state.num_commits += 1;
    repo.commit = format!("{:040x}", state.num_commits);
    let oid = repo.commit.clone();
    state.repos.insert(name.to_owned(), repo);
    answer(&json!({"success": true, "commitOid": oid, "commitUrl": "…"}))
}
