//! AdamW (Loshchilov and Hutter, 2019, arXiv 1711.05101) on float32 master weights, with the arithmetic of
//! `torch.optim.AdamW`.
//!
//! The model may multiply in bfloat16: it then holds a rounded copy of each master weight, which is refreshed
//! after every step, so that updates smaller than bfloat16's spacing are not lost. Everything a step needs
//! besides gradients - masters, two moments, the step's number - is in [`AdamW::state`], so training goes on from
//! a unit with the same bits.

use std::slice;

use tch::{Device, Kind, Tensor, no_grad};

use super::error::SftError;

/// transformers' defaults.
const BETAS: (f64, f64) = (0.9, 0.999);
const EPSILON: f64 = 1e-8;
/// What `torch.nn.utils.clip_grad_norm_` adds to the norm it divides by.
const CLIP_EPSILON: f64 = 1e-6;

/// A trained tensor.
#[derive(Debug)]
pub struct Parameter {
    /// Its name in the model or adapter.
    pub name: String,
    /// What the model computes with and gradients are taken of: float32 or bfloat16.
    pub live: Tensor,
    /// float32; the very same tensor as `live` where that is float32.
    pub master: Tensor,
    /// Whether weight decay applies.
    pub decays: bool,
}

impl Parameter {
    /// Makes `live` trainable. Decay is for matrices other than embeddings, as the parameter's documentation says.
    pub fn new(name: String, live: Tensor) -> Self {
        let live = live.set_requires_grad(true);
        let master = if live.kind() == Kind::Float {
            live.shallow_clone()
        } else {
            no_grad(|| live.detach().to_kind(Kind::Float))
        };
        let decays = live.dim() >= 2 && !name.contains("embed_tokens");
        Self { name, live, master, decays }
    }
}

/// What a step was like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Mean loss a learned token, in nats.
    pub loss: f64,
    /// Global norm of the gradient before clipping.
    pub norm: f64,
}

/// The optimizer and what it optimizes.
#[derive(Debug)]
pub struct AdamW {
    parameters: Vec<Parameter>,
    first: Vec<Tensor>,
    second: Vec<Tensor>,
    steps: u64,
    weight_decay: f64,
    clip: f64,
    threads: usize,
}

/// The scalars of one update.
#[derive(Clone, Copy)]
struct Coefficients {
    /// Factor on the gradient (clipping).
    gradient: f64,
    /// Factor on the weight (decay).
    keep: f64,
    /// Learning rate over the first moment's bias correction.
    step_size: f64,
    /// Square root of the second moment's bias correction.
    correction: f64,
}

impl AdamW {
    /// `clip` 0 turns clipping off. `threads` is for the update on a CPU; it changes no bit.
    pub fn new(parameters: Vec<Parameter>, weight_decay: f64, clip: f64, threads: usize) -> Self {
        let zeros = || parameters.iter().map(|parameter| no_grad(|| parameter.master.zeros_like())).collect();
        let (first, second) = (zeros(), zeros());
        Self { parameters, first, second, steps: 0, weight_decay, clip, threads: threads.max(1) }
    }

    /// The trained tensors.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The tensors that gradients are taken of, in the order that [`AdamW::step`] expects them.
    pub fn live(&self) -> Vec<Tensor> {
        self.parameters.iter().map(|parameter| parameter.live.shallow_clone()).collect()
    }

