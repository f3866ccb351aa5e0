//! Energy, as the processor's or the card's own counter tells: all that it took meanwhile, other programs' work included.

use std::ffi::{c_char, c_int, c_ulonglong, c_void};
use std::path::{Path, PathBuf};

use fs_err as fs;
use libloading::os::unix::Library;
use qpipe_nodes::results::EnergySource;
use tch::Device;

use super::hardware;

/// Where Linux keeps the counters of processors.
const POWERCAP: &str = "/sys/class/powercap";

/// Reads a device's counter.
#[derive(Debug)]
pub struct Meter(Counter);

impl Meter {
    /// Of the device that is measured. `None` where nothing is counted, or where this user may not read it: processors'
    /// counters are mostly root's.
    pub fn start(device: Device) -> Option<Self> {
        let counter = match device {
            Device::Cuda(index) => Counter::Card(Card::open(index)?),
            _ => Counter::Processor(packages(Path::new(POWERCAP))?),
        };
        Some(Self(counter))
    }

    /// Whose counter it is.
    pub fn source(&self) -> EnergySource {
        match self.0 {
            Counter::Processor(_) => EnergySource::Rapl,
            Counter::Card(_) => EnergySource::Nvml,
        }
    }

    /// Seconds that are to be measured at least: a hundred times as long as the counter stands still.
    pub fn least_seconds(&self) -> f64 {
        match self.0 {
            Counter::Processor(_) => 0.1,
            Counter::Card(_) => 10.0,
        }
    }

    /// Joules since the last time, or since the start. To be called more often than a counter begins anew, which is after minutes
    /// at least; where it can no longer be read it stands still.
    pub fn taken(&mut self) -> f64 {
        match &mut self.0 {
            Counter::Processor(packages) => packages.iter_mut().map(Package::advance).sum(),
            Counter::Card(card) => card.advance(),
        }
    }
}

#[derive(Debug)]
enum Counter {
    /// Running average power limit (RAPL): a counter for each processor package.
    Processor(Vec<Package>),
    Card(Card),
}

/// A processor, its cores and caches; some count their memory beside it.
#[derive(Debug)]
struct Package {
    file: PathBuf,
    /// Microjoules at which it begins anew.
    range: u64,
    last: u64,
}

impl Package {
    fn advance(&mut self) -> f64 {
        let Some(now) = number(&self.file) else { return 0.0 };
        let gone = match now.checked_sub(self.last) {
            Some(gone) => gone,
            None => (now + self.range).saturating_sub(self.last),
        };
        self.last = now;
        gone as f64 * 1e-6
    }
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Those under `folder` that can be read; `None`: there is none.
fn packages(folder: &Path) -> Option<Vec<Package>> {
    let package = |entry: fs::DirEntry| {
        // `intel-rapl-mmio:0` counts the same package by another way. AMD's are `intel-rapl`, too.
        entry.file_name().to_str()?.strip_prefix("intel-rapl:")?;
        // Parts of a package have names of their own.
        let name = fs::read_to_string(entry.path().join("name")).ok()?;
        let file = entry.path().join("energy_uj");
        let range = number(&entry.path().join("max_energy_range_uj"))?;
        name.starts_with("package-").then_some(())?;
        Some(Package { range, last: number(&file)?, file })
    };
    let packages: Vec<Package> = fs::read_dir(folder).ok()?.flatten().filter_map(package).collect();
    (!packages.is_empty()).then_some(packages)
}

/// A card, through NVIDIA's management library (NVML), which comes with the driver.
#[derive(Debug)]
struct Card {
    library: Library,
    handle: *mut c_void,
    last: u64,
}

impl Card {
    fn open(index: usize) -> Option<Self> {
        type GetHandle = unsafe extern "C" fn(*const c_char, *mut *mut c_void) -> c_int;
        let place = hardware::cuda_bus_id(index)?;
        // SAFETY: these functions have had these signatures since NVML 5.
        let library = unsafe {
            let library = Library::new("libnvidia-ml.so.1").ok()?;
            let init = library.get::<Call>(b"nvmlInit_v2\0").ok()?;
            (init() == 0).then_some(library)?
        };
        // From here on it is shut down when `card` goes.
        let mut card = Self { library, handle: std::ptr::null_mut(), last: 0 };
        // SAFETY: likewise; a text that ends with a zero, and room for a handle.
        unsafe {
            let get_handle = card.library.get::<GetHandle>(b"nvmlDeviceGetHandleByPciBusId_v2\0").ok()?;
            (get_handle(place.as_ptr(), &raw mut card.handle) == 0).then_some(())?;
        }
        card.last = card.millijoules()?;
        Some(card)
    }

    /// Since the driver was loaded; cards before Volta do not count.
    fn millijoules(&self) -> Option<u64> {
        type GetEnergy = unsafe extern "C" fn(*mut c_void, *mut c_ulonglong) -> c_int;
        let mut energy = 0;
        // SAFETY: the function has had this signature since it came, and the handle is the library's.
        let result = unsafe {
            let get = self.library.get::<GetEnergy>(b"nvmlDeviceGetTotalEnergyConsumption\0").ok()?;
            get(self.handle, &raw mut energy)
        };
        (result == 0).then_some(energy)
    }

    fn advance(&mut self) -> f64 {
        let Some(now) = self.millijoules() else { return 0.0 };
        let gone = now.saturating_sub(self.last);
        self.last = now;
        gone as f64 * 1e-3
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        // SAFETY: it was initialized, and is shut down as often.
        unsafe {
            if let Ok(shut_down) = self.library.get::<Call>(b"nvmlShutdown\0") {
                shut_down();
            }
        }
    }
}

/// A function of the library without arguments.
type Call = unsafe extern "C" fn() -> c_int;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn write(folder: &Path, zone: &str, name: &str, microjoules: u64) {
        let zone = folder.join(zone);
        fs::create_dir_all(&zone).unwrap();
        fs::write(zone.join("name"), format!("{name}\n")).unwrap();
        fs::write(zone.join("energy_uj"), format!("{microjoules}\n")).unwrap();
        fs::write(zone.join("max_energy_range_uj"), "10000000\n").unwrap();
    }

    #[test]
    fn packages_are_added_up_and_counters_begin_anew() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "intel-rapl:0", "package-0", 4_000_000);
        write(folder.path(), "intel-rapl:1", "package-1", 9_500_000);
        // A part of the first, which holds it already, and the first by another way.
        write(folder.path(), "intel-rapl:0:0", "core", 1_000_000);
        write(folder.path(), "intel-rapl-mmio:0", "package-0", 4_000_000);
        let mut meter = Meter(Counter::Processor(packages(folder.path()).unwrap()));
        assert_eq!((meter.source(), meter.taken()), (EnergySource::Rapl, 0.0));
        write(folder.path(), "intel-rapl:0", "package-0", 5_500_000);
        write(folder.path(), "intel-rapl-mmio:0", "package-0", 5_500_000);
        write(folder.path(), "intel-rapl:1", "package-1", 250_000);
        assert_eq!(meter.taken(), 1.5 + 0.75);
        fs::remove_file(folder.path().join("intel-rapl:1/energy_uj")).unwrap();
        write(folder.path(), "intel-rapl:0", "package-0", 6_500_000);
        assert_eq!(meter.taken(), 1.0);
    }

    #[test]
    fn where_nothing_is_counted_there_is_no_meter() {
        let folder = tempfile::tempdir().unwrap();
        assert!(packages(folder.path()).is_none() && packages(&folder.path().join("none")).is_none());
        assert!(Meter::start(Device::Cuda(99)).is_none());
    }
}
