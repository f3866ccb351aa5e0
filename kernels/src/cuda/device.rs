//! A device's code: the driver, libtorch's context, what is loaded there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use cudarc::driver::DriverError;
use cudarc::driver::sys::{self, CUcontext, CUdevice_attribute, CUmodule, CUresult};
use tch::Device;

use super::{CudaError, Source, store};

/// The least compute capability's first part.
const LEAST_MAJOR: i32 = 8;

/// Whether all of `sources` run on `device`: it is a CUDA device of compute capability 8.0 or later, and they compile and
/// load. Tried once for each; what fails leaves a layer to the next kernel of the table.
pub fn works(device: Device, sources: &[&'static Source]) -> bool {
    sources.iter().all(|source| module(source, device).is_ok())
}

/// The compute capability of `device`, if `source` runs there.
pub(crate) fn capability(source: &'static Source, device: Device) -> Option<(i32, i32)> {
    Some(module(source, device).ok()?.capability)
}

/// `sm_80`; with the instructions that only this one architecture has where there are such: `sm_90a`.
fn architecture(major: i32, minor: i32) -> Result<String, CudaError> {
    if major < LEAST_MAJOR {
        return Err(CudaError::Capability { major, minor });
    }
    let own = if (major, minor) == (9, 0) { "a" } else { "" };
    Ok(format!("sm_{major}{minor}{own}"))
}

/// What the driver knows by a pointer, from any thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handle<T>(pub(super) *mut T);

// SAFETY: the driver's functions may be called with a context, module or function on every thread.
unsafe impl<T> Send for Handle<T> {}
// SAFETY: as above; nothing here dereferences it.
unsafe impl<T> Sync for Handle<T> {}

/// A source, loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Module {
    /// The device's number.
    pub(super) index: usize,
    /// Its compute capability.
    pub(super) capability: (i32, i32),
    /// Its multiprocessors.
    pub(super) processors: u32,
    context: Handle<sys::CUctx_st>,
    pub(super) module: Handle<sys::CUmod_st>,
}

impl Module {
    /// Calls the driver in libtorch's context. The thread has its own context back after it.
    pub(super) fn within<R>(
        &self,
        function: &'static str,
        call: impl FnOnce() -> Result<R, CudaError>,
    ) -> Result<R, CudaError> {
        within(self.context, function, call)
    }
}

/// What a call of the driver came to.
pub(super) fn checked(call: &'static str, function: &'static str, result: CUresult) -> Result<(), CudaError> {
    match result {
        CUresult::CUDA_SUCCESS => Ok(()),
        error => Err(CudaError::Driver { call, function, error: DriverError(error) }),
    }
}

/// What came of each source on each device.
type Tries = BTreeMap<(usize, &'static str), Result<Module, CudaError>>;

static MODULES: Mutex<Tries> = Mutex::new(BTreeMap::new());

/// Why sources that were tried so far do not run, each reason once in a process. Other kernels serve in their place, mostly slower.
pub fn take_failures() -> Vec<String> {
    static TAKEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    let reasons = modules.values().filter_map(|tried| tried.as_ref().err()).map(ToString::to_string);
    reasons.filter(|reason| taken.insert(reason.clone())).collect()
}

/// `source` on `device`, loaded once for each device and kept, or the error of the first try.
pub(super) fn module(source: &'static Source, device: Device) -> Result<Module, CudaError> {
    let Device::Cuda(index) = device else { return Err(CudaError::NoCudaDevice(device)) };
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    modules.entry((index, source.name)).or_insert_with(|| load(source, index)).clone()
}

fn load(source: &'static Source, index: usize) -> Result<Module, CudaError> {
    let name = source.name;
    // SAFETY: asks the linker for names only. cudarc panics without the library, so that this comes first.
    if !unsafe { sys::is_culib_present() } {
        return Err(CudaError::NoDriver);
    }
    let (mut device, mut context): (_, CUcontext) = (0, std::ptr::null_mut());
    let (mut major, mut minor, mut processors) = (0, 0, 0);
    // SAFETY: the driver is there; each call writes to the one pointer that it is given.
    unsafe {
        checked("cuInit", name, sys::cuInit(0))?;
        checked("cuDeviceGet", name, sys::cuDeviceGet(&raw mut device, index as i32))?;
        for (value, attribute) in [
            (&raw mut major, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
            (&raw mut minor, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
            (&raw mut processors, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
        ] {
            checked("cuDeviceGetAttribute", name, sys::cuDeviceGetAttribute(value, attribute, device))?;
        }
    }
    let code = store::code(source, &architecture(major, minor)?, store::folder().as_deref())?;
    // SAFETY: the device exists. libtorch computes in the primary context, which is kept for as long as the process lives.
    let retained = unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut context, device) };
    checked("cuDevicePrimaryCtxRetain", name, retained)?;
    let context = Handle(context);
    within(context, name, || {
        let mut module: CUmodule = std::ptr::null_mut();
        // SAFETY: the code is a whole ELF file, whose own header tells its length.
        let loaded = unsafe { sys::cuModuleLoadData(&raw mut module, code.as_ptr().cast()) };
        checked("cuModuleLoadData", name, loaded)?;
        let (capability, processors) = ((major, minor), processors as u32);
        Ok(Module { index, capability, processors, context, module: Handle(module) })
    })
}

fn within<R>(
    context: Handle<sys::CUctx_st>,
    function: &'static str,
    call: impl FnOnce() -> Result<R, CudaError>,
) -> Result<R, CudaError> {
    // SAFETY: the context was retained and is never released.
    checked("cuCtxPushCurrent", function, unsafe { sys::cuCtxPushCurrent_v2(context.0) })?;
    let result = call();
    let mut popped = std::ptr::null_mut();
    // SAFETY: it was pushed above.
    let restored = checked("cuCtxPopCurrent", function, unsafe { sys::cuCtxPopCurrent_v2(&raw mut popped) });
    result.and_then(|value| restored.map(|()| value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_architecture_has_its_own_instructions_where_there_are_some() {
        assert_eq!(architecture(8, 0).ok().as_deref(), Some("sm_80"));
        assert_eq!(architecture(8, 9).ok().as_deref(), Some("sm_89"));
        assert_eq!(architecture(9, 0).ok().as_deref(), Some("sm_90a"));
        let error = architecture(7, 5).map_err(|error| error.to_string());
        assert_eq!(error, Err(String::from("compute capability 7.5 is below 8.0")));
    }

    #[test]
    fn nothing_works_on_a_cpu_or_on_a_card_that_is_not_there() {
        static SOURCE: Source =
            Source::new("nothing", "extern \"C\" __global__ void nothing() {}", &["nothing"]);
        assert!(!works(Device::Cpu, &[&SOURCE]));
        assert!(!works(Device::Cuda(4096), &[&SOURCE]));
        // Without a driver, or with one that has no such device. A CPU is no failure.
        let [reason] = take_failures().try_into().expect("one reason");
        assert!(reason.contains("driver") || reason.contains("`nothing`"), "{reason}");
        assert_eq!(take_failures(), Vec::<String>::new());
    }
}
