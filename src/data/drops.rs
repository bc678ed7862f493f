//! Why a row of a source file does not become a record, and the counting of it.
//! Knows the words of the report; does not know how a reason is found.

use std::fmt;

use super::DropCounts;

/// Why a row was dropped while reading. A row counts under the first reason that holds, in the order given here, so the
/// reasons never overlap: the language comes first, the limit last, and duplicates are looked for among rows that would
/// otherwise stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// The row is of a language that was not asked for.
    OtherLanguage,
    /// The prompt is null, or its key is missing (JSONL).
    NullPrompt,
    /// The prompt is empty or white space alone. In CSV, which has no null, also an absent one.
    EmptyPrompt,
    /// The prompt has more Unicode scalar values than `max_prompt_chars`.
    PromptTooLong,
    /// A response is required and is null or its key is missing.
    NullResponse,
    /// A response is required and is empty or white space alone.
    EmptyResponse,
    /// The response has more Unicode scalar values than `max_response_chars`.
    ResponseTooLong,
    /// An earlier row with byte for byte the same prompt passed all the filters above.
    DuplicatePrompt,
    /// The row would have stayed, but `limit` records were kept before it.
    OverLimit,
}

impl DropReason {
    /// All reasons, in the order in which they are tried.
    pub const ALL: [DropReason; 9] = [
        DropReason::OtherLanguage,
        DropReason::NullPrompt,
        DropReason::EmptyPrompt,
        DropReason::PromptTooLong,
        DropReason::NullResponse,
        DropReason::EmptyResponse,
        DropReason::ResponseTooLong,
        DropReason::DuplicatePrompt,
        DropReason::OverLimit,
    ];

    /// The stable word that reports, journals and [`DropCounts`] use.
    pub fn as_str(self) -> &'static str {
        match self {
            DropReason::OtherLanguage => "other_language",
            DropReason::NullPrompt => "null_prompt",
            DropReason::EmptyPrompt => "empty_prompt",
            DropReason::PromptTooLong => "prompt_too_long",
            DropReason::NullResponse => "null_response",
            DropReason::EmptyResponse => "empty_response",
            DropReason::ResponseTooLong => "response_too_long",
            DropReason::DuplicatePrompt => "duplicate_prompt",
            DropReason::OverLimit => "over_limit",
        }
    }
}

impl DropCounts {
    /// Counts one more row under `reason`, a stable snake_case word such as [`DropReason::as_str`] gives.
    pub fn add(&mut self, reason: &str) {
        match self.0.get_mut(reason) {
            Some(count) => *count = count.saturating_add(1),
            None => {
                self.0.insert(reason.to_owned(), 1);
            }
        }
    }

    /// Rows dropped under `reason`; 0 for a reason that never occurred.
    pub fn count(&self, reason: &str) -> u64 {
        self.0.get(reason).copied().unwrap_or(0)
    }

    /// Rows dropped for any reason.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

/// One line per reason, largest first: the count, right-aligned, then the word. Empty if nothing was dropped.
impl fmt::Display for DropCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows: Vec<_> = self.0.iter().collect();
        rows.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        let width = rows.first().map_or(0, |(_, count)| count.to_string().len());
        for (position, (reason, count)) in rows.iter().enumerate() {
            let end = if position + 1 == rows.len() { "" } else { "\n" };
            write!(f, "  {count:>width$}  {reason}{end}")?;
        }
        Ok(())
    }
}
