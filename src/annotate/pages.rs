//! From tasks, votes and numbers to pages: the templates' data and the words of choices. All text goes through the templates' escaping but
//! for the guidelines. Knows templates; knows nothing of requests or of what a vote changes.

use askama::Template;

use super::agreement::{Annotator, Report};
use super::room::{Entry, Task};
use super::store::Person;
use super::strings::Tongue;
use super::vote::{Choice, Flag};
use crate::judge::Share;

/// Letters of answers, in the order shown.
const LETTERS: [&str; 6] = ["A", "B", "C", "D", "E", "F"];

/// What every page has around it.
#[derive(Debug, Clone)]
pub struct Frame<'a> {
    /// The texts.
    pub say: Tongue<'a>,
    /// Pseudonym of who looks; empty if nobody.
    pub who: String,
    /// What forms that change something must send.
    pub csrf: String,
    /// Codes and names of all languages.
    pub languages: Vec<(&'a str, &'a str)>,
    /// A sentence on what just happened.
    pub notice: Option<String>,
}

/// One answer of a task.
#[derive(Debug, Clone)]
pub struct AnswerView {
    letter: &'static str,
    text: String,
    /// What the field for editing begins with.
    edited: String,
    rating: Option<u8>,
    rank: usize,
}

impl AnswerView {
    /// The ratings that may be given, each with whether it was.
    fn stars(&self) -> [(u8, bool); 5] {
        [1, 2, 3, 4, 5].map(|star| (star, self.rating == Some(star)))
    }
}

/// A task as its template has it.
#[derive(Debug, Clone)]
pub struct TaskView {
    action: &'static str,
    csrf: String,
    item: String,
    token: String,
    /// The vote that is changed.
    event: Option<String>,
    /// The vote that undoing would take back.
    latest: Option<String>,
    prompt: String,
    language_tag: Option<String>,
    answers: Vec<AnswerView>,
    choice: Option<Choice>,
    shown: Vec<String>,
}

impl TaskView {
    /// A task to vote on.
    pub fn to_vote(task: Task, csrf: &str, latest: Option<String>) -> Self {
        let Task { item, token, prompt, language_tag, answers, .. } = task;
        let last = answers.len();
        let view = |(index, (_, text)): (usize, &(String, String))| AnswerView {
            letter: LETTERS.get(index).copied().unwrap_or("?"),
            text: text.clone(),
            edited: text.clone(),
            rating: None,
            rank: last,
        };
        Self {
            action: "/vote",
            csrf: csrf.to_owned(),
            item,
            token,
            event: None,
            latest,
            prompt,
            language_tag,
            answers: answers.iter().enumerate().map(view).collect(),
            choice: None,
            shown: answers.into_iter().map(|(hash, _)| hash).collect(),
        }
    }

    /// The same for a vote that is to be changed; `id` becomes that of the new event.
    pub fn to_change(entry: Entry, task: Task, csrf: &str, id: String) -> Self {
        let mut view = Self::to_vote(Task { token: id, ..task }, csrf, None);
        view.action = "/change";
        view.event = Some(entry.vote.id.clone());
        for (index, answer) in view.answers.iter_mut().enumerate() {
            answer.rating = entry.ratings.get(index).copied().flatten();
            let hash = view.shown.get(index);
            match &entry.choice {
                Choice::Edit { answer: edited, text } if Some(edited) == hash => answer.edited.clone_from(text),
                Choice::Ranking { groups } => {
                    let place = groups.iter().position(|group| group.iter().any(|one| Some(one) == hash));
                    answer.rank = place.map_or(answer.rank, |place| place + 1);
                }
                _ => {}
            }
        }
        view.choice = Some(entry.choice);
        view
    }

    fn is_pair(&self) -> bool {
        self.answers.len() == 2
    }

    /// Whether this is what was said.
    fn was(&self, choice: &str) -> bool {
        let said = match &self.choice {
            Some(Choice::Better { answer }) => {
                self.shown.iter().position(|hash| hash == answer).map(|index| format!("better-{index}"))
            }
            Some(other) => Some(other.as_str().to_owned()),
            None => None,
        };
        said.is_some_and(|said| said == choice)
    }

    fn places(&self) -> Vec<usize> {
        (1..=self.answers.len()).collect()
    }

    fn flags(&self) -> [&'static str; 4] {
        Flag::ALL.map(Flag::as_str)
    }
}

/// The page with a task.
#[derive(Template)]
#[template(path = "annotate/vote.html", whitespace = "minimize")]
pub struct VotePage<'a> {
    /// Around it.
    pub frame: Frame<'a>,
    /// The same texts, for the part that stands alone too.
    pub say: Tongue<'a>,
    /// The task.
    pub task: TaskView,
}

/// A task alone, to be put into the page.
#[derive(Template)]
#[template(path = "annotate/fragment.html", whitespace = "minimize")]
pub struct Fragment<'a> {
    /// The texts.
    pub say: Tongue<'a>,
    /// The task.
    pub task: TaskView,
}

