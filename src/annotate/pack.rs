//! Votes without a server: a page in one file with some of a run's items, for a phone without a network, and the small file of votes that
//! comes back. What was packed is signed with the run's secret, so a file of votes is of these items or is refused; a vote that comes twice
//! counts once, and one that is older than what is there counts not at all.
//! Knows items, votes and signatures; knows nothing of flags or browsers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use askama::Template;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use super::forms::Fields;
use super::keys::{Keys, is_same, random};
use super::room::{Room, Said, Task};
use super::store::{Appended, Person, Store, StoreError};
use super::strings::Tongue;
use super::vote::{Action, ItemKind, Via, Vote, VoteError, current_votes, is_id};

/// Most bytes of a file of votes.
pub const MAX_FILE_BYTES: u64 = 16 << 20;
/// Layout of packs and their votes.
const FORMAT: u32 = 1;
/// Most characters of a name.
const MAX_NAME: usize = 80;

/// Why there is no pack, or why a file of votes is not taken. Nothing of any file is taken then.
#[derive(Debug, Error)]
pub enum PackError {
    /// The votes.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The page could not be put together.
    #[error("cannot fill in the pack's page: {0}")]
    Page(#[from] askama::Error),
    /// Everything is voted on, or out.
    #[error(
        "there is nothing to pack: every item has the votes that are wanted, or is in one of {num_out} packs whose votes are not back\n\
         hint: ask for more people per item with --overlap, wait less long for packs with --lease, or leave --language out"
    )]
    Empty {
        /// Packs that are out.
        num_out: usize,
    },
    /// No random numbers, or no clock.
    #[error("cannot make a pack's id: {0}")]
    Random(#[from] std::io::Error),
    /// A file that holds something else.
    #[error("{}: {what}\nhint: give the files that `Save votes` of a pack made, as they came", path.display())]
    NoVotes {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A file whose signature is not this run's.
    #[error(
        "{}: its list of items is not signed by this run: it was changed, or its pack was made from another run\n\
         hint: merge it into the run whose pack it answers, or leave the file out; nothing was merged", path.display()
    )]
    Forged {
        /// The file.
        path: PathBuf,
    },
    /// A vote on something that was not packed, or that is none.
    #[error("{}: {source}\nhint: the file was changed; leave it out; nothing was merged", path.display())]
    Vote {
        /// The file.
        path: PathBuf,
        /// Which part of it.
        source: VoteError,
    },
}

/// What is signed: which items, shown how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Packed {
    format: u32,
    id: String,
    items: Vec<PackedItem>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct PackedItem {
    item: String,
    prompt: String,
    kind: ItemKind,
    shown: Vec<String>,
}

/// The file that comes back.
#[derive(Debug, Clone, Deserialize)]
struct Returned {
    /// The text that was signed, as it was.
    signed: String,
    signature: String,
    /// Which copy of the pack: several people may get the same file.
    copy: String,
    #[serde(default)]
    name: String,
    votes: Vec<ReturnedVote>,
}

#[derive(Debug, Clone, Deserialize)]
struct ReturnedVote {
    item: String,
    /// Seconds since 1970, by the phone's clock.
    at: i64,
    /// As a form of the server's page has them.
    fields: BTreeMap<String, String>,
}

#[derive(Template)]
#[template(path = "annotate/pack.html", whitespace = "minimize", escape = "html")]
struct PackPage<'a> {
    say: Tongue<'a>,
    style: &'a str,
    script: &'a str,
    data: String,
}

/// What is to be packed.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Items at most.
    pub num_items: usize,
    /// Languages of them, as the source spells them; none: all.
    pub languages: Vec<String>,
    /// Packs that are out with their items, see [`super::packed::out`].
    pub out: BTreeMap<String, Vec<String>>,
}

/// A page that goes out.
#[derive(Debug, Clone, PartialEq)]
pub struct Pack {
    /// Its id.
    pub id: String,
    /// The page.
    pub page: String,
    /// Its items, without planted ones.
    pub items: Vec<String>,
    /// Planted ones.
    pub num_planted: usize,
    /// Of its items those that are in another pack that is out.
    pub num_shared: usize,
}

