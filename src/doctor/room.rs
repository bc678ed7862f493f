//! A device without room, and one with little: that the engine says so or takes less, and that answers stay the same.
//! Takes the device's whole memory for a moment. Knows the engine's errors; knows no operation.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use super::engine::requests;
use super::golden::{GoldenError, load, options, run, with_toy};
use super::{Check, in_one_line};
use crate::engine::{Engine, EngineError, EngineOptions, Event, KvBudget, SequenceOutput};
use crate::model::{Decoder, WeightsKind};
use crate::ops::Compute;

/// Bytes that are given back to an engine with little room.
const LITTLE: usize = 16 << 20;
/// Sequences of a job: how much room there is does not depend on them.
const SEQUENCES: u64 = 12;

/// Both.
pub fn check(compute: &Compute, told: &mut dyn FnMut(Check)) {
    let (none, little) = ("a device without room", "a device with little room");
    if compute.kernels.is_none() {
        return told(Check::skipped(none, "memory is the system's here"));
    }
    let decoder = |dir: &std::path::Path| load(dir, compute, WeightsKind::Files, None);
    told(Check::from_result(none, with_toy(|dir| without_room(none, &|| decoder(dir)))));
    told(Check::from_result(little, with_toy(|dir| with_little(little, &|| decoder(dir)))));
    let full = "a device that is full in the middle";
    told(Check::from_result(full, with_toy(|dir| full_in_the_middle(full, &|| decoder(dir)))));
}

/// Takes all memory of the device, sees that the engine says so, gives it back, and sees that everything goes on.
fn without_room(name: &str, decoder: &dyn Fn() -> Result<Decoder, GoldenError>) -> Result<Check, GoldenError> {
    let (want, _) = answers(decoder()?, &options())?;
    let (mut fresh, another) = (Engine::new(decoder()?, &options())?, decoder()?);
    let taken = take_all(&another.compute().device);
    // Neither a cache nor a step's buffers have room now.
    let large = EngineOptions { kv_budget: KvBudget::Tokens(1 << 20), max_batch: 1 << 12, ..options() };
    let vocab = another.spec().vocab_size as u32;
    let refused = Engine::new(another, &large).err().map(in_one_line);
    // Of the buffers that it gives up there may be room for smaller steps.
    let (step, is_well) = match run(&mut fresh, requests(vocab, SEQUENCES)) {
        Err(error) => (in_one_line(error), true),
        Ok(got) => (format!("went on with {} tokens", fresh.stats().max_step_tokens), got == want),
    };
    let num_taken = size_of_all(&taken);
    drop((taken, fresh));
    let same = answers(decoder()?, &options())?.0 == want;
    let detail = format!(
        "{} MiB taken; a cache then: {}; a step: {step}; afterwards {}",
        num_taken >> 20,
        refused.as_deref().unwrap_or("nothing"),
        if same { "the same answers" } else { "other answers" }
    );
    Ok(Check::judged(name, refused.is_some() && is_well && same, detail))
}

/// Leaves little memory to an engine that is asked for steps which do not fit, and for as much cache as there is.
fn with_little(name: &str, decoder: &dyn Fn() -> Result<Decoder, GoldenError>) -> Result<Check, GoldenError> {
    let (want, _) = answers(decoder()?, &options())?;
    let decoder = decoder()?;
    let mut taken = take_all(&decoder.compute().device);
    let mut given = 0;
    while given < LITTLE
        && let Some(piece) = taken.pop()
    {
        given += piece.elem_count();
    }
    let asked = EngineOptions { max_step_tokens: 1 << 14, max_batch: 256, kv_budget: KvBudget::Free, ..options() };
    let (got, engine) = answers(decoder, &asked)?;
    let (tokens, blocks) = (engine.stats().max_step_tokens, engine.stats().num_blocks);
    let detail = format!(
        "{} MiB: steps of {tokens} tokens instead of {}, {blocks} blocks of cache, {}",
        given >> 20,
        asked.max_step_tokens,
        if got == want { "the same answers" } else { "other answers" }
    );
    Ok(Check::judged(name, got == want && tokens < asked.max_step_tokens, detail))
}

/// Takes all memory before an engine's first step and gives it back bit by bit, until steps fit that are smaller than asked for.
fn full_in_the_middle(name: &str, decoder: &dyn Fn() -> Result<Decoder, GoldenError>) -> Result<Check, GoldenError> {
    let (want, _) = answers(decoder()?, &options())?;
    let asked = EngineOptions { max_step_tokens: 4096, ..options() };
    let mut engine = Engine::new(decoder()?, &asked)?;
    let mut taken = take_all(&engine.decoder().compute().device);
    let ids = engine.add_all(requests(engine.decoder().spec().vocab_size as u32, SEQUENCES))?;
    let (mut got, mut num_refused) = (BTreeMap::new(), 0);
    while engine.num_sequences() > 0 {
        match engine.step() {
            Ok(events) => got.extend(events.into_iter().filter_map(|event| match event {
                Event::Finished { id, output, .. } => Some((id, output)),
                Event::Token { .. } => None,
            })),
            Err(EngineError::OutOfMemory) if taken.pop().is_some() => num_refused += 1,
            Err(error) => return Err(error.into()),
        }
    }
    let got: Vec<SequenceOutput> = ids.iter().filter_map(|id| got.remove(id)).collect();
    let tokens = engine.stats().max_step_tokens;
    let detail = format!(
        "refused {num_refused} times, then steps of {tokens} tokens instead of {}, {}",
        asked.max_step_tokens,
        if got == want { "the same answers" } else { "other answers" }
    );
    Ok(Check::judged(name, got == want && tokens < asked.max_step_tokens, detail))
}

fn answers(decoder: Decoder, options: &EngineOptions) -> Result<(Vec<SequenceOutput>, Engine), GoldenError> {
    let mut engine = Engine::new(decoder, options)?;
    let vocab = engine.decoder().spec().vocab_size as u32;
    Ok((run(&mut engine, requests(vocab, SEQUENCES))?, engine))
}

/// All memory of the device, the largest pieces first.
fn take_all(device: &Device) -> Vec<Tensor> {
    let (mut taken, mut size) = (Vec::new(), 1usize << 36);
    while size >= 1 << 16 {
        match Tensor::zeros(size, DType::U8, device) {
            Ok(tensor) => taken.push(tensor),
            Err(_) => size /= 2,
        }
    }
    taken
}

fn size_of_all(taken: &[Tensor]) -> usize {
    taken.iter().map(Tensor::elem_count).sum()
}
