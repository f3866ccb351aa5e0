//! What holds for all kernels beside their numbers: shapes, orders of channels, norms in front, what is refused.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod card;
mod drawn;

use card::has_cuda;
use drawn::{KINDS, generator, tolerance, weight};
use qpipe_kernels::nf4::Absmax;
use qpipe_kernels::{Codes, FewRowsAlike, Input, Isa, KERNELS, Layer, Norm, QuantizedWeight, Scheme, random};
use tch::{Device, Kind, Tensor};

fn devices() -> Vec<Device> {
    if has_cuda() { vec![Device::Cpu, Device::Cuda(0)] } else { vec![Device::Cpu] }
}

#[test]
fn normalized_activations_are_multiplied_as_if_they_had_been_normalized_before() {
    let _guard = tch::no_grad_guard();
    let _generator = generator(3);
    let (out_features, in_features) = (96, 200);
    for device in devices() {
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
                    qpipe_kernels::prepare(&weight, device, kind).unwrap()
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
    let _generator = generator(6);
    let (out_features, in_features) = (48, 64);
    for device in devices() {
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
                let layer = Layer { scheme, out_features, in_features, device, kind };
                let weight = weight(scheme, out_features, in_features, kind, true);
                let prepared = qpipe_kernels::prepare(&weight, device, kind).unwrap();
                let x = Tensor::randn([2, 5, in_features], (kind, device));
                let y = prepared.forward(&x);
                assert_eq!(y.size(), [2, 5, out_features]);
                assert!(y.view([10, out_features]).equal(&prepared.forward(&x.view([10, in_features]))));
                // Of nothing comes nothing.
                assert_eq!(prepared.forward(&x.narrow(0, 0, 0)).size(), [0, 5, out_features], "{layer:?}");
                // What a transposed activation gives does not depend on its strides.
                // A row's place may decide the last bit of a floating-point sum.
                let transposed = prepared.forward(&x.transpose(0, 1)).transpose(0, 1);
                let difference = f64::try_from((&transposed - &y).abs().max()).unwrap();
                let largest = f64::try_from(y.abs().max()).unwrap();
                assert!(difference <= tolerance(&layer) * largest, "{layer:?}");
            }
        }
    }
}

/// Every kernel, the reference too.
#[test]
fn a_weight_with_an_input_order_is_multiplied_with_reordered_activations() {
    let _guard = tch::no_grad_guard();
    let (out_features, in_features, kind) = (48, 64, Kind::Float);
    for device in devices() {
        for scheme in [
            Scheme::W8A16,
            Scheme::W4A16 { group: 32 },
            Scheme::W4A16Asym { group: 32 },
            Scheme::WeightOnly { bits: 3, group: 32, asym: true },
            Scheme::WeightOnly { bits: 8, group: 32, asym: false },
        ] {
            let drawn = || {
                let _generator = generator(5);
                weight(scheme, out_features, in_features, kind, true)
            };
            let order = Tensor::randperm(in_features, (Kind::Int64, Device::Cpu));
            let ordered = drawn().with_input_order(order.shallow_clone()).unwrap();
            let value = ordered.value(kind).unwrap();
            assert!(value.index_select(1, &order).equal(&drawn().value(kind).unwrap()));
            let x = Tensor::randn([5, in_features], (kind, Device::Cpu));
            let expected = x.matmul(&value.tr()) + ordered.bias().unwrap();
            let layer = Layer { scheme, out_features, in_features, device, kind };
            for entry in KERNELS.iter().filter(|entry| entry.supports(&layer)) {
                let y = entry.prepare(&ordered, &layer).unwrap().forward(&x.to_device(device));
                let difference = f64::try_from((y.to_device(Device::Cpu) - &expected).abs().max()).unwrap();
                assert!(difference < 1e-5, "{}, {scheme}: {difference}", entry.name);
            }
            let twice = Tensor::zeros([in_features], (Kind::Int64, Device::Cpu));
            let error = drawn().with_input_order(twice).unwrap_err().to_string();
            assert_eq!(error, "the order of 64 input channels is no permutation of them");
        }
    }
}

