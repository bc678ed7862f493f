//! The languages of the world as codes: ISO 639 in its several parts, macro-languages, and names people use.
//! Knows tables (the `isolang` crate's, and the small ones here); does not know what any file holds.

use std::collections::HashMap;
use std::sync::LazyLock;

use isolang::Language;

/// A macro-language of ISO 639-3: one code for a group whose members have codes of their own.
pub(super) struct MacroLanguage {
    /// Its ISO 639-3 code.
    pub(super) code: &'static str,
    /// The member that texts under the macro code are in, unless they say otherwise; `None` where it would be a guess.
    pub(super) standard: Option<&'static str>,
    /// Its members, as far as data sets use them.
    members: &'static [&'static str],
}

const fn group(code: &'static str, standard: Option<&'static str>, members: &'static [&'static str]) -> MacroLanguage {
    MacroLanguage { code, standard, members }
}

/// Macro-languages whose code and whose members' codes are both found in data sets (Aya, NLLB, FLORES). From the
/// ISO 639-3 macro-language mappings, except that `msa` leaves out `ind`: Malay and Indonesian are listed as two
/// languages wherever both occur, and whoever asks for `ms` does not want Indonesian.
static MACRO_LANGUAGES: [MacroLanguage; 32] = [
    group("aka", Some("twi"), &["twi", "fat"]),
    group(
        "ara",
        Some("arb"),
        &[
            "arb", "ary", "arz", "ars", "acq", "apc", "acm", "aeb", "afb", "apd", "acw", "ayl", "ayn", "ayp", "arq",
            "ajp",
        ],
    ),
    group("aym", Some("ayr"), &["ayr", "ayc"]),
    group("aze", Some("azj"), &["azj", "azb"]),
    group("din", None, &["dik", "dip", "diw", "dib", "dks"]),
    group("doi", Some("dgo"), &["dgo", "xnr"]),
    group("est", Some("ekk"), &["ekk", "vro"]),
    group("fas", Some("pes"), &["pes", "prs"]),
    group("ful", None, &["fuv", "fub", "fuc", "fue", "fuf", "fuh", "fui", "fuq", "ffm"]),
    group("grn", Some("gug"), &["gug", "gui", "gun", "gnw"]),
    group("hbs", None, &["srp", "hrv", "bos", "cnr"]),
    group("kau", None, &["knc", "kby", "krt"]),
    group("kok", Some("gom"), &["gom", "knn"]),
    group("kon", None, &["kng", "ldi", "kwy"]),
    group("kur", None, &["ckb", "kmr", "sdh"]),
    group("lav", Some("lvs"), &["lvs", "ltg"]),
    group("mlg", Some("plt"), &["plt", "xmv", "bhr", "msh", "skg", "tdx", "tkg", "txy", "xmw", "bmm", "bzc"]),
    group("mon", Some("khk"), &["khk", "mvf"]),
    group("msa", Some("zsm"), &["zsm", "zlm", "meo", "mfa"]),
    group("nep", Some("npi"), &["npi", "dty"]),
    group("nor", None, &["nob", "nno"]),
    group("ori", Some("ory"), &["ory", "spv"]),
    group("orm", Some("gaz"), &["gaz", "hae", "gax", "orc"]),
    group("pus", Some("pbt"), &["pbt", "pbu", "pst"]),
    group("que", None, &["quy", "quz", "qub", "quh"]),
    group("sqi", Some("als"), &["als", "aln", "aae", "aat"]),
    group("srd", None, &["sro", "src", "sdc", "sdn"]),
    group("swa", Some("swh"), &["swh", "swc"]),
    group("tmh", None, &["taq", "thv", "thz", "ttq"]),
    group("uzb", Some("uzn"), &["uzn", "uzs"]),
    group("yid", Some("ydd"), &["ydd", "yih"]),
    group("zho", Some("cmn"), &["cmn", "yue", "wuu", "hak", "nan", "hsn", "gan", "cdo", "cjy"]),
];

/// Bibliographic codes of ISO 639-2/B, which differ from 639-3 for these twenty languages, and the retired `ajp` (South
/// Levantine Arabic, merged into `apc` in 2023).
const OTHER_CODES: [(&str, &str); 21] = [
    ("ajp", "apc"),
    ("alb", "sqi"),
    ("arm", "hye"),
    ("baq", "eus"),
    ("bur", "mya"),
    ("chi", "zho"),
    ("cze", "ces"),
    ("dut", "nld"),
    ("fre", "fra"),
    ("geo", "kat"),
    ("ger", "deu"),
    ("gre", "ell"),
    ("ice", "isl"),
    ("mac", "mkd"),
    ("mao", "mri"),
    ("may", "msa"),
    ("per", "fas"),
    ("rum", "ron"),
    ("slo", "slk"),
    ("tib", "bod"),
    ("wel", "cym"),
];

