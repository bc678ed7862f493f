//! `pairwright bench compare A B`: two models on the same prompts. Knows flags and the table's layout; the tests are in
//! [`crate::bench::languages::compare`].

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::exit::UsageError;
use crate::bench::languages::compare::contrasts;
use crate::bench::languages::folder::BenchDir;
use crate::bench::languages::rows;
use crate::bench::languages::rows::RowValues;
use crate::generate::Ending;
use crate::quality::EnglishWords;

/// Arguments of `bench compare`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The first model, as the bench names it
    first: String,
    /// The second model; differences are first minus second
    second: String,
    /// The bench's folder. Given twice, the second model is looked for in the second one: another day's, machine's or version's
    #[arg(long = "in", value_name = "DIR", required = true, num_args = 1)]
    dirs: Vec<PathBuf>,
    /// A JSON object a line in place of the table
    #[arg(long)]
    json: bool,
}

/// Tests and tells.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    let (Some(first), Some(second), true) = (args.dirs.first(), args.dirs.last(), args.dirs.len() <= 2) else {
        return Err(
            UsageError("--in names more than two folders\nhint: give one, or one for each model".to_owned()).into()
        );
    };
    let (first, second) = (rows_of(first, &args.first)?, rows_of(second, &args.second)?);
    let tests = contrasts(&first.1, &second.1);
    if tests.is_empty() {
        let message = "the two have no language in which both answered two of the same prompts\nhint: bench both in one call, or with the same \
                       --prompts, --n and --seed";
        return Err(UsageError(message.to_owned()).into());
    }
    if args.json {
        for test in &tests {
            super::print_line(&serde_json::to_string(test)?)?;
        }
        return Ok(Ending::Completed);
    }
    let head = ["language", "metric", "first", "second", "difference", "95 % interval", "n", "p", "corrected"];
    let mut table: Vec<Vec<String>> = vec![head.map(str::to_owned).to_vec()];
    for test in &tests {
        let mut row = vec![test.language.clone(), test.metric.to_owned()];
        row.extend([test.first, test.second].map(|value| format!("{value:.3}")));
        row.push(format!("{:+.3}", test.difference));
        row.push(format!("{:+.3} to {:+.3}", test.low, test.high));
        row.push(test.num_rows.to_string());
        row.extend([test.p, test.p_corrected].map(|p| format!("{p:.4}")));
        table.push(row);
    }
    let mut out = std::io::stdout();
    writeln!(out, "first: {}\nsecond: {}\n", first.0, second.0)?;
    write!(out, "{}", super::aligned(&table))?;
    writeln!(
        out,
        "\npaired by prompt: bootstrap interval, two-sided p of the randomisation test, and the same corrected for these {} tests (Holm)",
        tests.len()
    )?;
    Ok(Ending::Completed)
}

/// A model's rows in every language of a bench, with its full name. A name may be given up to where it is clear.
fn rows_of(dir: &Path, name: &str) -> anyhow::Result<(String, BTreeMap<String, Vec<RowValues>>)> {
    let mut languages = BTreeMap::new();
    let mut models: Vec<String> = Vec::new();
    for (language, run) in BenchDir::new(dir).runs()? {
        let loaded = run.load()?;
        let of_all = rows(&run, &loaded, &EnglishWords::default())?;
        models.extend(of_all.keys().cloned());
        languages.insert(language, of_all);
    }
    models.sort();
    models.dedup();
    let begins: Vec<&String> = models.iter().filter(|model| model.starts_with(name)).collect();
    let found = models.iter().find(|model| *model == name).or(match begins.as_slice() {
        [one] => Some(*one),
        _ => None,
    });
    let Some(found) = found.cloned() else {
        let message = format!("no model `{name}` in {}\nhint: there are {}", dir.display(), models.join(", "));
        return Err(UsageError(message).into());
    };
    let own = languages.into_iter().filter_map(|(language, mut models)| Some((language, models.remove(&found)?)));
    let own = own.collect();
    Ok((found, own))
}
