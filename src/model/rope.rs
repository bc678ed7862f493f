//! Rotary frequencies: from a model's settings to the angular speed of each pair.
//! Formulas as in Transformers' modeling_rope_utils, in f32 where it uses f32. Knows nothing of heads or tensors.
//!
//! Scalings that depend on the sequence's length (`dynamic`, `longrope`) are fixed for a run by the largest length the run admits, so
//! that a token's rotation never changes once it is in the cache. Transformers instead recomputes the speeds as a sequence
//! grows; the two agree for every sequence of exactly that length, and wherever the run admits no more than the model's
//! own context.

use serde_json::{Map, Value};

use super::ModelError;
use super::config::wrong;
use crate::ops::rotary::RotaryTable;

/// A model's rotary settings.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeSpec {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// R, the rotated part of a head.
    pub rotary_dim: usize,
    /// How the speeds are stretched for longer contexts.
    pub scaling: RopeScaling,
}

/// Context extensions.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// None.
    Default,
    /// All speeds divided by `factor` (position interpolation, arXiv 2306.15595).
    Linear {
        /// > 0
        factor: f64,
    },
    /// The base grows with the length (NTK-aware scaling).
    Dynamic {
        /// > 0
        factor: f64,
        /// The context before scaling, in tokens.
        original: f64,
    },
    /// Llama 3.1's piecewise scaling.
    Llama3 {
        /// > 0
        factor: f64,
        /// Wavelengths above original / low are divided by the factor.
        low: f64,
        /// Wavelengths below original / high are kept.
        high: f64,
        /// The context before scaling, in tokens.
        original: f64,
    },
    /// YaRN (arXiv 2309.00071).
    Yarn {
        /// > 0
        factor: f64,
        /// Rotations above which a pair is kept.
        beta_fast: f64,
        /// Rotations below which a pair is interpolated.
        beta_slow: f64,
        /// The context before scaling, in tokens.
        original: f64,
        /// Factor on cos and sin.
        attention_factor: f64,
        /// Whether the ramp's ends are rounded to whole pairs.
        truncate: bool,
    },
    /// LongRoPE (arXiv 2402.13753): a factor per pair.
    LongRope {
        /// For runs that stay within the original context [R / 2].
        short: Vec<f64>,
        /// For longer ones [R / 2].
        long: Vec<f64>,
        /// The context before scaling, in tokens.
        original: f64,
        /// Factor on cos and sin.
        attention_factor: f64,
    },
    /// The base grows by a fixed factor (NTK-aware scaling with a given alpha; Hunyuan).
    NtkAlpha {
        /// > 0
        alpha: f64,
    },
    /// Only the first part of the pairs turns, but speeds are those of the whole head (Gemma 4).
    Proportional {
        /// > 0
        factor: f64,
        /// Pairs that turn.
        num_pairs: usize,
    },
}

