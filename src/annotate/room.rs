//! Everything that is true of a run's annotations at a moment: items, people, what they said, who is shown what. Takes votes, undoes and
//! changes them; new events wait in it until the desk has put them on the disk.
//! Knows items, events and the queue; knows nothing of requests, pages, threads or files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::items::{Item, Items};
use super::keys::{Keys, is_same};
use super::queue::{Next, Queue, QueueItem, QueueOptions, Turn, Turns};
use super::store::{Person, StoredVote};
use super::vote::{Action, Choice, ItemKind, Via, Vote, VoteError, current_votes};

/// A task as a page shows it: nothing of models, ratings, or why it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The item.
    pub item: String,
    /// What a vote on it is sent with; it becomes the event's id.
    pub token: String,
    /// The prompt.
    pub prompt: String,
    /// As the source spells it.
    pub language: String,
    /// For browsers.
    pub language_tag: Option<String>,
    /// Hash and text of each answer, A first.
    pub answers: Vec<(String, String)>,
}

/// What a person says, as a form has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// The choice.
    pub choice: Choice,
    /// 1 to 5 for each answer shown, or empty.
    pub ratings: Vec<Option<u8>>,
}

/// What became of what somebody sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Taken {
    /// It counts from now on.
    New,
    /// It counts already: the same was sent before.
    Before,
    /// It does not count: the item was voted on, or that vote changed, elsewhere.
    Stale,
    /// The run has no such item, or this person no such vote.
    Unknown,
    /// An export holds it already.
    Sealed,
    /// It is no vote.
    Wrong(VoteError),
}

/// A vote of somebody that holds, for their history.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The event.
    pub vote: Vote,
    /// What it says.
    pub choice: Choice,
    /// Ratings, or none.
    pub ratings: Vec<Option<u8>>,
    /// What was shown, as it was shown; the item may have left the run.
    pub task: Option<Task>,
    /// Its place among all events.
    pub sequence: i64,
}

/// One person's events on one item.
#[derive(Debug, Clone, Default)]
struct Cell {
    votes: Vec<Vote>,
    sequences: Vec<i64>,
    /// Places among them of what holds: the vote, and that of the repeat.
    holds: [Option<usize>; 2],
}

impl Cell {
    fn add(&mut self, vote: Vote, sequence: i64) {
        self.votes.push(vote);
        self.sequences.push(sequence);
        self.holds = [None; 2];
        for current in current_votes(&self.votes) {
            let is_repeat = current.vote.kind == ItemKind::Repeat;
            self.holds[usize::from(is_repeat)] = self.votes.iter().position(|vote| vote.id == current.vote.id);
        }
    }

    fn current(&self, is_repeat: bool) -> Option<(&Vote, i64)> {
        let at = self.holds[usize::from(is_repeat)]?;
        Some((self.votes.get(at)?, self.sequences.get(at).copied()?))
    }

    fn num_events(&self, is_repeat: bool) -> usize {
        self.votes.iter().filter(|vote| (vote.kind == ItemKind::Repeat) == is_repeat).count()
    }
}

/// One person's events.
#[derive(Debug, Clone, Default)]
struct Own {
    cells: BTreeMap<String, Cell>,
}

/// See the module's text.
#[derive(Debug)]
pub struct Room {
    items: Arc<Items>,
    places: HashMap<String, usize>,
    keys: Keys,
    queue: Queue,
    owns: BTreeMap<String, Own>,
    people: BTreeMap<String, Person>,
    events: Vec<StoredVote>,
    ids: HashSet<String>,
    waiting: Vec<Vote>,
    sealed_through: i64,
}

impl Room {
    /// The room as these events left it.
    pub fn new(
        items: Arc<Items>,
        keys: Keys,
        options: QueueOptions,
        events: Vec<StoredVote>,
        people: Vec<Person>,
    ) -> Self {
        let all = items.items.iter().chain(&items.gold);
        let places = all.clone().enumerate().map(|(place, item)| (item.id.clone(), place)).collect();
        let queued = all.map(|item| QueueItem {
            id: item.id.clone(),
            margin: item.judge_margin(),
            language: item.language.clone(),
            is_gold: item.gold.is_some(),
        });
        let queue = Queue::new(queued.collect(), QueueOptions { seed: keys.seed(), ..options });
        let mut room = Self {
            items,
            places,
            keys,
            queue,
            owns: BTreeMap::new(),
            people: people.into_iter().map(|person| (person.pseudonym.clone(), person)).collect(),
            events: Vec::new(),
            ids: HashSet::new(),
            waiting: Vec::new(),
            sealed_through: 0,
        };
        for StoredVote { sequence, vote } in events {
            room.keep(vote, sequence);
        }
        room
    }

