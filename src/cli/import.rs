//! `pairwright import RUN`: what people answered in another annotation tool, as votes of this run.
//! Knows flags and what to say; nothing of the other tools' files.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::exit::UsageError;
use super::progress::OutputArgs;
use super::shard;
use crate::annotate::exchange::{Responses, Users, argilla, label_studio, to_votes};
use crate::annotate::store::{Person, Store, StoredVote};
use crate::annotate::vote::is_id;
use crate::data::nearest::nearest;
use crate::generate::Ending;
use crate::run::RunDir;

/// Arguments of `import`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["argilla", "label_studio"]))]
pub(super) struct Args {
    /// The run's folder
    run: PathBuf,
    /// A folder that Argilla's package wrote (`to_disk`), or its records.json
    #[arg(long, value_name = "DIR|FILE")]
    argilla: Option<PathBuf>,
    /// A JSON export of Label Studio, or tasks a line each
    #[arg(long, value_name = "FILE")]
    label_studio: Option<PathBuf>,
    /// Who is who there: lines of a pseudonym and, behind a space, the user's id; others get a pseudonym of their own
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,
    /// Take pseudonyms of --users that nobody here has as new people, in place of refusing them
    #[arg(long, requires = "users")]
    add_people: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Lines of a pseudonym and the id of a user elsewhere; empty lines and such behind `#` count for nothing.
pub(super) fn users_of(path: Option<&Path>) -> anyhow::Result<Users> {
    let Some(path) = path else { return Ok(Users::new()) };
    let wrong = |what: String| {
        UsageError(format!(
            "--users {}: {what}\nhint: each line has a pseudonym, a space, and the user's id",
            path.display()
        ))
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let mut users = Users::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')) {
        let (name, user) =
            line.trim().split_once(char::is_whitespace).map_or((line, ""), |(name, user)| (name, user.trim()));
        if !is_id(name) || user.is_empty() {
            return Err(wrong(format!("line {} is no pseudonym with an id", at + 1)).into());
        }
        if users.insert(name.to_owned(), user.to_owned()).is_some() {
            return Err(wrong(format!("line {}: {name} stands there twice", at + 1)).into());
        }
    }
    let distinct: HashSet<&String> = users.values().collect();
    match distinct.len() == users.len() {
        true => Ok(users),
        false => Err(wrong("two pseudonyms have one id".to_owned()).into()),
    }
}

/// Pseudonyms of the list that nobody here has: neither somebody who came or is on a list, nor anybody who voted.
pub(super) fn unknown(users: &Users, people: &[Person], events: &[StoredVote]) -> Vec<String> {
    let known: HashSet<&str> = people
        .iter()
        .map(|person| person.pseudonym.as_str())
        .chain(events.iter().map(|stored| stored.vote.annotator.as_str()))
        .collect();
    users.keys().filter(|name| !known.contains(name.as_str())).cloned().collect()
}

/// What is said of a pseudonym that nobody has: whose it may be.
pub(super) fn stranger(path: Option<&Path>, name: &str, people: &[Person], or: &str) -> UsageError {
    let shown = |person: &Person| match person.name.is_empty() {
        true => person.pseudonym.clone(),
        false => format!("{} ({})", person.pseudonym, person.name),
    };
    let by_name = people.iter().find(|person| person.name.to_lowercase() == name.to_lowercase());
    let like = || {
        let pseudonyms = people.iter().map(|person| person.pseudonym.as_str());
        let like = nearest(name, pseudonyms, NUM_LIKE);
        people.iter().filter(|person| like.contains(&person.pseudonym.as_str())).map(shown).collect::<Vec<_>>()
    };
    let meant = by_name.map_or_else(like, |person| vec![shown(person)]);
    let hint = match meant.is_empty() {
        true => format!("{} people are known here by pseudonym; the admin's page lists them", people.len()),
        false => format!("did you mean {}?", meant.join(", ")),
    };
    let file = path.map_or_else(String::new, |path| format!(" {}", path.display()));
    UsageError(format!("--users{file}: nobody here has the pseudonym {name}\nhint: {hint} Mend the list, {or}"))
}

/// Pseudonyms that are suggested at most.
const NUM_LIKE: usize = 3;

/// Reads the responses and adds those that are no votes yet.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    let run = RunDir::new(&args.run);
    shard::refuse_parent(run.root())?;
    let loaded = run.load()?;
    let users = users_of(args.users.as_deref())?;
    let found = match (&args.argilla, &args.label_studio) {
        (Some(path), _) => argilla::read(path)?,
        (_, Some(path)) => label_studio::read(path)?,
        (None, None) => Responses::default(),
    };
    let prompts: HashSet<&str> = loaded.records.iter().map(|record| record.id.as_str()).collect();
    let mut store = Store::open(run.root())?;
    let (events, sealed) = (store.votes()?, store.sealed_through()?);
    let now = jiff::Timestamp::now().as_second();
    let unknown = unknown(&users, &store.people()?, &events);
    if let Some(name) = unknown.first().filter(|_| !args.add_people) {
        return Err(stranger(args.users.as_deref(), name, &store.people()?, "or add them with --add-people").into());
    }
    let imported = to_votes(found, &events, &prompts, &users, (sealed, now));
    store.append(&imported.votes)?;
    for pseudonym in unknown {
        let [name, credit, consent] = [String::new(), String::new(), String::new()];
        store.note_person(&Person { pseudonym, name, credit, languages: Vec::new(), consent, at: now })?;
    }
    if args.output.json {
        let view = json!({
            "num_new": imported.votes.len(),
            "num_known": imported.num_known,
            "left_out": imported.left_out,
        });
        writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&view)?)?;
    }
    let rest = if imported.left_out.is_empty() { "" } else { "; left out, by reason:" };
    args.output.say(&format!("{} votes are new, {} were there{rest}", imported.votes.len(), imported.num_known));
    for (reason, responses) in &imported.left_out {
        args.output.say(&format!("{responses:>8}  {reason}"));
    }
    Ok(Ending::Completed)
}
