//! Every kernel of the table against `reference`, on every scheme, shape and number of rows that it supports.
//!
//! ```text
//! QPIPE_PARITY_SEED=9 QPIPE_PARITY_SHAPES='50257x1024:1,8 4096x11008:1,4096' cargo test --release --workspace --test parity
//! ```
//!
//! Other weights, and shapes NxK beside the ones here, with these numbers of rows. QPIPE_PARITY_KERNELS='w8a8-cuda-fused …' compares
//! these kernels only.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Command;

mod card;
mod drawn;

use card::has_cuda;
use drawn::{KINDS, generator, tolerance, weight};
use qpipe_kernels::{Isa, KERNELS, Layer, Scheme, random};
use tch::{Device, Kind, Tensor};

/// (N, K): multiples of everything, of some things, of nothing; wide, tall, and single channels.
const SHAPES: [(i64, i64); 14] = [
    (64, 128),
    (256, 512),
    (48, 384),
    (80, 256),
    (1008, 128),
    (40, 96),
    (33, 160),
    (100, 36),
    (7, 13),
    (1, 8),
    (3, 1),
    // More input channels than are summed in one go.
    (37, 1184),
    // Vectors of four-bit codes that are half full, and groups that end within one.
    (37, 192),
    (20, 576),
];
/// The last only with every third shape: it is slow.
const ROWS: [i64; 6] = [1, 3, 16, 33, 130, 2049];
/// Numbers of rows that are multiplied at once, with every shape whose K is a multiple of 64.
const FEW_ROWS: [i64; 6] = [2, 4, 5, 6, 7, 8];
/// All schemes that K allows, weights in groups in every number of bits or in one.
fn schemes(in_features: i64, has_all_bits: bool) -> Vec<Scheme> {
    let mut schemes =
        vec![Scheme::W8A16, Scheme::W8A8, Scheme::W8A8Static, Scheme::W8A8Torchao, Scheme::LlmInt8];
    for block in [32, 64, 4096] {
        schemes.extend([false, true].map(|nested| Scheme::Nf4 { block, nested }));
    }
    let groups = [32, 64, 128, 192, 256, 12, 13, in_features];
    for (index, &group) in groups.iter().enumerate() {
        if in_features % group == 0 && !groups[..index].contains(&group) {
            schemes.extend([
                Scheme::W4A16 { group },
                Scheme::W4A16Asym { group },
                Scheme::W4A8 { group },
                Scheme::W4A8Float { group },
            ]);
            let bits: &[u32] = if has_all_bits { &[1, 2, 3, 5, 6, 7, 8] } else { &[[3, 8, 2][index % 3]] };
            for &bits in bits {
                schemes.extend([false, true].map(|asym| Scheme::WeightOnly { bits, group, asym }));
            }
        }
    }
    schemes
}

/// Activations; those of LLM.int8() so large that many are outliers.
fn activations(scheme: Scheme, rows: i64, in_features: i64, kind: Kind, device: Device) -> Tensor {
    let x = Tensor::randn([rows, in_features], (kind, device));
    if scheme == Scheme::LlmInt8 { x * (random::THRESHOLD / 2.5) } else { x }
}

/// The shapes above and those of the environment, each with its numbers of rows.
fn cases() -> Vec<(i64, i64, Vec<i64>)> {
    let few = |number: usize| if number.is_multiple_of(3) { ROWS.len() } else { ROWS.len() - 1 };
    let rows = |number: usize, k: i64| {
        let few_rows: &[i64] = if k % 64 == 0 { &FEW_ROWS } else { &[] };
        [few_rows, &ROWS[..few(number)]].concat()
    };
    let own = SHAPES.iter().enumerate().map(|(number, &(n, k))| (n, k, rows(number, k)));
    let asked = std::env::var("QPIPE_PARITY_SHAPES").unwrap_or_default();
    let number = |text: &str| text.parse().expect("a number in QPIPE_PARITY_SHAPES");
    let case = |text: &str| {
        let (shape, rows) = text.split_once(':').expect("NxK:ROWS,… in QPIPE_PARITY_SHAPES");
        let (n, k) = shape.split_once('x').expect("NxK:ROWS,… in QPIPE_PARITY_SHAPES");
        (number(n), number(k), rows.split(',').map(number).collect())
    };
    own.chain(asked.split_whitespace().map(case)).collect()
}

