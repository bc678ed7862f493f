//! `bundle create`: what goes in, what stays out, and that the same input gives the same bytes.

use std::process::Command;

use super::program::{text, tree};
use super::workshop::{ROWS, Workshop};
use super::{COMMIT, cached_model, done, model, refused, run};

#[test]
fn the_same_input_gives_the_same_bytes_in_every_form() {
    let workshop = Workshop::new();
    model(&workshop, "writer", "llama");
    model(&workshop, "rater", "qwen3");
    workshop.prompts("p.jsonl", &ROWS);
    let create = |out: &str, more: &[&str]| {
        let common = ["bundle", "create", "--models", "writer,rater", "--dataset", "p.jsonl", "--languages", "nl,arb"];
        done(&workshop, &[&common[..], &["-o", out], more].concat())
    };
    let said = create("a.tar", &[]);
    for word in ["3 of 12 rows are in", "Dutch (nld)", "Arabic (arb)", "models/writer  (apache-2.0)", "in all", "free"]
    {
        assert!(said.contains(word), "want {word:?} in {said}");
    }
    // Another time of files, and another order of arguments.
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(1000);
    let config = std::fs::File::options().write(true).open(workshop.path("writer/config.json")).unwrap();
    config.set_modified(later).unwrap();
    create("b.tar", &[]);
    let whole = std::fs::read(workshop.path("a.tar")).unwrap();
    assert!(whole == std::fs::read(workshop.path("b.tar")).unwrap());
    let common = ["bundle", "create", "--models", "rater,writer", "--dataset", "p.jsonl", "--languages", "nl,arb"];
    done(&workshop, &[&common[..], &["-o", "c.tar"]].concat());
    assert!(whole == std::fs::read(workshop.path("c.tar")).unwrap());
    // A folder has the same files but for the line on tars, and parts join to the bytes of a tar.
    create("d", &[]);
    create("e.tar", &["--split", "100KiB"]);
    let mut joined = Vec::new();
    for index in 0.. {
        let Ok(part) = std::fs::read(workshop.path(&format!("e.tar.{index:03}"))) else { break };
        assert!(part.len() == 100 << 10 || part.len() < 100 << 10);
        joined.extend(part);
    }
    workshop.write("joined.tar", &joined);
    for path in ["a.tar", "d", "e.tar.000", "e.tar", "joined.tar"] {
        let said = done(&workshop, &["bundle", "verify", path]);
        assert!(said.contains(": whole: a "), "{said}");
    }
    assert!(
        tree(&workshop.path(".")).keys().all(|path| !text(path).contains("partial") && !text(path).contains("slices"))
    );
}

#[test]
fn other_tools_read_it_and_check_it() {
    let workshop = Workshop::new();
    model(&workshop, "writer", "llama");
    done(
        &workshop,
        &["bundle", "create", "--models", "writer", "-o", "a.tar", "--split", "64KiB", "--with-binary", "-q"],
    );
    let shell = |script: &str| {
        let output = Command::new("sh").args(["-c", script]).current_dir(workshop.path(".")).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    shell(
        "sha256sum -c a.tar.sha256 && cat a.tar.??? > whole.tar && tar xf whole.tar && cd bundle && sha256sum -c SHA256SUMS",
    );
    assert_eq!(tree(&workshop.path("bundle/models/writer")), tree(&workshop.path("writer")));
    let said = shell("bundle/bin/pairwright bundle verify bundle");
    assert!(said.contains("whole: a folder") && said.contains("licence apache-2.0"), "{said}");
    let licences = std::fs::read_to_string(workshop.path("bundle/LICENCES.md")).unwrap();
    assert!(licences.contains("| `models/writer` | not of the hub | apache-2.0 |"), "{licences}");
    assert!(workshop.path("bundle/LICENCES/pairwright.txt").exists());
    let run = std::fs::read_to_string(workshop.path("bundle/RUN.md")).unwrap();
    for word in ["sha256sum -c", "bin/pairwright bundle install", "doctor", "make --prompts", "cat NAME.tar.???"] {
        assert!(run.contains(word), "{run}");
    }
}

#[test]
fn a_snapshot_of_the_cache_travels_as_files_with_its_name_and_commit() {
    let workshop = Workshop::new();
    let snapshot = cached_model(&workshop, "writer", "llama");
    assert!(snapshot.join("config.json").is_symlink());
    done(&workshop, &["bundle", "create", "--models", "org/writer", "-o", "b", "-q"]);
    let folder = workshop.path(&format!("b/models/org--writer@{}", COMMIT.get(..12).unwrap()));
    assert!(!folder.join("config.json").is_symlink());
    assert_eq!(tree(&folder), tree(&snapshot));
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(workshop.path("b/BUNDLE.json")).unwrap()).unwrap();
    assert_eq!(manifest["items"][0]["repo"], "org/writer");
    assert_eq!(manifest["items"][0]["commit"], COMMIT);
    // A blob of the right length with other bytes is not passed on.
    let blob = snapshot.join("model.safetensors").canonicalize().unwrap();
    let mut bytes = std::fs::read(&blob).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let create = ["bundle", "create", "--models", "org/writer", "-o", "c.tar"];
    refused(&workshop, 3, &create, &["other bytes than its commit's hash says"]);
}

