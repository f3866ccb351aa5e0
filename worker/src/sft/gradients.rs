//! Loss and gradients of one step.
//!
//! The loss is the mean over all learned tokens of the step, whichever micro-batch they are in: each
//! micro-batch contributes its sum over the step's count, as transformers does since 4.46 (the mean of the
//! micro-batches' means would weigh tokens of short rows more). Only hidden states that predict a learned token
//! go through the output projection, and where their logits would still be large, in pieces.

use tch::{Kind, Tensor};

use super::batches::Batch;
use crate::model::Decoder;

/// Logits of this many elements (256 MiB in float32) are made at once.
const LOGITS_AT_ONCE: i64 = 1 << 26;

/// What a step's micro-batches have added up to.
#[derive(Debug)]
pub struct Gradients {
    live: Vec<Tensor>,
    sums: Vec<Option<Tensor>>,
    loss: Option<Tensor>,
    learned: i64,
    logits_at_once: i64,
}

impl Gradients {
    /// Nothing yet. `live` are the tensors to differentiate by, `learned` is the step's count of learned tokens.
    pub fn new(live: Vec<Tensor>, learned: i64) -> Self {
        let sums = live.iter().map(|_| None).collect();
        Self { live, sums, loss: None, learned: learned.max(1), logits_at_once: LOGITS_AT_ONCE }
    }

    /// Adds a micro-batch.
    pub fn add(&mut self, decoder: &Decoder, batch: &Batch) -> Result<(), tch::TchError> {
        if batch.targets() == 0 {
            return Ok(());
        }
        let hidden = decoder.hidden(&batch.ids, &batch.positions, &batch.attention, None);
        let selected = batch.select(&hidden)?;
        drop(hidden);
        let rows = (self.logits_at_once / decoder.config().vocab_size.max(1)).max(1);
        if batch.targets() <= rows {
            let loss = self.share(decoder, &selected, &batch.labels)?;
            return self.accumulate(&loss, &loss.detach());
        }
        // The projection's own gradients piece by piece, and those of the hidden states gathered; then back
        // through the rest of the model once.
        let leaf = selected.detach().f_set_requires_grad(true)?;
        let mut from_head = Vec::new();
        for start in (0..batch.targets()).step_by(rows as usize) {
            let length = rows.min(batch.targets() - start);
            let piece = leaf.detach().f_narrow(0, start, length)?.f_set_requires_grad(true)?;
            let loss = self.share(decoder, &piece, &batch.labels.f_narrow(0, start, length)?)?;
            let mut inputs: Vec<&Tensor> = self.live.iter().collect();
            inputs.push(&piece);
            let mut gradients = Tensor::f_run_backward(&[&loss], &inputs, false, false)?;
            from_head.extend(gradients.pop());
            self.gather(gradients, &loss.detach())?;
        }
        let surrogate = (selected * Tensor::f_cat(&from_head, 0)?).f_sum(Kind::Float)?;
        let gradients = Tensor::f_run_backward(&[&surrogate], &self.live, false, false)?;
        self.gather(gradients, &surrogate.f_zeros_like()?)
    }

    /// The sums, in the order of `live` (undefined where nothing arrived), and the mean loss.
    pub fn finish(self) -> (Vec<Tensor>, Tensor) {
        let gradients = self.sums.into_iter().map(|sum| sum.unwrap_or_else(Tensor::new)).collect();
        (gradients, self.loss.unwrap_or_else(|| Tensor::from(0f32)))
    }

    /// The share of the step's loss of the tokens `labels` predicted by `hidden` [M, H].
    fn share(&self, decoder: &Decoder, hidden: &Tensor, labels: &Tensor) -> Result<Tensor, tch::TchError> {
        let logits = decoder.logits(hidden).f_to_kind(Kind::Float)?;
        let sum = logits.f_cross_entropy_loss::<Tensor>(labels, None, tch::Reduction::Sum, -100, 0.0)?;
        sum.f_div_scalar(self.learned)
    }

    fn accumulate(&mut self, loss: &Tensor, value: &Tensor) -> Result<(), tch::TchError> {
        let gradients = Tensor::f_run_backward(&[loss], &self.live, false, false)?;
        self.gather(gradients, value)
    }

    /// Adds `gradients` in float32.
    fn gather(&mut self, gradients: Vec<Tensor>, loss: &Tensor) -> Result<(), tch::TchError> {
        for (sum, gradient) in self.sums.iter_mut().zip(gradients) {
            if !gradient.defined() {
                continue;
            }
            match sum {
                Some(sum) => {
                    let _ = sum.f_add_(&gradient.f_to_kind(Kind::Float)?)?;
                }
                None => *sum = Some(gradient.f_to_kind(Kind::Float)?),
            }
        }
        self.loss = Some(match self.loss.take() {
            Some(sum) => sum.f_add(loss)?,
            None => loss.shallow_clone(),
        });
        Ok(())
    }
}
