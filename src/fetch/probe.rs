//! Whether the Hub can be reached at all: for `qpipe doctor`.

use std::time::Duration;

/// The Hub's address: HF_ENDPOINT, else the public one.
pub fn endpoint() -> String {
    let named = std::env::var("HF_ENDPOINT").ok().filter(|endpoint| !endpoint.is_empty());
    named.map_or_else(
        || super::hub::PUBLIC_ENDPOINT.to_owned(),
        |endpoint| endpoint.trim_end_matches('/').to_owned(),
    )
}

/// Asks `endpoint` for anything; any answer will do.
///
/// # Errors
/// In words, when none came within `patience`.
pub fn probe(endpoint: &str, patience: Duration) -> Result<(), String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(patience))
        .http_status_as_error(false)
        .build()
        .into();
    agent.head(endpoint).call().map(|_| ()).map_err(|error| error.to_string())
}
