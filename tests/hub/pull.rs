//! Pulls that succeed: what comes, where it lies, what is said, who learns the token, and that nothing comes twice.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::home::{Home, outcome};
use super::program::{fixture_model, text};
use super::server::{Action, COMMIT, Repo, Server, TOKEN, sha256};

/// A model of the fixtures as the Hub would have it, with what is not to be fetched beside it.
pub fn model() -> Repo {
    let mut files = BTreeMap::new();
    for name in
        ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    {
        files.insert(name.to_owned(), std::fs::read(fixture_model("llama").join(name)).unwrap());
    }
    files.insert(
        "chat_template.jinja".to_owned(),
        std::fs::read(fixture_model("llama").join("chat_template.jinja")).unwrap(),
    );
    files.insert("README.md".to_owned(), b"---\nlicense: apache-2.0\n---\nA card.\n".to_vec());
    files.insert("LICENSE".to_owned(), b"Apache".to_vec());
    files.insert("pytorch_model.bin".to_owned(), b"a pickle".to_vec());
    files.insert("modeling.py".to_owned(), b"import os".to_vec());
    files.insert("onnx/model.onnx".to_owned(), b"another framework's".to_vec());
    let listed: Vec<(&str, &[u8])> = files.iter().map(|(path, bytes)| (path.as_str(), &bytes[..])).collect();
    Repo::new(&listed)
}

/// The smallest repository with a large and a small file.
pub fn small() -> Repo {
    Repo::new(&[("config.json", b"{}"), ("model.safetensors", &[42; 5000])])
}

/// The files that a model's pull takes of `model()`.
const TAKEN: [&str; 8] = [
    "LICENSE",
    "README.md",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
];

const PULL: [&str; 4] = ["pull", "maker/writer", "--accept-licence", "--json"];

#[test]
fn a_model_comes_whole_into_the_layout_that_python_has_and_never_twice() {
    let repo = model();
    let home = Home::new(Server::new(&[("models/maker/writer", repo.clone())]));
    home.server.pages(3, None);
    let said = home.run(&PULL);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let folder = home.cache().join("models--maker--writer");
    let snapshot = home.snapshot("models--maker--writer");
    let expected = ["licence: apache-2.0", "fetched 8 files", COMMIT, text(&snapshot), "pairwright make --prompts"];
    for word in expected {
        assert!(said.stderr.contains(word), "want {word} in:\n{}", said.stderr);
    }
    let pulled: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((&pulled["commit"], &pulled["num_fetched"]), (&json!(COMMIT), &json!(8)));

    // Names, links and contents.
    let mut there: Vec<String> =
        std::fs::read_dir(&snapshot).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    there.sort();
    assert_eq!(there, TAKEN);
    for path in TAKEN {
        let link = std::fs::read_link(snapshot.join(path)).unwrap();
        assert_eq!(link, Path::new("../../blobs").join(repo.etag(path)), "{path}");
        assert_eq!(std::fs::read(snapshot.join(path)).unwrap(), repo.files[path], "{path}");
    }
    assert_eq!(std::fs::read_dir(folder.join("blobs")).unwrap().count(), TAKEN.len(), "no leftovers");
    assert_eq!(std::fs::read_to_string(folder.join("refs/main")).unwrap(), COMMIT);
    let tree: Value =
        serde_json::from_slice(&std::fs::read(folder.join("trees").join(format!("{COMMIT}.json"))).unwrap()).unwrap();
    assert_eq!((&tree["format_version"], tree["files"].as_object().unwrap().len()), (&json!(1), repo.files.len()));
    let weights = &tree["files"]["model.safetensors"];
    assert_eq!(weights["lfs_sha256"], repo.etag("model.safetensors"));
    assert_eq!(weights["size"], repo.files["model.safetensors"].len());
    assert_eq!(
        tree["files"]["config.json"],
        json!({"size": repo.files["config.json"].len(), "blob_id": repo.etag("config.json")})
    );

    // The token went to the Hub alone, and everything by the commit.
    let seen = home.server.seen();
    assert!(seen.iter().any(|request| request.host == "store"));
    for request in &seen {
        let authorised = request.headers.get("authorization").is_some_and(|given| given.contains(TOKEN));
        assert_eq!(authorised, request.host == "hub", "{request:?}");
        assert!(!request.path.contains("/resolve/") || request.path.contains(COMMIT), "{}", request.path);
    }

    // Again: nothing is fetched, nobody is asked.
    let again = home.done(&["pull", "maker/writer"]);
    assert!(again.contains("nothing to fetch") && again.contains(text(&snapshot)), "{again}");
    assert!(home.server.seen().iter().all(|request| !request.path.contains("/resolve/") && request.host == "hub"));

    // What came is a model that runs, called after its repository.
    home.done(&["models", "verify", text(&snapshot), "--deep"]);
    let prompts = home.path().join("prompts.jsonl");
    std::fs::write(&prompts, "{\"prompt\": \"Hoeveel dagen?\", \"response\": \"Zeven.\", \"language\": \"Dutch\"}\n")
        .unwrap();
    let out = home.path().join("run");
    home.done(&[
        "generate",
        "--model",
        text(&snapshot),
        "--prompts",
        text(&prompts),
        "--out",
        text(&out),
        "--max-tokens",
        "4",
    ]);
    let lock: Value = serde_json::from_slice(&std::fs::read(out.join("run.lock")).unwrap()).unwrap();
    assert_eq!(
        (&lock["generators"][0]["name"], &lock["generators"][0]["license"]),
        (&json!("maker/writer"), &json!("apache-2.0"))
    );
}

