//! Label Studio: tasks with predictions, the project's form, and the annotations that its JSON export holds.
//! Knows the shapes of those files; knows nothing of connections.

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

/// The key of a task's data that names the item.
const ITEM: &str = "item";
/// The form's file, beside the tasks.
pub const FORM_FILE: &str = "label-studio-form.xml";

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Tasks {
    /// One per item.
    pub tasks: Vec<Value>,
    /// Votes in them.
    pub num_annotations: u64,
    /// Items of more than two answers, which the form cannot show.
    pub num_left_out: u64,
}

impl Tasks {
    /// Items with what the judge suggests and what people said. `judge` names whoever suggests.
    pub fn of(items: &[Item], votes: &[CurrentVote<'_>], judge: &str, handover: &Handover) -> Self {
        let mut by_item: BTreeMap<&str, Vec<&CurrentVote<'_>>> = BTreeMap::new();
        votes.iter().for_each(|vote| by_item.entry(&vote.vote.item).or_default().push(vote));
        let mut found = Self { tasks: Vec::new(), num_annotations: 0, num_left_out: 0 };
        for item in items {
            let sides = sides(item);
            if sides.len() != 2 {
                found.num_left_out += 1;
                continue;
            }
            let own = by_item.get(item.id.as_str()).map(Vec::as_slice).unwrap_or_default();
            let annotations: Vec<Value> = answers_of(item, &sides, own, &handover.users)
                .iter()
                .map(|(user, answers)| json!({"completed_by": completed_by(user), "result": results(answers)}))
                .collect();
            found.num_annotations += annotations.len() as u64;
            let predictions = if handover.with_suggestions { predictions(&sides, judge) } else { Vec::new() };
            found.tasks.push(json!({
                "data": data(item, &sides),
                "predictions": predictions,
                "annotations": annotations,
            }));
        }
        found
    }

    /// Writes the tasks (`.jsonl`: a line each, else one array) and the form beside them.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ExchangeError> {
        let is_lines = path.extension().is_some_and(|extension| extension == "jsonl");
        let text = match is_lines {
            true => self.tasks.iter().map(|task| format!("{task}\n")).collect(),
            false => format!("{:#}\n", json!(self.tasks)),
        };
        write_atomic(path, text.as_bytes())?;
        Ok(write_atomic(&path.with_file_name(FORM_FILE), form().as_bytes())?)
    }
}

/// A user by their number, or by their address, as imports name them.
fn completed_by(user: &str) -> Value {
    match user.parse::<u64>() {
        Ok(number) => json!(number),
        Err(_) => json!({"email": user}),
    }
}

fn data(item: &Item, sides: &[&ItemAnswer]) -> Value {
    let mut data = Map::from_iter([
        (ITEM.to_owned(), json!(item.id)),
        ("language".to_owned(), json!(item.language)),
        (name::PROMPT.to_owned(), json!(item.prompt)),
    ]);
    for (field, side) in name::ANSWERS.into_iter().zip(sides) {
        data.insert(field.to_owned(), json!(side.text));
    }
    Value::Object(data)
}

fn predictions(sides: &[&ItemAnswer], judge: &str) -> Vec<Value> {
    let Some((value, score)) = suggestion(sides) else { return Vec::new() };
    let mut answers = Answers::default();
    answers.set_preference(Some(value));
    vec![json!({"model_version": judge, "score": score, "result": results(&answers)})]
}

/// Answers as regions of Label Studio: one per question.
fn results(answers: &Answers) -> Vec<Value> {
    let result = |question: &str, kind: &str, value: Value| json!({"from_name": question, "to_name": name::PROMPT, "type": kind, "value": value});
    let choice = |question: &str, value: &str| result(question, "choices", json!({"choices": [value]}));
    let mut found = Vec::new();
    found.extend(answers.preference().map(|value| choice(name::PREFERENCE, value)));
    found.extend(answers.flag.as_ref().map(|value| choice(name::FLAG, value)));
    for (question, rating) in name::RATINGS.into_iter().zip(&answers.ratings) {
        found.extend(rating.map(|rating| result(question, "rating", json!({"rating": rating}))));
    }
    found.extend(answers.edit.as_ref().map(|text| result(name::EDIT, "textarea", json!({"text": [text]}))));
    found
}

