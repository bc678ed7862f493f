//! The engine against what Transformers computes: tokens, logits and log-likelihoods of small random models, alone, in a
//! ragged batch, under preemption, with chunked prefill and with prefix-cache hits.
//!
//! `tests/fixtures/models/` holds every family (scripts/make_reference_models.py makes them). `PAIRWRIGHT_REFERENCE_DIR` names a folder with more of them, in the same layout.

use std::path::{Path, PathBuf};

use candle_core::DType;
use candle_core::quantized::GgmlDType;
use pairwright::doctor::golden::{Expected, MAX_LEN};
use pairwright::engine::{
    Engine, EngineOptions, Event, KvBudget, Request, SamplingParams, SequenceId, SequenceOutput, Task,
};
use pairwright::model::{self, LoadOptions, WeightsKind};
use pairwright::ops::paged::KvFormat;
use pairwright::ops::{BlockInputs, Compute, DenseProducts, DeviceChoice, OpsPath};

/// All but reward models; on a CUDA device, those whose heads it has kernels for.
fn families() -> Vec<PathBuf> {
    let compute = compute();
    let mut families = models(false);
    families.retain(|dir| compute.device.is_cpu() || decoder(dir, &compute).compute().path == OpsPath::Native);
    assert!(families.len() > 20, "fixtures are missing: {families:?}");
    families
}

/// The reward models, or all others.
fn models(rewards: bool) -> Vec<PathBuf> {
    let mut roots = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models")];
    roots.extend(std::env::var_os("PAIRWRIGHT_REFERENCE_DIR").map(PathBuf::from));
    let supported: Vec<&str> = model::arch::families().collect();
    let mut dirs = Vec::new();
    for root in roots {
        for entry in std::fs::read_dir(&root).unwrap_or_else(|error| panic!("{}: {error}", root.display())) {
            let dir = entry.unwrap().path();
            let Ok(config) = std::fs::read_to_string(dir.join("config.json")) else { continue };
            let config: serde_json::Value = serde_json::from_str(&config).unwrap();
            let family = [&config["model_type"], &config["text_config"]["model_type"]];
            let is_reward = config["architectures"][0].as_str().unwrap().ends_with("ForSequenceClassification");
            if is_reward == rewards
                && family.iter().any(|family| family.as_str().is_some_and(|name| supported.contains(&name)))
            {
                dirs.push(dir);
            }
        }
    }
    assert!(dirs.len() >= if rewards { 3 } else { 38 }, "fixtures are missing: {dirs:?}");
    dirs.sort();
    dirs
}

/// Runs `check` on every model; all that fail are named.
fn each_family(check: impl Fn(&Path) + std::panic::RefUnwindSafe) {
    let failed: Vec<PathBuf> =
        families().into_iter().filter(|dir| std::panic::catch_unwind(|| check(dir)).is_err()).collect();
    assert!(failed.is_empty(), "{} models fail: {failed:?}", failed.len());
}

fn expected(dir: &Path) -> Expected {
    Expected::read(dir).unwrap_or_else(|error| panic!("{error}"))
}

fn decoder(dir: &Path, compute: &Compute) -> model::Decoder {
    let options = LoadOptions { compute: compute.clone(), weights: WeightsKind::Files, max_len: Some(MAX_LEN) };
    model::load(dir, &options).unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
}

/// What the tests compute with, in f32: the processor, or with `PAIRWRIGHT_TEST_DEVICE=cuda` the first CUDA device.
fn compute() -> Compute {
    match std::env::var("PAIRWRIGHT_TEST_DEVICE").as_deref() {
        Ok("cuda") => Compute::new(DeviceChoice::Cuda(0), Some(DType::F32)).unwrap_or_else(|error| panic!("{error}")),
        _ => Compute::cpu(),
    }
}

/// Whether the engine promises the same bits in any batch: with our own operations, but not where a device has no kernels for a model.
fn is_exact(engine: &Engine) -> bool {
    engine.decoder().compute().path == OpsPath::Native
}

