//! Trials of the kernels for int8 activations: quantization, products, LLM.int8().

use qpipe_kernels::{Codes, KERNELS, Layer, Norm, Scheme, llm_int8, random, symmetric, torchao};
use tch::{Device, Kind, Tensor};

use crate::emulator::{Buffer, Emulated, Value};

const KINDS: [(Kind, &str, i32); 3] =
    [(Kind::Float, "f32", 0), (Kind::Half, "f16", 1), (Kind::BFloat16, "bf16", 2)];
const DYNAMIC: i32 = 0;
const STATIC: i32 = 1;
const TORCHAO: i32 = 2;
const MAGNITUDES: i32 = 2;

/// An entry of int8_gemm.cu: rows and columns of its tile, threads, bytes of shared memory.
const TILES: [(i64, i64, u32, usize); 4] =
    [(16, 32, 64, 36 << 10), (32, 64, 128, 72 << 10), (64, 64, 128, 32 << 10), (128, 128, 128, 64 << 10)];

/// Launches a function in both orders, which have to give the same outputs.
fn launch(
    kernel: &Emulated,
    function: &str,
    (blocks, threads, shared): ([u32; 3], u32, usize),
    values: &[Value<'_>],
    outputs: &[&Buffer<'_>],
) -> Vec<Tensor> {
    let mut found: Option<Vec<Tensor>> = None;
    kernel.launch(function, blocks, threads, shared, values, |label| {
        let outputs: Vec<Tensor> = outputs.iter().map(|buffer| buffer.tensor()).collect();
        // As bytes: NaN equals nothing.
        let bytes = |tensor: &Tensor| tensor.view([-1]).view_dtype(Kind::Uint8);
        if let Some(first) = &found {
            let mut pairs = first.iter().zip(&outputs);
            assert!(pairs.all(|(one, other)| bytes(one).equal(&bytes(other))), "{function}, {label}");
        }
        found = Some(outputs);
    });
    found.unwrap()
}

fn padded(width: i64) -> i64 {
    width + (-width).rem_euclid(16)
}

/// Codes [M, padded K] and scales `[M]` of `x` [M, K].
fn quantized(
    kernel: &Emulated,
    x: &Tensor,
    name: &str,
    rule: i32,
    scale: f32,
    threads: u32,
) -> (Tensor, Tensor) {
    let (rows, width) = x.size2().unwrap();
    let codes = kernel.empty(&[rows, padded(width)], Kind::Int8);
    let scales = kernel.empty(&[rows], Kind::Float);
    let values = [
        Value::Buffer(&kernel.buffer(x)),
        Value::Buffer(&codes),
        Value::Buffer(&scales),
        Value::Int(width as i32),
        Value::Int(padded(width) as i32),
        Value::Int(rule),
        Value::Float(scale),
    ];
    let grid = ([rows as u32, 1, 1], threads, 0);
    let found = launch(kernel, &format!("quantize_rows_{name}"), grid, &values, &[&codes, &scales]);
    let [codes, scales] = found.try_into().unwrap();
    (codes, scales)
}

fn float(tensor: &Tensor) -> Tensor {
    tensor.to_kind(Kind::Float)
}

/// Codes [M, K] and scales [M, 1] of `x` by the definitions.
fn defined(x: &Tensor, rule: i32, static_scale: &Tensor) -> (Tensor, Tensor) {
    match rule {
        TORCHAO => {
            let scale = torchao::scales(x).unwrap();
            (torchao::codes(x, &scale).unwrap(), scale)
        }
        STATIC => (symmetric::codes(x, static_scale, 8), static_scale.expand([x.size()[0], 1], false)),
        _ => {
            let scale = symmetric::scales(x, 8);
            (symmetric::codes(x, &scale, 8), scale)
        }
    }
}

/// Rows have the codes and scales of the definitions.
pub(crate) fn quantize_rows(kernel: &Emulated) {
    for (kind, name, _) in KINDS {
        for (rows, width) in [(1, 1), (3, 13), (2, 16), (5, 200), (2, 1000), (1, 4104)] {
            let x = Tensor::randn([rows, width], (Kind::Float, Device::Cpu)).to_kind(kind);
            let _ = x.select(0, 0).fill_(0.0);
            if rows > 2 {
                // Scales that the type has only as denormal numbers.
                let mut row = x.select(0, 1);
                let _ = row.f_mul_scalar_(if kind == Kind::Half { 1e-5 } else { 1e-38 }).unwrap();
            }
            for rule in [DYNAMIC, STATIC, TORCHAO] {
                let static_scale = Tensor::from_slice(&[0.017_f32]).to_kind(kind);
                let (codes, scale) = defined(&x, rule, &static_scale);
                let given = f32::try_from(float(&static_scale).get(0)).unwrap();
                let (found, scales) = quantized(kernel, &x, name, rule, given, 64);
                assert!(scales.equal(&float(&scale).view([-1])), "{name}, rule {rule}, {rows} x {width}");
                assert!(found.narrow(1, 0, width).equal(&codes), "{name}, rule {rule}, {rows} x {width}");
                let rest = found.narrow(1, width, padded(width) - width);
                assert_eq!(i64::try_from(float(&rest).abs().sum(Kind::Int64)).unwrap(), 0);
            }
        }
    }
    not_finite(kernel);
}

/// A row with a value that is not finite has no scale, and no codes.
fn not_finite(kernel: &Emulated) {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let x = Tensor::from_slice(&[1.0, bad, 2.0, 0.5, -1.0, 0.25]).view([2, 3]);
        for rule in [DYNAMIC, TORCHAO] {
            let (codes, scales) = quantized(kernel, &x, "f32", rule, 0.0, 32);
            let scales = Vec::<f32>::try_from(scales).unwrap();
            assert!(scales[0].is_nan() && scales[1].is_finite());
            assert_eq!(
                i64::try_from(codes.select(0, 0).to_kind(Kind::Int64).abs().sum(Kind::Int64)).unwrap(),
                0
            );
        }
    }
}

/// Normalized rows are quantized as if they had been written before.
pub(crate) fn rmsnorm_quantize(kernel: &Emulated) {
    for (kind, name, _) in KINDS {
        for (rows, width) in [(1, 8), (3, 100), (2, 1024), (2, 77)] {
            let x = Tensor::randn([rows, width], (kind, Device::Cpu)) * 3.0;
            let weight = Tensor::rand([width], (kind, Device::Cpu)) + 0.5;
            let normal = Norm { weight: &weight, epsilon: 1e-5 }.forward(&x);
            let scale = symmetric::scales(&normal, 8);
            let expected = symmetric::codes(&normal, &scale, 8);
            let codes = kernel.empty(&[rows, padded(width)], Kind::Int8);
            let scales = kernel.empty(&[rows], Kind::Float);
            let values = [
                Value::Buffer(&kernel.buffer(&x)),
                Value::Buffer(&kernel.buffer(&weight)),
                Value::Buffer(&codes),
                Value::Buffer(&scales),
                Value::Int(width as i32),
                Value::Int(padded(width) as i32),
                Value::Float(1e-5),
                Value::Int(DYNAMIC),
                Value::Float(0.0),
            ];
            let function = format!("rmsnorm_quantize_{name}");
            let found = launch(kernel, &function, ([rows as u32, 1, 1], 96, 0), &values, &[&codes, &scales]);
            let [codes, scales] = found.try_into().unwrap();
            assert!(scales.allclose(&float(&scale).view([-1]), 2e-2, 0.0, false), "{name}, {rows} x {width}");
            // The mean is summed in another order: a value may be its neighbour, and so may a code.
            let moved = (float(&codes.narrow(1, 0, width)) - float(&expected)).abs();
            assert!(f64::try_from(moved.max()).unwrap() <= 2.0, "{name}, {rows} x {width}");
            assert!(f64::try_from(moved.mean(Kind::Float)).unwrap() < 0.1, "{name}, {rows} x {width}");
        }
    }
}

/// A weight as its kernel takes it: codes [N, padded K], scales `[N]`, bias `[N]`.
struct Weight {
    codes: Tensor,
    scale: Tensor,
    bias: Option<Tensor>,
}

/// y [M, N] of an entry of int8_gemv.cu (`tile` absent) or int8_gemm.cu.
fn multiplied(
    kernel: &Emulated,
    tile: Option<usize>,
    function: &str,
    (codes, scales): &(Tensor, Tensor),
    weight: &Weight,
    (kind, number): (Kind, i32),
    mode: i32,
) -> Tensor {
    let (rows, width) = codes.size2().unwrap();
    let channels = weight.codes.size()[0];
    let y = kernel.empty(&[rows, channels], kind);
    let bias = weight.bias.as_ref().map(|bias| kernel.buffer(bias));
    let values = [
        Value::Buffer(&kernel.buffer(codes)),
        Value::Buffer(&kernel.buffer(&weight.codes)),
        Value::Buffer(&y),
        Value::Buffer(&kernel.buffer(scales)),
        Value::Buffer(&kernel.buffer(&weight.scale)),
        Value::from(bias.as_ref()),
        Value::Int(rows as i32),
        Value::Int(channels as i32),
        Value::Int(width as i32),
        Value::Int(number),
        Value::Int(mode),
    ];
    let (blocks, threads, shared) = match tile {
        None => ((channels as u32).div_ceil(8), 128, 0),
        Some(tile) => {
            let (tile_rows, tile_channels, threads, shared) = TILES[tile];
            let blocks =
                (rows as u64).div_ceil(tile_rows as u64) * (channels as u64).div_ceil(tile_channels as u64);
            (blocks as u32, threads, shared)
        }
    };
    launch(kernel, function, ([blocks, 1, 1], threads, shared), &values, &[&y]).pop().unwrap()
}

/// Codes multiplied by `function` are the reference's outputs, to the bit, in every scheme and type.
fn check(kernel: &Emulated, tile: Option<usize>, function: &str, [rows, channels, width]: [i64; 3]) {
    let reference = KERNELS.last().unwrap();
    for (number, (kind, name, code)) in KINDS.into_iter().enumerate() {
        for scheme in [Scheme::W8A8, Scheme::W8A8Static, Scheme::W8A8Torchao] {
            let quantized_weight =
                random::weight(scheme, channels, width, kind, (number + rows as usize).is_multiple_of(2))
                    .unwrap();
            let rounded = |scale: &Tensor| float(&scale.to_kind(kind));
            let none = Tensor::from_slice(&[1.0_f32]);
            let (codes, scale, rule, static_scale) = match quantized_weight.codes() {
                Codes::Int8 { weight, scale } => (weight, rounded(scale), DYNAMIC, none),
                Codes::Int8Torchao { weight, scale } => (weight, float(scale), TORCHAO, none),
                Codes::Int8Static { weight, scale, input_scale } => {
                    (weight, rounded(scale), STATIC, input_scale.to_kind(kind))
                }
                _ => unreachable!("no other scheme was asked for"),
            };
            let fill = |codes: &Tensor| codes.constant_pad_nd([0, padded(width) - width]);
            let weight = Weight {
                codes: fill(codes),
                scale: scale.view([-1]),
                bias: quantized_weight.bias().map(float),
            };
            let x = Tensor::randn([rows, width], (kind, Device::Cpu));
            let (codes, scale) = defined(&x, rule, &static_scale);
            let activations = (fill(&codes), float(&scale).reshape([-1]));
            let mode = i32::from(rule == TORCHAO);
            let y = multiplied(kernel, tile, function, &activations, &weight, (kind, code), mode);
            let layer =
                Layer { scheme, out_features: channels, in_features: width, device: Device::Cpu, kind };
            let expected = reference.prepare(&quantized_weight, &layer).unwrap().forward(&x);
            let context = format!("{function}, {scheme}, {name}: {rows} x {channels} x {width}");
            let difference = f64::try_from((float(&y) - float(&expected)).abs().max()).unwrap();
            assert_eq!(difference, 0.0, "{context}");
        }
    }
}

/// Few rows are multiplied as the reference does, and sums scaled by magnitudes as LLM.int8() has them.
pub(crate) fn int8_gemv(kernel: &Emulated) {
    for (function, rows) in [(1, 1), (2, 2), (4, 3), (8, 5), (8, 8)] {
        for [channels, width] in [[1, 1], [7, 13], [33, 520]] {
            check(kernel, None, &format!("int8_gemv_{function}"), [rows, channels, width]);
        }
    }
    for (kind, name, number) in KINDS {
        let codes = |rows| Tensor::randint_low(-127, 128, [rows, 48], (Kind::Int8, Device::Cpu));
        let weight =
            Weight { codes: codes(9), scale: Tensor::rand([9], (Kind::Float, Device::Cpu)), bias: None };
        let activations = (codes(4), Tensor::rand([4], (Kind::Float, Device::Cpu)));
        let y = multiplied(kernel, None, "int8_gemv_4", &activations, &weight, (kind, number), MAGNITUDES);
        let sums = activations.0.to_kind(Kind::Double).matmul(&weight.codes.to_kind(Kind::Double).tr());
        let by = (activations.1.view([-1, 1]) * &weight.scale) * sums.to_kind(Kind::Float) * 6.200_124e-5;
        assert!(y.equal(&by.to_kind(kind)), "{name}");
    }
}

/// Many rows are multiplied as the reference does.
pub(crate) fn int8_gemm(kernel: &Emulated) {
    for (tile, (tile_rows, ..)) in TILES.into_iter().enumerate() {
        // Single outputs; edges of tiles and of what is copied at once; whole rows of outputs.
        for shape in [[1, 1, 1], [17, 33, 100], [130, 72, 300]] {
            check(kernel, Some(tile), &format!("int8_gemm_{tile_rows}"), shape);
        }
    }
    // More row tiles than are numbered together; many steps through K.
    check(kernel, Some(0), "int8_gemm_16", [300, 70, 40]);
    check(kernel, Some(3), "int8_gemm_128", [128, 128, 1024]);
}

/// Columns with outliers are found and left out of codes and magnitudes.
pub(crate) fn llm_int8_rows(kernel: &Emulated) {
    for (kind, name, _) in KINDS {
        for (rows, width, threshold) in [(1, 8, 6.0_f32), (5, 100, 6.0), (7, 333, 0.0), (3, 64, 100.0)] {
            let x = (Tensor::randn([rows, width], (Kind::Float, Device::Cpu)) * 2.5).to_kind(kind);
            let _ = x.select(0, 0).fill_(0.0);
            let expected = llm_int8::quantize_rows(&x, f64::from(threshold)).unwrap();
            let input = kernel.buffer(&x);
            let flags = kernel.buffer(&Tensor::zeros([width], (Kind::Uint8, Device::Cpu)));
            if threshold > 0.0 {
                let values = [
                    Value::Buffer(&input),
                    Value::Buffer(&flags),
                    Value::Int(rows as i32),
                    Value::Int(width as i32),
                    Value::Float(threshold),
                ];
                let blocks = [width as u32 / 128 + 1, 2, 1];
                let function = format!("llm_int8_columns_{name}");
                let found = launch(kernel, &function, (blocks, 128, 0), &values, &[&flags]);
                let columns = found[0].nonzero().view([-1]);
                let known = expected.outliers.as_ref().map_or(0, Tensor::numel);
                assert_eq!(columns.numel(), known);
                assert!(expected.outliers.as_ref().is_none_or(|known| known.equal(&columns)));
            }
            let codes = kernel.empty(&[rows, padded(width)], Kind::Int8);
            let magnitudes = kernel.empty(&[rows], Kind::Float);
            let values = [
                Value::Buffer(&input),
                if threshold > 0.0 { Value::Buffer(&flags) } else { Value::Missing },
                Value::Buffer(&codes),
                Value::Buffer(&magnitudes),
                Value::Int(width as i32),
                Value::Int(padded(width) as i32),
                Value::Float(threshold),
            ];
            let (function, grid) = (format!("llm_int8_rows_{name}"), ([rows as u32, 1, 1], 32, 0));
            let found = launch(kernel, &function, grid, &values, &[&codes, &magnitudes]);
            let [codes, magnitudes] = found.try_into().unwrap();
            assert!(codes.narrow(1, 0, width).equal(&expected.codes), "{name}, {rows} x {width}");
            assert!(magnitudes.equal(&expected.absmax.view([-1])), "{name}, {rows} x {width}");
        }
    }
}
