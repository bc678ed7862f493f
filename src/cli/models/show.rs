//! `pairwright models show`: one entry of the list in full, and how to get the model.
//! Knows flags and layout; opens no connection and reads no model.

use std::io::Write;

use super::RegistryArgs;
use super::list::{billions, gigabytes, role, runs_here, tokens};
use crate::data::language;
use crate::generate::Ending;
use crate::model::arch;
use crate::registry::{
    ALLOWANCE_BYTES, AyaData, KV_CACHE_BYTES, LicenceKind, ModelEntry, PRECISIONS, SystemPrompt, Thinking,
};

/// Arguments of `models show`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// A name of `models list`, or a hub id: qwen3-8b, Qwen/Qwen3-8B
    name: String,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Prints every fact of the entry.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    let registry = args.registry.read()?;
    let entry = registry.find(&args.name)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(entry)?)?;
        return Ok(Ending::Completed);
    }
    writeln!(out, "{}", entry.name)?;
    for (label, value) in facts(entry) {
        writeln!(out, "  {label:<14} {value}")?;
    }
    writeln!(out, "\nSources")?;
    for source in &entry.sources {
        writeln!(out, "  {}: {}", source.facts, source.url)?;
    }
    if !entry.unverified.is_empty() {
        writeln!(out, "  written from memory, in no source: {}", entry.unverified.join(", "))?;
    }
    writeln!(out, "\nHow to get it\n{}", instructions(entry))?;
    Ok(Ending::Completed)
}

/// Label and value of each line; values that no source backs are marked.
fn facts(entry: &ModelEntry) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("card", entry.card_url()),
        (
            "commit",
            entry.commit.clone().unwrap_or_else(|| "not known to this list: note the one that you get".to_owned()),
        ),
        ("family", format!("{}{}; {}", entry.family, mark(entry, "family"), verdict(entry))),
        ("roles", entry.roles.iter().map(|given| role(*given)).collect::<Vec<_>>().join(", ")),
        ("parameters", parameters(entry)),
        ("context", format!("{} tokens{}", tokens(entry.context), mark(entry, "context"))),
        ("memory", memory(entry)),
        ("licence", licence(entry)),
        ("languages", languages(entry)),
        ("system prompt", format!("{}{}", system_prompt(entry.system_prompt), mark(entry, "system_prompt"))),
        ("thinking", format!("{}{}", thinking(entry.thinking), mark(entry, "thinking"))),
        ("Aya data", format!("{}{}", aya_data(entry.aya_data), mark(entry, "aya_data"))),
    ];
    let optional = [("terms", &entry.terms), ("notes", &entry.notes)];
    lines.extend(optional.into_iter().filter_map(|(name, text)| Some((name, text.clone()? + mark(entry, name)))));
    lines
}

/// What follows a value that was written from memory.
fn mark(entry: &ModelEntry, field: &str) -> &'static str {
    if entry.is_unverified(field) { " (unverified)" } else { "" }
}

fn verdict(entry: &ModelEntry) -> String {
    if runs_here(entry) {
        "runs here".to_owned()
    } else if entry.supported {
        format!("not in this version, which runs {}", arch::families().collect::<Vec<_>>().join(", "))
    } else {
        "does not run here, see the notes".to_owned()
    }
}

fn parameters(entry: &ModelEntry) -> String {
    let all = format!("{}{}", billions(entry.parameters), mark(entry, "parameters"));
    match entry.active_parameters {
        Some(active) => {
            format!("{all}, of which a token passes {}{}", billions(active), mark(entry, "active_parameters"))
        }
        None => all,
    }
}

fn memory(entry: &ModelEntry) -> String {
    let one = |precision: &crate::registry::Precision| {
        format!("{} {}", precision.name, gigabytes(precision.bytes(entry.parameters)))
    };
    let computed = PRECISIONS.iter().map(one).collect::<Vec<_>>().join(" · ");
    let stated = entry.stated_memory.as_ref().map(|text| format!("; its makers state {text}")).unwrap_or_default();
    format!(
        "{computed} (computed from the parameters), and {} besides, {} of it for the KV cache{stated}",
        gigabytes(ALLOWANCE_BYTES),
        gigabytes(KV_CACHE_BYTES)
    )
}

fn licence(entry: &ModelEntry) -> String {
    let kind = match entry.licence_kind {
        LicenceKind::Open => "any use",
        LicenceKind::Restricted => "with terms of use: read them",
        LicenceKind::NonCommercial => "NON-COMMERCIAL use only",
        LicenceKind::Unknown => "its makers do not say what is allowed: ask them",
    };
    format!("{}{}; {kind}{}", entry.licence, mark(entry, "licence"), mark(entry, "licence_kind"))
}

fn languages(entry: &ModelEntry) -> String {
    let named = entry.languages.iter().map(|code| match language::english_name(code) {
        Some(name) => format!("{name} ({code})"),
        None => code.clone(),
    });
    let mut parts = vec![named.collect::<Vec<_>>().join(", ") + mark(entry, "languages")];
    parts.extend(entry.languages_note.as_ref().map(|note| format!("{note}{}", mark(entry, "languages_note"))));
    if !entry.names_all_languages && !entry.languages.is_empty() {
        parts.push("not all are named".to_owned());
    }
    parts.retain(|part| !part.is_empty());
    format!("as stated by its makers: {}", parts.join("; "))
}

fn system_prompt(given: SystemPrompt) -> &'static str {
    match given {
        SystemPrompt::Yes => "a turn of its own",
        SystemPrompt::Merged => "goes into the first user turn",
        SystemPrompt::No => "none",
        SystemPrompt::Unknown => "not known",
    }
}

fn thinking(given: Thinking) -> &'static str {
    match given {
        Thinking::None => "does not think aloud",
        Thinking::Switch => "thinks aloud, and can be told not to",
        Thinking::Always => "always thinks aloud",
        Thinking::Unknown => "not known",
    }
}

fn aya_data(given: AyaData) -> &'static str {
    match given {
        AyaData::Yes => "in its training: its answers to Aya prompts are contaminated",
        AyaData::No => "not in its training, say its makers",
        AyaData::Unknown => "its makers do not say",
    }
}

/// Commands for a connected machine and for the way from it. Nothing of it is done here.
fn instructions(entry: &ModelEntry) -> String {
    let revision = entry.commit.as_ref().map(|commit| format!(" --revision {commit}")).unwrap_or_default();
    format!(
        "  On a machine with a connection, by a build with the feature `hub`:\n    \
             pairwright pull {name}\n  \
           or with Python (pip install huggingface_hub; for a model behind a form, accept it on the card's\n  \
           page and run `hf auth login`):\n    \
             hf download {}{revision} --local-dir {name} --exclude \"*.bin\" \"*.pt\" \"*.pth\" \"original/*\"\n  \
           Copy the folder, files instead of links:\n    \
             rsync -aL {name} USER@MACHINE:models/    (or cp -aL {name} /media/DISK/)\n  \
           Where it shall run:\n    \
             pairwright models verify models/{name} --deep",
        entry.hub_id,
        name = entry.name
    )
}
