//! bitsandbytes' LLM.int8().

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Method;
use crate::{ParamError, Sensitivity};

/// LLM.int8() as bitsandbytes stores it: int8 weights with one scale an output channel; activations become int8 at run
/// time, with one scale a token, except for input channels that hold an outlier: those are multiplied in floating point.
/// Which ones do is decided for a whole batch, so an answer depends a little on the questions that are asked with it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BnbInt8 {
    /// Activations of this magnitude and more are outliers. Default 6; 0: none is. The weights' bytes do not depend on
    /// it.
    #[serde(default = "six")]
    pub threshold: f64,
}

fn six() -> f64 {
    6.0
}

impl Method for BnbInt8 {
    const NAME: &'static str = "bnb-int8";

    fn check(&self) -> Vec<ParamError> {
        if self.threshold < 0.0 {
            let message = format!("{} is below 0", self.threshold);
            return vec![ParamError::value("threshold", message)];
        }
        Vec::new()
    }

    /// Rounding is element-wise: the same bytes on every device.
    fn sensitivity(&self) -> Sensitivity {
        Sensitivity::Portable
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_threshold_is_bitsandbytes_own_unless_it_is_given() {
        let options: BnbInt8 = serde_json::from_value(json!({})).unwrap();
        assert_eq!(options.threshold, 6.0);
        let options: BnbInt8 = serde_json::from_value(json!({"threshold": 0})).unwrap();
        assert!(options.check().is_empty());
        let options: BnbInt8 = serde_json::from_value(json!({"threshold": -1.5})).unwrap();
        assert_eq!(options.check()[0].path, ["threshold"]);
        assert_eq!(options.check()[0].message, "-1.5 is below 0");
    }
}
