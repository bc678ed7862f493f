//! Pushes to Argilla: what is made there, that a record is there once however often and with whatever faults it is sent, what people said
//! there stays, and that the key is shown to nobody.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::argilla::{API_KEY, Dataset, USERS};
use super::home::{Home, outcome};
use super::program::{Outcome, done, text};
use super::server::{Action, Server};

struct Room {
    home: Home,
    run: PathBuf,
}

impl Room {
    /// The demonstration's run with so many answers a prompt, and an Argilla server without datasets.
    fn new(num_samples: &str) -> Self {
        let home = Home::new(Server::new(&[]));
        let run = home.path().join("run");
        done(&["make", "--demo", "--out", text(&run), "-q", "-n", num_samples]);
        Self { home, run }
    }

    fn push_with(&self, key: Option<&str>, more: &[&str]) -> Outcome {
        let url = self.home.server.endpoint();
        let arguments = ["push-argilla", text(&self.run), "--url", &url, "--retries", "1"];
        let name: &[&str] = if more.contains(&"--dataset") { &[] } else { &["--dataset", "pairs"] };
        let mut command = self.home.command(&[&arguments, name, more].concat());
        match key {
            Some(key) => command.env("ARGILLA_API_KEY", key),
            None => command.env_remove("ARGILLA_API_KEY"),
        };
        let left = outcome(command.output().unwrap());
        assert!(!left.stderr.contains(API_KEY) && !left.stdout.contains(API_KEY), "the key is for nobody");
        left
    }

    fn push(&self, more: &[&str]) -> Value {
        let left = self.push_with(Some(API_KEY), &[more, &["--json"]].concat());
        assert_eq!(left.code, Some(0), "{}", left.stderr);
        serde_json::from_str(&left.stdout).unwrap()
    }

    fn refused(&self, code: i32, more: &[&str], said: &[&str]) {
        let left = self.push_with(Some(API_KEY), more);
        assert_eq!(left.code, Some(code), "{}", left.stderr);
        for word in said.iter().chain(&["\nhint: "]) {
            assert!(left.stderr.contains(word), "want {word:?} in:\n{}", left.stderr);
        }
        assert!(left.stdout.is_empty() && !left.stderr.contains("panicked"));
    }

    fn dataset(&self) -> Dataset {
        self.home.server.argilla(|argilla| argilla.datasets.last().unwrap().clone())
    }

    /// What the server answers to whoever asks for records with responses, as a file.
    fn page(&self, name: &str, say: impl Fn(&str, &mut super::argilla::Record)) -> PathBuf {
        let mut dataset = self.dataset();
        dataset.records.iter_mut().for_each(|(id, record)| say(id, record));
        let one = |(id, record): (&String, &super::argilla::Record)| json!({"id": "a uuid", "external_id": id, "fields": record.fields, "responses": record.responses.values().collect::<Vec<_>>()});
        let path = self.home.path().join(name);
        std::fs::write(&path, json!({"items": dataset.records.iter().map(one).collect::<Vec<_>>()}).to_string())
            .unwrap();
        path
    }

    fn users(&self) -> PathBuf {
        let path = self.home.path().join("users.txt");
        std::fs::write(&path, format!("ann {}\nbob {}\n", USERS[0], USERS[1])).unwrap();
        path
    }

    fn import(&self, file: &Path, users: &Path) -> Value {
        let arguments =
            ["import", text(&self.run), "--argilla", text(file), "--users", text(users), "--add-people", "--json"];
        serde_json::from_str(&done(&arguments)).unwrap()
    }
}

fn says(user: &str, values: Value) -> (String, Value) {
    (user.to_owned(), json!({"user_id": user, "status": "submitted", "values": values}))
}

