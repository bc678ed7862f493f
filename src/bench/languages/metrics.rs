//! What a bench measures: each metric's name in the table, its unit, which way is better, and its definition with where it is from.
//! Knows words; counts nothing.

/// Which way a metric is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// More of it.
    High,
    /// Less of it.
    Low,
    /// Neither by itself: it says what something costs or is like.
    Neither,
}

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// In the table.
    pub id: &'static str,
    /// Of its values; `share` for 0 to 1.
    pub unit: &'static str,
    /// Which way.
    pub better: Better,
    /// For people.
    pub label: &'static str,
    /// What it is, and where that is from.
    pub definition: &'static str,
}

use Better::{High, Low, Neither};

const fn metric(
    (id, unit, better): (&'static str, &'static str, Better),
    label: &'static str,
    definition: &'static str,
) -> Metric {
    Metric { id, unit, better, label, definition }
}

/// All metrics, in the order in which they are shown.
pub const METRICS: [Metric; 35] = [
    metric(
        ("bits_per_byte", "bit/byte", Low),
        "bits per byte",
        "negative log-probability of the human answers' tokens behind the prompt, in bits, by their UTF-8 bytes, over all rows together (as \
         lm-evaluation-harness's bits_per_byte); independent of the tokenizer; instruction-tuned models look worse than their base models",
    ),
    metric(
        ("bits_per_byte_median", "bit/byte", Low),
        "bits per byte, median row",
        "the median of the rows' own bits per byte",
    ),
    metric(
        ("unscored", "share", Low),
        "human answers not scored",
        "human answers that the model could not be asked of: with their prompt longer than its context",
    ),
    metric(
        ("bytes_per_token", "byte/token", High),
        "bytes per token",
        "UTF-8 bytes of the human answers by their tokens; scripts of three bytes a letter have more bytes to begin with",
    ),
    metric(
        ("tokens_vs_english", "ratio", Low),
        "tokens per byte, of English",
        "tokens per byte of the human answers by the same of the source's English ones (after arXiv 2305.15425, which has parallel texts: \
         here the texts differ)",
    ),
    metric(
        ("language_ok", "share", High),
        "answers in the language",
        "answers wholly in the row's language, of those that can be judged (quality checks; a prompt may ask for another language)",
    ),
    metric(
        ("line_pass", "share", High),
        "no line in another language",
        "line-level pass rate of language confusion (arXiv 2406.20052), with our identifier: answers none of whose lines of five words and \
         more is in another language, of those with such a line",
    ),
    metric(
        ("line_ok", "share", High),
        "lines in the language",
        "lines that are not in another language, of all lines that were judged; the interval is by prompt",
    ),
    metric(
        ("word_pass", "share", High),
        "no English word",
        "word-level pass rate of language confusion (arXiv 2406.20052): of the answers that pass by lines, those without a lower-case English \
         word of four letters and more; in languages not written in Latin, where the source has English rows",
    ),
    metric(
        ("script_leak", "share", Low),
        "letters of a foreign script",
        "answers with four letters in a row of a script that neither prompt nor human answer has",
    ),
    metric(
        ("degenerate", "share", Low),
        "degenerate",
        "answers that are empty, go round, repeat the prompt or hold text of a template",
    ),
    metric(
        ("repeated", "share", Low),
        "repeated text",
        "mean share of an answer's sequences of 12 characters that stood in it before, of answers of 100 characters and more",
    ),
    metric(("cut_off", "share", Low), "cut off", "answers that the token limit ended"),
    metric(
        ("common_opening", "share", Low),
        "refusals, boilerplate",
        "answers that begin as many answers of this model do in this language: refusals and boilerplate, in no language's words",
    ),
    metric(
        ("failed", "share", Low),
        "no answer",
        "rows that the model gave no answer for: too long, nothing but thinking",
    ),
    metric(
        ("length_ratio", "ratio", Neither),
        "length by the human one",
        "median over rows of the answer's characters by the human answer's",
    ),
    metric(
        ("longer", "share", Neither),
        "longer than the human one",
        "answers with more characters than the human one",
    ),
    metric(
        ("chrf", "0 to 100", Neither),
        "chrF++",
        "chrF++ of all answers against the human ones (Popović 2017, as sacrebleu has it); of open answers a check of sanity, and a high one \
         a sign of data seen in training",
    ),
    metric(
        ("near_identical", "share", Neither),
        "nearly the human answer",
        "answers that say the same as the human one in the same words: seen in training, where prompts leave a choice",
    ),
    metric(
        ("win_rate", "share", High),
        "win rate",
        "share of prompts on which the judge prefers the model's answer to the human one in both orders, plus half of the ties; an outcome \
         that depends on the order is a tie; of a reward model by its scores",
    ),
    metric(("tie_rate", "share", Neither), "ties", "share of prompts on which neither wins"),
    metric(
        ("win_rate_length_controlled", "share", High),
        "win rate at equal length",
        "win rate that a logistic regression on the difference in length leaves at equal lengths (after arXiv 2404.04475)",
    ),
    metric(
        ("rating_difference", "1 to 5", High),
        "rating minus the human one's",
        "mean over prompts of the judge's rating of the answer minus that of the human answer",
    ),
    metric(
        ("order_consistency", "share", High),
        "same verdict in both orders",
        "comparisons whose outcome does not depend on which answer is shown first; a coin has one half",
    ),
    metric(
        ("label_mass", "share", High),
        "label mass",
        "mean probability that the judge gives to its labels together: 1 if it wanted to rate",
    ),
    metric(
        ("judge_entropy", "nat", Neither),
        "entropy of ratings",
        "mean entropy of the judge's ratings: 0 is certain, 1.61 (ln 5) is no idea",
    ),
    metric(
        ("known_answers", "share", High),
        "known answers",
        "human answers that the judge rates above the same answers spoilt; a coin has one half",
    ),
    metric(
        ("tokens_per_row", "token", Low),
        "tokens per row",
        "mean tokens of a prompt with its answer: what a row of this language costs",
    ),
    metric(
        ("output_tokens_per_row", "token", Neither),
        "generated tokens per row",
        "mean tokens of an answer, its thinking included",
    ),
    metric(
        ("prefill_tokens_per_s", "token/s", High),
        "prefill",
        "prompt tokens computed per second while the human answers were scored",
    ),
    metric(
        ("decode_tokens_per_s", "token/s", High),
        "decode",
        "tokens generated per second of the whole stage, prompts and texts included",
    ),
    metric(
        ("rows_per_hour", "row/h", High),
        "rows per hour",
        "answers per hour of the generate stage, without loading the model",
    ),
    metric(
        ("ratings_per_hour", "rating/h", High),
        "ratings per hour",
        "answers rated per hour, all aspects of the rubric",
    ),
    metric(("comparisons_per_hour", "pair/h", High), "comparisons per hour", "pairs compared per hour, both orders"),
    metric(
        ("peak_memory", "MiB", Low),
        "peak memory",
        "most resident memory of the process while it worked on this language with this model",
    ),
];

/// The metric of that name.
pub fn metric_of(id: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.id == id)
}
