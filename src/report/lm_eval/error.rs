//! Why lm-eval's tables and files could not be read or made.

/// Why a printed table could not be read, or a file not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LmEvalError {
    /// The text does not begin with the heading of a results table.
    #[error(
        "line {line}: expected the heading `|Tasks|Version|Filter|n-shot|Metric| |Value| |Stderr|` of a results table"
    )]
    NoHeading {
        /// From 1.
        line: usize,
    },
    /// The heading is not followed by a line of dashes.
    #[error("line {line}: expected a line of dashes below the heading")]
    NoSeparator {
        /// From 1.
        line: usize,
    },
    /// A line that does not begin and end with a bar.
    #[error("line {line}: expected a row that begins and ends with `|`")]
    NotARow {
        /// From 1.
        line: usize,
    },
    /// A row with too few or too many cells.
    #[error("line {line}: expected {expected} cells, found {found}")]
    WrongCells {
        /// From 1.
        line: usize,
        /// How many the heading has.
        expected: usize,
        /// How many the row has.
        found: usize,
    },
    /// A sample that no model was asked for: it has no prompt to hash.
    #[error("the sample of document {doc_id} has no request")]
    NoRequest {
        /// The document.
        doc_id: u64,
    },
}
