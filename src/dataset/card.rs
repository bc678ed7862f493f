//! The dataset card, `README.md`: front matter that the Hub and the `datasets` library read, and a text for people.
//! Knows what was written and from what; computes no number of its own.

use arrow::datatypes::Schema;
use serde_json::{Value, json};

use super::report::{day, funnel_table, inline_code, models_for_show, quantiles_in_words, share_in_words, share_of};
use super::schema::{Column, card_features, default_columns, raw_columns, schema_of, type_in_words, vote_columns};
use super::summary::{DatasetSummary, TRL_MAX_LENGTH};
use super::write::WrittenFile;
use super::yaml::to_yaml;
use super::{DatasetInput, DatasetOptions};
use crate::judge::AspectWeight;
use crate::judge::known::KnownTotal;
use crate::provenance::ModelRecord;

/// Judges and languages that the card lists; the report has them all.
const MAX_TOTALS: usize = 12;

/// The whole card. `votes` is the section on people's votes, in an export that has them.
pub fn render_card(
    input: &DatasetInput<'_>,
    options: &DatasetOptions,
    summary: &DatasetSummary,
    votes: Option<&str>,
) -> String {
    let title = title(input);
    let sections = [
        format!("---\n{}---\n\n# {title}\n", to_yaml(&front_matter(input, options, summary, votes.is_some()))),
        introduction(input, summary, votes.is_some()),
        votes.unwrap_or_default().to_string(),
        how_it_was_made(input, options, summary),
        format!("## What became of the rows\n\n{}", funnel_table(summary)),
        ratings(summary),
        limits(input, summary, votes.is_some()),
        super::checks::in_words(summary),
        columns(options, votes.is_some()),
        loading(summary, votes.is_some()),
        licence(input),
    ];
    sections.into_iter().filter(|section| !section.is_empty()).collect::<Vec<_>>().join("\n")
}

fn title(input: &DatasetInput<'_>) -> String {
    let language = input.language.name.split_whitespace().collect::<Vec<_>>().join(" ");
    match (language.is_empty(), input.language.card_codes.len()) {
        (true, _) => "Pairwright preferences".to_string(),
        (false, 0 | 1) => format!("Pairwright {language} preferences"),
        (false, _) => format!("Pairwright preferences in {language}"),
    }
}

fn front_matter(
    input: &DatasetInput<'_>,
    options: &DatasetOptions,
    summary: &DatasetSummary,
    with_votes: bool,
) -> Value {
    let has_human = summary.rating_histogram.contains_key("human");
    let (license, license_name) = license_fields(input);
    let mut fields = json!({});
    let Some(map) = fields.as_object_mut() else { return fields };
    let codes = &input.language.card_codes;
    if !codes.is_empty() {
        map.insert("language".into(), json!(codes));
        map.insert("multilinguality".into(), json!(if codes.len() == 1 { "monolingual" } else { "multilingual" }));
    }
    map.insert("license".into(), json!(license));
    if let Some(license_name) = license_name {
        map.insert("license_name".into(), json!(license_name));
    }
    map.insert("pretty_name".into(), json!(title(input)));
    map.insert("size_categories".into(), json!([size_category(summary.num_pairs)]));
    map.insert("task_categories".into(), json!(["text-generation"]));
    let mut tags = vec!["dpo", "orpo", "preference", "rlaif", "synthetic", "conversational", "pairwright"];
    let mut annotators = vec!["machine-generated"];
    if with_votes {
        tags.push("human-feedback");
        annotators.insert(0, "crowdsourced");
    }
    map.insert("tags".into(), json!(tags));
    map.insert("annotations_creators".into(), json!(annotators));
    let creators = if has_human { json!(["crowdsourced", "machine-generated"]) } else { json!(["machine-generated"]) };
    map.insert("language_creators".into(), creators);
    if let Some(dataset) = &input.origin.dataset {
        map.insert("source_datasets".into(), json!([format!("extended|{dataset}")]));
    }
    map.insert("configs".into(), configs(summary, with_votes));
    map.insert("dataset_info".into(), dataset_info(options, summary, with_votes));
    fields
}

/// The files of a configuration that have rows. `datasets` fails on those that have none, so the card does not name them.
fn with_rows<'a>(summary: &'a DatasetSummary, config: &str) -> Vec<&'a WrittenFile> {
    summary.files.iter().filter(|file| file.config == config && file.num_rows > 0).collect()
}

