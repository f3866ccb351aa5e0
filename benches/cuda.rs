//! Each scheme's kernel on a card against libtorch in bfloat16, on the linear layers of a decoder block with random weights.
//!
//! ```text
//! cargo bench --workspace --bench cuda -- [SHAPE [ROWS …]] [SCHEME …]
//! ```
//!
//! `SHAPE` is `llama-3.1-8b` (the default) or `qwen3-0.6b`; `SCHEME` is a part of a name in the table, without one all are measured.
//! A time is that of the block's seven layers, of many queued one after the other, `x` how many times faster than bfloat16; `queued`
//! is how long the processor took to queue them: where it is as long, the card has waited. `TFLOP/s` counts two operations a weight
//! and row, `GB/s` the weights once. Activations are bfloat16.

#![expect(clippy::print_stdout, reason = "a bench says what it measured")]

use std::error::Error;
use std::time::Instant;

use qpipe_kernels::{Input, Layer, Multiplier, Scheme, kernel_for, linear, random};
use tch::{Cuda, Device, Kind, Tensor};

#[path = "../kernels/tests/card/mod.rs"]
mod card;

/// (N, K): query, key, value, output, gate, up, down.
type Layers = [(i64, i64); 7];

const SHAPES: [(&str, Layers); 2] = [
    (
        "llama-3.1-8b",
        [(4096, 4096), (1024, 4096), (1024, 4096), (4096, 4096), (14336, 4096), (14336, 4096), (4096, 14336)],
    ),
    (
        "qwen3-0.6b",
        [(2048, 1024), (1024, 1024), (1024, 1024), (1024, 2048), (3072, 1024), (3072, 1024), (1024, 3072)],
    ),
];
const ROWS: [i64; 9] = [1, 4, 8, 16, 32, 64, 128, 512, 2048];
const GROUP: i64 = 128;
const KIND: Kind = Kind::BFloat16;
const CARD: Device = Device::Cuda(0);
/// So long a time is measured, and so often, the median counting.
const SECONDS: f64 = 0.03;
const REPEATS: usize = 5;

const SCHEMES: [Scheme; 8] = [
    Scheme::W8A8,
    Scheme::LlmInt8,
    Scheme::W4A16 { group: GROUP },
    Scheme::W4A16Asym { group: GROUP },
    Scheme::Nf4 { block: 64, nested: true },
    Scheme::W4A8 { group: GROUP },
    Scheme::W4A8Float { group: GROUP },
    Scheme::W8A16,
];

/// Seconds of a pass through the block on the card, and of queueing it.
struct Time {
    passed: f64,
    queued: f64,
}

fn time(work: impl Fn()) -> Time {
    let run = |times: usize| {
        let began = Instant::now();
        (0..times).for_each(|_| work());
        let queued = began.elapsed().as_secs_f64();
        Cuda::synchronize(0);
        Time { passed: began.elapsed().as_secs_f64() / times as f64, queued: queued / times as f64 }
    };
    run(3);
    let times = (SECONDS / run(3).passed).clamp(3.0, 1000.0) as usize;
    let mut found: Vec<Time> = (0..REPEATS).map(|_| run(times)).collect();
    found.sort_by(|one, other| one.passed.total_cmp(&other.passed));
    found.swap_remove(REPEATS / 2)
}

/// What a layer makes of its activations.
type Call<'a> = Box<dyn Fn(&Tensor) + 'a>;

/// All numbers of rows through `calls`, one for each of `layers` with `bytes` of weights. `baseline` is theirs in bfloat16.
fn measure(
    name: &str,
    kernels: &str,
    (layers, rows): (&Layers, &[i64]),
    (calls, bytes): (&[Call<'_>], u64),
    baseline: Option<&[f64]>,
) -> Vec<f64> {
    let weights: i64 = layers.iter().map(|(n, k)| n * k).sum();
    let one = |(index, &count): (usize, &i64)| {
        let inputs: Vec<Tensor> = layers
            .iter()
            .map(|&(_, k)| Tensor::randn([count, k], (Kind::Float, CARD)).to_kind(KIND))
            .collect();
        let Time { passed, queued } = time(|| calls.iter().zip(&inputs).for_each(|(call, x)| call(x)));
        let ratio = baseline.map_or(1.0, |baseline| baseline[index] / passed);
        let rate = 2.0 * (weights * count) as f64 / passed / 1e12;
        println!(
            "{name:22} {count:5} {:8.1} {:8.1} {ratio:6.2}x {rate:8.1} {:7.0}  {kernels}",
            1e6 * passed,
            1e6 * queued,
            bytes as f64 / passed / 1e9,
        );
        passed
    };
    rows.iter().enumerate().map(one).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let shape = SHAPES.iter().find(|(name, _)| arguments.iter().any(|argument| argument == name));
    let (shape, layers) = shape.unwrap_or(&SHAPES[0]);
    let rows: Vec<i64> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    let rows = if rows.is_empty() { ROWS.to_vec() } else { rows };
    let parts: Vec<&String> = arguments
        .iter()
        .filter(|argument| argument.parse::<i64>().is_err() && argument.as_str() != *shape)
        .collect();
    let wants = |name: &str| parts.is_empty() || parts.iter().any(|part| name.contains(part.as_str()));
    if !card::has_cuda() {
        return Ok(());
    }
    let _guard = tch::no_grad_guard();
    println!("{shape}, microseconds of a block");
    println!(
        "{:22} {:>5} {:>8} {:>8} {:>7} {:>8} {:>7}  kernel",
        "scheme", "rows", "time", "queued", "x", "TFLOP/s", "GB/s"
    );
    let plain: Vec<Tensor> =
        layers.iter().map(|&(n, k)| Tensor::randn([n, k], (Kind::Float, CARD)).to_kind(KIND)).collect();
    let multiply = |weight: &Tensor, x: &Tensor| {
        drop(linear(&Input::new(x), weight, None, Multiplier::Libtorch).expect("two matrices that fit"));
    };
    let calls: Vec<Call<'_>> =
        plain.iter().map(|weight| Box::new(move |x: &Tensor| multiply(weight, x)) as Call<'_>).collect();
    let bytes: i64 = layers.iter().map(|(n, k)| 2 * n * k).sum();
    let baseline = measure("bfloat16", "libtorch", (layers, &rows), (&calls, bytes as u64), None);
    for scheme in SCHEMES.into_iter().filter(|scheme| wants(&scheme.to_string())) {
        let (mut kernels, mut calls, mut bytes): (Vec<_>, Vec<Call<'_>>, _) = (Vec::new(), Vec::new(), 0);
        for &(out_features, in_features) in layers {
            let weight = random::weight(scheme, out_features, in_features, KIND, false)?;
            let layer = Layer { scheme, out_features, in_features, device: CARD, kind: KIND };
            kernels.push(kernel_for(&layer).name);
            let prepared = kernel_for(&layer).prepare(&weight, &layer)?;
            bytes += prepared.bytes();
            calls.push(Box::new(move |x: &Tensor| drop(prepared.forward(x))));
        }
        kernels.dedup();
        let kernels = kernels.join(", ");
        measure(&scheme.to_string(), &kernels, (layers, &rows), (&calls, bytes), Some(&baseline));
    }
    Ok(())
}
