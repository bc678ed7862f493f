//! Publications: what is sent and how, that it is asked for, done once, and never half visible.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::home::Home;
use super::program::text;
use super::server::{Action, Repo, Server};

const REPO: &str = "datasets/me/pairs";

/// A finished run, which is the demonstration's, and a Hub without repositories.
fn finished() -> (Home, PathBuf) {
    let home = Home::new(Server::new(&[]));
    let run = home.path().join("run");
    super::program::done(&["make", "--demo", "--out", text(&run), "-q"]);
    (home, run)
}

fn publish(run: &std::path::Path) -> Vec<String> {
    ["publish", text(run), "--repo", "me/pairs", "--yes", "--retries", "1"].map(str::to_owned).to_vec()
}

fn done(home: &Home, arguments: &[String]) -> String {
    home.done(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn refused(home: &Home, code: i32, arguments: &[String], said: &[&str]) -> String {
    home.refused(code, &arguments.iter().map(String::as_str).collect::<Vec<_>>(), said)
}

#[test]
fn a_dataset_is_published_by_one_commit_and_not_twice() {
    let (home, run) = finished();
    let said = done(&home, &publish(&run));
    for word in ["a new dataset that everybody sees", "README.md", "data/train-00000-of-00001.parquet", "a toy made it"]
    {
        assert!(said.contains(word), "want {word} in:\n{said}");
    }
    assert!(said.contains(&format!("{}/datasets/me/pairs", home.server.endpoint())), "{said}");
    let there = home.server.repo(REPO).unwrap();
    for path in ["README.md", "run.lock", "data/train-00000-of-00001.parquet", "raw/train-00000-of-00001.parquet"] {
        assert_eq!(there.files[path], std::fs::read(run.join("dataset").join(path)).unwrap(), "{path}");
    }
    assert_eq!(there.files.len(), 5, "with .gitattributes, which the Hub made: {:?}", there.files.keys());
    assert!(!there.private);
    // Contents went to the store without the token, the rest to the Hub with it.
    let seen = home.server.seen();
    let count =
        |what: &str| seen.iter().filter(|request| request.path.contains(what) && request.method != "GET").count();
    assert_eq!(
        (count("/create"), count("/preupload/"), count("/upload/"), count("/verify"), count("/commit/")),
        (1, 1, 2, 2, 1)
    );
    for request in &seen {
        assert_eq!(request.headers.contains_key("authorization"), request.host == "hub", "{request:?}");
        assert!(request.host == "hub" || request.headers["x-kind"] == "basic");
    }

    // Again: nothing is sent.
    let again = done(&home, &publish(&run));
    assert!(again.contains("nothing to do"), "{again}");
    assert!(home.server.seen().iter().all(|request| request.method == "GET"));
    let output = home.run(&["publish", text(&run), "--repo", "me/pairs", "--json", "-q"]);
    let published: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((&published["num_sent"], &published["commit"]), (&json!(0), &json!(there.commit)));
}

#[test]
fn a_later_publication_sends_what_differs_and_removes_old_rows() {
    let (home, run) = finished();
    done(&home, &publish(&run));
    let mut there = home.server.repo(REPO).unwrap();
    there.files.insert("data/train-00001-of-00002.parquet".to_owned(), b"PAR1 old".to_vec());
    there.files.insert("notes.md".to_owned(), b"somebody's".to_vec());
    there.files.insert("README.md".to_owned(), b"an older card".to_vec());
    home.server.put(REPO, there);
    home.server.seen();
    let said = done(&home, &publish(&run));
    assert!(said.contains("published 1 files, removed 1") && said.contains("3 files are there already"), "{said}");
    let there = home.server.repo(REPO).unwrap();
    assert!(!there.files.contains_key("data/train-00001-of-00002.parquet") && there.files.contains_key("notes.md"));
    assert_eq!(there.files["README.md"], std::fs::read(run.join("dataset/README.md")).unwrap());
    assert!(home.server.seen().iter().all(|request| request.host == "hub"));
    // Only something to remove.
    let mut there = there;
    there.files.insert("raw/old.parquet".to_owned(), b"PAR1 old".to_vec());
    home.server.put(REPO, there);
    assert!(done(&home, &publish(&run)).contains("published 0 files, removed 1"));
}

#[test]
fn an_export_is_published_with_its_votes_and_taken_back_with_them() {
    let (home, run) = finished();
    let folder = home.path().join("argilla");
    super::program::done(&["export", text(&run), "--argilla", text(&folder), "-q"]);
    let path = folder.join("records.json");
    let mut records: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for record in records.as_array_mut().unwrap().iter_mut().take(5) {
        record["responses"] = json!({"preference": [{"value": "a", "user_id": "u1"}]});
    }
    std::fs::write(&path, records.to_string()).unwrap();
    super::program::done(&["import", text(&run), "--argilla", text(&folder), "-q"]);
    super::program::done(&["export", text(&run), "-q"]);
    done(&home, &publish(&run));
    let there = home.server.repo(REPO).unwrap();
    for path in ["README.md", "data/train-00000-of-00001.parquet", "votes/train-00000-of-00001.parquet"] {
        assert_eq!(there.files[path], std::fs::read(run.join("export").join(path)).unwrap(), "{path}");
    }
    let card = String::from_utf8(there.files["README.md"].clone()).unwrap();
    for name in ["default", "raw", "votes"] {
        assert!(card.contains(&format!("config_name: \"{name}\"")), "{name}");
    }
    let plain = [publish(&run), vec!["--without-votes".to_owned()]].concat();
    assert!(done(&home, &plain).contains("votes/train-00000-of-00001.parquet, of an earlier publication"));
    let there = home.server.repo(REPO).unwrap();
    assert!(!there.files.keys().any(|path| path.starts_with("votes/")));
    assert_eq!(there.files["README.md"], std::fs::read(run.join("dataset/README.md")).unwrap());
    // The run goes on and the export does not.
    std::fs::write(run.join("export/run.lock"), "{}").unwrap();
    refused(&home, 2, &publish(&run), &["the export is not that of the run", "pairwright export", "--without-votes"]);
}

#[test]
fn private_stays_private() {
    let (home, run) = finished();
    let private = [publish(&run), vec!["--private".to_owned()]].concat();
    assert!(done(&home, &private).contains("that only its owners see"));
    assert!(home.server.repo(REPO).unwrap().private);
    done(&home, &private);
    // What is public is not published to by somebody who wants it private.
    home.server.put(REPO, Repo::new(&[("README.md", b"card")]));
    refused(&home, 3, &private, &["there and public"]);
}

#[test]
fn nothing_is_sent_unasked_unfinished_or_without_a_token() {
    let (home, run) = finished();
    let mut unasked = publish(&run);
    unasked.retain(|argument| argument != "--yes");
    let said = refused(&home, 2, &unasked, &["nothing was published", "--yes"]);
    assert!(said.contains("README.md") && said.contains("everybody sees"), "{said}");
    assert!(home.server.repo(REPO).is_none() && home.server.seen().iter().all(|request| request.method == "GET"));

    let output = home.command(&["publish", text(&run), "--repo", "me/pairs", "--yes"]).env_remove("HF_TOKEN").output();
    let output = output.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("no token") && said.contains("/settings/tokens"), "{said}");

    refused(&home, 2, &["publish", text(&run), "--repo", "pairs"].map(str::to_owned), &["want OWNER/NAME"]);
    refused(&home, 3, &publish(home.path()), &["holds no run"]);
    std::fs::write(run.join("dataset/run.lock"), "{}").unwrap();
    refused(&home, 2, &publish(&run), &["the dataset is not that of the run", "pairwright pair"]);
    let journal = run.join("journal/verdicts.jsonl");
    let lines = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, lines.split_inclusive('\n').take(3).collect::<String>()).unwrap();
    refused(&home, 3, &publish(&run), &["2 of 96 rows have verdicts"]);
    assert!(home.server.seen().iter().all(|request| request.method == "GET"));
}

