//! `pairwright bundle create`: what is on this machine, for one without a network.
//! Knows flags and the overview; collecting and writing are done by [`crate::bundle`].

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::find::{self, Found, gguf_files};
use crate::bundle::create::{Output, Plan};
use crate::bundle::hf_cache::Cache;
use crate::bundle::source::{self, Collected};
use crate::bundle::{Kind, Want, gigabytes, integrity, target};
use crate::cli::arguments::parse_bytes;
use crate::cli::exit::UsageError;
use crate::cli::progress::{Bytes, OutputArgs};
use crate::cli::settings::{date, template_options};
use crate::data::{self, ColumnMap};
use crate::generate::{Ending, card_license, verify::verify};
use crate::provenance::folder_of;

/// The smallest part that is worth a file.
const MIN_PART_BYTES: usize = 64 << 10;

/// What is printed behind the flags.
const AFTER_HELP: &str = "\
Everything is read from this machine's disk; nothing is fetched. Links become files, each model is looked at as by `models verify`, files
that hold tokens or keys are refused, and pickles stay behind. The same input gives the same bytes.

  pairwright bundle create --models org/writer,models/rater --dataset aya.parquet --languages nld,yor -o nl.tar --split 3900M
  pairwright bundle create --want want.json --with-binary -o for-the-ship";

/// Arguments of `bundle create`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct Args {
    /// Models: folders, GGUF files, names of `models list`, ids in the Hugging Face cache (OWNER/NAME, OWNER/NAME@REVISION), or
    /// OWNER/NAME@COMMIT=FOLDER for a folder that holds that commit
    #[arg(long, value_name = "MODEL,…", value_delimiter = ',')]
    models: Vec<String>,
    /// Prompts: a file, a folder of Parquet files, or an id in the Hugging Face cache; may be given several times
    #[arg(long, value_name = "PATH|ID")]
    dataset: Vec<String>,
    /// Only prompts in these languages, by name or code
    #[arg(long, value_name = "LANGUAGE,…", value_delimiter = ',')]
    languages: Vec<String>,
    /// Columns of the prompts by name, where they are not Aya's or usual ones
    #[arg(long, value_name = "KEY=COLUMN,…", requires = "languages")]
    map: Option<String>,
    /// What a sealed machine lacks, as `bundle want` wrote it there; added to the flags above
    #[arg(long, value_name = "FILE")]
    want: Option<PathBuf>,
    /// The bundle: a folder, or a tar if the name ends in .tar
    #[arg(short, long, value_name = "DIR|TAR")]
    out: PathBuf,
    /// Cut the tar into parts of this size, for example 3900M for a disk with FAT32
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    split: Option<usize>,
    /// Bring a program along: this one, or FILE, a build for the other machine
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    with_binary: Option<Option<PathBuf>>,
    /// Show what would go in, and write nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Collects, shows, writes.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    let want = args.want.as_deref().map(Want::read).transpose()?;
    let output = output_of(args)?;
    let cache = find::cache()?;
    let name = args.out.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let slices = Slices(folder_of(&args.out).join(format!(".{name}.slices")));
    let mut collected = Vec::new();
    let wanted_models = want.iter().flat_map(|want| &want.models);
    for model in args.models.iter().chain(wanted_models) {
        collected.push(model_of(model, &cache)?);
    }
    let wanted_languages = want.iter().flat_map(|want| &want.languages);
    let languages: Vec<String> = args.languages.iter().chain(wanted_languages).cloned().collect();
    let map = args.map.as_deref().map(ColumnMap::parse).transpose()?;
    for dataset in args.dataset.iter().chain(want.iter().flat_map(|want| &want.datasets)) {
        collected.push(dataset_of(dataset, &cache, &languages, map.as_ref(), &slices, &args.output)?);
    }
    if let Some(given) = &args.with_binary {
        collected.push(binary_of(given.as_deref(), want.as_ref())?);
    }
    if collected.is_empty() {
        let what = "nothing to put into the bundle\nhint: give --models, --dataset or --want".to_owned();
        return Err(UsageError(what).into());
    }
    let plan = Plan::new(collected, output)?;
    overview(&plan, want.as_ref(), &args.output);
    if args.dry_run {
        return Ok(Ending::Completed);
    }
    let mut bytes = Bytes::new(&args.output, "bundle", plan.content_bytes());
    let written = plan.write(&mut |count| bytes.add(count))?;
    bytes.finish();
    for path in &written.paths {
        args.output.say(&format!("wrote {}", path.display()));
    }
    args.output.say(&format!("check it where it arrives: pairwright bundle verify {}", first_of(&written.paths)));
    if args.output.json {
        let paths: Vec<String> = written.paths.iter().map(|path| path.display().to_string()).collect();
        let line = json!({"paths": paths, "size_bytes": written.size_bytes, "bundle": written.manifest});
        writeln!(std::io::stdout(), "{line}")?;
    }
    Ok(Ending::Completed)
}

