//! Languages of texts, and profiles as files. Knows small texts of ours and of the Universal Declaration of Human Rights.

use pairwright::quality::{
    Labelled, LanguageVerdict, Measured, Profile, check_language, default_profile, measure, train,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::paragraphs;

fn small() -> Profile {
    let texts: Vec<(&str, String)> = ["nld", "swa", "rus"]
        .into_iter()
        .flat_map(|code| paragraphs(code).into_iter().map(move |text| (code, text)))
        .collect();
    let labelled: Vec<Labelled<'_>> = texts.iter().map(|(code, text)| Labelled { code, text }).collect();
    let half = labelled.iter().copied().step_by(2).collect::<Vec<_>>();
    let other = labelled.iter().copied().skip(1).step_by(2).collect::<Vec<_>>();
    let measured = measure(&train(&half, Vec::new(), &Measured::default(), ""), &other);
    assert!(measured.macro_accuracy().unwrap() > 0.95, "{measured:?}");
    train(&half, vec![("udhr".to_owned(), "0".repeat(64))], &measured, "every other paragraph")
}

#[test]
fn a_profile_is_the_same_after_a_file_and_in_any_order() {
    let profile = small();
    let bytes = profile.encode();
    let read = Profile::decode(&bytes, "bytes").unwrap();
    assert_eq!(read, profile);
    assert_eq!(read.encode(), bytes);
    let own = default_profile();
    assert_eq!(Profile::decode(&own.encode(), "own").unwrap(), *own);
    assert!(own.encode().len() <= 3_000_000);
}

#[test]
fn damaged_and_forged_profiles_are_refused() {
    let bytes = small().encode();
    for at in (0..bytes.len()).step_by(bytes.len() / 300 + 1) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x20;
        assert!(Profile::decode(&damaged, "flipped").is_err(), "byte {at}");
        assert!(Profile::decode(&bytes[..at], "cut").is_err(), "{at} bytes");
    }
    // What has a right checksum may still mean harm: counts and lengths are held against what is there.
    let header = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
    let sign = |mut body: Vec<u8>| {
        let sum = xxh3_64(&body);
        body.extend(sum.to_le_bytes());
        body
    };
    let body = &bytes[..bytes.len() - 8];
    for place in [8, 12 + header] {
        let mut forged = body.to_vec();
        forged[place..place + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Profile::decode(&sign(forged), "huge").is_err());
    }
    for at in (12 + header..body.len()).step_by(body.len() / 200 + 1) {
        let mut forged = body.to_vec();
        forged[at] = forged[at].wrapping_add(101);
        let _ = Profile::decode(&sign(forged), "forged");
    }
    let message = Profile::decode(b"nothing of the kind", "x.lid").unwrap_err().to_string();
    assert!(message.contains("x.lid") && message.contains("hint:"), "{message}");
}

fn verdict(text: &str, code: &str) -> LanguageVerdict {
    check_language(default_profile(), text, &[code]).verdict
}

#[test]
fn languages_with_two_scripts_are_right_in_both() {
    for (code, text) in [
        (
            "hbs",
            "Сва људска бића рађају се слободна и једнака у достојанству и правима. Она су обдарена разумом и свешћу.",
        ),
        (
            "hbs",
            "Sva ljudska bića rađaju se slobodna i jednaka u dostojanstvu i pravima. Ona su obdarena razumom i svešću.",
        ),
        (
            "kur",
            "Hemû mirov azad û di weqar û mafan de wekhev tên dinyayê. Ew xwedî hiş û şuûr in û divê li hember hev bilivin.",
        ),
        (
            "kur",
            "هەموو مرۆڤەکان بە ئازادی و بە یەکسانی لە کەرامەت و مافەکاندا لەدایک دەبن و دەبێ لەگەڵ یەکتر بە برایەتی ڕەفتار بکەن.",
        ),
        ("pan", "ਸਾਰਾ ਮਨੁੱਖੀ ਪਰਿਵਾਰ ਆਪਣੀ ਮਹਿਮਾ, ਸ਼ਾਨ ਅਤੇ ਹੱਕਾਂ ਦੇ ਪੱਖੋਂ ਜਨਮ ਤੋਂ ਹੀ ਆਜ਼ਾਦ ਹੈ।"),
    ] {
        assert_eq!(verdict(text, code), LanguageVerdict::Ok, "{text}");
    }
}

