//! GPTQ of one weight, for the scripts in tests/parity.
//!
//! `gptq INPUT OPTIONS RESULT`: INPUT is a safetensors file with `weight` [N, K] and `hessian` f32 [K, K], OPTIONS the
//! options of the method `gptq` as JSON; RESULT gets `codes` u8 [N, K] and `scale`, `zero` f32 [N, G], from 0, and,
//! where groups are scattered, `group_of` i64 `[K]`. QPIPE_THREADS is the number of threads (1).

use std::path::Path;

use qpipe_nodes::kinds::{Gptq, Method};
use qpipe_nodes::protocol::Device;
use qpipe_worker::model::{TensorFiles, save};
use qpipe_worker::quant::gptq::quantize_weight;
use qpipe_worker::torch;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, options, result] = arguments.as_slice() else {
        return Err("usage: gptq INPUT OPTIONS RESULT".into());
    };
    let threads = std::env::var("QPIPE_THREADS").map_or(Ok(1), |threads| threads.parse())?;
    torch::prepare(Device::Cpu, threads)?;
    let _no_gradients = tch::no_grad_guard();
    let options = serde_json::from_str::<Gptq>(options)?.completed();
    let input = TensorFiles::open(Path::new(input))?;
    let solved = quantize_weight(&input.tensor("weight")?, &input.tensor("hessian")?, &options)?;
    let half = f64::from(1_u32 << (options.bits() - 1));
    let zero = solved.zero.unwrap_or_else(|| solved.scale.full_like(half));
    let mut tensors = vec![
        ("codes".to_owned(), solved.codes),
        ("scale".to_owned(), solved.scale),
        ("zero".to_owned(), zero),
    ];
    tensors.extend(solved.group_of.map(|group_of| ("group_of".to_owned(), group_of)));
    Ok(save::write_tensors(Path::new(result), &tensors)?)
}
