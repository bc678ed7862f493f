//! How the rating labels are asked for in tokens. Where each label is one token, one question gives them all; a label of
//! several tokens is followed down its tokens, each step a question of its own after the same cached prefix.
//! Knows tokens; knows nothing of aspects or answers.

use crate::prompt::{ChatTokenizer, PromptError};

/// The questions whose answers give every label's log-probability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LabelPlan {
    /// Tokens put after the prompt, and the next tokens asked about.
    queries: Vec<(Vec<u32>, Vec<u32>)>,
    /// For each label the (query, target) pairs whose log-probabilities add up to its own.
    paths: Vec<Vec<(usize, usize)>>,
}

impl LabelPlan {
    /// The plan for these labels, in their order, behind `prompt`.
    ///
    /// # Errors
    /// [`PromptError`] if a label cannot be encoded.
    pub(super) fn new(tokenizer: &ChatTokenizer, labels: &[String], prompt: &[u32]) -> Result<Self, PromptError> {
        let spelled: Vec<Vec<u32>> =
            labels.iter().map(|label| tokenizer.label_token_ids(label, prompt)).collect::<Result<_, _>>()?;
        Ok(Self::of(&spelled))
    }

    fn of(spelled: &[Vec<u32>]) -> Self {
        let mut queries: Vec<(Vec<u32>, Vec<u32>)> = Vec::new();
        let path = |ids: &Vec<u32>| {
            let mut path = Vec::with_capacity(ids.len());
            for (position, &target) in ids.iter().enumerate() {
                let prefix = &ids[..position];
                let query = queries.iter().position(|(other, _)| other == prefix).unwrap_or_else(|| {
                    queries.push((prefix.to_vec(), Vec::new()));
                    queries.len() - 1
                });
                let targets = &mut queries[query].1;
                let index = targets.iter().position(|&other| other == target).unwrap_or_else(|| {
                    targets.push(target);
                    targets.len() - 1
                });
                path.push((query, index));
            }
            path
        };
        let paths = spelled.iter().map(path).collect();
        Self { queries, paths }
    }

    /// Each question: what to put after the prompt, and which next tokens to ask about.
    pub(super) fn queries(&self) -> impl Iterator<Item = (&[u32], &[u32])> {
        self.queries.iter().map(|(prefix, targets)| (prefix.as_slice(), targets.as_slice()))
    }

    /// Natural-log probability of each label, given the log-probabilities that each question's targets got.
    pub(super) fn label_logprobs(&self, answers: &[Vec<f32>]) -> Vec<f64> {
        let of = |path: &Vec<(usize, usize)>| match path.is_empty() {
            true => f64::NEG_INFINITY,
            false => path.iter().map(|&(query, target)| f64::from(answers[query][target])).sum(),
        };
        self.paths.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_token_labels_take_one_question() {
        let plan = LabelPlan::of(&[vec![11], vec![12], vec![13], vec![14], vec![15]]);
        assert_eq!(plan.queries().collect::<Vec<_>>(), vec![(&[][..], &[11, 12, 13, 14, 15][..])]);
        let logprobs = plan.label_logprobs(&[vec![-1.0, -2.0, -3.0, -4.0, -5.0]]);
        assert_eq!(logprobs, [-1.0, -2.0, -3.0, -4.0, -5.0]);
    }

    #[test]
    fn labels_of_several_tokens_are_followed_down() {
        // A space token, then the digit; the fifth label takes three tokens.
        let plan = LabelPlan::of(&[vec![9, 1], vec![9, 2], vec![9, 3], vec![9, 4], vec![9, 4, 7]]);
        let queries: Vec<_> = plan.queries().collect();
        assert_eq!(queries, vec![(&[][..], &[9][..]), (&[9][..], &[1, 2, 3, 4][..]), (&[9, 4][..], &[7][..])]);
        let logprobs = plan.label_logprobs(&[vec![-0.5], vec![-1.0, -2.0, -3.0, -4.0], vec![-6.0]]);
        assert_eq!(logprobs, [-1.5, -2.5, -3.5, -4.5, -10.5]);
    }
}