#[test]
fn code_addresses_and_quotations_are_no_prose() {
    let dutch =
        "Zo druk je in deze taal een regel af, en zo lees je hem weer in. Dat gaat op elk besturingssysteem hetzelfde.";
    let code = "```\nfor every_line in the_whole_file: print_the_line_again(every_line, with_a_colour)\n```";
    let link =
        "Zie https://example.org/this/is/all/in/english/and/it/is/rather/long en www.example.com/what-ever-this-is.";
    let quoted = "De zin \"the quick brown fox jumps over the lazy dog and runs away from it\" bevat alle letters van het alfabet.";
    for text in [
        format!("{dutch}\n{code}\n{dutch}"),
        format!("{dutch}\n{link}"),
        format!("{dutch}\n{quoted}\n> This is what they wrote back then"),
    ] {
        let report = check_language(default_profile(), &text, &["nld"]);
        assert_eq!(report.verdict, LanguageVerdict::Ok, "{report:?}");
    }
}

#[test]
fn right_to_left_text_is_told_apart() {
    let urdu = "تمام انسان آزاد اور حقوق و عزت کے اعتبار سے برابر پیدا ہوئے ہیں۔ انہیں ضمیر اور عقل ودیعت ہوئی ہے۔";
    let persian =
        "تمام افراد بشر آزاد به دنیا می‌آیند و از لحاظ حیثیت و حقوق با هم برابرند. همه دارای عقل و وجدان می‌باشند.";
    let hebrew = "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה ובמצפון.";
    assert_eq!(verdict(urdu, "urd"), LanguageVerdict::Ok);
    assert_eq!(verdict(persian, "fas"), LanguageVerdict::Ok);
    assert_eq!(verdict(persian, "urd"), LanguageVerdict::Wrong);
    assert_eq!(verdict(hebrew, "fas"), LanguageVerdict::Wrong);
}

#[test]
fn halves_are_mixed_and_short_or_unknown_texts_are_unsure() {
    let [dutch, swahili] = ["nld", "swa"].map(|code| paragraphs(code)[10..13].join("\n"));
    assert_eq!(verdict(&format!("{dutch}\n{swahili}"), "nld"), LanguageVerdict::Mixed);
    assert_eq!(verdict(&swahili, "nld"), LanguageVerdict::Wrong);
    assert_eq!(verdict("Ja, dat klopt.", "swa"), LanguageVerdict::Unsure);
    assert_eq!(verdict(&dutch, "tlh"), LanguageVerdict::Unsure);
    // A translation was asked for: both languages are right.
    let both = check_language(default_profile(), &swahili, &["nld", "swa"]);
    assert_eq!(both.verdict, LanguageVerdict::Ok);
}

/// Aya's languages, by `broad_code`.
const AYA: &str = "amh ara ben ceb dan deu ell eng eus fas fil fin fra gle guj hat hau hbs hin hun ibo ind ita jav jpn kan kir kor kur \
                   lit mal mar mlg msa mya nep nld nso nya pan pol por pus rus sin sna snd som spa sqi sun swa swe tam tel tha tur \
                   ukr urd vie wol xho yor zho zul";

#[test]
fn the_programs_profile_was_measured_in_every_language_of_aya() {
    let profile = default_profile();
    let (mut sum, mut validated, mut blind) = (0.0, 0, Vec::new());
    for code in AYA.split_whitespace() {
        let language = profile.language(code).expect(code);
        assert!(language.num_held_out >= 80, "{code}: {} held-out texts", language.num_held_out);
        sum += language.num_correct as f64 / language.num_held_out as f64;
        if language.is_validated() {
            validated += 1;
            assert!(language.num_wrong_vetoes * 100 <= language.num_held_out, "{code}");
        }
        if language.close_to.iter().any(|close| close == "eng") {
            blind.push(code);
        }
    }
    assert!(sum / 65.0 >= 0.98, "macro accuracy {}", sum / 65.0);
    assert_eq!(validated, 64, "all but Sindhi");
    // What is taken for English by mistake is English in the training text: such a language would never be told from it.
    assert_eq!(blind, ["yor"]);
}

#[test]
fn english_is_called_wrong_in_malay_and_xhosa_and_neighbours_are_not() {
    let english =
        "The file could not be opened because it was moved to another folder while the program was still running.";
    let malay = "Fail itu tidak dapat dibuka kerana ia telah dialihkan ke folder lain semasa program masih berjalan.";
    for code in ["msa", "xho", "ceb", "jav"] {
        assert_eq!(verdict(english, code), LanguageVerdict::Wrong, "{code}");
    }
    assert_eq!(verdict(malay, "msa"), LanguageVerdict::Ok);
    assert_ne!(verdict(malay, "ind"), LanguageVerdict::Wrong);
}
