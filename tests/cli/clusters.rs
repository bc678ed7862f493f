//! What clusters are given: the script that `slurm` prints, the Kubernetes manifest and the Apptainer definition. Slurm itself is in
//! `scripts/check_slurm.sh`; Kubernetes and Apptainer are not run here.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::program::{done, run, text};
use super::refused;
use super::workshop::Workshop;

/// Values that a shell would open if they were not quoted.
const HOSTILE: [&str; 6] =
    ["it's", "$(touch broken)", "`touch broken`", "a b\n#SBATCH --x", "\"; touch broken; \"", "@ARGUMENTS@@OUT@"];

fn repository(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file of the repository")
}

/// A folder with commands of Slurm that write down their arguments, each ended by a null byte. A task is in the states that lie in `states`,
/// one after the other, and runs when there are no more; when it ends is not said. Nobody sleeps.
fn pretended(workshop: &Workshop) {
    use std::os::unix::fs::PermissionsExt;
    let squeue = "case \"$*\" in *%T) [ -s states ] || echo RUNNING >states; head -n 1 states; sed -i 1d states;; esac";
    for (name, answer) in [("sbatch", "echo 17"), ("scontrol", "true"), ("squeue", squeue), ("sleep", "true")] {
        let script = format!("#!/bin/sh\nprintf '%s\\0' {name} \"$@\" END >>calls\n{answer}\n");
        let path = workshop.write(&format!("bin/{name}"), script);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("an executable file");
    }
}