    /// The items.
    pub fn items(&self) -> &Arc<Items> {
        &self.items
    }

    /// The queue's options and how far it is: items with enough votes, of how many.
    pub fn progress(&self) -> (QueueOptions, usize, usize) {
        let (done, all) = self.queue.progress();
        (self.queue.options(), done, all)
    }

    /// All events, in their order.
    pub fn events(&self) -> &[StoredVote] {
        &self.events
    }

    /// Everybody, by pseudonym.
    pub fn people(&self) -> &BTreeMap<String, Person> {
        &self.people
    }

    /// Somebody came, or describes themself anew.
    pub fn set_person(&mut self, person: Person) {
        self.people.insert(person.pseudonym.clone(), person);
    }

    /// Up to where an export has sealed the events.
    pub fn sealed_through(&self) -> i64 {
        self.sealed_through
    }

    /// An export has sealed events up to here.
    pub fn set_sealed(&mut self, through: i64) {
        self.sealed_through = through;
    }

    /// Events that are not on the disk yet; from now on they are the caller's to write.
    pub fn take_waiting(&mut self) -> Vec<Vote> {
        std::mem::take(&mut self.waiting)
    }

    /// How many votes of a person hold.
    pub fn num_votes(&self, person: &str) -> usize {
        self.turns(person).voted.len()
    }

    /// The next tasks of a person, at least one unless there is none.
    pub fn next(&mut self, person: &str, ahead: usize, now: i64) -> Result<Vec<Task>, Next> {
        let languages = self.people.get(person).map(|person| person.languages.clone()).unwrap_or_default();
        let turns = self.turns(person);
        match self.queue.next(person, &turns, &languages, ahead, now) {
            Next::Turns(turns) => Ok(turns.into_iter().filter_map(|turn| self.task(person, turn)).collect()),
            other => Err(other),
        }
    }

    /// Packs with these items are out; items that the run does not have any more are nobody's.
    pub fn hold(&mut self, packs: &BTreeMap<String, Vec<String>>) {
        for (pack, items) in packs {
            let places: Vec<usize> = items.iter().filter_map(|item| self.places.get(item).copied()).collect();
            self.queue.hold(pack, places);
        }
    }

    /// Tasks for somebody new, each with its prompt's id and why it is shown: what a pack is made of. `languages`: those that they read; none:
    /// all.
    pub fn draw(&mut self, person: &str, languages: &[String], most: usize, now: i64) -> Vec<(Task, String, ItemKind)> {
        let Next::Turns(turns) = self.queue.next(person, &Turns::default(), languages, most, now) else {
            return Vec::new();
        };
        let drawn = turns.into_iter().filter_map(|turn| {
            let prompt = self.item_at(turn.item)?.prompt_id.clone();
            Some((self.task(person, turn)?, prompt, turn.kind))
        });
        drawn.collect()
    }

    /// Hashes of the answers, in the order shown, of the task with this token; `None` if this person has no such task now.
    pub fn shown_with(&self, person: &str, item: &str, token: &str) -> Option<Vec<String>> {
        let found = self.item_at(self.places.get(item).copied()?)?;
        let is_repeat = self.round(person, item, token)?;
        Some(self.shown(person, found, is_repeat))
    }

    /// Why something with this token is not taken, where it fits no task.
    pub fn refused(&self, item: &str, token: &str) -> Taken {
        match (self.ids.contains(token), item.is_empty() || self.places.contains_key(item)) {
            (true, _) => Taken::Before,
            (false, true) => Taken::Stale,
            (false, false) => Taken::Unknown,
        }
    }

    /// Whether a token is that of an item's first showing or of its repeat; `None` if of neither, as they are now.
    fn round(&self, person: &str, item: &str, token: &str) -> Option<bool> {
        [false, true].into_iter().find(|round| is_same(token, &self.token(person, item, *round)))
    }