#[test]
fn a_run_is_there_as_records_with_the_judges_suggestions_and_not_twice() {
    let room = Room::new("1");
    let pushed = room.push(&[]);
    let dataset = room.dataset();
    assert!(dataset.is_ready && dataset.about["guidelines"].as_str().unwrap().contains("better"));
    assert_eq!(dataset.about["distribution"], json!({"strategy": "overlap", "min_submitted": 1}));
    let num_records = dataset.records.len() as u64;
    assert!(num_records > 20, "{num_records}");
    assert_eq!((&pushed["num_records"], &pushed["num_known"]), (&json!(num_records), &json!(0)));
    assert_eq!((&pushed["workspace"], &pushed["num_responses"]), (&json!("team"), &json!(0)));
    let question = |name: &str| {
        let found = dataset.settings["questions"].iter().find(|question| question["name"] == name);
        found.unwrap_or_else(|| panic!("{name}"))["id"].as_str().unwrap().to_owned()
    };
    let [preference, rating_a, rating_b] = ["preference", "rating_a", "rating_b"].map(question);
    for record in dataset.records.values() {
        let value = |id: &String| &record.suggestions[id]["value"];
        let [a, b] = [&rating_a, &rating_b].map(|id| value(id).as_i64().unwrap());
        // Means that differ may be the same rating; the other way round they cannot be.
        match value(&preference).as_str().unwrap() {
            "a" => assert!(a >= b),
            "b" => assert!(b >= a),
            other => assert_eq!((other, a), ("tie", b)),
        }
        assert!(record.metadata["language"].is_string() && record.responses.is_empty());
    }
    let again = room.push(&["--workspace", "team"]);
    assert_eq!(again["num_known"], num_records);
    assert_eq!(room.dataset().records, dataset.records);
    assert_eq!(room.home.server.argilla(|argilla| argilla.datasets.len()), 1);
    let blind = room.push(&["--blind", "--dataset", "blind"]);
    assert_eq!(blind["num_records"], num_records);
    assert!(room.dataset().records.values().all(|record| record.suggestions.is_empty()));
}

#[test]
fn responses_go_there_and_back_and_what_is_said_there_stays() {
    let room = Room::new("1");
    room.push(&[]);
    let ids: Vec<String> = room.dataset().records.keys().cloned().collect();
    let answer = |value: &str| json!({"preference": {"value": value}, "rating_a": {"value": 4}});
    let file = room.page("page.json", |id, record| {
        if id == ids[0] {
            record.responses.extend([says(USERS[0], answer("a")), says(USERS[1], answer("tie"))]);
        } else if id == ids[1] {
            let flagged = json!({"preference": {"value": "both_bad"}, "flag": {"value": "broken"}});
            record.responses.extend([says(USERS[0], flagged)]);
        }
    });
    let users = room.users();
    let imported = room.import(&file, &users);
    assert_eq!((&imported["num_new"], &imported["left_out"]), (&json!(3), &json!({})));
    assert_eq!(room.import(&file, &users)["num_known"], 3);
    let pushed = room.push(&["--users", text(&users)]);
    assert_eq!((&pushed["num_responses"], &pushed["num_kept"]), (&json!(3), &json!(0)));
    let dataset = room.dataset();
    assert_eq!(dataset.records[&ids[0]].responses[USERS[0]], says(USERS[0], answer("a")).1);
    assert_eq!(dataset.records[&ids[1]].responses[USERS[0]]["values"]["flag"], json!({"value": "broken"}));
    // Ann thinks again, there.
    room.home.server.argilla(|argilla| {
        let record = argilla.datasets[0].records.get_mut(&ids[0]).unwrap();
        record.responses.extend([says(USERS[0], answer("b"))]);
    });
    let again = room.push(&["--users", text(&users)]);
    assert_eq!((&again["num_responses"], &again["num_kept"]), (&json!(0), &json!(3)));
    assert_eq!(room.dataset().records[&ids[0]].responses[USERS[0]]["values"]["preference"]["value"], "b");
    let back = room.import(&room.page("later.json", |_, _| {}), &users);
    assert_eq!((&back["num_new"], &back["num_known"]), (&json!(1), &json!(2)));
    // Somebody whom the server does not know: its own words, and where to look.
    std::fs::write(&users, "ann 00000000-0000-4000-8000-000000000000\n").unwrap();
    let more = ["--users", text(&users), "--dataset", "other"];
    room.refused(1, &more, &["422", "user with id 00000000", "--users"]);
    assert!(room.dataset().records.is_empty(), "a call is taken whole or not at all");
}

