//! Every kernel of the table against `reference`, on every scheme, shape and number of rows that it supports.
//!
//! ```text
//! QPIPE_PARITY_SEED=9 QPIPE_PARITY_SHAPES='50257x1024:1,8 4096x11008:1,4096' cargo test --release --workspace --test parity
//! ```
//!
//! Other weights, and shapes NxK beside the ones here, with these numbers of rows. QPIPE_PARITY_KERNELS='w8a8-cuda-fused …' compares
//! these kernels only.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod card;

use card::has_cuda;
use qpipe_kernels::nf4::Absmax;
use qpipe_kernels::{Codes, Input, KERNELS, Layer, Norm, QuantizedWeight, Scheme, random};
use tch::{Device, Kind, Tensor};

/// (N, K): multiples of everything, of some things, of nothing; wide, tall, and single channels.
const SHAPES: [(i64, i64); 12] = [
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
];
/// The last only with every third shape: it is slow.
const ROWS: [i64; 6] = [1, 3, 16, 33, 130, 2049];
const KINDS: [Kind; 3] = [Kind::Float, Kind::BFloat16, Kind::Half];

/// Largest difference from the reference, relative to [`scale`].
fn tolerance(scheme: Scheme, kind: Kind, in_features: i64) -> f64 {
    match (scheme, kind) {
        // Integer sums and the same f32 operations after them: nothing may differ.
        (Scheme::W8A8 | Scheme::W8A8Static | Scheme::W8A8Torchao | Scheme::W4A8 { .. }, _) => 0.0,
        // The reference rounds weights to the type, kernels for few rows do not.
        (_, Kind::BFloat16) => 2_f64.powi(-7),
        (_, Kind::Half) => 2_f64.powi(-10),
        // Sums of more terms round more often.
        _ => 2e-6 * (in_features as f64 / 1024.0).max(1.0).sqrt(),
    }
}

fn schemes(in_features: i64) -> Vec<Scheme> {
    let mut schemes =
        vec![Scheme::W8A16, Scheme::W8A8, Scheme::W8A8Static, Scheme::W8A8Torchao, Scheme::LlmInt8];
    for block in [32, 64, 4096] {
        schemes.extend([false, true].map(|nested| Scheme::Nf4 { block, nested }));
    }
    let groups = [32, 64, 128, 256, 12, 13, in_features];
    for (index, &group) in groups.iter().enumerate() {
        if in_features % group == 0 && !groups[..index].contains(&group) {
            schemes.extend([
                Scheme::W4A16 { group },
                Scheme::W4A16Asym { group },
                Scheme::W4A8 { group },
                Scheme::W4A8Float { group },
            ]);
            let bits = [3, 8, 2][index % 3];
            schemes.extend([false, true].map(|asym| Scheme::WeightOnly { bits, group, asym }));
        }
    }
    schemes
}

fn weight(scheme: Scheme, out_features: i64, in_features: i64, kind: Kind, bias: bool) -> QuantizedWeight {
    random::weight(scheme, out_features, in_features, kind, bias).unwrap()
}

/// Activations; those of LLM.int8() so large that many are outliers.
fn activations(scheme: Scheme, rows: i64, in_features: i64, kind: Kind, device: Device) -> Tensor {
    let x = Tensor::randn([rows, in_features], (kind, device));
    if scheme == Scheme::LlmInt8 { x * (random::THRESHOLD / 2.5) } else { x }
}

