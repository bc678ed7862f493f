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
use crate::annotate::store::Store;
use crate::annotate::vote::is_id;
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
    let imported = to_votes(found, &events, &prompts, &users, (sealed, now));
    store.append(&imported.votes)?;
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
