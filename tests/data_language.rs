//! What a user types, matched against the languages a file holds, and the codes of a dataset card.
//! Rows are made up; how they are read from files is tested in `data.rs` and `data_parquet.rs`.

use pairwright::data::LanguageCount;
use pairwright::data::language::{LanguageMatch, MatchedBy, card_code, iso639_1, resolve};
use proptest::prelude::*;

/// Names and codes in the shape of Aya's column: names are narrow, codes sometimes macro-languages. The third entry is the
/// code a card should give.
const AYA: [(&str, &str, &str); 71] = [
    ("Plateau Malagasy", "mlg", "mg"),
    ("Sinhala", "sin", "si"),
    ("Tamil", "tam", "ta"),
    ("Yoruba", "yor", "yo"),
    ("Standard Malay", "msa", "ms"),
    ("Portuguese", "por", "pt"),
    ("Vietnamese", "vie", "vi"),
    ("Kyrgyz", "kir", "ky"),
    ("Telugu", "tel", "te"),
    ("Moroccan Arabic", "ary", "ary"),
    ("Somali", "som", "so"),
    ("Panjabi", "pan", "pa"),
    ("Japanese", "jpn", "ja"),
    ("Standard Arabic", "arb", "ar"),
    ("Turkish", "tur", "tr"),
    ("Nepali", "nep", "ne"),
    ("Gujarati", "guj", "gu"),
    ("English", "eng", "en"),
    ("Spanish", "spa", "es"),
    ("Marathi", "mar", "mr"),
    ("Hausa", "hau", "ha"),
    ("Simplified Chinese", "zho", "zh"),
    ("Wolof", "wol", "wo"),
    ("Traditional Chinese", "zho", "zh"),
    ("Zulu", "zul", "zu"),
    ("Malayalam", "mal", "ml"),
    ("Dutch", "nld", "nl"),
    ("Iranian Persian", "pes", "fa"),
    ("Bengali", "ben", "bn"),
    ("Igbo", "ibo", "ig"),
    ("Polish", "pol", "pl"),
    ("French", "fra", "fr"),
    ("Shona", "sna", "sn"),
    ("Swedish", "swe", "sv"),
    ("Irish", "gle", "ga"),
    ("Filipino", "fil", "fil"),
    ("Amharic", "amh", "am"),
    ("Hindi", "hin", "hi"),
    ("Southern Pashto", "pus", "ps"),
    ("Basque", "eus", "eu"),
    ("Lithuanian", "lit", "lt"),
    ("Indonesian", "ind", "id"),
    ("Finnish", "fin", "fi"),
    ("Italian", "ita", "it"),
    ("Cebuano", "ceb", "ceb"),
    ("Thai", "tha", "th"),
    ("Nyanja", "nya", "ny"),
    ("Urdu", "urd", "ur"),
    ("Greek", "ell", "el"),
    ("Egyptian Arabic", "arz", "arz"),
    ("Ukrainian", "ukr", "uk"),
    ("Burmese", "mya", "my"),
    ("Russian", "rus", "ru"),
    ("Xhosa", "xho", "xh"),
    ("Swahili", "swa", "sw"),
    ("Korean", "kor", "ko"),
    ("Kannada", "kan", "kn"),
    ("Sindhi", "snd", "sd"),
    ("Javanese", "jav", "jv"),
    ("German", "deu", "de"),
    ("Sundanese", "sun", "su"),
    ("Serbian", "srp", "sr"),
    ("Northern Sotho", "nso", "nso"),
    ("Najdi Arabic", "ars", "ars"),
    ("Ta'izzi-Adeni Arabic", "acq", "acq"),
    ("Tosk Albanian", "sqi", "sq"),
    ("Haitian", "hat", "ht"),
    ("Hungarian", "hun", "hu"),
    ("Danish", "dan", "da"),
    ("South Levantine Arabic", "apc", "apc"),
    ("Central Kurdish", "kur", "ckb"),
];

fn file(languages: &[(&str, &str)]) -> Vec<LanguageCount> {
    let count = |(position, (name, code)): (usize, &(&str, &str))| LanguageCount {
        name: (*name).to_owned(),
        code: (*code).to_owned(),
        num_rows: 1_000 - position as u64,
        num_with_response: 1,
    };
    languages.iter().enumerate().map(count).collect()
}

fn aya() -> Vec<LanguageCount> {
    file(&AYA.map(|(name, code, _)| (name, code)))
}

fn names(found: &LanguageMatch) -> Vec<&str> {
    found.languages.iter().map(|language| language.name.as_str()).collect()
}

/// The names that a query finds in a file, and how.
fn find(query: &str, file: &[LanguageCount]) -> (Vec<String>, MatchedBy) {
    let found = resolve(query, file).unwrap_or_else(|error| panic!("{error}"));
    (names(&found).into_iter().map(str::to_owned).collect(), found.matched_by)
}

