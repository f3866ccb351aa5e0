//! The protocol of `evaluate`: the prompt once, the candidates on it, many questions a batch.

use std::ops::ControlFlow;
use std::time::Instant;

use super::measure::Measurement;
use crate::error::ActionError;
use crate::eval::layout::{self, Batch};
use crate::eval::prefixes::ReadPrefix;
use crate::eval::sequences::{Encoder, Sequences};
use crate::eval::task::Response;
use crate::eval::{Document, engine};
use crate::memory::PeakMemory;
use crate::model::Decoder;

/// Tokens a batch, padding counted. One batch after the other has all cores, so that its peak of memory is its own.
const BATCH_TOKENS: usize = 4096;

/// Questions laid out in batches, and what that took.
pub struct Batches {
    sequences: Vec<Sequences>,
    batches: Vec<Batch>,
    seconds_a_question: f64,
}

impl Batches {
    /// Tokenizes and packs `documents`; each carries an equal share of the time.
    ///
    /// # Errors
    /// When a question cannot be tokenized.
    pub fn new(
        encoder: &Encoder<'_>,
        decoder: &Decoder,
        documents: &[Document],
    ) -> Result<Self, ActionError> {
        let began = Instant::now();
        let sequences = encoder.encode_all(documents)?;
        let batches = match decoder.mixes_tokens() {
            true => layout::apart(&sequences, BATCH_TOKENS),
            false => layout::together(&sequences, engine::cost((decoder, None)), BATCH_TOKENS),
        };
        let seconds_a_question = began.elapsed().as_secs_f64() / documents.len() as f64;
        Ok(Self { sequences, batches, seconds_a_question })
    }

    /// The batches.
    pub fn iter(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter()
    }

    /// Answers one batch; what it begins with is read, unless the batch before has `kept` it. Its questions share its time equally,
    /// and each has its peak.
    ///
    /// # Errors
    /// When a question cannot be scored, or the device keeps no statistics.
    pub fn measure(
        &self,
        decoder: &Decoder,
        peak: &PeakMemory,
        documents: &[Document],
        batch: &Batch,
        kept: &mut ReadPrefix,
    ) -> Result<Vec<Measurement>, ActionError> {
        peak.reset()?;
        let began = Instant::now();
        let mut answers = engine::Responses::new();
        let models = (decoder, None);
        engine::score(models, kept.hold(models, &batch.prefix), batch, &mut |some| {
            answers.extend(some);
            Ok(ControlFlow::Continue(()))
        })?;
        let seconds = began.elapsed().as_secs_f64() / answers.len() as f64 + self.seconds_a_question;
        let peak_bytes = peak.peak_bytes()? + kept.packed_bytes();
        let measurement = |(index, response): (usize, Response)| {
            documents[index].check_finite(response.scores())?;
            Ok(Measurement { seconds, tokens: self.sequences[index].tokens(), peak_bytes })
        };
        answers.into_iter().map(measurement).collect()
    }
}
