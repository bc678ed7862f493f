//! `pairwright models list`: a table of the models that have what is wanted.
//! Knows flags and the table's layout; choosing is done by [`crate::registry`].

use std::io::Write;

use serde_json::json;

use super::ChoiceArgs;
use crate::data::language::{self, MatchedBy};
use crate::generate::Ending;
use crate::model::arch;
use crate::registry::{ALLOWANCE_BYTES, Fit, LicenceKind, ModelEntry, PRECISIONS, Role, Selection};

/// Arguments of `models list`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Only models whose makers name this language: Yoruba, yo, yor
    #[arg(long, value_name = "LANGUAGE")]
    language: Option<String>,
    #[command(flatten)]
    choice: ChoiceArgs,
}

/// Prints the table, largest model first.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    let choice = &args.choice;
    let registry = choice.registry.read()?;
    let selection = registry.select(&choice.wanted(args.language.as_deref()))?;
    let mut out = std::io::stdout().lock();
    if choice.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&as_json(&selection)?)?)?;
        return Ok(Ending::Completed);
    }
    table(&mut out, &selection, choice.memory.is_some())?;
    writeln!(out, "\n{} of {} models", selection.models.len(), registry.models().len())?;
    notes(&mut out, &selection, choice.memory)?;
    Ok(Ending::Completed)
}

/// Whether the family is one of this build's and the entry is not known to fail.
pub(super) fn runs_here(entry: &ModelEntry) -> bool {
    entry.supported && arch::families().any(|family| family == entry.family)
}

/// `8.20B`, `70.6B`, or millions below a billion: three digits.
pub(super) fn billions(parameters: u64) -> String {
    let (number, unit) = match parameters as f64 {
        few if few < 999.5e6 => (few / 1e6, "M"),
        many => (many / 1e9, "B"),
    };
    if number < 9.995 { format!("{number:.2}{unit}") } else { format!("{number:.1}{unit}") }
}

/// Gigabytes of 10⁹ bytes, or megabytes below one.
pub(in crate::cli) fn gigabytes(bytes: u64) -> String {
    match bytes as f64 {
        few if few < 0.95e9 => format!("{:.1} MB", few / 1e6),
        many => format!("{:.1} GB", many / 1e9),
    }
}

/// `8K`, or the number where it is no multiple of 1024.
pub(super) fn tokens(count: u64) -> String {
    if count.is_multiple_of(1024) { format!("{}K", count / 1024) } else { count.to_string() }
}

/// The word for a role.
pub(super) fn role(role: Role) -> &'static str {
    match role {
        Role::Generator => "generator",
        Role::Judge => "judge",
        Role::Reward => "reward",
    }
}

fn licence(entry: &ModelEntry) -> String {
    match entry.licence_kind {
        LicenceKind::Open => entry.licence.clone(),
        LicenceKind::Restricted => format!("{} (restricted)", entry.licence),
        LicenceKind::NonCommercial => format!("{} (non-commercial)", entry.licence),
        LicenceKind::Unknown => format!("{} (read it first)", entry.licence),
    }
}

fn languages(entry: &ModelEntry) -> String {
    match (entry.languages.len(), entry.names_all_languages) {
        (0, _) => "unnamed".to_owned(),
        (count, true) => count.to_string(),
        (count, false) => format!("{count}+"),
    }
}

fn table(out: &mut impl Write, selection: &Selection<'_>, fits: bool) -> std::io::Result<()> {
    let memory = if fits { "fits at" } else { "bf16" };
    let mut rows = vec![["model", "params", "context", memory, "languages", "roles", "licence"].map(str::to_owned)];
    for (entry, fit) in &selection.models {
        let mark = if runs_here(entry) { "" } else { " *" };
        let memory = match fit {
            Some(Fit { precision, total_bytes, .. }) => format!("{} {}", precision.name, gigabytes(*total_bytes)),
            None => gigabytes(PRECISIONS[0].bytes(entry.parameters)),
        };
        rows.push([
            format!("{}{mark}", entry.name),
            billions(entry.parameters),
            tokens(entry.context),
            memory,
            languages(entry),
            entry.roles.iter().map(|given| role(*given)).collect::<Vec<_>>().join(", "),
            licence(entry),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    for row in &rows {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
            1..=4 => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        });
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// What the table cannot say in its cells.
fn notes(out: &mut impl Write, selection: &Selection<'_>, fits: Option<usize>) -> std::io::Result<()> {
    if let Some(budget) = fits {
        writeln!(
            out,
            "fits: weights and {} for KV cache and work, within {}; the precision is the widest that does",
            gigabytes(ALLOWANCE_BYTES),
            gigabytes(budget as u64)
        )?;
    }
    if selection.matched_by == Some(MatchedBy::MacroLanguage) {
        let names = selection
            .languages
            .iter()
            .map(|code| format!("{} ({code})", language::english_name(code).unwrap_or("unknown")));
        writeln!(out, "language taken for: {}", names.collect::<Vec<_>>().join(", "))?;
    }
    if !selection.perhaps.is_empty() {
        let names: Vec<&str> = selection.perhaps.iter().map(|entry| entry.name.as_str()).collect();
        writeln!(out, "may know it too, since they speak of more languages than they name: {}", names.join(", "))?;
    }
    if selection.models.iter().any(|(entry, _)| !runs_here(entry)) {
        writeln!(out, "* does not run in this version; `pairwright models show NAME` says why")?;
    }
    Ok(())
}

fn as_json(selection: &Selection<'_>) -> serde_json::Result<serde_json::Value> {
    let one = |entry: &ModelEntry, fit: &Option<Fit>| -> serde_json::Result<serde_json::Value> {
        let mut value = serde_json::to_value(entry)?;
        value["card"] = entry.card_url().into();
        value["runs_here"] = runs_here(entry).into();
        let bytes = PRECISIONS.map(|precision| (precision.name.to_owned(), json!(precision.bytes(entry.parameters))));
        value["weight_bytes"] = serde_json::Value::Object(bytes.into_iter().collect());
        value["fit"] = serde_json::to_value(fit)?;
        Ok(value)
    };
    let models = selection.models.iter().map(|(entry, fit)| one(entry, fit)).collect::<Result<Vec<_>, _>>()?;
    let perhaps: Vec<&str> = selection.perhaps.iter().map(|entry| entry.name.as_str()).collect();
    Ok(
        json!({"models": models, "languages": selection.languages, "perhaps": perhaps, "allowance_bytes": ALLOWANCE_BYTES}),
    )
}