/// What can be loaded; the first one without being named.
fn configs(summary: &DatasetSummary, with_votes: bool) -> Value {
    let folders = [("default", "data"), ("raw", "raw"), ("votes", "votes")];
    let mut all = Vec::new();
    for (name, folder) in &folders[..if with_votes { 3 } else { 2 }] {
        let files: Vec<Value> = with_rows(summary, name)
            .iter()
            .map(|file| json!({"split": file.split, "path": format!("{folder}/{}-*", file.split)}))
            .collect();
        match (files.is_empty(), all.is_empty()) {
            (true, _) => {}
            (false, true) => all.push(json!({"config_name": name, "data_files": files, "default": true})),
            (false, false) => all.push(json!({"config_name": name, "data_files": files})),
        }
    }
    json!(all)
}

fn dataset_info(options: &DatasetOptions, summary: &DatasetSummary, with_votes: bool) -> Value {
    let info = |name: &str, files: &[&WrittenFile], schema: Schema| {
        let splits: Vec<Value> = files
            .iter()
            .map(|file| json!({"name": file.split, "num_bytes": file.arrow_size_bytes, "num_examples": file.num_rows}))
            .collect();
        json!({
            "config_name": name,
            "features": card_features(&schema),
            "splits": splits,
            "download_size": files.iter().map(|file| file.size_bytes).sum::<u64>(),
            "dataset_size": files.iter().map(|file| file.arrow_size_bytes).sum::<u64>(),
        })
    };
    let known = tables(options, with_votes).into_iter().filter_map(|(name, columns)| {
        let files = with_rows(summary, name);
        (!files.is_empty()).then(|| info(name, &files, schema_of(&columns)))
    });
    json!(known.collect::<Vec<_>>())
}

/// Each configuration with its columns.
fn tables(options: &DatasetOptions, with_votes: bool) -> Vec<(&'static str, Vec<Column>)> {
    let mut all = vec![("default", default_columns(with_votes)), ("raw", raw_columns(options.include_user_id))];
    all.extend(with_votes.then(|| ("votes", vote_columns())));
    all
}

/// The Hub's bucket for a number of rows.
fn size_category(num_rows: u64) -> &'static str {
    match num_rows {
        0..1_000 => "n<1K",
        1_000..10_000 => "1K<n<10K",
        10_000..100_000 => "10K<n<100K",
        100_000..1_000_000 => "100K<n<1M",
        _ => "1M<n<10M",
    }
}

/// What the dataset's terms depend on: part, name as Markdown, licence if known.
fn licence_parts<'a>(input: &'a DatasetInput<'_>) -> Vec<(&'static str, String, Option<&'a str>)> {
    let source = input.origin.dataset.as_deref().map_or("a local file".to_string(), inline_code);
    let mut parts = vec![("source", source, input.origin.license.as_deref())];
    for (role, models) in [("generator", &input.lock.generators), ("judge", &input.lock.judges)] {
        parts.extend(models.iter().map(|model| (role, inline_code(&model.name), model.license.as_deref())));
    }
    parts
}

/// The `license` field, and `license_name` where that is `other`: one licence only if all parts have that one.
fn license_fields(input: &DatasetInput<'_>) -> (String, Option<&'static str>) {
    let known: Option<Vec<&str>> = licence_parts(input).into_iter().map(|(_, _, license)| license).collect();
    match known.as_deref() {
        None | Some([]) => ("unknown".to_string(), None),
        Some([first, rest @ ..]) if rest.iter().all(|other| other == first) => (first.to_string(), None),
        Some(_) => ("other".to_string(), Some("see-the-section-on-licences")),
    }
}

fn introduction(input: &DatasetInput<'_>, summary: &DatasetSummary, with_votes: bool) -> String {
    let language = match input.language.name.is_empty() {
        true => "a language that the source does not name".to_string(),
        false => title_language(input),
    };
    let source = match &input.origin.dataset {
        Some(dataset) => inline_code(dataset),
        None => "a local file".to_string(),
    };
    format!(
        "{} preference pairs in {language} for DPO, ORPO and reward models. Prompts come from {source}; each pair holds two \
         answers to one prompt, written by a person or a language model, and the ratings that a judge model gave them{}.\n\n\
         {} `raw` has all {} prompts that entered, with every answer, \
         rating and the reason why a prompt gave no pair.{}\n",
        summary.num_pairs,
        if with_votes { "; where enough people voted, their majority decides which answer is chosen" } else { "" },
        match summary.num_pairs {
            0 => "There is no pair yet, so there is nothing to train on and no configuration for it.",
            _ => "The configuration `default` is ready for training.",
        },
        summary.num_records,
        if with_votes { " `votes` has every vote." } else { "" }
    )
}