    /// Steps made.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Masters and moments by name: `NAME`, `NAME.first_moment`, `NAME.second_moment`, all float32.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = Vec::with_capacity(3 * self.parameters.len());
        for ((parameter, first), second) in self.parameters.iter().zip(&self.first).zip(&self.second) {
            let name = &parameter.name;
            state.push((name.clone(), parameter.master.detach()));
            state.push((format!("{name}.first_moment"), first.shallow_clone()));
            state.push((format!("{name}.second_moment"), second.shallow_clone()));
        }
        state
    }

    /// Takes over what [`AdamW::state`] gave after `steps` steps. `tensor` finds a tensor by name.
    pub fn restore(
        &mut self,
        steps: u64,
        mut tensor: impl FnMut(&str, &[i64]) -> Result<Tensor, SftError>,
    ) -> Result<(), SftError> {
        no_grad(|| {
            for ((parameter, first), second) in
                self.parameters.iter_mut().zip(&mut self.first).zip(&mut self.second)
            {
                let (name, shape) = (&parameter.name, parameter.master.size());
                parameter.master.f_copy_(&tensor(name, &shape)?)?;
                first.f_copy_(&tensor(&format!("{name}.first_moment"), &shape)?)?;
                second.f_copy_(&tensor(&format!("{name}.second_moment"), &shape)?)?;
                if parameter.live.kind() != Kind::Float {
                    parameter.live.f_copy_(&parameter.master)?;
                }
            }
            self.steps = steps;
            Ok(())
        })
    }

    /// One update with `gradients` (undefined ones stand for zero) of `loss`, a scalar that is only read here:
    /// together with the gradient's norm it is the one value a step waits for.
    ///
    /// # Errors
    ///
    /// [`SftError::Diverged`] before anything is changed.
    pub fn step(&mut self, gradients: &[Tensor], loss: &Tensor, rate: f64) -> Result<Figures, SftError> {
        no_grad(|| {
            let mut used = Vec::with_capacity(gradients.len());
            for gradient in gradients {
                used.push(if gradient.defined() {
                    Some(gradient.f_to_kind(Kind::Float)?.f_contiguous()?)
                } else {
                    None
                });
            }
            let figures = self.figures(&used, loss)?;
            self.steps += 1;
            let steps = self.steps as f64;
            let mut coefficients = Coefficients {
                gradient: if self.clip > 0.0 {
                    (self.clip / (figures.norm + CLIP_EPSILON)).min(1.0)
                } else {
                    1.0
                },
                keep: 1.0,
                step_size: rate / (1.0 - BETAS.0.powf(steps)),
                correction: (1.0 - BETAS.1.powf(steps)).sqrt(),
            };
            for (index, gradient) in used.into_iter().enumerate() {
                let Some(mut gradient) = gradient else { continue };
                let parameter = &mut self.parameters[index];
                coefficients.keep = if parameter.decays { 1.0 - rate * self.weight_decay } else { 1.0 };
                let (first, second) = (&mut self.first[index], &mut self.second[index]);
                if gradient.device() == Device::Cpu {
                    update_slices(
                        &mut parameter.master,
                        &gradient,
                        first,
                        second,
                        coefficients,
                        self.threads,
                    );
                } else {
                    update_tensors(&mut parameter.master, &mut gradient, first, second, coefficients)?;
                }
                if parameter.live.kind() != Kind::Float {
                    parameter.live.f_copy_(&parameter.master)?;
                }
            }
            Ok(figures)
        })
    }

    fn figures(&self, gradients: &[Option<Tensor>], loss: &Tensor) -> Result<Figures, SftError> {
        let mut norms = Vec::with_capacity(gradients.len());
        for gradient in gradients.iter().flatten() {
            norms.push(gradient.f_norm()?);
        }
        let norm = Tensor::f_stack(&norms, 0)?.f_norm()?;
        let both = Tensor::f_stack(&[loss.f_to_kind(Kind::Float)?, norm], 0)?.f_to_device(Device::Cpu)?;
        let (loss, norm) = (both.f_double_value(&[0])?, both.f_double_value(&[1])?);
        let step = self.steps + 1;
        if !loss.is_finite() {
            return Err(SftError::Diverged { figure: "loss", step });
        }
        if !norm.is_finite() {
            return Err(SftError::Diverged { figure: "gradient", step });
        }
        Ok(Figures { loss, norm })
    }
}

