//! `pairwright models suggest`: which models to try first for a language, and why.
//! Knows flags, the table's layout and where bench figures lie; ranking is done by [`crate::registry`].

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::ChoiceArgs;
use super::list::{billions, gigabytes};
use crate::bench::table::{self, Figure};
use crate::cli::exit::UsageError;
use crate::data::language;
use crate::generate::Ending;
use crate::model::arch;
use crate::registry::{ALLOWANCE_BYTES, Measured, RANKING, Search, Suggestion, Support};

/// The table of figures in a bench's folder.
const TABLE: &str = "figures.parquet";

/// Arguments of `models suggest`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The language: Yoruba, yo, yor
    #[arg(long, value_name = "LANGUAGE")]
    language: String,
    /// Figures of `pairwright bench --languages`: its folder, or the table in it; may be given several times
    #[arg(long, value_name = "FILE|DIR")]
    results: Vec<PathBuf>,
    #[command(flatten)]
    choice: ChoiceArgs,
}

/// Prints models, best first, with their reasons.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    let registry = args.choice.registry.read()?;
    let wanted = args.choice.wanted(Some(&args.language));
    let mut search = Search { wanted, families: arch::families().collect(), measured: BTreeMap::new() };
    // What the language is taken for decides which figures are of it.
    let (_, codes) = registry.suggest(&search)?;
    for path in &args.results {
        for figure in figures(path)? {
            note(&mut search.measured, figure, &codes);
        }
    }
    let (suggestions, codes) = registry.suggest(&search)?;
    let mut out = std::io::stdout().lock();
    if args.choice.json {
        let value = json!({"language": args.language, "taken_for": codes, "allowance_bytes": ALLOWANCE_BYTES, "suggestions": suggestions});
        writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?;
        return Ok(Ending::Completed);
    }
    let names = codes.iter().map(|code| format!("{} ({code})", language::english_name(code).unwrap_or("unknown")));
    writeln!(out, "For {}:", names.collect::<Vec<_>>().join(", "))?;
    if suggestions.is_empty() {
        writeln!(out, "  nothing in the list fits; try more --memory, --licence any, or another --role")?;
    }
    suggestions.iter().try_for_each(|one| describe(&mut out, one))?;
    notes(&mut out, args, &suggestions)?;
    Ok(Ending::Completed)
}

fn describe(out: &mut impl Write, one: &Suggestion<'_>) -> std::io::Result<()> {
    let fit = one.fit.map(|fit| format!(", {} {}", fit.precision.name, gigabytes(fit.total_bytes))).unwrap_or_default();
    writeln!(out, "{:>3}. {} ({}{fit})", one.rank, one.model.name, billions(one.model.parameters))?;
    one.reasons.iter().try_for_each(|reason| writeln!(out, "       {reason}"))?;
    if !one.unknown.is_empty() {
        writeln!(out, "       not known: {}", one.unknown.join("; "))?;
    }
    Ok(())
}

fn notes(out: &mut impl Write, args: &Args, suggestions: &[Suggestion<'_>]) -> std::io::Result<()> {
    writeln!(
        out,
        "\nRanked by what makers state, then by what was measured ({}), then licence and size. What makers state is no promise of quality:\n\
         try the first ones with `pairwright bench --languages`.",
        RANKING.map(|(metric, _)| metric).join(", ")
    )?;
    if args.results.is_empty() {
        writeln!(out, "No figures were given (--results).")?;
    } else if suggestions.iter().all(|one| one.measured.is_empty()) {
        writeln!(out, "The figures that were given are of other models or other languages.")?;
    }
    if suggestions.iter().any(|one| one.support == Support::Perhaps)
        && suggestions.iter().all(|one| one.support == Support::Perhaps)
    {
        writeln!(out, "No model states this language within these limits; all of these may know it.")?;
    }
    Ok(())
}

/// The figures of a table, or of the one in a folder.
fn figures(path: &Path) -> anyhow::Result<Vec<Figure>> {
    let file = if path.is_dir() { path.join(TABLE) } else { path.to_owned() };
    if !file.exists() {
        let message = format!(
            "--results {}: there is no {}\nhint: give the folder that `pairwright bench --languages … --out DIR` wrote, or its table",
            path.display(),
            file.display()
        );
        return Err(UsageError(message).into());
    }
    Ok(table::read(&file)?)
}

/// Keeps a figure if it is of the language and ranks; the latest of each metric.
fn note(measured: &mut BTreeMap<String, Vec<Measured>>, figure: Figure, codes: &[String]) {
    let Some((_, more_is_better)) = RANKING.iter().find(|(metric, _)| *metric == figure.metric) else { return };
    let broad = |code: &str| language::broad_code("", code);
    let is_of =
        |code: &String| *code == figure.language || broad(code).is_some_and(|own| broad(&figure.language) == Some(own));
    if !codes.iter().any(is_of) {
        return;
    }
    let figures = measured.entry(figure.model.clone()).or_default();
    let newer = Measured {
        metric: figure.metric,
        unit: figure.unit,
        value: figure.value,
        low: figure.low,
        high: figure.high,
        num_rows: figure.num_rows,
        date: figure.date,
        more_is_better: *more_is_better,
    };
    match figures.iter_mut().find(|other| other.metric == newer.metric) {
        Some(other) if other.date <= newer.date => *other = newer,
        Some(_) => {}
        None => figures.push(newer),
    }
}
