//! From models, rows and stages to a plan's figures. Knows how the parts belong together; each part's own arithmetic is beside it.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::cards::{CardWork, card_plan};
use super::figures::{Disk, MeasuredStage, ModelMemory, Plan, Rows, StageTokens, Tokens};
use super::fit::{CLASSES_GB, fit, num_blocks, room, what_would};
use super::measure::Measured;
use super::model::{BYTES_PER_TOKEN, Encoder, Formats, ModelFacts, PlannedModel};
use super::people::{Effort, Power};
use super::simulate::{Room, Simulator};
use super::terms::{Counted, Licences, risks};
use super::workload::{StageWork, TokenQuantiles};
use crate::data::{PromptRecord, Prompts, language};
use crate::generate::Forecast;
use crate::quality::default_profile;
use crate::registry::Card;

/// A short English text of ours, by which tokenizers are compared with what they give in other languages.
const ENGLISH: &str = "The river had risen during the night, and by morning the lower fields were under water. People from both villages came \
    with boats and ropes to bring the animals to higher ground. Nobody remembered such a flood, but the old teacher showed them a mark on \
    the wall of the mill that his grandfather had made. What do we learn from this? Write down what you see, and keep it where others \
    will find it.";
/// Bytes that a row takes in the run's files besides its texts: ids, numbers, names. From runs of this program.
const ROW_BYTES: u64 = 1200;
/// The same of an aspect of a verdict, with its distribution.
const ASPECT_BYTES: u64 = 330;
/// Times that texts are stored: rows, journal of answers, dataset and `raw` (compressed).
const TEXT_COPIES: f64 = 3.2;
/// This program, its notes and sums in a bundle.
const PROGRAM_BYTES: u64 = 40_000_000;

/// A generator and what it is asked.
pub struct PlannedGenerator {
    /// The model.
    pub model: PlannedModel,
    /// Of each row; `None`: not encodable.
    pub prompts: Vec<Option<Vec<u32>>>,
    /// Tokens of each row's human answer.
    pub answers: Vec<Option<usize>>,
    /// Lengths that stand for its answers.
    pub lengths: Vec<usize>,
    /// See [`Tokens::expected_from`].
    pub lengths_from: &'static str,
    /// Most tokens of an answer.
    pub max_tokens: usize,
    /// Answers per prompt.
    pub num_samples: u32,
}

/// What was asked besides the run itself.
pub struct Asked<'a> {
    /// The day.
    pub created: String,
    /// On cards.
    pub formats: Formats,
    /// Cards to plan for.
    pub cards: &'a [&'a Card],
    /// Time limit of a task.
    pub hours: Option<f64>,
    /// Added to all hours, 0..: 0.15 is 15 %.
    pub reserve: f64,
    /// Power of a card, in place of its most.
    pub watts: Option<f64>,
    /// Prices, in one currency.
    pub price_per_gpu_hour: Option<f64>,
    /// See `price_per_gpu_hour`.
    pub price_per_kwh: Option<f64>,
    /// Of a person.
    pub seconds_per_vote: f64,
    /// Votes per item.
    pub overlap: u32,
    /// Items that people see; `None`: all rows.
    pub num_annotated: Option<u64>,
    /// The prompts' name and licence.
    pub source: (String, Option<String>),
    /// Most pairs of one prompt.
    pub pairs_per_prompt: u64,
}

/// A stage that was timed on this machine.
pub struct Measurement {
    /// As `speed.jsonl` names it; its fit serves the model's other stages too.
    pub stage: &'static str,
    /// The model.
    pub model: String,
    /// Whose stage it is: see [`StageWork::role`].
    pub role: &'static str,
    /// The device, in words.
    pub device: String,
    /// What was seen.
    pub measured: Measured,
    /// Seconds of loading.
    pub load_s: f64,
    /// The engine's room here.
    pub room: Room,
    /// Engines that share the work.
    pub num_engines: usize,
}

