//! A quantized linear layer as data: codes and scales, whether they fit together, and the matrix that they stand for.

mod check;
mod codes;
mod error;
mod quantized;
mod scheme;
mod value;

pub(crate) use check::expect;

pub use codes::Codes;
pub use error::KernelError;
pub use quantized::QuantizedWeight;
pub use scheme::{Family, Scheme};