fn first_of(paths: &[PathBuf]) -> String {
    paths.first().map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned()).unwrap_or_default()
}

fn output_of(args: &Args) -> anyhow::Result<Output> {
    let is_tar = args.out.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tar"));
    match (is_tar, args.split) {
        (true, split) if split.is_some_and(|split| split < MIN_PART_BYTES) => {
            Err(UsageError("--split: want 64K or more\nhint: 3900M fits a disk with FAT32".to_owned()).into())
        }
        (true, split) => Ok(Output::Tar { path: args.out.clone(), part_bytes: split.map(|split| split as u64) }),
        (false, Some(_)) => {
            let what = "--split cuts a tar, and the output is a folder\nhint: give -o a name that ends in .tar";
            Err(UsageError(what.to_owned()).into())
        }
        (false, None) => Ok(Output::Folder(args.out.clone())),
    }
}

/// A model that is whole: what would not run there does not go there.
fn model_of(text: &str, cache: &Cache) -> anyhow::Result<Collected> {
    let Found { path, identity } = find::find(Kind::Model, text, cache)?;
    integrity::check(&path, false, &mut |_| ())?;
    let verified = verify(&path, &template_options(date(None)?, None, None)?)?.verified;
    Ok(source::model(&path, &gguf_files(&path)?, identity, verified.license)?)
}

/// Where tables are cut, until they are in the bundle.
struct Slices(PathBuf);

