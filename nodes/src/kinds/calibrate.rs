//! `calibrate`: what the linear layers of a model are given to multiply, measured on samples.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Arity, Artifact, Kind, ParamError, Port, Reading, Sensitivity};

/// How much is measured. Each contains the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Extent {
    /// Nothing: the token ids of the samples are kept.
    Samples,
    /// A channel's extremes and mean magnitude.
    Ranges,
    /// And the second moments XᵀX.
    Moments,
}

impl Extent {
    /// What a node that reads this much needs; `None` if it reads nothing.
    pub fn for_reader(reads: Reading) -> Option<Self> {
        match reads {
            Reading::Nothing => None,
            Reading::Samples => Some(Self::Samples),
            Reading::Ranges => Some(Self::Ranges),
            Reading::Moments => Some(Self::Moments),
        }
    }
}

fn default_max_length() -> u32 {
    2048
}

/// Runs the model, as it is, over samples and measures the input of every linear layer of its decoder blocks: a
/// channel's extremes and mean magnitude, and the second moments. The samples of a smaller calibration are the
/// first of a larger one with the same `seed`, which goes on from it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Calibrate {
    /// Rows of the data. Multiples of 10 can be gone on from.
    pub samples: u32,
    /// Samples are cut to this many tokens, and to the model's context.
    #[serde(default = "default_max_length")]
    pub max_length: u32,
    /// Of the order in which rows are taken.
    #[serde(default)]
    pub seed: u64,
    /// How much is measured: `samples` (token ids only), `ranges` or `moments`. Default: what the nodes of the
    /// file that read it need; `ranges` where there are none.
    #[serde(default)]
    pub statistics: Option<Extent>,
}

impl Calibrate {
    /// Samples after which a running measurement is the same for every larger calibration: micro-batches never
    /// cross a multiple of it.
    pub const GRID: u32 = 10;

    /// The input of an action that is no port and in no key: an earlier result to go on from.
    pub const PREVIOUS: &'static str = "previous";

    /// How much is measured.
    pub fn extent(&self) -> Extent {
        self.statistics.unwrap_or(Extent::Ranges)
    }

    /// Whether the result of `smaller` on the same inputs and machine is what this calibration has after that many
    /// samples: it may be given to the worker as the input [`Calibrate::PREVIOUS`], and changes no bit.
    pub fn goes_on_from(&self, smaller: &Self) -> bool {
        smaller.samples < self.samples
            && smaller.samples.is_multiple_of(Self::GRID)
            && (smaller.max_length, smaller.seed) == (self.max_length, self.seed)
            && self.extent() > Extent::Samples
            && smaller.extent() >= self.extent()
    }
}

impl Kind for Calibrate {
    const NAME: &'static str = "calibrate";
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "Measures the inputs of a model's linear layers on samples.";
    const PORTS: &'static [Port] = &[
        Port {
            name: "model",
            accepts: Artifact::Model,
            arity: Arity::One,
            summary: "The model to run, in 16 or 32 bits.",
        },
        Port {
            name: "data",
            accepts: Artifact::Data,
            arity: Arity::One,
            summary: "The rows to take samples from.",
        },
    ];

    fn check(&self) -> Vec<ParamError> {
        let mut errors = Vec::new();
        for (name, value) in [("samples", self.samples), ("max_length", self.max_length)] {
            if value == 0 {
                errors.push(ParamError::value(name, "must be at least 1"));
            }
        }
        errors
    }

    fn output(&self) -> Artifact {
        Artifact::Statistics
    }

    /// Token ids are the same everywhere.
    fn sensitivity(&self) -> Sensitivity {
        if self.extent() == Extent::Samples { Sensitivity::Portable } else { Sensitivity::Device }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(samples: u32, statistics: Extent) -> Calibrate {
        Calibrate { samples, max_length: 2048, seed: 0, statistics: Some(statistics) }
    }

    #[test]
    fn a_calibration_goes_on_from_fewer_samples_of_the_same_order() {
        let large = of(200, Extent::Moments);
        assert!(large.goes_on_from(&of(20, Extent::Moments)));
        assert!(of(200, Extent::Ranges).goes_on_from(&of(20, Extent::Moments)), "less is contained in more");
        assert!(!large.goes_on_from(&of(20, Extent::Ranges)));
        assert!(!large.goes_on_from(&of(25, Extent::Moments)), "no multiple of the grid");
        assert!(!large.goes_on_from(&of(200, Extent::Moments)));
        assert!(!large.goes_on_from(&Calibrate { seed: 1, ..of(20, Extent::Moments) }));
        assert!(!of(200, Extent::Samples).goes_on_from(&of(20, Extent::Samples)), "nothing is saved");
    }
}
