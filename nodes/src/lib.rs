//! The contract that qpipe's two programs stand on.
//!
//! * [`kinds`]: what a pipeline file can say. One file per node kind: its typed parameters, its input
//!   ports, its version. [`KINDS`] is the table of all of them.
//! * [`protocol`]: the JSON lines between `qpipe` and `qpipe-worker`.
//! * [`tasks`]: the tasks that an evaluation can name.
//! * [`kernels`]: what a worker says of its kernels.
//! * [`limit`]: how many of a task's questions are asked.
//! * [`data_files`]: which files hold rows of data.
//! * [`figure`]: figures that are not finite, in JSON.
//! * [`task_file`]: what lm-eval's own task files say.
//! * [`task_origin`]: where they say it.
//! * [`task_group`]: what its files of groups say.
//! * [`results`]: the files inside an evaluation or a benchmark artifact, which the worker writes and
//!   the report reads.
//!
//! This crate links neither libtorch nor the cache, and knows no YAML: parameters arrive as JSON values.

pub mod artifact;
pub mod data_files;
pub mod figure;
pub mod kernels;
pub mod kind;
pub mod kinds;
pub mod limit;
pub mod param_error;
pub mod protocol;
pub mod resources;
pub mod results;
pub mod scheme;
pub mod task_file;
pub mod task_group;
pub mod task_origin;
pub mod tasks;

pub use artifact::Artifact;
pub use kind::{Arity, Cores, Host, Kind, KindSpec, ParamError, Parsed, Port, Reading, Sensitivity, Target};
pub use kinds::{KINDS, find};
pub use resources::Resources;