/// The update in libtorch's operations: any device.
fn update_tensors(
    master: &mut Tensor,
    gradient: &mut Tensor,
    first: &mut Tensor,
    second: &mut Tensor,
    c: Coefficients,
) -> Result<(), tch::TchError> {
    let _ = gradient.f_mul_scalar_(c.gradient)?;
    let _ = master.f_mul_scalar_(c.keep)?;
    let _ = first.f_lerp_(gradient, 1.0 - BETAS.0)?;
    let _ = second.f_mul_scalar_(BETAS.1)?;
    let mut square = gradient.f_mul(gradient)?;
    let _ = second.f_add_(&square.f_mul_scalar_(1.0 - BETAS.1)?)?;
    let mut denominator = second.f_sqrt()?;
    let _ = denominator.f_div_scalar_(c.correction)?;
    let _ = denominator.f_add_scalar_(EPSILON)?;
    let update = first.f_div(&denominator)?;
    let _ = master.f_sub_(&update.f_mul_scalar(c.step_size)?)?;
    Ok(())
}

/// The same in one pass over memory, which is what an update costs on a CPU.
fn update_slices(
    master: &mut Tensor,
    gradient: &Tensor,
    first: &mut Tensor,
    second: &mut Tensor,
    c: Coefficients,
    threads: usize,
) {
    let (master, first, second) = (floats_mut(master), floats_mut(first), floats_mut(second));
    let gradient = floats(gradient);
    let chunk = master.len().div_ceil(threads).max(1 << 14);
    if chunk >= master.len() {
        return update(master, gradient, first, second, c);
    }
    std::thread::scope(|scope| {
        let chunks = master.chunks_mut(chunk).zip(gradient.chunks(chunk));
        for ((master, gradient), (first, second)) in
            chunks.zip(first.chunks_mut(chunk).zip(second.chunks_mut(chunk)))
        {
            scope.spawn(move || update(master, gradient, first, second, c));
        }
    });
}

fn update(master: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32], c: Coefficients) {
    let (beta1, beta2, epsilon) = ((1.0 - BETAS.0) as f32, BETAS.1 as f32, EPSILON as f32);
    let rest2 = (1.0 - BETAS.1) as f32;
    let (scale, keep) = (c.gradient as f32, c.keep as f32);
    let (step_size, correction) = (c.step_size as f32, c.correction as f32);
    for (((weight, gradient), first), second) in master.iter_mut().zip(gradient).zip(first).zip(second) {
        let gradient = gradient * scale;
        *first += beta1 * (gradient - *first);
        *second = *second * beta2 + gradient * gradient * rest2;
        let denominator = second.sqrt() / correction + epsilon;
        *weight = *weight * keep - step_size * (*first / denominator);
    }
}

fn floats(tensor: &Tensor) -> &[f32] {
    assert!(tensor.kind() == Kind::Float && tensor.device() == Device::Cpu && tensor.is_contiguous());
    // SAFETY: a contiguous float32 tensor in main memory is `numel` floats from `data_ptr`, which live as long as
    // the tensor, and the borrow of the tensor keeps it from being written to through this handle.
    unsafe { slice::from_raw_parts(tensor.data_ptr().cast::<f32>().cast_const(), tensor.numel()) }
}

