//! Weights of a rubric's aspects in a file of their own, by which ratings that are there are computed again; no model runs.
//! Knows names, weights and verdicts; knows nothing of where weights come from.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Verdict;

/// The weight of one aspect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AspectWeight {
    /// As in the rubric.
    pub name: String,
    /// Share in an answer's rating, relative to the others'; 0: none.
    pub weight: f64,
}

/// Weights of all aspects of a run's verdicts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AspectWeights {
    /// Each aspect once.
    #[serde(rename = "aspect")]
    pub aspects: Vec<AspectWeight>,
}

/// Why weights cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AspectWeightsError {
    /// The file cannot be read.
    #[error("the aspect weights {} cannot be read: {source}\nhint: give a file that `pairwright calibrate` wrote", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("the aspect weights {}: {what}\nhint: it has an [[aspect]] with name and weight for each aspect of the rubric", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The weights are for another rubric.
    #[error(
        "the judge {judge} rates {got}, and the aspect weights are for {expected}\n\
         hint: weights belong to a rubric; `pairwright calibrate` writes those of this run"
    )]
    OtherAspects {
        /// Whose verdict.
        judge: String,
        /// Its aspects.
        got: String,
        /// Those that have a weight.
        expected: String,
    },
}

impl AspectWeights {
    /// Reads a file.
    ///
    /// # Errors
    /// [`AspectWeightsError`], saying what is wrong.
    pub fn read(path: &Path) -> Result<Self, AspectWeightsError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| AspectWeightsError::Io { path: path.to_owned(), source })?;
        let invalid = |what: String| AspectWeightsError::Invalid { path: path.to_owned(), what };
        let found: Self = toml::from_str(&text).map_err(|error| invalid(error.to_string()))?;
        found.check().map_err(invalid)?;
        Ok(found)
    }

    fn check(&self) -> Result<(), String> {
        for (at, AspectWeight { name, weight }) in self.aspects.iter().enumerate() {
            if !(*weight >= 0.0 && weight.is_finite()) {
                return Err(format!("aspect `{name}`: weight is {weight}, want 0 or more"));
            }
            if self.aspects.iter().take(at).any(|other| other.name == *name) {
                return Err(format!("the aspect `{name}` stands there twice"));
            }
        }
        match self.aspects.iter().any(|aspect| aspect.weight > 0.0) {
            true => Ok(()),
            false => Err("no weight is more than 0".to_owned()),
        }
    }

    /// The weighted mean of some aspects' values, which lies among them; `None` if these are not the aspects that have a weight.
    pub fn mean<'n>(&self, values: impl IntoIterator<Item = (&'n str, f64)>) -> Option<f64> {
        let (mut sum, mut weights, mut found) = (0.0, 0.0, 0);
        for (name, value) in values {
            let weight = self.aspects.iter().find(|aspect| aspect.name == name)?.weight;
            sum += weight * value;
            weights += weight;
            found += 1;
        }
        (found == self.aspects.len() && weights > 0.0).then(|| sum / weights)
    }

    /// Computes the ratings of verdicts anew from their aspects' means. Reward models' verdicts have no aspects and stay as they are.
    ///
    /// # Errors
    /// [`AspectWeightsError::OtherAspects`]; the verdicts before it are changed.
    pub fn apply(&self, verdicts: &mut [Verdict]) -> Result<(), AspectWeightsError> {
        for verdict in verdicts.iter_mut().filter(|verdict| !verdict.aspects.is_empty()) {
            let means = verdict.aspects.iter().map(|score| (score.aspect.as_str(), score.mean));
            let list = |names: Vec<&str>| names.join(", ");
            verdict.rating = self.mean(means).ok_or_else(|| AspectWeightsError::OtherAspects {
                judge: verdict.judge.clone(),
                got: list(verdict.aspects.iter().map(|score| score.aspect.as_str()).collect()),
                expected: list(self.aspects.iter().map(|aspect| aspect.name.as_str()).collect()),
            })?;
        }
        Ok(())
    }
}
