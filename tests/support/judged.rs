//! What tests of the dataset and of the report are both made of: a model's record, and a verdict of one aspect.
//! Knows the public types; says nothing of what should come of them.

use std::collections::BTreeMap;

use pairwright::generate::Candidate;
use pairwright::judge::{AspectScore, Verdict};
use pairwright::provenance::{ModelRecord, WeightsKind, sha256_hex};

/// A model in a folder that nothing published may name.
pub fn model(name: &str) -> ModelRecord {
    ModelRecord {
        name: name.into(),
        path: format!("/secret/place/{name}"),
        files: BTreeMap::from([("config.json".to_owned(), sha256_hex(name.as_bytes()))]),
        template_sha256: None,
        merges_system: false,
        license: Some("apache-2.0".into()),
        dtype: "f32".into(),
        weights: WeightsKind::Safetensors,
        is_reward: false,
    }
}

/// A reliable verdict with one aspect, which says the same.
pub fn verdict(candidate: &Candidate, rating: f64) -> Verdict {
    let aspect = AspectScore {
        aspect: "overall".into(),
        distribution: [0.1, 0.2, 0.3, 0.2, 0.2],
        mean: rating,
        entropy: 1.5,
        label_mass: 0.9,
        written: None,
    };
    Verdict {
        record_id: candidate.record_id.clone(),
        source: candidate.source,
        model: candidate.model.clone(),
        sample_index: candidate.sample_index,
        judge: "judge".into(),
        aspects: vec![aspect],
        rating,
        score: None,
        reliable: true,
    }
}
