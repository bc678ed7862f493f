//! The list of models: the built-in one is whole and honest, another one is checked, and choosing keeps its promises.

use pairwright::data::language;
use pairwright::registry::{ALLOWANCE_BYTES, LicenceKind, PRECISIONS, Registry, RegistryError, Role, Wanted};

/// One entry, with `lines` in place of those that start alike.
fn entry(lines: &[&str]) -> String {
    let mut text = vec![
        "[[model]]",
        "name = \"a\"",
        "hub_id = \"o/A\"",
        "family = \"llama\"",
        "parameters = 1_000_000_000",
        "context = 8192",
        "licence = \"MIT\"",
        "licence_kind = \"open\"",
        "languages = [\"yor\"]",
        "roles = [\"judge\"]",
        "system_prompt = \"yes\"",
        "thinking = \"none\"",
        "aya_data = \"unknown\"",
        "sources = [{ facts = \"all\", url = \"https://example.org\" }]",
    ];
    for line in lines {
        let key = line.split(' ').next().unwrap();
        text.retain(|old| !old.starts_with(&format!("{key} ")));
        text.push(line);
    }
    text.join("\n") + "\n"
}

fn parse(entries: &[String]) -> Result<Registry, RegistryError> {
    Registry::parse(&format!("format = 1\n{}", entries.concat()), "a.toml")
}

fn refusal(lines: &[&str]) -> String {
    parse(&[entry(lines)]).expect_err("a wrong entry").to_string()
}

fn names(registry: &Registry, wanted: &Wanted) -> Vec<String> {
    registry.select(wanted).unwrap().models.iter().map(|(entry, _)| entry.name.clone()).collect()
}

#[test]
fn the_built_in_list_has_models_for_every_role_and_many_languages() {
    let registry = Registry::embedded().unwrap();
    assert!(registry.models().len() >= 20);
    for role in [Role::Generator, Role::Judge, Role::Reward] {
        let wanted = Wanted { role: Some(role), ..Wanted::default() };
        assert!(names(&registry, &wanted).len() >= 4, "{role:?}");
    }
    for query in ["Yoruba", "nl", "sin", "Hausa", "Arabic", "Welsh"] {
        let wanted = Wanted { language: Some(query.to_owned()), ..Wanted::default() };
        let found = registry.select(&wanted);
        match query {
            "sin" => assert!(found.is_err(), "no maker names Sinhala; change this test when one does"),
            _ => assert!(!found.unwrap().models.is_empty(), "{query}"),
        }
    }
}

#[test]
fn every_entry_is_of_a_family_that_runs_here_or_says_that_it_does_not_run() {
    for entry in Registry::embedded().unwrap().models() {
        let known = pairwright::model::arch::families().any(|family| family == entry.family);
        assert!(known || !entry.supported, "{}: no family `{}`", entry.name, entry.family);
    }
}

#[test]
fn licences_that_forbid_or_say_nothing_are_not_open() {
    for entry in Registry::embedded().unwrap().models() {
        let open = ["Apache-2.0", "MIT"].contains(&entry.licence.as_str());
        assert_eq!(open, entry.licence_kind == LicenceKind::Open, "{}", entry.name);
        if entry.licence.contains("-NC-") {
            assert_eq!(entry.licence_kind, LicenceKind::NonCommercial, "{}", entry.name);
            assert!(entry.terms.is_some(), "{}: Cohere Labs' models come with a policy", entry.name);
        }
    }
}

#[test]
fn every_language_of_the_built_in_list_has_a_name_and_stands_in_it_once() {
    for entry in Registry::embedded().unwrap().models() {
        for (index, code) in entry.languages.iter().enumerate() {
            assert!(language::english_name(code).is_some(), "{}: {code}", entry.name);
            assert!(!entry.languages[..index].contains(code), "{}: {code} twice", entry.name);
        }
    }
}

