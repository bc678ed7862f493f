//! The growing dataset: labels by people, whatever is made or rated again; versions, and rows that leave for a reason.
//! Knows made-up rows and votes, and reads what was written; makes no claim about the command line.

use std::path::Path;

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchReader};
use arrow::datatypes::{Float64Type, Int64Type};
use pairwright::annotate::export::{ExportError, ExportOptions, Exported, export};
use pairwright::annotate::items::Item;
use pairwright::annotate::store::{Person, Store, StoredVote, read_votes, votes_path};
use pairwright::annotate::versions::Versions;
use pairwright::annotate::vote::{Choice, Flag, ItemKind, Vote, text_hash};
use pairwright::dataset::{CARD_FILE, DatasetOptions, EDITED_MODEL};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::made::Made;
use crate::numbers::{items, prefers, rows, vote_on};

const PAIRS: &str = "data/train-00000-of-00001.parquet";
const RAW: &str = "raw/train-00000-of-00001.parquet";
const VOTES: &str = "votes/train-00000-of-00001.parquet";

/// A run's folder with votes in it.
struct Run {
    folder: tempfile::TempDir,
    made: Made,
}

impl Run {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), made: rows() }
    }

    fn item(&self, row: usize) -> Item {
        items(&self.made).items[row].clone()
    }

    /// A vote of `annotator` on a row's two answers.
    fn vote(&self, row: usize, annotator: &str, choice: Choice) {
        self.add(vote_on(&self.item(row), annotator, ItemKind::Ordinary, row.is_multiple_of(2), choice));
    }

    fn add(&self, vote: Vote) {
        Store::open(self.folder.path()).unwrap().append(&[vote]).unwrap();
    }

    fn out(&self) -> std::path::PathBuf {
        self.folder.path().join("export")
    }

    fn export_with(&self, out: &Path, change: impl FnOnce(&mut ExportOptions)) -> Result<Exported, ExportError> {
        let mut options = ExportOptions {
            dataset: DatasetOptions::default(),
            min_votes: 1,
            human_only: false,
            date: "2026-11-27".into(),
        };
        change(&mut options);
        let votes: Vec<StoredVote> = read_votes(self.folder.path()).unwrap();
        let people: Vec<Person> = Vec::new();
        export(self.folder.path(), out, &self.made.input(), (&votes, &people), &options)
    }

    fn export(&self) -> Exported {
        self.export_with(&self.out(), |_| {}).unwrap()
    }

    fn read(&self, file: &str) -> RecordBatch {
        let file = std::fs::File::open(self.out().join(file)).unwrap();
        let mut reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
        let schema = reader.schema();
        reader.next().map_or_else(|| RecordBatch::new_empty(schema), Result::unwrap)
    }
}

fn texts(batch: &RecordBatch, column: &str) -> Vec<Option<String>> {
    let column = batch.column_by_name(column).unwrap_or_else(|| panic!("no column {column}"));
    column.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
}

fn plain(batch: &RecordBatch, column: &str) -> Vec<String> {
    texts(batch, column).into_iter().map(Option::unwrap).collect()
}

/// Contents of one side, row by row.
fn side(batch: &RecordBatch, column: &str) -> Vec<String> {
    let lists = batch.column_by_name(column).unwrap().as_list::<i32>();
    let content = |row: usize| {
        let messages = lists.value(row);
        messages.as_struct().column_by_name("content").unwrap().as_string::<i32>().value(0).to_owned()
    };
    (0..lists.len()).map(content).collect()
}

fn outcome_of(run: &Run, row: usize) -> String {
    plain(&run.read(RAW), "outcome")[row].clone()
}

/// Chosen text and label source of a row's first pair.
fn label(run: &Run, row: usize) -> Option<(String, String)> {
    let pairs = run.read(PAIRS);
    let id = &run.made.records[row].id;
    let at = plain(&pairs, "id").iter().position(|other| other == id)?;
    Some((side(&pairs, "chosen")[at].clone(), plain(&pairs, "label_source")[at].clone()))
}

