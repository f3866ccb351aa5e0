//! What this machine is, as far as it decides bytes or measured times. Read without loading libtorch.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;
use qpipe_cache::replace::Replacement;
use qpipe_nodes::protocol::Device;
use qpipe_nodes::resources::DeviceKind;
use qpipe_nodes::{Cores, Resources, Sensitivity};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The libtorch that the worker is built against; the worker says at its start which one it runs on.
pub const TORCH_VERSION: &str = "2.11.0";

/// Where `nvidia-smi`'s answer is kept, so that a cached run does not wait for the driver.
const GPU_FILE: &str = "gpu.json";

/// A model of so many bytes is large: see [`Cores::AllIfLarge`].
const LARGE_MODEL: u64 = 64 << 20;

/// A GPU as far as keys need it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// The card's name.
    pub name: String,
    /// Compute capability without the dot: `90`.
    pub compute_capability: String,
}

/// This machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Logical CPU cores that this process may use.
    pub cores: u32,
    /// Instruction-set level: `x86-64-avx512-amx`.
    pub cpu_class: String,
    /// The processor's name.
    pub cpu_name: String,
    /// The GPUs, in the driver's order.
    pub gpus: Vec<Gpu>,
    /// Whether `QPIPE_DEVICE=cpu` hides the GPUs.
    pub hidden: bool,
}

impl Machine {
    /// Looks at this machine. `store` keeps what is slow to ask for, if there is one. `QPIPE_DEVICE=cpu` hides the GPUs.
    pub fn detect(store: Option<&Path>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let hidden = std::env::var("QPIPE_DEVICE").is_ok_and(|value| value == "cpu");
        Self {
            cores,
            cpu_class: limited(cpu_class(&cpu), &["QPIPE_CPU", "QPIPE_KERNELS"]),
            cpu_name: cpu_name(&cpu),
            gpus: if hidden { Vec::new() } else { gpus(store) },
            hidden,
        }
    }

    /// Where a node with these resources runs. A card that the file asks for need not be there: see [`Self::lacks`].
    pub fn device(&self, resources: &Resources) -> Device {
        match resources.device {
            Some(DeviceKind::Cpu) => Device::Cpu,
            Some(DeviceKind::Cuda) => Device::Cuda(0),
            None if self.gpus.is_empty() => Device::Cpu,
            None => Device::Cuda(0),
        }
    }

    /// Why a node with these resources cannot run here, if it asks for a card that is not there, and what to do.
    pub fn lacks(&self, resources: &Resources) -> Option<(&'static str, &'static str)> {
        if self.device(resources) == Device::Cpu || !self.gpus.is_empty() {
            return None;
        }
        Some(if self.hidden {
            (
                "it asks for a GPU (`device: cuda`), and QPIPE_DEVICE=cpu keeps nodes off the card",
                "Unset QPIPE_DEVICE, or remove `device: cuda`.",
            )
        } else {
            (
                "it asks for a GPU (`device: cuda`), and none is known here",
                "`qpipe doctor` says what is known of cards; without `device: cuda` the node runs on the CPU.",
            )
        })
    }

    /// CPU threads of a node with these resources, that otherwise takes so many `cores`, on a model of `model` bytes.
    /// Never a function of `--jobs`: that would change keys.
    pub fn threads(&self, resources: &Resources, cores: Cores, model: u64) -> u32 {
        resources.threads.unwrap_or(match cores {
            Cores::All => self.cores,
            Cores::AllIfLarge if model >= LARGE_MODEL => self.cores,
            Cores::AllIfLarge | Cores::Half => (self.cores / 2).max(1),
        })
    }

    /// The cores that running nodes may keep busy: those that there are, or what so many `jobs` ask for.
    pub fn cores_for(&self, jobs: usize) -> u32 {
        let one = self.threads(&Resources::default(), Cores::Half, 0);
        self.cores.max(one.saturating_mul(u32::try_from(jobs).unwrap_or(u32::MAX)))
    }

