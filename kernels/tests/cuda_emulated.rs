//! The kernels for CUDA on a CPU: their sources, built by a C++ compiler with `kernels/cuda/emulator/`, against `reference`.
//! What a GPU makes of them is `parity.rs`' matter; their arithmetic, their indices and their barriers are tested here.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod emulated_around;
mod emulated_few_bits;
mod emulated_int8;
mod emulator;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use emulator::{Emulated, Launch, Value};
use qpipe_kernels::cuda::{Source, sources};
use tch::{Kind, Tensor};

/// Tries the functions of a source.
type Trial = fn(&Emulated);

/// Every source in `kernels/cuda/` and its trial.
const TRIALS: [(&str, Trial); 20] = [
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
    ("w4a8_expand", emulated_few_bits::w4a8_expand),
    ("gptq_block", emulated_few_bits::gptq_block),
    ("rmsnorm", emulated_around::rmsnorm),
    ("rotate", emulated_around::rotation),
    ("silu_multiply", emulated_around::gate),
    ("rotate_append", emulated_around::rotate_append),
    ("attend_one", emulated_around::attend_one),
];

/// Sources whose instructions only compute capability 9.0 has, and the emulator not: those are tried on a card alone.
const HOPPER: [&str; 2] = ["int8_wgmma", "w4_wgmma"];

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

#[test]
fn every_source_has_a_trial() {
    let mut names: Vec<&str> = sources().iter().map(|source| source.name).collect();
    names.retain(|name| !HOPPER.contains(name));
    let mut tried: Vec<&str> = TRIALS.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    tried.sort_unstable();
    assert_eq!(tried, names);
}

/// Kernels with a mistake each, which take a pointer to 64 floats.
const MISTAKES: &str = r#"
extern "C" __global__ void beyond(float* y) { y[threadIdx.x + 4] = 1; }
extern "C" __global__ void misaligned(float* y) {
    reinterpret_cast<float4*>(y + threadIdx.x % 8)[0] = make_float4(1, 2, 3, 4);
}
extern "C" __global__ void divided(float* y) {
    if (threadIdx.x < 3) __syncthreads();
    else y[threadIdx.x] = __shfl_xor_sync(0xFFFFFFFFu, 1.0f, 1);
}
extern "C" __global__ void shared(float* y) {
    extern __shared__ uint4 dynamic_shared[];
    dynamic_shared[threadIdx.x].x = y[0] > 0;
}
extern "C" __global__ void unsynchronized(float* y) {
    __shared__ float values[64];
    values[threadIdx.x] = threadIdx.x;
    y[threadIdx.x] = values[63 - threadIdx.x];
}
extern "C" __global__ void too_early(float* y) {
    __shared__ uint4 values[16];
    if (threadIdx.x < 16) {
        values[threadIdx.x] = make_uint4(0, 0, 0, 0);
        cp_async16(&values[threadIdx.x], y + 4 * threadIdx.x, true);
        cp_async_commit();
    }
    __syncthreads();
    y[threadIdx.x] = reinterpret_cast<float*>(values)[threadIdx.x];
}
"#;

#[test]
fn the_emulator_sees_mistakes() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    emulator::build_emulator(folder.path());
    let functions = ["beyond", "misaligned", "divided", "shared", "unsynchronized", "too_early"];
    let emulated = Emulated::build_text("mistakes", MISTAKES, &functions, folder.path());
    let run = |function: &str, reversed: bool| -> Result<Tensor, String> {
        let y = emulated.buffer(&Tensor::ones([64], (Kind::Float, tch::Device::Cpu)));
        let launch = Launch { grid: [1, 1, 1], block: [64, 1, 1], shared_bytes: 512, reversed };
        emulated.launch_once(function, &launch, &[Value::Buffer(&y)])?;
        Ok(y.tensor())
    };
    let error = |function: &str| run(function, false).unwrap_err();
    assert_eq!(error("beyond"), "block (0, 0, 0), thread (60, 0, 0): an access beyond a buffer");
    assert!(
        error("misaligned").contains("thread (1, 0, 0): a vector at an address"),
        "{}",
        error("misaligned")
    );
    assert!(error("divided").contains("waits for ever"), "{}", error("divided"));
    assert_eq!(error("shared"), "block (0, 0, 0) writes byte 512 of its 512 bytes of shared memory");
    // Not an error, but another result in the other order.
    assert!(!run("unsynchronized", false).unwrap().equal(&run("unsynchronized", true).unwrap()));
    // Copies that nobody waited for have not arrived.
    assert_eq!(f64::try_from(run("too_early", false).unwrap().sum(Kind::Float)).unwrap(), 0.0);
}
