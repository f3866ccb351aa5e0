//! The kernels for CUDA on a CPU: their sources, built by a C++ compiler with `kernels/cuda/emulator/`, against `reference`.
//! What a GPU makes of them is `parity.rs`' matter; their arithmetic, their indices and their barriers are tested here.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod emulated_few_bits;
mod emulated_int8;
mod emulator;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use emulator::Emulated;
use qpipe_kernels::cuda::{Source, sources};

/// Every source in `kernels/cuda/` and what tries its functions.
const TRIALS: [(&str, fn(&Emulated)); 13] = [
    ("quantize_rows", emulated_int8::quantize_rows),
    ("rmsnorm_quantize", emulated_int8::rmsnorm_quantize),
    ("int8_gemv", emulated_int8::int8_gemv),
    ("int8_gemm", emulated_int8::int8_gemm),
    ("llm_int8_rows", emulated_int8::llm_int8_rows),
    ("w4_gemv", emulated_few_bits::w4_gemv),
    ("w4_gemm", emulated_few_bits::w4_gemm),
    ("w4_dequantize", emulated_few_bits::w4_dequantize),
    ("nf4_gemv", emulated_few_bits::nf4_gemv),
    ("nf4_dequantize", emulated_few_bits::nf4_dequantize),
    ("w4a8_gemv", emulated_few_bits::w4a8_gemv),
    ("w4a8_progressive_gemm", emulated_few_bits::w4a8_gemm),
    ("w4a8_grouped_gemm", emulated_few_bits::w4a8_gemm),
];

#[test]
fn kernels_agree_with_the_reference() {
    // Its own, for another run may build at the same time.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let folder = folder.path();
    emulator::build_emulator(folder);
    let next = AtomicUsize::new(0);
    // Compilers beside each other; launches wait for each other.
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from).min(TRIALS.len()) {
            scope.spawn(|| {
                let _guard = tch::no_grad_guard();
                while let Some((name, trial)) = TRIALS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let all = sources();
                    let source: &Source = all.iter().find(|source| source.name == *name).unwrap();
                    trial(&Emulated::build(name, source.functions, folder));
                }
            });
        }
    });
}
