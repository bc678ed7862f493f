//! Memory: what the plan reckons is what the engine has.

use std::path::Path;

use candle_core::DType;
use candle_core::quantized::GgmlDType;
use pairwright::engine::{Engine, EngineOptions, KvBudget, blocks_in};
use pairwright::model::{LoadOptions, WeightsKind, load};
use pairwright::ops::Compute;
use pairwright::ops::paged::KvFormat;
use pairwright::plan::{Formats, PlannedModel, fit, num_blocks, what_would};
use pairwright::prompt::TemplateOptions;
use pairwright::registry::{Registry, WORKING_BYTES};

use super::program::fixture_model;

fn formats() -> Formats {
    Formats {
        dtype: DType::F32,
        quantize: None,
        fp8: false,
        kv: KvFormat::F32,
        max_batch: 64,
        step_tokens: 256,
        block_size: 16,
        kv_tokens: None,
        kv_memory: None,
        max_len: None,
    }
}

fn planned(dir: &Path, weights: WeightsKind, formats: &Formats) -> PlannedModel {
    let template = TemplateOptions::new("2026-11-22".parse().unwrap());
    PlannedModel::open(dir, "m".to_owned(), weights, formats, &template, None).unwrap()
}

#[test]
fn the_cache_is_the_engines_own_in_every_family() {
    for family in ["llama", "gemma3_text", "gemma4_text", "cohere2", "qwen3_moe", "mistral"] {
        let dir = fixture_model(family);
        for kv_memory in [100_000, 1 << 20] {
            let asked = Formats { kv_memory: Some(kv_memory), ..formats() };
            let facts = planned(&dir, WeightsKind::Files, &asked).facts;
            let options = LoadOptions { compute: Compute::cpu(), weights: WeightsKind::Files, max_len: None };
            let decoder = load(&dir, &options).unwrap();
            let own = decoder.spec().kv_bytes_per_token(KvFormat::F32) as u64;
            assert_eq!(facts.kv_bytes_per_token, Some(own), "{family}");
            let options =
                EngineOptions { block_size: 16, kv_budget: KvBudget::Bytes(kv_memory), ..EngineOptions::default() };
            let engine = Engine::new(decoder, &options).unwrap();
            assert_eq!(
                num_blocks(&facts, &asked, u64::MAX / 2),
                Some(engine.stats().num_blocks),
                "{family} {kv_memory}"
            );
        }
    }
}

#[test]
fn weights_are_counted_by_the_headers() {
    let dir = fixture_model("llama");
    let dense = planned(&dir, WeightsKind::Files, &formats()).facts;
    assert_eq!(dense.weight_bytes, dense.stored_bytes, "a file in f32");
    let half = planned(&dir, WeightsKind::Files, &Formats { dtype: DType::BF16, ..formats() }).facts;
    assert_eq!(2 * half.weight_bytes, dense.weight_bytes);
    // Rows of 64 and 96 are whole blocks of 32: all matrices go from 32 to 8.5 bits, norms stay.
    let blocks = planned(&dir, WeightsKind::Files, &Formats { quantize: Some(GgmlDType::Q8_0), ..formats() }).facts;
    let ratio = blocks.weight_bytes as f64 / dense.weight_bytes as f64;
    assert!((8.5 / 32.0..0.28).contains(&ratio), "{ratio}");
    // A dummy has no files, and the same shape.
    let dummy = planned(&dir, WeightsKind::Dummy { seed: 1 }, &formats()).facts;
    assert_eq!((dummy.weight_bytes, dummy.stored_bytes, dummy.is_dummy), (dense.weight_bytes, 0, true));
    assert_eq!(dense.token_parameters + dense.head_parameters, {
        let (spec, _) = pairwright::model::open(&dir, WeightsKind::Files).unwrap();
        spec.num_product_parameters() as u64
    });
}

#[test]
fn a_card_holds_what_room_rs_would_give_it() {
    let registry = Registry::embedded().unwrap();
    let asked = Formats {
        dtype: DType::BF16,
        kv: KvFormat::Bf16,
        max_batch: 256,
        step_tokens: 2048,
        block_size: 32,
        ..formats()
    };
    let facts = PlannedModel::of_entry(registry.find("llama-3.1-8b-instruct").unwrap(), &asked).facts;
    // 32 layers x 8 heads x 128 numbers x 2 x 2 bytes; 8.03 · 10⁹ parameters x 2 bytes.
    assert_eq!((facts.kv_bytes_per_token, facts.weight_bytes), (Some(131_072), 16_060_000_000));
    for gb in [24u64, 40, 80] {
        let memory = gb * 1_000_000_000;
        let free = (memory - facts.weight_bytes - WORKING_BYTES) as usize;
        let blocks = blocks_in(free, 32, 131_072);
        assert_eq!(blocks, (free as f64 * 0.9) as usize / (32 * 131_072));
        let found = fit(&facts, &asked, memory, 450, 2048).unwrap();
        assert_eq!(found.kv_tokens as usize, 32 * blocks);
        assert_eq!(found.num_usual as usize, (blocks / 15).min(256), "450 tokens are 15 blocks");
        assert_eq!(found.num_longest as usize, (blocks / 64).min(256));
    }
    assert!(!fit(&facts, &asked, 16_000_000_000, 450, 2048).unwrap().fits());
    let would = what_would(&facts, &asked, 16_000_000_000, 2048);
    for said in ["--quantize q8_0", "2 cards of 16 GB", "a card of 24 GB"] {
        assert!(would.contains(said), "{said}: {would}");
    }
    let huge = PlannedModel::of_entry(registry.find("llama-3.3-70b-instruct").unwrap(), &asked).facts;
    assert!(what_would(&huge, &asked, 24_000_000_000, 2048).contains("cards of 24 GB that share its layers"));
}
