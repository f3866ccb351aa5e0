//! Trials of the kernels with 4-bit weights.

use qpipe_kernels::gptq::{Grid, ZeroPoint, round_block};
use qpipe_kernels::nf4::Absmax;
use qpipe_kernels::reference::Reference;
use qpipe_kernels::{
    Codes, Kernel, Layer, QuantizedWeight, Scheme, int4, packing, progressive, random, symmetric, w4a8,
};
use tch::{Device, Kind, Tensor};

use crate::emulator::{Buffer, Emulated, Value};

const KINDS: [(Kind, &str); 3] = [(Kind::Float, "f32"), (Kind::Half, "f16"), (Kind::BFloat16, "bf16")];
/// (N, K, group, rows): one row and odd numbers, parts of tiles in every direction, one group and many.
const FEW: [(i64, i64, i64, i64); 7] = [
    (16, 128, 128, 1),
    (7, 32, 32, 3),
    (33, 160, 32, 8),
    (24, 1152, 64, 2),
    (40, 2048, 128, 9),
    (16, 288, 288, 5),
    (50, 192, 96, 16),
];
/// For up to four rows: also more input channels than are loaded ahead, and odd numbers of groups.
const FEWER: [(i64, i64, i64, i64); 8] = [
    (16, 128, 128, 1),
    (7, 32, 32, 3),
    (33, 160, 32, 4),
    (24, 1152, 64, 2),
    (9, 6240, 480, 4),
    (8, 4128, 96, 3),
    (1, 288, 288, 2),
    (50, 192, 96, 1),
];
const MANY: [(i64, i64, i64, i64); 5] =
    [(128, 128, 128, 33), (130, 96, 32, 17), (7, 320, 64, 130), (264, 224, 224, 70), (64, 384, 96, 129)];
const THREADS: u32 = 256;

/// Largest difference from the reference, relative to the largest output.
fn tolerance(kind: Kind) -> f64 {
    match kind {
        Kind::BFloat16 => 2_f64.powi(-7),
        Kind::Half => 2_f64.powi(-10),
        _ => 2e-6,
    }
}

fn expect_close(what: &str, found: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(found.size(), expected.size(), "{what}");
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let difference = f64::try_from((&found - &expected).abs().max()).unwrap();
    let largest = f64::try_from(expected.abs().max()).unwrap();
    // Not the other way round: NaN has to fail.
    assert!(difference <= tolerance * largest, "{what}: {difference:e} of {largest:e}");
}

/// A random layer of `scheme`, activations for it, and what the reference makes of them.
struct Case {
    weight: QuantizedWeight,
    bias: Option<Tensor>,
    x: Tensor,
    expected: Tensor,
    label: String,
}

impl Case {
    fn new(scheme: Scheme, (out_features, in_features, rows): (i64, i64, i64), kind: Kind) -> Self {
        let has_bias = rows % 2 == 1;
        let weight = random::weight(scheme, out_features, in_features, kind, has_bias).unwrap();
        let layer = Layer { scheme, out_features, in_features, device: Device::Cpu, kind };
        let bias = weight.bias().map(|bias| bias.to_kind(Kind::Float));
        let x = Tensor::randn([rows, in_features], (kind, Device::Cpu));
        let expected = Reference.prepare(&weight, &layer).unwrap().forward(&x);
        let label = format!("{scheme} {kind:?}: {rows} rows of {in_features} to {out_features}");
        Self { weight, bias, x, expected, label }
    }
}

/// An int4 weight as int4/cuda_fused.rs lays it out.
struct Int4<'a> {
    packed: Buffer<'a>,
    scale: Buffer<'a>,
    zero: Option<Buffer<'a>>,
    group: i64,
}

impl<'a> Int4<'a> {
    fn new(emulated: &'a Emulated, codes: &Codes) -> Self {
        let (packed, scale, zero, group) = match codes {
            Codes::Int4 { packed, scale, group } => (packed, scale, None, group),
            Codes::Int4Asym { packed, scale, zero, group } => (packed, scale, Some(zero), group),
            _ => unreachable!("the caller has int4 codes"),
        };
        let nibbles = |zero: &Tensor| {
            let groups = zero.size()[1];
            packing::pack(zero).unwrap().view_dtype(Kind::Uint8).narrow(1, 0, (groups + 1) / 2).contiguous()
        };
        Self {
            packed: emulated.buffer(&int4::interleaved(packed).unwrap()),
            scale: emulated.buffer(scale),
            zero: zero.map(|zero| emulated.buffer(&nibbles(zero))),
            group: *group,
        }
    }
}