#[test]
fn several_answers_are_ranked() {
    let room = Room::new("2");
    room.push(&["--rank"]);
    let dataset = room.dataset();
    let required: Vec<&Value> =
        dataset.settings["questions"].iter().filter(|question| question["required"] == true).collect();
    assert_eq!(
        (required.len(), &required[0]["name"], &required[0]["settings"]["type"]),
        (1, &json!("ranking"), &json!("ranking"))
    );
    let of = |num: usize| {
        dataset
            .records
            .iter()
            .filter(move |(_, record)| record.fields.as_object().unwrap().len() == num + 1)
            .map(|(id, _)| id.clone())
    };
    let three: Vec<String> = of(3).collect();
    assert!(three.len() > 5);
    let ranked = |ranks: [i64; 3]| {
        let one = |(letter, rank): (&str, i64)| json!({"value": letter, "rank": rank});
        let places: Vec<Value> = ["a", "b", "c"].into_iter().zip(ranks).map(one).collect();
        json!({"ranking": {"value": places}})
    };
    let file = room.page("page.json", |id, record| {
        if id == three[0] {
            record.responses.extend([says(USERS[0], ranked([2, 1, 2])), says(USERS[1], ranked([3, 2, 1]))]);
        } else if id == three[1] {
            // As Argilla's package gives rankings back: names in the order of the options.
            record.responses.extend([says(USERS[0], json!({"ranking": {"value": ["a", "b", "c"]}}))]);
        }
    });
    let users = room.users();
    let imported = room.import(&file, &users);
    assert_eq!((&imported["num_new"], &imported["left_out"]), (&json!(2), &json!({"ranking_without_ranks": 1})));
    assert_eq!(room.push(&["--rank", "--users", text(&users)])["num_responses"], 2);
    let responses = &room.dataset().records[&three[0]].responses;
    assert_eq!(responses[USERS[0]]["values"], ranked([2, 1, 2]));
    assert_eq!(responses[USERS[1]]["values"], ranked([3, 2, 1]));
    assert_eq!(room.import(&room.page("later.json", |_, _| {}), &users)["num_known"], 2);
    // A dataset of pairs is another one.
    room.refused(3, &[], &["its question `preference` is not there", "another --dataset"]);
}