#[test]
fn a_damaged_or_lost_file_is_fetched_again_and_others_are_not() {
    let repo = small();
    let home = Home::new(Server::new(&[("models/maker/writer", repo.clone())]));
    home.done(&PULL);
    home.server.seen();
    let blob = home.cache().join("models--maker--writer/blobs").join(repo.etag("model.safetensors"));
    std::fs::write(&blob, b"cut").unwrap();
    let link = home.snapshot("models--maker--writer").join("config.json");
    std::fs::remove_file(&link).unwrap();
    let said = home.done(&PULL);
    assert!(said.contains("fetched 1 files"), "{said}");
    assert_eq!(std::fs::read(&blob).unwrap(), repo.files["model.safetensors"]);
    assert_eq!(std::fs::read(&link).unwrap(), b"{}");
}

#[test]
fn a_pull_goes_on_where_the_one_before_it_broke_off() {
    let repo = small();
    let home = Home::new(Server::new(&[("models/maker/writer", repo.clone())]));
    home.server.fault("/blobs/", 1, Action::Cut(3000));
    home.refused(1, &["pull", "maker/writer", "--accept-licence", "--retries", "0"], &["model.safetensors"]);
    let partial =
        home.cache().join(format!("models--maker--writer/blobs/{}.incomplete", repo.etag("model.safetensors")));
    assert_eq!(std::fs::metadata(&partial).unwrap().len(), 3000);
    home.server.seen();
    let said = home.done(&PULL);
    assert!(said.contains("3.00 kB of it are here from an earlier pull"), "{said}");
    let store = home.server.seen().into_iter().find(|request| request.host == "store").unwrap();
    assert_eq!(store.headers["range"], "bytes=3000-");
    let snapshot = home.snapshot("models--maker--writer");
    assert_eq!(std::fs::read(snapshot.join("model.safetensors")).unwrap(), repo.files["model.safetensors"]);
    assert!(!partial.exists());

    // A server that gives all in place of the rest, and leftovers that are not the beginning, cost time alone.
    for (leftover, action) in [
        (&repo.files["model.safetensors"][..100], Some(Action::WholeInsteadOfRange)),
        (&[9; 100], None),
        (&[9; 9000], None),
    ] {
        std::fs::remove_dir_all(home.cache()).unwrap();
        std::fs::create_dir_all(partial.parent().unwrap()).unwrap();
        std::fs::write(&partial, leftover).unwrap();
        if let Some(action) = action {
            home.server.fault("/blobs/", 1, action);
        }
        home.done(&PULL);
        assert_eq!(sha256(&std::fs::read(snapshot.join("model.safetensors")).unwrap()), repo.etag("model.safetensors"));
    }
}

#[test]
fn two_pulls_at_once_share_the_work() {
    let big: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    let repo = Repo::new(&[("a.safetensors", &big), ("b.safetensors", &big[1..]), ("config.json", b"{}")]);
    let home = Home::new(Server::new(&[("models/maker/writer", repo.clone())]));
    let outcomes = std::thread::scope(|scope| {
        let pulls = [(); 3].map(|()| scope.spawn(|| home.command(&PULL).output().unwrap()));
        pulls.map(|pull| outcome(pull.join().unwrap()))
    });
    for outcome in outcomes {
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    }
    let fetched = home.server.seen().iter().filter(|request| request.host == "store").count();
    assert_eq!(fetched, 2, "each content once");
    let snapshot = home.snapshot("models--maker--writer");
    for path in repo.files.keys() {
        assert_eq!(std::fs::read(snapshot.join(path)).unwrap(), repo.files[path], "{path}");
    }
    assert_eq!(std::fs::read_dir(snapshot.parent().unwrap()).unwrap().count(), 1, "no leftovers");
}