#[test]
fn faults_on_the_way_leave_nothing_visible_and_the_same_command_ends_it() {
    let (home, run) = finished();
    let status = |number: u16, text: &'static str| Action::Status(number, Vec::new(), text);
    let error = "{\"error\": \"no\"}";
    let cases: [(&'static str, usize, Action, i32, &[&str]); 8] = [
        ("/create", 9, status(403, error), 3, &["no access (403: no)", "rights"]),
        ("/preupload/", 9, status(500, error), 1, &["answers 500: no"]),
        ("/preupload/", 1, Action::Status(200, Vec::new(), "{\"files\": []}"), 1, &["says nothing of README.md"]),
        ("/objects/batch", 1, Action::Status(200, Vec::new(), "{\"objects\": []}"), 1, &["says nothing of data/train"]),
        ("/upload/", 9, status(403, ""), 3, &["/upload/", "403"]),
        ("/verify", 9, status(404, ""), 3, &["/verify"]),
        ("/commit/", 1, status(412, "{\"error\": \"changed\"}"), 1, &["412: changed", "it compares first"]),
        ("/commit/", 1, status(200, "{\"commitOid\": \"x\"}"), 1, &["want 40 hexadecimal digits"]),
    ];
    for (on, times, action, code, said) in cases {
        home.server.fault(on, times, action);
        refused(&home, code, &publish(&run), said);
        let there = home.server.repo(REPO).map_or(0, |repo| repo.files.len());
        assert!(there <= 1, "something is visible after a fault of {on}");
        home.server.clear_faults();
    }
    // What passes is tried again.
    home.server.fault("/upload/", 1, status(503, ""));
    home.server.fault("/preupload/", 1, Action::Status(429, vec![("Retry-After", "0".to_owned())], ""));
    home.server.fault("/create", 1, Action::Cut(0));
    done(&home, &publish(&run));
    assert_eq!(home.server.repo(REPO).unwrap().files.len(), 5);
}
