//! A dataset onto an Argilla 2 server, by its interface `/api/v1`: the dataset made where there is none, its settings, then its records.
//! Every step asks first or can be done twice, so the same call goes on where one broke off: settings by name, records by their id.
//! Knows that interface and the shapes of its package's files; deliberately knows no item, no vote and no flag.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::client::{Ask, Client, shown};
use super::error::clean;
use super::{Argilla, Dialogue, HubError, PushOffer, PushRequest, Pushed};

/// Records sent at once; a server takes 500.
const BATCH: usize = 100;
/// Bytes sent at once, if that is fewer records: texts may be long, and servers stand behind others that take some MB.
const BATCH_BYTES: usize = 2 << 20;
/// Records asked for at once; a server gives 1,000.
const PAGE: usize = 500;

#[derive(Deserialize)]
struct List<T> {
    items: Vec<T>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
    name: String,
    #[serde(default)]
    settings: Value,
}

#[derive(Deserialize)]
struct Remote {
    id: String,
    name: String,
    status: String,
}

#[derive(Deserialize)]
struct Stored {
    external_id: Option<String>,
    #[serde(default)]
    responses: Option<Vec<Responder>>,
}

#[derive(Deserialize)]
struct Responder {
    user_id: String,
}

#[derive(Deserialize)]
struct Sent {
    items: Vec<Value>,
}

/// Sends a dataset's settings and records. A dataset that is there has to have the same fields and questions, and keeps what people said
/// in it.
///
/// # Errors
/// See [`HubError`]; what was sent before stays there, and the same call sends the rest and doubles nothing.
pub fn push(
    server: &Argilla,
    request: &PushRequest,
    dialogue: &mut dyn Dialogue<PushOffer>,
) -> Result<Pushed, HubError> {
    let client = Client::of_argilla(server)?;
    if !client.has_token() {
        return Err(HubError::NoApiKey { url: client.endpoint().to_owned() });
    }
    let site = Site { client: &client };
    let workspace = site.workspace(request.workspace.as_deref())?;
    let there = site.dataset(&workspace, &request.dataset)?;
    let sizes: Vec<usize> = request.records.iter().map(|record| record.to_string().len()).collect();
    dialogue.agree(&PushOffer {
        workspace: workspace.name.clone(),
        is_new: there.is_none(),
        num_records: request.records.len() as u64,
        num_bytes: sizes.iter().sum::<usize>() as u64,
    })?;
    if server.url.starts_with("http:") && !is_loopback(&server.url) {
        dialogue.note("warning: http and not https: the API key and all texts can be read on the way");
    }
    let dataset = match there {
        Some(there) => there,
        None => site.create(&workspace, request)?,
    };
    let questions = site.settle(&dataset, request)?;
    let there = site.records(&dataset)?;
    let mut pushed = Pushed {
        url: client.endpoint().to_owned(),
        workspace: workspace.name,
        dataset: request.dataset.clone(),
        id: dataset.id.clone(),
        num_records: 0,
        num_known: 0,
        num_responses: 0,
        num_kept: 0,
    };
    let (mut from, mut num_bytes) = (0, 0);
    while from < request.records.len() {
        let mut to = from + 1;
        let mut bytes = sizes[from];
        while to < sizes.len() && to - from < BATCH && bytes + sizes[to] <= BATCH_BYTES {
            bytes += sizes[to];
            to += 1;
        }
        let items: Vec<Value> =
            request.records[from..to].iter().map(|record| item(record, &questions, &there, &mut pushed)).collect();
        let sent = site.send(&dataset, items)?;
        pushed.num_records += sent as u64;
        (from, num_bytes) = (to, num_bytes + bytes);
        dialogue.position(num_bytes as u64);
    }
    Ok(pushed)
}

/// Whether an address is this machine's.
fn is_loopback(url: &str) -> bool {
    let authority = url.split("://").nth(1).unwrap_or_default().split('/').next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// These keys of an object, where they hold something: an interface may refuse what it does not know.
fn only(value: &Value, keys: &[&str]) -> Value {
    let found =
        keys.iter().filter_map(|key| Some(((*key).to_owned(), value.get(*key).filter(|v| !v.is_null())?.clone())));
    Value::Object(found.collect::<Map<_, _>>())
}

/// Those of a list in the settings.
fn listed<'s>(settings: &'s Value, what: &str) -> impl Iterator<Item = &'s Value> {
    settings.get(what).and_then(Value::as_array).into_iter().flatten()
}

