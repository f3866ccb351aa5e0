//! What a gated feed-forward network has between its layers.

use tch::{Kind, TchError, Tensor};

use crate::cuda::{self, Argument, Function, Grid, Source};
use crate::cuda_rows::number_of;

/// silu(gate) times up.
pub(crate) static GATE: Source = Source::new(
    "silu_multiply",
    include_str!("../cuda/silu_multiply.cu"),
    &["silu_multiply_f32", "silu_multiply_f16", "silu_multiply_bf16"],
);

/// Threads of a block, and values that each takes.
const THREADS: u64 = 256;
const VALUES: u64 = 8;

/// silu(gate) · up (SwiGLU; Shazeer, 2020, arXiv 2002.05202) of two tensors of one shape and type, silu rounded to the type as
/// transformers does. In `gate`'s place, unless gradients are wanted; on CUDA in one pass.
///
/// # Errors
///
/// If shapes differ, and libtorch's.
pub fn silu_multiply(mut gate: Tensor, up: &Tensor) -> Result<Tensor, TchError> {
    if gate.requires_grad() || up.requires_grad() {
        return gate.f_silu()?.f_mul(up);
    }
    let is_plain = gate.is_contiguous()
        && up.is_contiguous()
        && (gate.kind(), gate.device(), gate.size()) == (up.kind(), up.device(), up.size())
        && matches!(gate.kind(), Kind::Float | Kind::Half | Kind::BFloat16);
    match is_plain.then(|| cuda::entry(&GATE, number_of(gate.kind()), gate.device())).flatten() {
        Some(function) => {
            launch(function, &gate, up);
            Ok(gate)
        }
        // In place: what is not allocated need not be cleared.
        None => gate.f_silu_()?.f_mul_(up),
    }
}

fn launch(function: Function, gate: &Tensor, up: &Tensor) {
    let count = gate.numel() as u64;
    let arguments =
        [Argument::Tensor(gate), Argument::Tensor(up), Argument::Tensor(gate), Argument::Long(count as i64)];
    let blocks = count.div_ceil(VALUES * THREADS) as u32;
    let grid = Grid { blocks: [blocks, 1, 1], threads: THREADS as u32, shared_bytes: 0 };
    // SAFETY: these are silu_multiply's parameters, and the tensors have as many values.
    unsafe { function.launch(grid, &arguments) }.expect("all of it is on the card, without gaps");
}
