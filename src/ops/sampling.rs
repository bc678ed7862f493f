//! Choosing tokens where logits lie, on a CUDA device: kernels/sampling.cu does what `engine/sampler.rs` does on the processor, with the
//! same bits. What is asked of the rows goes there and what was found comes back in a few small arrays; logits stay.
//! Knows rows of logits and what is asked of each; knows no sequence.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};

use super::launch::Launch;
use super::workspace::{Slot, Workspace};
use super::{Compute, Runs};

/// Logits per run of the survey, as in `engine/survey.rs`.
const RUN: usize = 256;
/// Words of what is asked of a row, of what was found in it, and of what the survey keeps of a run.
const ASK_WORDS: usize = 18;
const ANSWER_WORDS: usize = 6;
const RUN_WORDS: usize = 4;

/// How a row's token is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// A random number of [0, 1).
    pub uniform: f64,
    /// 0 or less: the likeliest token.
    pub temperature: f32,
    /// Most tokens kept; `None`: all.
    pub top_k: Option<usize>,
    /// Probability that the kept ones reach; 1: all.
    pub top_p: f32,
    /// Least share of the likeliest one's probability; 0: none.
    pub min_p: f32,
    /// As in the engine's sampling parameters.
    pub repetition_penalty: f32,
    /// As there.
    pub presence_penalty: f32,
    /// As there.
    pub frequency_penalty: f32,
    /// Tokens that penalties change, in ascending order, each once, with how often they stand in the answer; empty if no penalty is
    /// asked for.
    pub seen: Vec<(u32, u32)>,
}

/// A set of tokens, as the kernels read it: a bit for each of the vocabulary, the lowest of a word first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenSet {
    words: Vec<u32>,
    vocabulary: usize,
}

impl TokenSet {
    /// No token of a vocabulary of so many.
    pub fn empty(vocabulary: usize) -> Self {
        Self { words: vec![0; vocabulary.div_ceil(32)], vocabulary }
    }

    /// Takes all tokens out; the vocabulary has `vocabulary` from now on.
    pub fn clear(&mut self, vocabulary: usize) {
        self.words.clear();
        self.words.resize(vocabulary.div_ceil(32), 0);
        self.vocabulary = vocabulary;
    }

    /// Puts a token in or takes it out; tokens outside the vocabulary are never in.
    pub fn set(&mut self, token: u32, is_in: bool) {
        if (token as usize) < self.vocabulary {
            let bit = 1 << (token % 32);
            let word = &mut self.words[token as usize / 32];
            *word = if is_in { *word | bit } else { *word & !bit };
        }
    }

    /// Puts in the tokens whose bits are set, a bit for each token as here; bits past the vocabulary are left out.
    pub fn add(&mut self, words: &[u32]) {
        self.words.iter_mut().zip(words).for_each(|(own, word)| *own |= word);
        if let (Some(last), rest @ 1..) = (self.words.last_mut(), self.vocabulary % 32) {
            *last &= (1 << rest) - 1;
        }
    }

    /// Whether a token is in.
    pub fn contains(&self, token: u32) -> bool {
        self.words.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
    }

    /// Whether no token is in.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// How many tokens are in.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Makes all other tokens impossible: their `logits` (one per token of the vocabulary) become negative infinity.
    pub fn mask(&self, logits: &mut [f32]) {
        for (logits, &word) in logits.chunks_mut(32).zip(&self.words) {
            match word {
                0 => logits.fill(f32::NEG_INFINITY),
                u32::MAX => {}
                word => {
                    for (bit, logit) in logits.iter_mut().enumerate() {
                        *logit = if word >> bit & 1 == 1 { *logit } else { f32::NEG_INFINITY };
                    }
                }
            }
        }
    }
}

/// What is asked of a row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ask {
    /// A token.
    pub choice: Option<Choice>,
    /// That many likeliest tokens.
    pub num_top: usize,
    /// These tokens' logits.
    pub targets: Vec<u32>,
    /// The only tokens that may be chosen; `None`: any.
    pub allowed: Option<Arc<TokenSet>>,
}

