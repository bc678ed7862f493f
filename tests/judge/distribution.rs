//! Numbers: what a verdict holds equals what the model says of the same tokens when asked directly.

use pairwright::engine::{Event, Request, Task};
use pairwright::generate::{TextModel, dialogue};
use pairwright::judge::{AspectScore, RowLanguage, Rubric};
use pairwright::prompt::DialogueEnd;
use tempfile::TempDir;

use super::loaded::{engine_options, load};
use super::{demo_model, fixture_model, items, rubric, verdicts};

/// Log-probability of every token of the vocabulary after `prompt`.
fn all_logprobs(model: &mut TextModel, prompt: Vec<u32>) -> Vec<f64> {
    let (engine, _) = model.parts();
    let targets = (0..engine.vocab_size() as u32).collect();
    engine.add(Request { prompt, task: Task::Score { targets }, key: 9 }).unwrap();
    loop {
        for event in engine.step().unwrap() {
            if let Event::Finished { output, .. } = event {
                return output.target_logprobs.into_iter().map(f64::from).collect();
            }
        }
    }
}

/// The verdict's scores by teacher forcing: each label's tokens one after the other, each in a pass of its own.
fn direct(model: &mut TextModel, rubric: &Rubric, prompt: &str, answer: &str) -> Vec<AspectScore> {
    let mut scores = Vec::new();
    for aspect in &rubric.aspects {
        let text = rubric.message(aspect, RowLanguage::default(), prompt, answer);
        let question = model.tokenizer().encode_chat(&dialogue(None, &text), DialogueEnd::GenerationPrompt).unwrap();
        let logprobs = rubric.labels.each_ref().map(|label| {
            let ids = model.tokenizer().label_token_ids(label, &question).unwrap();
            assert!(!ids.is_empty(), "{label:?}");
            let mut sum = 0.0;
            for (at, &id) in ids.iter().enumerate() {
                sum += all_logprobs(model, [&question[..], &ids[..at]].concat())[id as usize];
            }
            sum
        });
        scores.push(AspectScore::new(&aspect.name, &logprobs));
    }
    scores
}

fn assert_close(got: &AspectScore, want: &AspectScore) {
    assert_eq!(got.aspect, want.aspect);
    let pairs = got.distribution.iter().zip(&want.distribution);
    for (got, want) in pairs.chain([(&got.label_mass, &want.label_mass), (&got.mean, &want.mean)]) {
        assert!((got - want).abs() <= 1e-5 * want.abs().max(1e-9), "{got}, want {want}");
    }
}

fn assert_consistent(score: &AspectScore) {
    let sum: f64 = score.distribution.iter().sum();
    assert!((sum - 1.0).abs() < 1e-12, "{score:?}");
    let mean: f64 = score.distribution.iter().zip([1.0, 2.0, 3.0, 4.0, 5.0]).map(|(share, label)| share * label).sum();
    assert!((score.mean - mean).abs() < 1e-12, "{score:?}");
    let entropy: f64 = -score.distribution.iter().map(|share| share * share.ln()).sum::<f64>();
    assert!((score.entropy - entropy).abs() < 1e-9, "{score:?}");
    assert!((0.0..=1.0).contains(&score.label_mass), "{score:?}");
}

#[test]
fn a_verdict_equals_the_full_softmax() {
    for name in ["llama", "qwen2"] {
        let folder = tempfile::tempdir().unwrap();
        let mut model = load(&fixture_model(name), engine_options());
        let rubric = rubric(&folder, ["1", "2", "3", "4", "5"], 0.0);
        let found = verdicts(&mut model, &rubric, items());
        for (verdict, item) in found.iter().zip(items()) {
            let want = direct(&mut model, &rubric, &item.prompt.text, &item.candidate.text);
            for (got, want) in verdict.aspects.iter().zip(&want) {
                assert_consistent(got);
                assert_close(got, want);
            }
            let rating = (verdict.aspects[0].mean + 3.0 * verdict.aspects[1].mean) / 4.0;
            assert!((verdict.rating - rating).abs() < 1e-12, "the aspects' weights count");
            assert!(verdict.reliable, "a threshold of 0 lets everything pass");
        }
    }
}