/// The project's form, for its settings page.
fn form() -> String {
    let choices = |question: &str, is_required: bool, options: &[(&str, &str)]| {
        let options: String = options
            .iter()
            // Results hold the alias, people read the value.
            .map(|(value, text)| format!("    <Choice value=\"{text}\" alias=\"{value}\"/>\n"))
            .collect();
        format!(
            "  <Choices name=\"{question}\" toName=\"{}\" choice=\"single\" required=\"{is_required}\">\n{options}  </Choices>\n",
            name::PROMPT
        )
    };
    let flags: Vec<(&str, &str)> = Flag::ALL.iter().map(|flag| flag.as_str()).zip(FLAG_TEXTS).collect();
    let [answer_a, answer_b, ..] = name::ANSWERS;
    let [rating_a, rating_b, ..] = name::RATINGS;
    let (prompt, edit) = (name::PROMPT, name::EDIT);
    let preference = choices(name::PREFERENCE, false, &PREFERENCES);
    let flags = choices(name::FLAG, false, &flags);
    format!(
        "<!-- {GUIDELINES} -->\n<View>\n  <Text name=\"{prompt}\" value=\"${prompt}\"/>\n  <Header value=\"A\"/>\n  <Text name=\"{answer_a}\" \
         value=\"${answer_a}\"/>\n  <Header value=\"B\"/>\n  <Text name=\"{answer_b}\" value=\"${answer_b}\"/>\n{preference}  <Rating name=\"{rating_a}\" \
         toName=\"{prompt}\" maxRating=\"5\"/>\n  <Rating name=\"{rating_b}\" toName=\"{prompt}\" maxRating=\"5\"/>\n{flags}  <TextArea name=\"{edit}\" \
         toName=\"{prompt}\" maxSubmissions=\"1\" rows=\"4\"/>\n</View>\n"
    )
}

/// Reads a JSON export, or tasks a line each.
///
/// # Errors
/// A file that holds no tasks.
pub fn read(path: &Path) -> Result<Responses, ExchangeError> {
    let text = std::fs::read_to_string(path).map_err(|source| ExchangeError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    let malformed = |what: String| ExchangeError::Malformed {
        path: path.to_owned(),
        what,
        hint: "export the project as JSON (not JSON-MIN), with all annotations",
    };
    let tasks: Vec<Value> = match text.trim_start().starts_with('[') {
        true => serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?,
        false => {
            let line = |(at, line): (usize, &str)| {
                serde_json::from_str(line).map_err(|error| malformed(format!("line {}: {error}", at + 1)))
            };
            text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(line).collect::<Result<_, _>>()?
        }
    };
    let mut found = Responses::default();
    for task in &tasks {
        read_task(task, &mut found);
    }
    Ok(found)
}

fn read_task(task: &Value, found: &mut Responses) {
    let text = |field: &str| task.get("data").and_then(|data| data.get(field)).and_then(Value::as_str);
    let [a, b, ..] = name::ANSWERS.map(text);
    let (Some(prompt), Some(a), Some(b)) = (text(name::PROMPT), a, b) else {
        return found.leave_out("record_of_other_fields");
    };
    for annotation in task.get("annotations").and_then(Value::as_array).into_iter().flatten() {
        if annotation.get("was_cancelled").and_then(Value::as_bool).unwrap_or(false) {
            found.leave_out("discarded");
            continue;
        }
        let mut answers = Answers::default();
        for result in annotation.get("result").and_then(Value::as_array).into_iter().flatten() {
            answers.take(result);
        }
        found.responses.push(Response {
            record: text(ITEM).unwrap_or_default().to_owned(),
            user: user_of(annotation.get("completed_by")),
            prompt: prompt.to_owned(),
            texts: vec![a.to_owned(), b.to_owned()],
            answers,
        });
    }
}

/// Whoever completed it: a number, or an object with one or with an address.
fn user_of(completed_by: Option<&Value>) -> String {
    let plain = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let Some(user) = completed_by else { return String::new() };
    plain(user).or_else(|| plain(user.get("email")?)).or_else(|| plain(user.get("id")?)).unwrap_or_default()
}

impl Answers {
    /// Takes what one region says; regions of other questions are none of ours.
    fn take(&mut self, result: &Value) {
        let question = result.get("from_name").and_then(Value::as_str).unwrap_or_default();
        let value = |kind: &str| result.get("value").and_then(|value| value.get(kind));
        let choice = || value("choices")?.get(0)?.as_str().map(str::to_owned);
        match question {
            name::PREFERENCE => self.set_preference(choice().as_deref()),
            name::FLAG => self.flag = choice(),
            // A list, or with one submission a text.
            name::EDIT => {
                let text = value("text");
                self.edit = text.and_then(|text| text.get(0).unwrap_or(text).as_str()).map(str::to_owned);
            }
            _ => self.set_rating(question, value("rating").and_then(Value::as_i64)),
        }
    }
}
