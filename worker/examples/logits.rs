//! Writes the logits of token ids: what the scripts in tests/parity compare with transformers'.
//!
//! ```sh
//! cargo run --release -p qpipe-worker --example logits -- FOLDER IDS.json OUT.safetensors [float32|bfloat16|float16]
//! ```
//!
//! IDS.json is a list of equally long lists; OUT.safetensors gets `logits` [B, T, vocabulary].

use std::error::Error;
use std::path::Path;

use qpipe_worker::model::{Attention, Checkpoint, Decoder, LoadOptions, save};
use tch::{Device, Kind, Tensor};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, ids, out, rest @ ..] = arguments.as_slice() else {
        return Err("usage: logits FOLDER IDS.json OUT.safetensors [float32|bfloat16|float16]".into());
    };
    let kind = match rest.first().map(String::as_str) {
        None => None,
        Some("float32") => Some(Kind::Float),
        Some("bfloat16") => Some(Kind::BFloat16),
        Some("float16") => Some(Kind::Half),
        Some(other) => return Err(format!("unknown type `{other}`").into()),
    };
    let prompts: Vec<Vec<i64>> = serde_json::from_str(&fs_err::read_to_string(ids)?)?;

    let _no_gradients = tch::no_grad_guard();
    let checkpoint = Checkpoint::open(Path::new(folder))?;
    let decoder = Decoder::load(&checkpoint, &LoadOptions::inference(Device::Cpu, kind))?;
    let mut logits = Vec::with_capacity(prompts.len());
    for prompt in &prompts {
        let ids = Tensor::from_slice(prompt).view([1, -1]);
        let positions = Tensor::arange(prompt.len() as i64, (Kind::Int64, Device::Cpu)).view([1, -1]);
        let hidden = decoder.hidden(&ids, &positions, &Attention::Causal, None);
        logits.push(decoder.logits(&hidden));
    }
    save::write_tensors(Path::new(out), &[("logits".to_owned(), Tensor::f_cat(&logits, 0)?)])?;
    Ok(())
}
