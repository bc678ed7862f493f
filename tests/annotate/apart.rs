//! Packs for different people hold different items, languages are chosen, and people of a list of users are known ones.

use std::collections::HashSet;
use std::path::Path;

use pairwright::annotate::packed;
use serde_json::{Value, json};

use crate::packs::{data, demo, returned};
use crate::program::{Outcome, program, run, text};
use crate::server::Server;
use crate::serving::{items, plain};

struct Room {
    folder: tempfile::TempDir,
    made: String,
}

impl Room {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = demo(folder.path());
        Self { folder, made }
    }

    fn pack(&self, name: &str, more: &[&str]) -> (Outcome, HashSet<String>) {
        let page = self.folder.path().join(name);
        let packed = run(&[&["annotate", "pack", &self.made, "-o", text(&page)], more].concat());
        if packed.code != Some(0) {
            return (packed, HashSet::new());
        }
        let signed: Value = serde_json::from_str(data(&page)["signed"].as_str().unwrap()).unwrap();
        let own = signed["items"].as_array().unwrap().iter().filter(|item| item["kind"] != "gold");
        (packed, own.map(|item| item["item"].as_str().unwrap().to_owned()).collect())
    }
}

#[test]
fn packs_that_are_out_hold_different_items_and_say_so() {
    let room = Room::new();
    let (said, first) = room.pack("one.html", &["-n", "10"]);
    assert!(said.stderr.contains("none of its items is in one of the 0 other packs"), "{}", said.stderr);
    let (said, second) = room.pack("two.html", &["-n", "10"]);
    assert!(said.stderr.contains("none of its items is in one of the 1 other packs"), "{}", said.stderr);
    assert!(first.is_disjoint(&second) && !first.is_empty() && !second.is_empty());
    // Several people on each are asked for, and told.
    let (said, third) = room.pack("three.html", &["-n", "10", "--overlap", "2"]);
    let num_shared = third.iter().filter(|item| first.contains(*item) || second.contains(*item)).count();
    assert!(num_shared > 0);
    assert!(
        said.stderr.contains(&format!("{num_shared} of its items are in one of the 2 other packs")),
        "{}",
        said.stderr
    );
    // What comes back is voted on; what was left out in it is free again.
    let page = room.folder.path().join("one.html");
    let mut file = returned(&data(&page), "copy1", 1_000, "better-0");
    let voted: Vec<Value> = file["votes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|vote| first.contains(vote["item"].as_str().unwrap()))
        .take(4)
        .cloned()
        .collect();
    file["votes"] = json!(voted);
    let path = room.folder.path().join("votes.json");
    std::fs::write(&path, file.to_string()).unwrap();
    assert_eq!(run(&["annotate", "merge", &room.made, text(&path)]).code, Some(0));
    let (said, rest) = room.pack("rest.html", &["-n", "60"]);
    assert!(said.stderr.contains("fewer than 60"), "{}", said.stderr);
    let voted: HashSet<String> = voted.iter().map(|vote| vote["item"].as_str().unwrap().to_owned()).collect();
    assert_eq!(
        rest.intersection(&first).count(),
        first.len() - voted.len() - third.intersection(&first).filter(|item| !voted.contains(*item)).count()
    );
    assert!(rest.is_disjoint(&voted) && rest.is_disjoint(&second));
    // Nothing is left; whoever does not want to wait for packs says so.
    let (said, _) = room.pack("none.html", &[]);
    assert_eq!(said.code, Some(3));
    assert!(
        said.stderr.contains("3 packs whose votes are not back") && said.stderr.contains("--overlap"),
        "{}",
        said.stderr
    );
    let (said, again) = room.pack("again.html", &["--lease", "0", "-n", "60"]);
    assert!(again.is_superset(&second), "{}", said.stderr);
}

#[test]
fn a_pack_is_of_the_languages_that_were_asked_for() {
    let room = Room::new();
    let page = room.folder.path().join("tasks.html");
    let tags = |page: &Path| -> HashSet<String> {
        data(page)["tasks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|task| task["lang"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    room.pack("tasks.html", &["-n", "60", "--lease", "0"]);
    let all = tags(&page);
    assert!(all.len() > 2, "{all:?}");
    let wanted = all.iter().min().unwrap().clone();
    room.pack("tasks.html", &["-n", "60", "--lease", "0", "--language", &wanted]);
    assert_eq!(tags(&page), HashSet::from([wanted]));
    let (said, _) = room.pack("tasks.html", &["--language", "Klingonish"]);
    assert_eq!(said.code, Some(3));
    assert!(said.stderr.contains("no rows in `Klingonish`") && said.stderr.contains("hint: "), "{}", said.stderr);
}

#[test]
fn lines_of_packs_survive_what_was_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let items = ["i1", "i2"].map(str::to_owned);
    packed::note(folder.path(), "pack-1", &items, 1_000).unwrap();
    let path = folder.path().join("annotations").join(packed::PACKS_FILE);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, [&whole[..], b"{\"pack\":\"pack-2\",\"it"].concat()).unwrap();
    packed::note(folder.path(), "pack-3", &items[..1], 2_000).unwrap();
    let out = |lease: u16, now: i64| packed::out(folder.path(), lease, now).unwrap().into_keys().collect::<Vec<_>>();
    assert_eq!(out(30, 3_000), ["pack-1", "pack-3"]);
    assert_eq!(out(1, 1_500 + 86_400), ["pack-3"]);
    packed::note(folder.path(), "pack-1", &[], 4_000).unwrap();
    assert_eq!(out(30, 5_000), ["pack-3"]);
    assert!(packed::out(Path::new("/nowhere"), 1, 0).unwrap().is_empty());
}

#[test]
fn a_server_that_starts_leaves_out_what_is_in_packs() {
    let folder = tempfile::tempdir().unwrap();
    let items = items(3);
    let ids: Vec<String> = items.items.iter().map(|item| item.id.clone()).collect();
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    packed::note(folder.path(), "pack-1", &ids[1..], since.as_secs() as i64).unwrap();
    let server = Server::start(folder.path(), items, plain());
    let mut ann = server.client();
    let page = ann.join("Ann");
    let [csrf, item, token] = ["csrf", "item", "token"].map(|name| page.field(name));
    assert_eq!(item, ids[0]);
    let fields = [("csrf", csrf.as_str()), ("item", &item), ("token", &token), ("choice", "same")];
    assert_eq!(ann.post("/vote", &fields).status, 303);
    assert!(!ann.get("/").body.contains("data-live"), "the others are out");
}

#[test]
fn people_of_a_list_of_users_are_known_or_added() {
    let room = Room::new();
    let argilla = room.folder.path().join("argilla");
    let page = room.folder.path().join("pack.html");
    room.pack("pack.html", &["-n", "4"]);
    let path = room.folder.path().join("votes.json");
    std::fs::write(&path, returned(&data(&page), "copy1", 1_000, "same").to_string()).unwrap();
    let merged = run(&["annotate", "merge", &room.made, text(&path), "--json"]);
    let merged: Value = serde_json::from_str(&merged.stdout).unwrap();
    let ann = merged["people"].as_object().unwrap().keys().next().unwrap().clone();
    let users = room.folder.path().join("users.txt");
    let list = |lines: &str| std::fs::write(&users, lines).unwrap();
    let export = || run(&["export", &room.made, "--argilla", text(&argilla), "--users", text(&users)]);
    let import = |more: &[&str]| {
        run(&[&["import", &room.made, "--argilla", text(&argilla), "--users", text(&users)], more].concat())
    };
    list(&format!("{ann} u1\n"));
    let told = export();
    assert!(told.stderr.contains("with 4 responses") || told.stderr.contains("with 3 responses"), "{}", told.stderr);
    assert_eq!(import(&[]).code, Some(0));
    // By name, and nearly right.
    for (wrong, meant) in [("Ann", "(Ann)"), (&format!("{ann}x"), ann.as_str())] {
        list(&format!("{wrong} u1\n"));
        for outcome in [export(), import(&[])] {
            assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
            let said = &outcome.stderr;
            assert!(said.contains(&format!("nobody here has the pseudonym {wrong}")), "{said}");
            assert!(said.contains("did you mean") && said.contains(meant) && said.contains(&ann), "{said}");
        }
    }
    list("zoe u1\n");
    assert!(import(&[]).stderr.contains("--add-people"));
    assert_eq!(import(&["--add-people"]).code, Some(0));
    assert_eq!(import(&[]).code, Some(0), "zoe is known from now on");
}

#[cfg(target_os = "linux")]
#[test]
fn a_closed_stderr_ends_nothing() {
    let room = Room::new();
    let page = room.folder.path().join("quiet.html");
    let whole = program(&["annotate", "pack", &room.made, "-o", text(&page)]);
    let mut shell = std::process::Command::new("sh");
    let line = format!(
        "exec '{}' annotate pack '{}' -o '{}' 2>&-",
        whole.get_program().to_str().unwrap(),
        room.made,
        text(&page)
    );
    let left = shell.args(["-c", &line]).output().unwrap();
    assert_eq!(left.status.code(), Some(0));
    assert!(page.exists());
}