/// Puts the plan together.
pub fn assemble(
    prompts: &Prompts,
    generators: &[PlannedGenerator],
    judges: &[PlannedModel],
    work: &[StageWork],
    measurements: &[Measurement],
    asked: &Asked<'_>,
) -> Plan {
    let records = &prompts.records;
    let tokens: Vec<Tokens> = generators.iter().map(|generator| tokens_of(generator, records)).collect();
    let models = memories(generators, judges, work, &asked.formats);
    let stages = stage_tokens(work, &models, &asked.formats);
    let card_work = CardWork { models: &models, work, asked };
    let cards: Vec<_> = asked.cards.par_iter().map(|card| card_plan(card, &card_work)).collect();
    let measured = measured(work, &models, measurements);
    let forecast = forecast(&stages, &cards, &measured);
    let rows = rows(prompts, asked.pairs_per_prompt);
    let all = |role: &'static str| models.iter().filter(move |model| model.role == role).map(|model| &model.facts);
    let (writers, raters): (Vec<&ModelFacts>, Vec<&ModelFacts>) = (all("generator").collect(), all("judge").collect());
    let roles: Vec<_> = models.iter().map(|model| (model.role, &model.facts)).collect();
    let counted = counted(&tokens, &stages, records);
    let num_items = asked.num_annotated.unwrap_or(rows.num_records).min(rows.num_records);
    let mut problems = cannot(&cards, &models, asked);
    if rows.num_records == 0 {
        problems.push("no row passes the filters: see the drops".to_owned());
    }
    Plan {
        format: 1,
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        created: asked.created.clone(),
        disk: disk(prompts, &models, &stages, work),
        power: Power::table(num_items),
        annotation: Effort::of(num_items, asked.overlap, asked.seconds_per_vote),
        licences: Licences::of(asked.source.clone(), &roles),
        risks: risks(&writers, &raters, &counted),
        assumptions: assumptions(generators, judges, work, &measured, asked),
        fits: problems.is_empty(),
        what_would: problems,
        rows,
        tokens,
        models,
        stages,
        cards,
        measured,
        forecast,
    }
}

fn rows(prompts: &Prompts, pairs_per_prompt: u64) -> Rows {
    let mut languages: BTreeMap<String, u64> = BTreeMap::new();
    for record in &prompts.records {
        let name = if record.language.is_empty() { &record.language_code } else { &record.language };
        *languages.entry(name.clone()).or_default() += 1;
    }
    let num_records = prompts.records.len() as u64;
    Rows {
        num_rows_read: prompts.num_rows_read,
        num_records,
        num_with_response: prompts.records.iter().filter(|record| record.response.is_some()).count() as u64,
        drops: prompts.drops.0.clone(),
        languages,
        most_pairs: num_records * pairs_per_prompt,
    }
}

fn tokens_of(generator: &PlannedGenerator, records: &[PromptRecord]) -> Tokens {
    let PlannedGenerator { model, max_tokens, .. } = generator;
    let prompts = TokenQuantiles::of(generator.prompts.iter().flatten().map(Vec::len));
    let answers = TokenQuantiles::of(generator.answers.iter().flatten().copied());
    let per_1000 = |tokens: u64, characters: usize| 1000.0 * tokens as f64 / characters.max(1) as f64;
    let characters: usize = records.iter().filter_map(|record| Some(record.response.as_deref()?.chars().count())).sum();
    let english = model.encoder.text(ENGLISH).map_or(0, |tokens| tokens.len() as u64);
    Tokens {
        model: model.facts.name.clone(),
        counted_by: if matches!(model.encoder, Encoder::Exact(_)) { "tokenizer" } else { "estimate" },
        expected: TokenQuantiles::of(generator.lengths.iter().map(|len| (*len).min(*max_tokens))),
        expected_from: generator.lengths_from,
        max_tokens: *max_tokens,
        num_clipped: generator.answers.iter().flatten().filter(|len| **len > *max_tokens).count(),
        num_too_long: generator
            .prompts
            .iter()
            .flatten()
            .filter(|prompt| prompt.len() + 1 > model.facts.max_len)
            .count(),
        per_1000_characters: per_1000(answers.total, characters),
        english_per_1000_characters: per_1000(english, ENGLISH.chars().count()),
        prompts,
        answers,
    }
}