fn owned(chosen: &str, source: &str) -> Option<(String, String)> {
    Some((chosen.to_owned(), source.to_owned()))
}

#[test]
fn the_majority_of_people_decides_also_against_the_judge() {
    let run = Run::new();
    // The judge prefers the human answer in even rows.
    for (annotator, text) in [("ann", "model 0"), ("bob", "model 0"), ("eve", "human 0")] {
        run.vote(0, annotator, prefers(text));
    }
    run.vote(1, "ann", prefers("model 1"));
    let found = run.export();
    assert!(found.is_new && found.is_written);
    assert_eq!((found.version.number, found.version.num_pairs, found.version.num_human_pairs), (1, 21, 2));
    assert_eq!((found.version.num_turned, found.version.num_votes, found.version.num_annotators), (1, 4, 3));
    assert_eq!(label(&run, 0), owned("model 0", "human"));
    assert_eq!(label(&run, 1), owned("model 1", "human"));
    assert_eq!(label(&run, 2), owned("human 2", "judge"));
    let pairs = run.read(PAIRS);
    let margins = pairs.column_by_name("margin").unwrap().as_primitive::<Float64Type>();
    assert!((margins.value(0) + 1.0).abs() < 1e-9, "the judge's ratings stay what they are");
    let shares = pairs.column_by_name("chosen_vote_share").unwrap().as_primitive::<Float64Type>();
    let counts = pairs.column_by_name("num_votes").unwrap().as_primitive::<Int64Type>();
    assert!((shares.value(0) - 2.0 / 3.0).abs() < 1e-12 && shares.is_null(2));
    assert_eq!((counts.value(0), counts.value(2)), (3, 0));
    assert_eq!(side(&pairs, "rejected")[0], "human 0");
    // The rule: with three votes wanted, one is none.
    let strict = run.export_with(&run.out(), |options| options.min_votes = 3).unwrap();
    assert_eq!((strict.version.num_human_pairs, label(&run, 1)), (1, owned("model 1", "judge")));
}

#[test]
fn ties_bad_and_flagged_rows_leave_with_their_reason() {
    let run = Run::new();
    run.vote(0, "ann", Choice::Same);
    run.vote(1, "ann", Choice::BothBad);
    let flag = |answer: Option<&str>| Choice::Flag {
        flag: Flag::WrongLanguage,
        answer: answer.map(text_hash),
        note: "Ann's phone is 555".into(),
    };
    run.vote(2, "ann", flag(Some("model 2")));
    run.vote(3, "ann", Choice::Skip);
    // Of three opinions one is a flag.
    for (name, choice) in [("ann", flag(None)), ("bob", prefers("human 4")), ("eve", prefers("human 4"))] {
        run.vote(4, name, choice);
    }
    run.vote(5, "ann", prefers("human 5"));
    run.vote(5, "bob", prefers("model 5"));
    let found = run.export();
    let drops = &found.version.drops;
    let reasons = ["people_tie", "people_both_bad", "people_flag_wrong_language"];
    assert_eq!(reasons.map(|reason| drops[reason]), [1, 1, 1]);
    assert_eq!(found.version.num_pairs + drops.values().sum::<u64>(), found.version.num_rows);
    assert_eq!([0, 1, 2].map(|row| outcome_of(&run, row)), reasons);
    assert_eq!([3, 5].map(|row| label(&run, row).unwrap().1), ["judge", "judge"], "no majority is no label");
    assert_eq!(label(&run, 4), owned("human 4", "human"));
    // Nobody's words and no hour are published.
    let votes = std::fs::read(run.out().join(VOTES)).unwrap();
    assert!(!String::from_utf8_lossy(&votes).contains("555"));
    let published = run.read(VOTES);
    assert_eq!(published.num_rows(), 9);
    assert!(plain(&published, "day").iter().all(|day| day == "2026-11-27"));
    let flags = texts(&published, "flag").into_iter().flatten().count();
    assert_eq!((flags, texts(&published, "flag_side").into_iter().flatten().count()), (2, 1));
    // People alone.
    let only = run.export_with(&run.out(), |options| options.human_only = true).unwrap();
    assert_eq!((only.version.num_pairs, only.version.drops["people_no_votes"]), (1, 16));
    assert_eq!((only.version.drops["people_split"], outcome_of(&run, 5)), (1, "people_split".to_owned()));
    assert_eq!(only.version.left.values().sum::<u64>(), 17, "{:?}", only.version.left);
}