    /// A person votes on what they were shown.
    pub fn cast(&mut self, person: &str, item: &str, token: &str, said: Said, at: i64) -> Taken {
        if self.ids.contains(token) {
            return Taken::Before;
        }
        let Some(place) = self.places.get(item).copied() else { return Taken::Unknown };
        let Some(is_repeat) = self.round(person, item, token) else { return Taken::Stale };
        let kind = if is_repeat { ItemKind::Repeat } else { self.queue.kind(place) };
        let Said { choice, ratings } = said;
        self.add(person, (place, kind), token, Action::Cast { choice, ratings, supersedes: None }, at)
    }

    /// A person says something else of an item on which they voted.
    pub fn change(&mut self, person: &str, event: &str, id: &str, said: Said, at: i64) -> Taken {
        if self.ids.contains(id) {
            return Taken::Before;
        }
        let (place, kind) = match self.held(person, event) {
            Ok(found) => found,
            Err(refused) => return refused,
        };
        let Said { choice, ratings } = said;
        let action = Action::Cast { choice, ratings, supersedes: Some(event.to_owned()) };
        self.add(person, (place, kind), id, action, at)
    }

    /// A person takes a vote back. What that one had superseded holds again.
    pub fn undo(&mut self, person: &str, event: &str, at: i64) -> Taken {
        // A vote is taken back once, so the event's id follows from it: sent twice it counts once.
        let id = self.keys.token(&["undo", person, event]);
        if self.ids.contains(&id) {
            return Taken::Before;
        }
        match self.held(person, event) {
            Ok(found) => self.add(person, found, &id, Action::Undo { supersedes: event.to_owned() }, at),
            Err(refused) => refused,
        }
    }

    /// The item and kind of an event of this person that holds and may be superseded.
    fn held(&self, person: &str, event: &str) -> Result<(usize, ItemKind), Taken> {
        let cells = self.owns.get(person).map(|own| &own.cells).into_iter().flatten();
        for (item, cell) in cells {
            let Some(own) = cell.votes.iter().find(|vote| vote.id == event) else { continue };
            let Some((current, sequence)) = cell.current(own.kind == ItemKind::Repeat) else {
                return Err(Taken::Stale);
            };
            if current.id != event {
                return Err(Taken::Stale);
            }
            if sequence != 0 && sequence <= self.sealed_through {
                return Err(Taken::Sealed);
            }
            let place = self.places.get(item).copied().ok_or(Taken::Unknown)?;
            return Ok((place, own.kind));
        }
        Err(Taken::Unknown)
    }

    fn add(&mut self, person: &str, (place, kind): (usize, ItemKind), id: &str, action: Action, at: i64) -> Taken {
        let Some(item) = self.item_at(place) else { return Taken::Unknown };
        let vote = Vote {
            id: id.to_owned(),
            item: item.id.clone(),
            prompt: item.prompt_id.clone(),
            shown: self.shown(person, item, kind == ItemKind::Repeat),
            kind,
            annotator: person.to_owned(),
            at,
            via: Via::Page,
            action,
        };
        if let Err(error) = vote.check() {
            return Taken::Wrong(error);
        }
        self.waiting.push(vote.clone());
        let sequence = self.events.last().map_or(0, |stored| stored.sequence) + 1;
        self.keep(vote, sequence);
        Taken::New
    }

    /// Takes an event into all that follows from it.
    fn keep(&mut self, vote: Vote, sequence: i64) {
        if !self.ids.insert(vote.id.clone()) {
            return;
        }
        let own = self.owns.entry(vote.annotator.clone()).or_default();
        let cell = own.cells.entry(vote.item.clone()).or_default();
        cell.add(vote.clone(), sequence);
        let holds = cell.current(false).is_some();
        if let Some(&place) = self.places.get(&vote.item) {
            self.queue.set_voted(place, &vote.annotator, holds);
        }
        self.events.push(StoredVote { sequence, vote });
    }

    fn item_at(&self, place: usize) -> Option<&Item> {
        self.items.items.get(place).or_else(|| self.items.gold.get(place.checked_sub(self.items.items.len())?))
    }

