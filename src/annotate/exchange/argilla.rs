//! Argilla 2 on disk: a folder that its Python package loads (`rg.Dataset.from_disk`), and the records that it or a server gives back.
//! Knows the shapes of Argilla's files and of its interface's payloads; knows nothing of connections.
//!
//! Three of its traps decide the form. Questions are labels, ratings and a text: a ranking loses its ranks in the package, and a server then
//! refuses it. Texts are text fields: a chat field takes 20,000 characters at most. A response names its user by the server's own id, and
//! one unknown id makes a server refuse all records of a call: only people whose id is given go along.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{
    Answers, ExchangeError, FLAG_TEXTS, GUIDELINES, Handover, PREFERENCES, Response, Responses, answers_of, name,
    sides, suggestion,
};
use crate::annotate::items::{Item, ItemAnswer};
use crate::annotate::vote::{CurrentVote, Flag};
use crate::provenance::write_atomic;

/// Most characters of the name of whoever suggests.
const MAX_AGENT_CHARACTERS: usize = 200;
/// Ratings offered.
const RATINGS: std::ops::RangeInclusive<i64> = 1..=5;

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Records.
    pub num_records: u64,
    /// Responses in them.
    pub num_responses: u64,
    /// Items of more than two answers, which Argilla's questions cannot hold.
    pub num_left_out: u64,
}

/// A dataset as Argilla has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Fields, questions, metadata and the rest: `settings.json`.
    pub settings: Value,
    /// `records.json`.
    pub records: Vec<Value>,
    /// See there.
    pub written: Written,
}

