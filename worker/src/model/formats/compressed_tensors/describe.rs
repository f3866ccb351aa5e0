//! The `quantization_config` of what is written.

use serde_json::{Value, json};

use super::METHOD;
use super::config::{INT_QUANTIZED, PACK_QUANTIZED, QPIPE, StoredScheme, TORCHAO};

/// The version whose layout is written.
const VERSION: &str = "0.19.0";

/// The `quantization_config` of a checkpoint whose linear layers, all but `ignore`, are stored as `scheme`: the
/// very object that compressed-tensors 0.19.0 writes, and our key `qpipe` where that says too little.
pub fn describe(scheme: StoredScheme, ignore: &[&str]) -> Value {
    let weights = |bits: u32, group: Option<i64>| {
        let strategy = if group.is_some() { "group" } else { "channel" };
        arguments(bits, strategy, group, false, Some("memoryless_minmax"))
    };
    let each_token = || arguments(8, "token", None, true, None);
    let (format, weights, inputs) = match scheme {
        StoredScheme::W8A8 | StoredScheme::W8A8Torchao => (INT_QUANTIZED, weights(8, None), each_token()),
        StoredScheme::W8A8Static => {
            (INT_QUANTIZED, weights(8, None), arguments(8, "tensor", None, false, Some("static_minmax")))
        }
        StoredScheme::W8A16 => (INT_QUANTIZED, weights(8, None), Value::Null),
        StoredScheme::WeightOnly { bits, group, asym } => {
            let mut weights = weights(bits, group);
            if asym {
                weights["symmetric"] = json!(false);
                weights["zp_dtype"] = json!("torch.int8");
            }
            (PACK_QUANTIZED, weights, Value::Null)
        }
        StoredScheme::W4A8 { group } => (INT_QUANTIZED, weights(4, group), each_token()),
    };
    let mut config = json!({
        "quant_method": METHOD,
        "version": VERSION,
        "format": format,
        "quantization_status": "compressed",
        "global_compression_ratio": null,
        "ignore": ignore,
        "kv_cache_scheme": null,
        "sparsity_config": {},
        "transform_config": {},
        "config_groups": {
            "group_0": {
                "format": format,
                "targets": ["Linear"],
                "weights": weights,
                "input_activations": inputs,
                "output_activations": null,
            }
        },
    });
    if scheme == StoredScheme::W8A8Torchao {
        config[QPIPE] = json!({ "activations": TORCHAO });
    }
    config
}

fn arguments(bits: u32, strategy: &str, group: Option<i64>, dynamic: bool, observer: Option<&str>) -> Value {
    json!({
        "num_bits": bits,
        "type": "int",
        "symmetric": true,
        "strategy": strategy,
        "group_size": group,
        "block_structure": null,
        "dynamic": dynamic,
        "actorder": null,
        "scale_dtype": null,
        "zp_dtype": null,
        "observer": observer,
        "observer_kwargs": {},
    })
}
