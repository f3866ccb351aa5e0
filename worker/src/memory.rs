//! Peaks of memory: of what libtorch allocated, and of the process.

mod control_group;

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr::NonNull;

use fs_err as fs;

unsafe extern "C" {
    safe fn qpipe_watch_new() -> *mut c_void;
    fn qpipe_watch_free(watch: *mut c_void);
    fn qpipe_watch_reset(watch: *mut c_void);
    fn qpipe_watch_peak(watch: *const c_void) -> i64;
    safe fn qpipe_cuda_reset_peak(device: i8) -> c_int;
    fn qpipe_cuda_peak(device: i8, bytes: *mut i64) -> c_int;
    fn qpipe_cuda_free(device: i8, bytes: *mut i64) -> c_int;
    safe fn qpipe_cuda_empty_cache() -> c_int;
    safe fn qpipe_keep_freed(keep: c_int);
    safe fn qpipe_trim();
}

/// Why a peak cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// libtorch did not take the observer.
    #[error("libtorch's allocations cannot be observed")]
    Observer,
    /// The device has no allocator with statistics.
    #[error("{0:?} keeps no statistics of its memory")]
    Statistics(tch::Device),
}

impl From<MemoryError> for crate::error::ActionError {
    fn from(error: MemoryError) -> Self {
        Self::new(qpipe_nodes::protocol::Failure::Surroundings, error.to_string())
    }
}

/// The peak of the bytes allocated on a device, which means the same on a CPU as on a GPU: the loaded weights
/// and what computing needed on top of them.
///
/// On a GPU it is the statistic of libtorch's caching allocator. On a CPU every allocation and release that
/// libtorch's CPU allocator makes on this thread is counted, and `resident_bytes` (the loaded weights, which
/// may be mapped files that no allocator sees) stand beneath it. Parallel loops of libtorch allocate their
/// outputs before they start, on this thread; scratch memory inside oneDNN and MKL is not seen, as the
/// workspaces inside cuBLAS are not on a GPU.
pub struct PeakMemory {
    source: Source,
    // The observer belongs to the thread that made it.
    _this_thread: PhantomData<*const ()>,
}

enum Source {
    Cpu { watch: NonNull<c_void>, resident_bytes: u64 },
    Cuda { index: i8 },
}

impl PeakMemory {
    /// Starts observing `device`. `resident_bytes` are the bytes of tensors made before, counted on a CPU only.
    ///
    /// # Errors
    /// When `device` is neither the CPU nor a usable CUDA device.
    pub fn observe(device: tch::Device, resident_bytes: u64) -> Result<Self, MemoryError> {
        let source = match device {
            tch::Device::Cpu => {
                let watch = NonNull::new(qpipe_watch_new()).ok_or(MemoryError::Observer)?;
                Source::Cpu { watch, resident_bytes }
            }
            tch::Device::Cuda(index) => {
                Source::Cuda { index: i8::try_from(index).map_err(|_| MemoryError::Statistics(device))? }
            }
            other => return Err(MemoryError::Statistics(other)),
        };
        let peak = Self { source, _this_thread: PhantomData };
        peak.reset()?;
        Ok(peak)
    }

    /// Forgets the peak so far: from now on it is what is allocated now.
    ///
    /// # Errors
    /// When the CUDA allocator is not initialized.
    pub fn reset(&self) -> Result<(), MemoryError> {
        match self.source {
            // SAFETY: `watch` lives until `drop`.
            Source::Cpu { watch, .. } => unsafe { qpipe_watch_reset(watch.as_ptr()) },
            Source::Cuda { index } => {
                if qpipe_cuda_reset_peak(index) != 0 {
                    return Err(MemoryError::Statistics(tch::Device::Cuda(index as usize)));
                }
            }
        }
        Ok(())
    }

    /// The highest number of bytes allocated at one time since [`PeakMemory::reset`].
    ///
    /// # Errors
    /// When the CUDA allocator is not initialized.
    pub fn peak_bytes(&self) -> Result<u64, MemoryError> {
        match self.source {
            Source::Cpu { watch, resident_bytes } => {
                // SAFETY: `watch` lives until `drop`.
                let peak = unsafe { qpipe_watch_peak(watch.as_ptr()) };
                Ok(resident_bytes + u64::try_from(peak).unwrap_or(0))
            }
            Source::Cuda { index } => {
                let mut bytes = 0;
                // SAFETY: `bytes` is valid for the call.
                let status = unsafe { qpipe_cuda_peak(index, &raw mut bytes) };
                let failed = MemoryError::Statistics(tch::Device::Cuda(index as usize));
                if status == 0 { u64::try_from(bytes).map_err(|_| failed) } else { Err(failed) }
            }
        }
    }
}