#[test]
fn wrong_entries_are_named() {
    assert!(parse(&[entry(&[])]).is_ok());
    let cases: [(&[&str], &str); 16] = [
        (&["layers = 32"], "layers, kv_heads and head_dim want numbers above 0, all three of them or none"),
        (&["layers = 32", "kv_heads = 0", "head_dim = 128"], "all three of them or none"),
        (&["name = \"A b\""], "name wants lower-case"),
        (&["hub_id = \"o\""], "want OWNER/NAME"),
        (&["commit = \"abc\""], "want 40 lower-case hexadecimal digits"),
        (&["parameters = 0"], "above 0"),
        (&["active_parameters = 2_000_000_000"], "want 1 to parameters (1000000000)"),
        (&["languages = [\"yo\"]"], "`yo` is no ISO 639-3 code"),
        (&["supported = false"], "notes that say why"),
        (&["names_all_languages = false"], "wants a languages_note"),
        (&["roles = []"], "at least one entry each"),
        (&["sources = [{ facts = \"all\", url = \"http://example.org\" }]"], "an https address"),
        (&["unverified = [\"licenze\"]"], "`licenze`, which this entry does not have"),
        (&["unverified = [\"terms\"]"], "`terms`, which this entry does not have"),
        (&["roles = [\"jugde\"]"], "unknown variant `jugde`, expected one of `generator`, `judge`, `reward`"),
        (&["licens = \"MIT\""], "unknown field `licens`"),
    ];
    for (lines, said) in cases {
        let message = refusal(lines);
        assert!(message.contains(said) && message.contains("a.toml") && message.contains("\nhint: "), "{message}");
    }
    let twice = parse(&[entry(&[]), entry(&[])]).unwrap_err().to_string();
    assert!(twice.contains("`a` stands in it twice"), "{twice}");
    let format = Registry::parse("format = 2\nmodel = []", "a.toml").unwrap_err().to_string();
    assert!(format.contains("format is 2, want 1"), "{format}");
}

#[test]
fn cards_and_shapes_are_whole_and_say_where_they_are_from() {
    let registry = Registry::embedded().unwrap();
    // A card for each memory that plans speak of.
    let memories: std::collections::BTreeSet<u64> = registry.cards().iter().map(|card| card.memory_gb).collect();
    assert_eq!(memories.into_iter().collect::<Vec<_>>(), [16, 24, 40, 48, 80, 141]);
    for card in registry.cards() {
        assert!(card.fp8_tflops.is_none_or(|fp8| fp8 > card.bf16_tflops), "{}", card.name);
        // What a step of one token reads is seconds of bandwidth, what a large one computes is products: the ridge lies between 50 and 600.
        let ridge = card.bf16_tflops * 1e3 / card.bandwidth_gb_s;
        assert!((50.0..600.0).contains(&ridge), "{}: {ridge}", card.name);
        assert!(card.sources.iter().all(|source| source.url.starts_with("https://")), "{}", card.name);
    }
    assert_eq!(registry.card("a100-80gb").unwrap().name, "A100 80GB");
    // What stands in a name once is enough of it; what stands in two is not.
    for (asked, name) in [("h100", "H100 80GB"), ("4090", "RTX 4090"), ("80gb h100", "H100 80GB")] {
        assert_eq!(registry.card(asked).unwrap().name, name);
    }
    let error = registry.card("A100").unwrap_err().to_string();
    assert!(error.contains("A100 40GB") && error.contains("A100 80GB"), "{error}");
    assert!(registry.card("").is_err());
    let error = registry.card("H1000").unwrap_err().to_string();
    assert!(error.contains("did you mean H100 80GB") && error.contains("there are RTX A4000"), "{error}");
    // Nearly every model that runs has the numbers of its cache, in a plausible range: 16 KiB to 1 MiB a token in 16 bits.
    let known: Vec<_> =
        registry.models().iter().filter_map(|entry| Some((entry, entry.kv_bytes_per_token(2)?))).collect();
    assert!(known.len() >= 40, "{}", known.len());
    for (entry, bytes) in known {
        assert!((16 << 10..1 << 20).contains(&bytes), "{}: {bytes}", entry.name);
    }
    assert_eq!(registry.find("llama-3.1-8b-instruct").unwrap().kv_bytes_per_token(2), Some(131_072));
    let card = "[[card]]\nname = \"c\"\nmemory_gb = 0\nbandwidth_gb_s = 1\nbf16_tflops = 1\nwatts = 1\nsources = []\n";
    let error = Registry::parse(&format!("format = 1\nmodel = []\n{card}"), "a.toml").unwrap_err().to_string();
    assert!(error.contains("card `c`") && error.contains("above 0"), "{error}");
}

