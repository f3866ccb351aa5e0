//! Where the rules of a task file stand, for messages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// By key: `doc_to_text`.
pub type Origins = BTreeMap<String, Origin>;

/// Where the value of a key stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The file.
    pub file: String,
    /// The line of its first character, from 1.
    pub line: usize,
    /// Whether its lines are lines of the file (a block with `|`).
    pub is_block: bool,
}

impl Origin {
    /// The file and the line, by the line within the value, from 1, if one is known.
    pub fn place(&self, line: Option<usize>) -> String {
        let below = line.filter(|_| self.is_block).map_or(0, |line| line.saturating_sub(1));
        format!("{}:{}", self.file, self.line + below)
    }
}
