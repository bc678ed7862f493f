//! The engine's own scheduler over a stage's requests, without a model: which steps there would be, how full they are, and what the prefix
//! cache saves. So a plan counts ramp and tail as they will come. Knows tokens and lengths; knows no seconds and no text.

use std::collections::HashMap;

use crate::engine::block_manager::BlockManager;
use crate::engine::scheduler::{Limits, Scheduler};
use crate::engine::sequence::Sequence;
use crate::engine::{Request, SamplingParams, Task};

/// Sequences queued beyond those that run, per place in the batch: as a run queues them.
const QUEUE_PER_PLACE: usize = 9;

/// A request and how it will go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Token ids; not empty.
    pub prompt: Vec<u32>,
    /// Tokens that it will generate; 0: only the prompt is computed.
    pub output_len: usize,
    /// Tokens that it may generate.
    pub max_tokens: usize,
    /// Which part of the stage it belongs to: an aspect, an order.
    pub part: usize,
}

/// What the engine may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bounds of a step.
    pub limits: Limits,
    /// Tokens per block.
    pub block_size: usize,
    /// Blocks of the cache.
    pub num_blocks: usize,
    /// Longest sequence admitted, in tokens.
    pub max_len: usize,
}

/// What one step computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepShape {
    /// Tokens of prompts.
    pub prefill_tokens: u64,
    /// Tokens one at a time.
    pub decode_tokens: u64,
    /// Keys and values that are looked at.
    pub context_tokens: u64,
    /// Rows through the head.
    pub num_logits: u64,
}

/// The steps of a stage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steps {
    /// In their order.
    pub shapes: Vec<StepShape>,
    /// From this one on nobody waits any more: batches only get emptier.
    pub tail_from: usize,
    /// Prompt tokens found in the prefix cache.
    pub num_reused_tokens: u64,
    /// Prompt tokens computed, by [`Job::part`].
    pub computed_by_part: Vec<u64>,
    /// Requests that can never be served: too long for the context or the cache.
    pub num_refused: u64,
    /// Times a sequence gave its blocks back.
    pub num_preemptions: u64,
}

impl Steps {
    /// Seconds by a cost of steps, before the tail and in it: with more rows, or shares of them on several cards, the first part is longer or
    /// shorter, and the tail stays.
    pub fn seconds(&self, cost: impl Fn(&StepShape) -> f64) -> (f64, f64) {
        let sum = |steps: &[StepShape]| steps.iter().map(&cost).sum::<f64>();
        let (busy, tail) = self.shapes.split_at(self.tail_from.min(self.shapes.len()));
        (sum(busy), sum(tail))
    }

    /// Sum over all steps.
    pub fn total(&self) -> StepShape {
        self.shapes.iter().fold(StepShape::default(), |sum, step| StepShape {
            prefill_tokens: sum.prefill_tokens + step.prefill_tokens,
            decode_tokens: sum.decode_tokens + step.decode_tokens,
            context_tokens: sum.context_tokens + step.context_tokens,
            num_logits: sum.num_logits + step.num_logits,
        })
    }
}

/// An engine without a model: its cache remembers stages, as that of a model that stays loaded does.
pub struct Simulator {
    scheduler: Scheduler,
    room: Room,
    /// Of each sequence: tokens it will have generated, and its part.
    ends: HashMap<u64, (usize, usize)>,
}

/// Runs a stage in an engine that has seen none before.
pub fn simulate(groups: &[Vec<Job>], room: &Room) -> Steps {
    Simulator::new(room).run(groups)
}

impl Simulator {
    /// With an empty cache.
    pub fn new(room: &Room) -> Self {
        let blocks = BlockManager::new(room.num_blocks, room.block_size);
        Self { scheduler: Scheduler::new(blocks, room.limits), room: *room, ends: HashMap::new() }
    }

    /// Runs the scheduler over `groups` of requests, queued as a row's requests are: nobody waits longer than in a run.
    pub fn run(&mut self, groups: &[Vec<Job>]) -> Steps {
        let before = self.scheduler.counters();
        let mut steps = Steps::default();
        let queue_len = self.room.limits.max_batch * QUEUE_PER_PLACE;
        let mut waiting = groups.iter();
        let mut all_queued = false;
        loop {
            while !all_queued && self.scheduler.num_sequences() < queue_len {
                match waiting.next() {
                    Some(group) => steps.num_refused += self.add(group),
                    None => all_queued = true,
                }
            }
            if !all_queued || self.scheduler.num_sequences() > self.scheduler.num_running() {
                steps.tail_from = steps.shapes.len() + 1;
            }
            if !self.step(&mut steps) {
                break;
            }
        }
        steps.tail_from = steps.tail_from.min(steps.shapes.len());
        let counters = self.scheduler.counters();
        steps.num_reused_tokens = counters.num_reused_tokens - before.num_reused_tokens;
        steps.num_preemptions = counters.num_preemptions - before.num_preemptions;
        steps
    }

