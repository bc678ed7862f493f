//! Which tokens may come next in an answer that has to keep to a form. The form itself is somebody else's: here are the bits over the
//! vocabulary that it allows, and where each sequence stands in it. Knows token ids; knows neither grammars nor text.

use std::fmt;
use std::sync::Arc;

use rayon::prelude::*;

use super::batch::{LogitsRow, Purpose};
use super::scheduler::Scheduler;
use super::sequence::{SamplingParams, SequenceId, Task};
use crate::ops::sampling::TokenSet;

/// Where an answer stands in its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// More has to come: stop tokens are not allowed.
    Open,
    /// It may end here: the stop tokens of the sampling parameters are allowed too.
    MayEnd,
    /// Nothing may follow: the sequence ends without a stop token.
    Closed,
}

/// Why a constraint ended a sequence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// It allows nothing and is not at its end.
    #[error("the constraint allows no token after {num_tokens} tokens")]
    NoToken {
        /// Of the answer.
        num_tokens: usize,
    },
    /// All that is allowed is impossible for the model, as where its logits are not numbers.
    #[error("the model gives no allowed token any probability after {num_tokens} tokens")]
    NoProbability {
        /// Of the answer.
        num_tokens: usize,
    },
    /// It failed.
    #[error("the constraint failed: {reason}")]
    Failed {
        /// What it said.
        reason: String,
    },
}

/// A form that answers are to have; shared by all requests that ask for it.
pub trait AnswerForm: fmt::Debug + Send + Sync {
    /// The state before the first token.
    ///
    /// # Errors
    /// [`ConstraintError::Failed`].
    fn start(&self) -> Result<Box<dyn TokenConstraint>, ConstraintError>;
}

/// How far one answer is in its form. It must depend on the tokens taken and on nothing else.
pub trait TokenConstraint: Send + Sync {
    /// Adds the tokens that may come next to `allowed`, which is empty, and says where the answer stands. `room`: tokens that can still
    /// be generated, this one included, at least 1; a form that has to be closed in time looks at it.
    ///
    /// # Errors
    /// [`ConstraintError`]: the sequence ends with it.
    fn allow(&mut self, room: usize, allowed: &mut TokenSet) -> Result<Standing, ConstraintError>;

    /// An allowed token was chosen; stop tokens are not told.
    ///
    /// # Errors
    /// As for [`Self::allow`].
    fn take(&mut self, token: u32) -> Result<Standing, ConstraintError>;
}

/// An answer's form, as sampling parameters carry it. Two are equal if they are the same one.
#[derive(Debug, Clone)]
pub struct Constraint(Arc<dyn AnswerForm>);

impl Constraint {
    /// Around a form.
    pub fn new(form: impl AnswerForm + 'static) -> Self {
        Self(Arc::new(form))
    }
}

impl PartialEq for Constraint {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A sequence's place in its form. It moves with the sequence's tokens, which outlive preemptions and restarts.
pub struct Constrained {
    form: Constraint,
    state: Option<Box<dyn TokenConstraint>>,
    /// What may come behind `ready_for` tokens of the answer.
    allowed: Arc<TokenSet>,
    ready_for: Option<usize>,
    error: Option<ConstraintError>,
}

impl fmt::Debug for Constrained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constrained").field("form", &self.form).field("ready_for", &self.ready_for).finish()
    }
}

impl Constrained {
    /// At the beginning of the form.
    pub(super) fn new(form: Constraint) -> Self {
        Self { form, state: None, allowed: Arc::default(), ready_for: None, error: None }
    }

    /// What may come next, if the form has not failed.
    pub(super) fn allowed(&self) -> Option<&Arc<TokenSet>> {
        self.error.is_none().then_some(&self.allowed)
    }

    /// Finds out what may follow `num_tokens` of the answer, unless that is known, as in a step that runs again.
    fn prepare(&mut self, num_tokens: usize, room: usize, stop_token_ids: &[u32], vocab_size: usize) {
        if self.ready_for == Some(num_tokens) {
            return;
        }
        self.ready_for = Some(num_tokens);
        // A device's step may still hold the last one.
        let mut allowed = Arc::try_unwrap(std::mem::take(&mut self.allowed)).unwrap_or_default();
        allowed.clear(vocab_size);
        let standing = match &mut self.state {
            Some(state) => state.allow(room, &mut allowed),
            state => self.form.0.start().and_then(|new| state.insert(new).allow(room, &mut allowed)),
        };
        match standing {
            Ok(standing) => {
                let may_end = standing != Standing::Open;
                stop_token_ids.iter().for_each(|&token| allowed.set(token, may_end));
                if allowed.is_empty() {
                    self.error = Some(ConstraintError::NoToken { num_tokens });
                }
            }
            Err(error) => self.error = Some(error),
        }
        self.allowed = Arc::new(allowed);
    }

    /// Whether the chosen token is one that may come; why the sequence has to end if not.
    pub(super) fn accepts(&self, token: u32, num_tokens: usize) -> Result<(), ConstraintError> {
        match &self.error {
            Some(error) => Err(error.clone()),
            None if !self.allowed.contains(token) => Err(ConstraintError::NoProbability { num_tokens }),
            None => Ok(()),
        }
    }

    /// Takes an accepted token that is no stop token.
    pub(super) fn take(&mut self, token: u32) -> Result<Standing, ConstraintError> {
        self.state.as_mut().map_or(Ok(Standing::Open), |state| state.take(token))
    }
}

/// Finds out what each constrained row of the step may choose, side by side on the pool's threads. Called while the step runs.
pub(super) fn prepare(scheduler: &mut Scheduler, wanted: &[LogitsRow], vocab_size: usize) {
    let mut rows: Vec<(SequenceId, Constrained)> = Vec::new();
    for row in wanted.iter().filter(|row| row.purpose == Purpose::Next) {
        let constrained = scheduler.sequence_mut(row.id).and_then(|sequence| sequence.constrained.take());
        rows.extend(constrained.map(|constrained| (row.id, constrained)));
    }
    let sequences = &*scheduler;
    rows.par_iter_mut().with_max_len(1).for_each(|(id, constrained)| {
        let Some(sequence) = sequences.sequence(*id) else { return };
        let Task::Generate(SamplingParams { stop_token_ids, .. }) = &sequence.task else { return };
        let num_tokens = sequence.output.tokens.len();
        constrained.prepare(num_tokens, sequence.room().saturating_sub(num_tokens), stop_token_ids, vocab_size);
    });
    for (id, constrained) in rows {
        if let Some(sequence) = scheduler.sequence_mut(id) {
            sequence.constrained = Some(constrained);
        }
    }
}
