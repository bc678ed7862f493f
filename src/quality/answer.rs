//! What is wrong with one answer by its text alone: loops, echoes, leaked markers, markdown, copies of another answer.
//! Knows one prompt and its answers; deliberately knows no language and no other rows.
//!
//! | check | definition | threshold, and where it is from |
//! |---|---|---|
//! | repetition | share of sequences of 12 characters that stood before in the text (as the 4-gram share of RefinedWeb and Gopher filters, on characters, so that it holds without spaces) | above 0.5 in at least 100 characters; running prose of our samples stays below 0.2 |
//! | loop | the text's end has a period: the same characters again and again | four times and 60 characters at least; of stretches of 40 characters three times, of 200 twice |
//! | echo | share of the answer's sequences of 8 characters that are in the prompt | from 0.8, in 30 characters or more, unless the human answer has half of it too: rewriting and extraction repeat the prompt |
//! | preamble | a first line of its own that ends with a colon, before prose | 4 words or more, 120 characters at most; no list, table or code behind it; the human answer begins otherwise |
//! | near-identical | Jaccard similarity of sequences of 5 characters, or edit similarity | from 0.9, above 0.95 (facts on judging, check 2) |
//! | length ratio | characters of the answer by those of the human one | below 1/10 or above 10, with 200 characters between them |

use super::text::{folded, shingles};
use crate::data::language::is_unspaced;

const REPEATED_LENGTH: usize = 12;
const REPEATED_SHARE: f64 = 0.5;
const REPEATED_MIN: usize = 100;
/// Only this much of a text's end is searched for a loop.
const LOOP_WINDOW: usize = 4_000;
/// Times in a row that make a loop, of stretches of so many characters and more; the shorter they are, the more often.
const LOOPS: [(usize, usize); 3] = [(2, 200), (3, 40), (4, 1)];
const LOOP_MIN: usize = 60;
const ECHO_LENGTH: usize = 8;
const ECHO_SHARE: f64 = 0.8;
const ECHO_MIN: usize = 30;
const COPY_LENGTH: usize = 5;
const COPY_JACCARD: f64 = 0.9;
const COPY_EDIT: f64 = 0.95;
/// Edit similarity takes the product of both lengths, so it is asked of short texts alone.
const COPY_EDIT_MAX: usize = 2_000;
/// A word weighs 2 and each character of scripts without spaces 1, as in openings.
const PREAMBLE_WEIGHT: usize = 8;
const PREAMBLE_MAX: usize = 120;
const LENGTH_RATIO: f64 = 10.0;
const LENGTH_MIN: usize = 200;

/// Whether the text goes round: much of it stood in it before, or its end is a loop.
pub fn is_repetitive(text: &str) -> bool {
    repeated_share(text).is_some_and(|repeated| repeated > REPEATED_SHARE) || has_loop(text)
}

/// Share of a text's sequences of 12 characters that stood in it before, 0 to 1; `None` of one with fewer than 100 characters.
pub fn repeated_share(text: &str) -> Option<f64> {
    let folded = folded(text);
    let num_windows = (folded.len() + 1).saturating_sub(REPEATED_LENGTH);
    let distinct = shingles(&folded, REPEATED_LENGTH).len();
    (folded.len() >= REPEATED_MIN).then(|| 1.0 - distinct as f64 / num_windows.max(1) as f64)
}

/// Whether the text ends in equal stretches of 60 characters together. Rows of one mark (`----`) are rulers, not loops.
fn has_loop(text: &str) -> bool {
    let end: Vec<char> = text.trim_end().chars().rev().take(LOOP_WINDOW).collect();
    // A generation is cut anywhere: the last stretch may be a part of one, which a period covers too.
    let matches = prefix_matches(&end);
    let fewest = LOOPS.iter().map(|(times, _)| *times).min().unwrap_or(usize::MAX);
    (1..=end.len() / fewest).any(|period| {
        let length = matches.get(period).map_or(0, |same| same + period);
        let is_often =
            LOOPS.iter().any(|&(times, stretch)| period >= stretch && length >= LOOP_MIN.max(times * period));
        let stretch = end.get(..period).unwrap_or_default();
        is_often && stretch.iter().any(|character| character.is_alphanumeric())
    })
}

/// For each place how many characters from there on are those of the beginning (Gusfield's Z).
fn prefix_matches(text: &[char]) -> Vec<usize> {
    let mut matches = vec![0; text.len()];
    let (mut left, mut right) = (0, 0);
    for at in 1..text.len() {
        let mut same = if at < right { matches[at - left].min(right - at) } else { 0 };
        while text.get(at + same).is_some_and(|next| *next == text[same]) {
            same += 1;
        }
        if at + same > right {
            (left, right) = (at, at + same);
        }
        matches[at] = same;
    }
    matches
}

/// Whether the answer is the prompt again. `human` is the human answer, which may have reason to repeat it.
pub fn is_echo(prompt: &str, answer: &str, human: Option<&str>) -> bool {
    let share = |text: &str| {
        let folded = folded(text);
        let own = shingles(&folded, ECHO_LENGTH);
        let prompt = shingles(&super::text::folded(prompt), ECHO_LENGTH);
        let common = own.intersection(&prompt).count();
        (folded.len(), common as f64 / own.len().max(1) as f64)
    };
    let (length, copied) = share(answer);
    length >= ECHO_MIN && copied >= ECHO_SHARE && human.is_none_or(|human| share(human).1 < copied / 2.0)
}