/// Each model with the lengths of what it is asked, and what fits beside it.
fn memories(
    generators: &[PlannedGenerator],
    judges: &[PlannedModel],
    work: &[StageWork],
    formats: &Formats,
) -> Vec<ModelMemory> {
    let of = |role, facts: &ModelFacts| {
        let is_own = |stage: &&StageWork| stage.model == facts.name && stage.role() == role;
        let jobs: Vec<_> = work.iter().filter(is_own).flat_map(|stage| stage.groups.iter().flatten()).collect();
        let usual = TokenQuantiles::of(jobs.iter().map(|job| job.prompt.len() + job.output_len));
        let longest = jobs.iter().map(|job| job.prompt.len() + job.max_tokens).max().unwrap_or(1);
        let (usual_len, longest_len) = (usual.p95.min(facts.max_len), longest.min(facts.max_len));
        let classes = CLASSES_GB.iter().map(|gb| gb * 1_000_000_000);
        let fits = classes.filter_map(|memory| fit(facts, formats, memory, usual_len, longest_len)).collect();
        ModelMemory { role, facts: facts.clone(), usual_len, longest_len, fits }
    };
    let generators = generators.iter().map(|generator| of("generator", &generator.model.facts));
    generators.chain(judges.iter().map(|judge| of("judge", &judge.facts))).collect()
}

/// Rows of a stage that all of its rows would be: its groups, but of `generate` each answer is one.
fn num_rows(stage: &StageWork) -> u64 {
    (stage.groups.len() as f64 * stage.scale).round() as u64
}

/// Each stage's tokens, with a cache that has room for all: what a card's has not, is computed again and stands in its seconds.
fn stage_tokens(work: &[StageWork], models: &[ModelMemory], formats: &Formats) -> Vec<StageTokens> {
    let mut loaded: Option<(&ModelFacts, Simulator)> = None;
    let one = |stage: &'_ StageWork, simulator: &mut Simulator| {
        let steps = simulator.run(&stage.groups);
        let times = |number: u64| (number as f64 * stage.scale).round() as u64;
        let computed = stage.parts.iter().cloned().zip(steps.computed_by_part.iter().map(|tokens| times(*tokens)));
        let prompt = TokenQuantiles::of(stage.groups.iter().flatten().map(|job| job.prompt.len()));
        let outputs: u64 = stage.groups.iter().flatten().map(|job| job.output_len as u64).sum();
        StageTokens {
            stage: stage.stage,
            model: stage.model.clone(),
            num_rows: num_rows(stage),
            num_requests: times(prompt.n as u64),
            num_prompt_tokens: times(prompt.total),
            computed: computed.collect(),
            num_output_tokens: times(outputs),
            num_refused: times(steps.num_refused),
            simulated_share: 1.0 / stage.scale.max(1.0),
            prompt,
        }
    };
    let mut stages = Vec::new();
    for stage in work {
        let Some(ModelMemory { facts, .. }) = models.iter().find(|model| model.serves(stage)) else { continue };
        if loaded.as_ref().is_none_or(|(before, _)| *before != facts) {
            let jobs =
                work.iter().filter(|other| other.model == stage.model).flat_map(|other| other.groups.iter().flatten());
            let longest = jobs.map(|job| job.prompt.len() + job.max_tokens).max().unwrap_or(1);
            let blocks = formats.max_batch * 4 * longest.div_ceil(formats.block_size);
            loaded = Some((facts, Simulator::new(&room(facts, formats, blocks))));
        }
        stages.extend(loaded.as_mut().map(|(_, simulator)| one(stage, simulator)));
    }
    stages
}

/// What stages take here, by the fit of their own measurement or another one of their model.
fn measured(work: &[StageWork], models: &[ModelMemory], measurements: &[Measurement]) -> Vec<MeasuredStage> {
    let mut loaded: Option<(&ModelFacts, Simulator)> = None;
    let mut stages = Vec::new();
    for stage in work {
        let own = |one: &&Measurement| one.model == stage.model && one.stage == stage.stage;
        let of_model = |one: &&Measurement| one.model == stage.model && one.role == stage.role();
        let Some(found) = measurements.iter().find(own).or_else(|| measurements.iter().rfind(of_model)) else {
            continue;
        };
        let Some(ModelMemory { facts, .. }) = models.iter().find(|model| model.serves(stage)) else { continue };
        if loaded.as_ref().is_none_or(|(before, _)| *before != facts) {
            loaded = Some((facts, Simulator::new(&found.room)));
        }
        let Some((_, simulator)) = &mut loaded else { continue };
        let steps = simulator.run(&stage.groups);
        let (busy, tail) = steps.seconds(|step| found.measured.fitted.step_s(step));
        let seconds = busy * stage.scale / found.num_engines as f64 + tail;
        let all = |tokens: u64| tokens as f64 * stage.scale / seconds.max(1e-9);
        let total = steps.total();
        stages.push(MeasuredStage {
            stage: stage.stage,
            model: stage.model.clone(),
            device: found.device.clone(),
            timed_s: found.measured.elapsed_s,
            load_s: found.load_s,
            seconds: [seconds * (1.0 - found.measured.spread), seconds * (1.0 + found.measured.spread)],
            prompt_tokens_per_s: all(total.prefill_tokens + steps.num_reused_tokens),
            output_tokens_per_s: all(total.decode_tokens),
        });
    }
    stages
}