fn floats_mut(tensor: &mut Tensor) -> &mut [f32] {
    assert!(tensor.kind() == Kind::Float && tensor.device() == Device::Cpu && tensor.is_contiguous());
    // SAFETY: as above; masters and moments are distinct allocations of the optimizer's own, and nothing computes
    // with the model while its weights are updated, so the slice is the only access.
    unsafe { slice::from_raw_parts_mut(tensor.data_ptr().cast::<f32>(), tensor.numel()) }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn random(shape: &[i64], seed: i64) -> Tensor {
        let _random = crate::torch::seeded(seed);
        Tensor::randn(shape, (Kind::Float, Device::Cpu))
    }

    #[test]
    fn one_pass_and_tensor_operations_agree() {
        let shape = [40_003];
        let c = Coefficients { gradient: 0.3, keep: 0.999, step_size: 2e-3, correction: 0.04 };
        let (mut w1, mut g, mut m1, mut v1) =
            (random(&shape, 1), random(&shape, 2), random(&shape, 3), random(&shape, 4).abs());
        let (mut w2, mut m2, mut v2) = (w1.copy(), m1.copy(), v1.copy());
        update_slices(&mut w1, &g, &mut m1, &mut v1, c, 3);
        update_tensors(&mut w2, &mut g, &mut m2, &mut v2, c).unwrap();
        for (one, two) in [(w1, w2), (m1, m2), (v1, v2)] {
            assert!(one.allclose(&two, 1e-6, 1e-7, false));
        }
    }

    #[test]
    fn finds_the_minimum_of_a_quadratic() {
        let target = random(&[5, 3], 7);
        let weight = Parameter::new("w".into(), Tensor::zeros([5, 3], (Kind::Float, Device::Cpu)));
        let mut optimizer = AdamW::new(vec![weight], 0.0, 1.0, 2);
        let mut last = f64::NAN;
        for _ in 0..600 {
            let loss = (&optimizer.parameters()[0].live - &target).square().sum(Kind::Float);
            let gradients = Tensor::run_backward(&[&loss], &optimizer.live(), false, false);
            last = optimizer.step(&gradients, &loss, 0.02).unwrap().loss;
        }
        assert!(last < 1e-3, "{last}");
    }

    #[test]
    fn bfloat16_weights_follow_their_masters() {
        let start = Tensor::ones([4, 4], (Kind::BFloat16, Device::Cpu));
        let mut optimizer = AdamW::new(vec![Parameter::new("w".into(), start)], 0.0, 0.0, 1);
        for _ in 0..200 {
            let gradient = Tensor::ones([4, 4], (Kind::BFloat16, Device::Cpu));
            optimizer.step(&[gradient], &Tensor::from(0.0), 1e-4).unwrap();
        }
        let parameter = &optimizer.parameters()[0];
        // A single update is far below bfloat16's spacing at 1 (2^-8), their sum is not.
        assert!((parameter.master.double_value(&[0, 0]) - 0.98).abs() < 1e-5);
        assert!((parameter.live.double_value(&[0, 0]) - 0.98).abs() < 2e-3);
    }

    #[test]
    fn decay_spares_embeddings_norms_and_biases() {
        let decays = |name: &str, shape: &[i64]| Parameter::new(name.into(), random(shape, 0)).decays;
        assert!(decays("model.layers.0.mlp.up_proj.weight", &[4, 4]));
        assert!(!decays("model.embed_tokens.weight", &[4, 4]));
        assert!(!decays("model.norm.weight", &[4]));
    }

    #[test]
    fn a_loss_that_is_no_number_changes_nothing() {
        let mut optimizer = AdamW::new(vec![Parameter::new("w".into(), random(&[2, 2], 0))], 0.0, 1.0, 1);
        let before = optimizer.parameters()[0].master.copy();
        let error = optimizer.step(&[random(&[2, 2], 1)], &Tensor::from(f32::NAN), 0.1).unwrap_err();
        assert!(matches!(error, SftError::Diverged { figure: "loss", step: 1 }));
        assert!(optimizer.parameters()[0].master.equal(&before));
    }

    #[test]
    fn restoring_a_state_continues_with_the_same_bits() {
        let run = |stop_at: Option<usize>| {
            let fresh = || AdamW::new(vec![Parameter::new("w".into(), random(&[9, 9], 5))], 0.1, 1.0, 1);
            let mut optimizer = fresh();
            for step in 0..6 {
                if stop_at == Some(step) {
                    let saved: Vec<(String, Tensor)> =
                        optimizer.state().into_iter().map(|(name, tensor)| (name, tensor.copy())).collect();
                    let steps = optimizer.steps();
                    optimizer = fresh();
                    let find = |name: &str, _: &[i64]| {
                        Ok(saved.iter().find(|(known, _)| known == name).unwrap().1.shallow_clone())
                    };
                    optimizer.restore(steps, find).unwrap();
                }
                optimizer.step(&[random(&[9, 9], step as i64)], &Tensor::from(1.0), 0.01).unwrap();
            }
            optimizer.parameters()[0].master.copy()
        };
        assert!(run(None).equal(&run(Some(3))));
    }
}
