//! What one model's answer to one prompt is like, in numbers: everything that a figure is later a mean, a share or a ratio of.
//! Knows a run's rows and the checks of texts; knows no interval and no table.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;

use crate::data::language;
use crate::dataset::DatasetInput;
use crate::generate::{Candidate, CandidateSource, Likelihood};
use crate::judge::{AnswerName, Comparison, Verdict};
use crate::quality::{
    self, AnswerQuality, ChrfCounts, EnglishWords, Flag, LanguageVerdict, LineCheck, Profile, default_profile,
};

/// Fewer English words than this are no dictionary.
const MIN_DICTIONARY: usize = 200;

/// One model's answer to one prompt, and what it says of the human answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowValues {
    /// The record's id.
    pub id: String,
    /// Of the human answer.
    pub human: Option<HumanValues>,
    /// `None` if the model gave none.
    pub answer: Option<AnswerValues>,
    /// The judge's word on it.
    pub judged: JudgedValues,
}

/// How likely the model finds the human answer, and how it writes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HumanValues {
    /// Negative log-probability in bits.
    pub bits: f64,
    /// UTF-8 bytes.
    pub bytes: f64,
    /// Tokens.
    pub tokens: f64,
}

/// An answer by its text.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerValues {
    /// `None` if it cannot be told.
    pub in_language: Option<bool>,
    /// Its lines.
    pub lines: LineCheck,
    /// Whether an English word stands in it; `None` where that is not asked.
    pub has_english: Option<bool>,
    /// Whether letters of a script do that neither prompt nor human answer has.
    pub has_foreign_script: bool,
    /// Empty, going round, an echo, or with text of a template.
    pub is_degenerate: bool,
    /// Ended by the token limit.
    pub is_cut_off: bool,
    /// A refusal or boilerplate.
    pub is_common_opening: bool,
    /// Says what the human answer says in the same words.
    pub is_near_identical: bool,
    /// Share of it that stood in it before; `None` of a short one.
    pub repeated: Option<f64>,
    /// Characters.
    pub characters: f64,
    /// Characters of the human answer.
    pub human_characters: f64,
    /// chrF++ against the human answer.
    pub chrf: ChrfCounts,
    /// Tokens of the prompt as the model saw it.
    pub prompt_tokens: f64,
    /// Tokens that it generated.
    pub output_tokens: f64,
}

/// What the judge said; all `None` where there was no judge.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct JudgedValues {
    /// 1: better than the human answer, ½: a tie, 0: worse.
    pub won: Option<f64>,
    /// Whether both orders agree.
    pub is_consistent: Option<bool>,
    /// Rating of the answer minus that of the human one.
    pub rating_difference: Option<f64>,
    /// Mean over aspects, of the model's answer.
    pub label_mass: Option<f64>,
    /// Mean over aspects in nats, of the model's answer.
    pub entropy: Option<f64>,
}

/// The rows of each generator of a run, by name, in the order of its records. Of several samples the first counts.
pub fn rows_of(
    input: &DatasetInput<'_>,
    likelihoods: &[Likelihood],
    words: &EnglishWords,
) -> BTreeMap<String, Vec<RowValues>> {
    let profile = default_profile();
    let mut answers: HashMap<&str, Vec<&Candidate>> = HashMap::new();
    let first = input.candidates.iter().filter(|candidate| candidate.sample_index == 0);
    first.for_each(|candidate| answers.entry(&candidate.record_id).or_default().push(candidate));
    let rows: Vec<quality::Row<'_>> = input
        .records
        .iter()
        .map(|record| {
            let mut answers = answers.remove(record.id.as_str()).unwrap_or_default();
            answers.sort_by(|a, b| a.source.cmp(&b.source).then(a.model.cmp(&b.model)));
            quality::Row { record, answers }
        })
        .collect();
    let (found, _) = quality::assess(&rows, profile, None);
    let judged = Judged::of(input);
    let likelihoods: HashMap<(&str, &str), &Likelihood> =
        likelihoods.iter().map(|row| ((row.model.as_str(), row.record_id.as_str()), row)).collect();
    let words = Some(words).filter(|words| words.len() >= MIN_DICTIONARY && !is_latin(input));
    let of_model = |model: &str| -> Vec<RowValues> {
        rows.par_iter()
            .zip(&found)
            .map(|(row, quality)| {
                let id = row.record.id.as_str();
                let own = row.answers.iter().zip(&quality.answers);
                let own = own.into_iter().find(|(answer, _)| is_by(answer, model));
                RowValues {
                    id: id.to_owned(),
                    human: likelihoods.get(&(model, id)).map(|row| HumanValues::of(row)),
                    answer: own.map(|(answer, quality)| values(profile, row, answer, quality, words)),
                    judged: own.map_or_else(JudgedValues::default, |(answer, _)| judged.values(row, answer)),
                }
            })
            .collect()
    };
    input.lock.generators.iter().map(|model| (model.name.clone(), of_model(&model.name))).collect()
}

fn is_by(answer: &Candidate, model: &str) -> bool {
    answer.source == CandidateSource::Model && answer.model == model
}

