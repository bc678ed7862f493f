//! From SentencePiece's scores to the list of merges that gives the same tokens.
//! Knows pieces and scores; knows nothing of files.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::{Kind, Token};

/// A piece as the vocabulary spells it: converters put the spaces of user-defined pieces back.
pub(super) fn spelling(token: &Token) -> String {
    match token.kind {
        Kind::UserDefined if token.text.chars().all(|c| c == ' ') => token.text.replace(' ', "▁"),
        _ => token.text.clone(),
    }
}

/// Two pieces that make a third.
struct Merge {
    /// Of the third piece.
    score: f64,
    /// Characters of the left and of the right piece, longer ones first.
    lengths: (Reverse<usize>, Reverse<usize>),
    left: usize,
    right: usize,
}

/// The merges, first the ones that come first.
///
/// SentencePiece joins the two neighbours whose joint piece has the highest score; a merge list says the same if each way to
/// split a piece into two pieces stands at that piece's place. Where scores are equal the longer left part goes first, then the
/// longer right part, then the smaller ids, as in Hugging Face's conversions. Control, byte and unused pieces are never made by
/// joining. User-defined pieces have lost their scores in the file and go first: SentencePiece sees them before all others.
pub(super) fn merges(tokens: &[Token]) -> Vec<[String; 2]> {
    let spelled: Vec<String> = tokens.iter().map(spelling).collect();
    let ids: HashMap<&str, usize> = spelled.iter().enumerate().map(|(id, text)| (text.as_str(), id)).collect();
    let mut found = Vec::new();
    for (token, text) in tokens.iter().zip(&spelled) {
        let score = match token.kind {
            Kind::Normal => token.score,
            Kind::UserDefined => f64::INFINITY,
            Kind::Unknown | Kind::Control | Kind::Unused | Kind::Byte => continue,
        };
        let mut left_chars = 0;
        let num_chars = text.chars().count();
        for (at, _) in text.char_indices().skip(1) {
            left_chars += 1;
            let Some((left, right)) = text.split_at_checked(at) else { continue };
            if let (Some(left), Some(right)) = (ids.get(left), ids.get(right)) {
                let lengths = (Reverse(left_chars), Reverse(num_chars - left_chars));
                found.push(Merge { score, lengths, left: *left, right: *right });
            }
        }
    }
    found.sort_by(|a, b| {
        let rest = |merge: &Merge| (merge.lengths, merge.left, merge.right);
        b.score.total_cmp(&a.score).then_with(|| rest(a).cmp(&rest(b)))
    });
    let text = |id: usize| spelled.get(id).cloned().unwrap_or_default();
    found.into_iter().map(|merge| [text(merge.left), text(merge.right)]).collect()
}
