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

/// The merges, first the ones that come first.
///
/// SentencePiece joins the two neighbours whose joint piece has the highest score; a merge list says the same if each way to
/// split a piece into two pieces stands at that piece's place. Where scores are equal the longer left part goes first, then the
/// longer right part, then the smaller ids, as in Hugging Face's conversions. Control, byte and unused pieces are never made by
/// joining. User-defined pieces have lost their scores in the file and go first: SentencePiece sees them before all others.
pub(super) fn merges(tokens: &[Token]) -> Vec<[String; 2]> {
    let spelled: Vec<String> = tokens.iter().map(spelling).collect();
    let ids: HashMap<&str, usize> = spelled.iter().enumerate().map(|(id, text)| (text.as_str(), id)).collect();
    let mut found: Vec<(f64, Reverse<usize>, Reverse<usize>, usize, usize)> = Vec::new();
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
                found.push((score, Reverse(left_chars), Reverse(num_chars - left_chars), *left, *right));
            }
        }
    }
    found.sort_by(|a, b| {
        b.0.total_cmp(&a.0).then_with(|| (a.1, a.2).cmp(&(b.1, b.2))).then_with(|| (a.3, a.4).cmp(&(b.3, b.4)))
    });
    let text = |id: usize| spelled.get(id).cloned().unwrap_or_default();
    found.into_iter().map(|(.., left, right)| [text(left), text(right)]).collect()
}
