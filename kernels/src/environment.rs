//! What the environment says about the choice of kernels.

use std::env;
use std::ffi::OsString;
use std::sync::OnceLock;

use crate::cpu::{Isa, UnknownIsa};

/// The variable that asks for the plain way, and what it says then.
const KERNELS: (&str, &str) = ("QPIPE_KERNELS", "reference");

/// A variable whose value means nothing.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// QPIPE_CPU.
    #[error(transparent)]
    Isa(#[from] UnknownIsa),
    /// QPIPE_KERNELS.
    #[error("QPIPE_KERNELS is `{}`, expected `reference`", found.display())]
    Kernels {
        /// What it says.
        found: OsString,
    },
}

/// Whether `QPIPE_KERNELS=reference` asks for the reference in all layers. It is read once.
pub(crate) fn wants_reference() -> bool {
    static WANTED: OnceLock<bool> = OnceLock::new();
    *WANTED.get_or_init(|| env::var_os(KERNELS.0).is_some_and(|found| found == KERNELS.1))
}

/// Reads `QPIPE_KERNELS` and `QPIPE_CPU`, which kernels heed.
///
/// # Errors
///
/// A value that means nothing.
pub fn check() -> Result<(), EnvironmentError> {
    Isa::most_allowed()?;
    match env::var_os(KERNELS.0) {
        Some(found) if found != KERNELS.1 => Err(EnvironmentError::Kernels { found }),
        _ => Ok(()),
    }
}