#[test]
fn a_macro_language_is_its_standard_member_where_makers_name_it() {
    let registry = parse(&[entry(&["languages = [\"ara\", \"nld\", \"tgl\", \"zho\"]"])]).unwrap();
    let model = &registry.models()[0];
    for (name, code, states) in [
        ("Standard Arabic", "arb", true),
        ("Moroccan Arabic", "ary", false),
        ("Dutch", "nld", true),
        ("Filipino", "fil", true),
        ("Simplified Chinese", "zho", true),
        ("Yoruba", "yor", false),
    ] {
        assert_eq!(model.states(name, code), states, "{name}");
    }
}

#[test]
fn a_model_fits_at_the_widest_precision_that_leaves_the_allowance() {
    let registry = parse(&[entry(&[])]).unwrap();
    let model = registry.find("o/a").unwrap();
    // 10⁹ parameters at 16, 8.5, 6.5625, 5.5 and 4.5 bits.
    let bytes = PRECISIONS.map(|precision| precision.bytes(model.parameters));
    assert_eq!(bytes, [2_000_000_000, 1_062_500_000, 820_312_500, 687_500_000, 562_500_000]);
    for (precision, bytes) in PRECISIONS.iter().zip(bytes) {
        let fit = model.fit(ALLOWANCE_BYTES + bytes).unwrap();
        assert_eq!((fit.precision.name, fit.weight_bytes), (precision.name, bytes));
        assert_eq!(fit.total_bytes, ALLOWANCE_BYTES + bytes);
    }
    assert_eq!(model.fit(ALLOWANCE_BYTES + bytes[4] - 1), None);
    assert_eq!(model.fit(u64::MAX).unwrap().precision.name, "bf16");
}

#[test]
fn languages_are_found_by_name_code_and_macro_language_and_unnamed_ones_are_kept_apart() {
    let open_ended = ["name = \"more\"", "names_all_languages = false", "languages_note = \"many\"", "languages = []"];
    let entries = [
        entry(&[]),
        entry(&[
            "name = \"big\"",
            "parameters = 2_000_000_000",
            "languages = [\"ara\", \"yor\"]",
            "licence_kind = \"restricted\"",
        ]),
        entry(&open_ended),
        entry(&["name = \"moroccan\"", "languages = [\"ary\"]"]),
    ];
    let registry = parse(&entries).unwrap();
    let of = |query: &str| Wanted { language: Some(query.to_owned()), ..Wanted::default() };
    for query in ["yor", "yo", "Yoruba", "YORUBA"] {
        let selection = registry.select(&of(query)).unwrap();
        let found: Vec<&str> = selection.models.iter().map(|(entry, _)| entry.name.as_str()).collect();
        assert_eq!(found, ["big", "a"], "{query}: largest first");
        assert_eq!(selection.perhaps.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["more"]);
    }
    assert_eq!(names(&registry, &of("Arabic")), ["big", "moroccan"], "a macro-language brings its members");
    assert_eq!(names(&registry, &of("arb")), ["big"], "its standard member is meant by its code");
    let open = Wanted { open_licence: true, ..of("yor") };
    assert_eq!(names(&registry, &open), ["a"]);
    let small = Wanted { budget: Some(ALLOWANCE_BYTES + 600_000_000), ..Wanted::default() };
    assert_eq!(names(&registry, &small), ["a", "more", "moroccan"]);
    let message = registry.select(&of("Dutch")).unwrap_err().to_string();
    assert!(message.contains("Dutch (nld) is known, but no maker"), "{message}");
    let message = registry.select(&of("Yoruva")).unwrap_err().to_string();
    assert!(message.contains("did you mean Yoruba (yor)"), "{message}");
}

#[test]
fn a_name_that_is_not_there_is_met_with_the_closest() {
    let registry = Registry::embedded().unwrap();
    assert_eq!(registry.find("CohereLabs/aya-expanse-8b").unwrap().name, "aya-expanse-8b");
    let message = registry.find("aya-expance-8b").unwrap_err().to_string();
    assert!(message.contains("did you mean aya-expanse-8b"), "{message}");
    let message = registry.find("").unwrap_err().to_string();
    assert!(message.contains("hint: names are those of the first column"), "{message}");
}
