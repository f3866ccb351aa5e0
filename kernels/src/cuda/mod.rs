//! Kernels of our own on CUDA: sources in `kernels/cuda/`, compiled by NVRTC when they are first needed, launched on
//! libtorch's stream and on its memory.
//!
//! A kernel is a `.cu` file and the Rust file that implements [`crate::Kernel`]:
//!
//! ```text
//! static DOUBLE: Source = Source::new("double", include_str!("../../cuda/double.cu"), &["double_f32"]);
//! static SOURCES: &[&Source] = &[&DOUBLE];
//!
//! impl Kernel for Double {
//!     fn sources(&self) -> &'static [&'static Source] { SOURCES }        // so that tests compile it everywhere
//!     fn supports(&self, layer: &Layer) -> bool { … && cuda::works(layer.device, SOURCES) }
//!     fn prepare(&self, …) { … Function::of(&DOUBLE, "double_f32", layer.device, 0)? … }
//! }
//!
//! // In forward: one block of 256 threads for each 256 values.
//! let grid = Grid { blocks: [values.div_ceil(256), 1, 1], threads: 256, shared_bytes: 0 };
//! // SAFETY: the entry takes two pointers and a number, and both tensors have so many values.
//! unsafe { function.launch(grid, &[Argument::Tensor(&x), Argument::Tensor(&y), Argument::Int(values)])? };
//! ```
//!
//! In the source each entry is `extern "C" __global__`. Sources may include the headers of [`compile::HEADERS`], and
//! nothing else: they are compiled where there is no CUDA toolkit. `tests/cuda_compile.rs` compiles all of them for
//! compute capability 8.0 and 9.0 on any machine.

pub mod compile;
mod device;
mod graph;
mod launch;
mod store;
mod tensor_map;

use cudarc::driver::DriverError;
use cudarc::nvrtc::result::NvrtcError;

pub use compile::Source;
pub(crate) use device::capability;
pub use device::{take_failures, works};
pub use graph::{Graph, graphs_recorded};
pub(crate) use launch::entry;
pub use launch::{Argument, Function, Grid, check_every_launch};
pub use tensor_map::TensorMap;

use crate::table::KERNELS;
use crate::{decode, gated, gptq, norm, rotary};

/// The variable that names the folder of compiled code; `qpipe` sets it for its workers.
pub const CODE_FOLDER: &str = "QPIPE_CUDA_CODE";

/// What is no kernel for weights.
static OTHERS: [&Source; 6] =
    [&norm::NORMALIZE, &rotary::ROTATE, &gated::GATE, &decode::APPEND, &decode::ATTEND, &gptq::BLOCK];

/// Every source: those of the table, of what goes around layers, and of [`mod@crate::gptq`]. Each once.
pub fn sources() -> Vec<&'static Source> {
    let mut sources: Vec<&'static Source> = Vec::new();
    for source in KERNELS.iter().flat_map(|entry| entry.kernel.sources()).copied().chain(OTHERS) {
        if sources.iter().all(|known| known.name != source.name) {
            sources.push(source);
        }
    }
    sources
}

/// Why something could not be compiled or run on CUDA.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// The wheel nvidia-cuda-nvrtc is missing.
    #[error("NVRTC does not load: {0}")]
    NoCompiler(String),
    /// NVRTC refused a call.
    #[error("NVRTC fails on `{source_name}`: {error:?}")]
    Compiler {
        /// Of a [`Source`].
        source_name: &'static str,
        /// NVRTC's reason.
        error: NvrtcError,
    },
    /// NVRTC refused a source.
    #[error("`{source_name}` does not compile for {architecture}: {log}")]
    Source {
        /// Of a [`Source`].
        source_name: &'static str,
        /// `sm_80`, `sm_90a`.
        architecture: String,
        /// What NVRTC wrote.
        log: String,
    },
    /// There is no driver.
    #[error("NVIDIA's driver does not load")]
    NoDriver,
    /// Tensor cores multiply int8 and bfloat16, and shared memory is filled asynchronously, from 8.0 on.
    #[error("compute capability {major}.{minor} is below 8.0")]
    Capability {
        /// Its first part.
        major: i32,
        /// Its second part.
        minor: i32,
    },
    /// The device is no CUDA device.
    #[error("{0:?} is no CUDA device")]
    NoCudaDevice(tch::Device),
    /// A tensor is elsewhere than the function.
    #[error("argument {index} of `{function}` is on {found:?}, not on CUDA device {expected}")]
    Place {
        /// The function's name.
        function: &'static str,
        /// Which argument, from 0.
        index: usize,
        /// The tensor's device.
        found: tch::Device,
        /// The function's device.
        expected: usize,
    },
    /// A tensor has gaps.
    #[error("argument {index} of `{function}` is not contiguous")]
    Gaps {
        /// The function's name.
        function: &'static str,
        /// Which argument, from 0.
        index: usize,
    },
    /// libtorch does not tell its stream.
    #[error("libtorch has no stream on CUDA device {0}")]
    Stream(usize),
    /// libtorch or the driver refused.
    #[error("a CUDA graph cannot {0}")]
    Graph(&'static str),
    /// The driver refused a call.
    #[error("`{call}` for `{function}` fails: {error:?}")]
    Driver {
        /// The driver's function.
        call: &'static str,
        /// The function that was to be loaded or launched, or its source.
        function: &'static str,
        /// The driver's reason.
        error: DriverError,
    },
}
