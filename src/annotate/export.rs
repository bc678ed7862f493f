//! The growing dataset: a run's rows with what people say of them, written anew from what is there each time, and each time a version.
//! Knows votes, labels and the dataset's writer; knows nothing of flags, pages or how a run is made.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use thiserror::Error;

use super::agreement::{DEFAULT_TARGET, Report};
use super::items::{AnswerChoice, Items};
use super::label::{Couple, Ruling, Tally, is_for_dataset, tallies};
use super::store::{Person, StoredVote};
use super::versions::{Version, Versions, VersionsError, changelog};
use super::vote::{Choice, CurrentVote, Flag, ItemKind, Via, Vote, current_votes, text_hash};
use crate::dataset::{
    DatasetError, DatasetInput, DatasetOptions, DatasetSummary, Edit, Finding, PairVotes, PublishedVote, RowVotes,
    Voted, VotedDrop, inline_code, share_in_words, write_voted_dataset,
};

/// What to export.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// What makes a pair where the judge decides, and all else of a dataset.
    pub dataset: DatasetOptions,
    /// Fewest opinions on two answers that make a label, 1 or more.
    pub min_votes: u64,
    /// Leave out what people did not decide.
    pub human_only: bool,
    /// The day that a new version gets.
    pub date: String,
}

/// Why nothing was exported. The folder then holds what it held.
#[derive(Debug, Error)]
pub enum ExportError {
    /// Writing the dataset.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The versions.
    #[error(transparent)]
    Versions(#[from] VersionsError),
    /// People alone were to decide, and decided nothing.
    #[error(
        "people decided no pair: {num_votes} votes count, and none of the rows has {min_votes} with a majority\n\
         hint: leave out --human-only, or ask for fewer with --min-votes"
    )]
    NothingDecided {
        /// Votes that count for the dataset.
        num_votes: u64,
        /// Votes that a label wants.
        min_votes: u64,
    },
}

/// What an export left.
#[derive(Debug, Clone)]
pub struct Exported {
    /// The version that the folder holds now.
    pub version: Version,
    /// Whether that is a new one.
    pub is_new: bool,
    /// Whether any file was written.
    pub is_written: bool,
    /// Numbers of the dataset.
    pub summary: DatasetSummary,
}

/// Writes the dataset of a run with people's votes into `out`. What is there already to the byte is left alone, and the same content makes no
/// second version. Votes are read, never written.
///
/// # Errors
/// [`ExportError`].
pub fn export(
    run: &Path,
    out: &Path,
    input: &DatasetInput<'_>,
    (votes, people): (&[StoredVote], &[Person]),
    options: &ExportOptions,
) -> Result<Exported, ExportError> {
    let mut versions = Versions::open(run)?;
    let events: Vec<Vote> = votes.iter().map(|stored| stored.vote.clone()).collect();
    let current = current_votes(&events);
    let voted = voted(input, &current, options);
    let has_label = |row: &RowVotes| matches!(row.finding, Finding::Prefers { .. }) || !row.edits.is_empty();
    if options.human_only && !voted.rows.values().any(has_label) {
        let num_votes = current.iter().filter(|vote| is_for_dataset(vote)).count() as u64;
        return Err(ExportError::NothingDecided { num_votes, min_votes: options.min_votes });
    }
    let items = Items::of(input, &options.dataset, AnswerChoice::All, 0);
    let report = Report::of(&items, &current, options.min_votes, DEFAULT_TARGET);
    let mut made: Option<(Version, bool)> = None;
    let last = versions.all.last();
    let describe = |summary: &DatasetSummary, prompts: &[crate::dataset::JudgedPrompt<'_>]| {
        let mut version = Version::of(summary, prompts, last);
        let accuracy = report.judge.audit.or(report.judge.all);
        version.date.clone_from(&options.date);
        version.min_votes = options.min_votes;
        version.human_only = options.human_only;
        version.num_votes = voted.votes.len() as u64;
        version.num_annotators = voted.votes.iter().map(|vote| &vote.annotator).collect::<BTreeSet<_>>().len() as u64;
        version.alpha = report.agreement.alpha_ordinal;
        version.judge_right = accuracy.map(|share| [share.count, share.total]);
        version.is_audit = report.judge.audit.is_some();
        let is_new = last.is_none_or(|last| last.content != version.content);
        let version = last.filter(|_| !is_new).cloned().unwrap_or(version);
        let mut all: Vec<Version> = versions.all.clone();
        all.extend(is_new.then(|| version.clone()));
        let text = section(&version, &report, people, &all);
        made = Some((version, is_new));
        text
    };
    let (summary, is_written) = write_voted_dataset(out, input, &options.dataset, &voted, describe)?;
    let Some((version, is_new)) = made else {
        return Err(ExportError::NothingDecided { num_votes: 0, min_votes: options.min_votes });
    };
    if is_new {
        versions.add(version.clone())?;
    }
    Ok(Exported { version, is_new, is_written, summary })
}

