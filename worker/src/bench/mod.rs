//! `benchmark`: time and peak memory of answering four-choice questions, by one of two protocols.
//!
//! * [`sequential`]: the published study's; numbers compare with its.
//! * [`batched`]: as `evaluate` runs the same questions.
//!
//! Both give one [`measure::Measurement`] a question, from which [`measure`] computes the study's metrics. [`energy`] reads what the
//! device counts beside them.

mod action;
pub mod batched;
pub mod energy;
pub mod generation;
pub mod hardware;
pub mod measure;
pub mod sequential;

pub use action::run;