/// Whether two answers say the same in the same words.
pub fn are_near_identical(a: &str, b: &str) -> bool {
    let (a, b) = (folded(a), folded(b));
    if a == b {
        return true;
    }
    let longer = a.len().max(b.len());
    if (a.len().min(b.len()) as f64) < COPY_JACCARD * longer as f64 {
        return false;
    }
    let (own, other) = (shingles(&a, COPY_LENGTH), shingles(&b, COPY_LENGTH));
    let common = own.intersection(&other).count() as f64;
    let jaccard = common / ((own.len() + other.len()) as f64 - common).max(1.0);
    let edit = || 1.0 - strsim::generic_levenshtein(&Characters(&a), &Characters(&b)) as f64 / longer as f64;
    jaccard >= COPY_JACCARD || (longer <= COPY_EDIT_MAX && jaccard >= 0.5 && edit() > COPY_EDIT)
}

/// Texts that stand for tokens of a template, whichever model it is of: no person writes them. Code is left out before.
const MARKERS: [&str; 18] = [
    "<think>",
    "</think>",
    "[inst]",
    "[/inst]",
    "<<sys>>",
    "<s>",
    "</s>",
    "<bos>",
    "<eos>",
    "<pad>",
    "<unk>",
    "[unk]",
    "<start_of_turn>",
    "<end_of_turn>",
    "<extra_id_",
    "<|",
    "<｜",
    "\u{FFFD}",
];

/// Roles that begin a line where a model goes on with the dialogue by itself.
const ROLES: [&str; 10] = [
    "### instruction",
    "### response",
    "### user",
    "### assistant",
    "### human",
    "human:",
    "user:",
    "assistant:",
    "<user>",
    "<assistant>",
];

/// Whether text of a template is left in the answer: tokens such as `<|im_end|>`, or a turn's role at the start of a line.
pub fn has_leaked_markers(answer: &str) -> bool {
    let mut in_code = false;
    answer.lines().any(|line| {
        let line = line.trim_start();
        if line.starts_with("```") {
            in_code = !in_code;
            return false;
        }
        let lower = line.to_lowercase();
        !in_code
            && (MARKERS.iter().any(|marker| lower.contains(marker)) || ROLES.iter().any(|role| lower.starts_with(role)))
    })
}

/// Whether there is markup in it where the human answer has none: two or more headings, bold spans, list items or tables.
pub fn has_markdown(answer: &str, human: Option<&str>) -> bool {
    let count = |text: &str| -> usize {
        text.lines()
            .map(|line| {
                let start = line.trim_start();
                let block =
                    ["# ", "## ", "### ", "#### ", "- ", "* ", "|", "```"].iter().any(|mark| start.starts_with(mark));
                usize::from(block) + line.matches("**").count() / 2
            })
            .sum()
    };
    count(answer) >= 2 && human.is_some_and(|human| count(human) == 0)
}

/// Whether the answer says that an answer follows ("Sure! Here is your text:"), by its form and in no language's words: a line that ends
/// with a colon and then prose. Lists, tables, code and quotations are announced by people too, and a human answer that does the same
/// shows that it was called for.
pub fn has_preamble(answer: &str, human: &str) -> bool {
    let announces = |text: &str| {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let Some(first) = lines.next() else { return false };
        let first = first.trim_matches(|mark| matches!(mark, '*' | '_'));
        let weight: usize =
            first.split_whitespace().map(|word| 2.max(word.chars().filter(|c| is_unspaced(*c)).count())).sum();
        first.ends_with([':', '：', '፦'])
            && weight >= PREAMBLE_WEIGHT
            && first.chars().count() <= PREAMBLE_MAX
            && !is_item(first)
            && lines.next().is_some_and(|next| !is_item(next))
    };
    announces(answer) && !announces(human)
}

/// Whether a line is an item of a list, a row of a table, a heading, a quotation or the beginning of code.
fn is_item(line: &str) -> bool {
    let mut characters = line.chars();
    let first = characters.next().unwrap_or(' ');
    let number = line.chars().take_while(|character| character.is_numeric()).count();
    let behind = line.chars().nth(number.max(1));
    let is_numbered = (number > 0 || first.is_alphabetic()) && behind.is_some_and(|mark| ".)）、:".contains(mark));
    "-*+•·–—‣◦▪|#>`~\"“”„«»「『(".contains(first) || is_numbered
}

/// Whether the answer is ten times as long as the human one, or a tenth.
pub fn has_odd_length(answer: &str, human: &str) -> bool {
    let (own, other) = (answer.chars().count(), human.chars().count());
    let ratio = own.max(1) as f64 / other.max(1) as f64;
    own.abs_diff(other) >= LENGTH_MIN && !(1.0 / LENGTH_RATIO..=LENGTH_RATIO).contains(&ratio)
}

/// Characters as `strsim` takes sequences.
struct Characters<'a>(&'a [char]);

impl<'c> IntoIterator for &'c Characters<'_> {
    type Item = &'c char;
    type IntoIter = std::slice::Iter<'c, char>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