/// English names in use that ISO 639-3 does not list as the reference name, in folded spelling (see [`fold`]).
const OTHER_NAMES: [(&str, &str); 48] = [
    ("bahasa indonesia", "ind"),
    ("bahasa melayu", "zsm"),
    ("bangla", "ben"),
    ("brazilian portuguese", "por"),
    ("castilian", "spa"),
    ("chichewa", "nya"),
    ("darija", "ary"),
    ("farsi", "pes"),
    ("flemish", "nld"),
    ("greek", "ell"),
    ("haitian creole", "hat"),
    ("irish gaelic", "gle"),
    ("isixhosa", "xho"),
    ("isizulu", "zul"),
    ("kiswahili", "swa"),
    ("kurmanji", "kmr"),
    ("kyrgyz", "kir"),
    ("levantine arabic", "apc"),
    ("mandarin", "cmn"),
    ("modern standard arabic", "arb"),
    ("moldovan", "ron"),
    ("myanmar", "mya"),
    ("north levantine arabic", "apc"),
    ("northern sotho", "nso"),
    ("norwegian bokmal", "nob"),
    ("odia", "ori"),
    ("oromo", "orm"),
    ("pashto", "pus"),
    ("persian farsi", "pes"),
    ("punjabi", "pan"),
    ("sepedi", "nso"),
    ("simplified chinese", "zho"),
    ("chinese simplified", "zho"),
    ("sinhalese", "sin"),
    ("slovene", "slv"),
    ("sorani", "ckb"),
    ("sorani kurdish", "ckb"),
    ("kurmanji kurdish", "kmr"),
    ("south levantine arabic", "apc"),
    ("sotho", "sot"),
    ("traditional chinese", "zho"),
    ("chinese traditional", "zho"),
    ("tosk", "als"),
    ("uighur", "uig"),
    ("uyghur", "uig"),
    ("valencian", "cat"),
    ("western persian", "pes"),
    ("yue chinese", "yue"),
];

/// A code taken apart: the language, and the script where the code says it (`zho_Hans`, `zh-TW`).
pub(super) struct Code {
    /// ISO 639-3.
    pub(super) language: &'static str,
    /// ISO 15924, in lower case.
    pub(super) script: Option<String>,
}

/// Reads a code: two letters (ISO 639-1), three (639-3, 639-2/B), either with a script or region behind `_` or `-`, in
/// upper or lower case. `None` if it is none.
pub(super) fn from_code(text: &str) -> Option<Code> {
    let text = text.trim().to_ascii_lowercase();
    let mut parts = text.split(['_', '-']);
    let letters = parts.next()?;
    let known = match letters.len() {
        2 => Language::from_639_1(letters),
        3 => {
            let other = OTHER_CODES.iter().find(|(code, _)| *code == letters).map(|(_, code)| *code);
            Language::from_639_3(other.unwrap_or(letters))
        }
        _ => None,
    }?;
    let mut script = None;
    for part in parts {
        let is_letters = part.chars().all(|letter| letter.is_ascii_alphabetic());
        script = match (part.len(), part) {
            (2, "cn" | "sg") if known.to_639_3() == "zho" => Some("hans".to_owned()),
            (2, "tw" | "hk" | "mo") if known.to_639_3() == "zho" => Some("hant".to_owned()),
            (2, _) if is_letters => script,
            (4, _) if is_letters => Some(part.to_owned()),
            _ => return None,
        };
    }
    Some(Code { language: known.to_639_3(), script })
}

/// ISO 639-3 codes of the languages with this English name, in any spelling of case, apostrophes and hyphens. Several where
/// ISO tells namesakes apart only in brackets (Swahili: the macro-language and the language); none if unknown.
pub(super) fn from_name(name: &str) -> Vec<&'static str> {
    static BY_NAME: LazyLock<HashMap<String, Vec<&'static str>>> = LazyLock::new(|| {
        let mut by_name: HashMap<String, Vec<&'static str>> = HashMap::new();
        for language in isolang::languages() {
            by_name.entry(fold(language.to_name())).or_default().push(language.to_639_3());
        }
        for (name, code) in OTHER_NAMES {
            let codes = by_name.entry(name.to_owned()).or_default();
            if !codes.contains(&code) {
                codes.push(code);
            }
        }
        by_name
    });
    BY_NAME.get(&fold(name)).cloned().unwrap_or_default()
}

/// A name as it is compared: lower case, without apostrophes and the like, one space between words.
pub(super) fn fold(name: &str) -> String {
    let mut folded = String::new();
    for letter in name.chars().flat_map(char::to_lowercase) {
        match letter {
            '\'' | '`' | '\u{2018}' | '\u{2019}' | '\u{02BB}' | '\u{02BC}' => {}
            _ if letter.is_alphanumeric() || ('\u{0300}'..='\u{036F}').contains(&letter) => folded.push(letter),
            _ if folded.ends_with(' ') || folded.is_empty() => {}
            _ => folded.push(' '),
        }
    }
    folded.truncate(folded.trim_end().len());
    folded
}

/// The members of a macro-language; none for any other code.
pub(super) fn members(code: &str) -> &'static [&'static str] {
    MACRO_LANGUAGES.iter().find(|known| known.code == code).map_or(&[], |known| known.members)
}

/// The standard member of a macro-language; `None` for any other code, and where it would be a guess.
pub(super) fn standard_of(code: &str) -> Option<&'static str> {
    MACRO_LANGUAGES.iter().find(|known| known.code == code).and_then(|known| known.standard)
}

/// The macro-language that a code is a member of.
pub(super) fn macro_of(code: &str) -> Option<&'static MacroLanguage> {
    MACRO_LANGUAGES.iter().find(|known| known.members.contains(&code))
}

/// Whether two codes name the same language, or a macro-language and a member of it.
pub(super) fn related(a: &str, b: &str) -> bool {
    a == b || members(a).contains(&b) || members(b).contains(&a)
}

/// The two-letter code of an ISO 639-3 code. The standard member of a macro-language goes by the macro-language's letters
/// (`zsm` is `ms`, `plt` is `mg`), as everywhere outside ISO; other members have none (`ary`).
pub(super) fn two_letters(code: &str) -> Option<&'static str> {
    let own = Language::from_639_3(code).and_then(|language| language.to_639_1());
    own.or_else(|| {
        let family = macro_of(code).filter(|family| family.standard == Some(code))?;
        Language::from_639_3(family.code).and_then(|language| language.to_639_1())
    })
}

/// The English reference name of an ISO 639-3 code.
pub(super) fn english_name(code: &str) -> Option<&'static str> {
    Language::from_639_3(code).map(|language| language.to_name())
}
