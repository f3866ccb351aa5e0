//! The report: which differences between the variants are real.
//!
//! [`compare()`] turns evaluation and benchmark artifacts into a [`Comparison`], the report artifact, which
//! knows no name of a pipeline file. [`write()`] gives its rows their names and writes `results/NAME/`; [`table()`] is the same for a terminal.
//! [`Results::read`] reads a `results.json` back. A leaf of the program: knows neither graph nor store.

mod compare;
mod comparison;
mod describe;
mod energy;
mod error;
mod findings;
mod format;
mod generation;
mod harness_files;
pub mod lm_eval;
mod load;
mod markdown;
mod names;
mod read;
mod recovery;
mod results_json;
mod speed;
pub mod statistics;
mod table;
mod tasks;
mod write;

pub use compare::{RowInput, compare};
pub use comparison::{Against, Comparison, Difference, REPORT_FILE, Row, SIGNIFICANCE};
pub use error::ReportError;
pub use harness_files::HarnessAnswers;
pub use names::RowName;
pub use results_json::{RESULTS_FILE, ResultRow, Results, VsBaseline};
pub use table::table;
pub use tasks::{Recovered, TaskFigures};
pub use write::{RowAnswers, SAMPLES_FOLDER, Written, write};
