//! Each scheme's kernel against libtorch in bfloat16 and in float32, on the linear layers of a decoder block of
//! Qwen3-0.6B's shape with random weights: medians of one call, and ratios, side by side.
//!
//! ```text
//! cargo bench --workspace --bench kernels -- [THREADS [ROWS …]] [SCHEME …]
//! ```
//!
//! `SCHEME` is a part of a name in the table; without one all are measured, and the baselines are `float32` and `bfloat16`.
//! Times are of the block's seven layers, `x` how many times faster than the baselines. These are the faster of libtorch's
//! `linear` and, where this processor has it, oneDNN's with a weight that was packed beforehand. Activations are bfloat16, as
//! models have them. `float32 in evaluate` is the product of float32 that `evaluate` has.

#![expect(clippy::print_stdout, reason = "a bench says what it measured")]

use std::error::Error;

use qpipe_kernels::speed::Speed;
use qpipe_kernels::{
    Input, Isa, Layer, Multiplier, Ordered, PreparedLinear, Scheme, kernel_for, linear, random,
};
use tch::{Device, Kind, Tensor};

/// (N, K): query, key, value, output, gate, up, down.
const LAYERS: [(i64, i64); 7] =
    [(2048, 1024), (1024, 1024), (1024, 1024), (1024, 2048), (3072, 1024), (3072, 1024), (1024, 3072)];
const ROWS: [i64; 4] = [1, 8, 32, 512];
const GROUP: i64 = 128;
/// The type of activations.
const KIND: Kind = Kind::BFloat16;
/// So many bytes of weights are gone through before one is read again.
const BEYOND_CACHES: u64 = 96 << 20;
/// With so many rows, what is read of memory no longer matters.
const MANY_ROWS: i64 = 64;

const IN_EVALUATE: &str = "float32 in evaluate";

const SCHEMES: [Scheme; 9] = [
    Scheme::W8A8,
    Scheme::W4A16 { group: GROUP },
    Scheme::Nf4 { block: 64, nested: true },
    Scheme::W4A8 { group: GROUP },
    Scheme::W4A8Float { group: GROUP },
    Scheme::LlmInt8,
    Scheme::W8A16,
    Scheme::WeightOnly { bits: 3, group: GROUP, asym: false },
    Scheme::WeightOnly { bits: 2, group: GROUP, asym: true },
];

/// One decoder block's layers, so often that all copies together are beyond every cache; each call is timed on all of them in
/// turn.
fn of_block(
    rows: i64,
    bytes: u64,
    mut layer: impl FnMut(i64, i64) -> Result<Box<dyn Fn()>, Box<dyn Error>>,
) -> Result<f64, Box<dyn Error>> {
    let copies = if rows < MANY_ROWS { BEYOND_CACHES.div_ceil(bytes.max(1)) } else { 1 };
    let mut calls = Vec::new();
    for _ in 0..copies {
        for (out_features, in_features) in LAYERS {
            calls.push(layer(out_features, in_features)?);
        }
    }
    Ok(Speed::of(|| calls.iter().for_each(|call| call())).seconds / copies as f64)
}

fn weights() -> u64 {
    LAYERS.iter().map(|(n, k)| (n * k) as u64).sum()
}

fn input(rows: i64, in_features: i64, kind: Kind) -> Tensor {
    Tensor::randn([rows, in_features], (Kind::Float, Device::Cpu)).to_kind(kind)
}

fn dense(rows: i64, kind: Kind) -> Result<f64, Box<dyn Error>> {
    let weight = |n, k| Tensor::randn([n, k], (Kind::Float, Device::Cpu)).to_kind(kind);
    let bytes = weights() * kind.elt_size_in_bytes() as u64;
    let plain = of_block(rows, bytes, |n, k| {
        let (weight, x) = (weight(n, k), input(rows, k, kind));
        Ok(Box::new(move || drop(x.linear::<Tensor>(&weight, None))))
    })?;
    // oneDNN's own layout; it refuses types that this processor lacks instructions for.
    let packed = of_block(rows, bytes, |n, k| {
        let (weight, x) = (weight(n, k).f_to_mkldnn(kind)?, input(rows, k, kind));
        let call =
            move || x.f_to_mkldnn(kind)?.f_mkldnn_linear(&weight, None::<Tensor>)?.f_to_dense(kind, false);
        drop(call()?);
        Ok(Box::new(move || drop(call())))
    });
    Ok(packed.map_or(plain, |packed| packed.min(plain)))
}