fn greedy(prompt: &[u32], max_tokens: usize) -> Request {
    let params = SamplingParams { temperature: 0.0, max_tokens, prompt_logprobs: None, ..SamplingParams::default() };
    Request { prompt: prompt.to_vec(), task: Task::Generate(params), key: 0 }
}

/// Runs requests to the end; outputs in the order of the requests.
fn run(engine: &mut Engine, requests: Vec<Request>) -> Vec<SequenceOutput> {
    let ids: Vec<SequenceId> = requests.into_iter().map(|request| engine.add(request).unwrap()).collect();
    let mut outputs = vec![None; ids.len()];
    while engine.num_sequences() > 0 {
        for event in engine.step().unwrap() {
            if let Event::Finished { id, output, .. } = event {
                let index = ids.iter().position(|&other| other == id).unwrap();
                outputs[index] = Some(output);
            }
        }
    }
    assert_eq!(engine.num_free_blocks(), engine.stats().num_blocks, "an idle engine holds no block");
    outputs.into_iter().map(|output| output.unwrap()).collect()
}

fn tokens(output: &SequenceOutput) -> Vec<u32> {
    output.tokens.iter().map(|token| token.token).collect()
}

/// Greedy tokens up to the first place where Transformers' own margin is under 1e-3: after it, two right answers may part.
fn assert_tokens(got: &[u32], want: &[u32], margins: &[f32], what: &str) {
    let sure = margins.iter().position(|&margin| margin < 1e-3).unwrap_or(want.len());
    assert_eq!(got[..sure], want[..sure], "{what}");
}

/// Tokens of a cache in which the prompts' sequences do not fit together.
const TIGHT: usize = 224;

fn options() -> EngineOptions {
    // Kernels want whole tiles of keys in a block.
    let block_size = if compute().device.is_cpu() { 16 } else { 32 };
    EngineOptions { block_size, kv_budget: KvBudget::Tokens(4096), ..EngineOptions::default() }
}

/// The ways in which a batch may be run; none may change a token.
fn modes() -> Vec<(&'static str, EngineOptions)> {
    vec![
        ("alone", EngineOptions { max_batch: 1, ..options() }),
        ("ragged batch", options()),
        ("preempted", EngineOptions { kv_budget: KvBudget::Tokens(TIGHT), ..options() }),
        ("small chunks", EngineOptions { max_step_tokens: 23, max_batch: 8, ..options() }),
        ("large blocks", EngineOptions { block_size: 64, ..options() }),
    ]
}

#[test]
fn greedy_tokens_equal_transformers_in_every_mode() {
    each_family(|dir| {
        let expected = expected(dir);
        let mut first: Option<Vec<SequenceOutput>> = None;
        for (mode, options) in modes() {
            let mut engine = Engine::new(decoder(dir, &compute()), &options).unwrap();
            let requests = expected.prompts.iter().map(|prompt| greedy(prompt, expected.greedy[0].len())).collect();
            let outputs = run(&mut engine, requests);
            for (index, output) in outputs.iter().enumerate() {
                let what = format!("{} {mode}, prompt {index}", dir.display());
                assert_tokens(&tokens(output), &expected.greedy[index], &expected.margins[index], &what);
                for (got, want) in output.tokens.iter().zip(&expected.logprobs[index]) {
                    assert!((got.logprob - want).abs() < 1e-3, "{what}: logprob {} for {want}", got.logprob);
                }
            }
            // In larger blocks these sequences come one after the other; there the test of prompt log-probabilities is preempted.
            if mode == "preempted" && options.block_size == 16 {
                assert!(engine.stats().num_preemptions > 0, "{}: the budget was meant to be too small", dir.display());
            }
            match &first {
                None => first = Some(outputs),
                Some(_) if !is_exact(&engine) => {}
                Some(first) => assert_eq!(*first, outputs, "{} {mode}: not the same bits", dir.display()),
            }
        }
    });
}

