//! Rows of data for the nodes that read text: training and calibration.
//!
//! ```text
//! files ─► rows ─► (chat, instruction) ─► text       random: the order in which they are read
//! ```

pub mod chat;
pub mod error;
pub mod instruction;
pub mod random;
pub mod rows;
pub mod space;

pub use chat::ChatTemplate;
pub use error::DataError;
