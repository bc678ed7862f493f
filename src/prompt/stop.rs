//! Stop strings over text that grows piece by piece. Knows nothing of tokens: it is fed the pieces a detokenizer emits.

/// Where a stop string was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopMatch {
    /// Byte offset in the whole text at which the stop string begins: keep `text[..cut_bytes]`.
    pub cut_bytes: usize,
    /// Index into the stop strings given to [`StopMatcher::new`].
    pub stop_index: usize,
}

/// Finds the first stop string to complete in a text that arrives in pieces; of several that complete at the same byte,
/// the longest. The result does not depend on how the text is cut into pieces, so it spans tokens.
///
/// Cost per piece: (piece + longest stop string) x number of stop strings.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<String>,
    /// The end of the text seen so far: as much as an unfinished stop string can need.
    tail: String,
    /// Byte offset of `tail` in the whole text.
    tail_start: usize,
    max_stop_bytes: usize,
    found: Option<StopMatch>,
}

impl StopMatcher {
    /// Empty stop strings are ignored.
    pub fn new(stops: &[String]) -> Self {
        let max_stop_bytes = stops.iter().map(String::len).max().unwrap_or(0);
        Self { stops: stops.to_vec(), tail: String::new(), tail_start: 0, max_stop_bytes, found: None }
    }

    /// Takes the next piece of text. Once a stop string has completed, every call returns that same match.
    pub fn push(&mut self, piece: &str) -> Option<StopMatch> {
        if self.found.is_some() || self.max_stop_bytes == 0 {
            return self.found.clone();
        }
        self.tail.push_str(piece);
        self.found = self.search();
        if self.found.is_none() {
            self.forget_head();
        }
        self.found.clone()
    }

    /// The match that ends first, then the longest. The tail holds no match from before: it would have been reported.
    fn search(&self) -> Option<StopMatch> {
        let stops = self.stops.iter().enumerate().filter(|(_, stop)| !stop.is_empty());
        let hits =
            stops.filter_map(|(at, stop)| self.tail.find(stop.as_str()).map(|start| (start + stop.len(), start, at)));
        hits.min().map(|(_, start, stop_index)| StopMatch { cut_bytes: self.tail_start + start, stop_index })
    }

    fn forget_head(&mut self) {
        let mut cut = self.tail.len().saturating_sub(self.max_stop_bytes.saturating_sub(1));
        while !self.tail.is_char_boundary(cut) {
            cut -= 1;
        }
        self.tail.drain(..cut);
        self.tail_start += cut;
    }
}
