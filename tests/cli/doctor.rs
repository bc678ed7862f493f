//! `doctor`: what it says of a machine that is well, and that a wrong answer does not pass. No time is asserted.

use serde_json::Value;

use super::program::{fixture_model, run, text};
use super::refused;
use super::workshop::Workshop;

/// Exit code and report.
fn examined(arguments: &[&str]) -> (Option<i32>, Value, String) {
    let outcome = run(&[&["doctor", "--device", "cpu", "--quick"], arguments].concat());
    assert_eq!(outcome.stdout.lines().count(), 1, "one line: {}", outcome.stdout);
    (outcome.code, serde_json::from_str(&outcome.stdout).unwrap(), outcome.stderr)
}

#[test]
fn a_machine_that_is_well_has_every_operation_checked() {
    let (code, report, stderr) = examined(&[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(report["num_failed"], 0);
    assert!(report["ceilings"].is_null() && report["memory_mib"].is_null());
    let checks = report["checks"].as_array().unwrap();
    let operations =
        ["linear", "own linear", "embedding", "norm", "activation", "experts", "attention", "rotary", "sampling"];
    let operations = operations.map(|operation| format!("{operation} f32"));
    for name in operations.iter().map(String::as_str).chain(["linear f32: a row in any batch"]) {
        let is_it = |check: &&Value| check["name"] == name && check["verdict"] == "ok";
        assert_eq!(checks.iter().filter(is_it).count(), 1, "{name}: {stderr}");
    }
    assert_eq!(stderr.lines().count(), checks.len() + 2, "a line for each check, and what it is of: {stderr}");
}

#[test]
fn another_models_answers_are_not_taken_for_these() {
    let workshop = Workshop::new();
    for (folder, numbers) in [("right", "llama"), ("wrong", "qwen3")] {
        let place = workshop.path("models").join(folder);
        std::fs::create_dir_all(&place).unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(fixture_model("llama").join(file), place.join(file)).unwrap();
        }
        std::fs::copy(fixture_model(numbers).join("expected.json"), place.join("expected.json")).unwrap();
    }
    let (code, report, stderr) = examined(&["--references", &workshop.arg("models")]);
    assert_eq!((code, &report["num_failed"]), (Some(1), &Value::from(1)), "{stderr}");
    let verdict = |name: &str| {
        let checks = report["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).map(|check| check["verdict"].clone())
    };
    assert_eq!((verdict("right f32"), verdict("wrong f32")), (Some("ok".into()), Some("failed".into())), "{stderr}");
    assert!(stderr.contains("\nerror: 1 of ") && stderr.contains("\nhint: "), "{stderr}");
}

#[test]
fn a_device_that_is_not_there_is_refused() {
    let workshop = Workshop::new();
    let said = ["device `metal`", "built without it"];
    refused(3, &workshop.path("."), &["doctor", "--device", "metal"], &said);
    refused(2, &workshop.path("."), &["doctor", "--device", "gpu"], &["--device"]);
    let empty = text(&workshop.path("nothing")).to_owned();
    let (code, _, stderr) = examined(&["--references", &empty]);
    assert!(code == Some(1) && stderr.contains(&empty), "{stderr}");
}