fn title_language(input: &DatasetInput<'_>) -> String {
    let name = input.language.name.split_whitespace().collect::<Vec<_>>().join(" ");
    let codes: Vec<String> = match input.language.code.as_str() {
        "" => input.language.card_codes.iter().map(|code| inline_code(code)).collect(),
        code => vec![inline_code(code)],
    };
    if codes.is_empty() { name } else { format!("{name} ({})", codes.join(", ")) }
}

fn how_it_was_made(input: &DatasetInput<'_>, options: &DatasetOptions, summary: &DatasetSummary) -> String {
    let lock = input.lock;
    let in_words = |model: &ModelRecord| {
        let kind = if model.is_reward { ", reward model" } else { "" };
        format!("{} ({}, {}{kind})", inline_code(&model.name), inline_code(&model.dtype), weights_in_words(model))
    };
    let named = |models: &[ModelRecord]| match models {
        [] => "none".to_string(),
        models => models.iter().map(in_words).collect::<Vec<_>>().join("; "),
    };
    let unreliable = if summary.pairing.drop_unreliable { "left out" } else { "kept" };
    let mut rows = vec![
        ("tool", format!("Pairwright {}", lock.tool_version)),
        ("made", day(&lock.created).to_string()),
        ("seed", lock.seed.to_string()),
        ("generator", named(&lock.generators)),
        ("judge", named(&lock.judges)),
        ("system turn", system_turn(input)),
        ("thinking of the generator", thinking(input)),
        ("rubric (SHA-256)", lock.rubric_sha256.as_deref().map_or("none".to_string(), inline_code)),
        ("source file (SHA-256)", inline_code(&lock.source.sha256)),
        ("smallest margin of a pair", summary.pairing.margin.to_string()),
        ("unreliable verdicts", unreliable.to_string()),
    ];
    if let Some(weights) = &options.aspect_weights {
        let weight = |aspect: &AspectWeight| format!("{} {}", inline_code(&aspect.name), aspect.weight);
        let all: Vec<String> = weights.aspects.iter().map(weight).collect();
        rows.push(("weights of the aspects, fitted to people's votes", all.join(", ")));
    }
    if !lock.accepted_changes.is_empty() {
        let changes: Vec<String> = lock.accepted_changes.iter().map(|change| inline_code(change)).collect();
        rows.push(("changed on the way", changes.join(", ")));
    }
    let written = match lock.parameters.contains_key("rationales") {
        true => "the rationales and ratings that judges also wrote, in `raw`, have no part in it",
        false => "no text is generated",
    };
    let table: String = rows.iter().map(|(name, value)| format!("| {name} | {value} |\n")).collect();
    format!(
        "## How it was made\n\nThe judge rates each answer on its own, so there is no first or second place to favour. A rating \
         is the expectation of the labels 1 to 5 under the judge's probabilities; {written}. Of all answers to a \
         prompt the best and the worst are paired; who wrote an answer plays no part. The lock of the run is in the footer \
         of every Parquet file, under the key `pairwright`.\n\n| | |\n|---|---|\n{table}"
    )
}

/// Where the generator found the system text.
fn system_turn(input: &DatasetInput<'_>) -> String {
    let prompts = generate_parameter(input, "system_prompts");
    let name = prompts.and_then(|prompts| prompts.get("name")?.as_str());
    let lengths = generate_parameter(input, "length_guidance").map(|_| "how long people's answers are".to_owned());
    let parts: Vec<String> = name.map(inline_code).into_iter().chain(lengths).collect();
    match (parts.join(" and "), input.lock.generators.iter().any(|model| model.merges_system)) {
        (parts, _) if parts.is_empty() => "none".to_string(),
        (parts, false) => parts,
        (parts, true) => format!("{parts}, at the head of the user's turn: the chat template has no system role"),
    }
}

/// What the generator's template was told of thinking, and how many of its answers came after some.
fn thinking(input: &DatasetInput<'_>) -> String {
    let told = generate_parameter(input, "thinking").and_then(Value::as_str).unwrap_or("as its template has it");
    match input.candidates.iter().filter(|candidate| candidate.thinking.is_some()).count() {
        0 => told.to_string(),
        count => format!("{told}; {count} answers came after some, kept in `raw` and not rated"),
    }
}

