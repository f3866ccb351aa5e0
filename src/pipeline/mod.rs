//! A pipeline file, from its text to a graph of checked instances.
//!
//! | step | module | from | to |
//! |---|---|---|---|
//! | read | `yaml`, `scalar`, `source`, `value` | text | a tree of values, each with its place |
//! | take apart | `document`, `include`, `params` | trees of all files | parameters and declared nodes |
//! | expand | `expand`, `matrix`, `directory` | `matrix`, `for_each` | names of instances |
//! | assemble | `assemble`, `substitute` | keys of a node | the kind's typed parameters |
//! | resolve | `resolve`, `references` | names | typed edges |
//! | sort | `graph` | edges | an order, or a circle |
//!
//! Mistakes do not stop a step: they are collected (`error`), each at its line and with the nearest valid
//! name (`nearest`), and shown at once. What a mistake makes unknowable is left out of the later steps, so
//! that one slip is one message.

mod assemble;
mod directory;
mod document;
mod error;
mod expand;
mod explained;
mod graph;
mod include;
mod instance;
mod load;
mod matrix;
mod names;
mod nearest;
mod params;
mod readers;
mod references;
mod resolve;
mod scalar;
pub mod schema;
mod source;
mod sources_there;
mod substitute;
mod task_files;
mod task_groups;
mod task_index;
mod task_members;
mod task_origins;
mod task_text;
mod value;
mod yaml;

pub use error::{Code, PipelineError, PipelineErrors};
pub use instance::{Binding, Instance, Location};
pub use load::Pipeline;
pub(crate) use nearest::nearest;
pub use source::{Source, Sources};
pub use task_origins::{TaskOrigins, put_back};
