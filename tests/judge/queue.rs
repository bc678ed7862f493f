//! One queue: what a run computes and what it finds in the cache, ratings alone and beside the answers that they are about.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, mpsc};

use pairwright::engine::{EngineOptions, KvBudget, SamplingParams};
use pairwright::generate::{
    Answer, Candidate, CandidateSource, Ending, FinishReason, GenerateOptions, PromptInput, PromptRequest, answers,
    dialogue, drive,
};
use pairwright::judge::{Judge, JudgeItem, RowLanguage, Rubric};
use pairwright::prompt::{ChatTokenizer, DialogueEnd};

use super::loaded::{Patient, engine_options, load};
use super::{fixture_model, items, rubric, verdicts};

/// Tokens that must be computed for these prompts if each full block is computed once: what is left of a prompt behind blocks
/// that another one has, and always its last token.
fn fewest_tokens(prompts: &[Vec<u32>], block_size: usize) -> usize {
    let mut seen: HashSet<&[u32]> = HashSet::new();
    let mut num_tokens = 0;
    for prompt in prompts {
        let ends = (1..=prompt.len() / block_size).map(|block| block * block_size);
        let num_shared = ends.clone().take_while(|&end| end < prompt.len() && seen.contains(&prompt[..end])).count();
        num_tokens += prompt.len() - num_shared * block_size;
        seen.extend(ends.map(|end| &prompt[..end]));
    }
    num_tokens
}

/// The human answer of an item and these ones of a model.
fn with_answers(item: &JudgeItem, texts: &[String]) -> Vec<JudgeItem> {
    let model = texts.iter().zip(0..).map(|(text, sample_index)| Candidate {
        source: CandidateSource::Model,
        sample_index,
        ..Candidate::human(&item.candidate.record_id, text)
    });
    let all = [item.candidate.clone()].into_iter().chain(model);
    all.map(|candidate| JudgeItem { prompt: item.prompt.clone(), candidate }).collect()
}

/// All that the judge is asked about these items.
fn questions(tokenizer: &ChatTokenizer, rubric: &Rubric, items: &[JudgeItem]) -> Vec<Vec<u32>> {
    let texts = items.iter().flat_map(|item| {
        rubric
            .aspects
            .iter()
            .map(|aspect| rubric.message(aspect, RowLanguage::default(), &item.prompt.text, &item.candidate.text))
    });
    texts.map(|text| tokenizer.encode_chat(&dialogue(None, &text), DialogueEnd::GenerationPrompt).unwrap()).collect()
}

/// Room for all blocks of a run.
fn roomy() -> EngineOptions {
    EngineOptions { kv_budget: KvBudget::Tokens(65_536), ..engine_options() }
}

#[test]
fn every_block_is_computed_once_in_a_run_and_no_rating_decodes() {
    let folder = tempfile::tempdir().unwrap();
    let rubric = Rubric::built_in().unwrap();
    let texts = ["Een ander antwoord.", "Nog een."].map(str::to_owned);
    let items: Vec<JudgeItem> = items().iter().flat_map(|item| with_answers(item, &texts)).collect();
    pairwright::demo::write_model_dir(folder.path()).unwrap();
    for (max_batch, max_step_tokens) in [(64, 512), (3, 40)] {
        let mut model = load(folder.path(), EngineOptions { max_batch, max_step_tokens, ..roomy() });
        let prompts = questions(model.tokenizer(), &rubric, &items);
        verdicts(&mut model, &rubric, items.clone());
        let stats = model.engine().stats();
        assert_eq!(stats.num_prefill_tokens as usize, fewest_tokens(&prompts, 16), "{stats:?}");
        assert_eq!((stats.num_decode_tokens, stats.num_output_tokens), (0, 0));
    }
}

