//! The protocol of `evaluate`: the prompt once, the candidates on it, many questions a batch.

use std::time::Instant;

use super::measure::Measurement;
use crate::error::ActionError;
use crate::eval::row::{self, Row};
use crate::eval::sequences::{Encoder, Sequences};
use crate::eval::task::Response;
use crate::eval::{Document, engine};
use crate::memory::PeakMemory;
use crate::model::Decoder;

/// Tokens a batch, padding counted: `evaluate`'s default.
const BATCH_TOKENS: usize = 4096;

/// Questions laid out in batches, and what that took.
pub struct Batches {
    sequences: Vec<Sequences>,
    rows: Vec<Row>,
    batches: Vec<Vec<usize>>,
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
        let rows = row::rows(&sequences, engine::cost(decoder.config()), BATCH_TOKENS);
        let batches = row::pack(&rows, BATCH_TOKENS);
        let seconds_a_question = began.elapsed().as_secs_f64() / documents.len() as f64;
        Ok(Self { sequences, rows, batches, seconds_a_question })
    }

    /// The batches: indices of rows.
    pub fn iter(&self) -> impl Iterator<Item = &[usize]> {
        self.batches.iter().map(Vec::as_slice)
    }

    /// Answers one batch. Its questions share its time equally, and each has its peak.
    ///
    /// # Errors
    /// When a question cannot be scored, or the device keeps no statistics.
    pub fn measure(
        &self,
        decoder: &Decoder,
        peak: &PeakMemory,
        documents: &[Document],
        batch: &[usize],
    ) -> Result<Vec<Measurement>, ActionError> {
        let rows: Vec<&Row> = batch.iter().map(|&index| &self.rows[index]).collect();
        peak.reset()?;
        let began = Instant::now();
        let answers = engine::score(decoder, None, &rows)?;
        let seconds = began.elapsed().as_secs_f64() / answers.len() as f64 + self.seconds_a_question;
        let peak_bytes = peak.peak_bytes()?;
        let measurement = |(index, response): (usize, Response)| {
            documents[index].check_finite(response.scores())?;
            Ok(Measurement { seconds, tokens: self.sequences[index].tokens(), peak_bytes })
        };
        answers.into_iter().map(measurement).collect()
    }
}
