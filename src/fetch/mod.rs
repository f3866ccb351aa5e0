//! Gets bytes from elsewhere: the Hugging Face Hub and plain web addresses.
//!
//! ```text
//! hub, http -> transfer (one file: resumed, verified, renamed) -> client (one request, patience)
//! lock      what remote sources resolved to, beside the pipeline file
//! wanted    which files of a repository or a folder an artifact consists of
//! ```
//!
//! A leaf of the program: knows neither graph nor store. A download that broke off goes on where it
//! stopped, and no file has its final name before its content is verified.

mod checksum;
mod client;
mod error;
mod http;
mod hub;
mod lock;
mod probe;
mod transfer;
mod wanted;

pub use checksum::Checksum;
pub use client::{Client, Patience};
pub use error::FetchError;
pub use http::{fetch_http, fetch_http_with};
pub use hub::{Hub, HubRequest, Resolved, fetch_hub};
pub use lock::{Lock, Pin};
pub use probe::{endpoint, probe};
pub use wanted::{holds, wanted_data_file, wanted_file, wanted_model_file};

/// Told the bytes that are there and, if known, of how many; `Break` ends the download at once, with
/// [`FetchError::Stopped`], and leaves what is there to the next attempt.
pub type Progress<'a> = dyn FnMut(u64, Option<u64>) -> std::ops::ControlFlow<()> + 'a;