/// What `evaluate` multiplies by float32 weights with.
fn fastest(rows: i64) -> Result<f64, Box<dyn Error>> {
    of_block(rows, weights() * size_of::<f32>() as u64, |n, k| {
        let (weight, x) = (input(n, k, Kind::Float), input(rows, k, Kind::Float));
        let ordered = Ordered::of(&weight)?;
        Ok(Box::new(move || {
            let input = Input::new(&x);
            let y = match &ordered {
                Some(ordered) => ordered.linear(&input, None),
                None => linear(&input, &weight, None, Multiplier::Fastest),
            };
            drop(y.expect("two matrices that fit"));
        }))
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let mut numbers = arguments.iter().filter_map(|argument| argument.parse::<i64>().ok());
    let names: Vec<&String> = arguments.iter().filter(|argument| argument.parse::<i64>().is_err()).collect();
    let wants = |name: &str| names.is_empty() || names.iter().any(|part| name.contains(part.as_str()));
    let threads = numbers.next().unwrap_or(2);
    let wanted: Vec<i64> = numbers.collect();
    tch::set_num_threads(i32::try_from(threads)?);
    let _guard = tch::no_grad_guard();
    println!("{threads} threads, {}", Isa::here().name());
    println!(
        "{:22} {:>4} {:>9} {:>7} {:>7} {:>8}  kernel",
        "scheme", "rows", "ms", "x f32", "x bf16", "bytes"
    );
    for rows in if wanted.is_empty() { ROWS.to_vec() } else { wanted } {
        let baseline = |name, kind| if wants(name) { dense(rows, kind) } else { Ok(f64::NAN) };
        let (plain, half) = (baseline("float32", Kind::Float)?, baseline("bfloat16", Kind::BFloat16)?);
        let fastest = if wants(IN_EVALUATE) { fastest(rows)? } else { f64::NAN };
        for (name, seconds) in [("float32", plain), ("bfloat16", half), (IN_EVALUATE, fastest)] {
            if seconds.is_nan() {
                continue;
            }
            println!(
                "{name:22} {rows:4} {:9.3} {:6.2}x {:6.2}x",
                1e3 * seconds,
                plain / seconds,
                half / seconds
            );
        }
        for scheme in SCHEMES.into_iter().filter(|scheme| wants(&scheme.to_string())) {
            let (mut kernels, mut bytes) = (Vec::new(), 0);
            let mut prepared = |n, k| -> Result<Box<dyn PreparedLinear>, Box<dyn Error>> {
                let weight = random::weight(scheme, n, k, KIND, false)?;
                let layer =
                    Layer { scheme, out_features: n, in_features: k, device: Device::Cpu, kind: KIND };
                kernels.push(kernel_for(&layer).name);
                Ok(kernel_for(&layer).prepare(&weight, &layer)?)
            };
            for (n, k) in LAYERS {
                bytes += prepared(n, k)?.bytes();
            }
            let seconds = of_block(rows, bytes, |n, k| {
                let (layer, x) = (prepared(n, k)?, input(rows, k, KIND));
                Ok(Box::new(move || drop(layer.forward(&x))))
            })?;
            kernels.sort_unstable();
            kernels.dedup();
            println!(
                "{:22} {rows:4} {:9.3} {:6.2}x {:6.2}x {:7.3}x  {}",
                scheme.to_string(),
                1e3 * seconds,
                plain / seconds,
                half / seconds,
                bytes as f64 / (4 * weights()) as f64,
                kernels.join(", "),
            );
        }
    }
    Ok(())
}