fn tiles(count: i64, tile: i64) -> u32 {
    ((count + tile - 1) / tile) as u32
}

fn int4_schemes(group: i64) -> [Scheme; 2] {
    [Scheme::W4A16 { group }, Scheme::W4A16Asym { group }]
}

/// Launches a kernel with the parameters of W4_GEMV and W4_GEMM.
fn multiply_int4(emulated: &Emulated, function: &str, case: &Case, blocks: [u32; 3], shared_bytes: usize) {
    let weight = Int4::new(emulated, case.weight.codes());
    let (x, bias) = (emulated.buffer(&case.x), case.bias.as_ref().map(|bias| emulated.buffer(bias)));
    let y = emulated.empty(&case.expected.size(), case.x.kind());
    let (rows, in_features) = case.x.size2().unwrap();
    let arguments = [
        Value::Buffer(&y),
        Value::Buffer(&x),
        Value::Buffer(&weight.packed),
        Value::Buffer(&weight.scale),
        Value::from(weight.zero.as_ref()),
        Value::from(bias.as_ref()),
        Value::Int(rows as i32),
        Value::Int(case.expected.size()[1] as i32),
        Value::Int(in_features as i32),
        Value::Int(weight.group as i32),
    ];
    emulated.launch(function, blocks, THREADS, shared_bytes, &arguments, |label| {
        let what = format!("{function}, {label}, {}", case.label);
        expect_close(&what, &y.tensor(), &case.expected, tolerance(case.x.kind()));
    });
}

pub(crate) fn w4_gemv(emulated: &Emulated) {
    for (kind, suffix) in KINDS {
        for (n, k, group, rows) in FEW {
            for scheme in int4_schemes(group) {
                let case = Case::new(scheme, (n, k, rows), kind);
                let channels = if kind == Kind::Float { 8 } else { 16 };
                let blocks = [tiles(n, channels), tiles(rows, 8), 1];
                multiply_int4(emulated, &format!("w4_gemv_{suffix}"), &case, blocks, 0);
            }
        }
    }
    for (kind, suffix) in &KINDS[1..] {
        for (n, k, group, rows) in FEWER {
            for scheme in int4_schemes(group) {
                let case = Case::new(scheme, (n, k, rows), *kind);
                multiply_int4(emulated, &format!("w4_gemv_{suffix}_4"), &case, [tiles(n, 8), 1, 1], 0);
            }
        }
    }
}

pub(crate) fn w4_gemm(emulated: &Emulated) {
    for (kind, suffix) in &KINDS[1..] {
        for (number, (n, k, group, rows)) in MANY.into_iter().enumerate() {
            let case = Case::new(int4_schemes(group)[number % 2], (n, k, rows), *kind);
            let blocks = [tiles(rows, 32), tiles(n, 128), 1];
            multiply_int4(emulated, &format!("w4_gemm_{suffix}"), &case, blocks, 3 * (32 + 32) * 128);
        }
    }
}

pub(crate) fn w4_dequantize(emulated: &Emulated) {
    for (kind, suffix) in KINDS {
        for (n, k, group, _) in FEW {
            for scheme in int4_schemes(group) {
                let weight = random::weight(scheme, n, k, kind, false).unwrap();
                let int4 = Int4::new(emulated, weight.codes());
                let (first, count) = (n / 3, n - n / 3);
                let matrix = emulated.empty(&[count, k], kind);
                let arguments = [
                    Value::Buffer(&matrix),
                    Value::Buffer(&int4.packed),
                    Value::Buffer(&int4.scale),
                    Value::from(int4.zero.as_ref()),
                    Value::Int(first as i32),
                    Value::Int(count as i32),
                    Value::Int(k as i32),
                    Value::Int(group as i32),
                ];
                let function = format!("w4_dequantize_{suffix}");
                let expected = weight.value(kind).unwrap().narrow(0, first, count);
                emulated.launch(
                    &function,
                    [tiles(count * k / 8, 256), 1, 1],
                    THREADS,
                    0,
                    &arguments,
                    |label| {
                        assert!(matrix.tensor().equal(&expected), "{function}, {label}, {scheme}");
                    },
                );
            }
        }
    }
}

