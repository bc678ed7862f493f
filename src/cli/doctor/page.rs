//! The one page on this machine: what it has, which models lie on it and whether they are whole, and the next step for each problem.
//! Knows words and thresholds; facts come from [`crate::doctor::machine`], models from [`crate::generate::verify`].

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;

use crate::bundle::gigabytes;
use crate::bundle::hf_cache::Cache;
use crate::bundle::integrity;
use crate::cli::bundle::local_models;
use crate::cli::settings::{date, template_options};
use crate::config;
use crate::doctor::machine::{Gpu, Machine};
use crate::doctor::network::Way;
use crate::generate::{Ending, TextModelError, verify::verify};
use crate::model::ModelError;
use crate::registry::ALLOWANCE_BYTES;

/// Less room than this is a problem, or worth a note.
const LITTLE_DISK: u64 = 1 << 30;
const SOME_DISK: u64 = 20 << 30;
/// Less memory than this runs the demo and hardly more.
const LITTLE_MEMORY: u64 = 4 << 30;
/// Files of a large model, its tables and its journals, open at once.
const FEW_FILES: u64 = 256;

/// How a finding is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    /// Good to know.
    Note,
    /// Something will fail.
    Problem,
}

/// A line of the page.
#[derive(Debug, Clone, Serialize)]
struct Finding {
    about: &'static str,
    level: Level,
    detail: String,
    /// What to do about it.
    next: Option<String>,
}

/// A model on this machine.
#[derive(Debug, Clone, Serialize)]
struct Model {
    path: PathBuf,
    /// `OWNER/NAME`, if known.
    repo: Option<String>,
    commit: Option<String>,
    level: Level,
    detail: String,
    /// Bytes of its weights.
    weight_bytes: Option<u64>,
    next: Option<String>,
}

/// Problems were found.
#[derive(Debug, thiserror::Error)]
#[error("{0} of what was looked at will not work\nhint: each has its next step above")]
pub(super) struct Problems(usize);

/// Looks, prints, and fails if something will not work.
pub(super) fn run(as_json: bool) -> anyhow::Result<Ending> {
    let cache = config::hub_cache();
    let machine = Machine::look(cache.as_deref());
    let models = models(cache)?;
    let mut findings = findings(&machine, &models);
    findings.extend(terminal());
    let num_problems = findings.iter().map(|finding| finding.level).chain(models.iter().map(|model| model.level));
    let num_problems = num_problems.filter(|level| *level == Level::Problem).count();
    let mut out = std::io::stdout().lock();
    if as_json {
        let page = json!({
            "pairwright": env!("CARGO_PKG_VERSION"),
            "machine": machine,
            "models": models,
            "findings": findings,
            "num_problems": num_problems,
        });
        writeln!(out, "{page}")?;
    } else {
        print(&mut out, &machine, &models, &findings)?;
    }
    if num_problems > 0 { Err(Problems(num_problems).into()) } else { Ok(Ending::Completed) }
}

fn print(out: &mut impl Write, machine: &Machine, models: &[Model], findings: &[Finding]) -> std::io::Result<()> {
    writeln!(out, "pairwright {} on {}\n", env!("CARGO_PKG_VERSION"), machine.target)?;
    for Finding { about, level, detail, next } in findings {
        writeln!(out, "{:<7} {about:<9} {detail}", word(*level))?;
        if let Some(next) = next {
            writeln!(out, "{:17} next: {next}", "")?;
        }
    }
    for Model { path, repo, level, detail, next, .. } in models {
        let name = repo.as_ref().map_or(String::new(), |repo| format!("{repo}: "));
        writeln!(out, "{:<7} {:<9} {name}{detail}", word(*level), "model")?;
        writeln!(out, "{:17} {}", "", path.display())?;
        if let Some(next) = next {
            writeln!(out, "{:17} next: {next}", "")?;
        }
    }
    writeln!(out, "\nWhether a device computes what it should, and how fast: pairwright doctor --device cpu (or cuda)")
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Note => "note",
        Level::Problem => "PROBLEM",
    }
}