#[test]
fn a_prefix_cache_hit_gives_the_same_bits() {
    each_family(|dir| {
        let expected = expected(dir);
        let mut engine = Engine::new(decoder(dir, &compute()), &options()).unwrap();
        let requests = || expected.prompts.iter().map(|prompt| greedy(prompt, 24)).collect::<Vec<_>>();
        let fresh = run(&mut engine, requests());
        assert_eq!(engine.stats().num_reused_tokens, 0);
        let again = run(&mut engine, requests());
        assert!(engine.stats().num_reused_tokens > 280, "{:?}", engine.stats());
        assert!(fresh == again || !is_exact(&engine), "{}: not the same bits", dir.display());
    });
}

/// Formats that round change tokens, but not from one mode to another: grouped heads, windows, sinks, soft caps and experts.
#[test]
fn rounding_formats_give_the_same_bits_in_every_mode() {
    let quantised = Compute { quantize: Some(GgmlDType::Q8_0), block_inputs: BlockInputs::Int8, ..Compute::cpu() };
    let computes = [
        Compute { kv_format: KvFormat::F16, ..Compute::cpu() },
        Compute { kv_format: KvFormat::Int8, ..Compute::cpu() },
        Compute { kv_format: KvFormat::Bf16, ..quantised },
        Compute { weight_dtype: DType::BF16, products: DenseProducts::Bf16x3, ..Compute::cpu() },
    ];
    let families = families().into_iter().filter(|dir| {
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        ["llama", "gemma2", "gemma4_text_moe", "gpt_oss", "mistral_short_window", "qwen3_moe"].contains(&name.as_str())
    });
    for dir in families {
        let expected = expected(&dir);
        let requests = || expected.prompts.iter().map(|prompt| greedy(prompt, 24)).collect::<Vec<_>>();
        for compute in &computes {
            let what = format!("{} in {}", dir.display(), compute.formats(false));
            let mut first: Option<Vec<SequenceOutput>> = None;
            for (mode, options) in modes() {
                let mut engine = Engine::new(decoder(&dir, compute), &options).unwrap();
                let outputs = run(&mut engine, requests());
                assert_eq!(*first.get_or_insert_with(|| outputs.clone()), outputs, "{what} {mode}");
                assert_eq!(run(&mut engine, requests()), outputs, "{what} {mode}: prefix hits");
            }
        }
    }
}

#[test]
fn samples_of_one_prompt_share_its_blocks_while_they_run() {
    let dir = &families()[0];
    let expected = expected(dir);
    let mut engine = Engine::new(decoder(dir, &compute()), &options()).unwrap();
    let prompt = &expected.prompts[1];
    let outputs = run(&mut engine, vec![greedy(prompt, 24); 6]);
    assert!(outputs.iter().all(|output| tokens(output) == tokens(&outputs[0])));
    let block_size = options().block_size;
    let blocks_alone = (prompt.len() + 24).div_ceil(block_size);
    let shared = prompt.len() / block_size;
    assert!(engine.stats().peak_blocks <= shared + 6 * (blocks_alone - shared), "{:?}", engine.stats());
    assert_eq!(engine.stats().num_reused_tokens, 5 * (shared * block_size) as u64);
}

#[test]
fn logits_and_likelihoods_equal_transformers() {
    each_family(|dir| {
        let expected = expected(dir);
        for compute in [compute(), compute().portable()] {
            let mut engine = Engine::new(decoder(dir, &compute), &options()).unwrap();
            let vocab = expected.last_logits[0].len() as u32;
            let score = |prompt: &Vec<u32>| Request {
                prompt: prompt.clone(),
                task: Task::Score { targets: (0..vocab).collect() },
                key: 0,
            };
            let outputs = run(&mut engine, expected.prompts.iter().map(score).collect());
            for (output, want) in outputs.iter().zip(&expected.last_logits) {
                let log_sum = want.iter().map(|&logit| f64::from(logit).exp()).sum::<f64>().ln();
                let scale = want.iter().fold(0f32, |best, logit| best.max(logit.abs()));
                for (got, want) in output.target_logprobs.iter().zip(want) {
                    let difference = (f64::from(*got) + log_sum - f64::from(*want)).abs() as f32;
                    assert!(difference < 1e-4 * scale, "{}: logit off by {difference} of {scale}", dir.display());
                }
            }
            let likelihood = |prompt: &Vec<u32>| {
                let mut request = greedy(prompt, 1);
                if let Task::Generate(params) = &mut request.task {
                    params.prompt_logprobs = Some(0);
                }
                request
            };
            let outputs = run(&mut engine, expected.prompts.iter().map(likelihood).collect());
            for ((output, prompt), want) in outputs.iter().zip(&expected.prompts).zip(&expected.nll) {
                assert_eq!(output.prompt_logprobs.len(), prompt.len());
                assert_eq!(output.prompt_logprobs[0], None);
                let nll = -output.prompt_logprobs.iter().flatten().map(|&x| f64::from(x)).sum::<f64>();
                assert!((nll - want).abs() <= 1e-4 * want.abs(), "{}: nll {nll}, want {want}", dir.display());
            }
        }
    });
}