fn bash(workshop: &Workshop, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let path = format!("{}:{}", text(&workshop.path("bin")), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("bash");
    command.args(arguments).current_dir(workshop.path(".")).env("PATH", path).env_remove("SLURM_ARRAY_TASK_ID");
    command.envs(variables.iter().copied()).output().expect("bash")
}

/// Calls of the pretended commands so far.
fn calls(workshop: &Workshop) -> Vec<Vec<String>> {
    let text = fs::read_to_string(workshop.path("calls")).unwrap_or_default();
    let words: Vec<String> = text.split_terminator('\0').map(str::to_owned).collect();
    words.split(|word| word == "END").filter(|call| !call.is_empty()).map(<[String]>::to_vec).collect()
}

#[test]
fn whatever_values_hold_the_script_is_sound() {
    for (index, value) in HOSTILE.iter().enumerate() {
        let workshop = Workshop::new();
        pretended(&workshop);
        let arguments =
            ["slurm", "--tasks", "3", "--hours", "0.5", "--account", "a", "--", "make", "--demo", "--stop", value];
        let script = done(&[&arguments[..], &["--out", value]].concat());
        workshop.write("job.sbatch", &script);
        let checked = bash(&workshop, &["-n", "job.sbatch"], &[]);
        assert!(checked.status.success(), "{index}: {}", String::from_utf8_lossy(&checked.stderr));
        let submitted = bash(&workshop, &["job.sbatch", "--array=1"], &[]);
        assert!(submitted.status.success(), "{index}: {}", String::from_utf8_lossy(&submitted.stderr));
        let calls = calls(&workshop);
        assert_eq!(calls[0], ["sbatch", "--parsable", "--array=1", "job.sbatch"]);
        assert!(calls[1].contains(&"--dependency=afterok:17".to_owned()), "{:?}", calls[1]);
        assert!(calls[1].contains(&"--account=a".to_owned()), "{:?}", calls[1]);
        // What Slurm will run behind the tasks: three words, the last of them the value.
        let wrapped = calls[1].iter().find_map(|word| word.strip_prefix("--wrap=")).expect("a command");
        let read = bash(&workshop, &["-c", &format!("printf '%s\\0' {wrapped}")], &[]);
        let read = String::from_utf8(read.stdout).unwrap();
        assert_eq!(read.split_terminator('\0').skip(1).collect::<Vec<_>>(), ["merge", *value], "{index}");
        assert!(!workshop.path("broken").exists(), "a shell opened {value}");
        let head: Vec<&str> = script.lines().skip(1).take_while(|line| line.starts_with("#SBATCH ")).collect();
        for line in
            ["#SBATCH --array=0-2", "#SBATCH --time=0:30:00", "#SBATCH --requeue", "#SBATCH --signal=B:USR1@120"]
        {
            assert!(head.contains(&line), "want {line} in {head:?}");
        }
    }
}

#[test]
fn tasks_do_their_shards_and_are_queued_again_only_when_that_helps() {
    let workshop = Workshop::new();
    pretended(&workshop);
    let script = done(&["slurm", "--tasks", "2", "--hours", "1", "--", "make", "--demo", "--out", "run", "-q"]);
    workshop.write("job.sbatch", &script);
    let task = |index: &str, script: &str| {
        let variables = [("SLURM_ARRAY_TASK_ID", index), ("SLURM_ARRAY_JOB_ID", "17"), ("SLURM_JOB_END_TIME", "")];
        bash(&workshop, &[script], &variables).status.code()
    };
    for index in ["1", "0"] {
        assert_eq!(task(index, "job.sbatch"), Some(0));
    }
    assert!(!calls(&workshop).iter().any(|call| call[0] == "scontrol"), "a task that is done was queued again");
    done(&["merge", &workshop.arg("run"), "-q"]);
    // A program that stops early, with a row done and without.
    for (code, row, states, is_queued) in [
        (75, true, "", true),
        (75, false, "", false),
        (137, true, "", true),
        (1, true, "", false),
        (3, true, "", false),
        // Slurm has yet to hear that its warning arrived, or cannot be asked; the job is being cancelled; Slurm never answers.
        (75, true, "SIGNALING\n\nSIGNALING\nRUNNING\n", true),
        (75, true, "SIGNALING\nCOMPLETING\nRUNNING\n", false),
        (137, true, "COMPLETING\n", false),
        (75, true, &"\n".repeat(100), false),
    ] {
        _ = fs::remove_file(workshop.path("calls"));
        workshop.write("states", states);
        let journal = "run/shard-00000-of-00002/journal/verdicts.jsonl";
        let stops =
            format!("(bash -c '{}exit {code}' x", if row { format!("echo x >>{journal}; ") } else { String::new() });
        let program = script.lines().find(|line| line.starts_with("program=")).expect("the program");
        let arguments = script.lines().find(|line| line.starts_with("arguments=")).expect("its arguments");
        let changed = script.replace(program, &format!("program={stops})")).replace(arguments, "arguments=()");
        workshop.write("stops.sbatch", &changed);
        assert_eq!(task("0", "stops.sbatch"), Some(if is_queued { 0 } else { code }), "{code} {row} {states:?}");
        let queued = calls(&workshop).into_iter().find(|call| call[0] == "scontrol");
        assert_eq!(
            queued,
            is_queued.then(|| ["scontrol", "requeue", "17_0"].map(str::to_owned).to_vec()),
            "{code} {row} {states:?}"
        );
    }
}

#[test]
fn slips_show_before_the_queue() {
    let workshop = Workshop::new();
    let folder = workshop.path(".");
    let slurm = ["slurm", "--gpus", "2", "--hours", "1", "--"];
    for (command, said) in [
        (&["make", "--demo", "--out", "x", "--temprature", "1"][..], "--temprature"),
        (&["make", "--demo"], "--out"),
        (&["make", "--demo", "--out", "x", "--shard", "0/2"], "--shard"),
        (&["judge", "x", "--judge", "y"], "not `make`"),
    ] {
        refused(2, &folder, &[&slurm[..], command].concat(), &[said]);
    }
    for wrong in [&["--partition", "a b"][..], &["--sbatch", "--x\n--y"], &["--hours", "0"], &["--tasks", "2"]] {
        let outcome = run(&[&slurm[..5], wrong, &["--", "make", "--demo", "--out", "x"]].concat());
        assert_eq!(outcome.code, Some(2), "{wrong:?}: {}", outcome.stderr);
    }
    // A card that was asked for is used; nobody's choice is overruled.
    let make = ["make", "--demo", "--out", "x"];
    assert!(done(&[&slurm[..], &make].concat()).contains("--out x --device cuda)\n"));
    let chosen = done(&[&slurm[..], &make, &["--device", "cuda:0"]].concat());
    assert!(chosen.contains("--out x --device cuda:0)\n") && chosen.contains("#SBATCH --gres=gpu:1\n"));
}

#[test]
fn wrong_shards_are_usage_errors() {
    let workshop = Workshop::new();
    let out = workshop.arg("x");
    for (shard, said) in [
        ("3/3", "count from 0"),
        ("1", "such as 0/4"),
        ("-1/3", "such as 0/4"),
        ("0/0", "1 to 99999"),
        ("auto", "--shard I/N"),
    ] {
        refused(
            2,
            &workshop.path("."),
            &["make", "--demo", "--out", &out, &format!("--shard={shard}")],
            &[shard, said],
        );
    }
}

/// The flags that a command's --help names.
fn flags_of(command: &str) -> Vec<String> {
    let help = done(&[command, "--help"]);
    let words = help.split(|c: char| !(c.is_alphanumeric() || c == '-'));
    words.filter(|word| word.starts_with("--")).map(str::to_owned).collect()
}

/// Lines of a document as `path.to.key` → value, of the part of YAML that the manifest keeps to: maps and lists by two spaces, plain or
/// double-quoted scalars, comments. Anything else is a breach.
fn yaml(document: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut num_items: BTreeMap<String, usize> = BTreeMap::new();
    for line in document.lines() {
        let line = line.split(" #").next().unwrap_or_default().trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        assert!(!line.contains('\t') && line.is_ascii(), "{line}");
        let mut rest = line.trim_start();
        let mut indent = line.len() - rest.len();
        assert_eq!(indent % 2, 0, "{line}");
        path.retain(|(depth, _)| *depth < indent);
        if let Some(item) = rest.strip_prefix("- ") {
            let parent = path.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>().join(".");
            let number = num_items.entry(parent).or_default();
            path.push((indent, number.to_string()));
            *number += 1;
            (indent, rest) = (indent + 2, item);
        }
        let is_key = rest
            .split_once(':')
            .filter(|(key, value)| !key.starts_with('-') && (value.is_empty() || value.starts_with(' ')));
        let (key, value) = is_key.map_or((None, rest), |(key, value)| (Some(key), value.trim_start()));
        path.extend(key.map(|key| (indent, key.to_owned())));
        if !value.is_empty() {
            let name = path.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>().join(".");
            let other = found.insert(name, value.trim_matches('"').to_owned());
            assert_eq!(other, None, "twice: {line}");
        }
    }
    found
}

#[test]
fn the_kubernetes_manifest_fits_the_program() {
    let manifest = repository("scripts/kubernetes.yaml");
    let documents: Vec<_> = manifest.split("\n---\n").map(yaml).collect();
    let [shards, merge] = documents.as_slice() else { panic!("two documents") };
    let container = "spec.template.spec.containers.0";
    let get = |document: &BTreeMap<String, String>, path: &str| {
        document.get(path).cloned().unwrap_or_else(|| panic!("no {path}"))
    };
    let arguments = |document: &BTreeMap<String, String>| -> Vec<String> {
        (0..).map_while(|at| document.get(&format!("{container}.args.{at}")).cloned()).collect()
    };
    for document in [shards, merge] {
        assert_eq!((get(document, "apiVersion"), get(document, "kind")), ("batch/v1".to_owned(), "Job".to_owned()));
        let arguments = arguments(document);
        let known = flags_of(&arguments[0]);
        for flag in arguments.iter().filter_map(|word| word.strip_prefix("--")?.split('=').next()) {
            assert!(known.contains(&format!("--{flag}")), "{} has no --{flag}", arguments[0]);
        }
        let mount = get(document, &format!("{container}.volumeMounts.0.mountPath"));
        let paths = arguments.iter().filter_map(|word| word.rsplit('=').next().filter(|path| path.starts_with('/')));
        assert!(paths.into_iter().all(|path| path.starts_with(&format!("{mount}/"))), "{arguments:?}");
    }
    assert_eq!(get(shards, "spec.completionMode"), "Indexed");
    let variable = |at: usize| get(shards, &format!("{container}.env.{at}.value"));
    assert_eq!(get(shards, &format!("{container}.env.0.name")), "JOB_COMPLETIONS");
    assert_eq!(variable(0), get(shards, "spec.completions"), "the number of shards stands twice");
    assert_eq!(get(shards, &format!("{container}.env.1.name")), "PAIRWRIGHT_DATE");
    let config = repository("src/config.rs");
    assert!(config.contains("\"JOB_COMPLETIONS\"") && config.contains("\"PAIRWRIGHT_DATE\""));
    let out = arguments(shards).into_iter().find_map(|word| word.strip_prefix("--out=").map(str::to_owned));
    assert_eq!(out.as_ref(), arguments(merge).get(1), "what is merged is what was made");
}

#[test]
fn the_apptainer_definition_has_its_sections() {
    let definition = repository("scripts/pairwright.def");
    let sections: Vec<&str> = definition.lines().filter(|line| line.starts_with('%')).collect();
    assert_eq!(sections, ["%arguments", "%files", "%post", "%environment", "%test", "%runscript", "%help"]);
    for line in ["Bootstrap: docker", "From: ", "{{ PROGRAM }} /usr/local/bin/pairwright", "exec pairwright \"$@\""] {
        assert!(definition.contains(line), "want {line}");
    }
    assert!(flags_of("slurm").contains(&"--container".to_owned()));
    for script in definition.split("\n%").filter(|part| {
        ["post", "environment", "test", "runscript"].iter().any(|name| part.starts_with(&format!("{name}\n")))
    }) {
        let (_, lines) = script.split_once('\n').expect("lines");
        let checked = Command::new("sh").args(["-n", "-c", lines]).status().expect("sh");
        assert!(checked.success(), "{script}");
    }
}