#[test]
fn whatever_breaks_the_same_command_ends_it_and_nothing_is_doubled() {
    let room = Room::new("1");
    let status = |number: u16, headers: &[(&'static str, &str)]| {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Action::Status(number, headers, "{\"detail\": \"no\"}")
    };
    // Answers that are lost: what was done is there, and the next attempt finds it. Two in a row are more than are tried.
    for on in [
        "POST /api/v1/datasets",
        "POST /api/v1/datasets/dataset-0/fields",
        "POST /api/v1/datasets/dataset-0/questions",
        "POST /api/v1/datasets/dataset-0/metadata-properties",
        "PUT /api/v1/datasets/dataset-0/publish",
        "PUT /api/v1/datasets/dataset-0/records/bulk",
        "GET /api/v1/datasets/dataset-0/questions",
    ] {
        room.home.server.argilla(|argilla| argilla.datasets.clear());
        room.home.server.fault(on, 2, Action::Lost);
        room.refused(1, &[], &["failed", "the same command goes on"]);
        room.home.server.clear_faults();
        room.home.server.argilla(|argilla| argilla.datasets.clear());
        room.home.server.fault(on, 1, Action::Lost);
        room.push(&[]);
        let dataset = room.dataset();
        assert_eq!(room.home.server.argilla(|argilla| argilla.datasets.len()), 1, "{on}");
        let names = |part: &str| {
            let mut names: Vec<String> = dataset.settings[part].iter().map(|one| one["name"].to_string()).collect();
            let all = names.len();
            names.sort();
            names.dedup();
            (names.len() == all).then_some(all)
        };
        assert_eq!(
            (names("fields"), names("questions"), names("metadata-properties")),
            (Some(3), Some(5), Some(1)),
            "{on}"
        );
        assert!(dataset.records.len() > 20 && dataset.is_ready);
        room.home.server.clear_faults();
    }
    for action in [status(429, &[("Retry-After", "0")]), status(503, &[]), Action::Status(502, Vec::new(), "<html>")] {
        room.home.server.fault("/records/bulk", 1, action);
        room.push(&[]);
    }
    room.home.server.fault("/records/bulk", 9, status(429, &[("Retry-After", "600")]));
    room.refused(1, &[], &["429", "asks to wait 600 s"]);
    room.home.server.clear_faults();
    room.home.server.fault("/me/datasets", 1, Action::Status(200, Vec::new(), "{\"items\": [7]}"));
    room.refused(1, &[], &["not the JSON expected", "--url"]);
}

#[test]
fn who_may_not_and_what_does_not_fit_is_refused_with_what_to_do() {
    let room = Room::new("1");
    let left = room.push_with(None, &[]);
    assert_eq!(left.code, Some(2), "{}", left.stderr);
    assert!(left.stderr.contains("ARGILLA_API_KEY") && left.stderr.contains("--api-key-file"), "{}", left.stderr);
    assert!(room.home.server.seen().is_empty(), "nothing is asked without a key");
    let wrong = room.push_with(Some("another.key"), &[]);
    assert_eq!(wrong.code, Some(3));
    assert!(wrong.stderr.contains("Could not validate credentials") && wrong.stderr.contains("an owner or an admin"));
    assert!(!wrong.stderr.contains("another.key"));
    let split = room.push_with(Some("a\nX-Evil: b"), &[]);
    assert_eq!(split.code, Some(2));
    assert!(split.stderr.contains("kept secret") && !split.stderr.contains("Evil"), "{}", split.stderr);
    let file = room.home.path().join("key");
    std::fs::write(&file, format!("{API_KEY}\n")).unwrap();
    let by_file = room.push_with(None, &["--api-key-file", text(&file)]);
    assert_eq!(by_file.code, Some(0), "{}", by_file.stderr);
    assert!(room.home.server.seen().iter().all(|request| !request.headers.contains_key("authorization")));
    std::fs::write(&file, "\n").unwrap();
    room.refused(2, &["--api-key-file", text(&file)], &["its first line is empty"]);
    room.refused(3, &["--workspace", "teams"], &["no workspace `teams`", "one of: team"]);
    room.home.server.argilla(|argilla| argilla.workspaces.push("other"));
    room.refused(3, &[], &["2 workspaces, want one", "--workspace with one of: team, other"]);
    room.home.server.argilla(|argilla| {
        argilla.datasets[0].settings.get_mut("fields").unwrap()[0]["settings"] = json!({"type": "chat"})
    });
    room.refused(3, &["--workspace", "team"], &["its field `prompt` is of another type"]);
    for url in ["127.0.0.1:6900", "http://127.0.0.1?x", "ftp://a"] {
        let arguments = ["push-argilla", text(&room.run), "--url", url, "--dataset", "pairs"];
        let left = outcome(room.home.command(&arguments).env("ARGILLA_API_KEY", API_KEY).output().unwrap());
        assert_eq!(left.code, Some(2), "{}", left.stderr);
        assert!(
            left.stderr.contains("--url is `") && left.stderr.contains("hint: for example http"),
            "{}",
            left.stderr
        );
    }
}