/// A page with up to so many of a room's items, as somebody new would get them.
///
/// # Errors
/// [`PackError::Empty`], or a system without random numbers.
pub fn make(room: &mut Room, keys: &Keys, wanted: &Wanted, say: Tongue<'_>, now: i64) -> Result<Pack, PackError> {
    let id = format!("pack-{}", random(8)?);
    room.hold(&wanted.out);
    let drawn = room.draw(&id, &wanted.languages, wanted.num_items, now);
    let own: Vec<String> =
        drawn.iter().filter(|(.., kind)| *kind != ItemKind::Gold).map(|(task, ..)| task.item.clone()).collect();
    if own.is_empty() {
        return Err(PackError::Empty { num_out: wanted.out.len() });
    }
    let num_planted = drawn.len() - own.len();
    let num_shared = own.iter().filter(|item| wanted.out.values().flatten().any(|other| other == *item)).count();
    let mut items = Vec::new();
    let mut texts = Vec::new();
    for (task, prompt, kind) in drawn {
        let Task { item, prompt: text, language_tag, answers, .. } = task;
        let (shown, answers): (Vec<String>, Vec<String>) = answers.into_iter().unzip();
        texts.push(json!({ "item": item, "lang": language_tag, "prompt": text, "answers": answers }));
        items.push(PackedItem { item, prompt, kind, shown });
    }
    // INFALLIBLE: texts and enums without data are JSON always.
    let signed = serde_json::to_string(&Packed { format: FORMAT, id: id.clone(), items }).expect("plain data");
    let keys_of_page = [
        "question",
        "answer",
        "better",
        "same",
        "both_bad",
        "all_bad",
        "skip",
        "flag",
        "wrong_language",
        "offensive",
        "broken",
        "other",
        "note",
        "send",
        "edit",
        "edit_help",
        "undo",
        "export_votes",
        "done",
        "name",
        "rank",
        "rank_help",
        "saved",
        "title",
    ];
    let words: BTreeMap<&str, &str> = keys_of_page.into_iter().map(|key| (key, say.of(key))).collect();
    let signature = keys.signature(&["pack", &signed]);
    let data = json!({ "signed": signed, "signature": signature, "tasks": texts, "words": words });
    // A text must not end the element that holds the data.
    let data = data.to_string().replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
    let page = PackPage {
        say,
        style: include_str!("../../templates/annotate/style.css"),
        script: concat!(
            include_str!("../../templates/annotate/kept.js"),
            include_str!("../../templates/annotate/pack.js")
        ),
        data,
    };
    Ok(Pack { id, page: page.render()?, items: own, num_planted, num_shared })
}

/// What became of the files' votes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Merged {
    /// Votes that count from now on, changes included.
    pub num_new: u64,
    /// Votes that were there.
    pub num_doubles: u64,
    /// Votes in whose place the same person said something later.
    pub num_older: u64,
    /// People, by pseudonym, with their name.
    pub people: BTreeMap<String, String>,
    /// Packs that these votes are from.
    #[serde(skip)]
    pub packs: BTreeSet<String>,
}

