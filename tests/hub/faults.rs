//! What servers and lines do wrong: cut and spoilt contents, other sizes and hashes, numbers of HTTP, redirects, endless answers.
//! Each is one clear error with a documented exit code, or is made up for, and nothing is left that looks whole.

use super::home::Home;
use super::pull::small;
use super::server::{Action, COMMIT, Repo, Server};

const PULL: [&str; 5] = ["pull", "maker/writer", "--accept-licence", "--retries", "2"];
const ONCE: [&str; 5] = ["pull", "maker/writer", "--accept-licence", "--retries", "0"];

fn home(repo: Repo) -> Home {
    Home::new(Server::new(&[("models/maker/writer", repo)]))
}

fn status(status: u16, headers: &[(&'static str, &str)], body: &'static str) -> Action {
    Action::Status(status, headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(), body)
}

#[test]
fn cut_connections_and_busy_servers_are_made_up_for() {
    let repo = small();
    let home = home(repo.clone());
    home.server.fault("/blobs/", 1, Action::Cut(1000));
    home.server.fault("/blobs/", 1, Action::Cut(500));
    home.server.fault("config.json", 1, Action::Cut(1));
    home.server.fault("revision/main", 1, status(429, &[("Retry-After", "0")], ""));
    home.server.fault("revision/main", 1, status(503, &[("Retry-After", "1")], ""));
    home.server.fault("/tree/", 1, status(502, &[], "<html>bad gateway</html>"));
    home.server.fault("/tree/", 1, Action::Cut(40));
    home.done(&PULL);
    let ranges: Vec<String> = home
        .server
        .seen()
        .into_iter()
        .filter(|request| request.host == "store")
        .map(|request| request.headers.get("range").cloned().unwrap_or_default())
        .collect();
    assert_eq!(ranges, ["", "bytes=1000-", "bytes=1500-"]);
    let snapshot = home.snapshot("models--maker--writer");
    assert_eq!(std::fs::read(snapshot.join("model.safetensors")).unwrap(), repo.files["model.safetensors"]);
}

#[test]
fn a_line_that_falls_silent_is_taken_up_anew() {
    let home = home(small());
    home.server.fault("/blobs/", 1, Action::Stall(2000));
    home.server.fault("revision/main", 1, Action::Stall(5));
    let output = home.command(&PULL).env("HF_HUB_DOWNLOAD_TIMEOUT", "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let last = home.server.seen().pop().unwrap();
    assert_eq!(last.headers.get("range").map(String::as_str), Some("bytes=2000-"));
    // What never says anything is an error that says so.
    home.server.fault("revision/main", 9, Action::Stall(0));
    let output = home.command(&ONCE).env("HF_HUB_DOWNLOAD_TIMEOUT", "1").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("the connection failed: ") && said.contains("timeout") && said.contains("\nhint: "),
        "{said}"
    );
}

#[test]
fn a_line_that_stays_broken_is_one_error_and_what_came_is_kept() {
    let home = home(small());
    home.server.fault("/blobs/", 9, Action::Cut(100));
    home.refused(1, &ONCE, &["model.safetensors", "goes on from there"]);
    home.server.clear_faults();
    home.server.fault("/blobs/", 9, status(500, &[], "{\"error\": \"no disk\"}"));
    home.refused(1, &PULL, &["/blobs/"]);
    let gone = home.command(&ONCE).env("HF_ENDPOINT", "http://127.0.0.1:1").output().unwrap();
    let said = String::from_utf8(gone.stderr).unwrap();
    assert_eq!(gone.status.code(), Some(1), "{said}");
    assert!(said.contains("the connection failed") && said.contains("\nhint: "), "{said}");
}

#[test]
fn contents_that_are_not_what_is_listed_are_refused_and_thrown_away() {
    let cases: [(&'static str, Action, &[&str]); 9] = [
        ("/blobs/", Action::Spoil, &["model.safetensors", "its sha256 is"]),
        ("/config.json", Action::Spoil, &["config.json", "its git blob id is"]),
        ("/blobs/", Action::Lengthen, &["model.safetensors", "its length is more, expected 5000 bytes"]),
        ("/blobs/", Action::Endless, &["model.safetensors", "its length is more, expected 5000 bytes"]),
        ("/resolve/", Action::Header("X-Repo-Commit", "f".repeat(40)), &["its commit is ffff", COMMIT]),
        ("model.safetensors", Action::Header("X-Linked-Etag", "\"ab\"".to_owned()), &["its hash by the header is ab"]),
        (
            "model.safetensors",
            Action::Header("X-Linked-Size", "5001".to_owned()),
            &["length by the header is 5001, expected 5000"],
        ),
        ("revision/main", Action::Header("Content-Type", "x".to_owned()), &[]),
        ("/blobs/", status(416, &[], ""), &["/blobs/", "416"]),
    ];
    for (on, action, said) in cases {
        let home = home(small());
        home.server.fault(on, 1, action);
        if said.is_empty() {
            home.done(&ONCE);
            continue;
        }
        home.refused(1, &ONCE, said);
        let blobs = home.cache().join("models--maker--writer/blobs");
        for entry in std::fs::read_dir(blobs).into_iter().flatten().map(Result::unwrap) {
            let wrong = entry.file_name().to_string_lossy().contains(&small().etag("model.safetensors"));
            assert!(!wrong || entry.metadata().unwrap().len() == 0, "spoilt bytes are not gone on with: {entry:?}");
        }
        // The next pull finds nothing in its way.
        home.done(&ONCE);
    }
}

#[test]
fn a_range_that_was_not_asked_for_is_refused() {
    let home = home(small());
    home.server.fault("/blobs/", 1, Action::Cut(1000));
    home.refused(1, &ONCE, &["model.safetensors"]);
    home.server.fault("/blobs/", 1, Action::OtherRange);
    home.refused(1, &ONCE, &["the answer is the range `bytes 1001-4999/5000`", "asked for was `bytes 1000-`"]);
    home.done(&ONCE);
}

#[test]
fn numbers_of_http_say_what_to_do() {
    let gated = status(403, &[("X-Error-Code", "GatedRepo")], "{\"error\": \"Access to model is restricted\"}");
    let cases: [(Action, i32, &[&str]); 8] = [
        (gated, 3, &["no access (403: Access to model is restricted)", "accept the form"]),
        (status(401, &[], ""), 3, &["no access (401)", "the token is not valid"]),
        (status(404, &[("X-Error-Code", "RevisionNotFound")], ""), 3, &["not found (404)", "--revision"]),
        (status(429, &[("Retry-After", "3600")], ""), 1, &["answers 429", "it asks to wait 3600 s"]),
        (status(429, &[], "slow down"), 1, &["answers 429: slow down", "later"]),
        (status(500, &[], "<html>\u{1b}[31mlong page"), 1, &["the server answers 500\n"]),
        (status(418, &[], "a\u{1b}[2J\u{202e} teapot\r\n"), 1, &["answers 418: a [2J teapot\n"]),
        (status(204, &[], ""), 1, &["not the JSON expected", "HF_ENDPOINT"]),
    ];
    for (action, code, said) in cases {
        let home = home(small());
        home.server.fault("revision/main", 9, action);
        home.refused(code, &ONCE, said);
    }
}

#[test]
fn who_may_see_what_is_told_apart() {
    let repos = [
        ("models/maker/gated", Repo { gated: true, ..small() }),
        ("models/maker/private", Repo { private: true, ..small() }),
    ];
    let anonymous = Home { token: None, ..Home::new(Server::new(&repos)) };
    anonymous.refused(3, &["pull", "maker/gated"], &["no access (401", "set HF_TOKEN"]);
    anonymous.refused(3, &["pull", "maker/private"], &["not found (401", "HF_TOKEN if it is private"]);
    anonymous.refused(3, &["pull", "maker/nothing"], &["not found (401"]);
    let known = Home::new(Server::new(&repos));
    known.refused(3, &["pull", "maker/nothing"], &["not found (404: Repository not found)", "check the spelling"]);
    known.refused(3, &["pull", "maker/gated", "--revision", "old"], &["404: Invalid rev id"]);
    let wrong = Home { token: Some("hf_other"), ..Home::new(Server::new(&repos)) };
    wrong.refused(3, &["pull", "maker/gated"], &["no access (401: Invalid credentials", "make another one"]);
    let split = Home { token: Some("hf_a b"), ..Home::new(Server::new(&repos)) };
    split.refused(2, &["pull", "maker/gated"], &["the token is `(kept secret)`"]);
}

#[test]
fn redirects_that_lead_nowhere_or_round_in_circles_are_errors() {
    let here = "/api/models/maker/writer/revision/main";
    let cases: [(&str, &[&str]); 4] = [
        (here, &["redirects more than 5 times"]),
        ("file:///etc/passwd", &["redirects to `file:///etc/passwd`"]),
        ("", &["redirects to ``"]),
        ("http://127.0.0.1:1/x?signature=s3cr3t", &["http://127.0.0.1:1/x: the connection failed"]),
    ];
    for (location, said) in cases {
        let home = home(small());
        home.server.fault("revision/main", 9, status(302, &[("Location", location)], ""));
        home.refused(1, &ONCE, said);
    }
    // One within the Hub, as after a change of name, is followed, and takes the token along.
    let home = home(small());
    home.server.fault(
        "revision/main",
        1,
        status(307, &[("Location", &format!("/api/models/maker/writer/revision/{COMMIT}"))], ""),
    );
    home.done(&ONCE);
}

#[test]
fn an_answer_without_end_ends() {
    let home = home(small());
    home.server.fault("/tree/", 1, Action::Endless);
    home.refused(1, &ONCE, &["the answer is longer than"]);
}
