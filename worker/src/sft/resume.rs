//! Units of a training run: everything that the next step depends on, after some step.
//!
//! Masters and moments of the optimizer, the number of steps and the counts for the report; the order of rows
//! and the dropout are functions of the seed and the step. So a run that was killed continues from its newest
//! unit with the bits that it would have had. One unit is kept; it is dropped when the next one is published.

use std::path::Path;
use std::time::{Duration, Instant};

use qpipe_nodes::protocol::Level;
use tch::{Kind, Tensor};

use super::error::SftError;
use super::optimizer::AdamW;
use crate::context::Context;
use crate::error::ActionError;
use crate::model::{TensorFiles, save};

/// Units are published this often,
const PERIOD: Duration = Duration::from_secs(45);
/// but so rarely that writing them takes at most this share of the time.
const SHARE_OF_TIME: u32 = 20;

/// Tensors of a unit beside the optimizer's.
const COUNTS: &str = "counts";
const LOSSES: &str = "losses";
const PARAMETERS: &str = "parameters";

/// What a run has done so far, besides what the optimizer knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Tokens read, padding excluded.
    pub tokens: u64,
    /// Tokens learned.
    pub learned: u64,
    /// Mean loss a token of every step.
    pub losses: Vec<f32>,
}

/// Publishes units and finds them again.
pub struct Units<'a> {
    context: &'a Context<'a>,
    /// The run's parameters as text: a unit of other ones is not taken up.
    parameters: String,
    published: Option<String>,
    last: Instant,
    period: Duration,
}

impl<'a> Units<'a> {
    /// For a run with these parameters.
    pub fn new(context: &'a Context<'a>, parameters: String) -> Self {
        Self { context, parameters, published: None, last: Instant::now(), period: PERIOD }
    }

    /// Puts the newest unit that fits into `optimizer`; without one, training starts at step 0.
    pub fn restore(&mut self, optimizer: &mut AdamW) -> Result<Progress, ActionError> {
        let mut names: Vec<String> =
            self.context.units().into_iter().filter(|name| name.starts_with("step-")).collect();
        names.sort();
        for name in names.into_iter().rev() {
            let Some(path) = self.context.unit(&name) else { continue };
            match self.read(&path, optimizer) {
                Ok(progress) => {
                    self.context
                        .log(Level::Info, format!("training goes on after step {}", optimizer.steps()));
                    self.published = Some(name);
                    return Ok(progress);
                }
                Err(error) => {
                    self.context.log(Level::Warn, format!("{error}: it is left out"));
                    self.context.drop_unit(&name);
                }
            }
        }
        Ok(Progress::default())
    }

    /// Publishes a unit if it is time.
    pub fn publish_if_due(&mut self, optimizer: &AdamW, progress: &Progress) -> Result<(), ActionError> {
        if self.last.elapsed() < self.period { Ok(()) } else { self.publish(optimizer, progress) }
    }

    /// Publishes a unit and drops the one before.
    pub fn publish(&mut self, optimizer: &AdamW, progress: &Progress) -> Result<(), ActionError> {
        let name = format!("step-{:010}.safetensors", optimizer.steps());
        if optimizer.steps() == 0 || self.published.as_ref() == Some(&name) {
            return Ok(());
        }
        let begin = Instant::now();
        let mut tensors = optimizer.state();
        let counts = [optimizer.steps(), progress.tokens, progress.learned].map(|count| count as i64);
        tensors.push((COUNTS.to_owned(), Tensor::from_slice(&counts)));
        tensors.push((LOSSES.to_owned(), Tensor::from_slice(&progress.losses)));
        tensors.push((PARAMETERS.to_owned(), Tensor::from_slice(self.parameters.as_bytes())));
        self.context.publish_unit(&name, |path| Ok(save::write_tensors(path, &tensors)?))?;
        if let Some(previous) = self.published.replace(name) {
            self.context.drop_unit(&previous);
        }
        self.period = PERIOD.max(begin.elapsed() * SHARE_OF_TIME);
        self.last = Instant::now();
        Ok(())
    }

    fn read(&self, path: &Path, optimizer: &mut AdamW) -> Result<Progress, SftError> {
        let unfit = |why: String| SftError::Unit { path: path.to_owned(), why };
        let file = TensorFiles::open(path)?;
        let parameters = Vec::<u8>::try_from(file.tensor(PARAMETERS)?)?;
        if parameters != self.parameters.as_bytes() {
            return Err(unfit("it is of a run with other parameters".to_owned()));
        }
        let counts = Vec::<i64>::try_from(file.tensor(COUNTS)?)?;
        let &[steps, tokens, learned] = counts.as_slice() else {
            return Err(unfit("its counts are not three".to_owned()));
        };
        optimizer.restore(steps as u64, |name, shape| {
            let tensor = file.tensor(name)?;
            if tensor.kind() == Kind::Float && tensor.size() == shape {
                Ok(tensor)
            } else {
                Err(unfit(format!("tensor `{name}` is {:?} {:?}", tensor.kind(), tensor.size())))
            }
        })?;
        let losses = Vec::<f32>::try_from(file.tensor(LOSSES)?)?;
        Ok(Progress { tokens: tokens as u64, learned: learned as u64, losses })
    }
}