fn forecast(stages: &[StageTokens], cards: &[super::CardPlan], measured: &[MeasuredStage]) -> Vec<Forecast> {
    let rows = |stage: &str, model: &str| {
        stages.iter().find(|one| one.stage == stage && one.model == model).map_or(0, |one| one.num_rows)
    };
    let one = |stage: &str, model: &str, card: Option<String>, [low_s, high_s]: [f64; 2], expected_s: f64| Forecast {
        stage: stage.to_owned(),
        model: model.to_owned(),
        card,
        num_rows: rows(stage, model),
        low_s,
        expected_s,
        high_s,
    };
    let here = measured.iter().map(|stage| {
        let [low, high] = stage.seconds;
        one(stage.stage, &stage.model, None, stage.seconds, (low + high) / 2.0)
    });
    let there = cards.iter().flat_map(|card| {
        let stages = card.stages.iter().filter(|stage| stage.stage != "load");
        stages.map(|stage| {
            let [low, high] = stage.seconds;
            one(stage.stage, &stage.model, Some(card.card.clone()), stage.seconds, (low * high).sqrt())
        })
    });
    here.chain(there).collect()
}

fn counted(tokens: &[Tokens], stages: &[StageTokens], records: &[PromptRecord]) -> Counted {
    let languages: BTreeSet<(String, String)> =
        records.iter().map(|record| (record.language.clone(), record.language_code.clone())).collect();
    let may_not_veto = |(name, code): &&(String, String)| {
        let profile = default_profile();
        !language::broad_code(name, code)
            .and_then(|code| profile.language(code))
            .is_some_and(|known| known.is_validated())
    };
    let named = |(name, code): &(String, String)| if name.is_empty() { code.clone() } else { name.clone() };
    let worst = tokens.iter().max_by_key(|one| one.num_clipped);
    let poorest = tokens.iter().filter(|one| one.counted_by == "tokenizer" && one.answers.n > 0);
    Counted {
        num_clipped: worst.map_or(0, |one| one.num_clipped),
        num_answers: worst.map_or(0, |one| one.answers.n),
        num_too_long: tokens.iter().map(|one| one.num_too_long).max().unwrap_or(0),
        num_refused: stages.iter().map(|stage| stage.num_refused).sum(),
        not_validated: languages.iter().filter(may_not_veto).map(named).filter(|name| !name.is_empty()).collect(),
        languages: languages.into_iter().filter(|(name, code)| !(name.is_empty() && code.is_empty())).collect(),
        tokens_per_1000: poorest.map(|one| (one.per_1000_characters, one.english_per_1000_characters)).next(),
        max_tokens: worst.map_or(0, |one| one.max_tokens),
    }
}

fn disk(prompts: &Prompts, models: &[ModelMemory], stages: &[StageTokens], work: &[StageWork]) -> Disk {
    let mut seen = BTreeSet::new();
    let stored = models
        .iter()
        .filter(|model| seen.insert((&model.facts.name, model.facts.stored_bytes)))
        .map(|model| model.facts.stored_bytes)
        .sum();
    let texts = |record: &PromptRecord| (record.prompt.len() + record.response.as_ref().map_or(0, String::len)) as u64;
    let human: u64 = prompts.records.iter().map(texts).sum();
    let answers: u64 =
        prompts.records.iter().filter_map(|record| record.response.as_ref()).map(|text| text.len() as u64).sum();
    let generated: u64 = stages.iter().filter(|stage| stage.stage == "generate").map(|stage| stage.num_rows).sum();
    let mean = answers as f64 / prompts.records.len().max(1) as f64;
    let judged = stages.iter().zip(work).filter(|(stage, _)| stage.stage == "judge");
    let verdicts: u64 = judged.map(|(stage, work)| stage.num_rows * work.parts.len() as u64).sum();
    let run = (TEXT_COPIES * (human as f64 + generated as f64 * mean)) as u64
        + ROW_BYTES * (prompts.records.len() as u64 + generated)
        + ASPECT_BYTES * verdicts;
    let source = prompts.source.size_bytes;
    Disk { models: stored, prompts: source, run, bundle: stored + source + PROGRAM_BYTES }
}

