//! Trials of the kernels for what goes around layers.

use qpipe_kernels::{Norm, rotate, silu_multiply};
use tch::{Device, Kind, Tensor};

use crate::emulator::{Emulated, Value};

const KINDS: [(Kind, &str); 3] = [(Kind::Float, "f32"), (Kind::Half, "f16"), (Kind::BFloat16, "bf16")];

fn random(shape: &[i64], kind: Kind) -> Tensor {
    (Tensor::randn(shape, (Kind::Float, Device::Cpu)) * 3.0).to_kind(kind)
}

/// Sums in another order, and another exponential, move a last bit, and what is rounded is multiplied and rounded once more: numbers are at
/// most two steps of their type apart.
fn expect_near(what: &str, found: &Tensor, expected: &Tensor) {
    let step = match expected.kind() {
        Kind::Float => 1e-6,
        Kind::Half => 2_f64.powi(-10),
        _ => 2_f64.powi(-7),
    };
    assert!(found.allclose(expected, 2.0 * step, 1e-7, false), "{what}");
}

/// Rows are normalized as on a CPU, but for last bits.
pub(crate) fn rmsnorm(emulated: &Emulated) {
    for (kind, suffix) in KINDS {
        // Rows that begin where eight values are loaded at once, and others; more values than threads take at once.
        for (rows, width, threads) in [(1, 8, 32), (3, 128, 32), (2, 77, 64), (1, 1, 32), (2, 1096, 96)] {
            let (x, weight) = (random(&[rows, width], kind), random(&[width], kind));
            let y = emulated.empty(&[rows, width], kind);
            let arguments = [
                Value::Buffer(&emulated.buffer(&x)),
                Value::Buffer(&emulated.buffer(&weight)),
                Value::Buffer(&y),
                Value::Int(width as i32),
                Value::Float(1e-5),
            ];
            let expected = Norm { weight: &weight, epsilon: 1e-5 }.forward(&x);
            let function = format!("rmsnorm_{suffix}");
            emulated.launch(&function, [rows as u32, 1, 1], threads, 0, &arguments, |label| {
                expect_near(&format!("{function}, {rows} x {width}, {label}"), &y.tensor(), &expected);
            });
        }
    }
}

/// Heads are rotated as on a CPU, to the bit, by angles of all rows or of each.
pub(crate) fn rotation(emulated: &Emulated) {
    for (kind, suffix) in KINDS {
        for (batch, tokens, heads, half, is_shared) in
            [(1, 1, 1, 1, true), (2, 5, 3, 4, true), (3, 7, 2, 33, false)]
        {
            let x = random(&[batch, tokens, heads, 2 * half], kind);
            let of_rows = if is_shared { 1 } else { batch };
            let angles = Tensor::rand([of_rows, 1, tokens, half], (Kind::Float, Device::Cpu)) * 9.0;
            let (cos, sin) = (angles.cos().to_kind(kind), angles.sin().to_kind(kind));
            let y = emulated.empty(&[batch, tokens, heads, 2 * half], kind);
            let pairs = batch * tokens * heads * half;
            let arguments = [
                Value::Buffer(&emulated.buffer(&x)),
                Value::Buffer(&emulated.buffer(&cos)),
                Value::Buffer(&emulated.buffer(&sin)),
                Value::Buffer(&y),
                Value::Long(pairs),
                Value::Int(heads as i32),
                Value::Int(half as i32),
                Value::Int((of_rows * tokens) as i32),
            ];
            let expected = rotate(&x.transpose(1, 2), &cos, &sin).transpose(1, 2);
            let (function, blocks) = (format!("rotate_{suffix}"), [(pairs as u32).div_ceil(64), 1, 1]);
            emulated.launch(&function, blocks, 64, 0, &arguments, |label| {
                let what = format!("{function}, {:?}, {label}", x.size());
                assert_eq!(y.tensor().size(), expected.size(), "{what}");
                assert!(y.tensor().equal(&expected), "{what}");
            });
        }
    }
}