impl RopeSpec {
    /// Reads the settings that [`super::HfConfig::rope_parameters`] gathered.
    ///
    /// # Errors
    /// [`ModelError::Config`] for an unknown `rope_type` or a missing or unusable field.
    pub fn parse(
        rope: &Map<String, Value>,
        default_theta: f64,
        head_dim: usize,
        max_positions: usize,
    ) -> Result<Self, ModelError> {
        let field = |name: &str| -> Result<Option<f64>, ModelError> {
            match rope.get(name).filter(|value| !value.is_null()) {
                None => Ok(None),
                Some(value) => match value.as_f64() {
                    Some(number) if number > 0.0 => Ok(Some(number)),
                    _ => Err(wrong(&format!("rope_parameters.{name}"), value, "a positive number")),
                },
            }
        };
        let need = |name: &str| {
            field(name)?.ok_or_else(|| super::config::missing(&format!("rope_parameters.{name}"), "a positive number"))
        };
        // Transformers takes a zero here as not given.
        let nonzero = |name: &str| match rope.get(name).and_then(Value::as_f64) {
            Some(0.0) => Ok(None),
            _ => field(name),
        };
        let original = field("original_max_position_embeddings")?;
        let share = field("partial_rotary_factor")?.unwrap_or(1.0);
        let rotary_dim = (head_dim as f64 * share) as usize;
        const KINDS: &str = "default, linear, dynamic, llama3, yarn, longrope or proportional";
        let kind = match rope.get("rope_type") {
            None | Some(Value::Null) => "default",
            Some(Value::String(kind)) => kind,
            Some(other) => return Err(wrong("rope_parameters.rope_type", other, KINDS)),
        };
        let scaling = match kind {
            "default" => RopeScaling::Default,
            "linear" => RopeScaling::Linear { factor: need("factor")? },
            "dynamic" => match field("alpha")? {
                Some(alpha) => RopeScaling::NtkAlpha { alpha },
                None => RopeScaling::Dynamic { factor: need("factor")?, original: max_positions as f64 },
            },
            "longrope" | "su" => longrope(rope, rotary_dim / 2, max_positions as f64)?,
            "proportional" => {
                let scaling =
                    RopeScaling::Proportional { factor: field("factor")?.unwrap_or(1.0), num_pairs: rotary_dim / 2 };
                let theta = field("rope_theta")?.unwrap_or(default_theta);
                return Ok(Self { theta, rotary_dim: head_dim / 2 * 2, scaling });
            }
            "llama3" => RopeScaling::Llama3 {
                factor: need("factor")?,
                low: need("low_freq_factor")?,
                high: need("high_freq_factor")?,
                original: need("original_max_position_embeddings")?,
            },
            "yarn" => {
                let original = original.unwrap_or(max_positions as f64);
                let factor = field("factor")?.unwrap_or(max_positions as f64 / original);
                RopeScaling::Yarn {
                    factor,
                    beta_fast: field("beta_fast")?.unwrap_or(32.0),
                    beta_slow: field("beta_slow")?.unwrap_or(1.0),
                    original,
                    attention_factor: match field("attention_factor")? {
                        Some(given) => given,
                        None => yarn_attention_factor(factor, nonzero("mscale")?, nonzero("mscale_all_dim")?),
                    },
                    truncate: rope.get("truncate").and_then(Value::as_bool).unwrap_or(true),
                }
            }
            other => return Err(wrong("rope_parameters.rope_type", &Value::from(other), KINDS)),
        };
        if rotary_dim < 2 || rotary_dim > head_dim || !rotary_dim.is_multiple_of(2) {
            let got = Value::from(rotary_dim);
            return Err(wrong("partial_rotary_factor", &got, "an even part of the head"));
        }
        Ok(Self { theta: field("rope_theta")?.unwrap_or(default_theta), rotary_dim, scaling })
    }

    /// cos and sin of all positions, for a run that admits `max_len` tokens.
    pub fn table(&self, max_len: usize) -> RotaryTable {
        let (speeds, factor) = self.frequencies(max_len);
        RotaryTable::new(&speeds, factor, max_len)
    }

    /// Angular speed of each pair [R / 2], and the factor on cos and sin, for a run that admits `max_len` tokens.
    pub fn frequencies(&self, max_len: usize) -> (Vec<f32>, f32) {
        let dim = self.rotary_dim as f64;
        let theta = match self.scaling {
            RopeScaling::NtkAlpha { alpha } => self.theta * alpha.powf(dim / (dim - 2.0)),
            RopeScaling::Dynamic { factor, original } => {
                let length = original.max(max_len as f64);
                self.theta * ((factor * length / original) - (factor - 1.0)).powf(dim / (dim - 2.0))
            }
            _ => self.theta,
        };
        let speeds: Vec<f32> = (0..self.rotary_dim)
            .step_by(2)
            .map(|i| 1.0 / (theta.powf(f64::from(i as f32 / dim as f32)) as f32))
            .collect();
        match &self.scaling {
            RopeScaling::LongRope { short, long, original, attention_factor } => {
                let factors = if max_len as f64 > *original { long } else { short };
                let stretch = |(pair, factor): (usize, &f64)| {
                    let power = theta.powf(f64::from(2.0 * pair as f32 / dim as f32)) as f32;
                    1.0 / (*factor as f32 * power)
                };
                return (factors.iter().enumerate().map(stretch).collect(), *attention_factor as f32);
            }
            RopeScaling::Proportional { factor, num_pairs } => {
                let turn = |(pair, speed)| if pair < *num_pairs { speed / *factor as f32 } else { 0.0 };
                return (speeds.into_iter().enumerate().map(turn).collect(), 1.0);
            }
            _ => {}
        }
        match self.scaling {
            RopeScaling::Default
            | RopeScaling::Dynamic { .. }
            | RopeScaling::NtkAlpha { .. }
            | RopeScaling::LongRope { .. }
            | RopeScaling::Proportional { .. } => (speeds, 1.0),
            RopeScaling::Linear { factor } => (speeds.into_iter().map(|speed| speed / factor as f32).collect(), 1.0),
            RopeScaling::Llama3 { factor, low, high, original } => {
                (speeds.into_iter().map(|speed| llama3(speed, factor, low, high, original)).collect(), 1.0)
            }
            RopeScaling::Yarn { factor, beta_fast, beta_slow, original, attention_factor, truncate } => {
                let ends = yarn_range(beta_fast, beta_slow, dim, self.theta, original, truncate);
                let stretch = |(pair, speed): (usize, f32)| {
                    let ramp = (((pair as f64 - ends.0) / (ends.1 - ends.0)) as f32).clamp(0.0, 1.0);
                    let kept = 1.0 - ramp;
                    speed / factor as f32 * (1.0 - kept) + speed * kept
                };
                (speeds.into_iter().enumerate().map(stretch).collect(), attention_factor as f32)
            }
        }
    }
}