fn name_of(value: &Value) -> &str {
    value.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// A record of a file as the interface takes it. People who answered a record there keep what they said there.
fn item(
    record: &Value,
    questions: &HashMap<String, String>,
    there: &HashMap<String, HashSet<String>>,
    pushed: &mut Pushed,
) -> Value {
    let id = record.get("id").and_then(Value::as_str).unwrap_or_default();
    let entries = |key: &str| record.get(key).and_then(Value::as_object).into_iter().flatten();
    let suggestions: Vec<Value> = entries("suggestions")
        .filter_map(|(question, suggestion)| {
            let mut found = only(suggestion, &["value", "score", "agent"]);
            found["question_id"] = json!(questions.get(question)?);
            Some(found)
        })
        .collect();
    // By user, in the order in which they come: a file has them by question.
    let mut responses: Vec<(String, Value, Map<String, Value>)> = Vec::new();
    for (question, given) in entries("responses") {
        for response in given.as_array().into_iter().flatten() {
            let user = response.get("user_id").and_then(Value::as_str).unwrap_or_default();
            let value = json!({ "value": response.get("value") });
            let status = response.get("status").cloned().unwrap_or(json!("submitted"));
            match responses.iter_mut().find(|(other, ..)| other == user) {
                Some((.., values)) => drop(values.insert(question.clone(), value)),
                None => responses.push((user.to_owned(), status, Map::from_iter([(question.clone(), value)]))),
            }
        }
    }
    let num_all = responses.len();
    let users = there.get(id);
    pushed.num_known += u64::from(users.is_some());
    responses.retain(|(user, ..)| !users.is_some_and(|users| users.contains(user)));
    pushed.num_kept += (num_all - responses.len()) as u64;
    pushed.num_responses += responses.len() as u64;
    let responses: Vec<Value> = responses
        .into_iter()
        .map(|(user, status, values)| json!({"user_id": user, "status": status, "values": values}))
        .collect();
    let mut found = only(record, &["fields", "metadata"]);
    found["external_id"] = json!(id);
    found["suggestions"] = json!(suggestions);
    found["responses"] = json!(responses);
    found
}

/// One server.
struct Site<'a> {
    client: &'a Client,
}