fn copy_of(weight: &QuantizedWeight) -> QuantizedWeight {
    let copy = Tensor::shallow_clone;
    let codes = match weight.codes() {
        Codes::LlmInt8 { weight, absmax, threshold } => {
            Codes::LlmInt8 { weight: copy(weight), absmax: copy(absmax), threshold: *threshold }
        }
        Codes::Nf4 { packed, absmax, block, compute } => Codes::Nf4 {
            packed: copy(packed),
            absmax: absmax.to_device(Device::Cpu).unwrap(),
            block: *block,
            compute: *compute,
        },
        Codes::Int8 { weight, scale } => Codes::Int8 { weight: copy(weight), scale: copy(scale) },
        Codes::Int8Static { weight, scale, input_scale } => {
            Codes::Int8Static { weight: copy(weight), scale: copy(scale), input_scale: copy(input_scale) }
        }
        Codes::Int8A16 { weight, scale } => Codes::Int8A16 { weight: copy(weight), scale: copy(scale) },
        Codes::Int8Torchao { weight, scale } => {
            Codes::Int8Torchao { weight: copy(weight), scale: copy(scale) }
        }
        Codes::Int4 { packed, scale, group } => {
            Codes::Int4 { packed: copy(packed), scale: copy(scale), group: *group }
        }
        Codes::Int4Asym { packed, scale, zero, group } => {
            Codes::Int4Asym { packed: copy(packed), scale: copy(scale), zero: copy(zero), group: *group }
        }
        Codes::Bits { packed, bits, scale, zero, group } => Codes::Bits {
            packed: copy(packed),
            bits: *bits,
            scale: copy(scale),
            zero: zero.as_ref().map(copy),
            group: *group,
        },
        Codes::Int4A8 { packed, scale, group } => {
            Codes::Int4A8 { packed: copy(packed), scale: copy(scale), group: *group }
        }
        Codes::Progressive { packed, group_scale, group_zero, channel_scale, group } => Codes::Progressive {
            packed: copy(packed),
            group_scale: copy(group_scale),
            group_zero: copy(group_zero),
            channel_scale: copy(channel_scale),
            group: *group,
        },
    };
    let bias = weight.bias().map(copy);
    QuantizedWeight::new(codes, bias, weight.out_features(), weight.in_features()).unwrap()
}

/// The shapes above and those of the environment, each with its numbers of rows.
fn cases() -> Vec<(i64, i64, Vec<i64>)> {
    let few = |number: usize| if number.is_multiple_of(3) { ROWS.len() } else { ROWS.len() - 1 };
    let own = SHAPES.iter().enumerate().map(|(number, &(n, k))| (n, k, ROWS[..few(number)].to_vec()));
    let asked = std::env::var("QPIPE_PARITY_SHAPES").unwrap_or_default();
    let number = |text: &str| text.parse().expect("a number in QPIPE_PARITY_SHAPES");
    let case = |text: &str| {
        let (shape, rows) = text.split_once(':').expect("NxK:ROWS,… in QPIPE_PARITY_SHAPES");
        let (n, k) = shape.split_once('x').expect("NxK:ROWS,… in QPIPE_PARITY_SHAPES");
        (number(n), number(k), rows.split(',').map(number).collect())
    };
    own.chain(asked.split_whitespace().map(case)).collect()
}

/// What roundings are measured by: the largest root of the sum of an output's squared terms, or the largest output. Terms may
/// cancel out, and leave an output that says nothing of them.
fn scale(x: &Tensor, value: &Tensor, expected: &Tensor) -> f64 {
    let squares = |tensor: &Tensor| tensor.to_kind(Kind::Float).square();
    let terms = f64::try_from(squares(x).matmul(&squares(value).tr()).max()).unwrap().sqrt();
    terms.max(f64::try_from(expected.abs().max()).unwrap())
}

/// Whether the environment asks for this kernel, as it does for all unless it names some.
fn is_asked_for(kernel: &str) -> bool {
    let named = std::env::var("QPIPE_PARITY_KERNELS");
    named.map_or(true, |named| named.split_whitespace().any(|name| name == kernel))
}

