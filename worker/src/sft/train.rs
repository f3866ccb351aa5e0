//! The training loop.

use std::time::{Duration, Instant};

use super::batches::{Batch, Order, micro_batches};
use super::encode::Sample;
use super::error::SftError;
use super::gradients::Gradients;
use super::optimizer::{AdamW, Figures};
use super::resume::{Progress, Units};
use super::schedule::Schedule;
use crate::context::Context;
use crate::data::random::Random;
use crate::error::ActionError;
use crate::model::Decoder;

/// Stream number of the dropout, see [`Random::new`].
const DROPOUT_STREAM: u64 = 3 << 32;
/// Progress is said at most this often.
const PROGRESS_PERIOD: Duration = Duration::from_millis(200);

/// A training run: everything but the outside.
pub struct Training {
    /// The model, whose trained tensors `optimizer` holds.
    pub decoder: Decoder,
    /// The optimizer.
    pub optimizer: AdamW,
    /// What is trained on.
    pub samples: Vec<Sample>,
    /// In which order.
    pub order: Order,
    /// The learning rate.
    pub schedule: Schedule,
    /// Rows a micro-batch.
    pub batch_size: usize,
    /// Of the dropout.
    pub seed: u64,
}

/// How a run went.
#[derive(Debug)]
pub struct Outcome {
    /// Counts and losses of all steps.
    pub progress: Progress,
    /// Tokens a second, of the steps that this attempt made.
    pub tokens_per_second: f64,
}

impl Training {
    /// Trains to the last step, from the newest unit on if there is one.
    ///
    /// # Errors
    ///
    /// [`ActionError::Stopped`] between two steps, with a unit published; a loss that is no number.
    pub fn run(&mut self, context: &Context<'_>, parameters: String) -> Result<Outcome, ActionError> {
        let mut units = Units::new(context, parameters);
        let mut progress = units.restore(&mut self.optimizer)?;
        let (begin, tokens_before) = (Instant::now(), progress.tokens);
        let steps = self.order.steps();
        let mut said = None;
        while self.optimizer.steps() < steps {
            if let Err(stop) = context.check_stop() {
                units.publish(&self.optimizer, &progress)?;
                return Err(stop);
            }
            let figures = self.step(&mut progress)?;
            let done = self.optimizer.steps();
            if done == steps || said.is_none_or(|said: Instant| said.elapsed() >= PROGRESS_PERIOD) {
                context.progress(done, steps, "steps", Some(format!("loss {:.3}", figures.loss)));
                said = Some(Instant::now());
            }
            units.publish_if_due(&self.optimizer, &progress)?;
        }
        let seconds = begin.elapsed().as_secs_f64().max(1e-9);
        let tokens_per_second = (progress.tokens - tokens_before) as f64 / seconds;
        // Writing the result may still fail, or be killed: then nothing is trained again.
        units.publish(&self.optimizer, &progress)?;
        Ok(Outcome { progress, tokens_per_second })
    }

    fn step(&mut self, progress: &mut Progress) -> Result<Figures, SftError> {
        let step = self.optimizer.steps();
        tch::manual_seed(Random::new(self.seed, DROPOUT_STREAM + step).next_u64() as i64);
        let rows = self.order.step(step);
        let mut batches = Vec::new();
        for rows in micro_batches(&self.samples, &rows, self.batch_size) {
            batches.push(Batch::new(&rows, self.decoder.device())?);
        }
        let learned: i64 = batches.iter().map(Batch::targets).sum();
        let mut gradients = Gradients::new(self.optimizer.live(), learned);
        for batch in &batches {
            gradients.add(&self.decoder, batch)?;
        }
        let (gradients, loss) = gradients.finish();
        let figures = self.optimizer.step(&gradients, &loss, self.schedule.rate(step))?;
        progress.tokens += batches.iter().map(|batch| batch.tokens as u64).sum::<u64>();
        progress.learned += learned as u64;
        progress.losses.push(figures.loss as f32);
        Ok(figures)
    }
}
