//! `cargo bench --bench scheduler`: microseconds that the scheduler takes for a step of 64 sequences while 100 and while 10,000
//! wait. Integers alone: no model, no tensors; every ended sequence is replaced, so the queue keeps its length.

use std::time::Instant;

use pairwright::engine::block_manager::BlockManager;
use pairwright::engine::scheduler::{Limits, Scheduler};
use pairwright::engine::sequence::Sequence;
use pairwright::engine::{Request, SamplingParams, Task};

const BATCH: usize = 64;
const BLOCK: usize = 32;
const STEPS: usize = 400;
const ROUNDS: usize = 15;

struct Queue {
    scheduler: Scheduler,
    num_added: u64,
}

impl Queue {
    /// A full batch and `queued` more.
    fn new(queued: usize) -> Self {
        let limits = Limits { max_batch: BATCH, max_step_tokens: 512, prefix_cache: true };
        let mut queue = Self { scheduler: Scheduler::new(BlockManager::new(BATCH * 8, BLOCK), limits), num_added: 0 };
        (0..queued + BATCH).for_each(|_| queue.add());
        queue
    }

    /// Prompts of 100 tokens, the first half of which each shares with a hundredth of the others; at most 100 tokens more.
    fn add(&mut self) {
        let number = self.num_added as u32;
        self.num_added += 1;
        let prompt = (0..100).map(|index| if index < 50 { number % 100 } else { number + index }).collect();
        let task = Task::Generate(SamplingParams::default());
        self.scheduler.add(Sequence::new(Request { prompt, task, key: 0 }, 200, BLOCK));
    }

    /// Seconds in the scheduler per step, over `STEPS` steps. In each a sequence has one chance in 100 to end by a stop token.
    fn seconds_per_step(&mut self) -> f64 {
        let mut seconds = 0.0;
        for number in 0..STEPS as u64 {
            let started = Instant::now();
            let step = self.scheduler.schedule();
            step.iter().for_each(|&part| self.scheduler.computed(part));
            self.scheduler.prepare();
            let mut num_ended = 0;
            for part in &step {
                let Some(sequence) = self.scheduler.sequence(part.id) else { continue };
                let len = sequence.tokens.len();
                if part.start + part.num_tokens < len {
                    continue;
                }
                if len + 1 >= sequence.max_len || (part.id * 31 + number) % 100 == 0 {
                    self.scheduler.finish(part.id);
                    num_ended += 1;
                } else {
                    self.scheduler.push(part.id, number as u32);
                }
            }
            seconds += started.elapsed().as_secs_f64();
            (0..num_ended).for_each(|_| self.add());
        }
        seconds / STEPS as f64
    }
}

fn main() {
    let mut queues = [Queue::new(100), Queue::new(10_000)];
    queues.iter_mut().for_each(|queue| _ = queue.seconds_per_step());
    // In turn, so that both meet the same noise.
    let rounds: Vec<[f64; 2]> = (0..ROUNDS).map(|_| [0, 1].map(|index| queues[index].seconds_per_step())).collect();
    // The least of the rounds: what other programs take only adds to it.
    let least = |index: usize| rounds.iter().map(|round| round[index] * 1e6).fold(f64::INFINITY, f64::min);
    let (short, long) = (least(0), least(1));
    let report = serde_json::json!({
        "bench": "scheduler",
        "batch": BATCH,
        "step_us_100_queued": short,
        "step_us_10000_queued": long,
        "ratio": long / short,
    });
    println!("{report}");
}