/// Whether most letters of the human answers are Latin ones.
fn is_latin(input: &DatasetInput<'_>) -> bool {
    use unicode_script::{Script, UnicodeScript};
    let texts = input.records.iter().filter_map(|record| record.response.as_deref());
    let (mut latin, mut all) = (0u64, 0u64);
    for character in texts.flat_map(str::chars).filter(|character| character.is_alphabetic()) {
        all += 1;
        latin += u64::from(character.script() == Script::Latin);
    }
    2 * latin >= all
}

impl HumanValues {
    fn of(row: &Likelihood) -> Self {
        let bits = -row.logprob / std::f64::consts::LN_2;
        Self { bits, bytes: row.num_bytes as f64, tokens: f64::from(row.num_tokens) }
    }
}

fn values(
    profile: &Profile,
    row: &quality::Row<'_>,
    answer: &Candidate,
    quality: &AnswerQuality,
    words: Option<&EnglishWords>,
) -> AnswerValues {
    let human = row.record.response.as_deref().unwrap_or_default();
    let has = |flag: Flag| quality.flags.contains(&flag);
    let expected = language::broad_code(&row.record.language, &row.record.language_code);
    let characters = |text: &str| text.chars().count() as f64;
    AnswerValues {
        in_language: match quality.language.verdict {
            LanguageVerdict::Ok => Some(true),
            LanguageVerdict::Mixed | LanguageVerdict::Wrong => Some(false),
            LanguageVerdict::Unsure => None,
        },
        lines: expected.map_or_else(LineCheck::default, |code| quality::check_lines(profile, &answer.text, code)),
        has_english: words.map(|words| words.are_in(&quality::prose(&answer.text))),
        has_foreign_script: quality::has_foreign_script(&answer.text, &[&row.record.prompt, human]),
        is_degenerate: [Flag::Empty, Flag::Repetition, Flag::Echo, Flag::LeakedMarkers].into_iter().any(has),
        is_cut_off: has(Flag::Truncated),
        is_common_opening: has(Flag::CommonOpening),
        is_near_identical: quality::are_near_identical(&answer.text, human),
        repeated: quality::repeated_share(&answer.text),
        characters: characters(&answer.text),
        human_characters: characters(human),
        chrf: ChrfCounts::of(&answer.text, human),
        prompt_tokens: f64::from(answer.num_prompt_tokens),
        output_tokens: answer.token_ids.len() as f64,
    }
}

/// What the judge said, findable.
struct Judged<'a> {
    verdicts: HashMap<(&'a str, AnswerName), &'a Verdict>,
    comparisons: HashMap<(&'a str, AnswerName), &'a Comparison>,
    /// Whether anybody compared; if not, ratings decide.
    compares: bool,
}

impl<'a> Judged<'a> {
    fn of(input: &'a DatasetInput<'_>) -> Self {
        let verdict = |verdict: &'a Verdict| {
            let Verdict { source, model, sample_index, .. } = verdict;
            let answer = AnswerName { source: *source, model: model.clone(), sample_index: *sample_index };
            ((verdict.record_id.as_str(), answer), verdict)
        };
        let with_human = |row: &&Comparison| row.answers[0].source == CandidateSource::Human;
        let comparisons = input.comparisons.iter().filter(with_human);
        Self {
            verdicts: input.verdicts.iter().map(verdict).collect(),
            comparisons: comparisons.map(|row| ((row.record_id.as_str(), row.answers[1].clone()), row)).collect(),
            compares: !input.comparisons.is_empty(),
        }
    }

    fn values(&self, row: &quality::Row<'_>, answer: &Candidate) -> JudgedValues {
        let id = row.record.id.as_str();
        let human = row.answers.iter().find(|other| other.source == CandidateSource::Human);
        let [own, other] =
            [Some(answer), human.copied()].map(|answer| self.verdicts.get(&(id, AnswerName::of(answer?))).copied());
        let comparison = self.comparisons.get(&(id, AnswerName::of(answer)));
        let both = own.zip(other).filter(|(own, other)| own.reliable && other.reliable);
        let same_text = human.is_some_and(|human| human.text.trim() == answer.text.trim());
        let by_ratings = both.map(|(own, other)| match own.rating.total_cmp(&other.rating) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        });
        let by_comparison = comparison.filter(|row| row.reliable).map(|row| match row.winner() {
            Some(0) => 0.0,
            Some(_) => 1.0,
            None => 0.5,
        });
        let won = if self.compares { by_comparison.or(same_text.then_some(0.5)) } else { by_ratings };
        let mean = |of: fn(&crate::judge::AspectScore) -> f64| {
            let aspects = &own?.aspects;
            (!aspects.is_empty()).then(|| aspects.iter().map(of).sum::<f64>() / aspects.len() as f64)
        };
        JudgedValues {
            won,
            is_consistent: comparison.map(|row| row.consistent),
            rating_difference: both.map(|(own, other)| own.rating - other.rating),
            label_mass: mean(|aspect| aspect.label_mass),
            entropy: mean(|aspect| aspect.entropy),
        }
    }
}