#[test]
fn the_same_again_is_nothing_and_the_same_elsewhere_the_same_bytes() {
    let run = Run::new();
    run.vote(0, "ann", prefers("model 0"));
    let first = run.export();
    let again = run.export_with(&run.out(), |options| options.date = "2027-01-01".into()).unwrap();
    assert!(!again.is_new && !again.is_written);
    assert_eq!(again.version, first.version);
    let elsewhere = run.folder.path().join("elsewhere");
    assert!(run.export_with(&elsewhere, |_| {}).unwrap().is_written);
    for file in [PAIRS, RAW, VOTES, CARD_FILE, "run.lock"] {
        assert_eq!(
            std::fs::read(run.out().join(file)).unwrap(),
            std::fs::read(elsewhere.join(file)).unwrap(),
            "{file}"
        );
    }
    assert_eq!(Versions::open(run.folder.path()).unwrap().all.len(), 1);
    // A file that somebody changed is written again, without a new version.
    std::fs::write(run.out().join(PAIRS), "").unwrap();
    let mended = run.export();
    assert!(mended.is_written && !mended.is_new);
    run.vote(1, "ann", prefers("human 1"));
    let next = run.export();
    assert_eq!((next.version.number, next.version.num_changed, next.version.num_added), (2, 1, 0));
    let card = std::fs::read_to_string(run.out().join(CARD_FILE)).unwrap();
    assert!(card.contains("## People's votes") && card.contains("| 2 | 2026-11-27 | 21 | 2 | 2 |"), "{card}");
    assert!(card.contains("human-feedback") && card.contains("config_name: \"votes\""), "{card}");
    // A damaged changelog is one clear error, and nothing is lost.
    drop(Versions::open(run.folder.path()).unwrap());
    let log = run.folder.path().join("annotations/versions.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, text.replacen('{', "", 1)).unwrap();
    let error = run.export_with(&run.out(), |_| {}).unwrap_err().to_string();
    assert!(error.contains("line 1") && error.contains("hint:"), "{error}");
}

#[test]
fn votes_survive_ratings_rows_and_models() {
    let mut run = Run::new();
    run.vote(0, "ann", prefers("model 0"));
    run.vote(2, "bob", Choice::BothBad);
    run.export();
    let before = std::fs::read(votes_path(run.folder.path())).unwrap();
    // Rated the other way round, and three rows more.
    for verdict in &mut run.made.verdicts {
        verdict.rating = 6.0 - verdict.rating;
    }
    for n in 21..24 {
        run.made.row(&format!("prompt {n}"), [&format!("human {n}"), &format!("model {n}")], [4.0, 2.0]);
    }
    let second = run.export();
    assert_eq!((label(&run, 0), outcome_of(&run, 2)), (owned("model 0", "human"), "people_both_bad".to_owned()));
    assert_eq!((second.version.number, second.version.num_added, second.version.left.len()), (2, 3, 0));
    assert_eq!(label(&run, 4), owned("model 4", "judge"));
    // Another model with answers of its own, which the judge likes best: what people said of the other two still holds.
    let more: Vec<_> = run
        .made
        .candidates
        .iter()
        .filter(|candidate| candidate.model == "writer")
        .map(|candidate| {
            let text = format!("other {}", candidate.text);
            pairwright::generate::Candidate { model: "newcomer".into(), text, ..candidate.clone() }
        })
        .collect();
    for candidate in &more {
        run.made.verdicts.push(crate::judged::verdict(candidate, 5.0));
    }
    run.made.candidates.extend(more);
    run.export();
    assert_eq!(label(&run, 0), owned("model 0", "human"));
    assert_eq!(label(&run, 4), owned("other model 4", "judge"));
    // A run without the row: it leaves, and the changelog says why.
    run.made.records.remove(0);
    let fourth = run.export();
    assert_eq!((fourth.version.left.get("row_not_in_run"), fourth.version.number), (Some(&1), 4));
    assert_eq!(std::fs::read(votes_path(run.folder.path())).unwrap(), before, "no export touches a vote");
    let published = run.read(VOTES);
    assert_eq!(published.num_rows(), 2, "votes stay published");
}

#[test]
fn an_edit_is_a_candidate_and_beats_what_it_was_made_of() {
    let run = Run::new();
    let text = "पहले से बेहतर \u{2067}نص\u{2069}";
    run.vote(0, "ann", Choice::Edit { answer: text_hash("human 0"), text: text.into() });
    // The judge's tie is none for a person who writes a better answer.
    run.vote(1, "bob", Choice::Edit { answer: text_hash("human 1"), text: "model 1 but better".into() });
    run.vote(1, "ann", prefers("model 1"));
    let found = run.export();
    let pairs = run.read(PAIRS);
    let couples: Vec<(String, String)> = side(&pairs, "chosen").into_iter().zip(side(&pairs, "rejected")).collect();
    let has = |chosen: &str, rejected: &str| couples.contains(&(chosen.to_owned(), rejected.to_owned()));
    assert!(has("human 0", "model 0") && has(text, "human 0"));
    assert!(has("model 1", "human 1") && has("model 1 but better", "human 1"), "{couples:?}");
    assert_eq!((found.version.num_pairs, found.version.num_human_pairs), (23, 3));
    let edited = couples.iter().position(|(chosen, _)| chosen == text).unwrap();
    assert_eq!(plain(&pairs, "chosen_model")[edited], EDITED_MODEL);
    assert_eq!(plain(&pairs, "chosen_source")[edited], "human");
    assert!(pairs.column_by_name("chosen_rating").unwrap().is_null(edited));
    let raw = run.read(RAW);
    let answers = raw.column_by_name("generations").unwrap().as_list::<i32>().value(0);
    assert!(answers.as_string::<i32>().iter().flatten().any(|answer| answer == text));
}

#[test]
fn people_alone_must_have_decided_something() {
    let run = Run::new();
    run.vote(0, "ann", Choice::Skip);
    let error = run.export_with(&run.out(), |options| options.human_only = true).unwrap_err();
    assert!(matches!(error, ExportError::NothingDecided { num_votes: 1, min_votes: 1 }), "{error}");
    assert!(!run.out().exists());
}

#[test]
fn a_ranking_pairs_the_best_with_the_worst_and_repeats_decide_nothing() {
    let run = Run::new();
    let item = run.item(0);
    run.add(vote_on(&item, "ann", ItemKind::Ordinary, false, prefers("human 0")));
    for name in ["ann", "bob", "eve"] {
        run.add(vote_on(&item, name, ItemKind::Repeat, false, prefers("model 0")));
    }
    run.export();
    assert_eq!(label(&run, 0), owned("human 0", "human"));
    let kinds = plain(&run.read(VOTES), "kind");
    assert_eq!(kinds.iter().filter(|kind| *kind == "repeat").count(), 3, "they are published for whoever checks");
    let groups = vec![vec![text_hash("model 1")], vec![text_hash("human 1")]];
    run.vote(1, "ann", Choice::Ranking { groups });
    run.export();
    assert_eq!(label(&run, 1), owned("model 1", "human"));
}
