//! Launches on libtorch's stream.

use std::collections::BTreeMap;
use std::ffi::{CString, c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use cudarc::driver::sys::{self, CUfunction, CUfunction_attribute};
use tch::{Device, Tensor};

use super::device::{Handle, Module, checked, module};
use super::{CudaError, Source, TensorMap};

unsafe extern "C" {
    fn qpipe_cuda_stream(index: c_int, stream: *mut *mut c_void) -> c_int;
}

/// Dynamic shared memory that a function has without asking for it.
const DEFAULT_SHARED: u32 = 48 << 10;

static CHECKS: AtomicBool = AtomicBool::new(false);

/// Has every launch waited for, so that an error in a kernel is that of its launch. For tests: it is slow, and nothing can be recorded as a
/// [`super::Graph`] with it.
pub fn check_every_launch() {
    CHECKS.store(true, Ordering::Relaxed);
}

/// How many threads run a function.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Blocks in x, y and z. None runs where one is 0.
    pub blocks: [u32; 3],
    /// Threads a block, up to 1024.
    pub threads: u32,
    /// Bytes of dynamic shared memory a block, at most those that the function was loaded for.
    pub shared_bytes: u32,
}

/// What a function is called with.
#[derive(Clone, Copy, Debug)]
pub enum Argument<'a> {
    /// A pointer to a contiguous tensor's elements.
    Tensor(&'a Tensor),
    /// A null pointer, for a tensor that there is not.
    Missing,
    /// `int`.
    Int(i32),
    /// `long long`.
    Long(i64),
    /// `float`.
    Float(f32),
    /// `const __grid_constant__ TensorMap`.
    Map(&'a TensorMap),
}

impl<'a> From<Option<&'a Tensor>> for Argument<'a> {
    fn from(tensor: Option<&'a Tensor>) -> Self {
        tensor.map_or(Self::Missing, Self::Tensor)
    }
}

/// An entry of a source on a device.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    name: &'static str,
    module: Module,
    function: Handle<sys::CUfunc_st>,
}

/// The entry `number` of `source` on `device`, looked up once, for what is launched often and has no place to keep it; `None` where it does
/// not run.
pub(crate) fn entry(source: &'static Source, number: usize, device: Device) -> Option<Function> {
    static FOUND: Mutex<BTreeMap<(usize, &'static str), Option<Function>>> = Mutex::new(BTreeMap::new());
    let Device::Cuda(index) = device else { return None };
    let name = source.functions[number];
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    *found.entry((index, name)).or_insert_with(|| Function::of(source, name, device, 0).ok())
}

impl Function {
    /// The entry `name` of `source` on `device`, for launches with up to `most_shared` bytes of dynamic shared memory.
    ///
    /// # Errors
    ///
    /// Where [`super::works`] says no, where the source has no such entry, and where the device has less shared memory.
    pub fn of(
        source: &'static Source,
        name: &'static str,
        device: Device,
        most_shared: u32,
    ) -> Result<Self, CudaError> {
        let module = module(source, device)?;
        let text = CString::new(name).expect("names of functions have no zero bytes");
        let mut function: CUfunction = std::ptr::null_mut();
        module.within(name, || {
            // SAFETY: the module is loaded and never unloaded; the name lives through the call.
            let found =
                unsafe { sys::cuModuleGetFunction(&raw mut function, module.module.0, text.as_ptr()) };
            checked("cuModuleGetFunction", name, found)?;
            if most_shared <= DEFAULT_SHARED {
                return Ok(());
            }
            let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function was found above.
            let allowed = unsafe { sys::cuFuncSetAttribute(function, attribute, most_shared as i32) };
            checked("cuFuncSetAttribute", name, allowed)
        })?;
        Ok(Self { name, module, function: Handle(function) })
    }

    /// The multiprocessors of its device.
    pub(crate) fn processors(&self) -> u32 {
        self.module.processors
    }

    /// Queues a run behind what libtorch has queued on this thread's stream. Tensors may be freed after that: their memory
    /// serves only what is queued later.
    ///
    /// # Safety
    ///
    /// The types and the number of `arguments` are those of the function in its source, and what it reads and writes
    /// lies in its tensors: nobody checks that.
    ///
    /// # Errors
    ///
    /// Where a tensor is elsewhere or has gaps, or the driver refuses.
    pub unsafe fn launch(&self, grid: Grid, arguments: &[Argument<'_>]) -> Result<(), CudaError> {
        if grid.blocks.contains(&0) {
            return Ok(());
        }
        let (name, index) = (self.name, self.module.index);
        // Each in 8 bytes, of which the driver reads as many as the function's parameter has.
        let mut values = Vec::with_capacity(arguments.len());
        for (number, argument) in arguments.iter().enumerate() {
            values.push(match argument {
                Argument::Missing => 0_u64,
                Argument::Int(value) => u64::from(*value as u32),
                Argument::Long(value) => *value as u64,
                Argument::Float(value) => u64::from(value.to_bits()),
                Argument::Tensor(tensor) => self.pointer(tensor, number)?,
                // It stands where it is.
                Argument::Map(_) => 0,
            });
        }
        let place = |(value, argument): (&mut u64, &Argument<'_>)| match argument {
            Argument::Map(map) => (&raw const map.0).cast_mut().cast(),
            _ => std::ptr::from_mut(value).cast(),
        };
        let mut pointers: Vec<*mut c_void> = values.iter_mut().zip(arguments).map(place).collect();
        let mut stream = std::ptr::null_mut();
        // SAFETY: the shim writes one pointer.
        if unsafe { qpipe_cuda_stream(index as c_int, &raw mut stream) } != 0 {
            return Err(CudaError::Stream(index));
        }
        let [x, y, z] = grid.blocks;
        self.module.within(name, || {
            // SAFETY: the caller vouches for what the function does. The arguments live through the call, which copies them.
            let launched = unsafe {
                sys::cuLaunchKernel(
                    self.function.0,
                    x,
                    y,
                    z,
                    grid.threads,
                    1,
                    1,
                    grid.shared_bytes,
                    stream.cast(),
                    pointers.as_mut_ptr(),
                    std::ptr::null_mut(),
                )
            };
            checked("cuLaunchKernel", name, launched)?;
            if CHECKS.load(Ordering::Relaxed) {
                // SAFETY: the stream is libtorch's, which never destroys one.
                checked("cuStreamSynchronize", name, unsafe { sys::cuStreamSynchronize(stream.cast()) })?;
            }
            Ok(())
        })
    }

    fn pointer(&self, tensor: &Tensor, number: usize) -> Result<u64, CudaError> {
        let (function, index, expected) = (self.name, number, self.module.index);
        if tensor.device() != Device::Cuda(expected) {
            return Err(CudaError::Place { function, index, found: tensor.device(), expected });
        }
        if !tensor.is_contiguous() {
            return Err(CudaError::Gaps { function, index });
        }
        Ok(tensor.data_ptr() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_libtorchs_cuda_part_there_is_no_stream() {
        // A linker that keeps what no symbol is used of has loaded it.
        if fs_err::read_to_string("/proc/self/maps").is_ok_and(|maps| maps.contains("libtorch_cuda.so")) {
            return;
        }
        let mut stream = std::ptr::null_mut();
        // SAFETY: the shim writes one pointer.
        assert_ne!(unsafe { qpipe_cuda_stream(0, &raw mut stream) }, 0);
        assert!(stream.is_null());
    }
}