/// What was found in a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The chosen token, and its logit before penalties; 0 if none was asked for.
    pub token: u32,
    /// See [`Self::token`].
    pub logit: f32,
    /// ln Σ exp(logits), before penalties.
    pub log_sum: f64,
    /// The likeliest tokens and their logits.
    pub top: Vec<(u32, f32)>,
    /// Logits of the targets.
    pub targets: Vec<f32>,
}

/// Does what is `asked` of each row of `logits` [rows, V] (f32), and waits for it.
///
/// # Errors
/// If this is not a CUDA device, or the sizes do not fit.
pub fn choose(compute: &Compute, workspace: &mut Workspace, logits: &Tensor, asked: &[Ask]) -> Result<Vec<Found>> {
    let Runs::Cuda(kernels) = compute.runs() else {
        candle_core::bail!("tokens are chosen on the device where that is a CUDA device")
    };
    let (rows, vocabulary) = logits.dims2()?;
    if rows != asked.len() || vocabulary == 0 {
        candle_core::bail!("{} choices from logits {:?}", asked.len(), logits.shape())
    }
    if let Some(token) = asked.iter().flat_map(|ask| &ask.targets).find(|&&token| token as usize >= vocabulary) {
        candle_core::bail!("a target {token} outside the vocabulary of {vocabulary}")
    }
    let mut choices = asked.iter().filter_map(|ask| ask.choice.as_ref());
    if !choices.all(|choice| choice.seen.is_sorted_by(|a, b| a.0 < b.0)) {
        candle_core::bail!("tokens seen before that are not in order")
    }
    let masks = masks(asked, vocabulary)?;
    let masks = if masks.is_empty() { None } else { Some(workspace.upload(&masks)?) };
    let layout = Layout::of(asked, vocabulary);
    let (words, seen, targets) = layout.words(asked);
    let (words, device) = (workspace.upload(&words)?, &compute.device);
    let (seen, targets) = (workspace.upload(&seen)?, workspace.upload(&targets)?);
    let num_runs = vocabulary.div_ceil(RUN);
    let runs = workspace.rows_of(DType::U32, Slot::Survey, device, rows, num_runs * RUN_WORDS)?;
    let saved = workspace.rows_of(DType::F32, Slot::Saved, device, 1, layout.num_seen.max(1))?;
    // One buffer, so that one copy brings it back; the answers come first, since they hold numbers of 64 bits.
    let found = workspace.rows_of(DType::U32, Slot::Found, device, 1, layout.num_words(rows))?.flatten_all()?;
    let part = |first: usize, len: usize| found.narrow(0, first, len.max(1));
    let tops = part(layout.first_top(rows), 2 * layout.num_top)?;
    let logits_of_targets = part(layout.first_target(rows), layout.num_targets)?;
    Launch::new(&kernels, "survey", DType::F32)
        .over_all([num_runs.div_ceil(256 / 16), rows, 1], 256)
        .tensor(logits)
        .int(vocabulary)
        .tensor(&words)
        .tensor(&runs)
        .tensor(&seen)
        .optional(masks.as_ref())
        .run()?;
    Launch::new(&kernels, "choose", DType::F32)
        .over(rows, 256)
        .tensor(logits)
        .int(vocabulary)
        .tensor(&words)
        .tensor(&runs)
        .tensor(&seen)
        .tensor(&saved)
        .tensor(&targets)
        .optional(masks.as_ref())
        .tensor(&found)
        .tensor(&tops)
        .tensor(&logits_of_targets)
        .run()?;
    let found = found.to_vec1::<u32>()?;
    kernels.wait()?;
    Ok(layout.read(asked, &found))
}

/// The rows' masks, one behind the other. They are large, a bit for each row and token: words are copied many at once.
fn masks(asked: &[Ask], vocabulary: usize) -> Result<Vec<u32>> {
    let masks = asked.iter().filter_map(|ask| ask.allowed.as_ref());
    if let Some(mask) = masks.clone().find(|mask| mask.vocabulary != vocabulary) {
        candle_core::bail!("a mask of {} tokens for a vocabulary of {vocabulary}", mask.vocabulary)
    }
    let mut words = Vec::with_capacity(masks.clone().count() * vocabulary.div_ceil(32));
    masks.for_each(|mask| words.extend_from_slice(&mask.words));
    Ok(words)
}