    /// Queues a row's requests, all or none; how many can never be served.
    fn add(&mut self, group: &[Job]) -> u64 {
        let room = self.room;
        let longest = |job: &Job| (job.prompt.len() + job.max_tokens).min(room.max_len);
        let fits = |job: &Job| {
            let has_room = job.prompt.len() + job.max_tokens.min(1) <= room.max_len;
            !job.prompt.is_empty() && longest(job) <= room.num_blocks * room.block_size && has_room
        };
        if !group.iter().all(fits) {
            return group.len() as u64;
        }
        for job in group {
            let task = match job.max_tokens {
                0 => Task::Classify,
                max_tokens => Task::Generate(SamplingParams { max_tokens, ..SamplingParams::default() }),
            };
            let request = Request { prompt: job.prompt.clone(), task, key: 0 };
            let len = job.output_len.min(job.max_tokens).min(room.max_len - job.prompt.len());
            let id = self.scheduler.add(Sequence::new(request, longest(job), room.block_size));
            self.ends.insert(id, (len, job.part));
        }
        0
    }

    /// One step, in the engine's order; false when idle.
    fn step(&mut self, steps: &mut Steps) -> bool {
        let Self { scheduler, ends, .. } = self;
        let parts = scheduler.schedule();
        if parts.is_empty() {
            return false;
        }
        let mut shape = StepShape::default();
        let mut chosen = Vec::new();
        for part in &parts {
            let Some(sequence) = scheduler.sequence(part.id) else { continue };
            let end = part.start + part.num_tokens;
            shape.context_tokens += end as u64;
            if part.num_tokens > 1 || part.start < sequence.prompt_len {
                shape.prefill_tokens += part.num_tokens as u64;
                let of = ends.get(&part.id).map_or(0, |(_, part)| *part);
                if steps.computed_by_part.len() <= of {
                    steps.computed_by_part.resize(of + 1, 0);
                }
                steps.computed_by_part[of] += part.num_tokens as u64;
            } else {
                shape.decode_tokens += 1;
            }
            if end == sequence.tokens.len() {
                shape.num_logits += 1;
                chosen.push((part.id, sequence.tokens.len() - sequence.prompt_len));
            }
        }
        parts.iter().for_each(|&part| scheduler.computed(part));
        scheduler.prepare();
        for (id, num_tokens) in chosen {
            let most = ends.get(&id).map_or(0, |(len, _)| *len);
            if num_tokens < most {
                // Any token that no other sequence has in that place.
                scheduler.push(id, (id as u32).wrapping_mul(0x9E37_79B9).wrapping_add(num_tokens as u32));
            }
            if num_tokens + 1 >= most {
                scheduler.finish(id);
                ends.remove(&id);
            }
        }
        steps.shapes.push(shape);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(max_batch: usize, num_blocks: usize) -> Room {
        let limits = Limits { max_batch, max_step_tokens: 256, prefix_cache: true };
        Room { limits, block_size: 16, num_blocks, max_len: 512 }
    }

    fn job(salt: u32, len: usize, output_len: usize) -> Job {
        let prompt = (0..len as u32).map(|at| at * 7 + salt * 1_000_003).collect();
        Job { prompt, output_len, max_tokens: output_len, part: 0 }
    }

    #[test]
    fn every_token_is_counted_once() {
        let jobs: Vec<Vec<Job>> = (0..10).map(|salt| vec![job(salt, 40, 1 + salt as usize)]).collect();
        let steps = simulate(&jobs, &room(4, 200));
        let total = steps.total();
        assert_eq!(total.prefill_tokens, 400);
        // The first token of an answer comes with the prompt's last one; the last is never computed.
        assert_eq!(total.decode_tokens, (0..10).sum::<u64>());
        assert_eq!(total.num_logits, (1..=10).sum::<u64>());
        assert!(steps.shapes.iter().all(|step| step.decode_tokens <= 4) && steps.num_preemptions == 0);
        assert!(steps.tail_from > 0 && steps.tail_from < steps.shapes.len());
        assert_eq!(steps.seconds(|_| 1.0), (steps.tail_from as f64, (steps.shapes.len() - steps.tail_from) as f64));
    }

    #[test]
    fn equal_beginnings_are_computed_once_and_what_cannot_fit_is_refused() {
        let shared = |tail: u32| Job {
            part: tail as usize,
            ..Job { prompt: [job(1, 64, 0).prompt, vec![tail; 9]].concat(), ..job(1, 1, 0) }
        };
        let steps = simulate(&[vec![shared(0), shared(1), shared(2)], vec![job(5, 600, 0)]], &room(8, 100));
        assert_eq!((steps.num_reused_tokens, steps.num_refused), (128, 1));
        assert_eq!(steps.computed_by_part, [73, 9, 9]);
        assert_eq!(steps.total().num_logits, 3);
        // A stage after it finds what is still there.
        let mut engine = Simulator::new(&room(8, 100));
        engine.run(&[vec![shared(0)]]);
        assert_eq!(engine.run(&[vec![shared(1)]]).num_reused_tokens, 64);
    }
}
