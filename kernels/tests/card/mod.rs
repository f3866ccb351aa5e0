//! The card of tests that need one.

use std::error::Error;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use tch::Cuda;

/// Whether there is a card. Where there is none, says so, or fails where one is required.
pub(crate) fn has_cuda() -> bool {
    // The linker drops libtorch's CUDA part, since no symbol of it is used by name; loaded, it registers itself.
    // SAFETY: its initializers only do that, and it is never unloaded.
    let library = unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) };
    let reason = match library {
        Ok(library) => {
            std::mem::forget(library);
            if Cuda::is_available() {
                return true;
            }
            String::from("no CUDA device")
        }
        Err(error) => error.source().map_or_else(|| error.to_string(), ToString::to_string),
    };
    let required = std::env::var_os("QPIPE_REQUIRE_CUDA").is_some();
    assert!(!required, "QPIPE_REQUIRE_CUDA is set: {reason}");
    #[expect(clippy::print_stdout, reason = "a skipped test says so")]
    {
        println!("skipped: {reason}");
    }
    false
}
