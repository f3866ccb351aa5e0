//! Attention against libtorch's, causal, random numbers: medians of one call, side by side.
//!
//! ```text
//! cargo bench --workspace --bench attention -- [THREADS]
//! ```
//!
//! Rates count the products of queries with the keys that they see, and of weights with values.

#![expect(clippy::print_stdout, reason = "a bench says what it measured")]

use std::error::Error;

use qpipe_kernels::Multiplier;
use qpipe_kernels::attention::{PackedPrefix, Seen, attend, can_attend};
use qpipe_kernels::speed::Speed;
use tch::{Device, Kind, TchError, Tensor};

/// Texts, heads, key heads, tokens of a text and of a prefix that all share, width of a head.
const SHAPES: [[i64; 6]; 5] = [
    [16, 8, 8, 32, 0, 64],
    [1, 16, 8, 104, 0, 128],
    [1, 16, 8, 512, 0, 128],
    [1, 16, 8, 2048, 0, 128],
    [6, 8, 8, 80, 700, 64],
];

fn main() -> Result<(), Box<dyn Error>> {
    let threads = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    tch::set_num_threads(threads.unwrap_or_else(tch::get_num_threads));
    println!("{} threads: libtorch, ours", tch::get_num_threads());
    for kind in [Kind::Float, Kind::BFloat16] {
        for shape in SHAPES {
            let [texts, heads, key_heads, tokens, before, width] = shape;
            if !can_attend(tokens, kind, Device::Cpu, Multiplier::Fastest) {
                println!("libtorch's is the fastest on this processor");
                return Ok(());
            }
            let random = |texts, heads, tokens| {
                let x = Tensor::randn([texts, tokens, heads, width], (Kind::Float, Device::Cpu));
                x.to_kind(kind).transpose(1, 2).contiguous()
            };
            let (queries, own) =
                (random(texts, heads, tokens), [(); 2].map(|()| random(texts, key_heads, tokens)));
            let prefix = [(); 2].map(|()| random(1, key_heads, before));
            let seen = Seen::before(tokens as usize, tokens as usize);
            // It serves many passes.
            let packed = (before > 0).then(|| PackedPrefix::new(&prefix[0], &prefix[1])).transpose()?;
            let ours = Speed::of(|| {
                let _ = attend(&queries, packed.as_ref(), (&own[0], &own[1]), &seen).expect("shapes fit");
            });
            let theirs = Speed::of(|| by_libtorch(&queries, &prefix, &own).expect("shapes fit"));
            let pairs = texts * heads * (tokens * (tokens + 1) / 2 + tokens * before);
            let rate = |speed: &Speed| 4.0 * (pairs * width) as f64 / speed.seconds / 1e9;
            println!(
                "{kind:?}, {texts} x {tokens} tokens after {before}, {heads} heads of {width}, {key_heads} of keys: {:.2} ms, {:.2} ms, {:.1}x; {:.0}, {:.0} GFLOP/s",
                theirs.seconds * 1e3,
                ours.seconds * 1e3,
                theirs.seconds / ours.seconds,
                rate(&theirs),
                rate(&ours)
            );
        }
    }
    Ok(())
}

/// Without joining what comes of the prefix and of the text.
fn by_libtorch(queries: &Tensor, prefix: &[Tensor; 2], own: &[Tensor; 2]) -> Result<(), TchError> {
    let group = queries.size()[1] / own[0].size()[1];
    let attend = |queries: &Tensor, [keys, values]: &[Tensor; 2], causal, grouped| {
        let mask = None::<Tensor>;
        Tensor::f_scaled_dot_product_attention(queries, keys, values, mask, 0.0, causal, None, grouped)
    };
    let _ = attend(queries, own, true, group > 1)?;
    if prefix[0].size()[2] > 0 {
        let (texts, heads, tokens, width) = queries.size4()?;
        let all = queries.f_transpose(0, 1)?.f_reshape([1, heads / group, group * texts * tokens, width])?;
        let _ = attend(&all, prefix, false, false)?;
    }
    Ok(())
}