/// The largest magnitudes of NF4 as kernels take them.
struct Magnitudes<'a> {
    tensors: [Option<Buffer<'a>>; 4],
    offset: f32,
}

impl<'a> Magnitudes<'a> {
    fn new(emulated: &'a Emulated, absmax: &Absmax) -> Self {
        match absmax {
            Absmax::Plain(values) => {
                Self { tensors: [Some(emulated.buffer(values)), None, None, None], offset: 0.0 }
            }
            Absmax::Nested { code, map, scale, offset } => {
                let tensors = [None, Some(code), Some(map), Some(scale)];
                Self {
                    tensors: tensors.map(|tensor| tensor.map(|tensor| emulated.buffer(tensor))),
                    offset: *offset,
                }
            }
        }
    }

    fn values(&self) -> impl Iterator<Item = Value<'_>> {
        let tensors = self.tensors.iter().map(|tensor| Value::from(tensor.as_ref()));
        tensors.chain([Value::Float(self.offset)])
    }
}

pub(crate) fn nf4_gemv(emulated: &Emulated) {
    for (kind, suffix) in KINDS {
        for (number, (n, k, _, rows)) in FEW.into_iter().enumerate() {
            let scheme = Scheme::Nf4 { block: [64, 32, 128][number % 3], nested: number % 2 == 0 };
            let case = Case::new(scheme, (n, k, rows), kind);
            let Codes::Nf4 { packed, absmax, block, .. } = case.weight.codes() else { unreachable!() };
            let (packed, absmax) = (emulated.buffer(packed), Magnitudes::new(emulated, absmax));
            let (x, bias) = (emulated.buffer(&case.x), case.bias.as_ref().map(|bias| emulated.buffer(bias)));
            let y = emulated.empty(&[rows, n], kind);
            let mut arguments = vec![Value::Buffer(&y), Value::Buffer(&x), Value::Buffer(&packed)];
            arguments.extend(absmax.values());
            arguments.push(Value::from(bias.as_ref()));
            arguments.extend([rows, n, k, *block].map(|number| Value::Int(number as i32)));
            let function = format!("nf4_gemv_{suffix}");
            let channels = if kind == Kind::Float { 8 } else { 16 };
            let blocks = [tiles(n, channels), tiles(rows, 8), 1];
            emulated.launch(&function, blocks, THREADS, 0, &arguments, |label| {
                let what = format!("{function}, {label}, {}", case.label);
                expect_close(&what, &y.tensor(), &case.expected, tolerance(kind));
            });
        }
    }
}

pub(crate) fn nf4_dequantize(emulated: &Emulated) {
    for (kind, suffix) in KINDS {
        for (number, (n, k)) in [(16, 64), (7, 13), (5, 40), (64, 96)].into_iter().enumerate() {
            let scheme = Scheme::Nf4 { block: [64, 32, 10, 4096][number], nested: number % 2 == 0 };
            let weight = random::weight(scheme, n, k, kind, false).unwrap();
            let Codes::Nf4 { packed, absmax, block, .. } = weight.codes() else { unreachable!() };
            let (packed, absmax) = (emulated.buffer(packed), Magnitudes::new(emulated, absmax));
            // A multiple of 8, and to the odd end.
            let (first, end) = (n * k / 16 * 8, n * k);
            let values = emulated.empty(&[end - first], kind);
            let mut arguments = vec![Value::Buffer(&values), Value::Buffer(&packed)];
            arguments.extend(absmax.values());
            arguments.extend([Value::Int(*block as i32), Value::Long(first), Value::Long(end)]);
            let function = format!("nf4_dequantize_{suffix}");
            let expected = weight.value(kind).unwrap().view([-1]).narrow(0, first, end - first);
            emulated.launch(
                &function,
                [tiles(end - first, 8 * 256), 1, 1],
                THREADS,
                0,
                &arguments,
                |label| {
                    assert!(values.tensor().equal(&expected), "{function}, {label}, {scheme}, {n} x {k}");
                },
            );
        }
    }
}