#[test]
fn one_language_has_many_spellings() {
    let aya = aya();
    for (queries, name) in [
        (&["Dutch", "dutch", " DUTCH ", "nl", "NL", "nld", "nld_Latn", "nl-NL", "dut", "Flemish"][..], "Dutch"),
        (&["Farsi", "Iranian Persian", "Persian", "fa", "fas", "per", "pes", "pes_Arab"], "Iranian Persian"),
        (&["ta’izzi adeni arabic", "Ta'izzi-Adeni Arabic", "acq", "acq_Arab"], "Ta'izzi-Adeni Arabic"),
        (&["Standard Malay", "Malay", "ms", "msa", "zsm", "zsm_Latn", "may"], "Standard Malay"),
        (&["Malagasy", "mg", "mlg", "plt", "plt_Latn"], "Plateau Malagasy"),
        (&["ne", "nep", "npi", "npi_Deva", "Nepali"], "Nepali"),
        (&["sw", "swa", "swh", "swh_Latn", "Kiswahili"], "Swahili"),
        (&["ku", "kur", "ckb", "Sorani", "Kurdish", "ckb_Arab"], "Central Kurdish"),
        (&["sq", "sqi", "als", "Albanian", "alb"], "Tosk Albanian"),
        (&["ps", "pus", "pbt", "Pashto", "pbt_Arab"], "Southern Pashto"),
        (&["arb", "arb_Arab", "Modern Standard Arabic"], "Standard Arabic"),
        (&["ajp", "apc", "ajp_Arab", "Levantine Arabic"], "South Levantine Arabic"),
        (&["Modern Greek", "el", "gre"], "Greek"),
        (&["Kirghiz", "ky"], "Kyrgyz"),
        (&["Punjabi", "pa"], "Panjabi"),
        (&["Sepedi", "Pedi"], "Northern Sotho"),
        (&["Haitian Creole", "ht"], "Haitian"),
        (&["zho_Hans", "zh-CN", "cmn_Hans", "zh-Hans-SG"], "Simplified Chinese"),
        (&["zho_Hant", "zh_TW", "zh-HK"], "Traditional Chinese"),
    ] {
        for query in queries {
            assert_eq!(find(query, &aya).0, [name], "{query}");
        }
    }
}

#[test]
fn names_split_where_codes_merge() {
    let aya = aya();
    assert_eq!(find("simplified chinese", &aya), (vec!["Simplified Chinese".to_owned()], MatchedBy::Name));
    for query in ["zho", "zh", "cmn", "Chinese", "Mandarin Chinese"] {
        assert_eq!(find(query, &aya).0, ["Simplified Chinese", "Traditional Chinese"], "{query}");
    }
    assert_eq!(find("zho", &aya).1, MatchedBy::Code);
    assert_eq!(find("cmn", &aya).1, MatchedBy::MacroLanguage);
}

#[test]
fn a_macro_code_finds_all_its_members_and_lists_them() {
    let aya = aya();
    let (found, matched_by) = find("ara", &aya);
    assert_eq!(matched_by, MatchedBy::MacroLanguage);
    assert_eq!(
        found,
        [
            "Moroccan Arabic",
            "Standard Arabic",
            "Egyptian Arabic",
            "Najdi Arabic",
            "Ta'izzi-Adeni Arabic",
            "South Levantine Arabic"
        ]
    );
    assert_eq!(find("Arabic", &aya).0, found);
    assert_eq!(find("msa", &file(&[("Malay", "zsm"), ("Indonesian", "ind")])).0, ["Malay"], "Indonesian is its own");
}

#[test]
fn every_member_code_of_the_file_is_found_too() {
    let other = file(&[
        ("Plateau Malagasy", "plt"),
        ("Standard Malay", "zsm"),
        ("Central Kurdish", "ckb"),
        ("Northern Kurdish", "kmr"),
        ("Tosk Albanian", "als"),
        ("Southern Pashto", "pbt"),
    ]);
    for (query, name) in [("mlg", 0), ("ms", 1), ("ckb", 2), ("Kurmanji", 3), ("sq", 4), ("Pashto", 5), ("zsm", 1)] {
        assert_eq!(find(query, &other).0, [other[name].name.clone()], "{query}");
    }
    assert_eq!(find("ku", &other).0, ["Central Kurdish", "Northern Kurdish"]);
}

#[test]
fn a_dialect_is_not_found_under_the_macro_code_alone() {
    let generic = file(&[("Arabic", "ara")]);
    assert_eq!(find("arb", &generic), (vec!["Arabic".to_owned()], MatchedBy::MacroLanguage));
    assert!(resolve("arz", &generic).is_err(), "rows that only say Arabic are not known to be Egyptian");
    let narrow = file(&[("Egyptian Arabic", "ara")]);
    assert_eq!(find("arz", &narrow).0, ["Egyptian Arabic"], "the name tells");
    assert!(resolve("arb", &narrow).is_err());
}