fn ok(about: &'static str, detail: String) -> Finding {
    Finding { about, level: Level::Ok, detail, next: None }
}

fn other(level: Level, about: &'static str, detail: String, next: &str) -> Finding {
    Finding { about, level, detail, next: Some(next.to_owned()) }
}

fn findings(machine: &Machine, models: &[Model]) -> Vec<Finding> {
    let cpu = &machine.cpu;
    let features = if cpu.features.is_empty() { String::new() } else { format!(": {}", cpu.features.join(" ")) };
    let line = format!("{}, {} threads; kernels: {}{features}", cpu.name, cpu.num_threads, cpu.kernels);
    let is_slow = machine.target.starts_with("x86_64") && !cpu.features.iter().any(|name| name == "avx2");
    let mut findings = vec![match is_slow && !cpu.features.is_empty() {
        true => other(Level::Note, "cpu", line, "nothing: it works, slowly, since the processor has no AVX2"),
        false => ok("cpu", line),
    }];
    findings.push(gpu(&machine.gpu));
    findings.push(memory(machine, models));
    for disk in &machine.disks {
        let place = format!("{} ({})", disk.path.display(), disk.holds);
        findings.push(match disk.free_bytes {
            None => ok("disk", format!("{place}: free room not known")),
            Some(free) if free < LITTLE_DISK => {
                let line = format!("{place}: {} free", gigabytes(free));
                other(Level::Problem, "disk", line, "make room, or work in a folder of another disk")
            }
            Some(free) if free < SOME_DISK => {
                let line = format!("{place}: {} free", gigabytes(free));
                other(Level::Note, "disk", line, "a model of 8 billion parameters takes 16 GB: make room first")
            }
            Some(free) => ok("disk", format!("{place}: {} free", gigabytes(free))),
        });
    }
    findings.push(match machine.max_open_files {
        None => ok("files", "limit of open files not known".to_owned()),
        Some(few) if few < FEW_FILES => {
            other(Level::Problem, "files", format!("at most {few} open at once"), "ulimit -n 4096 before the run")
        }
        Some(u64::MAX) => ok("files", "any number open at once".to_owned()),
        Some(many) => ok("files", format!("at most {many} open at once")),
    });
    findings.push(network(machine));
    if models.is_empty() {
        let next = "`pairwright models list` says which to get; `pairwright bundle want` writes a list for a connected machine";
        let line = "none in ./models or in the Hugging Face cache".to_owned();
        findings.push(other(Level::Note, "model", line, next));
    }
    findings
}

fn gpu(gpu: &Gpu) -> Finding {
    let cards = if gpu.cards.is_empty() { "none seen".to_owned() } else { gpu.cards.join(", ") };
    let driver = gpu.driver.as_ref().map_or("no driver".to_owned(), |version| format!("driver {version}"));
    let refused = gpu.refused.as_deref().unwrap_or_default();
    match (&gpu.device, gpu.cards.is_empty(), &gpu.driver) {
        (Some(device), ..) => {
            let memory = gpu.memory.map(|[free, all]| format!(", {} of {} free", gigabytes(free), gigabytes(all)));
            ok("gpu", format!("{cards}, {driver}; {device}{}", memory.unwrap_or_default()))
        }
        (None, true, None) => ok("gpu", format!("{cards}: everything is computed on the processor ({refused})")),
        (None, _, None) => {
            other(Level::Note, "gpu", format!("{cards}, {driver}"), "install NVIDIA's driver, 580 or newer")
        }
        (None, _, Some(_)) => {
            let next = "build with --features cuda (README: For an NVIDIA card), then pairwright doctor --device cuda";
            other(Level::Note, "gpu", format!("{cards}, {driver}; {refused}"), next)
        }
    }
}