/// Gates are as on a CPU, but for last bits; those that let nothing through, too.
pub(crate) fn gate(emulated: &Emulated) {
    for (kind, suffix) in KINDS {
        for count in [1, 8, 100, 1027] {
            let (gate, up) = (random(&[count], kind), random(&[count], kind));
            let _ = gate.narrow(0, 0, 1).fill_(-100.0);
            let y = emulated.empty(&[count], kind);
            let arguments = [
                Value::Buffer(&emulated.buffer(&gate)),
                Value::Buffer(&emulated.buffer(&up)),
                Value::Buffer(&y),
                Value::Long(count),
            ];
            let expected = silu_multiply(gate.copy(), &up).unwrap();
            let (function, blocks) =
                (format!("silu_multiply_{suffix}"), [(count as u32).div_ceil(8 * 32), 1, 1]);
            emulated.launch(&function, blocks, 32, 0, &arguments, |label| {
                expect_near(&format!("{function}, {count}, {label}"), &y.tensor(), &expected);
            });
        }
    }
}

/// A new token's queries and keys are rotated as elsewhere, to the bit; keys and values come to its place, and nothing else changes.
pub(crate) fn rotate_append(emulated: &Emulated) {
    for (kind, suffix) in KINDS {
        // The last place, the first, and one beyond the room.
        for (batch, heads, kv_heads, half, room, place, is_shared) in [
            (1, 1, 1, 4, 3, 2, true),
            (3, 6, 2, 33, 5, 0, false),
            (2, 8, 2, 32, 4, 1, true),
            (2, 2, 1, 4, 3, 3, true),
        ] {
            let [q, k, v] = [heads, kv_heads, kv_heads].map(|heads| random(&[batch, heads, 2 * half], kind));
            let of_rows = if is_shared { 1 } else { batch };
            let angles = Tensor::rand([of_rows, half], (Kind::Float, Device::Cpu)) * 9.0;
            let (cos, sin) = (angles.cos().to_kind(kind), angles.sin().to_kind(kind));
            let caches = [(); 2].map(|()| random(&[batch, kv_heads, room, 2 * half], kind));
            let rotated = |x: &Tensor| {
                let angles = [&cos, &sin].map(|angles| angles.view([of_rows, 1, 1, half]));
                rotate(&x.unsqueeze(1).transpose(1, 2), &angles[0], &angles[1]).squeeze_dim(2)
            };
            let is_written = place < room;
            let expected = [(&caches[0], rotated(&k)), (&caches[1], v.copy())].map(|(cache, new)| {
                let cache = cache.copy();
                if is_written {
                    cache.select(2, place).copy_(&new);
                }
                cache
            });

            let buffers = [&caches[0], &caches[1]].map(|cache| emulated.buffer(cache));
            let out = emulated.empty(&q.size(), kind);
            let untouched = out.tensor();
            let [q_buffer, k, v, cos, sin] = [&q, &k, &v, &cos, &sin].map(|tensor| emulated.buffer(tensor));
            let place = emulated.buffer(&Tensor::from_slice(&[place]));
            let mut arguments = Vec::from(
                [&q_buffer, &k, &v, &cos, &sin, &place, &out, &buffers[0], &buffers[1]].map(Value::Buffer),
            );
            let numbers = [batch, heads, kv_heads, half, room, of_rows];
            arguments.extend(numbers.map(|number| Value::Int(number as i32)));
            let pairs = (batch * (heads + 2 * kv_heads) * half) as u32;
            let function = format!("rotate_append_{suffix}");
            emulated.launch(&function, [pairs.div_ceil(64), 1, 1], 64, 0, &arguments, |label| {
                let what = format!("{function}, {:?} of {room}, {label}", q.size());
                for (buffer, expected) in buffers.iter().zip(&expected) {
                    assert!(buffer.tensor().equal(expected), "{what}");
                }
                if is_written {
                    assert!(out.tensor().equal(&rotated(&q)), "{what}");
                } else {
                    let bits = |tensor: &Tensor| tensor.view_dtype(Kind::Uint8);
                    assert!(bits(&out.tensor()).equal(&bits(&untouched)), "{what}");
                }
            });
        }
    }
}

