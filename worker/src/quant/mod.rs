//! Being written.
use crate::context::{Context, Facts};
use crate::error::ActionError;
/// Being written.
pub fn run(_: &Context<'_>) -> Result<Facts, ActionError> { Err(ActionError::user("being written")) }
