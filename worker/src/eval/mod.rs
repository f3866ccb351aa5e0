//! `evaluate`: tasks in, every question's scores out.
//!
//! ```text
//! questions ─► mcqa (a Task) ─► Document ─► sequences ─► row ─► engine ─► Answer
//!   JSONL       text only                    tokens      layout  tensors
//! ```
//!
//! A task turns data into [`Document`]s: a prompt and candidate continuations. Tokens, batches and the model are
//! the engine's business and the same for all tasks. A new task is one file that implements [`Task`] and one
//! line in [`TASKS`] (and in `qpipe_nodes::kinds::TASKS`, which a pipeline is checked against).

mod action;
pub mod engine;
pub mod error;
pub mod mcqa;
pub mod oracle;
pub mod questions;
pub mod row;
pub mod sequences;
pub mod task;
mod units;

pub use action::run;
pub use error::EvalError;
pub use task::{Document, Place, Task};

/// Every task, sorted by name.
pub static TASKS: &[&dyn Task] = &[&mcqa::Mcqa];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lists_what_a_pipeline_may_name() {
        let ours: Vec<&str> = TASKS.iter().map(|task| task.name()).collect();
        let named: Vec<&str> = qpipe_nodes::kinds::TASKS.iter().map(|(name, _)| *name).collect();
        assert_eq!(ours, named);
        assert!(ours.is_sorted());
    }
}
