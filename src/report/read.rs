//! Reads a `results.json`, our own or one that others published.

use std::path::Path;

use super::ReportError;
use super::results_json::Results;

impl Results {
    /// Reads the file at `path`: at least `accuracy` in each row, other keys of ours where present, unknown
    /// keys ignored.
    ///
    /// # Errors
    /// [`ReportError::Malformed`] with line and column for what is not such a file.
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        let text = fs_err::read_to_string(path)?;
        serde_json::from_str(&text).map_err(|error| ReportError::malformed(path, 1, &error))
    }
}
