//! Argilla 2 on disk: a folder that its Python package loads (`rg.Dataset.from_disk`), and the records that it or a server gives back.
//! Knows the shapes of Argilla's files and of its interface's payloads; knows nothing of connections.
//!
//! Its traps decide the form. Two answers are a label, since a ranking loses its ranks in the package (`to_disk` writes names alone, which
//! are no ranking when they come back; what the interface gives has ranks). More are a ranking, which a server wants of all answers that
//! the dataset knows: those that a record lacks stand last. Texts are text fields: a chat field takes 20,000 characters at most. A response
//! names its user by the server's own id, and one unknown id makes a server refuse all records of a call: only people whose id is given
//! go along.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{
    Answers, ExchangeError, FLAG_TEXTS, GUIDELINES, Handover, LETTERS, PREFERENCES, Response, Responses, answers_of,
    name, sides, suggestion,
};
use crate::annotate::items::{Item, ItemAnswer};
use crate::annotate::vote::{CurrentVote, Flag};
use crate::provenance::write_atomic;

/// Most characters of the name of whoever suggests.
const MAX_AGENT_CHARACTERS: usize = 200;
/// Said where some records have fewer answers than others.
const RANK_LAST: &str =
    "Where a record has fewer answers than the ranking has names, put those that are not there last.";
/// Ratings offered.
const RATINGS: std::ops::RangeInclusive<i64> = 1..=5;

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Records.
    pub num_records: u64,
    /// Responses in them.
    pub num_responses: u64,
    /// Votes of people with a user there that the questions cannot hold: that none of several answers is good.
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
        let num_answers = items.iter().map(|item| item.answers.len()).max().unwrap_or(2);
        let ask = Ask { num_answers };
        for item in items {
            let sides = sides(item);
            let own = by_item.get(item.id.as_str()).map(Vec::as_slice).unwrap_or_default();
            let responses = ask.responses(&answers_of(item, &sides, own, &handover.users), &mut written);
            written.num_records += 1;
            records.push(json!({
                "id": item.id,
                "fields": fields(item, &sides),
                "metadata": {"language": item.language},
                "suggestions": if handover.with_suggestions { ask.suggestions(&sides, &agent) } else { json!({}) },
                "responses": responses,
                "vectors": {},
                "status": "pending",
                "_server_id": null,
            }));
        }
        Self { settings: ask.settings(handover), records, written }
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

fn fields(item: &Item, sides: &[&ItemAnswer]) -> Value {
    let mut fields = Map::from_iter([(name::PROMPT.to_owned(), json!(item.prompt))]);
    for (field, side) in name::ANSWERS.into_iter().zip(sides) {
        fields.insert(field.to_owned(), json!(side.text));
    }
    Value::Object(fields)
}

/// What is asked of each record: which of two answers is better, or how several are ranked.
#[derive(Debug, Clone, Copy)]
struct Ask {
    /// The most that a record has.
    num_answers: usize,
}

impl Ask {
    fn is_ranking(self) -> bool {
        self.num_answers > 2
    }

