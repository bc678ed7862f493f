//! Rotary speeds against Transformers, from `tests/fixtures/rope.json` (made by scripts/make_rope_fixtures.py).

use pairwright::model::rope::{RopeScaling, RopeSpec};
use pairwright::model::{HfConfig, ModelError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::assert_says;

#[derive(Deserialize)]
struct Case {
    name: String,
    config: Value,
    max_len: usize,
    inv_freq: Vec<f32>,
    attention_factor: f32,
}

fn parse(config: &Value) -> Result<RopeSpec, ModelError> {
    let rope = HfConfig::parse(&config.to_string())?.rope_parameters();
    let size = |field: &str| config[field].as_u64().unwrap() as usize;
    RopeSpec::parse(&rope, 10_000.0, size("head_dim"), size("max_position_embeddings"))
}

/// Both within 1e-6 of Transformers, relatively: it computes in f32, we partly in f64.
#[test]
fn speeds_and_attention_factors_equal_transformers() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../fixtures/rope.json")).unwrap();
    assert!(cases.len() >= 50);
    for case in &cases {
        let spec = parse(&case.config).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let (speeds, factor) = spec.frequencies(case.max_len);
        assert_eq!(speeds.len(), case.inv_freq.len(), "{}", case.name);
        for (pair, (got, want)) in speeds.iter().zip(&case.inv_freq).enumerate() {
            assert!((got - want).abs() <= 1e-6 * want, "{} pair {pair}: {got}, want {want}", case.name);
        }
        let want = case.attention_factor;
        assert!((factor - want).abs() <= 1e-6 * want, "{}: factor {factor}, want {want}", case.name);
    }
}

#[test]
fn all_spellings_of_a_setting_are_one_spec() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../fixtures/rope.json")).unwrap();
    for spellings in cases.chunks(3) {
        let specs: Vec<RopeSpec> = spellings.iter().map(|case| parse(&case.config).unwrap()).collect();
        assert_eq!(specs[0], specs[1], "{}", spellings[0].name);
        assert_eq!(specs[0], specs[2], "{}", spellings[0].name);
    }
}

#[test]
fn defaults_are_the_plain_series() {
    let spec = parse(&json!({"head_dim": 16, "max_position_embeddings": 512})).unwrap();
    assert_eq!(spec, RopeSpec { theta: 10_000.0, rotary_dim: 16, scaling: RopeScaling::Default });
    let (speeds, factor) = spec.frequencies(512);
    assert_eq!((speeds.len(), speeds[0], factor), (8, 1.0, 1.0));
    assert!((speeds[4] - 0.01).abs() < 1e-8);
}

#[test]
fn a_part_of_the_head_can_be_rotated() {
    let spec = parse(
        &json!({"head_dim": 80, "max_position_embeddings": 512, "partial_rotary_factor": 0.4, "rope_theta": 1e5}),
    );
    assert_eq!(spec.unwrap(), RopeSpec { theta: 1e5, rotary_dim: 32, scaling: RopeScaling::Default });
}

#[test]
fn unusable_settings_name_the_field() {
    let refused = |rope: Value, parts: &[&str]| {
        let config = json!({"head_dim": 64, "max_position_embeddings": 512, "rope_parameters": rope});
        let error = parse(&config).expect_err("it was meant to be refused");
        assert!(matches!(error, ModelError::Config { .. }), "{error:?}");
        assert_says(&error, parts);
    };
    refused(json!({"rope_type": "spiral"}), &["rope_parameters.rope_type", "spiral", "llama3", "yarn", "longrope"]);
    refused(json!({"rope_type": "linear"}), &["rope_parameters.factor", "missing", "positive number"]);
    refused(json!({"rope_type": "dynamic", "factor": -2}), &["rope_parameters.factor", "-2", "positive number"]);
    refused(json!({"rope_type": "linear", "factor": "two"}), &["rope_parameters.factor", "two"]);
    refused(json!({"rope_theta": 0}), &["rope_parameters.rope_theta", "0", "positive number"]);
    refused(json!({"rope_type": "llama3", "factor": 8}), &["rope_parameters.low_freq_factor", "missing"]);
    refused(json!({"rope_type": 7}), &["rope_parameters.rope_type", "7"]);
    refused(json!({"partial_rotary_factor": 0.01}), &["partial_rotary_factor"]);
    refused(json!({"partial_rotary_factor": 1.5}), &["partial_rotary_factor"]);
}