/// Why the run cannot be made as asked, and what would help; empty if it can.
fn cannot(cards: &[super::CardPlan], models: &[ModelMemory], asked: &Asked<'_>) -> Vec<String> {
    let mut problems = Vec::new();
    if !cards.is_empty() && cards.iter().all(|card| !card.fits) {
        let largest = asked.cards.iter().map(|card| card.memory_bytes()).max().unwrap_or(0);
        let too_large = |model: &&ModelMemory| {
            fit(&model.facts, &asked.formats, largest, model.usual_len, model.longest_len)
                .is_some_and(|fit| !fit.fits())
        };
        let mut ways: Vec<String> = models
            .iter()
            .filter(too_large)
            .map(|model| what_would(&model.facts, &asked.formats, largest, model.longest_len))
            .collect();
        ways.dedup();
        problems.extend(ways);
    }
    if let Some(hours) = asked.hours
        && cards.iter().any(|card| card.fits)
        && cards.iter().all(|card| !card.fits || card.num_tasks.is_none())
    {
        problems.push(format!(
            "--hours {hours}: loading the models and the last answers alone take longer; give tasks more time"
        ));
    }
    problems
}

fn assumptions(
    generators: &[PlannedGenerator],
    judges: &[PlannedModel],
    work: &[StageWork],
    measured: &[MeasuredStage],
    asked: &Asked<'_>,
) -> Vec<String> {
    let mut said = Vec::new();
    if generators.iter().any(|generator| generator.lengths_from == "people") {
        said.push(
            "answers are taken to be as long as people's answers to other rows, cut at --max-tokens; --measure sees a model's own"
                .to_owned(),
        );
    }
    if generators.iter().any(|generator| generator.lengths_from == "both") {
        said.push(
            "few answers ended while the engine was timed, so their lengths lean on people's: a longer --measure tells more".to_owned(),
        );
    }
    let estimated = generators.iter().map(|one| &one.model).chain(judges).filter(|model| model.tokenizer().is_none());
    let names: BTreeSet<&str> = estimated.map(|model| model.facts.name.as_str()).collect();
    if !names.is_empty() {
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        said.push(format!(
            "token counts of {names} are estimates (a token for {BYTES_PER_TOKEN} bytes): only the list of models is known, no tokenizer is here"
        ));
    }
    if let Some(scale) = work.iter().map(|stage| stage.scale).reduce(f64::max).filter(|scale| *scale > 1.0) {
        said.push(format!(
            "of large jobs a sample by hash stands for all rows ({:.1} % at the least); prompts and human answers are counted all",
            100.0 / scale
        ));
    }
    let (good, poor) = (super::GOOD, super::POOR);
    said.push(format!(
        "cards: {:.0} to {:.0} % of the peak of products and {:.0} to {:.0} % of the bandwidth are reached; nothing of this was measured on \
         them by this program",
        100.0 * poor.compute,
        100.0 * good.compute,
        100.0 * poor.bandwidth,
        100.0 * good.bandwidth
    ));
    if !measured.is_empty() {
        said.push("measured: the engine was timed; texts and journals, which run beside it, were not".to_owned());
    }
    said.push(format!(
        "a reserve of {:.0} % is in all hours; loading reads 0.3 to 2 GB a second",
        100.0 * asked.reserve
    ));
    said.push("energy is that of the boards at their most, without the machine around them; a run on disk and a vote's seconds are guesses".to_owned());
    said
}

/// The engine's room on a card, if the model's shape is known and a block fits.
pub(super) fn card_room(facts: &ModelFacts, formats: &Formats, card: &Card) -> Option<Room> {
    let blocks = num_blocks(facts, formats, card.memory_bytes())?;
    (blocks > 0).then(|| room(facts, formats, blocks))
}
