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

/// libtorch reports everything as text; running out of memory is the one case that others react to.
impl From<tch::TchError> for ActionError {
    fn from(error: tch::TchError) -> Self {
        let text = error.to_string();
        let first = first_line(&text).to_owned();
        if says_out_of_memory(&text) {
            Self::out_of_memory(first)
        } else {
            Self::new(Failure::Deterministic, first)
        }
    }
}

/// Whether a text of libtorch, the C++ library or the system says that memory ran out.
pub fn says_out_of_memory(text: &str) -> bool {
    let text = text.to_lowercase();
    ["out of memory", "allocate memory", "not enough memory", "bad_alloc", "alloc_failed"]
        .iter()
        .any(|sign| text.contains(sign))
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
    fn a_full_disk_is_called_so() {
        let full = std::io::Error::from(ErrorKind::StorageFull);
        let ActionError::Failed { class, message, help } = full.into() else { panic!("it failed") };
        assert_eq!(class, Failure::Surroundings);
        assert!(message.starts_with("the disk is full: "), "{message}");
        assert!(help.is_some());
    }
}
