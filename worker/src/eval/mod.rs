//! `evaluate`: tasks in, every question's scores out.
//!
//! ```text
//! data files ─► rows ─► a Task ─► Document ─► sequences ─► row ─► engine ─► Score ─► the Task judges ─► answers
//!                       text only               tokens      layout  tensors
//! ```
//!
//! A task turns data into [`Document`]s: contexts and continuations. Tokens, batches and the model are the engine's business
//! and the same for all tasks. A new task of lm-eval's kind is a [`harness::spec::Spec`] in `harness/catalog/`; one of another kind
//! is a file that implements [`Task`]. Either has a line in `qpipe_nodes::tasks`, which a pipeline is checked against.

mod action;
mod answers;
mod bootstrap;
mod earlier;
pub mod engine;
pub mod error;
mod families;
pub mod harness;
pub mod ifeval;
mod lanes;
pub mod layout;
pub mod mcqa;
mod metrics;
pub mod oracle;
pub mod prefixes;
mod python;
pub mod questions;
mod queue;
mod replies;
mod room;
pub mod row;
pub mod rows;
mod scorer;
pub mod sequences;
pub mod task;
mod units;
mod work;

pub use action::run;
pub use error::EvalError;
pub use task::{Document, Place, Task};

use harness::{HarnessTask, catalog};

/// The tasks that `name` stands for: one, or those of a group. `None`: there is nothing of that name.
pub fn tasks_named(name: &str) -> Option<Vec<Box<dyn Task>>> {
    let named = |name: String| -> Option<Box<dyn Task>> {
        match name.as_str() {
            "mcqa" => Some(Box::new(mcqa::Mcqa)),
            name => Some(Box::new(HarnessTask::new(catalog::find(name)?))),
        }
    };
    qpipe_nodes::tasks::leaves(name)?.into_iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_of_a_pipeline_is_a_task_and_the_other_way_round() {
        let mut known = BTreeSet::new();
        for (name, _) in qpipe_nodes::tasks::TASKS {
            let tasks = tasks_named(name).unwrap_or_default();
            assert!(!tasks.is_empty(), "{name}");
            known.extend(tasks.iter().map(|task| task.name().to_owned()));
        }
        known.remove("mcqa");
        assert_eq!(known, catalog::names().into_iter().collect());
    }
}
