//! What a measurement was taken on.

use std::ffi::{CStr, CString, c_char, c_int};
use std::time::Duration;

use fs_err as fs;
use libloading::os::unix::Library;
use qpipe_nodes::protocol::Failure;

use crate::error::ActionError;

/// So long it is looked at what else runs.
const OBSERVED: Duration = Duration::from_millis(200);

/// The name of the processor or of the card.
///
/// # Errors
/// When the system does not tell.
pub fn name(device: tch::Device) -> Result<String, ActionError> {
    let name = match device {
        tch::Device::Cuda(index) => cuda_name(index),
        _ => processor_name(),
    };
    name.ok_or_else(|| ActionError::new(Failure::Surroundings, "the name of the hardware cannot be read"))
}

/// The model name in /proc/cpuinfo; where it has none (on ARM), the architecture.
fn processor_name() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let model = text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_owned())
    });
    Some(model.unwrap_or_else(|| std::env::consts::ARCH.to_owned()))
}

/// What the driver calls the card with this index, which libtorch has initialized.
fn cuda_name(index: usize) -> Option<String> {
    let name = cuda_text(index, CudaText::Name)?;
    Some(name.to_string_lossy().into_owned())
}

/// Where the card with this index, of those that this process sees, is plugged in: `0000:3B:00.0`.
pub(super) fn cuda_bus_id(index: usize) -> Option<CString> {
    cuda_text(index, CudaText::BusId)
}

/// What the driver writes about a card.
#[derive(Clone, Copy)]
enum CudaText {
    Name,
    BusId,
}

fn cuda_text(index: usize, text: CudaText) -> Option<CString> {
    type GetDevice = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
    type Write = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
    let mut device = 0;
    let function: &[u8] = match text {
        CudaText::Name => b"cuDeviceGetName\0",
        CudaText::BusId => b"cuDeviceGetPCIBusId\0",
    };
    let mut text: [c_char; 256] = [0; 256];
    // SAFETY: the driver's functions have had these signatures since CUDA 4.1; both that write texts have the same.
    unsafe {
        let driver = Library::new("libcuda.so.1").ok()?;
        let get_device = driver.get::<GetDevice>(b"cuDeviceGet\0").ok()?;
        let write = driver.get::<Write>(function).ok()?;
        if get_device(&raw mut device, c_int::try_from(index).ok()?) != 0 {
            return None;
        }
        if write(text.as_mut_ptr(), text.len() as c_int - 1, device) != 0 {
            return None;
        }
        Some(CStr::from_ptr(text.as_ptr()).to_owned())
    }
}

/// The machine's load average over the last minute; 0 where the system does not tell.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

/// The part of all cores that is busy while this process waits, from 0 to 1; `None` where the system does not tell.
pub fn busy_share() -> Option<f64> {
    let before = core_times()?;
    std::thread::sleep(OBSERVED);
    let after = core_times()?;
    let (idle, all) = (after.0 - before.0, after.1 - before.1);
    // Waiting for disks may be counted backwards.
    (all > 0.0).then(|| (1.0 - idle / all).clamp(0.0, 1.0))
}

/// What keeps cores busy while something is measured: other programs, or what else shares the machine, may begin in the middle of it.
pub struct Load {
    cores: (f64, f64),
    own: f64,
}

impl Load {
    /// Fewer ticks of all cores would be rounded too much.
    const LEAST: f64 = 50.0;

    /// From now on; `None` where the system does not tell.
    pub fn start() -> Option<Self> {
        Some(Self { cores: core_times()?, own: own_time()? })
    }

    /// The part of all cores that was busy since with anything but this process, from 0 to 1; `None` after too little time.
    pub fn of_others(&self) -> Option<f64> {
        let (cores, own) = (core_times()?, own_time()? - self.own);
        let (idle, all) = (cores.0 - self.cores.0, cores.1 - self.cores.1);
        (all >= Self::LEAST).then(|| ((all - idle - own) / all).clamp(0.0, 1.0))
    }
}

/// What this process has taken of the cores, all its threads together, in ticks.
fn own_time() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, which may have spaces, is the second field, in brackets; user and system time are the 14th and 15th.
    let after_name = text.rsplit_once(')')?.1;
    let times: Vec<f64> =
        after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    (times.len() == 2).then(|| times.iter().sum())
}

/// Idle time and all time of the cores together, in ticks.
fn core_times() -> Option<(f64, f64)> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<f64> =
        text.lines().next()?.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guests are in user.
    let fields = fields.get(..8)?;
    Some((fields[3] + fields[4], fields.iter().sum()))
}

/// The mean clock of the cores in MHz; `None` where the system does not tell.
pub fn clock_mhz() -> Option<f64> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let clocks: Vec<f64> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.trim() == "cpu MHz")
        .filter_map(|(_, value)| value.trim().parse().ok())
        .collect();
    (!clocks.is_empty()).then(|| clocks.iter().sum::<f64>() / clocks.len() as f64)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn the_processor_has_a_name() {
        assert!(!name(tch::Device::Cpu).unwrap().is_empty());
        assert!(load_average() >= 0.0);
        assert!(busy_share().is_none_or(|share| (0.0..=1.0).contains(&share)));
        assert!(clock_mhz().is_none_or(|clock| clock > 0.0));
    }

    #[test]
    fn what_this_process_does_is_not_the_others() {
        let Some(load) = Load::start() else { return };
        let (began, before) = (std::time::Instant::now(), own_time().unwrap());
        while own_time().unwrap() - before < 20.0 && began.elapsed() < Duration::from_secs(60) {}
        let (idle, all) = core_times().unwrap();
        let busy = 1.0 - (idle - load.cores.0) / (all - load.cores.1);
        // This thread alone was busy for 20 ticks at least.
        if let Some(others) = load.of_others() {
            assert!(others <= busy - 10.0 / (all - load.cores.1), "{others} of {busy}");
        }
    }
}