fn generate_parameter<'a>(input: &'a DatasetInput<'_>, name: &str) -> Option<&'a Value> {
    input.lock.parameters.get("generate")?.get(name).filter(|value| !value.is_null())
}

fn weights_in_words(model: &ModelRecord) -> &'static str {
    use crate::provenance::WeightsKind::{Dummy, EmbeddedDemo, Gguf, Safetensors};
    match model.weights {
        Safetensors => "safetensors",
        Gguf => "GGUF",
        Dummy => "random weights",
        EmbeddedDemo => "demonstration model",
    }
}

fn ratings(summary: &DatasetSummary) -> String {
    let mut text = String::from("## Ratings\n\n| answers by | 1 | 2 | 3 | 4 | 5 |\n|---|---:|---:|---:|---:|---:|\n");
    for (source, bins) in &summary.rating_histogram {
        let cells: Vec<String> = bins.iter().map(u64::to_string).collect();
        text += &format!("| {source} | {} |\n", cells.join(" | "));
    }
    text += "\nRatings are continuous and rounded for this table.\n";
    text += &headline(summary);
    if let Some(lengths) = &summary.lengths {
        text += &format!(
            "\nCharacters of chosen answers: {}; of rejected answers: {}.\n",
            quantiles_in_words(&lengths.chosen, 0),
            quantiles_in_words(&lengths.rejected, 0)
        );
    }
    text
}

/// What a reader should know before training, with numbers and 95 % intervals (Wilson).
fn headline(summary: &DatasetSummary) -> String {
    let human = summary.chosen_human_share.and_then(|share| share_of(share, summary.num_mixed_pairs));
    let longer = summary.lengths.and_then(|lengths| share_of(lengths.chosen_longer_share, summary.num_pairs));
    let unreliable = summary.judge_health.as_ref();
    let unreliable = unreliable.and_then(|health| share_of(health.unreliable_share, health.num_verdicts));
    let rows: String = [
        ("human answer chosen, of pairs of a human and a model answer", human),
        ("longer answer chosen, of all pairs", longer),
        ("unreliable, of all verdicts", unreliable),
    ]
    .iter()
    .filter_map(|(what, share)| Some(format!("| {what} | {} |\n", share_in_words(share.as_ref()?))))
    .collect();
    if rows.is_empty() { rows } else { format!("\n| | share |\n|---|---|\n{rows}") }
}

/// What the judges' tests with known answers say.
fn known_in_words(summary: &DatasetSummary, languages: &str) -> String {
    let totals = summary.judge_health.as_ref().map(|health| health.known_totals.as_slice()).unwrap_or_default();
    if totals.is_empty() {
        return format!("The judge was not tested for {languages}.");
    }
    let (tested, blind): (Vec<_>, Vec<_>) = totals.iter().partition(|total| !total.is_at_chance());
    let named = |total: &&KnownTotal| {
        let KnownTotal { judge, language, accuracy } = total;
        let language = if language.is_empty() { "the source's language" } else { language };
        format!(
            "{} in {} {:.0} % (n = {}, 95 %: {:.0} to {:.0} %)",
            inline_code(judge),
            inline_code(language),
            100.0 * accuracy.value,
            accuracy.n,
            100.0 * accuracy.low,
            100.0 * accuracy.high
        )
    };
    let list = |totals: &[&KnownTotal]| totals.iter().take(MAX_TOTALS).map(named).collect::<Vec<_>>().join("; ");
    let mut text = "Told a person's answer from the same one spoilt: ".to_string();
    text += &if tested.is_empty() { "no judge better than a coin".to_string() } else { list(&tested) };
    if !blind.is_empty() {
        text += &format!(". **No better than a coin**: {}", list(&blind));
        if blind.len() > MAX_TOTALS {
            text += &format!(" and {} more", blind.len() - MAX_TOTALS);
        }
    }
    text + "." + &shifts_in_words(summary)
}

/// How far answers can talk the judges into a rating, a sentence each.
pub(super) fn shifts_in_words(summary: &DatasetSummary) -> String {
    let shifts = summary.judge_health.as_ref().map(|health| health.known_shifts.as_slice()).unwrap_or_default();
    shifts.iter().map(|shift| format!(" Of {}, {}.", inline_code(&shift.judge), shift.in_words())).collect()
}

