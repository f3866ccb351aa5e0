//! The store as its users meet it: several threads and processes at once, killed ones, damaged files,
//! disks that refuse.
//!
//! Tests that need another process start this very binary again: [`child`] runs the job that the variable
//! names and is an empty test otherwise.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests may panic and say why they are skipped")]

mod artifacts;
mod child;
mod claims;
mod crashes;
mod damage;
mod memo;
mod refusals;
mod units;