/// Launches a kernel with the parameters of W4A8_GEMV and W4A8_GEMM.
fn multiply_w4a8(emulated: &Emulated, function: &str, case: &Case, blocks: [u32; 3], shared_bytes: usize) {
    let kind = case.x.kind();
    let (packed, groups, channel_scale, group) = match case.weight.codes() {
        Codes::Progressive { packed, group_scale, group_zero, channel_scale, group } => {
            let groups = w4a8::progressive_groups(group_scale, group_zero).unwrap();
            (packed, groups, Some(channel_scale.to_kind(Kind::Float)), group)
        }
        Codes::Int4A8 { packed, scale, group } => (packed, w4a8::by_group(scale).unwrap(), None, group),
        _ => unreachable!("the caller has codes of W4A8"),
    };
    let x_scale = symmetric::scales(&case.x, 8);
    let codes = emulated.buffer(&symmetric::codes(&case.x, &x_scale, 8));
    let x_scale = emulated.buffer(&x_scale.to_kind(Kind::Float).view([-1]));
    let (packed, groups) = (emulated.buffer(packed), emulated.buffer(&groups));
    let channel_scale = channel_scale.map(|scale| emulated.buffer(&scale));
    let bias = case.bias.as_ref().map(|bias| emulated.buffer(bias));
    let y = emulated.empty(&case.expected.size(), kind);
    let (rows, in_features) = case.x.size2().unwrap();
    let mut arguments = vec![
        Value::Buffer(&y),
        Value::Buffer(&codes),
        Value::Buffer(&packed),
        Value::Buffer(&groups),
        Value::Buffer(&x_scale),
        Value::from(channel_scale.as_ref()),
        Value::from(bias.as_ref()),
    ];
    let numbers = [rows, case.expected.size()[1], in_features, *group];
    arguments.extend(numbers.map(|number| Value::Int(number as i32)));
    emulated.launch(function, blocks, THREADS, shared_bytes, &arguments, |label| {
        let what = format!("{function}, {label}, {}", case.label);
        // Integer sums and the same operations after them.
        let tolerance = if channel_scale.is_some() { 0.0 } else { tolerance(kind) };
        expect_close(&what, &y.tensor(), &case.expected, tolerance);
    });
}

pub(crate) fn w4a8_gemv(emulated: &Emulated) {
    for (kind, suffix) in KINDS {
        for (n, k, group, rows) in FEW {
            for (name, scheme) in
                [("progressive", Scheme::W4A8 { group }), ("grouped", Scheme::W4A8Float { group })]
            {
                let case = Case::new(scheme, (n, k, rows), kind);
                let function = format!("w4a8_gemv_{name}_{suffix}");
                multiply_w4a8(emulated, &function, &case, [tiles(n, 16), tiles(rows, 8), 1], 0);
            }
        }
    }
}

/// Of the scheme whose functions the source has.
pub(crate) fn w4a8_gemm(emulated: &Emulated) {
    let is_progressive = emulated.name() == "w4a8_progressive_gemm";
    for (number, (n, k, group, rows)) in MANY.into_iter().enumerate() {
        let (kind, suffix) = KINDS[number % 3];
        let (scheme, sizes, of_group) = if is_progressive {
            (Scheme::W4A8 { group }, [32, 128], 2)
        } else {
            (Scheme::W4A8Float { group }, [32, 64], kind.elt_size_in_bytes() as i64)
        };
        for tile in sizes {
            let case = Case::new(scheme, (n, k, rows), kind);
            let shared_bytes = 3 * (tile * 128 + 128 * (64 + 4 * of_group)) as usize;
            let function = format!("{}_{suffix}_{tile}", emulated.name());
            multiply_w4a8(emulated, &function, &case, [tiles(rows, tile), tiles(n, 128), 1], shared_bytes);
        }
    }
}