/// A sentence, and a way back from the last vote.
#[derive(Template)]
#[template(path = "annotate/message.html", whitespace = "minimize")]
pub struct MessagePage<'a> {
    /// Around it.
    pub frame: Frame<'a>,
    /// The sentence.
    pub text: String,
    /// The vote that undoing would take back.
    pub latest: Option<String>,
}

/// Where people come in.
#[derive(Template)]
#[template(path = "annotate/join.html", whitespace = "minimize")]
pub struct JoinPage<'a> {
    /// Around it.
    pub frame: Frame<'a>,
    /// New people may come in.
    pub is_open: bool,
    /// The invitation they came with.
    pub invite: String,
    /// Languages of the run.
    pub languages: Vec<String>,
    /// What they must agree to.
    pub consent: Option<String>,
}

/// One vote in a history.
pub struct EntryView {
    event: String,
    prompt: String,
    language_tag: Option<String>,
    says: String,
    texts: Vec<String>,
    can_change: bool,
}

impl EntryView {
    /// From an entry; `sealed_through` as the store has it.
    pub fn of(entry: &Entry, say: Tongue<'_>, sealed_through: i64) -> Self {
        let task = entry.task.as_ref();
        let text_of = |hash: &String| {
            task.and_then(|task| task.answers.iter().find(|(other, _)| other == hash)).map(|(_, text)| text.clone())
        };
        let texts = match &entry.choice {
            Choice::Better { answer } => text_of(answer).into_iter().collect(),
            Choice::Edit { text, .. } => vec![text.clone()],
            Choice::Flag { note, .. } if !note.is_empty() => vec![note.clone()],
            Choice::Ranking { groups } => groups.iter().flatten().filter_map(text_of).collect(),
            _ => Vec::new(),
        };
        Self {
            event: entry.vote.id.clone(),
            prompt: task.map(|task| task.prompt.clone()).unwrap_or_default(),
            language_tag: task.and_then(|task| task.language_tag.clone()),
            says: in_words(&entry.choice, &entry.vote.shown, say),
            texts,
            can_change: entry.sequence > sealed_through && task.is_some(),
        }
    }

    /// Whether a word stands in what was asked, said or chosen, in whatever case.
    pub fn has(&self, query: &str) -> bool {
        let query = query.to_lowercase();
        let texts = [&self.prompt, &self.says].into_iter().chain(&self.texts);
        texts.into_iter().any(|text| text.to_lowercase().contains(&query))
    }
}

/// A choice as its person reads it.
fn in_words(choice: &Choice, shown: &[String], say: Tongue<'_>) -> String {
    let letter = |hash: &String| {
        let index = shown.iter().position(|other| other == hash);
        index.and_then(|index| LETTERS.get(index)).copied().unwrap_or("?")
    };
    match choice {
        Choice::Better { answer } => format!("{} {}", letter(answer), say.of("better")),
        Choice::Same => say.of("same").to_owned(),
        Choice::BothBad if shown.len() > 2 => say.of("all_bad").to_owned(),
        Choice::BothBad => say.of("both_bad").to_owned(),
        Choice::Skip => say.of("skip").to_owned(),
        Choice::Flag { flag, .. } => say.of(flag.as_str()).to_owned(),
        Choice::Edit { answer, .. } => format!("{} {} +", letter(answer), say.of("better")),
        Choice::Ranking { groups } => {
            let group = |group: &Vec<String>| group.iter().map(letter).collect::<Vec<_>>().join(" = ");
            groups.iter().map(group).collect::<Vec<_>>().join(" > ")
        }
    }
}

/// A person's votes.
#[derive(Template)]
#[template(path = "annotate/history.html", whitespace = "minimize")]
pub struct HistoryPage<'a> {
    /// Around it.
    pub frame: Frame<'a>,
    /// What is searched for.
    pub query: String,
    /// The same for an address.
    pub query_encoded: String,
    /// The page's votes.
    pub entries: Vec<EntryView>,
    /// The number of the next page.
    pub earlier: Option<usize>,
}

/// A person's own page.
#[derive(Template)]
#[template(path = "annotate/me.html", whitespace = "minimize")]
pub struct MePage<'a> {
    /// Around it.
    pub frame: Frame<'a>,
    /// How they call themselves.
    pub name: String,
    /// Their code.
    pub code: String,
    /// Their votes that hold.
    pub num_votes: usize,
    /// Items that are done.
    pub done: usize,
    /// Of how many.
    pub all: usize,
    /// Seconds per vote.
    pub pace: Option<i64>,
}

/// The guidelines.
#[derive(Template)]
#[template(path = "annotate/guidelines.html", whitespace = "minimize")]
pub struct GuidelinesPage<'a> {
    /// Around it.
    pub frame: Frame<'a>,
    /// From [`super::guidelines::to_html`].
    pub html: String,
}

/// A line of the table of people.
pub struct PersonView {
    name: String,
    pseudonym: String,
    code: String,
    num_votes: u64,
    first: String,
    repeats: String,
    gold: String,
    pace: String,
}

