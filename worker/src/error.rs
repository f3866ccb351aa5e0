//! How an action ends without an artifact. The modules' typed errors become words here.

use std::io::ErrorKind;

use qpipe_nodes::protocol::Failure;

/// Why an action produced nothing.
#[derive(Debug)]
pub enum ActionError {
    /// It failed.
    Failed {
        /// Whose fault.
        class: Failure,
        /// What, where: a lower-case fragment without a final period.
        message: String,
        /// What to do, as a sentence.
        help: Option<String>,
    },
    /// SIGTERM came; finished units remain.
    Stopped,
}

impl ActionError {
    /// A failure of class `class`.
    pub fn new(class: Failure, message: impl Into<String>) -> Self {
        Self::Failed { class, message: message.into(), help: None }
    }

    /// The user's input is wrong.
    pub fn user(message: impl Into<String>) -> Self {
        Self::new(Failure::User, message)
    }

    /// Memory ran out.
    pub fn out_of_memory(message: impl Into<String>) -> Self {
        Self::new(Failure::Resources, message).help(
            "Make batches smaller, use fewer --jobs, or give the run less to do at a time with --max-memory.",
        )
    }

    /// The failure that a text of libtorch, the C++ library or the system tells of, where it is the device's and not the
    /// data's: another attempt may end otherwise.
    pub fn of_device(text: &str) -> Option<Self> {
        let first = first_line(text);
        if says_out_of_memory(text) {
            return Some(Self::out_of_memory(first));
        }
        // After most of these nothing works any more in this process: what fails next is not the next action's fault either.
        says_gpu_failed(text).then(|| {
            Self::new(Failure::Surroundings, first)
                .help("Run again. If it stays, see what `nvidia-smi` and the system's log say of the GPU.")
        })
    }

    /// The same failure with advice.
    #[must_use]
    pub fn help(self, advice: impl Into<String>) -> Self {
        match self {
            Self::Failed { class, message, .. } => Self::Failed { class, message, help: Some(advice.into()) },
            Self::Stopped => Self::Stopped,
        }
    }
}

/// A full disk or an unreadable file: the message names the path (`fs_err` puts it there).
impl From<std::io::Error> for ActionError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                Self::new(Failure::Surroundings, format!("the disk is full: {error}")).help(
                    "Free some space on that disk, or name a store on another one with QPIPE_CACHE; finished nodes are kept.",
                )
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                Self::new(Failure::Surroundings, error.to_string()).help("Check the permissions of that path.")
            }
            ErrorKind::OutOfMemory => Self::out_of_memory(error.to_string()),
            _ => Self::new(Failure::Surroundings, error.to_string()),
        }
    }
}

/// libtorch reports everything as text.
impl From<tch::TchError> for ActionError {
    fn from(error: tch::TchError) -> Self {
        let text = error.to_string();
        Self::of_device(&text).unwrap_or_else(|| Self::new(Failure::Deterministic, first_line(&text)))
    }
}

/// Whether a text of libtorch, the C++ library or the system says that memory ran out.
fn says_out_of_memory(text: &str) -> bool {
    holds(text, &["out of memory", "allocate memory", "not enough memory", "bad_alloc", "alloc_failed"])
}

/// Whether a text of libtorch says that a GPU, its driver or a library on it failed; not what the data made it do.
fn says_gpu_failed(text: &str) -> bool {
    let text = first_line(text);
    let is_of_data = holds(text, &["device-side assert", "_invalid_value"]);
    !is_of_data
        && holds(
            text,
            &["cuda error", "cuda driver error", "nvrtc error", "cublas", "cudnn", "cusolver", "cusparse"],
        )
}

/// Whether `text` has one of `signs`, which are in lower case.
fn holds(text: &str, signs: &[&str]) -> bool {
    let text = text.to_lowercase();
    signs.iter().any(|sign| text.contains(sign))
}

/// What a message of libtorch's says: its first line, without the place in libtorch's source that it begins
/// with. Also of the text that a panic makes of it, in which line feeds are written out.
pub fn first_line(text: &str) -> &str {
    let text = text.trim_start_matches("called `Result::unwrap()` on an `Err` value: ");
    let text = text.trim_start_matches("Internal torch error: ").trim_start_matches("Torch(\"");
    let first = text.split("\\n").next().and_then(|text| text.lines().next()).unwrap_or(text);
    let first = first.trim_end_matches("\")");
    // "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: …"
    let said =
        first.strip_prefix("[enforce fail at ").and_then(|rest| rest.split_once("] ")?.1.split_once(". "));
    said.map_or(first, |(_, said)| said)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOCATION: &str = "Internal torch error: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: \
         can't allocate memory: you tried to allocate 8 bytes. Error code 12 (Cannot allocate memory)\nframe #0: c10";

    #[test]
    fn a_failed_allocation_is_of_resources_and_says_what_was_asked_for() {
        let ActionError::Failed { class, message, help } = tch::TchError::Torch(ALLOCATION.to_owned()).into()
        else {
            panic!("it failed");
        };
        assert_eq!(class, Failure::Resources);
        assert!(message.starts_with("DefaultCPUAllocator: can't allocate"), "{message}");
        assert!(!message.contains("frame"), "{message}");
        assert!(help.is_some());
    }

    #[test]
    fn the_signs_of_no_memory_are_known() {
        for text in [
            "CUDA out of memory. Tried to allocate 20.00 MiB",
            "unable to mmap 8 bytes from file <x>: Cannot allocate memory (12)",
            "std::bad_alloc",
            "CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        ] {
            assert!(says_out_of_memory(text), "{text}");
        }
        assert!(!says_out_of_memory("shapes do not fit"));
    }

    #[test]
    fn a_gpu_that_failed_is_of_the_surroundings_and_a_wrong_shape_is_not() {
        let class = |text: &str| match tch::TchError::Torch(text.to_owned()).into() {
            ActionError::Failed { class, .. } => class,
            ActionError::Stopped => unreachable!("an error is no stop"),
        };
        for text in [
            "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later",
            "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx( handle, opa, opb)`",
            "CUDA driver error: unknown error",
            "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
            "cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, when calling `cusolverDnCreate(handle)`",
        ] {
            assert_eq!(class(text), Failure::Surroundings, "{text}");
        }
        assert_eq!(class("CUDA error: out of memory"), Failure::Resources);
        for text in [
            "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)",
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!",
        ] {
            assert_eq!(class(text), Failure::Deterministic, "{text}");
        }
    }

    #[test]
    fn a_full_disk_is_called_so() {
        let full = std::io::Error::from(ErrorKind::StorageFull);
        let ActionError::Failed { class, message, help } = full.into() else { panic!("it failed") };
        assert_eq!(class, Failure::Surroundings);
        assert!(message.starts_with("the disk is full: "), "{message}");
        assert!(help.is_some());
    }
}