fn compare(device: Device) -> Vec<&'static str> {
    let _guard = tch::no_grad_guard();
    qpipe_kernels::cuda::check_every_launch();
    let seed = std::env::var("QPIPE_PARITY_SEED").ok();
    tch::manual_seed(seed.map_or(7, |seed| seed.parse().expect("a number in QPIPE_PARITY_SEED")));
    let (reference, others) = KERNELS.split_last().unwrap();
    let (mut used, mut wrong): (Vec<&str>, Vec<String>) = (Vec::new(), Vec::new());
    for (number, (out_features, in_features, row_counts)) in cases().into_iter().enumerate() {
        for kind in KINDS {
            for scheme in schemes(in_features) {
                let layer = Layer { scheme, out_features, in_features, device, kind };
                let weight = weight(scheme, out_features, in_features, kind, number % 2 == 0);
                let expected = reference.prepare(copy_of(&weight), &layer).unwrap();
                let value = weight.value(Kind::Float).unwrap().to_device(device);
                let able =
                    others.iter().filter(|kernel| is_asked_for(kernel.name()) && kernel.supports(&layer));
                for kernel in able {
                    let prepared = kernel.prepare(copy_of(&weight), &layer).unwrap();
                    used.push(kernel.name());
                    for rows in row_counts.iter().copied() {
                        let x = activations(scheme, rows, in_features, kind, device);
                        let (y, expected) = (prepared.forward(&x), expected.forward(&x));
                        assert_eq!((y.size(), y.kind()), (vec![rows, out_features], kind));
                        let difference = f64::try_from((&y - &expected).abs().max()).unwrap();
                        let scale = scale(&x, &value, &expected);
                        if difference.is_nan() || difference > tolerance(scheme, kind, in_features) * scale {
                            let name = kernel.name();
                            wrong
                                .push(format!("{name}: {layer:?}, {rows} rows: {difference:e} of {scale:e}"));
                        }
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong[..wrong.len().min(40)].join("\n"));
    used.sort_unstable();
    used.dedup();
    used
}

#[test]
fn every_kernel_agrees_with_the_reference_on_the_cpu() {
    let expected = [
        "llm-int8-cpu-fused",
        "llm-int8-int-mm",
        "nf4-cpu-fused",
        "nf4-tiles",
        "w4a16-cpu-fused",
        "w4a16-tiles",
        "w4a8-cpu-fused",
        "w4a8-grouped-tiles",
        "w4a8-progressive-tiles",
        "w8a16-cpu-fused",
        "w8a16-tiles",
        "w8a8-cpu-fused",
        "w8a8-int-mm",
        "weight-only-tiles",
    ];
    let expected: Vec<&str> = expected.into_iter().filter(|name| is_asked_for(name)).collect();
    assert_eq!(compare(Device::Cpu), expected);
}

#[test]
fn every_kernel_agrees_with_the_reference_on_cuda() {
    if !has_cuda() {
        return;
    }
    let expected = [
        "llm-int8-cuda-fused",
        "llm-int8-int-mm",
        "nf4-cuda-fused",
        "nf4-tiles",
        "w4a16-cuda-fused",
        "w4a16-int4pack-cuda",
        "w4a16-tiles",
        "w4a8-cuda-fused",
        "w4a8-grouped-tiles",
        "w4a8-progressive-tiles",
        "w8a16-tiles",
        "w8a8-cuda-fused",
        "w8a8-int-mm",
        "weight-only-tiles",
    ];
    let expected: Vec<&str> = expected.into_iter().filter(|name| is_asked_for(name)).collect();
    assert_eq!(compare(Device::Cuda(0)), expected);
}

#[test]
fn normalized_activations_are_multiplied_as_if_they_had_been_normalized_before() {
    let _guard = tch::no_grad_guard();
    let devices = if has_cuda() { vec![Device::Cpu, Device::Cuda(0)] } else { vec![Device::Cpu] };
    let (out_features, in_features) = (96, 200);
    for device in devices {
        for scheme in [
            Scheme::W8A8,
            Scheme::W8A8Static,
            Scheme::W8A8Torchao,
            Scheme::LlmInt8,
            Scheme::W4A8Float { group: 40 },
            Scheme::W4A16 { group: 40 },
        ] {
            for kind in KINDS {
                let prepared = || {
                    let weight = weight(scheme, out_features, in_features, kind, true);
                    qpipe_kernels::prepare(weight, device, kind).unwrap()
                };
                let x = Tensor::randn([3, 7, in_features], (kind, device)) * 2.0;
                let norm =
                    Norm { weight: &(Tensor::rand([in_features], (kind, device)) + 0.5), epsilon: 1e-6 };
                let input = Input::normalized(&x, norm);
                // The second one finds what was made for the first.
                for layer in [prepared(), prepared()] {
                    let (y, expected) = (layer.forward_input(&input), layer.forward(&norm.forward(&x)));
                    assert_eq!((y.size(), y.kind()), (vec![3, 7, out_features], kind));
                    // On CUDA a mean summed in another order moves some codes by one.
                    let tolerance = if device.is_cuda() { 0.02 } else { 0.0 };
                    let difference = f64::try_from((&y - &expected).abs().max()).unwrap();
                    let largest = f64::try_from(expected.abs().max()).unwrap();
                    assert!(
                        difference <= tolerance * largest,
                        "{scheme}, {kind:?}: {difference:e} of {largest:e}"
                    );
                }
            }
        }
    }
}

#[test]
fn leading_dimensions_pass_through() {
    let _guard = tch::no_grad_guard();
    for scheme in [
        Scheme::LlmInt8,
        Scheme::Nf4 { block: 64, nested: true },
        Scheme::W8A8,
        Scheme::W8A8Static,
        Scheme::W8A8Torchao,
        Scheme::W8A16,
        Scheme::W4A16 { group: 32 },
        Scheme::W4A16Asym { group: 32 },
        Scheme::W4A8 { group: 32 },
        Scheme::W4A8Float { group: 32 },
    ] {
        for kind in [Kind::Float, Kind::BFloat16] {
            let prepared =
                qpipe_kernels::prepare(weight(scheme, 48, 64, kind, true), Device::Cpu, kind).unwrap();
            let x = Tensor::randn([2, 5, 64], (kind, Device::Cpu));
            let y = prepared.forward(&x);
            assert_eq!(y.size(), [2, 5, 48]);
            assert!(y.view([10, 48]).equal(&prepared.forward(&x.view([10, 64]))));
            // Of nothing comes nothing.
            assert_eq!(prepared.forward(&x.narrow(0, 0, 0)).size(), [0, 5, 48], "{scheme} {kind:?}");
            // What a transposed activation gives does not depend on its strides.
            // A row's place may decide the last bit of a floating-point sum.
            let transposed = prepared.forward(&x.transpose(0, 1)).transpose(0, 1);
            let difference = f64::try_from((&transposed - &y).abs().max()).unwrap();
            let largest = f64::try_from(y.abs().max()).unwrap();
            assert!(difference <= tolerance(scheme, kind, 64) * largest, "{scheme} {kind:?}");
        }
    }
}

#[test]
fn a_weight_with_an_input_order_is_multiplied_with_reordered_activations() {
    let _guard = tch::no_grad_guard();
    tch::manual_seed(5);
    let (out_features, in_features) = (48, 64);
    for scheme in [Scheme::W4A16 { group: 32 }, Scheme::WeightOnly { bits: 3, group: 32, asym: true }] {
        let plain = weight(scheme, out_features, in_features, Kind::Float, true);
        let order = Tensor::randperm(in_features, (Kind::Int64, Device::Cpu));
        let ordered = copy_of(&plain).with_input_order(order.shallow_clone()).unwrap();
        let value = ordered.value(Kind::Float).unwrap();
        assert!(value.index_select(1, &order).equal(&plain.value(Kind::Float).unwrap()));
        let bias = ordered.bias().unwrap().shallow_clone();
        let x = Tensor::randn([5, in_features], (Kind::Float, Device::Cpu));
        let expected = x.matmul(&value.tr()) + bias;
        let y = qpipe_kernels::prepare(ordered, Device::Cpu, Kind::Float).unwrap().forward(&x);
        let difference = f64::try_from((&y - &expected).abs().max()).unwrap();
        assert!(difference < 1e-5, "{scheme}: {difference}");
        let twice = Tensor::zeros([in_features], (Kind::Int64, Device::Cpu));
        let error = plain.with_input_order(twice).unwrap_err().to_string();
        assert_eq!(error, "the order of 64 input channels is no permutation of them");
    }
}

#[test]
fn weights_stay_packed() {
    let (out_features, in_features) = (512, 1024);
    let weights = (out_features * in_features) as f64;
    for kind in KINDS {
        for (scheme, most_bits) in [
            (Scheme::LlmInt8, 8.1),
            (Scheme::Nf4 { block: 64, nested: false }, 4.5),
            // 4.127, and a table of 1 KiB.
            (Scheme::Nf4 { block: 64, nested: true }, 4.15),
            (Scheme::W8A8, 8.1),
            (Scheme::W8A8Static, 8.1),
            (Scheme::W8A8Torchao, 8.1),
            (Scheme::W8A16, 8.1),
            (Scheme::W4A16 { group: 128 }, 4.3),
            (Scheme::W4A16Asym { group: 128 }, 4.3),
            (Scheme::W4A8 { group: 128 }, 4.3),
            (Scheme::W4A8Float { group: 128 }, 4.3),
            (Scheme::WeightOnly { bits: 2, group: 128, asym: true }, 2.35),
            (Scheme::WeightOnly { bits: 3, group: 128, asym: false }, 3.3),
            (Scheme::WeightOnly { bits: 8, group: 1024, asym: true }, 8.1),
        ] {
            let weight = weight(scheme, out_features, in_features, kind, false);
            let prepared = qpipe_kernels::prepare(weight, Device::Cpu, kind).unwrap();
            let bits = prepared.bytes() as f64 * 8.0 / weights;
            assert!(bits <= most_bits, "{scheme} in {kind:?}: {bits} bits a weight");
        }
    }
}

#[test]
fn a_row_of_w8a8_does_not_depend_on_its_neighbours() {
    let _guard = tch::no_grad_guard();
    let prepared =
        qpipe_kernels::prepare(weight(Scheme::W8A8, 96, 80, Kind::Float, false), Device::Cpu, Kind::Float)
            .unwrap();
    let x = Tensor::randn([70, 80], (Kind::Float, Device::Cpu));
    let together = prepared.forward(&x);
    for row in [0, 31, 69] {
        assert!(prepared.forward(&x.narrow(0, row, 1)).equal(&together.narrow(0, row, 1)));
    }
}

#[test]
fn tensors_that_do_not_fit_are_refused_by_name() {
    let zeros = |shape: &[i64], kind| Tensor::zeros(shape, (kind, Device::Cpu));
    let int8 = Codes::Int8 { weight: zeros(&[4, 8], Kind::Int8), scale: zeros(&[4], Kind::Float) };
    let error = QuantizedWeight::new(int8, None, 4, 8).unwrap_err().to_string();
    assert_eq!(error, "scale has type Float and shape [4], expected floating point [4, 1]");
    let int4 =
        Codes::Int4 { packed: zeros(&[4, 1], Kind::Int), scale: zeros(&[4, 1], Kind::Float), group: 3 };
    let error = QuantizedWeight::new(int4, None, 4, 8).unwrap_err().to_string();
    assert_eq!(error, "a group of 3 does not divide 8 input channels");
    let absmax = Absmax::Plain(zeros(&[1], Kind::Float));
    let nf4 = Codes::Nf4 { packed: zeros(&[16], Kind::Uint8), absmax, block: 64, compute: Kind::Float };
    let error = QuantizedWeight::new(nf4, None, 9, 8).unwrap_err().to_string();
    assert_eq!(error, "packed has type Uint8 and shape [16], expected Uint8 [36]");
    let progressive = Codes::Progressive {
        packed: zeros(&[4, 1], Kind::Int),
        group_scale: zeros(&[4, 2], Kind::Int8),
        group_zero: zeros(&[4, 2], Kind::Int8),
        channel_scale: zeros(&[4, 1], Kind::Float),
        group: 4,
    };
    let error = QuantizedWeight::new(progressive, None, 4, 8).unwrap_err().to_string();
    assert_eq!(error, "8 pairs of group_scale and group_zero take 4-bit codes out of the range of int8");
}

#[test]
fn nf4_is_multiplied_in_the_type_that_it_says() {
    let _guard = tch::no_grad_guard();
    let x = Tensor::randn([5, 40], (Kind::BFloat16, Device::Cpu));
    // Drawn once: other tests draw from the same generator at the same time.
    let Codes::Nf4 { packed, absmax, block, .. } = random::nf4_codes(64 * 40, 64, false, Kind::Float) else {
        unreachable!()
    };
    let outputs = [Kind::Float, Kind::BFloat16, Kind::Half].map(|compute| {
        let (packed, absmax) = (packed.shallow_clone(), absmax.to_device(Device::Cpu).unwrap());
        let codes = Codes::Nf4 { packed, absmax, block, compute };
        let weight = QuantizedWeight::new(codes, None, 64, 40).unwrap();
        let y = qpipe_kernels::prepare(weight, Device::Cpu, Kind::BFloat16).unwrap().forward(&x);
        assert_eq!(y.kind(), Kind::BFloat16);
        y.to_kind(Kind::Double)
    });
    let size = |tensor: &Tensor| tensor.square().sum(Kind::Double).double_value(&[]).sqrt();
    for other in &outputs[1..] {
        let distance = size(&(&outputs[0] - other)) / size(&outputs[0]);
        assert!(distance > 0.0 && distance < 2_f64.powi(-7), "{distance}");
    }
}

#[test]
fn a_row_of_llm_int8_depends_on_its_neighbours_only_through_their_outliers() {
    let _guard = tch::no_grad_guard();
    let prepared = {
        tch::manual_seed(4);
        let weight = weight(Scheme::LlmInt8, 24, 32, Kind::Float, false);
        qpipe_kernels::prepare(weight, Device::Cpu, Kind::Float).unwrap()
    };
    let x = Tensor::rand([3, 32], (Kind::Float, Device::Cpu));
    let alone = prepared.forward(&x.narrow(0, 0, 1));
    assert!(prepared.forward(&x).narrow(0, 0, 1).equal(&alone));
    let _ = x.narrow(0, 2, 1).narrow(1, 7, 1).fill_(100.0);
    let together = prepared.forward(&x).narrow(0, 0, 1);
    // The first row's channel 7 is no longer rounded.
    assert!(!together.equal(&alone));
    assert!(together.allclose(&alone, 5e-2, 5e-2, false));
}