    /// The runtime part of a key of a node that computes with so many `threads`.
    pub fn runtime(
        &self,
        resources: &Resources,
        threads: u32,
        sensitivity: Sensitivity,
    ) -> BTreeMap<String, Value> {
        let mut runtime = BTreeMap::new();
        if sensitivity == Sensitivity::Portable {
            return runtime;
        }
        let (class, name) = match self.device(resources) {
            Device::Cpu => (self.cpu_class.clone(), self.cpu_name.as_str()),
            Device::Cuda(index) => match self.gpus.get(index as usize) {
                Some(gpu) => {
                    let class = format!("sm_{}", gpu.compute_capability);
                    (limited(&class, &["QPIPE_KERNELS"]), gpu.name.as_str())
                }
                // Nothing is computed under this key, and it is no CPU's.
                None => ("cuda".to_owned(), "a GPU that is not there"),
            },
        };
        runtime.insert("device".to_owned(), class.into());
        runtime.insert("torch".to_owned(), TORCH_VERSION.into());
        runtime.insert("threads".to_owned(), threads.into());
        if sensitivity == Sensitivity::Hardware {
            runtime.insert("hardware".to_owned(), name.into());
            runtime.insert("cores".to_owned(), self.cores.into());
        }
        runtime
    }
}

#[cfg(target_arch = "x86_64")]
fn cpu_class(cpu: &str) -> &'static str {
    // AMX decides which oneDNN kernels run and so how sums are ordered; std cannot ask for it on stable.
    let amx = cpu.contains(" amx_tile");
    match (is_x86_feature_detected!("avx512f"), amx) {
        (true, true) => "x86-64-avx512-amx",
        (true, false)
            if is_x86_feature_detected!("avx512vnni")
                && is_x86_feature_detected!("avx512bf16")
                && is_x86_feature_detected!("avx512vbmi") =>
        {
            "x86-64-avx512-bf16"
        }
        (true, false) if is_x86_feature_detected!("avx512vnni") => "x86-64-avx512-vnni",
        (true, false) => "x86-64-avx512",
        _ if is_x86_feature_detected!("avx2") => "x86-64-avx2",
        _ => "x86-64",
    }
}

/// The class with what the environment says about kernels: other kernels round differently.
fn limited(class: &str, variables: &[&str]) -> String {
    let said = variables.iter().filter_map(|name| {
        let value = std::env::var(name).ok()?;
        Some(format!(" {name}={value}"))
    });
    std::iter::once(class.to_owned()).chain(said).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_class(_cpu: &str) -> &'static str {
    std::env::consts::ARCH
}

fn cpu_name(cpu: &str) -> String {
    cpu.lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    boot: String,
    gpus: Vec<Gpu>,
}