    fn suggestions(self, sides: &[&ItemAnswer], agent: &str) -> Value {
        let mut found = Map::new();
        if let Some((value, score)) = suggestion(sides).filter(|_| !self.is_ranking()) {
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
    fn responses(self, all: &[(&str, Answers)], written: &mut Written) -> Value {
        let mut found: Map<String, Value> = Map::new();
        let mut add = |question: &str, user: &str, value: Value| {
            let entry = found.entry(question.to_owned()).or_insert_with(|| json!([]));
            if let Value::Array(list) = entry {
                list.push(json!({"value": value, "user_id": user, "status": "submitted"}));
            }
        };
        for (user, answers) in all {
            let Some(required) = self.required(answers) else {
                written.num_left_out += 1;
                continue;
            };
            written.num_responses += 1;
            for (question, value) in [required].into_iter().chain(optional(answers)) {
                add(question, user, value);
            }
        }
        Value::Object(found)
    }

    /// The answer to the question that has to be answered; who flags something answers it with both bad, or with no answer before another.
    fn required(self, answers: &Answers) -> Option<(&'static str, Value)> {
        let is_flag = answers.flag.is_some();
        if !self.is_ranking() {
            return answers
                .preference()
                .or(is_flag.then_some("both_bad"))
                .map(|value| (name::PREFERENCE, json!(value)));
        }
        let ranks = answers.ranks.clone().or_else(|| is_flag.then(|| vec![1; self.num_answers]))?;
        let last = self.num_answers as i64;
        let rank = |at: usize| ranks.get(at).copied().unwrap_or(last);
        let one = |(at, letter): (usize, &str)| json!({"value": letter, "rank": rank(at)});
        Some((name::RANKING, LETTERS.into_iter().take(self.num_answers).enumerate().map(one).collect()))
    }

    fn settings(self, handover: &Handover) -> Value {
        let titles: Vec<String> =
            LETTERS.iter().take(self.num_answers).map(|letter| format!("Answer {}", letter.to_uppercase())).collect();
        let field = |field: &str, title: &str, is_required: bool| json!({"name": field, "title": title, "required": is_required, "settings": {"type": "text", "use_markdown": false}});
        let answers = name::ANSWERS.into_iter().zip(&titles).enumerate();
        let mut fields = vec![field(name::PROMPT, "Prompt", true)];
        fields.extend(answers.map(|(at, (name, title))| field(name, title, at < 2)));
        let required = if self.is_ranking() {
            let options: Vec<Value> = LETTERS
                .iter()
                .zip(&titles)
                .map(|(value, text)| json!({"value": value, "text": text, "description": null}))
                .collect();
            question(
                name::RANKING,
                "Which answer is better than which?",
                true,
                json!({"type": "ranking", "options": options}),
            )
        } else {
            question(name::PREFERENCE, "Which answer is better?", true, labels(&PREFERENCES))
        };
        let rated: Vec<Value> = RATINGS.map(|value| json!({"value": value})).collect();
        let ratings = name::RATINGS.into_iter().zip(&titles).map(|(name, title)| {
            question(name, &format!("{title}, 1 to 5"), false, json!({"type": "rating", "options": rated.clone()}))
        });
        let flags: Vec<(&str, &str)> = Flag::ALL.iter().map(|flag| flag.as_str()).zip(FLAG_TEXTS).collect();
        let text = json!({"type": "text", "use_markdown": false});
        let mut questions = vec![required];
        questions.extend(ratings);
        questions.push(question(name::FLAG, "Something is wrong", false, labels(&flags)));
        questions.push(question(name::EDIT, "A better text of the better answer", false, text));
        let guidelines = if self.is_ranking() { format!("{GUIDELINES} {RANK_LAST}") } else { GUIDELINES.to_owned() };
        json!({
            "guidelines": guidelines,
            "allow_extra_metadata": false,
            "distribution": {"strategy": "overlap", "min_submitted": handover.min_votes.max(1)},
            "fields": fields,
            "questions": questions,
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
}

/// What else somebody answered.
fn optional(answers: &Answers) -> impl Iterator<Item = (&'static str, Value)> {
    let flag = answers.flag.as_ref().map(|value| (name::FLAG, json!(value)));
    let edit = answers.edit.as_ref().map(|value| (name::EDIT, json!(value)));
    let ratings = name::RATINGS.into_iter().zip(&answers.ratings);
    flag.into_iter().chain(edit).chain(ratings.filter_map(|(question, rating)| Some((question, json!((*rating)?)))))
}

fn question(name: &str, title: &str, is_required: bool, settings: Value) -> Value {
    json!({"name": name, "title": title, "description": null, "required": is_required, "settings": settings})
}

/// Settings of a question that is answered by one of these values, each with its text; at least three.
fn labels(options: &[(&str, &str)]) -> Value {
    let option = |(value, text): &(&str, &str)| json!({"value": value, "text": text, "description": null});
    let visible_options = options.len();
    json!({"type": "label_selection", "options": options.iter().map(option).collect::<Vec<_>>(), "visible_options": visible_options})
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
        hint: "give the folder that `to_disk` wrote, its records.json, or what the server answers to GET \
               /api/v1/datasets/ID/records?include=responses",
    };
    let all: Value = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
    let records = match &all {
        // What the interface answers.
        Value::Object(page) => page.get("items").and_then(Value::as_array),
        other => other.as_array(),
    };
    let Some(records) = records else {
        return Err(malformed("it is no array, expected one of records".to_owned()));
    };
    let mut found = Responses::default();
    for record in records {
        read_record(record, &mut found);
    }
    Ok(found)
}

/// The responses of one record: files have them by question, each with its user; the interface by user, each with its values.
fn read_record(record: &Value, found: &mut Responses) {
    let text = |field: &str| record.get("fields").and_then(|fields| fields.get(field)).and_then(Value::as_str);
    let texts: Vec<String> = name::ANSWERS.iter().map_while(|field| text(field)).map(str::to_owned).collect();
    let Some(prompt) = text(name::PROMPT).filter(|_| texts.len() > 1) else {
        return found.leave_out("record_of_other_fields");
    };
    // The interface has an id of its own beside ours.
    let id = record.get("external_id").or(record.get("id")).and_then(Value::as_str).unwrap_or_default();
    let user_of = |response: &Value| response.get("user_id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut by_user: BTreeMap<String, (Answers, Option<&str>)> = BTreeMap::new();
    let mut take = |user: String, status: Option<&'static str>, question: &str, value: &Value| {
        let (answers, known) = by_user.entry(user).or_default();
        *known = known.or(status);
        answers.set(question, value, texts.len());
    };
    // The package's own `to_disk` leaves the status out; whatever it wrote was given on purpose.
    let status_of = |response: &Value| match response.get("status").and_then(Value::as_str) {
        None | Some("submitted") => None,
        Some("discarded") => Some("discarded"),
        Some(_) => Some("draft"),
    };
    match record.get("responses") {
        Some(Value::Array(responses)) => {
            for response in responses {
                let values = response.get("values").and_then(Value::as_object);
                take(user_of(response), status_of(response), "", &Value::Null);
                for (question, value) in values.into_iter().flatten() {
                    take(user_of(response), None, question, value.get("value").unwrap_or(&Value::Null));
                }
            }
        }
        Some(Value::Object(questions)) => {
            for (question, responses) in questions {
                for response in responses.as_array().into_iter().flatten() {
                    let value = response.get("value").unwrap_or(&Value::Null);
                    take(user_of(response), status_of(response), question, value);
                }
            }
        }
        _ => {}
    }
    for (user, (answers, status)) in by_user {
        match status {
            Some(reason) => found.leave_out(reason),
            None if answers.is_without_ranks => found.leave_out("ranking_without_ranks"),
            None => found.responses.push(Response {
                record: id.to_owned(),
                user,
                prompt: prompt.to_owned(),
                texts: texts.clone(),
                answers,
            }),
        }
    }
}

impl Answers {
    /// Sets what a question asks of a record with so many answers; questions of others are none of ours.
    fn set(&mut self, question: &str, value: &Value, num_answers: usize) {
        let text = || value.as_str().map(str::to_owned);
        match question {
            name::PREFERENCE => self.set_preference(value.as_str()),
            name::RANKING => {
                let places = value.as_array().map(Vec::as_slice).unwrap_or_default();
                let rank = |letter: &&str| {
                    let own = places.iter().find(|place| place.get("value").and_then(Value::as_str) == Some(letter))?;
                    own.get("rank")?.as_i64()
                };
                self.ranks = LETTERS.iter().take(num_answers).map(rank).collect();
                self.is_without_ranks = self.ranks.is_none();
            }
            name::FLAG => self.flag = text(),
            name::EDIT => self.edit = text(),
            _ => self.set_rating(question, value.as_i64()),
        }
    }
}