impl Dataset {
    /// Items with what the judge suggests and what people said. `judge` names whoever suggests.
    pub fn of(items: &[Item], votes: &[CurrentVote<'_>], judge: &str, handover: &Handover) -> Self {
        let mut by_item: BTreeMap<&str, Vec<&CurrentVote<'_>>> = BTreeMap::new();
        votes.iter().for_each(|vote| by_item.entry(&vote.vote.item).or_default().push(vote));
        let mut written = Written::default();
        let mut records = Vec::new();
        let agent = agent(judge);
        for item in items {
            let Some(sides) = sides(item) else {
                written.num_left_out += 1;
                continue;
            };
            let own = by_item.get(item.id.as_str()).map(Vec::as_slice).unwrap_or_default();
            let responses = responses(&answers_of(item, sides, own, &handover.users), &mut written);
            written.num_records += 1;
            records.push(json!({
                "id": item.id,
                "fields": fields(item, sides),
                "metadata": {"language": item.language},
                "suggestions": if handover.with_suggestions { suggestions(sides, &agent) } else { json!({}) },
                "responses": responses,
                "vectors": {},
                "status": "pending",
                "_server_id": null,
            }));
        }
        Self { settings: settings(handover), records, written }
    }

    /// Writes the folder's files.
    ///
    /// # Errors
    /// If one cannot be written.
    pub fn write(&self, dir: &Path, dataset_name: &str) -> Result<(), ExchangeError> {
        let hidden = dir.join(".argilla");
        std::fs::create_dir_all(&hidden).map_err(|source| ExchangeError::Io {
            action: "create",
            path: hidden.clone(),
            source,
        })?;
        write_atomic(&hidden.join("dataset.json"), pretty(&json!({"name": dataset_name})).as_bytes())?;
        write_atomic(&hidden.join("settings.json"), pretty(&self.settings).as_bytes())?;
        Ok(write_atomic(&dir.join("records.json"), pretty(&json!(self.records)).as_bytes())?)
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn fields(item: &Item, sides: [&ItemAnswer; 2]) -> Value {
    let mut fields = Map::from_iter([(name::PROMPT.to_owned(), json!(item.prompt))]);
    for (field, side) in name::ANSWERS.into_iter().zip(sides) {
        fields.insert(field.to_owned(), json!(side.text));
    }
    Value::Object(fields)
}

fn suggestions(sides: [&ItemAnswer; 2], agent: &str) -> Value {
    let mut found = Map::new();
    if let Some((value, score)) = suggestion(sides) {
        found.insert(name::PREFERENCE.to_owned(), json!({"value": value, "score": score, "agent": agent}));
    }
    for (question, side) in name::RATINGS.into_iter().zip(sides) {
        let rating = side.rating.map(|rating| (rating.round() as i64).clamp(*RATINGS.start(), *RATINGS.end()));
        if let Some(rating) = rating {
            found.insert(question.to_owned(), json!({"value": rating, "score": null, "agent": agent}));
        }
    }
    Value::Object(found)
}

/// By question, a list of who said what.
fn responses(all: &[(&str, Answers)], written: &mut Written) -> Value {
    let mut found: Map<String, Value> = Map::new();
    let mut add = |question: &str, user: &str, value: Value| {
        let entry = found.entry(question.to_owned()).or_insert_with(|| json!([]));
        if let Value::Array(list) = entry {
            list.push(json!({"value": value, "user_id": user, "status": "submitted"}));
        }
    };
    for (user, answers) in all {
        written.num_responses += 1;
        for (question, value) in values(answers) {
            add(question, user, value);
        }
    }
    Value::Object(found)
}

/// Answers by the name of the question. The preference is a required question: who flags answers it with both bad.
pub fn values(answers: &Answers) -> Vec<(&'static str, Value)> {
    let preference = answers.preference.clone().or_else(|| answers.flag.as_ref().map(|_| "both_bad".to_owned()));
    let mut found: Vec<(&'static str, Value)> = Vec::new();
    found.extend(preference.map(|value| (name::PREFERENCE, json!(value))));
    found.extend(answers.flag.as_ref().map(|value| (name::FLAG, json!(value))));
    found.extend(answers.edit.as_ref().map(|value| (name::EDIT, json!(value))));
    found.extend(
        name::RATINGS
            .into_iter()
            .zip(answers.ratings)
            .filter_map(|(question, rating)| Some((question, json!(rating?)))),
    );
    found
}

fn settings(handover: &Handover) -> Value {
    let field = |field: &str, title: &str| json!({"name": field, "title": title, "required": true, "settings": {"type": "text", "use_markdown": false}});
    let label = |question: &str, title: &str, is_required: bool, options: Vec<(&str, &str)>| {
        let options: Vec<Value> =
            options.iter().map(|(value, text)| json!({"value": value, "text": text, "description": null})).collect();
        let visible_options = options.len();
        json!({
            "name": question,
            "title": title,
            "description": null,
            "required": is_required,
            "settings": {"type": "label_selection", "options": options, "visible_options": visible_options},
        })
    };
    let rating = |(question, title): (&str, &str)| {
        let options: Vec<Value> = RATINGS.map(|value| json!({"value": value})).collect();
        json!({
            "name": question,
            "title": title,
            "description": null,
            "required": false,
            "settings": {"type": "rating", "options": options},
        })
    };
    let flags: Vec<(&str, &str)> = Flag::ALL.iter().map(|flag| flag.as_str()).zip(FLAG_TEXTS).collect();
    let [rating_a, rating_b] = name::RATINGS;
    let [answer_a, answer_b] = name::ANSWERS;
    let edit = json!({
        "name": name::EDIT,
        "title": "A better text of the better answer",
        "description": null,
        "required": false,
        "settings": {"type": "text", "use_markdown": false},
    });
    json!({
        "guidelines": GUIDELINES,
        "allow_extra_metadata": false,
        "distribution": {"strategy": "overlap", "min_submitted": handover.min_votes.max(1)},
        "fields": [field(name::PROMPT, "Prompt"), field(answer_a, "Answer A"), field(answer_b, "Answer B")],
        "questions": [
            label(name::PREFERENCE, "Which answer is better?", true, PREFERENCES.to_vec()),
            rating((rating_a, "Answer A, 1 to 5")),
            rating((rating_b, "Answer B, 1 to 5")),
            label(name::FLAG, "Something is wrong", false, flags),
            edit,
        ],
        "metadata": [{
            "name": "language",
            "title": "Language",
            "visible_for_annotators": true,
            "settings": {"type": "terms", "values": null, "visible_for_annotators": true},
        }],
        "vectors": [],
        "mapping": null,
    })
}

/// A model's name as Argilla takes it: letters, digits and a few marks.
pub fn agent(model: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_:./ ".contains(c);
    let plain: String = model.chars().map(|c| if is_plain(c) { c } else { '-' }).take(MAX_AGENT_CHARACTERS).collect();
    if plain.chars().any(|c| c.is_ascii_alphanumeric()) { plain } else { "judge".to_owned() }
}

/// Reads the records of a folder that Argilla's package wrote (`Dataset.to_disk`), or of a file.
///
/// # Errors
/// A file that is no array of records.
pub fn read(path: &Path) -> Result<Responses, ExchangeError> {
    let file = if path.is_dir() { path.join("records.json") } else { path.to_owned() };
    let bytes =
        std::fs::read(&file).map_err(|source| ExchangeError::Io { action: "read", path: file.clone(), source })?;
    let malformed = |what: String| ExchangeError::Malformed {
        path: file.clone(),
        what,
        hint: "give the folder that `to_disk` wrote, or its records.json",
    };
    let records: Value = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
    let Value::Array(records) = records else {
        return Err(malformed("it is no array, expected one of records".to_owned()));
    };
    let mut found = Responses::default();
    for record in &records {
        read_record(record, &mut found);
    }
    Ok(found)
}

/// The responses of one record, as files have them: by question, each with its user.
fn read_record(record: &Value, found: &mut Responses) {
    let text = |field: &str| record.get("fields").and_then(|fields| fields.get(field)).and_then(Value::as_str);
    let [a, b] = name::ANSWERS.map(text);
    let (Some(prompt), Some(a), Some(b)) = (text(name::PROMPT), a, b) else {
        return found.leave_out("record_of_other_fields");
    };
    let id = record.get("id").and_then(Value::as_str).unwrap_or_default();
    let no_questions = Map::new();
    let questions = record.get("responses").and_then(Value::as_object).unwrap_or(&no_questions);
    let mut by_user: BTreeMap<String, (Answers, Option<&str>)> = BTreeMap::new();
    for (question, responses) in questions {
        for response in responses.as_array().into_iter().flatten() {
            let user = response.get("user_id").and_then(Value::as_str).unwrap_or_default();
            let (answers, status) = by_user.entry(user.to_owned()).or_default();
            // The package's own `to_disk` leaves the status out; whatever it wrote was given on purpose.
            *status = status.or(response.get("status").and_then(Value::as_str));
            answers.set(question, response.get("value").unwrap_or(&Value::Null));
        }
    }
    for (user, (answers, status)) in by_user {
        match status {
            None | Some("submitted") => found.responses.push(Response {
                record: id.to_owned(),
                user,
                prompt: prompt.to_owned(),
                texts: [a.to_owned(), b.to_owned()],
                answers,
            }),
            Some("discarded") => found.leave_out("discarded"),
            Some(_) => found.leave_out("draft"),
        }
    }
}

impl Answers {
    /// Sets what a question asks; questions of others are none of ours.
    fn set(&mut self, question: &str, value: &Value) {
        let text = || value.as_str().map(str::to_owned);
        match question {
            name::PREFERENCE => self.preference = text(),
            name::FLAG => self.flag = text(),
            name::EDIT => self.edit = text(),
            _ => {
                let rating = name::RATINGS.into_iter().zip(&mut self.ratings).find(|(name, _)| *name == question);
                if let Some((_, rating)) = rating {
                    *rating = value.as_i64();
                }
            }
        }
    }
}
