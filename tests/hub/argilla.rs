//! A small Argilla server: the part of `/api/v1` that a push speaks, with the rules that argilla-server 2.8.0 holds requests to, and
//! stricter where that one looks away: a key that it does not know is refused. Knows those rules; what goes wrong is put in by `server`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::server::{Reply, Seen};

/// The key that opens everything.
pub const API_KEY: &str = "argilla.secretSECRET";
/// People that the server knows.
pub const USERS: [&str; 2] = ["5b0f3a1c-1111-4222-8333-444455556666", "6c1f3a1c-1111-4222-8333-444455556666"];

/// A dataset.
#[derive(Clone, Default)]
pub struct Dataset {
    pub id: String,
    pub about: Value,
    pub is_ready: bool,
    /// `fields`, `questions`, `metadata-properties`: in the order in which they were made.
    pub settings: BTreeMap<&'static str, Vec<Value>>,
    /// By external id: fields, metadata, suggestions by question id, responses by user.
    pub records: BTreeMap<String, Record>,
}

#[derive(Clone, Default, Debug, PartialEq)]
pub struct Record {
    pub fields: Value,
    pub metadata: Value,
    pub suggestions: BTreeMap<String, Value>,
    pub responses: BTreeMap<String, Value>,
}

/// What is there.
#[derive(Default)]
pub struct Argilla {
    pub workspaces: Vec<&'static str>,
    pub datasets: Vec<Dataset>,
}

type Checked<T> = Result<T, Reply>;

fn answer(status: u16, value: &Value) -> Reply {
    let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
    Reply { status, headers, body: value.to_string().into_bytes() }
}

fn refuse<T>(status: u16, detail: impl Into<String>) -> Checked<T> {
    Err(answer(status, &json!({ "detail": detail.into() })))
}

/// What pydantic says: where, and what.
fn malformed<T>(at: &[&str], what: &str) -> Checked<T> {
    let at = [&["body"], at].concat();
    let error = json!({"type": "x", "loc": at, "msg": what});
    let code = "argilla.api.errors::ValidationError";
    Err(answer(422, &json!({"detail": {"code": code, "params": {"errors": [error]}}})))
}

type Is = fn(&Value) -> bool;

/// An object with these keys, each as it should be, those in `optional` if at all; and no other.
fn shape(value: &Value, required: &[(&str, Is)], optional: &[(&str, Is)]) -> Checked<()> {
    let Some(object) = value.as_object() else { return malformed(&[], "want an object") };
    for (key, is_right) in required {
        match object.get(*key) {
            None => return malformed(&[key], "Field required"),
            Some(value) if !is_right(value) => return malformed(&[key], "Input is of the wrong kind"),
            Some(_) => {}
        }
    }
    for (key, value) in object {
        let known = required.iter().chain(optional).find(|(name, _)| name == key);
        match known {
            None => return malformed(&[key], "Extra inputs are not permitted"),
            Some((_, is_right)) if !is_right(value) => return malformed(&[key], "Input is of the wrong kind"),
            Some(_) => {}
        }
    }
    Ok(())
}