#[test]
fn a_queue_shared_with_answers_computes_as_little() {
    let folder = tempfile::tempdir().unwrap();
    let rubric = Rubric::built_in().unwrap();
    let (mut sent, mut num_decoded, mut num_verdicts) = (Vec::new(), 0, 0);
    let mut model = {
        pairwright::demo::write_model_dir(folder.path()).unwrap();
        load(folder.path(), EngineOptions { max_batch: 6, ..roomy() })
    };
    let sampling = SamplingParams { temperature: 1.0, max_tokens: 30, ..SamplingParams::default() };
    let options = GenerateOptions { sampling, stop_strings: Vec::new(), ignore_eos: false, num_samples: 2 };
    let requests = items().into_iter().map(|item| PromptRequest {
        id: item.candidate.record_id,
        input: PromptInput::Messages(dialogue(None, &item.prompt.text)),
    });
    let (sender, queued) = mpsc::channel();
    let (all, decoded) = (&mut sent, &mut num_decoded);
    let mut texts: HashMap<String, Vec<String>> = HashMap::new();
    let answered = move |answer: Answer| {
        let generated = answer.result.unwrap();
        // The first token comes with the prompt; an end token is asked for by one more.
        *decoded += generated.tokens.len() as u64 - u64::from(generated.finish_reason == FinishReason::Length);
        let of_prompt = texts.entry(answer.id.clone()).or_default();
        of_prompt.push(generated.text);
        if of_prompt.len() == 2 {
            let item = items().into_iter().find(|item| item.candidate.record_id == answer.id).unwrap();
            for item in with_answers(&item, of_prompt) {
                all.push(item.clone());
                sender.send(item).unwrap();
            }
        }
        Ok(())
    };
    let (queue_len, sampling) = (model.queue_len(), options.sampling(model.eos_ids()));
    let (engine, tokenizer) = model.parts();
    let judge = Judge { tokenizer, name: "judge", rubric: &rubric };
    let sources = vec![
        answers(tokenizer, requests, &options, sampling, answered),
        judge.verdicts(queued.into_iter(), |_| {
            num_verdicts += 1;
            Ok(())
        }),
    ];
    assert_eq!(drive(engine, queue_len, sources, &mut Patient::default()).unwrap(), Ending::Completed);
    let stats = engine.stats();
    let mut prompts = questions(tokenizer, &rubric, &sent);
    for item in items() {
        let prompt = tokenizer.encode_chat(&dialogue(None, &item.prompt.text), DialogueEnd::GenerationPrompt).unwrap();
        prompts.extend([prompt.clone(), prompt]);
    }
    assert_eq!((num_verdicts, sent.len()), (12, 12), "three answers to each of four prompts");
    assert_eq!(stats.num_prefill_tokens as usize, fewest_tokens(&prompts, 16), "{stats:?}");
    assert_eq!(stats.num_decode_tokens, num_decoded, "the answers' tokens alone are decoded: {stats:?}");
}

#[test]
fn an_answer_is_rated_while_another_is_being_written() {
    let folder = tempfile::tempdir().unwrap();
    let rubric = rubric(&folder, ["1", "2", "3", "4", "5"], 0.0);
    let mut model = load(&fixture_model("llama"), engine_options());
    let options = |max_tokens| {
        let sampling = SamplingParams { max_tokens, ..SamplingParams::default() };
        GenerateOptions { sampling, stop_strings: Vec::new(), ignore_eos: true, num_samples: 1 }
    };
    let (short, long) = (options(2), options(440));
    let request = || {
        let id = "0".to_owned();
        [PromptRequest { id, input: PromptInput::TokenIds(vec![70, 71, 72]) }].into_iter()
    };
    let order = Mutex::new(Vec::new());
    let note = |what: &'static str| order.lock().unwrap().push(what);
    let note = &note;
    let (sender, queued) = mpsc::channel();
    let queue_len = model.queue_len();
    let (engine, tokenizer) = model.parts();
    let first = move |_: Answer| {
        note("short answer");
        sender.send(items().remove(0)).unwrap();
        Ok(())
    };
    let sources = vec![
        answers(tokenizer, request(), &short, short.sampling(&[]), first),
        answers(tokenizer, request(), &long, long.sampling(&[]), |_| {
            note("long answer");
            Ok(())
        }),
        Judge { tokenizer, name: "judge", rubric: &rubric }.verdicts(queued.into_iter(), |_| {
            note("rating");
            Ok(())
        }),
    ];
    let mut observer = Patient::default();
    assert_eq!(drive(engine, queue_len, sources, &mut observer).unwrap(), Ending::Completed);
    assert_eq!(observer.num_rows, 3);
    assert_eq!(order.into_inner().unwrap(), ["short answer", "rating", "long answer"]);
}
