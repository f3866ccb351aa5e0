//! The published study's protocol: batch 1, one forward pass a candidate, tokenizing included, the peak of
//! memory reset before each question.

use std::time::Instant;

use super::measure::Measurement;
use crate::error::ActionError;
use crate::eval::sequences::Encoder;
use crate::eval::{Document, oracle};
use crate::memory::PeakMemory;
use crate::model::Decoder;

/// Answers one question and says what it took. The scores come to the CPU, so that a GPU's work is done when
/// the time is taken.
///
/// # Errors
/// When the question cannot be scored, or the device keeps no statistics.
pub fn measure(
    decoder: &Decoder,
    encoder: &Encoder<'_>,
    peak: &PeakMemory,
    document: &Document,
) -> Result<Measurement, ActionError> {
    peak.reset()?;
    let began = Instant::now();
    let sequences = encoder.encode(document)?;
    let scores = oracle::score(decoder, &sequences)?;
    let seconds = began.elapsed().as_secs_f64();
    document.check_finite(&scores)?;
    Ok(Measurement { seconds, tokens: sequences.tokens(), peak_bytes: peak.peak_bytes()? })
}
