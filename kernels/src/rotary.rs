//! Rotary position embeddings (Su et al., 2021, arXiv 2104.09864), as transformers applies them.

use tch::{Device, Kind, Tensor};

use crate::cpu::rotary::rotated;

/// Rotates the pairs (i, i + D/2) of `x` [B, heads, T, D] by angles of which `cos` and `sin` are given, [B or 1, 1, T, D/2] in its type.
/// Equal, bit for bit, to transformers' `x * cos + rotate_half(x) * sin` without its copies; on a CPU in one pass, unless gradients
/// are wanted.
pub fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Tensor {
    let heads_last = x.transpose(1, 2);
    let size = x.size();
    let fits = |angles: &Tensor| {
        let angles = angles.size();
        angles[1..] == [1, size[2], size[3] / 2] && (angles[0] == 1 || angles[0] == size[0])
    };
    let in_one_pass = x.device() == Device::Cpu
        && matches!(x.kind(), Kind::Float | Kind::BFloat16)
        && [cos, sin]
            .iter()
            .all(|angles| angles.kind() == x.kind() && angles.is_contiguous() && fits(angles))
        && cos.size() == sin.size()
        && size[3] % 2 == 0
        && heads_last.is_contiguous()
        && !x.requires_grad();
    if in_one_pass {
        return rotated(&heads_last, cos, sin);
    }
    let halves = x.chunk(2, -1);
    let (first, second) = (&halves[0], &halves[1]);
    Tensor::cat(&[first * cos - second * sin, second * cos + first * sin], -1)
}