#[test]
fn the_portable_operations_choose_the_same_tokens() {
    each_family(|dir| {
        let expected = expected(dir);
        let mut engine = Engine::new(decoder(dir, &compute().portable()), &options()).unwrap();
        let outputs = run(&mut engine, expected.prompts.iter().map(|prompt| greedy(prompt, 24)).collect());
        for (index, output) in outputs.iter().enumerate() {
            let what = format!("{} portable, prompt {index}", dir.display());
            assert_tokens(&tokens(output), &expected.greedy[index], &expected.margins[index], &what);
        }
    });
}

#[test]
fn prompt_logprobs_survive_preemption() {
    let dir = &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/llama");
    let expected = expected(dir);
    let likelihood = |prompt: &Vec<u32>| {
        let mut request = greedy(prompt, 24);
        if let Task::Generate(params) = &mut request.task {
            params.prompt_logprobs = Some(0);
        }
        request
    };
    let requests = || expected.prompts.iter().map(likelihood).collect::<Vec<_>>();
    let mut roomy = Engine::new(decoder(dir, &compute()), &options()).unwrap();
    let small = EngineOptions { kv_budget: KvBudget::Tokens(TIGHT), max_step_tokens: 40, max_batch: 8, ..options() };
    let mut tight = Engine::new(decoder(dir, &compute()), &small).unwrap();
    assert_eq!(run(&mut roomy, requests()), run(&mut tight, requests()));
    assert!(tight.stats().num_preemptions > 0);
}

#[test]
fn reward_models_give_the_scores_of_transformers() {
    for dir in models(true) {
        let expected = expected(&dir);
        let requests = || -> Vec<Request> {
            let classify = |prompt: &Vec<u32>| Request { prompt: prompt.clone(), task: Task::Classify, key: 0 };
            expected.prompts.iter().map(classify).collect()
        };
        let mut first: Option<Vec<SequenceOutput>> = None;
        for (mode, options) in modes() {
            let mut engine = Engine::new(decoder(&dir, &compute()), &options).unwrap();
            let outputs = run(&mut engine, requests());
            let (first, again) = (first.get_or_insert_with(|| outputs.clone()), run(&mut engine, requests()));
            if is_exact(&engine) {
                assert_eq!(*first, outputs, "{} {mode}", dir.display());
                assert_eq!(again, outputs, "{} {mode}: prefix hits", dir.display());
            }
        }
        let mut engine = Engine::new(decoder(&dir, &compute().portable()), &options()).unwrap();
        for outputs in [first.unwrap(), run(&mut engine, requests())] {
            for (output, want) in outputs.iter().zip(&expected.scores) {
                assert_eq!(output.head_scores.len(), want.len());
                for (got, want) in output.head_scores.iter().zip(want) {
                    assert!((got - want).abs() < 1e-4 * want.abs().max(1.0), "{}: {got}, want {want}", dir.display());
                }
            }
        }
        assert!(engine.add(greedy(&[7, 8], 3)).unwrap_err().to_string().contains("pairwright score"));
    }
    let mut engine = Engine::new(decoder(&families()[0], &compute()), &options()).unwrap();
    let classify = Request { prompt: vec![7], task: Task::Classify, key: 0 };
    assert!(engine.add(classify).unwrap_err().to_string().contains("has no score head"));
}
