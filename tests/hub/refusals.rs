//! What is refused before anything is fetched: terms that nobody accepted, names, hostile listings, repositories without usable
//! weights, disks without room, a machine that is to stay sealed.

use serde_json::json;

use super::home::Home;
use super::pull::small;
use super::server::{Action, COMMIT, Repo, Server};

const PULL: [&str; 5] = ["pull", "maker/writer", "--accept-licence", "--retries", "0"];

fn home(repo: Repo) -> Home {
    Home::new(Server::new(&[("models/maker/writer", repo)]))
}

/// No file was asked for.
fn fetched_nothing(home: &Home) {
    assert!(home.server.seen().iter().all(|request| request.host == "hub" && !request.path.contains("/resolve/")));
}

#[test]
fn terms_are_shown_and_must_be_accepted() {
    let card = json!({"license": "other", "license_name": "own-terms", "license_link": "https://terms.invalid"});
    let other = home(Repo { card, ..small() });
    let said = other.refused(
        2,
        &["pull", "maker/writer"],
        &["licence: own-terms (https://terms.invalid)", "--accept-licence"],
    );
    assert!(said.contains("model.safetensors") && said.contains("5.00 kB"), "what it is about is said before: {said}");
    fetched_nothing(&other);
    let silent = home(Repo { card: json!(null), ..small() });
    silent.refused(2, &["pull", "maker/writer", "-q"], &["the card states none", "nothing was fetched"]);
    fetched_nothing(&silent);
}

#[test]
fn names_that_cannot_be_are_refused_without_a_connection() {
    let home = home(small());
    let usage: [&[&str]; 8] = [
        &["pull", "a/b/c"],
        &["pull", "../b"],
        &["pull", "a/.."],
        &["pull", "a/b c"],
        &["pull", "a--b/c"],
        &["pull", "aya_dataset", "--dataset"],
        &["pull", "maker/writer", "--revision", "../../x"],
        &["pull", "maker/writer", "--revision", "a b"],
    ];
    for arguments in usage {
        home.refused(2, arguments, &["want "]);
    }
    home.refused(3, &["pull", "tiny-aya-globe"], &["did you mean tiny-aya-global"]);
    for endpoint in ["huggingface.co", "ftp://127.0.0.1"] {
        let output = home.command(&PULL).env("HF_ENDPOINT", endpoint).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("HF_ENDPOINT is `"));
    }
    let output = home.command(&PULL).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("HF_HUB_OFFLINE is set"));
    assert!(home.server.seen().is_empty());
    assert!(!home.cache().exists());
}

#[test]
fn repositories_without_usable_weights_say_what_they_have() {
    let pickles = home(Repo::new(&[("config.json", b"{}"), ("pytorch_model.bin", b"pickle")]));
    pickles.refused(3, &PULL, &["run code when they are loaded: pytorch_model.bin", "safetensors"]);
    let named = [&PULL[..], &["--file", "*.bin"]].concat();
    pickles.refused(3, &named, &["no file that may be fetched matches *.bin", "never fetched"]);
    fetched_nothing(&pickles);
    let gguf = home(Repo::new(&[("a-Q4.gguf", b"x"), ("a-Q8.gguf", b"y")]));
    gguf.refused(3, &PULL, &["a-Q4.gguf, a-Q8.gguf", "--file"]);
    let rows = Home::new(Server::new(&[("datasets/maker/rows", Repo::new(&[("load.py", b"x")]))]));
    rows.refused(3, &["pull", "maker/rows", "--dataset"], &["no Parquet"]);
}

#[test]
fn hostile_listings_are_refused() {
    let file = |path: &str, oid: &str, size: u64| json!([{"type": "file", "path": path, "oid": oid, "size": size}]);
    let git = "0".repeat(40);
    let large = json!([{"type": "file", "path": "model.safetensors", "oid": git, "size": 130,
                        "lfs": {"oid": "a".repeat(64), "size": 1_u64 << 60}}]);
    let twice = json!([file("config.json", &git, 1)[0], file("config.json", &git, 1)[0]]);
    let cases = [
        (file("../../../evil", &git, 1), "has a name that leads elsewhere"),
        (file("/etc/evil", &git, 1), "has a name that leads elsewhere"),
        (file("a\\..\\evil", &git, 1), "has a name that leads elsewhere"),
        (file("config.json", "../../evil", 1), "has a hash that is none"),
        (twice, "is listed twice"),
        (json!({"error": "x"}), "not the JSON expected"),
        (large, "bytes are to be fetched and"),
    ];
    for (listing, said) in cases {
        let home = home(small());
        let text: &'static str = Box::leak(listing.to_string().into_boxed_str());
        home.server.fault("/tree/", 1, Action::Status(200, Vec::new(), text));
        home.refused(1, &PULL, &[said]);
        fetched_nothing(&home);
        assert!(!home.path().join("evil").exists());
    }
    for sha in ["../../evil", "main", COMMIT.trim_start_matches("01")] {
        let home = home(small());
        let text: &'static str = Box::leak(json!({"sha": sha}).to_string().into_boxed_str());
        home.server.fault("revision/main", 1, Action::Status(200, Vec::new(), text));
        home.refused(1, &PULL, &["want 40 hexadecimal digits"]);
    }
    let home = home(small());
    let text: &'static str = Box::leak(json!({"sha": "f".repeat(40)}).to_string().into_boxed_str());
    home.server.fault("/revision/", 1, Action::Status(200, Vec::new(), text));
    home.refused(1, &[&PULL[..], &["--revision", COMMIT]].concat(), &["want 0123456789abcdef"]);
}