/// Progressive weights are the int8 weights that they stand for.
pub(crate) fn w4a8_expand(emulated: &Emulated) {
    for (n, k, group) in [(16, 128, 128), (7, 96, 32), (1, 32, 32), (33, 320, 64)] {
        let weight = random::weight(Scheme::W4A8 { group }, n, k, Kind::Float, false).unwrap();
        let Codes::Progressive { packed, group_scale, group_zero, .. } = weight.codes() else {
            unreachable!()
        };
        let codes = packing::unpack(packed, k).unwrap();
        let expected = progressive::expand(&codes, group_scale, group_zero).unwrap();
        let found = emulated.empty(&[n, k], Kind::Int8);
        let groups = w4a8::progressive_groups(group_scale, group_zero).unwrap();
        let arguments = [
            Value::Buffer(&found),
            Value::Buffer(&emulated.buffer(packed)),
            Value::Buffer(&emulated.buffer(&groups)),
            Value::Int(n as i32),
            Value::Int(k as i32),
            Value::Int(group as i32),
        ];
        emulated.launch("w4a8_expand", [tiles(n * k / 8, 64), 1, 1], 64, 0, &arguments, |label| {
            assert!(found.tensor().equal(&expected), "{label}, {n} x {k}, groups of {group}");
        });
    }
}

/// GPTQ's block against the strips of the CPU: the same bits.
pub(crate) fn gptq_block(emulated: &Emulated) {
    let options = (Kind::Float, Device::Cpu);
    for (number, (rows, columns, group)) in
        [(1, 128, 128), (9, 128, 32), (17, 70, 16), (8, 3, 1)].into_iter().enumerate()
    {
        for zero_point in [ZeroPoint::BeforeRounding, ZeroPoint::AfterRounding] {
            let groups = (columns + group - 1) / group;
            let block = Tensor::randn([rows, columns], options);
            let factor = (Tensor::randn([columns, columns], options) * 0.1).triu(1)
                + (Tensor::rand([columns], options) + 0.5).diag(0);
            let scale = Tensor::rand([rows, groups], options) * 0.3 + 0.05;
            let zero = (number % 2 == 0).then(|| (Tensor::rand([rows, groups], options) * 15.0).round());
            let group_of: Vec<usize> = (0..columns as usize).map(|column| column / group as usize).collect();
            let (kind, kind_number) = [(Kind::Float, 0), (Kind::BFloat16, 1), (Kind::Half, 2)][number % 3];
            let lowest = if zero.is_some() { 0 } else { -8 };
            let grid =
                Grid { scale: &scale, zero: zero.as_ref(), zero_point, lowest, highest: lowest + 15, kind };
            let expected = round_block(&block, &factor, &grid, &group_of).unwrap();

            let of_columns: Vec<i32> = group_of.iter().map(|&group| group as i32).collect();
            let empty = |kind| emulated.empty(&[rows, columns], kind);
            let (codes, values, errors) = (empty(Kind::Uint8), empty(Kind::Float), empty(Kind::Float));
            let [block, factor, scale] = [&block, &factor, &scale].map(|tensor| emulated.buffer(tensor));
            let zero = zero.as_ref().map(|zero| emulated.buffer(zero));
            let of_columns = emulated.buffer(&Tensor::from_slice(&of_columns));
            let arguments = [
                Value::Buffer(&codes),
                Value::Buffer(&values),
                Value::Buffer(&errors),
                Value::Buffer(&block),
                Value::Buffer(&factor),
                Value::Buffer(&scale),
                Value::from(zero.as_ref()),
                Value::Buffer(&of_columns),
                Value::Int(rows as i32),
                Value::Int(columns as i32),
                Value::Int(groups as i32),
                Value::Int(i32::from(zero_point == ZeroPoint::AfterRounding)),
                Value::Float(lowest as f32),
                Value::Float((lowest + 15) as f32),
                Value::Int(kind_number),
            ];
            emulated.launch("gptq_block", [tiles(rows, 8), 1, 1], THREADS, 0, &arguments, |label| {
                let what = format!("{label}, {rows} x {columns}, {zero_point:?}, {kind:?}");
                assert!(codes.tensor().equal(&expected.codes), "codes, {what}");
                assert!(values.tensor().equal(&expected.values), "values, {what}");
                assert!(errors.tensor().equal(&expected.errors), "errors, {what}");
            });
        }
    }
}