fn memory(machine: &Machine, models: &[Model]) -> Finding {
    let memory = &machine.memory;
    let (Some(total), Some(usable)) = (memory.total_bytes, memory.usable()) else {
        return ok("memory", "not known".to_owned());
    };
    let limit = memory.limit_bytes.map(|limit| format!(", limited to {}", gigabytes(limit))).unwrap_or_default();
    let line = format!("{} of {} can be had{limit}", gigabytes(usable), gigabytes(total));
    let largest = models.iter().filter(|model| model.level == Level::Ok).filter_map(|model| model.weight_bytes).max();
    if usable < LITTLE_MEMORY {
        return other(Level::Note, "memory", line, "take small models, with --quantize q4k and a small --kv-memory");
    }
    match largest.map(|bytes| bytes + ALLOWANCE_BYTES).filter(|need| *need > usable) {
        Some(need) => {
            let line = format!("{line}; the largest model here wants {} as it is", gigabytes(need));
            other(Level::Note, "memory", line, "--quantize q8_0, q6k or q4k (see `pairwright models verify`), or a GPU")
        }
        None => ok("memory", line),
    }
}

fn network(machine: &Machine) -> Finding {
    let network = &machine.network;
    let interfaces = network.interfaces.join(", ");
    ok(
        "network",
        match network.way {
            Way::NoInterface => "sealed: no interface but loopback".to_owned(),
            Way::NoDefaultRoute => format!("no way out: {interfaces} without a default route"),
            Way::DefaultRoute => {
                format!("open: a default route by {}. Pairwright does not need it", network.routes.join(", "))
            }
            Way::Unknown => "not known on this system".to_owned(),
        },
    )
}

/// Texts here are UTF-8; a terminal that takes something else shows them wrongly.
fn terminal() -> Option<Finding> {
    if !std::io::stdout().is_terminal() || config::speaks_utf8() {
        return None;
    }
    let line = "the locale is not UTF-8: scripts other than Latin will be unreadable here, not in the files".to_owned();
    Some(other(Level::Note, "terminal", line, "export LC_ALL=C.UTF-8"))
}

/// The models in ./models and in the cache, each looked at by its headers.
fn models(cache: Option<PathBuf>) -> anyhow::Result<Vec<Model>> {
    let template = template_options(date(None)?, None, None)?;
    let local = local_models(Path::new("models")).into_iter();
    let cached = cache.map(|root| Cache::new(root).models()).unwrap_or_default();
    let cached = cached.into_iter().map(|snapshot| (snapshot.dir, Some(snapshot.identity)));
    let look = |(path, identity): (PathBuf, Option<crate::bundle::hf_cache::Identity>)| {
        let (repo, commit) = identity.map_or((None, None), |identity| (Some(identity.repo), identity.commit));
        let of = |level, detail, weight_bytes, next| {
            let (path, repo, commit) = (path.clone(), repo.clone(), commit.clone());
            Model { path, repo, commit, level, detail, weight_bytes, next }
        };
        if let Err(error) = integrity::check(&path, false, &mut |_| ()) {
            let (what, next) = parts(&error.to_string(), &path);
            return of(Level::Problem, what, None, next);
        }
        match verify(&path, &template) {
            Ok(model) => {
                let verified = model.verified;
                let bytes = verified.weights.num_bytes;
                let line = format!("whole: {}, {} of weights", verified.family, gigabytes(bytes));
                of(Level::Ok, line, Some(bytes), None)
            }
            // Speech, pictures, embeddings: whole perhaps, and of no use here.
            Err(TextModelError::Model(error @ (ModelError::UnknownFamily { .. } | ModelError::NotAModel { .. }))) => {
                let (what, next) = parts(&error.to_string(), &path);
                of(Level::Note, format!("does not run here: {what}"), None, next)
            }
            Err(error) => {
                let (what, next) = parts(&error.to_string(), &path);
                of(Level::Problem, what, None, next)
            }
        }
    };
    Ok(local.chain(cached).map(look).collect())
}

/// What an error says, without the path that stands on a line of its own, and its hint.
fn parts(message: &str, path: &Path) -> (String, Option<String>) {
    let (what, hint) = message.split_once("\nhint: ").map_or((message, None), |(what, hint)| (what, Some(hint)));
    let what = what.trim_start_matches(&path.display().to_string()).trim_start_matches([':', ' ']);
    (what.to_owned(), hint.map(str::to_owned))
}
