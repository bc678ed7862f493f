//! Words for what the report counts, and numbers as people read them. Knows names and digits; counts nothing.

use crate::data;
use crate::dataset::{DropReason, PairingOptions};
use crate::judge::Share;

/// What a drop reason means; empty for one that says it itself.
pub fn drop_in_words(reason: &str, pairing: &PairingOptions) -> String {
    let known = [
        (data::DropReason::OtherLanguage.as_str(), "of a language that was not asked for"),
        (data::DropReason::NullPrompt.as_str(), "the source has no prompt"),
        (data::DropReason::EmptyPrompt.as_str(), "the prompt shows nothing"),
        (data::DropReason::PromptTooLong.as_str(), "the prompt is longer than allowed"),
        (data::DropReason::NullResponse.as_str(), "the source has no human answer"),
        (data::DropReason::EmptyResponse.as_str(), "the human answer shows nothing"),
        (data::DropReason::ResponseTooLong.as_str(), "the human answer is longer than allowed"),
        (data::DropReason::DuplicatePrompt.as_str(), "an earlier row has the same prompt"),
        (data::DropReason::OverLimit.as_str(), "more rows than were asked for"),
        (DropReason::OrderDisagreement.as_str(), "which answer wins depends on which one is shown first"),
        (DropReason::PairwiseDisagrees.as_str(), "a comparison prefers the answer with the lower rating"),
        (DropReason::JudgesDisagree.as_str(), "the judges disagree"),
        (DropReason::MissingComparison.as_str(), "the answers were not compared"),
        (DropReason::UnreliableVerdict.as_str(), "the judge did not want to rate one of the answers"),
        (DropReason::MissingCandidate.as_str(), "fewer than two answers"),
        (DropReason::MissingVerdict.as_str(), "an answer was not rated"),
        (DropReason::InvalidRating.as_str(), "a rating is no number from 1 to 5"),
        (DropReason::IdenticalAnswers.as_str(), "best and worst answer have the same text"),
        (DropReason::EmptyAnswer.as_str(), "an answer shows nothing"),
        (DropReason::ConflictingAnswers.as_str(), "two answers claim to be the same"),
        ("judge_prompt_too_long", "prompt and answer are longer than the judge takes"),
        (DropReason::PromptOrAnswerError.as_str(), "an earlier stage failed"),
    ];
    if reason == DropReason::Tie.as_str() {
        return format!("best and worst answer are rated less than {} apart", pairing.margin);
    }
    known.iter().find(|(word, _)| *word == reason).map_or_else(String::new, |(_, meaning)| (*meaning).to_owned())
}

/// A number with a comma between thousands.
pub fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 pair`, `2 pairs`, `3,000 pairs`.
pub fn count(value: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(value), if value == 1 { one } else { many })
}

/// A share in per cent without digits behind the point, but never 0 % or 100 % where that is not exact.
pub fn percent(share: f64) -> String {
    let value = 100.0 * share;
    match value.round() {
        0.0 if value > 0.0 => "< 1 %".to_owned(),
        100.0 if value < 100.0 => "> 99 %".to_owned(),
        rounded => format!("{rounded:.0} %"),
    }
}

/// The 95 % interval, as `24–54 %`.
pub fn interval(share: &Share) -> String {
    format!("{:.0}–{:.0} %", 100.0 * share.low, 100.0 * share.high)
}

/// A share within a sentence, as `38 % (24–54 %)`.
pub fn share_in_words(share: &Share) -> String {
    format!("{} ({})", percent(share.share), interval(share))
}

/// Text of a row as a page may hold it: what cannot be seen or would turn around what stands beside it becomes visible.
/// Letters and marks, joiners and the direction marks that some scripts need, stay as they are. That no text becomes markup
/// is the template's part.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => shown.push(character),
            '\r' => {}
            '\u{0}'..='\u{1F}' => shown.push(char::from_u32(0x2400 + u32::from(character)).unwrap_or('\u{FFFD}')),
            '\u{7F}' => shown.push('\u{2421}'),
            '\u{80}'..='\u{9F}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}' | '\u{202A}'..='\u{202E}' => {
                shown.push_str(&format!("⟨U+{:04X}⟩", u32::from(character)));
            }
            _ => shown.push(character),
        }
    }
    shown
}

/// The same on one line, for names.
pub fn visible_name(text: &str) -> String {
    visible(&text.split(['\n', '\t', '\r']).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1000, 1234567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.0, 0.001, 0.5, 0.9999, 1.0].map(percent), ["0 %", "< 1 %", "50 %", "> 99 %", "100 %"]);
        assert_eq!(count(1, "pair", "pairs"), "1 pair");
    }

    #[test]
    fn what_cannot_be_seen_becomes_visible_and_letters_stay() {
        assert_eq!(visible("a\u{0}b\u{202E}c\r\nd\u{7F}\u{85}"), "a␀b⟨U+202E⟩c\nd␡⟨U+0085⟩");
        for text in ["می‌خواهم", "क्‍ष", "👩🏽‍🚀 e\u{301}", "\u{200F}עברית\u{2067}x\u{2069}", "สวัสดี\tཀྵ"]
        {
            assert_eq!(visible(text), text);
        }
        assert_eq!(visible_name("a\nb"), "a b");
    }
}