/// What people say of each row, and every vote as it is published.
pub fn voted(input: &DatasetInput<'_>, votes: &[CurrentVote<'_>], options: &ExportOptions) -> Voted {
    let mut known: HashMap<&str, HashSet<String>> = HashMap::new();
    for candidate in input.candidates {
        known.entry(&candidate.record_id).or_default().insert(text_hash(&candidate.text));
    }
    for record in input.records {
        known.entry(&record.id).or_default().extend(record.response.as_deref().map(text_hash));
    }
    let shown = Items::of(input, &options.dataset, AnswerChoice::Pair, 0);
    let of_judge: HashMap<&str, Couple<'_>> = shown
        .items
        .iter()
        .filter_map(|item| Some((item.prompt_id.as_str(), (&*item.answers.first()?.hash, &*item.answers.get(1)?.hash))))
        .collect();
    let mut rows: BTreeMap<String, RowVotes> = BTreeMap::new();
    for (prompt, couples) in tallies(votes) {
        let is_there = |hash: &str| known.get(prompt).is_some_and(|hashes| hashes.contains(hash));
        let usable: BTreeMap<Couple<'_>, Tally> =
            couples.into_iter().filter(|((a, b), _)| is_there(a) && is_there(b)).collect();
        let finding = finding(&usable, of_judge.get(prompt).copied(), options.min_votes);
        rows.insert(prompt.to_owned(), RowVotes { finding, edits: Vec::new() });
    }
    for vote in votes.iter().filter(|vote| is_for_dataset(vote)) {
        if let (Choice::Edit { answer, text }, Some(row)) = (vote.choice, rows.get_mut(&vote.vote.prompt)) {
            row.edits.push(Edit { original: answer.clone(), text: text.clone() });
        }
    }
    for row in rows.values_mut() {
        row.edits.sort();
        row.edits.dedup();
    }
    let mut published: Vec<PublishedVote> = votes.iter().map(published).collect();
    published.sort();
    Voted { rows, votes: published, human_only: options.human_only }
}

/// What the tallies of a row's answers come to. Of several couples that people decided the one counts whose answers stand farthest apart in
/// wins minus losses, then the clearest, then the judge's own.
fn finding(couples: &BTreeMap<Couple<'_>, Tally>, of_judge: Option<Couple<'_>>, min_votes: u64) -> Finding {
    let mut standing: BTreeMap<&str, i64> = BTreeMap::new();
    let mut decided = Vec::new();
    for (&(first, second), tally) in couples {
        let (chosen, rejected, for_chosen, for_rejected) = match tally.ruling(min_votes) {
            Ruling::First => (first, second, tally.first, tally.second),
            Ruling::Second => (second, first, tally.second, tally.first),
            _ => continue,
        };
        *standing.entry(chosen).or_default() += 1;
        *standing.entry(rejected).or_default() -= 1;
        let votes = PairVotes { num_votes: tally.num_votes(), for_chosen, for_rejected };
        decided.push((chosen, rejected, votes, of_judge == Some((first, second))));
    }
    let rank = |(chosen, rejected, votes, is_judges): &(&str, &str, PairVotes, bool)| {
        let apart = standing.get(chosen).unwrap_or(&0) - standing.get(rejected).unwrap_or(&0);
        (apart, votes.for_chosen - votes.for_rejected, votes.num_votes, *is_judges)
    };
    // Of equals the last one in the order of hashes, which no run and no machine changes.
    if let Some((chosen, rejected, votes, _)) = decided.iter().max_by_key(|couple| rank(couple)) {
        return Finding::Prefers { chosen: (*chosen).to_owned(), rejected: (*rejected).to_owned(), votes: *votes };
    }
    let most = || couples.values().max_by_key(|tally| tally.num_votes());
    let Some(tally) = of_judge.and_then(|couple| couples.get(&couple)).or_else(most) else {
        return Finding::Open(VotedDrop::AnswersGone);
    };
    match tally.ruling(min_votes) {
        Ruling::Tie => Finding::Leaves(VotedDrop::Tie),
        Ruling::BothBad => Finding::Leaves(VotedDrop::BothBad),
        Ruling::Flagged(Flag::WrongLanguage) => Finding::Leaves(VotedDrop::WrongLanguage),
        Ruling::Flagged(Flag::Offensive) => Finding::Leaves(VotedDrop::Offensive),
        Ruling::Flagged(Flag::Broken) => Finding::Leaves(VotedDrop::Broken),
        Ruling::Flagged(Flag::Other) => Finding::Leaves(VotedDrop::OtherFlag),
        Ruling::TooFewVotes => Finding::Open(VotedDrop::TooFewVotes),
        Ruling::Split | Ruling::First | Ruling::Second => Finding::Open(VotedDrop::Split),
    }
}