fn limits(input: &DatasetInput<'_>, summary: &DatasetSummary, with_votes: bool) -> String {
    let languages = if input.language.card_codes.len() > 1 { "these languages" } else { "this language" };
    let mut known = vec![
        format!(
            "{} {}",
            match with_votes {
                true => "Labels whose source is `judge` are a model's opinion, which no person has confirmed.",
                false => "The labels are a model's opinion, and no person has confirmed a pair.",
            },
            known_in_words(summary, languages)
        ),
        "Checks of texts flag and rarely drop (`generation_flags`, `row_flags` in `raw`); they miss some and hit some wrongly.".to_string(),
        format!(
            "Length: {} of {} prompts have more than {TRL_MAX_LENGTH} characters that are not white space, and in {} pairs prompt \
             and longer answer have so together. TRL's `max_length` is {TRL_MAX_LENGTH} tokens by default: longer pairs are \
             cut, and DPO leaves out rows whose prompt alone fills it. How many tokens a character takes depends on your \
             tokenizer.",
            summary.num_long_prompts, summary.num_pairs, summary.num_long_pairs
        ),
    ];
    if summary.num_truncated_answers > 0 {
        known.push(format!("{} answers in pairs were cut at the token limit.", summary.num_truncated_answers));
    }
    if summary.same_model_judge {
        known.push("The judge is the model that wrote answers, and models prefer their own.".to_string());
    }
    // First what matters most.
    known.splice(
        0..0,
        models_for_show(input.lock).into_iter().map(|(role, model)| {
            format!(
                "**The {role} {} is for show ({}): this dataset demonstrates the tool; train nothing on it.**",
                inline_code(&model.name),
                weights_in_words(model)
            )
        }),
    );
    format!("## Known limits\n\n{}\n", known.iter().map(|line| format!("- {line}")).collect::<Vec<_>>().join("\n"))
}

fn columns(options: &DatasetOptions, with_votes: bool) -> String {
    let mut text = String::from("## Columns\n");
    for (config, columns) in tables(options, with_votes) {
        text += &format!("\n`{config}`:\n\n| column | type | |\n|---|---|---|\n");
        for (name, data_type, note) in columns {
            text += &format!("| `{name}` | `{}` | {note} |\n", type_in_words(&data_type));
        }
    }
    text
}

fn loading(summary: &DatasetSummary, with_votes: bool) -> String {
    let mut lines = String::new();
    if summary.num_pairs > 0 {
        lines += "pairs = load_dataset(\"path/or/hub-id\")          # ready for TRL\n";
    }
    lines += "raw = load_dataset(\"path/or/hub-id\", \"raw\")     # every prompt, answer and verdict\n";
    if with_votes {
        lines += "votes = load_dataset(\"path/or/hub-id\", \"votes\") # who said what\n";
    }
    let training = if summary.num_pairs > 0 { training(summary) } else { String::new() };
    format!("## Loading\n\n```python\nfrom datasets import load_dataset\n\n{lines}```\n{training}")
}

fn training(summary: &DatasetSummary) -> String {
    let eval = if summary.num_test_pairs > 0 { ", eval_dataset=pairs[\"test\"]" } else { "" };
    format!(
        "\nDPO:\n\n```python\n\
         from trl import DPOConfig, DPOTrainer\n\ntrainer = DPOTrainer(\n    model=\"your-model\",\n    args=DPOConfig(output_dir=\"dpo\"),\n    \
         train_dataset=pairs[\"train\"]{eval},\n)\ntrainer.train()\n```\n\nORPO (an experimental trainer in newer TRL \
         versions):\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\nfrom trl.experimental.orpo import ORPOConfig, ORPOTrainer\n\n\
         trainer = ORPOTrainer(\n    model=AutoModelForCausalLM.from_pretrained(\"your-model\"),\n    args=ORPOConfig(output_dir=\"orpo\"),\n    train_dataset=pairs[\"train\"]{eval},\n    \
         processing_class=AutoTokenizer.from_pretrained(\"your-model\"),\n)\ntrainer.train()\n```\n"
    )
}

fn licence(input: &DatasetInput<'_>) -> String {
    let rows: String = licence_parts(input)
        .into_iter()
        .map(|(role, name, license)| {
            format!("| {role} | {name} | {} |\n", license.map_or("unknown".to_string(), inline_code))
        })
        .collect();
    format!(
        "## Licences\n\nThe terms of the source and of both models apply to what was made with them.\n\n| | | licence |\n\
         |---|---|---|\n{rows}"
    )
}