fn is_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| (1..=10_000).contains(&text.chars().count()))
}
fn is_name(value: &Value) -> bool {
    value.as_str().is_some_and(|text| (1..=200).contains(&text.chars().count()))
}
fn is_any_text(value: &Value) -> bool {
    value.is_string()
}
fn is_score(value: &Value) -> bool {
    value.as_f64().is_some_and(|score| (0.0..=1.0).contains(&score))
}
fn is_agent(value: &Value) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_:./".contains(c) || c.is_whitespace();
    is_name(value)
        && value.as_str().is_some_and(|text| text.chars().all(plain) && text.chars().any(|c| c.is_ascii_alphanumeric()))
}
fn is_distribution(value: &Value) -> bool {
    value["strategy"] == "overlap" && value["min_submitted"].as_i64().is_some_and(|min| min >= 1)
}
fn is_kind<const N: usize>(kinds: [&str; N], value: &Value) -> bool {
    value["type"].as_str().is_some_and(|kind| kinds.contains(&kind))
}
fn is_field_settings(value: &Value) -> bool {
    is_kind(["text"], value) && shape(value, &[("type", is_text)], &[("use_markdown", Value::is_boolean)]).is_ok()
}
fn is_terms(value: &Value) -> bool {
    is_kind(["terms"], value) && shape(value, &[("type", is_text)], &[("values", Value::is_array)]).is_ok()
}
fn is_question_settings(value: &Value) -> bool {
    let options = value["options"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = |option: &Value| {
        let optional: [(&str, Is); 1] = [("description", |value| value.is_null() || is_text(value))];
        shape(option, &[("value", is_name), ("text", is_name)], &optional).is_ok()
    };
    let distinct: BTreeSet<String> = options.iter().map(|option| option["value"].to_string()).collect();
    let is_list = distinct.len() == options.len() && options.len() >= 2;
    match value["type"].as_str() {
        Some("text") => is_field_settings(value),
        Some("rating") => {
            let is_rating = |option: &Value| option["value"].as_i64().is_some_and(|rating| (0..=10).contains(&rating));
            is_list && options.len() <= 11 && options.iter().all(is_rating)
        }
        Some("ranking") => {
            is_list && options.iter().all(named) && options.len() <= 50 && value.get("visible_options").is_none()
        }
        Some("label_selection") => {
            let is_visible = |shown: i64| shown >= 3 && shown <= options.len() as i64;
            is_list && options.iter().all(named) && value["visible_options"].as_i64().is_none_or(is_visible)
        }
        _ => false,
    }
}

impl Argilla {
    /// The answer to one request.
    pub fn reply(&mut self, request: &Seen) -> Reply {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let parts: Vec<&str> = path.trim_start_matches("/api/v1/").split('/').collect();
        if request.headers.get("x-argilla-api-key").is_none_or(|key| key != API_KEY) {
            let params = json!({"detail": "Could not validate credentials"});
            return answer(
                401,
                &json!({"detail": {"code": "argilla.api.errors::UnauthorizedError", "params": params}}),
            );
        }
        let body = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
        self.route(&request.method, &parts, query, &body).unwrap_or_else(|refused| refused)
    }

    fn route(&mut self, method: &str, parts: &[&str], query: &str, body: &Value) -> Checked<Reply> {
        let list = |items: Vec<Value>| Ok(answer(200, &json!({ "items": items })));
        match (method, parts) {
            ("GET", ["me", "workspaces"]) => {
                list(self.workspaces.iter().map(|name| json!({"id": format!("ws-{name}"), "name": name})).collect())
            }
            ("GET", ["me", "datasets"]) => {
                let wanted = query.strip_prefix("workspace_id=").expect("the workspace is named");
                list(
                    self.datasets.iter().filter(|one| one.about["workspace_id"] == wanted).map(Dataset::view).collect(),
                )
            }
            ("POST", ["datasets"]) => self.create(body),
            ("GET", ["datasets", id]) => Ok(answer(200, &self.dataset(id)?.view())),
            ("PUT", ["datasets", id, "publish"]) => self.dataset(id)?.publish(),
            ("PUT", ["datasets", id, "records", "bulk"]) => self.dataset(id)?.upsert(body),
            ("GET", ["datasets", id, "records"]) => self.dataset(id)?.page(query),
            ("GET", ["datasets", id, part @ ("fields" | "questions")])
            | ("GET", ["me", "datasets", id, part @ "metadata-properties"]) => {
                list(self.dataset(id)?.settings.get(part).cloned().unwrap_or_default())
            }
            ("POST", ["datasets", id, part]) => self.dataset(id)?.set(part, body),
            _ => refuse(404, "Not Found"),
        }
    }

    fn dataset(&mut self, id: &str) -> Checked<&mut Dataset> {
        match self.datasets.iter_mut().find(|dataset| dataset.id == id) {
            Some(dataset) => Ok(dataset),
            None => refuse(404, format!("Dataset with id `{id}` not found")),
        }
    }

    fn create(&mut self, body: &Value) -> Checked<Reply> {
        let optional: [(&str, Is); 3] =
            [("guidelines", is_text), ("allow_extra_metadata", Value::is_boolean), ("distribution", is_distribution)];
        shape(body, &[("name", is_name), ("workspace_id", is_text)], &optional)?;
        if self
            .datasets
            .iter()
            .any(|one| one.about["name"] == body["name"] && one.about["workspace_id"] == body["workspace_id"])
        {
            return refuse(409, format!("Dataset with name `{}` already exists", body["name"].as_str().unwrap()));
        }
        let id = format!("dataset-{}", self.datasets.len());
        self.datasets.push(Dataset { id, about: body.clone(), ..Dataset::default() });
        Ok(answer(201, &self.datasets.last().unwrap().view()))
    }
}

impl Dataset {
    fn view(&self) -> Value {
        let mut view = self.about.clone();
        view["id"] = json!(self.id);
        view["status"] = json!(if self.is_ready { "ready" } else { "draft" });
        view
    }

    fn all(&self, part: &str) -> &[Value] {
        self.settings.get(part).map(Vec::as_slice).unwrap_or_default()
    }

    fn set(&mut self, part: &str, body: &Value) -> Checked<Reply> {
        let (part, is_settings, optional): (&'static str, Is, &[(&str, Is)]) = match part {
            "fields" => ("fields", is_field_settings, &[("required", Value::is_boolean)]),
            "questions" => {
                ("questions", is_question_settings, &[("required", Value::is_boolean), ("description", is_text)])
            }
            "metadata-properties" => {
                ("metadata-properties", is_terms, &[("visible_for_annotators", Value::is_boolean)])
            }
            other => return refuse(404, format!("{other} Not Found")),
        };
        shape(body, &[("name", is_name), ("title", is_text), ("settings", is_settings)], optional)?;
        if self.is_ready {
            return refuse(422, format!("{part} cannot be created for a published dataset"));
        }
        if self.all(part).iter().any(|one| one["name"] == body["name"]) {
            return refuse(409, format!("`{}` already exists", body["name"].as_str().unwrap()));
        }
        let mut made = body.clone();
        made["id"] = json!(format!("{part}-{}-{}", self.id, self.all(part).len()));
        self.settings.entry(part).or_default().push(made.clone());
        Ok(answer(201, &made))
    }

    fn publish(&mut self) -> Checked<Reply> {
        if self.is_ready {
            return refuse(422, "Dataset has already been published");
        }
        if self.all("fields").is_empty() {
            return refuse(422, "Dataset cannot be published without fields");
        }
        if !self.all("questions").iter().any(|question| question["required"] == true) {
            return refuse(422, "Dataset cannot be published without required questions");
        }
        self.is_ready = true;
        Ok(answer(200, &self.view()))
    }

    fn page(&self, query: &str) -> Checked<Reply> {
        let number =
            |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.parse::<usize>().ok()).unwrap();
        assert!(query.contains("include=responses") && (1..=1000).contains(&number("limit=")));
        let one = |(id, record): (&String, &Record)| {
            let responses: Vec<&Value> = record.responses.values().collect();
            json!({"id": format!("server-{id}"), "external_id": id, "fields": record.fields, "responses": responses, "status": "pending"})
        };
        let items: Vec<Value> = self.records.iter().skip(number("offset=")).take(number("limit=")).map(one).collect();
        Ok(answer(200, &json!({"items": items, "total": self.records.len()})))
    }

    /// All records of a call, or none.
    fn upsert(&mut self, body: &Value) -> Checked<Reply> {
        shape(body, &[("items", Value::is_array)], &[])?;
        let items = body["items"].as_array().unwrap();
        if !(1..=500).contains(&items.len()) {
            return malformed(&["items"], "List should have at most 500 items");
        }
        if !self.is_ready {
            return refuse(422, "records cannot be created for a non published dataset");
        }
        let ids: BTreeSet<&str> = items.iter().filter_map(|item| item["external_id"].as_str()).collect();
        if ids.len() != items.len() {
            return malformed(&["items"], "External IDs must be unique");
        }
        for (at, item) in items.iter().enumerate() {
            let optional: [(&str, Is); 3] =
                [("metadata", Value::is_object), ("suggestions", Value::is_array), ("responses", Value::is_array)];
            shape(item, &[("external_id", is_name), ("fields", Value::is_object)], &optional)?;
            if let Err(why) = self.is_record(item) {
                return refuse(422, format!("Record at position {at} is not valid because {why}"));
            }
        }
        for item in items {
            let id = item["external_id"].as_str().unwrap().to_owned();
            let record = self.records.entry(id).or_default();
            record.fields = item["fields"].clone();
            record.metadata = item["metadata"].clone();
            for suggestion in item["suggestions"].as_array().unwrap() {
                record.suggestions.insert(suggestion["question_id"].as_str().unwrap().to_owned(), suggestion.clone());
            }
            for response in item["responses"].as_array().unwrap() {
                record.responses.insert(response["user_id"].as_str().unwrap().to_owned(), response.clone());
            }
        }
        let items: Vec<Value> = items.iter().map(|item| json!({"external_id": item["external_id"]})).collect();
        Ok(answer(200, &json!({ "items": items })))
    }

    fn is_record(&self, item: &Value) -> Result<(), String> {
        let fields = item["fields"].as_object().unwrap();
        for field in self.all("fields") {
            let name = field["name"].as_str().unwrap();
            match fields.get(name) {
                None if field["required"] == true => return Err(format!("missing required value for field: {name:?}")),
                Some(value) if !value.is_string() => return Err(format!("text field {name:?} value must be a string")),
                _ => {}
            }
        }
        let is_known = |part: &str, name: &str| self.all(part).iter().any(|one| one["name"] == name);
        if let Some(other) = fields.keys().find(|name| !is_known("fields", name)) {
            return Err(format!("found fields values for non configured fields: {other}"));
        }
        if let Some(other) =
            item["metadata"].as_object().unwrap().keys().find(|name| !is_known("metadata-properties", name))
        {
            return Err(format!("metadata is not valid: {other} does not exist"));
        }
        let mut suggested = BTreeSet::new();
        for suggestion in item["suggestions"].as_array().unwrap() {
            let optional: [(&str, Is); 2] = [("agent", is_agent), ("score", is_score)];
            shape(suggestion, &[("question_id", is_name), ("value", |_| true)], &optional)
                .map_err(|_| format!("it does not have valid suggestions: {suggestion}"))?;
            let question = self.all("questions").iter().find(|question| question["id"] == suggestion["question_id"]);
            let question = question.ok_or("a question of that id does not exist")?;
            is_value(question, &suggestion["value"])?;
            if !suggested.insert(suggestion["question_id"].to_string()) {
                return Err("found duplicate suggestions question IDs".to_owned());
            }
        }
        let mut users = BTreeSet::new();
        for response in item["responses"].as_array().unwrap() {
            let required: [(&str, Is); 3] =
                [("user_id", is_any_text), ("status", is_name), ("values", Value::is_object)];
            shape(response, &required, &[]).map_err(|_| format!("it does not have valid responses: {response}"))?;
            let user = response["user_id"].as_str().unwrap();
            if !USERS.contains(&user) {
                return Err(format!("record does not have valid responses: user with id {user} not found"));
            }
            if !users.insert(user) {
                return Err("'responses' contains several responses for the same user_id".to_owned());
            }
            let values = response["values"].as_object().unwrap();
            for question in self.all("questions") {
                let name = question["name"].as_str().unwrap();
                match values.get(name) {
                    None if question["required"] == true => {
                        return Err(format!("missing response value for required question with name={name:?}"));
                    }
                    Some(value) => is_value(question, &value["value"])?,
                    None => {}
                }
            }
            if let Some(other) = values.keys().find(|name| !is_known("questions", name)) {
                return Err(format!("found response value for non configured question with name={other:?}"));
            }
        }
        Ok(())
    }
}

/// Whether a question may be answered so.
fn is_value(question: &Value, value: &Value) -> Result<(), String> {
    let settings = &question["settings"];
    let options: Vec<&Value> =
        settings["options"].as_array().into_iter().flatten().map(|option| &option["value"]).collect();
    let is_right = match settings["type"].as_str().unwrap() {
        "text" => value.is_string(),
        "rating" | "label_selection" => options.contains(&value),
        "ranking" => {
            let places = value.as_array().ok_or("ranking question expects a list of values")?;
            let named: BTreeSet<String> = places.iter().map(|place| place["value"].to_string()).collect();
            let wanted: BTreeSet<String> = options.iter().map(|option| option.to_string()).collect();
            let is_rank = |rank: i64| (1..=options.len() as i64).contains(&rank);
            named == wanted
                && places.len() == wanted.len()
                && places.iter().all(|place| place["rank"].as_i64().is_some_and(is_rank))
        }
        other => panic!("a question of type {other}"),
    };
    if is_right { Ok(()) } else { Err(format!("{value} is not valid for {}", question["name"])) }
}
