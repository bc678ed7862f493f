//! The texts that a bundle brings along for people: what to type on the sealed machine, and under which licences its parts stand.
//! Knows names of items; nothing of a file's content.

use std::fmt::Write;

use super::create::Output;
use super::manifest::{Item, Kind, inside};
use super::source::SourceFile;

/// What to type.
pub const RUN_FILE: &str = "RUN.md";
/// Which licence is whose.
pub const LICENCES_FILE: &str = "LICENCES.md";
/// This program's licence, which travels with it.
const OWN_LICENCE: &str = include_str!("../../LICENSE");

/// All of them.
pub(super) fn files(items: &[Item], files: &[SourceFile], output: &Output) -> Vec<SourceFile> {
    let run = run(items, &prompts(items, files), output);
    let mut files = vec![SourceFile::text(RUN_FILE, run), SourceFile::text(LICENCES_FILE, licences(items))];
    if items.iter().any(|item| item.kind == Kind::Binary) {
        files.push(SourceFile::text("LICENCES/pairwright.txt", OWN_LICENCE.to_owned()));
    }
    files
}

/// The file of prompts that a first run takes: of several the one that trains.
fn prompts(items: &[Item], files: &[SourceFile]) -> String {
    let datasets = items.iter().filter(|item| item.kind == Kind::Dataset);
    let of_datasets =
        files.iter().filter(|file| datasets.clone().any(|item| inside(&file.path, &item.folder).is_some()));
    let tables = of_datasets.map(|file| file.path.as_str()).filter(|path| {
        let extension = path.rsplit('.').next().unwrap_or_default();
        ["parquet", "pq", "jsonl", "ndjson", "csv", "tsv"].contains(&extension)
    });
    let first = tables.min_by_key(|path| (!path.contains("train"), *path));
    first.unwrap_or("PROMPTS").to_owned()
}

/// In the same words for every name of the output, so that equal bundles are equal bytes.
fn run(items: &[Item], prompts: &str, output: &Output) -> String {
    let program = if items.iter().any(|item| item.kind == Kind::Binary) { "bin/pairwright" } else { "pairwright" };
    let folder = |kind: Kind| items.iter().filter(move |item| item.kind == kind).map(|item| item.folder.as_str());
    let mut text = String::from("# What to type on the sealed machine\n\nNothing here needs a network.\n\n");
    if let Output::Tar { part_bytes, .. } = output {
        text += "```sh\n";
        if part_bytes.is_some() {
            text += "sha256sum -c NAME.tar.sha256     # the parts, as they were written\n";
            text += "cat NAME.tar.??? > NAME.tar      # any tool that joins files will do\n";
        }
        text += "tar xf NAME.tar                  # makes the folder `bundle`\n```\n\n";
        text += "(`pairwright bundle verify` and `bundle install` also take the tar, or its first part, as it is.)\n\n";
    }
    text += "In the bundle's folder:\n\n```sh\nsha256sum -c SHA256SUMS                          # every file is as it was made\n";
    let _ = writeln!(text, "{program} bundle verify .                # the same, and that nothing else is in it");
    let _ =
        writeln!(text, "{program} bundle install . --to ~/pairwright    # or --hf-cache, where Python programs look");
    text += "```\n\nThen:\n\n```sh\ncd ~/pairwright\n";
    let _ = writeln!(text, "{program} doctor                         # what this machine has, and what is missing");
    for model in folder(Kind::Model) {
        let _ = writeln!(text, "{program} models verify {model} --deep");
    }
    let models: Vec<&str> = folder(Kind::Model).collect();
    let generator = models.first().unwrap_or(&"models/WRITER");
    let judge = models.get(1).or(models.first()).unwrap_or(&"models/RATER");
    let languages = items.iter().flat_map(|item| &item.languages).next();
    let language = languages.and_then(|name| name.split(" (").next()).unwrap_or("LANGUAGE");
    let _ = writeln!(
        text,
        "{program} make --prompts {prompts} --language \"{language}\" \\\n    --generator {generator} --judge {judge} --out runs/first\n```"
    );
    text
}

fn licences(items: &[Item]) -> String {
    let mut text = String::from(
        "# Licences\n\nAs each part's own card states it; the texts lie in the parts' folders. Read those that you do not know.\n\n\
         | part | of | licence |\n|---|---|---|\n",
    );
    for item in items {
        let of = match (&item.repo, &item.commit) {
            (Some(repo), Some(commit)) => format!("{repo} at {commit}"),
            (Some(repo), None) => repo.clone(),
            (None, _) => "not of the hub".to_owned(),
        };
        let licence = item.licence.as_deref().unwrap_or("no card states one: ask its makers");
        let _ = writeln!(text, "| `{}` | {of} | {licence} |", item.folder);
    }
    text
}
