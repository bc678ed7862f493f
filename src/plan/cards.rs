//! What a run takes on cards of one kind: room, speeds, hours, energy, price. Knows the roofline and simulated steps; knows no rows.

use std::collections::BTreeMap;

use super::assemble::{Asked, card_room};
use super::cost::{GOOD, POOR, Work, roofline_s};
use super::figures::{CardModel, CardPlan, CardStage, GpuPlan, ModelMemory, Rates};
use super::fit::fit;
use super::model::ModelFacts;
use super::simulate::{Simulator, StepShape};
use super::workload::StageWork;
use crate::registry::Card;

/// Numbers of cards that are planned for.
const NUM_GPUS: [u64; 4] = [1, 2, 4, 8];
/// Loading: seconds besides reading, and bytes read per second, at the better and the worse end.
const LOAD: [(f64, f64); 2] = [(5.0, 2e9), (60.0, 0.3e9)];

/// What is planned for every card.
pub(super) struct CardWork<'a> {
    pub(super) models: &'a [ModelMemory],
    pub(super) work: &'a [StageWork],
    pub(super) asked: &'a Asked<'a>,
}

/// Seconds at the better and the worse end.
type Range = [f64; 2];

fn add(a: Range, b: Range) -> Range {
    [a[0] + b[0], a[1] + b[1]]
}

fn times(range: Range, factor: f64) -> Range {
    range.map(|value| value * factor)
}

fn work_of(facts: &ModelFacts, fp8: bool) -> Work {
    Work {
        flops_per_token: 2.0 * facts.token_parameters as f64,
        flops_per_logits: 2.0 * facts.head_parameters as f64,
        weight_bytes: facts.weight_bytes as f64,
        kv_bytes: facts.kv_bytes_per_token.unwrap_or(0) as f64,
        fp8,
    }
}

/// The plan for one kind of card.
pub(super) fn card_plan(card: &Card, CardWork { models, work, asked }: &CardWork<'_>) -> CardPlan {
    let formats = &asked.formats;
    let mut planned = Vec::new();
    for model in *models {
        let Some(fit) = fit(&model.facts, formats, card.memory_bytes(), model.usual_len, model.longest_len) else {
            continue;
        };
        let rates = fit.fits().then(|| rates(model, card, fit.num_usual.max(1), asked));
        planned.push(CardModel { model: model.facts.name.clone(), fit, rates });
    }
    let fits = planned.len() == models.len() && planned.iter().all(|model| model.fit.fits());
    let mut plan = CardPlan {
        card: card.name.clone(),
        memory_gb: card.memory_gb,
        unverified: card.unverified.clone(),
        models: planned,
        fits,
        stages: Vec::new(),
        gpus: Vec::new(),
        num_tasks: None,
    };
    if !fits {
        return plan;
    }
    // What shares shorten, and what every card has to do by itself: loading and the last answers.
    let (mut shared, mut fixed) = ([0.0; 2], [0.0; 2]);
    let mut loaded: Option<(&ModelFacts, Simulator)> = None;
    for stage in *work {
        let Some(model) = models.iter().find(|model| model.serves(stage)) else { continue };
        let Some(room) = card_room(&model.facts, formats, card) else { continue };
        if loaded.as_ref().is_none_or(|(facts, _)| **facts != model.facts) {
            loaded = Some((&model.facts, Simulator::new(&room)));
            let seconds = LOAD.map(|(base, rate)| base + model.facts.stored_bytes as f64 / rate);
            fixed = add(fixed, seconds);
            plan.stages.push(CardStage { stage: "load", model: stage.model.clone(), seconds, parts: BTreeMap::new() });
        }
        let Some((_, engine)) = &mut loaded else { continue };
        let steps = engine.run(&stage.groups);
        let cost = work_of(&model.facts, formats.fp8);
        let ends = [GOOD, POOR].map(|reached| steps.seconds(|step| roofline_s(step, &cost, card, reached)));
        let (busy, tail) = (ends.map(|(busy, _)| busy * stage.scale), ends.map(|(_, tail)| tail));
        (shared, fixed) = (add(shared, busy), add(fixed, tail));
        let seconds = add(busy, tail);
        let computed: u64 = steps.computed_by_part.iter().sum();
        let share = |tokens: &u64| times(seconds, *tokens as f64 / computed.max(1) as f64);
        let parts = stage.parts.iter().cloned().zip(steps.computed_by_part.iter().map(share)).collect();
        plan.stages.push(CardStage { stage: stage.stage, model: stage.model.clone(), seconds, parts });
    }
    let reserve = (1.0 + asked.reserve) / 3600.0;
    plan.gpus =
        NUM_GPUS.iter().map(|&num| gpus(num, times(shared, reserve), times(fixed, reserve), card, asked)).collect();
    plan.num_tasks = asked.hours.and_then(|hours| {
        let left = hours - fixed[1] * reserve;
        (left > 0.0).then(|| (shared[1] * reserve / left).ceil().max(1.0) as u64)
    });
    plan
}

/// So many cards, given the hours that they share and those that each has by itself.
fn gpus(num_gpus: u64, shared: Range, fixed: Range, card: &Card, asked: &Asked<'_>) -> GpuPlan {
    let wall_hours = add(times(shared, 1.0 / num_gpus as f64), fixed);
    let gpu_hours = times(wall_hours, num_gpus as f64);
    let kwh = times(gpu_hours, asked.watts.unwrap_or(card.watts) / 1000.0);
    let is_priced = asked.price_per_gpu_hour.is_some() || asked.price_per_kwh.is_some();
    let price = is_priced.then(|| {
        let cards = times(gpu_hours, asked.price_per_gpu_hour.unwrap_or(0.0));
        add(cards, times(kwh, asked.price_per_kwh.unwrap_or(0.0)))
    });
    GpuPlan { num_gpus, wall_hours, gpu_hours, kwh, price }
}

/// Tokens per second in full steps, from the worse to the better end.
fn rates(model: &ModelMemory, card: &Card, batch: u64, asked: &Asked<'_>) -> Rates {
    let work = work_of(&model.facts, asked.formats.fp8);
    let tokens = asked.formats.step_tokens as u64;
    let prefill = StepShape { prefill_tokens: tokens, decode_tokens: 0, context_tokens: tokens, num_logits: 1 };
    let context_tokens = batch * model.usual_len as u64;
    let decode = StepShape { prefill_tokens: 0, decode_tokens: batch, context_tokens, num_logits: batch };
    let rate = |tokens: u64, step: &StepShape| {
        [POOR, GOOD].map(|reached| tokens as f64 / roofline_s(step, &work, card, reached))
    };
    Rates { prefill: rate(tokens, &prefill), decode: rate(batch, &decode) }
}
