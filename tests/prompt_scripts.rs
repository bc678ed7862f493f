//! Every script of the Aya languages, and emoji, through each kind of tokenizer that models have: byte-level BPE, and
//! SentencePiece's with byte fallback, with and without a prefix space, BPE and Unigram. A text comes back whole; token by
//! token it comes back the same, and never half a character.

use std::path::Path;

use pairwright::prompt::{ChatTokenizer, TemplateOptions};
use serde_json::{Value as Json, json};

const TEXTS: [(&str, &str); 31] = [
    ("Latin, Yoruba", "Ẹ káàárọ̀, ṣé àlàáfíà ni? Ọjọ́ méje ló wà nínú ọ̀sẹ̀."),
    ("Latin, Vietnamese", "Trời xanh vì ánh sáng bị tán xạ; Ngữ nghĩa ấy."),
    ("Latin, decomposed", "e\u{301}a\u{308}o\u{302}\u{301} z\u{335}"),
    ("Latin, Turkish", "İstanbul'da ığdır şöyle ğ."),
    ("Arabic", "لماذا السماء زرقاء؟ جُملةٌ قصيرة."),
    ("Arabic, Urdu", "آسمان نیلا کیوں ہے؟ ۱۲۳"),
    ("Arabic, Persian, joiners", "می‌خواهم کتاب‌ها را"),
    ("Arabic, Pashto and Sindhi", "ولې آسمان شين دی؟ ڇو ڪتاب ٻه"),
    ("Hebrew", "מדוע השמיים כחולים? שָׁלוֹם"),
    ("Devanagari, Hindi", "आसमान नीला क्यों होता है? क्षत्रिय ज्ञ"),
    ("Devanagari, Nepali", "आकाश किन नीलो छ? श्री"),
    ("Bengali", "আকাশ নীল কেন? ক্ষুদ্র"),
    ("Gurmukhi", "ਅਸਮਾਨ ਨੀਲਾ ਕਿਉਂ ਹੈ?"),
    ("Gujarati", "આકાશ વાદળી કેમ છે?"),
    ("Odia", "ଆକାଶ ନୀଳ କାହିଁକି?"),
    ("Tamil", "வானம் ஏன் நீலமாக உள்ளது? க்ஷ"),
    ("Telugu", "ఆకాశం నీలంగా ఎందుకు ఉంటుంది?"),
    ("Kannada", "ಆಕಾಶ ನೀಲಿ ಏಕೆ?"),
    ("Malayalam", "ആകാശം നീലയായത് എന്തുകൊണ്ട്? ന്‍"),
    ("Sinhala", "අහස නිල් ඇයි? ශ්‍රී ලංකා"),
    ("Burmese", "ကောင်းကင်က ဘာကြောင့် ပြာတာလဲ။"),
    ("Thai", "ทำไมท้องฟ้าถึงเป็นสีฟ้า น้ำ ๆ"),
    ("Lao and Khmer", "ເປັນຫຍັງທ້ອງຟ້າສີຟ້າ ហេតុអ្វីមេឃខៀវ"),
    ("Ethiopic", "ሰማዩ ለምን ሰማያዊ ነው? ስለምንታይ።"),
    ("Cyrillic", "Чому небо синє? Тоҷикӣ, қазақша, Ўзбек"),
    ("Greek", "Γιατί ο ουρανός είναι μπλε; ΐ"),
    ("Georgian and Armenian", "რატომ არის ცა ლურჯი? Ինչու՞"),
    ("Han", "天空为什么是蓝色的？𠮷野家，繁體"),
    ("Japanese", "空はなぜ青いのですか？ｶﾞ\u{3099}"),
    ("Hangul", "하늘은 왜 파란가요? 한글 자모 ㄱㅏ ᄀ\u{1161}"),
    ("emoji", "👩🏽\u{200d}🚀👨\u{200d}👩\u{200d}👧\u{200d}👦🏳\u{fe0f}\u{200d}🌈🇳🇱 1\u{fe0f}\u{20e3} \u{1f469}"),
];

fn load(json: &Json) -> ChatTokenizer {
    let options = TemplateOptions::new("2026-03-07".parse().unwrap());
    ChatTokenizer::from_parts(json.to_string().as_bytes(), None, None, &options).unwrap()
}

fn fixture(kind: &str) -> Json {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/prompt/{kind}.tokenizer.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Spaces become `▁` and nothing is put before a text, as Gemma has it.
fn without_prefix() -> Json {
    let mut json = fixture("prepend");
    json["normalizer"] = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    json["pre_tokenizer"] =
        json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false});
    json["decoder"] = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]});
    json
}

/// Unigram with byte fallback and a prefix space.
fn unigram() -> Json {
    let specials = ["<unk>", "<s>", "</s>"];
    let bytes = (0..256).map(|byte| json!([format!("<0x{byte:02X}>"), -9.0]));
    let letters = "▁abcdefghijklmnopqrstuvwxyzéčकनहािी्القمنСевτηα的。".chars().map(|c| json!([c.to_string(), -4.0]));
    let pieces = ["▁ni", "है", "ال", "но", "天空", "ที่"].map(|piece| json!([piece, -3.0]));
    let vocab: Vec<Json> =
        specials.map(|token| json!([token, 0.0])).into_iter().chain(bytes).chain(letters).chain(pieces).collect();
    let added: Vec<Json> = specials
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({"id": id, "content": content,
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}]},
        "model": {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": true},
    })
}

#[test]
fn every_script_comes_back_whole_and_in_whole_characters() {
    let kinds = [
        ("byte-level BPE", fixture("bytelevel")),
        ("BPE, Metaspace", fixture("metaspace")),
        ("BPE, Prepend", fixture("prepend")),
        ("BPE without prefix", without_prefix()),
        ("Unigram, Metaspace", unigram()),
    ];
    for (kind, json) in &kinds {
        let tokenizer = load(json);
        for (script, text) in TEXTS {
            let ids = tokenizer.encode_text(text).unwrap();
            let whole = tokenizer.decode(&ids, true).unwrap();
            assert_eq!(whole, text, "{kind}, {script}");
            let mut detokenizer = tokenizer.detokenizer(true);
            let mut pieces: Vec<String> = ids.iter().filter_map(|id| detokenizer.push(*id).unwrap()).collect();
            pieces.extend(detokenizer.finish().unwrap());
            assert_eq!(pieces.concat(), whole, "{kind}, {script}");
            assert!(
                pieces.iter().all(|piece| !piece.is_empty() && !piece.contains('\u{FFFD}')),
                "{kind}, {script}: {pieces:?}"
            );
            // Cut anywhere, what was said before the end stays as it was said.
            for cut in 0..ids.len() {
                let mut detokenizer = tokenizer.detokenizer(true);
                let said: String = ids[..cut].iter().filter_map(|id| detokenizer.push(*id).unwrap()).collect();
                assert!(whole.starts_with(&said), "{kind}, {script}, after {cut}: {said:?}");
            }
        }
    }
}