impl Site<'_> {
    fn url(&self, path: &str) -> String {
        format!("{}/api/v1/{path}", self.client.endpoint())
    }

    fn list<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, HubError> {
        let url = self.url(path);
        Ok(self.client.persist(|| self.client.json::<List<T>>(&Ask::get(&url)))?.0.items)
    }

    /// Makes something; that it is there already is fine, since an answer may have been lost.
    fn make(&self, path: &str, body: &Value) -> Result<(), HubError> {
        let (url, body) = (self.url(path), body.to_string());
        match self.client.persist(|| self.client.once(&Ask::post(&url, &body))) {
            Ok(_) | Err(HubError::Status { status: 409, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn workspace(&self, wanted: Option<&str>) -> Result<Named, HubError> {
        let mut there: Vec<Named> = self.list("me/workspaces")?;
        let names: Vec<String> = there.iter().map(|one| clean(&one.name)).collect();
        let found = match wanted {
            Some(name) => there.iter().position(|one| one.name == name),
            None => (there.len() == 1).then_some(0),
        };
        let what = match wanted {
            Some(name) => format!("there is no workspace `{}` for this user", clean(name)),
            None => format!("this user has {} workspaces, want one", there.len()),
        };
        let hint = match names.is_empty() {
            true => "make one on the server, and put the user into it".to_owned(),
            false => format!("give --workspace with one of: {}", names.join(", ")),
        };
        let unusable = || HubError::Unusable { repo: self.client.endpoint().to_owned(), what, hint };
        found.map(|at| there.swap_remove(at)).ok_or_else(unusable)
    }

    fn dataset(&self, workspace: &Named, name: &str) -> Result<Option<Remote>, HubError> {
        let there: Vec<Remote> = self.list(&format!("me/datasets?workspace_id={}", workspace.id))?;
        Ok(there.into_iter().find(|dataset| dataset.name == name))
    }

    fn create(&self, workspace: &Named, request: &PushRequest) -> Result<Remote, HubError> {
        let mut body = only(&request.settings, &["guidelines", "allow_extra_metadata", "distribution"]);
        body["name"] = json!(request.dataset);
        body["workspace_id"] = json!(workspace.id);
        self.make("datasets", &body)?;
        let what = || format!("the dataset `{}` was made and is not there", clean(&request.dataset));
        let url = self.url("me/datasets");
        self.dataset(workspace, &request.dataset)?.ok_or_else(|| HubError::Answer { url: shown(&url), what: what() })
    }

    /// A draft gets what it lacks and is published; what is published has to fit. Gives the ids of the questions by name.
    fn settle(&self, dataset: &Remote, request: &PushRequest) -> Result<HashMap<String, String>, HubError> {
        let of = |what: &str| format!("datasets/{}/{what}", dataset.id);
        let is_draft = dataset.status == "draft";
        let parts: [(&str, &str, String, &[&str]); 3] = [
            ("fields", "field", of("fields"), &["name", "title", "required", "settings"]),
            ("questions", "question", of("questions"), &["name", "title", "description", "required", "settings"]),
            (
                "metadata",
                "metadata property",
                format!("me/{}", of("metadata-properties")),
                &["name", "title", "settings", "visible_for_annotators"],
            ),
        ];
        for (part, word, list, keys) in parts {
            let there: Vec<Named> = self.list(&list)?;
            let post = list.trim_start_matches("me/");
            for wanted in listed(&request.settings, part) {
                let found = there.iter().find(|one| one.name == name_of(wanted));
                let kind = |settings: &Value| settings.get("type").cloned();
                match found {
                    None if is_draft => self.make(post, &posted(wanted, keys))?,
                    Some(found) if wanted.get("settings").is_some_and(|own| kind(own) == kind(&found.settings)) => {}
                    _ => {
                        let how = if found.is_some() { "of another type" } else { "not there" };
                        return Err(HubError::Unusable {
                            repo: clean(&dataset.name),
                            what: format!("the dataset is there, and its {word} `{}` is {how}", name_of(wanted)),
                            hint: "give another --dataset, or delete that one on the server".to_owned(),
                        });
                    }
                }
            }
        }
        if is_draft {
            self.publish(dataset)?;
        }
        let questions: Vec<Named> = self.list(&of("questions"))?;
        Ok(questions.into_iter().map(|question| (question.name, question.id)).collect())
    }

    /// Opens a draft for records. Where an answer was lost, the server says that it is open already.
    fn publish(&self, dataset: &Remote) -> Result<(), HubError> {
        let url = self.url(&format!("datasets/{}/publish", dataset.id));
        let error = match self.client.persist(|| self.client.once(&Ask::put(&url, ""))) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let url = self.url(&format!("datasets/{}", dataset.id));
        let refused = matches!(error, HubError::Status { status: 422, .. });
        let now = refused.then(|| self.client.persist(|| self.client.json::<Remote>(&Ask::get(&url))));
        match now {
            Some(Ok((now, _))) if now.status != "draft" => Ok(()),
            _ => Err(error),
        }
    }

    /// The records that are there, by their id here, each with the users who answered it.
    fn records(&self, dataset: &Remote) -> Result<HashMap<String, HashSet<String>>, HubError> {
        let mut found = HashMap::new();
        for from in (0..).step_by(PAGE) {
            let path = format!("datasets/{}/records?include=responses&offset={from}&limit={PAGE}", dataset.id);
            let page: Vec<Stored> = self.list(&path)?;
            let is_last = page.len() < PAGE;
            for record in page {
                let users: HashSet<String> = record.responses.into_iter().flatten().map(|one| one.user_id).collect();
                if let Some(id) = record.external_id {
                    found.insert(id, users);
                }
            }
            if is_last {
                break;
            }
        }
        Ok(found)
    }

    /// Sends records: new ones are made, those that are there are changed.
    fn send(&self, dataset: &Remote, items: Vec<Value>) -> Result<usize, HubError> {
        let num_items = items.len();
        let url = self.url(&format!("datasets/{}/records/bulk", dataset.id));
        let body = json!({ "items": items }).to_string();
        let (sent, _) = self.client.persist(|| self.client.json::<Sent>(&Ask::put(&url, &body)))?;
        if sent.items.len() != num_items {
            let what = format!("of {num_items} records it took {}", sent.items.len());
            return Err(HubError::Answer { url: shown(&url), what });
        }
        Ok(num_items)
    }
}

/// One setting as the interface takes it: a file's settings repeat what the setting itself says.
fn posted(wanted: &Value, keys: &[&str]) -> Value {
    let mut body = only(wanted, keys);
    if let Some(settings) = body.get_mut("settings").and_then(Value::as_object_mut) {
        settings.retain(|key, value| key != "visible_for_annotators" && !value.is_null());
    }
    body
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn only_this_machine_is_spoken_to_in_the_clear_without_a_word() {
        for own in ["http://127.0.0.1:6900", "http://localhost/x", "http://[::1]:6900/", "http://127.8.0.1"] {
            assert!(is_loopback(own), "{own}");
        }
        for other in [
            "http://localhost.example.org",
            "http://127.0.0.1.example.org",
            "http://127.0.0.1@example.org",
            "http://10.0.0.1",
        ] {
            assert!(!is_loopback(other), "{other}");
        }
    }
}