impl Drop for PeakMemory {
    fn drop(&mut self) {
        if let Source::Cpu { watch, .. } = self.source {
            // SAFETY: made by `qpipe_watch_new` on this thread (the type is not `Send`), released once.
            unsafe { qpipe_watch_free(watch.as_ptr()) };
        }
    }
}

/// Gives memory that was freed and is kept for later back: to the GPU what libtorch keeps, to the system what the C library does.
pub fn release_cached(device: tch::Device) {
    if device.is_cuda() {
        // Fails only where CUDA was never initialized; then there is nothing to give back.
        let _ = qpipe_cuda_empty_cache();
    } else {
        qpipe_trim();
    }
}

/// While it lives, memory of the CPU that is freed stays with the process: passes through a model allocate the same sizes over
/// and over, and the system would clear every page again. Nothing where the C library is not glibc.
#[derive(Debug)]
pub struct KeepFreed(());

impl KeepFreed {
    /// Keeps what is freed from now on.
    pub fn start() -> Self {
        qpipe_keep_freed(1);
        Self(())
    }
}

impl Drop for KeepFreed {
    fn drop(&mut self) {
        qpipe_keep_freed(0);
    }
}

/// Bytes that could still be allocated on `device`: free memory of a GPU with what libtorch keeps for later, or what
/// the system and the process's control group leave. `None` where nobody tells.
pub fn available_bytes(device: tch::Device) -> Option<u64> {
    match device {
        tch::Device::Cpu => available_on_cpu(),
        tch::Device::Cuda(index) => {
            release_cached(device);
            let mut bytes = 0;
            // SAFETY: `bytes` is valid for the call.
            let status = unsafe { qpipe_cuda_free(i8::try_from(index).ok()?, &raw mut bytes) };
            if status == 0 { u64::try_from(bytes).ok() } else { None }
        }
        _ => None,
    }
}

/// The memory of an action on `device`: what it was given, and what there is.
pub fn limit(device: tch::Device, given: Option<u64>) -> Option<u64> {
    match (given, available_bytes(device)) {
        (Some(given), Some(available)) => Some(given.min(available)),
        (given, available) => given.or(available),
    }
}

fn available_on_cpu() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let system = 1024 * line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
    Some(control_group::left_bytes().map_or(system, |left| system.min(left)))
}

/// Peak resident memory of this process in bytes (VmHWM), since [`reset_process_peak`]; `None` where the
/// system does not tell.
pub fn process_peak_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Makes VmHWM start again from what is resident now. A system that does not allow it keeps the older peak.
pub fn reset_process_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    const MIB: u64 = 1 << 20;

    fn mebibyte_of_floats(count: i64) -> Tensor {
        Tensor::zeros([count * (MIB as i64) / 4], (Kind::Float, Device::Cpu))
    }

    #[test]
    fn the_peak_counts_what_lives_at_one_time_and_starts_again() {
        let weights = mebibyte_of_floats(8);
        let peak = PeakMemory::observe(Device::Cpu, 8 * MIB).unwrap();
        assert_eq!(peak.peak_bytes().unwrap(), 8 * MIB);
        let one = mebibyte_of_floats(3);
        drop(one);
        let two = mebibyte_of_floats(2);
        assert_eq!(peak.peak_bytes().unwrap(), 11 * MIB, "3 MiB were gone before 2 MiB came");
        peak.reset().unwrap();
        assert_eq!(peak.peak_bytes().unwrap(), 10 * MIB);
        drop(two);
        drop(weights);
        assert_eq!(
            peak.peak_bytes().unwrap(),
            10 * MIB,
            "a tensor from before the observation is not subtracted"
        );
    }

    #[test]
    fn work_in_parallel_loops_is_counted_like_work_on_one_thread() {
        let run = |threads: i32| {
            tch::set_num_threads(threads);
            let input = Tensor::randn([256, 1024], (Kind::Float, Device::Cpu));
            let weight = Tensor::randn([4096, 1024], (Kind::Float, Device::Cpu));
            let peak = PeakMemory::observe(Device::Cpu, 0).unwrap();
            let hidden = input.matmul(&weight.tr()).softmax(-1, Kind::Float);
            let bytes = peak.peak_bytes().unwrap();
            drop(hidden);
            bytes
        };
        assert_eq!(run(1), 8 * MIB);
        assert_eq!(run(2), 8 * MIB);
    }

    #[test]
    fn observers_nest() {
        let outer = PeakMemory::observe(Device::Cpu, 0).unwrap();
        {
            let inner = PeakMemory::observe(Device::Cpu, 0).unwrap();
            drop(mebibyte_of_floats(4));
            assert_eq!(inner.peak_bytes().unwrap(), 4 * MIB);
        }
        drop(mebibyte_of_floats(1));
        assert_eq!(outer.peak_bytes().unwrap(), MIB);
    }

    #[test]
    fn the_process_has_a_peak() {
        reset_process_peak();
        assert!(process_peak_bytes().unwrap() > MIB);
    }
}
