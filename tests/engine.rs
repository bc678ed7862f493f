//! The engine without reference values: its allocator and scheduler as programs over integers, its sampler against a plain
//! one, and that nothing about batches, order, memory or threads shows in what a request gives.

#[path = "engine/batches.rs"]
mod batches;
#[path = "engine/blocks.rs"]
mod blocks;
#[path = "engine/constraint.rs"]
mod constraint;
#[path = "engine/fleet.rs"]
mod fleet;
#[path = "engine/formats.rs"]
mod formats;
#[path = "engine/queue.rs"]
mod queue;
#[path = "engine/requests.rs"]
mod requests;
#[path = "engine/sampling.rs"]
mod sampling;
#[path = "engine/schedule.rs"]
mod schedule;

use std::collections::BTreeMap;

use pairwright::engine::{
    Engine, EngineOptions, Event, FinishReason, KvBudget, Request, SamplingParams, SequenceId, SequenceOutput, Task,
};
use pairwright::model::{self, Decoder, LoadOptions, WeightsKind};
use pairwright::ops::Compute;

/// A shape small enough to run hundreds of sequences in a second; windows in the upper layer.
const SHAPE: &str = r#"{"model_type": "qwen2", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 48, "vocab_size": 97, "max_position_embeddings": 160,
    "rms_norm_eps": 1e-6, "use_sliding_window": true, "sliding_window": 24, "max_window_layers": 1}"#;
const VOCAB: u32 = 97;

/// Random weights of that shape.
fn decoder(max_len: Option<usize>) -> Decoder {
    decoder_in(Compute::cpu(), max_len)
}

/// The same in other formats.
fn decoder_in(compute: Compute, max_len: Option<usize>) -> Decoder {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), SHAPE).unwrap();
    let weights = WeightsKind::Dummy { seed: 11 };
    model::load(dir.path(), &LoadOptions { compute, weights, max_len }).unwrap()
}

fn options() -> EngineOptions {
    EngineOptions { block_size: 16, kv_budget: KvBudget::Tokens(4096), ..EngineOptions::default() }
}

fn engine(options: &EngineOptions) -> Engine {
    Engine::new(decoder(None), options).unwrap()
}

fn prompt(len: usize, salt: u32) -> Vec<u32> {
    (0..len as u32).map(|i| (i * i * 7 + i * salt + salt * 31 + 3) % VOCAB).collect()
}

fn generate(prompt: Vec<u32>, params: SamplingParams, key: u64) -> Request {
    Request { prompt, task: Task::Generate(params), key }
}

/// Greedy, `max_tokens` long.
fn greedy(max_tokens: usize) -> SamplingParams {
    SamplingParams { temperature: 0.0, max_tokens, ..SamplingParams::default() }
}

fn score(prompt: &[u32], targets: &[u32]) -> Request {
    Request { prompt: prompt.to_vec(), task: Task::Score { targets: targets.to_vec() }, key: 0 }
}

/// Steps until idle. Token events must be those of the outputs, every sequence must end once, and no block may stay held.
/// `events` are those of steps before.
fn finish(engine: &mut Engine, mut events: Vec<Event>) -> BTreeMap<SequenceId, (FinishReason, SequenceOutput)> {
    let mut streamed: BTreeMap<SequenceId, Vec<u32>> = BTreeMap::new();
    let mut outputs = BTreeMap::new();
    while !events.is_empty() || engine.num_sequences() > 0 {
        for event in std::mem::take(&mut events) {
            match event {
                Event::Token { id, token } => streamed.entry(id).or_default().push(token),
                Event::Finished { id, reason, output } => {
                    assert_eq!(streamed.remove(&id).unwrap_or_default(), tokens(&output), "streamed and returned");
                    assert!(outputs.insert(id, (reason, output)).is_none(), "{id} ended twice");
                }
            }
        }
        events = engine.step().unwrap();
    }
    assert_eq!(engine.num_free_blocks(), engine.stats().num_blocks, "an idle engine holds no block");
    assert!(engine.step().unwrap().is_empty(), "an idle engine does nothing");
    outputs
}

/// Outputs in the order of the requests.
fn run(engine: &mut Engine, requests: &[Request]) -> Vec<(FinishReason, SequenceOutput)> {
    let ids: Vec<SequenceId> = requests.iter().map(|request| engine.add(request.clone()).unwrap()).collect();
    let mut outputs = finish(engine, Vec::new());
    ids.iter().map(|id| outputs.remove(id).unwrap()).collect()
}

fn tokens(output: &SequenceOutput) -> Vec<u32> {
    output.tokens.iter().map(|token| token.token).collect()
}