impl Slices {
    fn folder(&self, index: usize) -> std::io::Result<PathBuf> {
        let folder = self.0.join(index.to_string());
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    fn count(&self) -> usize {
        std::fs::read_dir(&self.0).map_or(0, Iterator::count)
    }
}

impl Drop for Slices {
    fn drop(&mut self) {
        // Best effort: it lies beside the bundle under a name that says what it is.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn dataset_of(
    text: &str,
    cache: &Cache,
    languages: &[String],
    map: Option<&ColumnMap>,
    slices: &Slices,
    output: &OutputArgs,
) -> anyhow::Result<Collected> {
    let Found { path, identity } = find::find(Kind::Dataset, text, cache)?;
    let root = if path.is_dir() { path.as_path() } else { folder_of(&path) };
    let (tables, beside) = match path.is_dir() {
        false => (vec![path.clone()], Vec::new()),
        true => (tables_of(&path)?, texts_of(&path)?),
    };
    let licence = path.is_dir().then(|| card_license(&path)).flatten();
    if languages.is_empty() {
        integrity::check(&path, false, &mut |_| ())?;
        // What is of the hub goes whole, so that programs that ask for another split find it.
        let files = match identity.is_some() && path.is_dir() {
            true => source::walk(&path)?,
            false => tables.into_iter().chain(beside).collect(),
        };
        return Ok(source::dataset(root, files, identity, &path, licence, Vec::new())?);
    }
    let io = |source| crate::bundle::BundleError::Io { action: "write", path: slices.0.clone(), source };
    let folder = slices.folder(slices.count()).map_err(io)?;
    let slice = data::slice(&tables, map, languages, &folder)?;
    let mut names: Vec<String> = Vec::new();
    for language in slice.languages.iter().flat_map(|found| &found.languages) {
        let name = language.to_string();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    output.say(&format!("{text}: {} of {} rows are in {}", slice.num_rows, slice.num_rows_read, names.join(", ")));
    let mut files = slice.files;
    for text in beside {
        let to = folder.join(text.file_name().unwrap_or_default());
        std::fs::copy(&text, &to).map_err(io)?;
        files.push(to);
    }
    Ok(source::dataset(&folder, files, identity, &path, licence, names)?)
}

/// The Parquet files of a dataset's folder: those of the split `train` where the folder has several, as the hub lays them out.
fn tables_of(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let inner = dir.join("data");
    let place = if inner.is_dir() { inner } else { dir.to_owned() };
    let io = |source| crate::bundle::BundleError::Io { action: "read", path: place.clone(), source };
    let is_table = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "parquet") && path.is_file();
    let mut tables: Vec<PathBuf> =
        std::fs::read_dir(&place).map_err(io)?.flatten().map(|entry| entry.path()).filter(is_table).collect();
    tables.sort();
    let is_train = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("train"));
    if tables.iter().any(is_train) {
        tables.retain(is_train);
    }
    match tables.is_empty() {
        true => Err(data::DataError::EmptyDirectory { path: place }.into()),
        false => Ok(tables),
    }
}

/// The card and the licences of a dataset.
fn texts_of(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let card = dir.join("README.md");
    let mut texts = source::licences_in(dir)?;
    texts.extend(card.is_file().then_some(card));
    Ok(texts)
}

fn binary_of(given: Option<&Path>, want: Option<&Want>) -> anyhow::Result<Collected> {
    let wanted = want.map(|want| want.target.clone());
    if let Some(path) = given {
        return Ok(source::binary(path, wanted.unwrap_or_else(target))?);
    }
    if let Some(wanted) = wanted.filter(|wanted| *wanted != target()) {
        let what = format!(
            "--with-binary: the sealed machine is {wanted}, this program is for {}\nhint: --with-binary=FILE takes a build for it",
            target()
        );
        return Err(UsageError(what).into());
    }
    let own = std::env::current_exe()?;
    Ok(source::binary(&own, target())?)
}

/// What goes in and how much room it takes, before anything is written.
fn overview(plan: &Plan, want: Option<&Want>, output: &OutputArgs) {
    for item in plan.items() {
        let (count, bytes) = plan.size_of(item);
        let licence = item.licence.as_deref().unwrap_or("licence not stated");
        let files = if count == 1 { "file" } else { "files" };
        output.say(&format!("{:>10}  {count:>4} {files}  {}  ({licence})", gigabytes(bytes), item.folder));
        if !item.left_out.is_empty() {
            output.say(&format!("            left out, since loading them can run code: {}", item.left_out.join(", ")));
        }
    }
    let total = plan.length();
    let place = folder_of(plan.output().path());
    let free =
        crate::provenance::free_bytes(place).map(|free| format!(", {} are free", gigabytes(free))).unwrap_or_default();
    let parts = match plan.output() {
        Output::Tar { part_bytes: Some(part_bytes), .. } => {
            format!(" in {} parts of {}", total.div_ceil(*part_bytes), gigabytes(*part_bytes))
        }
        _ => String::new(),
    };
    output.say(&format!("{:>10}  in all{parts}{free}", gigabytes(total)));
    if let Some(free) = want.and_then(|want| want.free_bytes).filter(|free| *free < plan.content_bytes()) {
        output.say(&format!("note: the machine that asks for it has {} free, which is less", gigabytes(free)));
    }
}