#[test]
fn secrets_are_refused_and_pickles_stay_behind() {
    let workshop = Workshop::new();
    let folder = model(&workshop, "writer", "llama");
    let token = format!("hf_{}", "Ab1".repeat(11));
    let create = ["bundle", "create", "--models", "writer", "-o", "b"];
    for (name, content) in [
        ("token", "x".to_owned()),
        (".netrc", String::new()),
        (".env", "A=1".to_owned()),
        ("notes.txt", format!("log in with {token}\n")),
        ("inner/notes.md", "-----BEGIN RSA PRIVATE KEY-----\nabc\n".to_owned()),
    ] {
        let path = workshop.write(&format!("writer/{name}"), content);
        refused(&workshop, 3, &create, &["secret", name, "revoked"]);
        assert!(!run(&workshop, &create).stderr.contains(&token), "the token itself is not repeated");
        std::fs::remove_file(path).unwrap();
    }
    workshop.write("outside/token", "secret");
    std::os::unix::fs::symlink("../outside/token", folder.join("harmless.txt")).unwrap();
    refused(&workshop, 3, &create, &["secret", "harmless.txt"]);
    std::fs::remove_file(folder.join("harmless.txt")).unwrap();
    workshop.write("writer/pytorch_model.bin", "x");
    workshop.write("writer/.git/config", token);
    let said = done(&workshop, &create);
    assert!(said.contains("left out, since loading them can run code: pytorch_model.bin"), "{said}");
    assert!(!workshop.path("b/models/writer/pytorch_model.bin").exists());
    assert!(!workshop.path("b/models/writer/.git").exists());
}

#[test]
fn what_cannot_be_made_is_refused_before_anything_is_written() {
    let workshop = Workshop::new();
    let folder = model(&workshop, "writer", "llama");
    workshop.prompts("p.jsonl", &ROWS);
    let create = |more: &[&str], code: i32, said: &[&str]| {
        refused(&workshop, code, &[&["bundle", "create"], more].concat(), said);
    };
    create(&["-o", "b"], 2, &["nothing to put", "--models"]);
    create(&["--models", "writer", "-o", "b", "--split", "1GB"], 2, &["--split", ".tar"]);
    create(&["--models", "org/nowhere", "-o", "b"], 3, &["org/nowhere", "pairwright pull org/nowhere"]);
    create(&["--models", "qwen3-8b", "-o", "b"], 3, &["Qwen/Qwen3-8B", "pairwright pull"]);
    create(&["--models", "writer,writer", "-o", "b"], 3, &["one name", "once"]);
    create(&["--models", "writer", "-o", "writer"], 3, &["writer exists"]);
    create(&["--dataset", "p.jsonl", "--languages", "Klingon", "-o", "b"], 3, &["Klingon"]);
    workshop.write("writer/a:b.json", "{}");
    create(&["--models", "writer", "-o", "b"], 3, &["a:b.json", "rename"]);
    std::fs::remove_file(folder.join("a:b.json")).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.join("extra.json")).unwrap();
    create(&["--models", "writer", "-o", "b"], 3, &["extra.json", "link to nothing"]);
    std::fs::remove_file(folder.join("extra.json")).unwrap();
    std::fs::remove_file(folder.join("tokenizer.json")).unwrap();
    create(&["--models", "writer", "-o", "b"], 3, &["tokenizer.json"]);
    let said = done(&workshop, &["bundle", "create", "--dataset", "p.jsonl", "-o", "b", "--dry-run"]);
    assert!(said.contains("in all") && !workshop.path("b").exists(), "{said}");
}

#[test]
fn tables_are_cut_to_languages_in_their_own_format() {
    let workshop = Workshop::new();
    workshop.write("p.csv", "inputs,targets,language\nHoi?,\"a, b\",Dutch\nHi?,c,English\nDag?,d,Dutch\n");
    done(&workshop, &["bundle", "create", "--dataset", "p.csv", "--languages", "nld", "-o", "b", "-q"]);
    let cut = std::fs::read_to_string(workshop.path("b/datasets/p-Dutch/p.csv")).unwrap();
    assert_eq!(cut, "inputs,targets,language\nHoi?,\"a, b\",Dutch\nDag?,d,Dutch\n");
    let said = done(&workshop, &["languages", "b/datasets/p-Dutch/p.csv"]);
    assert!(said.contains("Dutch") && !said.contains("English"), "{said}");
}