/// How many of each there are, over all rows.
struct Layout {
    vocabulary: usize,
    num_top: usize,
    num_targets: usize,
    num_seen: usize,
}

impl Layout {
    fn of(asked: &[Ask], vocabulary: usize) -> Self {
        Self {
            vocabulary,
            num_top: asked.iter().map(|ask| ask.num_top.min(vocabulary)).sum(),
            num_targets: asked.iter().map(|ask| ask.targets.len()).sum(),
            num_seen: asked.iter().filter_map(|ask| ask.choice.as_ref()).map(|choice| choice.seen.len()).sum(),
        }
    }

    fn first_top(&self, rows: usize) -> usize {
        rows * ANSWER_WORDS
    }

    fn first_target(&self, rows: usize) -> usize {
        self.first_top(rows) + 2 * self.num_top.max(1)
    }

    fn num_words(&self, rows: usize) -> usize {
        self.first_target(rows) + self.num_targets.max(1)
    }

    /// What is asked as the kernels want it: an `Ask` per row, pairs of tokens seen and counts, and targets.
    fn words(&self, asked: &[Ask]) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
        let (mut words, mut seen, mut targets) = (Vec::with_capacity(asked.len() * ASK_WORDS), Vec::new(), Vec::new());
        let (mut num_top, mut num_masks) = (0, 0);
        for ask in asked {
            let none = Choice { temperature: 0.0, ..Choice::default() };
            let choice = ask.choice.as_ref().unwrap_or(&none);
            let uniform = choice.uniform.to_bits();
            words.extend([uniform as u32, (uniform >> 32) as u32]);
            let penalties = [choice.repetition_penalty, choice.presence_penalty, choice.frequency_penalty];
            words.extend([choice.temperature, choice.top_p, choice.min_p].map(f32::to_bits));
            words.extend(penalties.map(f32::to_bits));
            let top_k = choice.top_k.map_or(0, |count| count.clamp(1, self.vocabulary)) as u32;
            words.extend([1 + u32::from(ask.choice.is_some()), top_k, num_top, ask.num_top as u32]);
            let pairs = (seen.len() / 2) as u32;
            seen.extend(choice.seen.iter().flat_map(|&(token, count)| [token, count]));
            words.extend([pairs, (seen.len() / 2) as u32, targets.len() as u32]);
            targets.extend(&ask.targets);
            let mask = ask.allowed.as_ref().map_or(u32::MAX, |_| num_masks);
            num_masks += u32::from(ask.allowed.is_some());
            words.extend([targets.len() as u32, mask, 0]);
            num_top += ask.num_top.min(self.vocabulary) as u32;
        }
        (words, seen, targets)
    }

    fn read(&self, asked: &[Ask], words: &[u32]) -> Vec<Found> {
        let (answers, rest) = words.split_at(self.first_top(asked.len()));
        let (mut tops, mut targets) = rest.split_at(2 * self.num_top.max(1));
        let answers = asked.iter().zip(answers.chunks(ANSWER_WORDS));
        let found = answers.map(|(ask, answer)| {
            let sum = f64::from_bits(u64::from(answer[0]) | u64::from(answer[1]) << 32);
            let best = f64::from(f32::from_bits(answer[2]));
            let (top, other_tops) = tops.split_at(2 * ask.num_top.min(self.vocabulary));
            let (mine, others) = targets.split_at(ask.targets.len());
            (tops, targets) = (other_tops, others);
            let pair = |pair: &[u32]| (pair[0], f32::from_bits(pair[1]));
            Found {
                token: if ask.choice.is_some() { answer[4] } else { 0 },
                logit: f32::from_bits(answer[3]),
                log_sum: best + sum.ln(),
                top: top.chunks(2).map(pair).collect(),
                targets: mine.iter().copied().map(f32::from_bits).collect(),
            }
        });
        found.collect()
    }
}

impl Default for Choice {
    /// The likeliest token, nothing kept away.
    fn default() -> Self {
        Self {
            uniform: 0.0,
            temperature: 0.0,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seen: Vec::new(),
        }
    }
}