/// No driver, no GPU: the common case costs one failed stat. Else `nvidia-smi` is asked, until it answers, once a boot.
fn gpus(store: Option<&Path>) -> Vec<Gpu> {
    if !Path::new("/proc/driver/nvidia/version").exists() && !Path::new("/dev/nvidia0").exists() {
        return Vec::new();
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    remembered(store.map(|store| store.join(GPU_FILE)), &boot, || ask("nvidia-smi"))
}

/// What `file` says of this `boot`, else what `ask` says, which is kept there. No answer is not kept: a driver that has no
/// device yet, or a full process table, says nothing of the next run.
fn remembered(file: Option<PathBuf>, boot: &str, ask: impl FnOnce() -> Option<Vec<Gpu>>) -> Vec<Gpu> {
    let read = |path: &PathBuf| serde_json::from_slice::<Remembered>(&fs::read(path).ok()?).ok();
    if let Some(known) = file.as_ref().and_then(read).filter(|known| known.boot == boot) {
        return known.gpus;
    }
    let Some(gpus) = ask() else { return Vec::new() };
    let remembered = Remembered { boot: boot.to_owned(), gpus };
    if let (Some(file), Ok(bytes)) = (file, serde_json::to_vec(&remembered)) {
        // Only saves time: a store that cannot be written is no reason to fail.
        let _ = Replacement::new(file, &mut bytes.as_slice()).and_then(Replacement::put);
    }
    remembered.gpus
}

/// The GPUs that `program`, which is `nvidia-smi`, tells; `None` if it fails.
fn ask(program: &str) -> Option<Vec<Gpu>> {
    let output = Command::new(program)
        .args(["--query-gpu=name,compute_cap", "--format=csv,noheader"])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let gpus: Vec<Gpu> = text.lines().filter_map(parse_gpu).collect();
    (output.status.success() && !gpus.is_empty()).then_some(gpus)
}

fn parse_gpu(line: &str) -> Option<Gpu> {
    let (name, capability) = line.rsplit_once(',')?;
    let compute_capability: String = capability.trim().split('.').collect();
    (!compute_capability.is_empty() && compute_capability.bytes().all(|b| b.is_ascii_digit()))
        .then(|| Gpu { name: name.trim().to_owned(), compute_capability })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            cores: 2,
            cpu_class: "x86-64-avx2".into(),
            cpu_name: "A CPU".into(),
            gpus: Vec::new(),
            hidden: false,
        }
    }

    fn h100() -> Gpu {
        Gpu { name: "NVIDIA H100 80GB HBM3".into(), compute_capability: "90".into() }
    }

    #[test]
    fn a_card_that_is_not_there_is_no_cpu() {
        let cuda = Resources { device: Some(DeviceKind::Cuda), ..Resources::default() };
        let with_card = Machine { gpus: vec![h100()], ..machine() };
        assert_eq!(with_card.lacks(&cuda), None);
        assert_eq!(with_card.runtime(&cuda, 1, Sensitivity::Hardware)["hardware"], "NVIDIA H100 80GB HBM3");
        assert_eq!(machine().lacks(&Resources::default()), None);
        for sensitivity in [Sensitivity::Device, Sensitivity::Hardware] {
            let runtime = machine().runtime(&cuda, 1, sensitivity);
            assert_ne!(runtime, machine().runtime(&Resources::default(), 1, sensitivity));
            assert_ne!(runtime, with_card.runtime(&cuda, 1, sensitivity));
        }
        assert!(machine().lacks(&cuda).is_some_and(|(problem, _)| problem.contains("none is known")));
        let hidden = Machine { hidden: true, ..machine() };
        assert!(hidden.lacks(&cuda).is_some_and(|(problem, _)| problem.contains("QPIPE_DEVICE=cpu")));
    }

    #[test]
    fn only_an_answer_is_remembered() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(GPU_FILE);
        let look = |answer: Option<Vec<Gpu>>| remembered(Some(file.clone()), "this boot", || answer);
        assert!(look(None).is_empty());
        assert!(!file.exists(), "a failure is no answer");
        assert_eq!(look(Some(vec![h100()])), [h100()]);
        assert_eq!(look(None), [h100()]);
        assert_eq!(remembered(Some(file.clone()), "the next boot", || None), []);
        assert_eq!(ask("false"), None);
        assert_eq!(ask("no such program"), None);
    }

    #[test]
    fn portable_nodes_have_the_same_key_everywhere() {
        assert!(machine().runtime(&Resources::default(), 1, Sensitivity::Portable).is_empty());
    }

    #[test]
    fn measured_nodes_name_the_hardware() {
        let runtime = machine().runtime(&Resources::default(), 2, Sensitivity::Hardware);
        assert_eq!(runtime["hardware"], "A CPU");
        assert_eq!(runtime["threads"], 2);
    }

    #[test]
    fn training_takes_all_cores_where_the_model_is_large() {
        let threads = |cores, model| machine().threads(&Resources::default(), cores, model);
        assert_eq!(threads(Cores::AllIfLarge, LARGE_MODEL), 2);
        assert_eq!(threads(Cores::AllIfLarge, LARGE_MODEL - 1), 1);
        assert_eq!((threads(Cores::All, 0), threads(Cores::Half, LARGE_MODEL)), (2, 1));
        let one = Resources { threads: Some(1), ..Resources::default() };
        assert_eq!(machine().threads(&one, Cores::All, 0), 1);
    }

    #[test]
    fn nvidia_smi_lines_are_read() {
        assert_eq!(
            parse_gpu("NVIDIA H100 80GB HBM3, 9.0"),
            Some(Gpu { name: "NVIDIA H100 80GB HBM3".into(), compute_capability: "90".into() })
        );
        assert_eq!(parse_gpu("NVIDIA-SMI has failed"), None);
    }
}
