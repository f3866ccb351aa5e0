//! How an action ends without an artifact. The modules' typed errors become words here.

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
        Self::new(Failure::Surroundings, error.to_string())
    }
}

/// libtorch reports everything as text; running out of memory is the one case that others react to.
impl From<tch::TchError> for ActionError {
    fn from(error: tch::TchError) -> Self {
        let text = error.to_string();
        let text = text.lines().next().unwrap_or("libtorch failed").to_owned();
        let memory =
            ["out of memory", "can't allocate memory", "CUDA OOM"].iter().any(|sign| text.contains(sign));
        Self::new(if memory { Failure::Resources } else { Failure::Deterministic }, text)
    }
}
