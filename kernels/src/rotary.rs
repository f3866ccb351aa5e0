//! Rotary position embeddings (Su et al., 2021, arXiv 2104.09864), as transformers applies them.

use tch::{Device, Kind, Tensor};

use crate::cpu::rotary::rotated;
use crate::cuda::{self, Argument, Function, Grid, Source};
use crate::cuda_rows::number_of;

/// Heads of tokens, rotated.
pub(crate) static ROTATE: Source =
    Source::new("rotate", include_str!("../cuda/rotate.cu"), &["rotate_f32", "rotate_f16", "rotate_bf16"]);

/// Threads of a block.
const THREADS: u32 = 256;

/// Rotates the pairs (i, i + D/2) of `x` [B, heads, T, D] by angles of which `cos` and `sin` are given, [B or 1, 1, T, D/2] in its type.
/// Equal, bit for bit, to transformers' `x * cos + rotate_half(x) * sin` without its copies; in one pass, unless gradients are wanted.
pub fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Tensor {
    let heads_last = x.transpose(1, 2);
    let size = x.size();
    let fits = |angles: &Tensor| {
        let angles = angles.size();
        angles[1..] == [1, size[2], size[3] / 2] && (angles[0] == 1 || angles[0] == size[0])
    };
    let is_plain = [cos, sin].iter().all(|angles| {
        (angles.kind(), angles.device()) == (x.kind(), x.device()) && angles.is_contiguous() && fits(angles)
    }) && cos.size() == sin.size()
        && size[3] % 2 == 0
        && heads_last.is_contiguous()
        && !x.requires_grad();
    match (x.device(), x.kind()) {
        (Device::Cpu, Kind::Float | Kind::BFloat16) if is_plain => return rotated(&heads_last, cos, sin),
        (Device::Cuda(_), Kind::Float | Kind::Half | Kind::BFloat16) if is_plain => {
            if let Some(function) = cuda::entry(&ROTATE, number_of(x.kind()), x.device()) {
                return launch(function, &heads_last, cos, sin);
            }
        }
        _ => {}
    }
    let halves = x.chunk(2, -1);
    let (first, second) = (&halves[0], &halves[1]);
    Tensor::cat(&[first * cos - second * sin, second * cos + first * sin], -1)
}

/// `x` [B, T, heads, D], contiguous, to [B, heads, T, D].
fn launch(function: Function, x: &Tensor, cos: &Tensor, sin: &Tensor) -> Tensor {
    let y = x.empty_like();
    let size = x.size();
    let (heads, half) = (size[2], size[3] / 2);
    let pairs = x.numel() as u64 / 2;
    let arguments = [
        Argument::Tensor(x),
        Argument::Tensor(cos),
        Argument::Tensor(sin),
        Argument::Tensor(&y),
        Argument::Long(pairs as i64),
        Argument::Int(heads as i32),
        Argument::Int(half as i32),
        Argument::Int((cos.size()[0] * size[1]) as i32),
    ];
    let blocks = pairs.div_ceil(u64::from(THREADS)) as u32;
    let grid = Grid { blocks: [blocks, 1, 1], threads: THREADS, shared_bytes: 0 };
    // SAFETY: these are rotate's parameters, and the tensors have the shapes that it tells.
    unsafe { function.launch(grid, &arguments) }.expect("all of it is on the card, without gaps");
    y.transpose(1, 2)
}
