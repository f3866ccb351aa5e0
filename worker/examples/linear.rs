//! The output of one linear layer of a checkpoint, for the scripts in tests/parity.
//!
//! `linear FOLDER NAME INPUT RESULT`: INPUT is a safetensors file with `x` [M, K], floating point; RESULT gets `y`
//! [M, N], computed in the type of `x`.

use std::path::Path;

use qpipe_worker::model::{Checkpoint, LinearSpec, LoadOptions, TensorFiles, formats, save};
use tch::Device;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, name, input, result] = arguments.as_slice() else {
        return Err("usage: linear FOLDER NAME INPUT RESULT".into());
    };
    let _no_gradients = tch::no_grad_guard();
    let checkpoint = Checkpoint::open(Path::new(folder))?;
    let x = TensorFiles::open(Path::new(input))?.tensor("x")?;
    let config = &checkpoint.config;
    let (in_features, out_features) = match name.rsplit('.').next().unwrap_or_default() {
        "q_proj" => (config.hidden_size, config.heads * config.head_dim),
        "k_proj" | "v_proj" => (config.hidden_size, config.kv_heads * config.head_dim),
        "o_proj" => (config.heads * config.head_dim, config.hidden_size),
        "down_proj" => (config.intermediate_size, config.hidden_size),
        _ => (config.hidden_size, config.intermediate_size),
    };
    let bias = checkpoint.has(&format!("{name}.bias"));
    let spec = LinearSpec { name, in_features, out_features, bias };
    let linear =
        formats::load_linear(&checkpoint, &spec, &LoadOptions::inference(Device::Cpu, Some(x.kind())))?;
    let y = linear.forward(&x);
    Ok(save::write_tensors(Path::new(result), &[("y".to_owned(), y)])?)
}