#[test]
fn files_with_codes_alone_or_names_alone_are_understood() {
    let codes = file(&[("nld_Latn", ""), ("zho_Hans", ""), ("zho_Hant", "")]);
    assert_eq!(find("Dutch", &codes).0, ["nld_Latn"]);
    assert_eq!(find("zh-TW", &codes).0, ["zho_Hant"]);
    assert_eq!(find("zh", &codes).0, ["zho_Hans", "zho_Hant"]);
    let two_letters = file(&[("", "nl"), ("", "yo")]);
    let found = resolve("Yoruba", &two_letters).unwrap();
    assert_eq!(found.languages[0].to_string(), "yo");
    assert!(found.contains("", "yo") && !found.contains("", "nl"));
    let names = file(&[("Swahili", ""), ("Klingonic", "")]);
    assert_eq!(find("swh", &names).0, ["Swahili"]);
    assert_eq!(
        find("klingonic", &names),
        (vec!["Klingonic".to_owned()], MatchedBy::Name),
        "the file's own word counts"
    );
    let spellings = file(&[("Dutch", "nld"), ("Dutch", "nl"), ("dutch", "dut")]);
    assert_eq!(find("nld", &spellings).0.len(), 3);
    assert_eq!(resolve("Dutch", &spellings).unwrap().languages.len(), 3);
}

#[test]
fn a_name_that_contradicts_its_code_is_not_believed() {
    let contradictory = file(&[("English", "nld"), ("Yoruba", "yor")]);
    assert_eq!(find("nl", &contradictory).0, ["English"]);
    assert!(resolve("en", &contradictory).is_err());
}

#[test]
fn an_unknown_language_is_met_with_the_closest() {
    let aya = aya();
    for (query, first) in [
        ("Duch", "Dutch (nld)"),
        ("Yoruuba", "Yoruba (yor)"),
        ("Malgasy", "Plateau Malagasy (mlg)"),
        ("nldd", "Dutch (nld)"),
        ("tl", "Filipino (fil)"),
        ("Kurmanji", "Central Kurdish (kur)"),
        ("arq", "Moroccan Arabic (ary)"),
    ] {
        let error = resolve(query, &aya).unwrap_err();
        assert!(error.suggestions.iter().any(|language| language == first), "{error}");
        assert!((1..=5).contains(&error.suggestions.len()), "{error}");
    }
    let error = resolve("he", &aya).unwrap_err();
    assert_eq!(error.recognised.as_deref(), Some("Hebrew (heb)"));
    let message = error.to_string();
    assert!(
        message.starts_with("no rows in `he`: Hebrew (heb) is known, but not among them; the file holds 71"),
        "{message}"
    );
    assert!(message.contains("\nhint: ") && message.contains("`pairwright languages FILE`"), "{message}");
    let error = resolve("", &aya).unwrap_err();
    assert_eq!((error.recognised, error.num_languages), (None, 71));
    assert!(resolve("nl", &[]).unwrap_err().suggestions.is_empty());
    let none = [LanguageCount { name: "(none)".into(), code: String::new(), num_rows: 3, num_with_response: 0 }];
    assert_eq!(resolve("nl", &none).unwrap_err().num_languages, 0);
}

#[test]
fn the_card_gets_two_letters_where_there_are_two() {
    for (name, code, card) in AYA {
        assert_eq!(card_code(name, code).as_deref(), Some(card), "{name} {code}");
        assert!(card_code("", code).is_some(), "{code}");
    }
    for (name, code, card) in [
        ("Moroccan Arabic", "ara", Some("ary")),
        ("Plateau Malagasy", "plt", Some("mg")),
        ("Standard Malay", "zsm", Some("ms")),
        ("Central Kurdish", "ckb", Some("ckb")),
        ("", "nld_Latn", Some("nl")),
        ("Dutch", "", Some("nl")),
        ("nld", "", Some("nl")),
        ("Swahili", "swh", Some("sw")),
        ("English", "nld", Some("nl")),
        ("Klingonic", "qqq", None),
        ("", "", None),
    ] {
        assert_eq!(card_code(name, code).as_deref(), card, "{name} {code}");
    }
}

#[test]
fn two_letter_codes_come_from_names_and_codes() {
    for (query, code) in [
        ("Dutch", Some("nl")),
        ("nld", Some("nl")),
        ("NL", Some("nl")),
        ("yor_Latn", Some("yo")),
        ("Standard Malay", Some("ms")),
        ("zsm", Some("ms")),
        ("Swahili", Some("sw")),
        ("ceb", None),
        ("ary", None),
        ("Moroccan Arabic", None),
        ("nonsense", None),
        ("", None),
    ] {
        assert_eq!(iso639_1(query), code, "{query}");
    }
}

proptest! {
    /// Any query is answered, a name or code of the file always finds its own rows, and results are of the file.
    #[test]
    fn queries_never_panic_and_only_find_what_is_there(query in "\\PC{0,12}", position in 0..71_usize) {
        let aya = aya();
        if let Ok(found) = resolve(&query, &aya) {
            prop_assert!(!found.languages.is_empty());
            prop_assert!(found.languages.iter().all(|language| aya.contains(language)));
        }
        let own = &aya[position];
        for query in [&own.name, &own.code] {
            prop_assert!(resolve(query, &aya).is_ok_and(|found| found.contains(&own.name, &own.code)));
        }
        let _ = (card_code(&query, &query), iso639_1(&query));
    }
}