#[test]
fn labels_of_several_tokens_are_products_of_conditionals() {
    for labels in
        [["10", "20", "30", "40", "50"], ["one", "two", "three", "four", "five"], ["1", "12", "123", "१", "５"]]
    {
        let folder = tempfile::tempdir().unwrap();
        let mut model = load(&fixture_model("llama"), engine_options());
        let rubric = rubric(&folder, labels, 0.0);
        let found = verdicts(&mut model, &rubric, items()[..2].to_vec());
        for (verdict, item) in found.iter().zip(items()) {
            let want = direct(&mut model, &rubric, &item.prompt.text, &item.candidate.text);
            verdict.aspects.iter().zip(&want).for_each(|(got, want)| assert_close(got, want));
        }
    }
}

#[test]
fn the_demonstration_model_wants_to_rate_and_random_weights_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let rubric = Rubric::built_in().unwrap();
    let found = verdicts(&mut demo_model(&folder), &rubric, items());
    for verdict in &found {
        assert!(verdict.reliable && verdict.aspects.len() == 5);
        assert!(verdict.aspects.iter().all(|score| score.label_mass > 0.9), "{verdict:?}");
        assert!((1.0..=5.0).contains(&verdict.rating));
        verdict.aspects.iter().for_each(assert_consistent);
    }
    let short = super::rubric(&folder, ["1", "2", "3", "4", "5"], 0.5);
    let random = verdicts(&mut load(&fixture_model("llama"), engine_options()), &short, items());
    assert!(random.iter().all(|verdict| !verdict.reliable && verdict.aspects[0].label_mass < 0.5));
}

#[test]
fn what_the_batch_looks_like_changes_no_bit() {
    let folder = tempfile::tempdir().unwrap();
    let labels: TempDir = tempfile::tempdir().unwrap();
    let rubric = rubric(&labels, ["1", "2", "3", "4", "50"], 0.0);
    pairwright::demo::write_model_dir(folder.path()).unwrap();
    let mut wanted = None;
    for (max_batch, prefix_cache) in [(1, true), (1, false), (7, true), (64, true), (64, false)] {
        let options = pairwright::engine::EngineOptions { max_batch, prefix_cache, ..engine_options() };
        let found = verdicts(&mut load(folder.path(), options), &rubric, items());
        assert_eq!(*wanted.get_or_insert_with(|| found.clone()), found, "batch {max_batch}, cache {prefix_cache}");
    }
}

#[test]
fn an_answers_aspects_share_what_stands_before_the_question() {
    let folder = tempfile::tempdir().unwrap();
    let rubric = Rubric::built_in().unwrap();
    let mut model = demo_model(&folder);
    let tokenizer = model.tokenizer();
    let (mut whole, mut bound) = (0, 0);
    for item in items() {
        let lengths: Vec<usize> = rubric
            .aspects
            .iter()
            .map(|aspect| rubric.message(aspect, RowLanguage::default(), &item.prompt.text, &item.candidate.text))
            .map(|text| tokenizer.encode_chat(&dialogue(None, &text), DialogueEnd::GenerationPrompt).unwrap().len())
            .collect();
        let bare = rubric.message(&rubric.aspects[0], RowLanguage::default(), &item.prompt.text, &item.candidate.text);
        let question = tokenizer.encode_text(&rubric.aspects[0].question).unwrap().len();
        assert!(bare.len() > question);
        whole += lengths.iter().sum::<usize>();
        // The first aspect in full; of each other one the question, and up to a block that it begins in.
        bound += lengths[0] + (lengths.len() - 1) * (question + 2 * 16 + 16);
    }
    verdicts(&mut model, &rubric, items());
    let stats = model.engine().stats();
    let computed = stats.num_prefill_tokens as usize;
    assert_eq!(computed + stats.num_reused_tokens as usize, whole, "{stats:?}");
    assert!(computed <= bound && stats.num_reused_tokens as usize > whole / 2, "{computed} > {bound}? {stats:?}");
    assert_eq!((stats.num_output_tokens, stats.num_decode_tokens), (0, 0), "nothing is decoded");
}
