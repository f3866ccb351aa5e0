//! libtorch's state in this process: which device, how many threads, what precision.

use std::ffi::{CStr, c_char, c_int};
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use qpipe_nodes::kinds::Dtype;
use qpipe_nodes::protocol::{Device, Failure};

use crate::error::ActionError;

unsafe extern "C" {
    safe fn qpipe_torch_version() -> *const c_char;
    safe fn qpipe_torch_exact_float32() -> c_int;
}

/// The library that registers libtorch's CUDA part when it is loaded.
const CUDA_LIBRARY: &str = "libtorch_cuda.so";

/// Why libtorch is not in the state that an action asks for.
#[derive(Debug, thiserror::Error)]
pub enum TorchError {
    /// The CPU set of libtorch was fetched, or a library of the CUDA set is missing.
    #[error("libtorch's CUDA part does not load: {0}")]
    CudaLibrary(String),
    /// No driver, or no card.
    #[error("no CUDA device is available")]
    NoCudaDevice,
    /// There are fewer cards.
    #[error("CUDA device {index} was asked for, this machine has {count}")]
    CudaIndex {
        /// Asked for.
        index: u32,
        /// Present.
        count: i64,
    },
    /// libtorch refused a setting.
    #[error("libtorch does not accept exact float32 multiplication")]
    Precision,
}

impl TorchError {
    fn help(&self) -> &'static str {
        match self {
            Self::CudaLibrary(_) => {
                "Fetch libtorch with CUDA: remove .libtorch and run scripts/libtorch where an NVIDIA driver is present."
            }
            Self::NoCudaDevice => "Install an NVIDIA driver of version 580 or newer, or run on the CPU.",
            Self::CudaIndex { .. } => "Choose a device that is there, or run on the CPU.",
            Self::Precision => "Fetch libtorch 2.11.0: remove .libtorch and run scripts/libtorch.",
        }
    }
}

impl From<TorchError> for ActionError {
    fn from(error: TorchError) -> Self {
        Self::new(Failure::Surroundings, error.to_string()).help(error.help())
    }
}

/// The version of libtorch that the worker was built with: `2.11.0`.
pub fn version() -> &'static str {
    // SAFETY: the shim returns a string literal.
    unsafe { CStr::from_ptr(qpipe_torch_version()) }.to_str().unwrap_or("unknown")
}

/// libtorch's name for a type of the pipeline file.
pub fn kind_of(dtype: Dtype) -> tch::Kind {
    match dtype {
        Dtype::Float32 => tch::Kind::Float,
        Dtype::Bfloat16 => tch::Kind::BFloat16,
        Dtype::Float16 => tch::Kind::Half,
    }
}

/// The name of a floating-point type in results: `float32`, `bfloat16`, `float16`.
pub fn kind_name(kind: tch::Kind) -> &'static str {
    match kind {
        tch::Kind::Float => "float32",
        tch::Kind::BFloat16 => "bfloat16",
        tch::Kind::Half => "float16",
        tch::Kind::Double => "float64",
        tch::Kind::Int8 => "int8",
        _ => "unknown",
    }
}

/// The name of a kind of device in results: `cpu` or `cuda`.
pub fn device_name(device: tch::Device) -> &'static str {
    if device.is_cuda() { "cuda" } else { "cpu" }
}

/// Makes libtorch ready for an action on `device` with `threads` CPU threads. To be called on the thread that
/// computes: OpenMP keeps the number of threads per calling thread. 32-bit floats are multiplied exactly.
pub fn prepare(device: Device, threads: u32) -> Result<(), TorchError> {
    tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(i32::MAX));
    if qpipe_torch_exact_float32() != 0 {
        return Err(TorchError::Precision);
    }
    match device {
        Device::Cpu => Ok(()),
        Device::Cuda(index) => prepare_cuda(index),
    }
}

/// Whether there is a card that can be used.
pub fn has_cuda() -> bool {
    load_cuda().is_ok() && tch::Cuda::is_available()
}

fn prepare_cuda(index: u32) -> Result<(), TorchError> {
    load_cuda()?;
    if !tch::Cuda::is_available() {
        return Err(TorchError::NoCudaDevice);
    }
    let count = tch::Cuda::device_count();
    if i64::from(index) >= count {
        return Err(TorchError::CudaIndex { index, count });
    }
    Ok(())
}

/// Opens [`CUDA_LIBRARY`], once. The linker drops it, since no symbol of it is used by name; loading it
/// registers its operators with libtorch.
fn load_cuda() -> Result<(), TorchError> {
    static LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();
    let loaded = LIBRARY.get_or_init(|| {
        // SAFETY: the initializers of libtorch_cuda only register operators; the library is never unloaded.
        unsafe { Library::open(Some(CUDA_LIBRARY), RTLD_NOW | RTLD_GLOBAL) }
            .map_err(|error| error.to_string())
    });
    match loaded {
        Ok(_) => Ok(()),
        Err(text) => Err(TorchError::CudaLibrary(text.clone())),
    }
}

/// Seeds libtorch's generator for as long as the guard is held: the tests of one process draw from it on many threads.
#[cfg(test)]
pub(crate) fn seeded(seed: i64) -> std::sync::MutexGuard<'static, ()> {
    static GENERATOR: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let guard = GENERATOR.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    tch::manual_seed(seed);
    guard
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_pinned_one() {
        assert_eq!(version(), "2.11.0");
    }

    #[test]
    fn threads_are_set_for_the_calling_thread() {
        prepare(Device::Cpu, 1).unwrap();
        assert_eq!(tch::get_num_threads(), 1);
        prepare(Device::Cpu, 2).unwrap();
        assert_eq!(tch::get_num_threads(), 2);
    }

    #[test]
    fn missing_cuda_is_a_failure_of_the_surroundings_with_advice() {
        let Err(error) = prepare(Device::Cuda(1000), 1) else { panic!("no machine has a thousand cards") };
        let ActionError::Failed { class, help, .. } = error.into() else { panic!("not stopped") };
        assert_eq!(class, Failure::Surroundings);
        assert!(help.is_some());
    }
}