#[test]
fn a_dataset_comes_with_its_card_and_the_line_that_uses_it() {
    let repo = Repo::new(&[
        ("README.md", b"card"),
        ("data/test-00000-of-00001.parquet", b"PAR1 test"),
        ("data/train-00000-of-00001.parquet", b"PAR1 train"),
        ("load.py", b"import os"),
    ]);
    let home = Home { token: None, ..Home::new(Server::new(&[("datasets/CohereLabs/aya_dataset", repo)])) };
    // A mirror's listing may name the original in its links: nobody goes there.
    home.server.pages(1, Some("http://original.invalid"));
    let said = home.done(&["pull", "--dataset", "aya", "--accept-license"]);
    let snapshot = home.snapshot("datasets--CohereLabs--aya_dataset");
    let rows = snapshot.join("data/train-00000-of-00001.parquet");
    assert!(said.contains(&format!("make --prompts {} --language LANGUAGE", text(&rows))), "{said}");
    assert!(said.contains("--source-dataset CohereLabs/aya_dataset --source-license apache-2.0"), "{said}");
    assert_eq!(std::fs::read(rows).unwrap(), b"PAR1 train");
    assert_eq!(std::fs::read_link(snapshot.join("data/test-00000-of-00001.parquet")).unwrap().components().count(), 5);
    assert!(!snapshot.join("load.py").exists());
}

#[test]
fn names_of_the_list_patterns_and_revisions_choose() {
    let gguf = Repo::new(&[("w-Q4_K_M.gguf", b"four"), ("w-Q8_0.gguf", b"eight"), ("README.md", b"card")]);
    let repos = [("models/CohereLabs/tiny-aya-global", small()), ("models/maker/gguf", gguf)];
    let home = Home::new(Server::new(&repos));
    let said = home.done(&["pull", "tiny-aya-global", "--accept-licence"]);
    assert!(said.contains("NON-COMMERCIAL use only") && said.contains("acceptable-use policy"), "{said}");
    let folder = home.cache().join("models--CohereLabs--tiny-aya-global");
    // A branch with a slash has a folder; a commit needs no name.
    home.done(&["pull", "CohereLabs/tiny-aya-global", "--revision", "refs/pr/1"]);
    assert_eq!(std::fs::read_to_string(folder.join("refs/refs/pr/1")).unwrap(), COMMIT);
    home.done(&["pull", "CohereLabs/tiny-aya-global", "--revision", COMMIT]);
    assert!(!folder.join("refs").join(COMMIT).exists());

    let said = home.done(&["pull", "maker/gguf", "--file", "*Q4_K_M.gguf", "--accept-licence"]);
    let snapshot = home.snapshot("models--maker--gguf");
    assert!(said.contains(&format!("--generator {}", text(&snapshot.join("w-Q4_K_M.gguf")))), "{said}");
    assert!(!snapshot.join("w-Q8_0.gguf").exists());
    // More of the same commit joins what is there.
    home.done(&["pull", "maker/gguf", "--file", "*Q8_0.gguf", "--accept-licence"]);
    assert!(snapshot.join("w-Q8_0.gguf").exists() && snapshot.join("w-Q4_K_M.gguf").exists());
}

#[test]
fn a_token_may_lie_in_a_file_and_the_cache_elsewhere() {
    let home =
        Home { token: None, ..Home::new(Server::new(&[("models/maker/writer", Repo { gated: true, ..small() })])) };
    std::fs::write(home.path().join("token"), format!("{TOKEN}\n")).unwrap();
    let said = home.done(&PULL);
    assert!(said.contains("a form to be accepted"), "{said}");
    let elsewhere = home.path().join("elsewhere");
    let output = home.command(&PULL).env("HF_HUB_CACHE", &elsewhere).output().unwrap();
    assert!(output.status.success());
    assert!(elsewhere.join("models--maker--writer/snapshots").join(COMMIT).exists());
}
