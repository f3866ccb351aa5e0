//! From a pipeline to keys: cached, or why not.
//!
//! A key is the digest of a [`qpipe_cache::Manifest`]: kind, version, parameters, the content of each input,
//! and for nodes whose floats depend on it the device class. Inputs enter by content, never by the upstream
//! key, so a node that ran again and gave the same bytes stops the rerun there; and a node behind one that
//! has to run has no key yet ([`State::Blocked`]).

mod environment;
mod error;
mod machine;
mod planner;
mod previous;
mod reason;
mod rows;
mod select;
mod source;
mod table;

pub use environment::{EnvironmentError, check_environment};
pub use error::PlanError;
pub use machine::{Machine, TORCH_VERSION};
pub use planner::{Due, Examined, Known, Place, Planner, State, content_manifest, inputs_of, model_bytes};
pub use previous::{Previous, chains, previous};
pub use reason::{Difference, Reason};
pub use rows::Row;
pub use select::{find, marked, with_ancestors};
pub use source::{Resolved, local_tree, lock_name, pin_of};
pub use table::{PlanRow, plan_rows};
