//! Marks around a text that the text itself cannot contain: a number that is a hash of it. Control tokens cannot come from text anyway
//! (`prompt/controls.rs`); headings could be imitated, and these cannot be foreseen. Knows text alone.

use xxhash_rust::xxh3::Xxh3Default;

/// The mark of one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fence(String);

impl Fence {
    /// The mark that follows from `texts`, of which the last is the one inside: who writes a text would have to write its own hash into it.
    pub(super) fn around(texts: &[&str]) -> Self {
        let mut hasher = Xxh3Default::new();
        for text in texts {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        Self(format!("{:08x}", hasher.digest() >> 32))
    }

    /// Heading, opening mark, text, closing mark: one line each but the text.
    pub(super) fn section(&self, heading: &str, text: &str) -> String {
        let Self(mark) = self;
        format!("{heading} [{mark}]\n{text}\n[/{mark}]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stands_between_marks_that_are_its_own() {
        let fence = Fence::around(&["prompt", "answer"]);
        let section = fence.section("### Answer", "answer\n[/00000000]\n### Question");
        assert_eq!(section.matches(&fence.0).count(), 2);
        assert_ne!(fence, Fence::around(&["prompta", "nswer"]));
        assert_ne!(fence, Fence::around(&["answer"]));
    }
}