/// What roundings of an output channel are measured by, `[N]`: the largest root of the sum of an output's squared terms, or the largest
/// output. Terms may cancel out, and leave an output that says nothing of them.
fn scale(x: &Tensor, value: &Tensor, expected: &Tensor) -> Tensor {
    let squares = |tensor: &Tensor| tensor.to_kind(Kind::Float).square();
    let terms = squares(x).matmul(&squares(value).tr()).sqrt();
    terms.maximum(&expected.to_kind(Kind::Float).abs()).amax([0].as_slice(), false)
}

/// The largest difference of `y` from `expected` [M, N], in parts of the `scale` of its channel. NaN where there is one.
fn distance(y: &Tensor, expected: &Tensor, scale: &Tensor) -> f64 {
    let wide = |tensor: &Tensor| tensor.to_kind(Kind::Float);
    let difference = (wide(y) - wide(expected)).abs().amax([0].as_slice(), false);
    // Of nothing but zeros: any difference is too much.
    f64::try_from((difference / scale.clamp_min(f64::from(f32::MIN_POSITIVE))).max()).unwrap()
}

/// Whether the environment asks for this kernel, as it does for all unless it names some.
fn is_asked_for(kernel: &str) -> bool {
    let named = std::env::var("QPIPE_PARITY_KERNELS");
    named.map_or(true, |named| named.split_whitespace().any(|name| name == kernel))
}

fn compare(device: Device) {
    let _guard = tch::no_grad_guard();
    qpipe_kernels::cuda::check_every_launch();
    let seed = std::env::var("QPIPE_PARITY_SEED").ok();
    let _generator = generator(seed.map_or(7, |seed| seed.parse().expect("a number in QPIPE_PARITY_SEED")));
    let (reference, others) = KERNELS.split_last().unwrap();
    let (mut used, mut wrong): (Vec<&str>, Vec<String>) = (Vec::new(), Vec::new());
    for (number, (out_features, in_features, row_counts)) in cases().into_iter().enumerate() {
        // libtorch takes long to unpack them: with the first and the last of the shapes here.
        let has_all_bits = [0, SHAPES.len() - 1].contains(&number);
        for kind in KINDS {
            for scheme in schemes(in_features, has_all_bits) {
                let layer = Layer { scheme, out_features, in_features, device, kind };
                let weight = weight(scheme, out_features, in_features, kind, number % 2 == 0);
                let expected = reference.prepare(&weight, &layer).unwrap();
                let value = weight.value(Kind::Float).unwrap().to_device(device);
                let able =
                    others.iter().filter(|kernel| is_asked_for(kernel.name) && kernel.supports(&layer));
                let prepared: Vec<_> =
                    able.map(|kernel| (kernel.name, kernel.prepare(&weight, &layer).unwrap())).collect();
                used.extend(prepared.iter().map(|(name, _)| *name));
                for rows in row_counts.iter().copied() {
                    let x = activations(scheme, rows, in_features, kind, device);
                    let expected = expected.forward(&x);
                    let scale = scale(&x, &value, &expected);
                    for (name, prepared) in &prepared {
                        let y = prepared.forward(&x);
                        assert_eq!((y.size(), y.kind()), (vec![rows, out_features], kind));
                        let distance = distance(&y, &expected, &scale);
                        if distance.is_nan() || distance > tolerance(&layer) {
                            wrong.push(format!("{name}: {layer:?}, {rows} rows: {distance:e}"));
                        }
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong[..wrong.len().min(40)].join("\n"));
    for entry in others.iter().filter(|entry| entry.place.has(device) && is_asked_for(entry.name)) {
        assert!(used.contains(&entry.name), "no layer here is one of {}'s", entry.name);
    }
}

#[test]
fn every_kernel_agrees_with_the_reference_on_the_cpu() {
    compare(Device::Cpu);
}

/// Instructions are chosen once a process: this test is run once more with each set that the machine has.
#[test]
fn every_kernel_agrees_with_the_reference_with_fewer_instructions() {
    let program = std::env::current_exe().unwrap();
    for isa in Isa::all_of_this_machine().filter(|isa| *isa < Isa::here()) {
        let output = Command::new(&program)
            .args(["--exact", "every_kernel_agrees_with_the_reference_on_the_cpu", "--nocapture"])
            .env("QPIPE_CPU", isa.name())
            // Its threads would spin while they wait for each other beside those of the other test.
            .env("OMP_NUM_THREADS", "1")
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success() && said[0].contains("1 passed"), "{}: {}", isa.name(), said.concat());
    }
}

#[test]
fn every_kernel_agrees_with_the_reference_on_cuda() {
    if has_cuda() {
        compare(Device::Cuda(0));
    }
}
