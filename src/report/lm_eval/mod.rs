//! The results of an evaluation as lm-evaluation-harness prints and stores them.
//!
//! [`Results`] holds the figures. [`tasks_table`] and [`groups_table`] print them character for character as
//! lm-eval does; [`PrintedTable`] reads such a table back. [`results_json`] and [`Sample`] are the files that
//! lm-eval writes, and [`file_names`] says what they are called. Nothing here touches a disk.
//!
//! Tables follow the version that is asked for ([`TableVersion`]); files have the layout of 0.4.13.

mod aggregate;
mod cell;
mod decimal;
mod error;
pub mod file_names;
mod files;
mod hierarchy;
mod inherited;
mod json;
mod markdown;
mod parse;
mod python;
mod results;
mod sample;
mod table;
mod width;

pub use error::LmEvalError;
pub use files::{Execution, ModelInfo, Run, SpecialToken, TokenizerInfo, results_json};
pub use json::Json;
pub use parse::{PrintedRow, PrintedTable};
pub use results::{GroupMetric, GroupResults, Metric, Results, TaskResults, Version};
pub use sample::{Request, Response, Sample, task_hash};
pub use table::{TableVersion, groups_table, tasks_table};
