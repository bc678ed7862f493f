//! Packs and the files that come back: by the program's commands, with what a phone would send, and what a forger would.

use std::path::Path;

use pairwright::annotate::vote::{Choice, Via, current_votes};
use serde_json::{Value, json};

use crate::program::{run, text};
use crate::serving::stored;

pub fn demo(folder: &Path) -> String {
    let path = folder.join("demo");
    let made = run(&["make", "--demo", "--quiet", "--out", text(&path)]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    text(&path).to_owned()
}

/// The data of a pack's page.
pub fn data(page: &Path) -> Value {
    let html = std::fs::read_to_string(page).unwrap();
    let rest = html.split_once("id=\"data\">").unwrap().1;
    assert!(!html.contains("http://") && !html.contains("https://"), "nothing from elsewhere");
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

pub fn returned(data: &Value, copy: &str, at: i64, choice: &str) -> Value {
    let votes: Vec<Value> = data["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| json!({"item": task["item"], "at": at, "fields": {"choice": choice}}))
        .collect();
    json!({"signed": data["signed"], "signature": data["signature"], "copy": copy, "name": "Ann", "votes": votes})
}

#[test]
fn a_pack_goes_out_and_its_votes_come_back_once() {
    let folder = tempfile::tempdir().unwrap();
    let made = demo(folder.path());
    let page = folder.path().join("pack.html");
    let packed = run(&["annotate", "pack", &made, "-n", "3", "--interface", "ar", "-o", text(&page)]);
    assert_eq!(packed.code, Some(0), "{}", packed.stderr);
    let data = data(&page);
    let num_tasks = data["tasks"].as_array().unwrap().len();
    assert_eq!(num_tasks, 3);
    assert!(!data["tasks"].to_string().contains("model") && !data["tasks"].to_string().contains("rating"), "blind");
    let file = folder.path().join("votes.json");
    let merge = |content: &Value| {
        std::fs::write(&file, content.to_string()).unwrap();
        let outcome = run(&["annotate", "merge", &made, text(&file), "--json"]);
        (outcome.code, serde_json::from_str::<Value>(&outcome.stdout).unwrap_or_default(), outcome.stderr)
    };
    let counts = |merged: &Value| ["num_new", "num_doubles", "num_older"].map(|name| merged[name].as_u64().unwrap());
    let first = returned(&data, "copy1", 1_000, "better-0");
    assert_eq!(counts(&merge(&first).1), [3, 0, 0]);
    assert_eq!(counts(&merge(&first).1), [0, 3, 0], "a replay adds nothing");
    // Another person with the same pack; the first one thinks again; an old file that comes late.
    assert_eq!(counts(&merge(&returned(&data, "copy2", 1_000, "same")).1), [3, 0, 0]);
    assert_eq!(counts(&merge(&returned(&data, "copy1", 2_000, "both_bad")).1), [3, 0, 0]);
    assert_eq!(counts(&merge(&returned(&data, "copy1", 1_500, "same")).1), [0, 0, 3]);
    assert_eq!(counts(&merge(&first).1), [0, 3, 0]);
    let run_folder = Path::new(&made);
    let events = stored(run_folder);
    let current = current_votes(&events);
    assert_eq!((events.len(), current.len()), (9, 6));
    assert!(events.iter().all(|vote| vote.via == Via::Pack));
    assert_eq!(current.iter().filter(|vote| *vote.choice == Choice::BothBad).count(), 3);
    // What was changed is refused, whole, and nothing of it is taken.
    let signed = data["signed"].as_str().unwrap();
    let forged = |change: &dyn Fn(&mut Value)| {
        let mut file = returned(&data, "copy3", 3_000, "same");
        change(&mut file);
        let (code, _, said) = merge(&file);
        assert_eq!((code, said.contains("hint:")), (Some(3), true), "{said}");
        said
    };
    let item = data["tasks"][0]["item"].as_str().unwrap();
    assert!(
        forged(
            &|file| file["signed"] = signed.replace("\"ordinary\"", "\"audit\"").replacen("pack-", "pack-0", 1).into()
        )
        .contains("not signed")
    );
    assert!(forged(&|file| file["signature"] = "0".repeat(64).into()).contains("not signed"));
    forged(&|file| file["votes"][0]["item"] = item.replace(|c: char| c.is_ascii_digit(), "0").into());
    forged(&|file| file["votes"][2]["fields"]["choice"] = "better-7".into());
    forged(&|file| file["copy"] = "'; DROP TABLE votes; --".into());
    forged(&|file| file["votes"] = json!("none"));
    assert_eq!(stored(run_folder), events);
    // Another run's pack.
    let other = tempfile::tempdir().unwrap();
    let elsewhere = demo(other.path());
    std::fs::write(&file, first.to_string()).unwrap();
    let refused = run(&["annotate", "merge", &elsewhere, text(&file)]);
    assert_eq!(refused.code, Some(3));
    assert!(refused.stderr.contains("another run"), "{}", refused.stderr);
}
