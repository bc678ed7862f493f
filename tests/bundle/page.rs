//! `doctor` without a device: one page in seconds, with the next step for each problem.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::workshop::Workshop;
use super::{COMMIT, cached_model, done, model, run};

fn page(workshop: &Workshop) -> (Option<i32>, Value) {
    let outcome = run(workshop, &["doctor", "--json"]);
    assert_eq!(outcome.stdout.lines().count(), 1, "{}", outcome.stdout);
    (outcome.code, serde_json::from_str(&outcome.stdout).unwrap())
}

#[test]
fn the_page_says_what_the_machine_has_and_which_models_are_whole() {
    let workshop = Workshop::new();
    let (code, empty) = page(&workshop);
    assert_eq!(code, Some(0), "{empty}");
    let about: Vec<&str> =
        empty["findings"].as_array().unwrap().iter().map(|finding| finding["about"].as_str().unwrap()).collect();
    for wanted in ["cpu", "gpu", "memory", "disk", "files", "network", "model"] {
        assert!(about.contains(&wanted), "{wanted} in {about:?}");
    }
    assert!(empty["machine"]["cpu"]["num_threads"].as_u64().unwrap() > 0);
    model(&workshop, "models/here", "llama");
    let snapshot = cached_model(&workshop, "writer", "qwen3");
    let started = Instant::now();
    let (code, both) = page(&workshop);
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!((code, both["num_problems"].as_u64()), (Some(0), Some(0)), "{both}");
    let models = both["models"].as_array().unwrap();
    assert_eq!(models.len(), 2);
    assert_eq!((&models[0]["path"], &models[0]["repo"]), (&"models/here".into(), &Value::Null));
    assert_eq!((&models[1]["repo"], &models[1]["commit"]), (&"org/writer".into(), &COMMIT.into()));
    let said = done(&workshop, &["doctor"]);
    for word in
        ["ok      model     org/writer: whole: qwen3", "ok      model     whole: llama", "pairwright doctor --device"]
    {
        assert!(said.contains(word), "want {word:?} in\n{said}");
    }
    // One that is not whole is a problem with a way out; one that is of no use here is only told.
    std::fs::remove_file(snapshot.join("model.safetensors").canonicalize().unwrap()).unwrap();
    workshop.write("models/speech/config.json", "{\"model_type\": \"whisper\"}");
    let outcome = run(&workshop, &["doctor"]);
    assert_eq!(outcome.code, Some(1));
    for word in [
        "PROBLEM model     org/writer: not whole",
        "link to nothing",
        &format!("next: on a machine with a connection: `pairwright pull org/writer --revision {COMMIT}`"),
        "note    model     does not run here",
    ] {
        assert!(outcome.stdout.contains(word), "want {word:?} in\n{}", outcome.stdout);
    }
    assert!(outcome.stderr.contains("error: 1 of what was looked at"), "{}", outcome.stderr);
}

#[test]
fn flags_of_the_checks_want_a_device() {
    let workshop = Workshop::new();
    for flags in [&["--quick"][..], &["--references", "x"], &["--threads", "1"], &["--dtype", "f32"]] {
        let outcome = run(&workshop, &[&["doctor"], flags].concat());
        assert_eq!(outcome.code, Some(2));
        assert!(outcome.stderr.contains("--device"), "{}", outcome.stderr);
    }
}
