//! bitsandbytes' NF4.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Method;
use crate::kinds::Dtype;
use crate::{ParamError, Sensitivity};

/// NF4 as bitsandbytes stores it: 4-bit codes of a table made for normally distributed weights, with one scale for 64
/// consecutive weights; activations as they are. 4.5 bits a weight, or 4.127 with double quantization.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BnbNf4 {
    /// Whether the scales are stored in 8 bits, 256 of them with a scale of their own. Default false, as in
    /// transformers.
    #[serde(default)]
    pub double_quant: bool,
    /// What the checkpoint says that linear layers compute in: `float32` (the default, as in transformers), `bfloat16`,
    /// `float16`. It is what evaluations here and transformers then do. The weights' bytes do not depend on it.
    #[serde(default = "float32")]
    pub compute_dtype: Dtype,
}

fn float32() -> Dtype {
    Dtype::Float32
}

impl Method for BnbNf4 {
    const NAME: &'static str = "bnb-nf4";

    fn check(&self) -> Vec<ParamError> {
        Vec::new()
    }

    /// Rounding is element-wise. Double quantization begins with a mean and libtorch's `linspace`, whose last bits depend
    /// on the processor's vectors, and the mean's on the threads.
    fn sensitivity(&self) -> Sensitivity {
        if self.double_quant { Sensitivity::Device } else { Sensitivity::Portable }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_are_those_of_transformers() {
        let options: BnbNf4 = serde_json::from_value(json!({})).unwrap();
        assert_eq!((options.double_quant, options.compute_dtype), (false, Dtype::Float32));
        assert_eq!(options.sensitivity(), Sensitivity::Portable);
        let options: BnbNf4 = serde_json::from_value(json!({"double_quant": true})).unwrap();
        assert_eq!(options.sensitivity(), Sensitivity::Device);
        assert!(serde_json::from_value::<BnbNf4>(json!({"block_size": 128})).is_err());
    }
}