/// Takes files of votes, each a path with its text, into a run's store: all of them or, if one is refused, none.
///
/// # Errors
/// The first file that is no file of votes, or not of this run.
pub fn merge(store: &mut Store, keys: &Keys, files: &[(PathBuf, String)], now: i64) -> Result<Merged, PackError> {
    let mut read = Vec::new();
    for (path, text) in files {
        read.push((path, open(path, text, keys)?));
    }
    let mut events: Vec<Vote> = store.votes()?.into_iter().map(|stored| stored.vote).collect();
    let mut merged = Merged::default();
    let mut new = Vec::new();
    for (path, (packed, returned)) in read {
        let person =
            format!("p-{}", keys.token(&["pack person", &packed.id, &returned.copy]).get(..10).unwrap_or_default());
        let name = returned.name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
        merged.people.insert(person.clone(), name);
        merged.packs.insert(packed.id.clone());
        for vote in &returned.votes {
            let mut vote = event(&packed, vote, (&person, &returned.copy), keys, now)
                .map_err(|source| PackError::Vote { path: path.clone(), source })?;
            if events.iter().any(|known| known.id == vote.id) {
                merged.num_doubles += 1;
                continue;
            }
            let own: Vec<Vote> =
                events.iter().filter(|e| e.annotator == person && e.item == vote.item).cloned().collect();
            let current = current_votes(&own).first().map(|current| current.vote.clone());
            if current.as_ref().is_some_and(|current| current.at > vote.at) {
                merged.num_older += 1;
                continue;
            }
            if let Action::Cast { supersedes, .. } = &mut vote.action {
                *supersedes = current.map(|current| current.id);
            }
            events.push(vote.clone());
            new.push(vote);
        }
    }
    for (pseudonym, name) in &merged.people {
        let known = store.people()?.into_iter().find(|person| person.pseudonym == *pseudonym);
        if known.is_none_or(|known| known.name != *name) {
            let [credit, consent] = [String::new(), String::new()];
            let (pseudonym, name) = (pseudonym.clone(), name.clone());
            store.note_person(&Person { pseudonym, name, credit, languages: Vec::new(), consent, at: now })?;
        }
    }
    for appended in store.append(&new)? {
        match appended {
            Appended::New(_) => merged.num_new += 1,
            Appended::Known(_) => merged.num_doubles += 1,
        }
    }
    Ok(merged)
}

fn open(path: &std::path::Path, text: &str, keys: &Keys) -> Result<(Packed, Returned), PackError> {
    let no_votes = |what: String| PackError::NoVotes { path: path.to_owned(), what };
    let returned: Returned =
        serde_json::from_str(text).map_err(|error| no_votes(format!("it holds no votes: {error}")))?;
    if !is_same(&returned.signature, &keys.signature(&["pack", &returned.signed])) {
        return Err(PackError::Forged { path: path.to_owned() });
    }
    let packed: Packed = serde_json::from_str(&returned.signed)
        .map_err(|error| no_votes(format!("its pack is of another version: {error}")))?;
    if packed.format != FORMAT || !is_id(&returned.copy) {
        return Err(no_votes(format!(
            "its format is {} with copy {:?}, expected {FORMAT} and an id",
            packed.format, returned.copy
        )));
    }
    Ok((packed, returned))
}

/// The event of a vote in a file.
fn event(
    packed: &Packed,
    vote: &ReturnedVote,
    (person, copy): (&str, &str),
    keys: &Keys,
    now: i64,
) -> Result<Vote, VoteError> {
    let wrong = |field, got: &str, expected| VoteError { field, got: got.chars().take(100).collect(), expected };
    let item = packed.items.iter().find(|item| item.item == vote.item);
    let item = item.ok_or_else(|| wrong("item", &vote.item, "one that was packed"))?;
    let fields: Vec<(String, String)> = vote.fields.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let said = Fields::from(fields).said(&item.shown);
    let choice = vote.fields.get("choice").map_or("", String::as_str);
    let Said { choice, ratings } = said.ok_or_else(|| wrong("choice", choice, "one that the pack offers"))?;
    let content = Value::from(
        vote.fields.clone().into_iter().map(|(k, v)| (k, Value::from(v))).collect::<serde_json::Map<_, _>>(),
    );
    let id = keys.token(&["pack vote", &packed.id, copy, &vote.item, &vote.at.to_string(), &content.to_string()]);
    let made = Vote {
        id,
        item: item.item.clone(),
        prompt: item.prompt.clone(),
        shown: item.shown.clone(),
        kind: item.kind,
        annotator: person.to_owned(),
        // A phone's clock may be wrong; nothing was voted in the future.
        at: vote.at.clamp(0, now),
        via: Via::Pack,
        action: Action::Cast { choice, ratings, supersedes: None },
    };
    made.check()?;
    Ok(made)
}