impl PersonView {
    /// From a person and their numbers.
    pub fn of(person: &Person, code: String, numbers: Option<&Annotator>, pace_s: Option<i64>) -> Self {
        let share = |get: fn(&Annotator) -> Option<Share>| numbers.and_then(get).map_or_else(String::new, in_percent);
        Self {
            name: person.name.clone(),
            pseudonym: person.pseudonym.clone(),
            code,
            num_votes: numbers.map_or(0, |numbers| numbers.num_votes),
            first: share(|numbers| numbers.position.first),
            repeats: share(|numbers| numbers.consistency),
            gold: share(|numbers| numbers.gold),
            pace: pace_s.map(|pace| format!("~{pace}")).unwrap_or_default(),
        }
    }
}

/// `83 % (74 to 90, n = 120)`.
fn in_percent(share: Share) -> String {
    let Share { total, share, low, high, .. } = share;
    format!("{:.0} % ({:.0} to {:.0}, n = {total})", 100.0 * share, 100.0 * low, 100.0 * high)
}

/// A row of a table: its name, and what stands there.
pub type Row<T> = (String, T);

/// How the work goes.
#[derive(Template)]
#[template(path = "annotate/admin.html", whitespace = "minimize")]
pub struct AdminPage<'a> {
    /// Around it.
    pub frame: Frame<'a>,
    /// Items that are done.
    pub done: usize,
    /// Of how many.
    pub all: usize,
    /// Votes wanted per item.
    pub overlap: usize,
    /// Events in the store.
    pub num_events: usize,
    /// Votes that hold and count for the dataset.
    pub num_votes: u64,
    /// Everybody.
    pub people: Vec<PersonView>,
    /// The link that lets people in.
    pub invite: String,
    /// The stop rule in a sentence.
    pub stop: String,
    /// Judge against people.
    pub judge: Vec<(String, String)>,
    /// People against people.
    pub agreement: Vec<(String, String)>,
    /// Choices and flags.
    pub choices: Vec<(String, u64)>,
}

/// The stop rule in a sentence.
pub fn stop_in_words(report: &Report) -> String {
    let stop = report.stop;
    let (target, more) = (100.0 * stop.target, stop.num_more);
    match stop.half_width.map(|half_width| 100.0 * half_width) {
        None => format!(
            "Nobody voted on the random slice yet. About {more} items of it tell the judge's accuracy to ±{target:.0} points at 95 %."
        ),
        Some(points) if stop.is_met => {
            format!("The judge's accuracy is known to ±{points:.0} points at 95 %: enough by the stop rule.")
        }
        Some(points) => format!(
            "The judge's accuracy is known to ±{points:.0} points at 95 %; the stop rule wants ±{target:.0}, about {more} more items of the random slice."
        ),
    }
}

/// The judge against people, a row for each way to count.
pub fn judge_in_words(report: &Report) -> Vec<Row<String>> {
    let share = |share: Option<Share>| share.map_or_else(|| "–".to_owned(), in_percent);
    let judge = &report.judge;
    let whole = [("random slice (fair for the run)", judge.audit), ("all", judge.all)]
        .map(|(name, of)| (name.to_owned(), share(of)));
    let by_margin = judge.by_margin.iter().map(|bin| {
        let apart = match bin.to {
            Some(to) => format!("ratings {} to {to} apart", bin.from),
            None => format!("ratings {} apart or more", bin.from),
        };
        (apart, share(bin.accuracy))
    });
    let by_aspect = judge.by_aspect.iter().map(|(name, found)| (format!("by {name} alone"), share(*found)));
    whole.into_iter().chain(by_margin).chain(by_aspect).collect()
}

/// How far people agree with one another, by each measure and each two people.
pub fn agreement_in_words(report: &Report) -> Vec<Row<String>> {
    let agreement = &report.agreement;
    let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"));
    let measures = [
        ("Krippendorff's alpha, four categories", agreement.alpha_nominal),
        ("Krippendorff's alpha, in order", agreement.alpha_ordinal),
        ("Fleiss' kappa", agreement.fleiss_kappa),
    ];
    let measures = measures.map(|(name, value)| (format!("{name} (n = {})", agreement.num_couples), number(value)));
    let pairs = agreement.pairs.iter().map(|pair| {
        let [one, other] = &pair.annotators;
        (format!("Cohen's kappa, {one} and {other} (n = {})", pair.num_couples), number(pair.kappa))
    });
    measures.into_iter().chain(pairs).collect()
}

/// Choices and flags that hold.
pub fn choices_in_words(report: &Report) -> Vec<Row<u64>> {
    let choices = report.choices.iter().map(|(name, count)| (name.replace('_', " "), *count));
    choices
        .chain(report.flags.iter().map(|(name, count)| (format!("flag: {}", name.replace('_', " ")), *count)))
        .collect()
}

/// A language's texts, to be changed.
#[derive(Template)]
#[template(path = "annotate/strings.html", whitespace = "minimize")]
pub struct StringsPage<'a> {
    /// Around it.
    pub frame: Frame<'a>,
    /// The language.
    pub code: String,
    /// Key, English text, own text.
    pub texts: Vec<(&'a str, &'a str, &'a str)>,
}