/// LongRoPE's settings, with `num_pairs` factors in each list.
fn longrope(rope: &Map<String, Value>, num_pairs: usize, max_positions: f64) -> Result<RopeScaling, ModelError> {
    let number = |name: &str| match rope.get(name).filter(|value| !value.is_null()) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            Some(number) if number > 0.0 => Ok(Some(number)),
            _ => Err(wrong(&format!("rope_parameters.{name}"), value, "a positive number")),
        },
    };
    let factors = |name: &str| {
        let value = rope.get(name).unwrap_or(&Value::Null);
        let numbers: Option<Vec<f64>> =
            value.as_array().and_then(|list| list.iter().map(|factor| factor.as_f64().filter(|&f| f > 0.0)).collect());
        match numbers {
            Some(numbers) if numbers.len() == num_pairs => Ok(numbers),
            _ => Err(wrong(&format!("rope_parameters.{name}"), value, &format!("{num_pairs} positive numbers"))),
        }
    };
    let original = number("original_max_position_embeddings")?.unwrap_or(max_positions);
    let factor = number("factor")?.unwrap_or(max_positions / original);
    let attention_factor = match number("attention_factor")? {
        Some(given) => given,
        None if factor <= 1.0 => 1.0,
        None => (1.0 + factor.ln() / original.ln()).sqrt(),
    };
    Ok(RopeScaling::LongRope {
        short: factors("short_factor")?,
        long: factors("long_factor")?,
        original,
        attention_factor,
    })
}

fn llama3(speed: f32, factor: f64, low: f64, high: f64, original: f64) -> f32 {
    let wavelength = 2.0 * std::f64::consts::PI / f64::from(speed);
    if wavelength < original / high {
        speed
    } else if wavelength > original / low {
        (f64::from(speed) / factor) as f32
    } else {
        let smooth = (original / wavelength - low) / (high - low);
        ((1.0 - smooth) * f64::from(speed) / factor + smooth * f64::from(speed)) as f32
    }
}

fn yarn_attention_factor(factor: f64, mscale: Option<f64>, mscale_all_dim: Option<f64>) -> f64 {
    let temperature = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    match (mscale, mscale_all_dim) {
        (Some(one), Some(all)) => temperature(one) / temperature(all),
        _ => temperature(1.0),
    }
}

/// First and last pair of YaRN's ramp.
fn yarn_range(fast: f64, slow: f64, dim: f64, theta: f64, original: f64, truncate: bool) -> (f64, f64) {
    let pair = |rotations: f64| dim * (original / (rotations * 2.0 * std::f64::consts::PI)).ln() / (2.0 * theta.ln());
    let (mut low, mut high) = (pair(fast), pair(slow));
    if truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    let (low, high) = (low.max(0.0), high.min(dim - 1.0));
    (low, if low == high { high + 0.001 } else { high })
}
