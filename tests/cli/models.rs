//! `models list` and `models show`: what they print, for people and as JSON, and what they refuse.

use super::program::done;
use super::refused;
use super::workshop::Workshop;

fn rows(arguments: &[&str]) -> Vec<String> {
    let stdout = done(&[&["models", "list"], arguments].concat());
    stdout.lines().skip(1).take_while(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn json(arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&done(arguments)).unwrap()
}

#[test]
fn the_table_is_aligned_and_the_filters_only_take_away() {
    let all = rows(&[]);
    assert!(all.len() >= 20);
    let licence = |line: &String| line.find("Apache-2.0").or(line.find("MIT"));
    let columns: std::collections::BTreeSet<_> = all.iter().filter_map(licence).collect();
    assert_eq!(columns.len(), 1, "one column for licences");
    let first = |lines: &[String]| -> Vec<String> {
        lines.iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    let names = first(&all);
    let filters: [&[&str]; 5] = [
        &["--language", "yor"],
        &["--role", "reward"],
        &["--licence", "open"],
        &["--fits", "24GB"],
        &["--language", "Dutch", "--role", "judge", "--licence", "open", "--fits", "16GiB"],
    ];
    for filter in filters {
        let some = first(&rows(filter));
        assert!(!some.is_empty() && some.len() < names.len(), "{filter:?}");
        assert!(some.iter().all(|name| names.contains(name)), "{filter:?}");
    }
    assert!(rows(&["--licence", "open"]).iter().all(|line| !line.contains("non-commercial")));
}

#[test]
fn a_budget_names_the_precision_and_what_was_set_aside() {
    let stdout = done(&["models", "list", "--fits", "8GB"]);
    let eight_billion = stdout.lines().find(|line| line.starts_with("qwen3-8b")).unwrap();
    assert!(eight_billion.contains("q4k 7.8 GB"), "8.2 × 4.5 / 8 + 3.2: {eight_billion}");
    assert!(stdout.contains("weights and 3.2 GB for KV cache and work, within 8.0 GB"), "{stdout}");
    assert!(!stdout.contains("70b"));
    let listed = json(&["models", "list", "--fits", "8GB", "--json"]);
    for model in listed["models"].as_array().unwrap() {
        let total = model["fit"]["total_bytes"].as_u64().unwrap();
        assert!(total <= 8_000_000_000, "{model}");
        assert_eq!(total, model["fit"]["weight_bytes"].as_u64().unwrap() + listed["allowance_bytes"].as_u64().unwrap());
    }
}

#[test]
fn models_that_name_no_languages_are_told_apart_from_those_that_name_this_one() {
    let stdout = done(&["models", "list", "--language", "Yoruba"]);
    let (table, notes) = stdout.split_once("\n\n").unwrap();
    assert!(table.contains("tiny-aya-earth") && !table.contains("apertus"), "{stdout}");
    assert!(notes.contains("may know it too") && notes.contains("apertus-8b-instruct-2509"), "{stdout}");
}

#[test]
fn one_model_is_shown_with_every_fact_its_sources_and_the_way_to_it() {
    let entry = json(&["models", "show", "EuroLLM-9B-Instruct", "--json"]);
    let stdout = done(&["models", "show", "utter-project/EuroLLM-9B-Instruct"]);
    for source in entry["sources"].as_array().unwrap() {
        assert!(stdout.contains(source["url"].as_str().unwrap()), "{stdout}");
    }
    for code in entry["languages"].as_array().unwrap() {
        assert!(stdout.contains(&format!("({})", code.as_str().unwrap())), "{code} in {stdout}");
    }
    let commit = entry["commit"].as_str().unwrap();
    assert!(stdout.contains(&format!("hf download utter-project/EuroLLM-9B-Instruct --revision {commit}")), "{stdout}");
    for said in ["9.15B", "4K tokens", "any use", "bf16 18.3 GB", "a turn of its own (unverified)", "models verify"] {
        assert!(stdout.contains(said), "want {said:?} in\n{stdout}");
    }
    let aya = done(&["models", "show", "aya-23-8b"]);
    for said in ["NON-COMMERCIAL use only", "acceptable-use policy", "contaminated", "not known to this list"] {
        assert!(aya.contains(said), "want {said:?} in\n{aya}");
    }
}

#[test]
fn a_whole_model_is_verified_with_what_it_is_and_runs_as() {
    let verified = |path: &str, said: &[&str]| {
        let path = format!("{}/tests/fixtures/{path}", env!("CARGO_MANIFEST_DIR"));
        let stdout = done(&["models", "verify", &path, "--deep", "--quiet"]);
        for word in said.iter().chain(&[": whole", "every one is a finite number"]) {
            assert!(stdout.contains(word), "want {word:?} in\n{stdout}");
        }
    };
    verified("models/llama", &["llama, 3 layers", "F32 (30 tensors)", "512 tokens", "as generator and as judge"]);
    verified("models/qwen3_reward", &["qwen3", "as reward model: 3 scores per answer"]);
    verified("gguf/llama_q8_0.gguf", &["llama, 3 layers", "Q8_0 (", "as generator and as judge"]);
}

#[test]
fn tokens_without_a_row_that_no_text_reaches_are_told_and_let_pass() {
    let workshop = Workshop::new();
    let model = super::damage::model(&workshop, "m", "llama");
    let path = model.join("tokenizer.json");
    let mut tokenizer: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let extra = serde_json::json!({"id": 384, "content": "<|one too many|>", "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": true});
    tokenizer["added_tokens"].as_array_mut().unwrap().push(extra);
    std::fs::write(path, tokenizer.to_string()).unwrap();
    let stdout = done(&["models", "verify", model.to_str().unwrap()]);
    assert!(stdout.contains("385 tokens, 1 of them, which no text reaches, without a row"), "{stdout}");
}

#[test]
fn another_list_takes_the_place_of_the_built_in_one() {
    let workshop = Workshop::new();
    let own = workshop.write(
        "own.toml",
        "format = 1\n[[model]]\nname = \"ours\"\nhub_id = \"us/ours\"\nfamily = \"llama\"\nparameters = 1000000\n\
         context = 512\nlicence = \"MIT\"\nlicence_kind = \"open\"\nlanguages = [\"sin\"]\nroles = [\"generator\"]\n\
         system_prompt = \"no\"\nthinking = \"unknown\"\naya_data = \"no\"\nstated_memory = \"a handful\"\n\
         sources = [{ facts = \"all\", url = \"https://example.org\" }]\n",
    );
    let own = own.to_str().unwrap();
    let listed = done(&["models", "list", "--registry", own, "--language", "Sinhala"]);
    assert!(listed.contains("ours") && listed.contains("1 of 1 models"), "{listed}");
    let shown = done(&["models", "show", "ours", "--registry", own]);
    assert!(shown.contains("Sinhala (sin)") && shown.contains("its makers state a handful"), "{shown}");
    let broken = workshop.write("broken.toml", "format = 1\n[[model]]\nname = \"x\"\n");
    let refuse = |file: &str, said: &[&str]| {
        refused(3, &workshop.path("."), &["models", "list", "--registry", file], said);
    };
    refuse(broken.to_str().unwrap(), &["broken.toml is not a list of models", "missing field"]);
    refuse(&workshop.arg("nowhere.toml"), &["nowhere.toml cannot be read"]);
}

#[test]
fn misspelt_names_languages_and_roles_are_met_with_the_closest() {
    let workshop = Workshop::new();
    let folder = workshop.path(".");
    refused(3, &folder, &["models", "show", "aya-expance-8b"], &["did you mean aya-expanse-8b"]);
    refused(3, &folder, &["models", "list", "--language", "Yoruva"], &["not a language", "did you mean Yoruba (yor)"]);
    refused(3, &folder, &["models", "list", "--language", "sin"], &["Sinhala (sin) is known, but no maker"]);
    refused(2, &folder, &["models", "list", "--role", "jugde"], &["similar value exists: 'judge'"]);
    refused(2, &folder, &["models", "list", "--fits", "much"], &["want a size such as 2GiB"]);
}
