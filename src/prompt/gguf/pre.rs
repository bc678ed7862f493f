//! How byte-level tokenizers split text before they merge, by the name that converters give them (`tokenizer.ggml.pre`).
//! The expressions are those of the models' own tokenizer.json. Knows names; a name that is not here is refused, since a wrong
//! split gives wrong tokens without a sign of it.

use serde_json::{Value as Json, json};

/// One way to split.
pub(super) struct Pre {
    /// Text is composed (NFC) first.
    composes: bool,
    /// Expressions whose matches are cut out, one after the other.
    splits: &'static [&'static str],
    /// Afterwards GPT-2's own expression.
    gpt2: bool,
    /// A word that is a token is taken whole, whatever the merges say.
    pub(super) whole_words: bool,
}

const GPT2: Pre = Pre { composes: false, splits: &[], gpt2: true, whole_words: false };
/// Each digit by itself, then GPT-2's expression.
const DIGITS: Pre = Pre { splits: &[r"\p{N}"], ..GPT2 };

const LLAMA3_SPLIT: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// The same with one digit at a time.
const QWEN2_SPLIT: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// The same with marks among the letters.
const QWEN35_SPLIT: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// Words begin with a capital.
const TEKKEN_SPLIT: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// The same with English endings at the word and up to three digits.
const GPT4O_SPLIT: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// Digits in threes from the right, for Tiny Aya.
const THREES_SPLIT: &str = r"\d{1,3}(?=(?:\d{3})*\b)";
/// llama.cpp's own fallback, which it uses for files that name `default`.
const DEFAULT_SPLITS: &[&str] = &[
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    r"[0-9][0-9][0-9]",
];
const SEED_SPLIT: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// The split of this name.
pub(super) fn known(name: &str) -> Option<Pre> {
    let split = |splits| Pre { splits, gpt2: false, ..GPT2 };
    Some(match name {
        "gpt-2" | "phi-2" | "mpt" | "olmo" | "exaone4" | "mellum" | "gigachat" | "a.x-4.0" | "trillion"
        | "granite-docling" | "jais" => GPT2,
        "starcoder" | "refact" | "smollm" | "codeshell" | "exaone" | "minerva-7b" => DIGITS,
        "command-r" => Pre { composes: true, ..DIGITS },
        "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0" | "lfm2" => {
            Pre { whole_words: true, ..split(&[LLAMA3_SPLIT]) }
        }
        "dbrx" | "smaug-bpe" | "chatglm-bpe" | "glm4" => split(&[LLAMA3_SPLIT]),
        "qwen2" | "deepseek-r1-qwen" | "megrez" => Pre { composes: true, ..split(&[QWEN2_SPLIT]) },
        "stablelm2" | "hunyuan" | "solar-open" => split(&[QWEN2_SPLIT]),
        "qwen35" => Pre { composes: true, ..split(&[QWEN35_SPLIT]) },
        "tekken" => Pre { whole_words: true, ..split(&[TEKKEN_SPLIT]) },
        "gpt-4o" | "llama4" | "kanana2" => split(&[GPT4O_SPLIT]),
        "tiny_aya" => split(&[THREES_SPLIT, GPT4O_SPLIT]),
        "seed-coder" => split(&[SEED_SPLIT]),
        "default" => split(DEFAULT_SPLITS),
        _ => return None,
    })
}

impl Pre {
    pub(super) fn normalizer(&self) -> Json {
        if self.composes { json!({"type": "NFC"}) } else { Json::Null }
    }

    pub(super) fn pre_tokenizer(&self) -> Json {
        let cut = |expression: &&str| json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false});
        let mut steps: Vec<Json> = self.splits.iter().map(cut).collect();
        steps.push(
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": self.gpt2}),
        );
        json!({"type": "Sequence", "pretokenizers": steps})
    }
}
