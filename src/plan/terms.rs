//! What licences allow the dataset to be, and what may go wrong. Knows what makers state and what the plan counted; it is no lawyer, and says so.

use std::collections::BTreeSet;

use serde::Serialize;

use super::model::ModelFacts;
use crate::registry::{AyaData, LicenceKind};

/// A part of the run and its licence.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Licence {
    /// `prompts`, `generator` or `judge`.
    pub part: &'static str,
    /// Its name.
    pub name: String,
    /// As stated; `None`: nobody says.
    pub licence: Option<String>,
    /// How free it is; of prompts as the name says.
    pub kind: LicenceKind,
    /// What it asks for besides.
    pub terms: Option<String>,
}

/// What all of them together allow.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Licences {
    /// Part by part.
    pub parts: Vec<Licence>,
    /// `open`, `restricted`, `non-commercial` or `unknown`: the least free of all.
    pub dataset: LicenceKind,
    /// In words.
    pub in_words: String,
}

/// A thing that may go wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Risk {
    /// Stable, for programs.
    pub name: &'static str,
    /// What it is, with numbers.
    pub what: String,
    /// What helps.
    pub advice: String,
}

/// How free a licence of this name is, as far as the name says.
pub fn kind_of(licence: Option<&str>) -> LicenceKind {
    let name = licence.unwrap_or_default().to_lowercase();
    let open = ["apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "bsd-3-clause", "odc-by", "cc-by-3.0"];
    let restricted = ["llama", "gemma", "qwen", "cc-by-sa", "openrail", "mnpl", "exaone"];
    match &name {
        name if name.is_empty() => LicenceKind::Unknown,
        name if name.contains("-nc") || name.contains("non-commercial") || name.contains("noncommercial") => {
            LicenceKind::NonCommercial
        }
        name if open.contains(&name.as_str()) => LicenceKind::Open,
        name if restricted.iter().any(|word| name.contains(word)) => LicenceKind::Restricted,
        _ => LicenceKind::Unknown,
    }
}

impl Licences {
    /// Of the prompts and of models by their role.
    pub fn of(source: (String, Option<String>), models: &[(&'static str, &ModelFacts)]) -> Self {
        let (name, licence) = source;
        let mut parts =
            vec![Licence { part: "prompts", name, kind: kind_of(licence.as_deref()), licence, terms: None }];
        parts.extend(models.iter().map(|(part, facts)| Licence {
            part,
            name: facts.name.clone(),
            licence: facts.licence.clone(),
            kind: facts.licence_kind.unwrap_or_else(|| kind_of(facts.licence.as_deref())),
            terms: facts.terms.clone(),
        }));
        let rank = |kind: LicenceKind| match kind {
            LicenceKind::Open => 0,
            LicenceKind::Restricted => 1,
            LicenceKind::Unknown => 2,
            LicenceKind::NonCommercial => 3,
        };
        // A judge's licence binds who uses its ratings; answers carry the generator's and the prompts'.
        let dataset = parts.iter().map(|part| part.kind).max_by_key(|kind| rank(*kind)).unwrap_or(LicenceKind::Unknown);
        let of_kind = |kind: LicenceKind| {
            let names =
                parts.iter().filter(|part| part.kind == kind).map(|part| format!("{} ({})", part.name, part.part));
            names.collect::<Vec<_>>().join(", ")
        };
        let mut words = match dataset {
            LicenceKind::Open => {
                "All parts are open: the dataset may be published under an open licence that names them.".to_owned()
            }
            LicenceKind::Restricted => {
                format!(
                    "With terms of use that go with what is made: {}. Read and repeat them in the card.",
                    of_kind(dataset)
                )
            }
            LicenceKind::NonCommercial => {
                format!(
                    "Non-commercial use only, because of {}: the dataset's licence has to say so too.",
                    of_kind(dataset)
                )
            }
            LicenceKind::Unknown => format!("Not known for {}: ask before publishing.", of_kind(dataset)),
        };
        if dataset == LicenceKind::NonCommercial && parts.iter().any(|part| part.kind == LicenceKind::Unknown) {
            words += &format!(" Not known for {}: ask before publishing.", of_kind(LicenceKind::Unknown));
        }
        Self { parts, dataset, in_words: words + " This is no legal advice." }
    }
}

/// What the counts of a plan say may go wrong.
#[derive(Debug, Clone, Default)]
pub struct Counted {
    /// Human answers that the generator's tokenizer gives more tokens than an answer may have, and all of them.
    pub num_clipped: usize,
    /// See `num_clipped`.
    pub num_answers: usize,
    /// Prompts that leave no room for an answer.
    pub num_too_long: usize,
    /// Questions to judges that do not fit.
    pub num_refused: u64,
    /// Codes of the rows' languages, as the source spells them, with names.
    pub languages: BTreeSet<(String, String)>,
    /// Languages in which the identifier may not veto.
    pub not_validated: Vec<String>,
    /// Tokens for a thousand characters of the rows, and of English by the same tokenizer.
    pub tokens_per_1000: Option<(f64, f64)>,
    /// Most tokens of an answer.
    pub max_tokens: usize,
}

/// Tokens per character over those of English from which on a tokenizer is called poor for a language.
const POOR_FERTILITY: f64 = 2.5;

/// All that applies, worst first.
pub fn risks(generators: &[&ModelFacts], judges: &[&ModelFacts], counted: &Counted) -> Vec<Risk> {
    let mut risks = Vec::new();
    let mut add = |name, what: String, advice: &str| risks.push(Risk { name, what, advice: advice.to_owned() });
    for facts in generators.iter().chain(judges).filter(|facts| facts.is_dummy) {
        let what = format!("{} has random weights: its answers mean nothing", facts.name);
        add("dummy_weights", what, "for timing alone; leave out --weights dummy");
    }
    for judge in judges {
        if generators.contains(judge) {
            let what = format!("{} rates its own answers, and models favour these", judge.name);
            add("judge_is_generator", what, "take a judge of another family, or a panel of several");
        }
    }
    if counted.num_clipped * 100 > counted.num_answers {
        let share = 100.0 * counted.num_clipped as f64 / counted.num_answers.max(1) as f64;
        let what = format!(
            "{share:.1} % of the human answers have more than {} tokens, so answers of that length will be cut",
            counted.max_tokens
        );
        add("clipped_answers", what, "raise --max-tokens, or drop long rows with --max-response-chars");
    }
    if counted.num_too_long > 0 {
        let what = format!("{} prompts leave no room for an answer in the generator's context", counted.num_too_long);
        add("prompts_too_long", what, "drop them with --max-prompt-chars, or take a model with a longer context");
    }
    if counted.num_refused > 0 {
        let what = format!("{} requests are too long for a model's context or cache", counted.num_refused);
        add("requests_too_long", what, "take a model with a longer context, or drop long rows");
    }
    for facts in generators.iter().chain(judges) {
        language_risk(facts, counted, &mut add);
        if facts.aya_data == Some(AyaData::Yes) {
            let what = format!("{} was trained on Aya data: its answers to Aya prompts may be remembered", facts.name);
            add("contaminated", what, "say so in the card, and do not measure it on these prompts");
        }
    }
    if let Some((own, english)) = counted.tokens_per_1000
        && own > POOR_FERTILITY * english
    {
        let what =
            format!("the generator's tokenizer needs {own:.0} tokens for 1,000 characters, in English {english:.0}");
        add(
            "low_fertility",
            what,
            "answers cost that much more and say less in --max-tokens; another tokenizer may do better",
        );
    }
    if !counted.not_validated.is_empty() {
        let what = format!("the language identifier may not veto in {}", counted.not_validated.join(", "));
        add("identifier_not_validated", what, "look at answers yourself; nothing is dropped there for its language");
    }
    // What is true of a model in both roles is said once.
    let mut said = BTreeSet::new();
    risks.retain(|risk: &Risk| said.insert(risk.what.clone()));
    risks
}

/// Languages of the rows that a model's makers do not name.
fn language_risk(facts: &ModelFacts, counted: &Counted, add: &mut impl FnMut(&'static str, String, &str)) {
    if facts.languages.is_none() {
        let what =
            format!("{} is not in the list of models: what its makers say of languages is not known here", facts.name);
        return add("language_unknown", what, "read its card");
    }
    let missing: Vec<&str> = counted
        .languages
        .iter()
        .filter(|(name, code)| !facts.states(name, code))
        .map(|(name, _)| name.as_str())
        .collect();
    if !missing.is_empty() {
        let more = if facts.names_all_languages { "" } else { ", and speak of more than they name" };
        let shown = missing.iter().take(8).copied().collect::<Vec<_>>().join(", ");
        let rest = if missing.len() > 8 { format!(" and {} more", missing.len() - 8) } else { String::new() };
        let what = format!("makers of {} do not name {shown}{rest}{more}", facts.name);
        add(
            "language_not_stated",
            what,
            "measure it first (`pairwright bench`), or `pairwright models suggest --language …`",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_licences_are_told_apart() {
        for (name, kind) in [
            (Some("apache-2.0"), LicenceKind::Open),
            (Some("MIT"), LicenceKind::Open),
            (Some("cc-by-nc-4.0"), LicenceKind::NonCommercial),
            (Some("llama3.1"), LicenceKind::Restricted),
            (Some("other"), LicenceKind::Unknown),
            (None, LicenceKind::Unknown),
        ] {
            assert_eq!(kind_of(name), kind, "{name:?}");
        }
    }
}