/// A vote without what is nobody else's business.
fn published(vote: &CurrentVote<'_>) -> PublishedVote {
    let event = vote.vote;
    let place = |hash: &String| event.shown.iter().position(|other| other == hash);
    let (mut preferred, mut flag, mut flagged, mut edit, mut ranks) = (None, None, None, None, Vec::new());
    match vote.choice {
        Choice::Better { answer } => preferred = place(answer),
        Choice::Edit { answer, text } => {
            preferred = place(answer);
            edit = Some(text.clone());
        }
        Choice::Flag { flag: what, answer, .. } => {
            flag = Some(what.as_str());
            flagged = answer.as_ref().and_then(place);
        }
        Choice::Ranking { groups } => {
            let rank =
                |hash: &String| groups.iter().position(|group| group.contains(hash)).map_or(0, |at| at as i64 + 1);
            ranks = event.shown.iter().map(rank).collect();
            preferred = groups.first().filter(|best| best.len() == 1).and_then(|best| place(&best[0]));
        }
        Choice::Same | Choice::BothBad | Choice::Skip => {}
    }
    PublishedVote {
        record_id: event.prompt.clone(),
        item: event.item.clone(),
        annotator: event.annotator.clone(),
        kind: match event.kind {
            ItemKind::Ordinary => "ordinary",
            ItemKind::Audit => "audit",
            ItemKind::Repeat => "repeat",
            ItemKind::Gold => "gold",
        },
        day: event.time_bucket(),
        via: match event.via {
            Via::Page => "page",
            Via::Pack => "pack",
            Via::Import => "import",
        },
        shown: event.shown.clone(),
        choice: vote.choice.as_str(),
        preferred,
        flag,
        flagged,
        edit,
        ranks,
        scores: vote.ratings.to_vec(),
    }
}

/// The card's section on votes and versions.
fn section(version: &Version, report: &Report, people: &[Person], versions: &[Version]) -> String {
    let judged = version.num_pairs - version.num_human_pairs;
    let source = match version.human_only {
        true => "Rows that people did not decide are left out.".to_owned(),
        false => format!("The judge's ratings decide the other {judged} pairs."),
    };
    let mut text = format!(
        "## People's votes\n\n{} votes of {} people, who saw two or more answers side by side without knowing who wrote them. A label needs {} \
         and more of those who prefer one of two answers than half; if more than half of all see no difference, find both bad or flag \
         something, the row leaves `default` for that reason. So {} pairs are labelled by people, {} of them against the judge's ratings. {source} \
         Votes on repeated and planted items decide nothing.\n\n",
        version.num_votes,
        version.num_annotators,
        match version.min_votes {
            0 | 1 => "one opinion or more".to_owned(),
            votes => format!("{votes} opinions or more"),
        },
        version.num_human_pairs,
        version.num_turned
    );
    let agreement = &report.agreement;
    let number = |value: Option<f64>| value.map_or("not to be told".to_owned(), |value| format!("{value:.3}"));
    let rows = [
        ("answers compared by two people or more", agreement.num_couples.to_string()),
        ("Krippendorff's alpha, ordinal", number(agreement.alpha_ordinal)),
        ("Krippendorff's alpha, nominal", number(agreement.alpha_nominal)),
        ("Fleiss' kappa", number(agreement.fleiss_kappa)),
    ];
    text += "| | |\n|---|---|\n";
    rows.iter().for_each(|(name, value)| text += &format!("| {name} | {value} |\n"));
    for (name, share) in [
        ("judge prefers what people prefer, drawn at random", report.judge.audit),
        ("the same of all (those first of which the judge is unsure)", report.judge.all),
        ("answer shown first preferred", report.position.first),
    ] {
        let share = share.map_or("not to be told".to_owned(), |share| share_in_words(&share));
        text += &format!("| {name} | {share} |\n");
    }
    let credits: BTreeSet<&str> =
        people.iter().map(|person| person.credit.trim()).filter(|name| !name.is_empty()).collect();
    if !credits.is_empty() {
        let names: Vec<String> = credits.into_iter().map(inline_code).collect();
        text += &format!("\nThanks to {}.\n", names.join(", "));
    }
    text + &format!("\n### Versions\n\n{}", changelog(versions))
}