    /// What the queue must know of a person.
    fn turns(&self, person: &str) -> Turns {
        let mut voted = Vec::new();
        let mut taken_back = Vec::new();
        for (item, cell) in self.owns.get(person).map(|own| &own.cells).into_iter().flatten() {
            let Some(&place) = self.places.get(item) else { continue };
            for is_repeat in [false, true] {
                match cell.current(is_repeat) {
                    Some((_, sequence)) => voted.push((sequence, place, is_repeat)),
                    None if cell.num_events(is_repeat) > 0 => {
                        taken_back.push((cell.sequences.last().copied().unwrap_or(0), place, is_repeat));
                    }
                    None => {}
                }
            }
        }
        let in_order = |mut all: Vec<(i64, usize, bool)>| {
            all.sort_unstable();
            all.into_iter().map(|(_, place, is_repeat)| (place, is_repeat)).collect()
        };
        Turns { voted: in_order(voted), taken_back: in_order(taken_back) }
    }

    /// Hashes of an item's answers as this person sees them.
    fn shown(&self, person: &str, item: &Item, is_repeat: bool) -> Vec<String> {
        shown_order(item, person, self.keys.seed(), is_repeat)
    }

    /// What a vote on an item must be sent with now; another one after each event.
    fn token(&self, person: &str, item: &str, is_repeat: bool) -> String {
        let cell = self.owns.get(person).and_then(|own| own.cells.get(item));
        let num_events = cell.map_or(0, |cell| cell.num_events(is_repeat));
        self.keys.token(&["task", person, item, if is_repeat { "repeat" } else { "first" }, &num_events.to_string()])
    }

    fn task(&self, person: &str, turn: Turn) -> Option<Task> {
        let item = self.item_at(turn.item)?;
        let is_repeat = turn.kind == ItemKind::Repeat;
        let shown = self.shown(person, item, is_repeat);
        Some(Task { token: self.token(person, &item.id, is_repeat), ..task_of(item, &shown) })
    }

    /// A person's votes that hold, the latest first.
    pub fn history(&self, person: &str) -> Vec<Entry> {
        let mut found = Vec::new();
        for (item, cell) in self.owns.get(person).map(|own| &own.cells).into_iter().flatten() {
            for is_repeat in [false, true] {
                let Some((current, sequence)) = cell.current(is_repeat) else { continue };
                let place = self.places.get(item).and_then(|&place| self.item_at(place));
                let Action::Cast { choice, ratings, .. } = &current.action else { continue };
                found.push(Entry {
                    vote: current.clone(),
                    choice: choice.clone(),
                    ratings: ratings.clone(),
                    task: place.map(|item| task_of(item, &current.shown)),
                    sequence,
                });
            }
        }
        found.sort_by_key(|entry| std::cmp::Reverse(entry.sequence));
        found
    }

    /// The latest vote of a person that holds and can be taken back.
    pub fn latest(&self, person: &str) -> Option<String> {
        let cells = self.owns.get(person).map(|own| &own.cells).into_iter().flatten();
        let held = cells.flat_map(|(_, cell)| [cell.current(false), cell.current(true)]).flatten();
        let (vote, _) =
            held.filter(|(_, sequence)| *sequence > self.sealed_through).max_by_key(|(_, sequence)| *sequence)?;
        Some(vote.id.clone())
    }
}

/// Hashes of an item's answers in an order by lot; in a repeat they stand the other way round than the first time.
pub fn shown_order(item: &Item, whose: &str, seed: u64, is_repeat: bool) -> Vec<String> {
    let lot = |hash: &str| xxh3_64_with_seed(format!("{whose} {} {hash}", item.id).as_bytes(), seed);
    let mut shown: Vec<String> = item.answers.iter().map(|answer| answer.hash.clone()).collect();
    shown.sort_by_key(|hash| (lot(hash), hash.clone()));
    if is_repeat {
        shown.reverse();
    }
    shown
}

/// What is shown of an item, without a token.
pub fn task_of(item: &Item, shown: &[String]) -> Task {
    let answers = shown.iter().filter_map(|hash| Some((hash.clone(), item.answer(hash)?.text.clone())));
    Task {
        item: item.id.clone(),
        token: String::new(),
        prompt: item.prompt.clone(),
        language: item.language.clone(),
        language_tag: item.language_tag.clone(),
        answers: answers.collect(),
    }
}