#[test]
fn weights_stay_packed() {
    let _generator = generator(1);
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
            let prepared = qpipe_kernels::prepare(&weight, Device::Cpu, kind).unwrap();
            let bits = prepared.bytes() as f64 * 8.0 / weights;
            assert!(bits <= most_bits, "{scheme} in {kind:?}: {bits} bits a weight");
        }
    }
}

#[test]
fn a_row_of_w8a8_does_not_depend_on_its_neighbours() {
    let _guard = tch::no_grad_guard();
    let _generator = generator(2);
    let prepared =
        qpipe_kernels::prepare(&weight(Scheme::W8A8, 96, 80, Kind::Float, false), Device::Cpu, Kind::Float)
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

/// By every kernel, with few rows and with many.
#[test]
fn nf4_is_multiplied_in_the_type_that_it_says() {
    let _guard = tch::no_grad_guard();
    let _generator = generator(8);
    let (out_features, in_features, block) = (64, 128, 64);
    let scheme = Scheme::Nf4 { block, nested: false };
    let Codes::Nf4 { packed, absmax, .. } =
        random::nf4_codes(out_features * in_features, block, false, Kind::Float)
    else {
        unreachable!()
    };
    let weight = |compute| {
        let (packed, absmax) = (packed.shallow_clone(), absmax.to_device(Device::Cpu).unwrap());
        let codes = Codes::Nf4 { packed, absmax, block, compute };
        QuantizedWeight::new(codes, None, out_features, in_features).unwrap()
    };
    let size = |tensor: &Tensor| tensor.square().sum(Kind::Double).double_value(&[]).sqrt();
    for device in devices() {
        for kind in KINDS {
            let layer = Layer { scheme, out_features, in_features, device, kind };
            for (entry, rows) in KERNELS.iter().flat_map(|entry| [(entry, 3), (entry, 40)]) {
                if !entry.supports(&layer) {
                    continue;
                }
                let x = Tensor::randn([rows, in_features], (kind, device));
                let [outputs, expected] = [false, true].map(|exact| {
                    KINDS.map(|compute| {
                        if exact {
                            let cast = x.to_kind(compute).to_kind(Kind::Double);
                            let value = weight(compute).value(Kind::Double).unwrap().to_device(device);
                            return cast.matmul(&value.tr());
                        }
                        let y = entry.prepare(&weight(compute), &layer).unwrap().forward(&x);
                        assert_eq!(y.kind(), kind);
                        y.to_kind(Kind::Double)
                    })
                });
                for ((y, expected), compute) in outputs.iter().zip(&expected).zip(KINDS) {
                    let distance = size(&(y - expected)) / size(expected);
                    let coarsest = if [kind, compute].contains(&Kind::BFloat16) { -7 } else { -10 };
                    let most = if [kind, compute] == [Kind::Float; 2] { 1e-6 } else { 2_f64.powi(coarsest) };
                    assert!(
                        distance < most,
                        "{}, {kind:?} in {compute:?}, {rows} rows: {distance}",
                        entry.name
                    );
                    // In bfloat16 even outputs in float32 show it.
                    let is_rounded = compute == Kind::BFloat16 && kind == Kind::Float;
                    assert!(!is_rounded || distance > 1e-4, "{}, {rows} rows: {distance}", entry.name);
                }
            }
        }
    }
}

/// Whether products of bfloat16 are ours here. A test that is skipped says so.
#[expect(clippy::print_stdout, reason = "a skipped test says so")]
fn multiplies_bfloat16() -> bool {
    let is_ours = Isa::here() == Isa::Avx512Bf16;
    if !is_ours {
        println!("skipped: {} has no product of bfloat16 of ours", Isa::here().name());
    }
    is_ours
}

/// Where libtorch multiplies, its own order of sums may depend on the rows.
#[test]
fn few_rows_are_multiplied_as_many_are_where_that_is_asked_for() {
    if !multiplies_bfloat16() {
        return;
    }
    let _guard = tch::no_grad_guard();
    let _generator = generator(9);
    let (in_features, kind) = (256, Kind::BFloat16);
    for scheme in [
        Scheme::W8A16,
        Scheme::W4A16 { group: 32 },
        Scheme::Nf4 { block: 32, nested: true },
        Scheme::WeightOnly { bits: 3, group: 64, asym: true },
    ] {
        let weight = weight(scheme, 500, in_features, kind, true);
        let layer = qpipe_kernels::prepare(&weight, Device::Cpu, kind).unwrap();
        let x = Tensor::randn([20, in_features], (kind, Device::Cpu));
        let together = layer.forward(&x);
        let alone =
            || (0..20).all(|row| layer.forward(&x.narrow(0, row, 1)).equal(&together.narrow(0, row, 1)));
        assert!(!alone(), "{scheme}: with one row no weight is rounded");
        let alike = FewRowsAlike::start();
        assert!(alone(), "{scheme}");
        drop(alike);
        assert!(!alone(), "{scheme}: and again none is");
    }
}

#[test]
fn more_rows_than_the_cache_holds_are_multiplied_as_fewer_are() {
    let _guard = tch::no_grad_guard();
    let _generator = generator(12);
    let (in_features, rows) = (2752, 1601);
    for kind in [Kind::Float, Kind::BFloat16] {
        for scheme in [Scheme::W4A16 { group: 64 }, Scheme::WeightOnly { bits: 3, group: 32, asym: true }] {
            let weight = weight(scheme, 40, in_features, kind, true);
            let layer = qpipe_kernels::prepare(&weight, Device::Cpu, kind).unwrap();
            let x = Tensor::randn([rows, in_features], (kind, Device::Cpu));
            let together = layer.forward(&x);
            for (first, count) in [(0, 300), (300, 301), (601, 400), (1001, 600)] {
                let some = layer.forward(&x.narrow(0, first, count));
                let distance = (some - together.narrow(0, first, count)).abs().max().double_value(&[]);
                // Where libtorch multiplies, its own order of sums may depend on the rows.
                let is_ours =
                    Isa::here() == Isa::Avx512Bf16 || Isa::here() == Isa::Avx2 && kind == Kind::Float;
                let most = if is_ours { 0.0 } else { 0.5 };
                assert!(distance <= most, "{scheme}, {kind:?}, {count} rows from {first} on: {distance}");
            }
        }
    }
}

#[test]
fn weights_of_four_bits_are_rounded_for_few_rows_of_bfloat16_where_pairs_are_multiplied() {
    if !multiplies_bfloat16() {
        return;
    }
    let _guard = tch::no_grad_guard();
    let _generator = generator(10);
    let (in_features, kind) = (576, Kind::BFloat16);
    for scheme in [
        Scheme::W4A16 { group: 64 },
        Scheme::W4A16Asym { group: 192 },
        Scheme::W4A16 { group: 576 },
        Scheme::Nf4 { block: 64, nested: true },
    ] {
        let weight = weight(scheme, 500, in_features, kind, false);
        let layer = qpipe_kernels::prepare(&weight, Device::Cpu, kind).unwrap();
        let x = Tensor::randn([24, in_features], (kind, Device::Cpu));
        let together = layer.forward(&x);
        for rows in [1, 2, 3, 4, 5, 6, 7, 8] {
            // Only the order of sums is another: of outputs a few are rounded to the number beside.
            let differ = layer.forward(&x.narrow(0, 0, rows)).ne_tensor(&together.narrow(0, 0, rows));
            let share = differ.to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
            assert!(share < 0.01, "{scheme}, {rows} rows: {share} differ");
        }
    }
}

#[test]
fn a_row_of_llm_int8_depends_on_its_neighbours_only_through_their_outliers() {
    let _guard = tch::no_grad_guard();
    let _generator = generator(4);
    let weight = weight(Scheme::LlmInt8, 24, 32, Kind::Float, false);
    let prepared = qpipe_kernels::prepare(&weight, Device::Cpu, Kind::Float).unwrap();
    let x = Tensor::rand([3, 32], (Kind::Float, Device::Cpu));
    let alone = prepared.forward(&x.narrow(0, 0, 1));
    assert!(prepared.forward(&x).narrow(0, 0, 1).equal(&alone));
    let _ = x.narrow(0, 2, 1).narrow(1, 7, 1).fill_(100.0);
    let together = prepared.forward(&x).narrow(0, 0, 1);
    // The first row's channel 7 is no longer rounded.
    assert!(!together.equal(&alone));
    assert!(together.allclose(&alone, 5e-2, 5e-2, false));
}
