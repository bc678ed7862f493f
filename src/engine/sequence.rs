//! One request in the engine: its tokens, how far they are computed, the blocks it holds, and what is asked of it.
//! Integers only; knows neither tensors nor text.

use super::block_manager::{BlockHash, BlockId, BlockManager};
use super::constraint::{Constrained, Constraint, ConstraintError};

/// Names a sequence within its engine; later requests have larger ids.
pub type SequenceId = u64;

/// How to choose each token of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 always takes the likeliest token.
    pub temperature: f32,
    /// Keep this many likeliest tokens; `None`: all.
    pub top_k: Option<usize>,
    /// Keep the likeliest tokens that together reach this probability; 1: all.
    pub top_p: f32,
    /// Drop tokens less likely than this share of the likeliest one's probability; 0: none.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens in prompt or answer (arXiv 1909.05858); 1: off.
    pub repetition_penalty: f32,
    /// Taken off the logits of tokens already in the answer; 0: off.
    pub presence_penalty: f32,
    /// Taken off per occurrence in the answer; 0: off.
    pub frequency_penalty: f32,
    /// Start of every random number of the run.
    pub seed: u64,
    /// Tokens that end the answer and are not part of it.
    pub stop_token_ids: Vec<u32>,
    /// Most tokens to generate; the context may end an answer earlier.
    pub max_tokens: usize,
    /// Also report this many likeliest tokens at each step.
    pub top_logprobs: usize,
    /// Report the log-probability of each prompt token from this place on; 0: of all but the first, before which there is nothing.
    pub prompt_logprobs: Option<usize>,
    /// The form that the answer is to have: tokens that break it are impossible before penalties, temperature and filters are applied.
    pub constraint: Option<Constraint>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 0.7,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
            stop_token_ids: Vec::new(),
            max_tokens: 512,
            top_logprobs: 0,
            prompt_logprobs: None,
            constraint: None,
        }
    }
}

/// What is asked of a sequence.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// Continue the prompt.
    Generate(SamplingParams),
    /// The log-probability of each of these tokens as the next one; nothing is decoded.
    Score {
        /// Token ids.
        targets: Vec<u32>,
    },
    /// What a reward model's head says behind the last token; nothing is decoded.
    Classify,
}

/// A request: prompt, task, and the key that makes its random numbers its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Token ids; not empty.
    pub prompt: Vec<u32>,
    /// What to do with it.
    pub task: Task,
    /// Identity for the random numbers: a hash of row id and sample index, never of arrival order.
    pub key: u64,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token, or the caller's stop.
    Stop,
    /// The token limit or the context.
    Length,
    /// The answer's form allows no token: see [`SequenceOutput::constraint_error`].
    Constraint,
}

/// One chosen token.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// The token.
    pub token: u32,
    /// Its natural-log probability under the model (temperature 1, no penalties, no constraint: among all tokens).
    pub logprob: f32,
    /// The likeliest tokens with theirs, if asked for.
    pub top: Vec<(u32, f32)>,
}

/// A sequence's result so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SequenceOutput {
    /// Generated tokens, without the stop token.
    pub tokens: Vec<TokenLogprobs>,
    /// Log-probability of each prompt token (natural log), `None` for the first and for those not asked for; empty if none was.
    pub prompt_logprobs: Vec<Option<f32>>,
    /// Log-probability of each target of a [`Task::Score`].
    pub target_logprobs: Vec<f32>,
    /// The raw outputs of a reward model's head, of a [`Task::Classify`].
    pub head_scores: Vec<f32>,
    /// Why the answer's form ended it.
    pub constraint_error: Option<ConstraintError>,
}

/// A request's state.
#[derive(Debug)]
pub struct Sequence {
    /// Prompt and generated tokens.
    pub tokens: Vec<u32>,
    /// Length of the prompt.
    pub prompt_len: usize,
    /// Most tokens, prompt included, that it may grow to.
    pub max_len: usize,
    /// Tokens whose keys and values are in the cache, or will be when the step that runs is over.
    pub num_computed: usize,
    /// Whether the step that runs gives it one more token; it counts as there until it is.
    pub awaits_token: bool,
    /// The engine's how many-th preemption was this one's last; 0: none was.
    pub preemption: u64,
    /// Blocks held, in order.
    pub block_table: Vec<BlockId>,
    /// Hashes of the full blocks of `tokens`, as far as computed.
    pub block_hashes: Vec<BlockHash>,
    /// What is asked.
    pub task: Task,
    /// See [`Request::key`].
    pub key: u64,
    /// Where the answer stands in its form, if it is to have one.
    pub constrained: Option<Constrained>,
    /// What there is so far.
    pub output: SequenceOutput,
}

impl Sequence {
    /// A sequence of which nothing is computed.
    pub fn new(request: Request, max_len: usize, block_size: usize) -> Self {
        let constraint = match &request.task {
            Task::Generate(params) => params.constraint.clone(),
            Task::Score { .. } | Task::Classify => None,
        };
        let mut sequence = Self {
            prompt_len: request.prompt.len(),
            tokens: request.prompt,
            max_len,
            num_computed: 0,
            awaits_token: false,
            preemption: 0,
            block_table: Vec::new(),
            block_hashes: Vec::new(),
            task: request.task,
            key: request.key,
            constrained: constraint.map(Constrained::new),
            output: SequenceOutput::default(),
        };
        sequence.extend_hashes(block_size);
        sequence
    }

    /// Most tokens that it may generate.
    pub fn room(&self) -> usize {
        let most = match &self.task {
            Task::Generate(params) => params.max_tokens,
            Task::Score { .. } | Task::Classify => 0,
        };
        most.min(self.max_len - self.prompt_len)
    }

    /// Tokens still to be computed, an awaited one included; at least 1 while the sequence lives.
    pub fn num_uncomputed(&self) -> usize {
        self.tokens.len() + usize::from(self.awaits_token) - self.num_computed
    }

    /// From which place on log-probabilities of the prompt's tokens are asked for, if they are.
    pub fn prompt_logprobs_from(&self) -> Option<usize> {
        match &self.task {
            Task::Generate(params) => params.prompt_logprobs,
            Task::Score { .. } | Task::Classify => None,
        }
    }

    /// How many tokens of the beginning cached blocks may stand in for: those whose logits nobody asks for. The last one's always are.
    pub fn max_reused(&self) -> usize {
        // A token's log-probability is in the logits of the one before it.
        let before = self.prompt_logprobs_from().map_or(usize::MAX, |from| from.saturating_sub(1));
        before.min(self.tokens.len() - 1)
    }

    /// Appends a token.
    pub fn push(&mut self, token: u32, block_size: usize) {
        self.tokens.push(token);
        self.awaits_token = false;
        self.extend_hashes(block_size);
    }

    fn extend_hashes(&mut self, block_size: usize) {
        while (self.block_hashes.len() + 1) * block_size <= self.tokens.len() {
            let start = self.block_hashes.len() * block_size;
            let tokens = &self.tokens[start..start + block_size];
            let num_prompt = self.prompt_len.saturating_sub(start).min(block_size);
            let hash = BlockManager::hash(self.block_hashes.last().copied(), tokens, num_prompt);
            self.block_hashes.push(hash);
        }
    }
}