/// Attention of one query a sequence as by its definition in f64: few places and many, parts that have none, rows that begin late, windows.
pub(crate) fn attend_one(emulated: &Emulated) {
    // (B, kv_heads, group, D, room, place, window, splits, whether rows begin late)
    let cases = [
        (1, 1, 1, 8, 1, 0, 0, 1, false),
        (2, 2, 4, 128, 70, 68, 0, 3, true),
        (1, 2, 2, 64, 300, 299, 0, 8, false),
        (2, 1, 7, 64, 200, 130, 100, 2, true),
        (1, 1, 3, 96, 90, 60, 5, 4, false),
        (1, 1, 9, 256, 40, 39, 0, 2, false),
        (3, 1, 4, 72, 33, 9, 0, 64, true),
        // The cache is full: what was not appended is not seen.
        (1, 1, 1, 128, 40, 40, 0, 2, false),
    ];
    for (kind, suffix) in KINDS {
        for (batch, kv_heads, group, width, room, place, window, splits, is_late) in cases {
            let heads = kv_heads * group;
            // Smaller, lest one place takes it all.
            let q = (random(&[batch, heads, width], Kind::Float) * 0.2).to_kind(kind);
            let [keys, values] = [(); 2].map(|()| random(&[batch, kv_heads, room, width], kind));
            // What is not filled is not looked at.
            for cache in [&keys, &values] {
                let _ = cache.narrow(2, (place + 1).min(room), (room - place - 1).max(0)).fill_(f64::NAN);
            }
            // The last row sees nothing but the newest, or, where that is behind it, nothing at all.
            let first: Vec<i64> = (0..batch).map(|row| place * row / (batch - 1).max(1) + row / 2).collect();
            let places = Tensor::arange(room, (Kind::Int64, Device::Cpu));
            let mut seen = places.le(place).unsqueeze(0).repeat([batch, 1]);
            if is_late {
                seen = seen.logical_and(&places.ge_tensor(&Tensor::from_slice(&first).unsqueeze(1)));
            }
            if window > 0 {
                seen = seen.logical_and(&places.gt(place - window));
            }
            let wide = |tensor: &Tensor| tensor.to_kind(Kind::Double).nan_to_num(0.0, 0.0, 0.0);
            let of_heads = |cache: &Tensor| wide(cache).repeat_interleave_self_int(group, 1, None);
            let scores =
                wide(&q).unsqueeze(2).matmul(&of_heads(&keys).transpose(2, 3)) / (width as f64).sqrt();
            let scores = scores.masked_fill(&seen.view([batch, 1, 1, room]).logical_not(), f64::NEG_INFINITY);
            let expected =
                scores.softmax(-1, None).nan_to_num(0.0, 0.0, 0.0).matmul(&of_heads(&values)).squeeze_dim(2);

            let tile = if group <= 2 { group } else { 4 };
            let tiles = (group + tile - 1) / tile;
            let out = emulated.empty(&q.size(), kind);
            let scratch = emulated.empty(&[batch * heads * splits * (width + 2)], Kind::Float);
            let arrived =
                emulated.buffer(&Tensor::zeros([batch * kv_heads * tiles], (Kind::Int, Device::Cpu)));
            let [q_buffer, keys, values] = [&q, &keys, &values].map(|tensor| emulated.buffer(tensor));
            let first = is_late.then(|| emulated.buffer(&Tensor::from_slice(&first)));
            let place_buffer = emulated.buffer(&Tensor::from_slice(&[place]));
            let mut arguments =
                Vec::from([&q_buffer, &keys, &values, &out, &place_buffer].map(Value::Buffer));
            arguments.push(Value::from(first.as_ref()));
            arguments.extend([&scratch, &arrived].map(Value::Buffer));
            let numbers = [heads, kv_heads, room, width, window];
            arguments.extend(numbers.map(|number| Value::Int(number as i32)));
            let function = format!("attend_one_{suffix}");
            let blocks = [splits, kv_heads * tiles, batch].map(|count| count as u32);
            let shared_bytes = 16 * tile * (width + 2);
            let mut before: Option<Tensor> = None;
            emulated.launch(&function, blocks, 128, shared_bytes as usize, &arguments, |label| {
                let what = format!("{function}, {:?} to {place} of {room}, {label}", q.size());
                let found = out.tensor();
                let step = match kind {
                    Kind::Float => 2e-6,
                    Kind::Half => 2_f64.powi(-10),
                    _ => 2_f64.powi(-7),
                };
                let difference = (found.to_kind(Kind::Double) - &expected).abs() - expected.abs() * step;
                let beyond = f64::try_from(difference.max()).unwrap();
                // Not the other way round: NaN has to fail.
                assert!(beyond <= 1e-5, "{what}: {beyond:e}");
                // Ready for the next launch, which gives the same bits whichever block comes last.
                assert!(arrived.tensor().eq(0).all().int64_value(&[]) == 1, "{what}");
                assert!(before.as_ref().is_none_or(|before| before.equal(&found)), "{what}");
                before = Some(found);
            });
        }
    }
}
