//! The search for scales (Lin et al., 2023, arXiv 2306.00978): input channels with large activations are scaled up
//! before rounding, and their inputs down.

use tch::{Kind, TchError, Tensor};

use super::grid::Grid;

/// Exponents are tried from 0 in this many steps, 1 not among them.
const RATIOS: u32 = 20;
/// Kept from 0 in denominators.
const LEAST_MAGNITUDE: f64 = 1e-6;
/// Kept from 0 in scales.
const LEAST_SCALE: f64 = 1e-4;

/// The scales that were found.
#[derive(Debug)]
pub(super) struct Found {
    /// f32 `[K]`: what weights are multiplied by.
    pub(super) scales: Tensor,
    /// The exponent; `None`: nothing beat leaving the weights as they are.
    pub(super) ratio: Option<f64>,
    /// The squared error of the outputs: as it was, and with the scales.
    pub(super) loss: (f64, f64),
}

/// Searches the scales of an input that `weights`, f32 [N, K] each, share. `magnitude`, f32 `[K]`, is the mean |x| of
/// its channels, `moments`, f32 [K, K], the sum of x xᵀ.
///
/// With m the mean |x| and w the weights' mean magnitude relative to their group's largest, scales are m^r / w^(1 - r)
/// (`duo`) or m^r for 20 ratios r, brought to a geometric middle of 1. The loss is the squared error of the layers' outputs
/// on the calibration, tr(D M Dᵀ), summed over the layers; AutoAWQ and llm-compressor measure it behind the attention or
/// the feed-forward network, for which every ratio takes a forward pass.
pub(super) fn search(
    weights: &[Tensor],
    magnitude: &Tensor,
    moments: &Tensor,
    grid: Grid,
    duo: bool,
) -> Result<Found, TchError> {
    let ones = magnitude.f_ones_like()?;
    let before = loss(weights, &ones, moments, grid)?;
    let mut best = Found { scales: ones, ratio: None, loss: (before, before) };
    let weight_magnitude = relative_magnitude(weights, grid.group)?;
    for step in 0..RATIOS {
        let ratio = f64::from(step) / f64::from(RATIOS);
        let powered = magnitude.f_pow_tensor_scalar(ratio)?;
        let raw = if duo {
            powered / (weight_magnitude.f_pow_tensor_scalar(1.0 - ratio)? + LEAST_SCALE)
        } else {
            powered
        };
        let raw = raw.f_clamp_min(LEAST_SCALE)?;
        let scales = &raw / (raw.f_max()? * raw.f_min()?).f_sqrt()?;
        let loss = loss(weights, &scales, moments, grid)?;
        // Not for a loss that is not a number.
        if loss < best.loss.1 {
            best = Found { scales, ratio: Some(ratio), loss: (before, loss) };
        }
    }
    Ok(best)
}

/// The squared error of the outputs when weights are rounded under `scales`.
fn loss(weights: &[Tensor], scales: &Tensor, moments: &Tensor, grid: Grid) -> Result<f64, TchError> {
    let mut loss = 0.0;
    for weight in weights {
        let difference = grid.value(&(weight * scales))? / scales - weight;
        let mut product = difference.f_mm(moments)?;
        loss += f64::try_from(product.f_mul_(&difference)?.f_sum(Kind::Double)?)?;
    }
    Ok(loss)
}

/// The mean over all rows of |w| relative to the largest of its group: f32 `[K]`.
fn relative_magnitude(weights: &[Tensor], group: i64) -> Result<Tensor, TchError> {
    let in_features = weights[0].size2()?.1;
    let all = Tensor::f_cat(weights, 0)?;
    let groups = all.f_abs()?.f_view([-1, in_features / group, group])?;
    let largest = groups.f_amax([-1].as_slice(), true)?;
    let relative = groups / (largest + LEAST_MAGNITUDE);
    relative.f_mean_dim([0].as_slice(), false, Kind::Float)?.f_view([in_features])
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use tch::Device;

    use super::*;

    const GRID: Grid = Grid { group: 32, symmetric: false, kind: None };

    /// Inputs with one large channel in each group: rows, mean magnitudes, moments.
    fn input(channels: i64) -> (Tensor, Tensor, Tensor) {
        let x = Tensor::randn([400, channels], (Kind::Float, Device::Cpu));
        for channel in (3..channels).step_by(32) {
            let _ = x.narrow(1, channel, 1).f_mul_scalar_(30.0).unwrap();
        }
        let magnitude = x.abs().mean_dim([0].as_slice(), false, Kind::Float);
        let moments = x.tr().matmul(&x);
        (x, magnitude, moments)
    }

    #[test]
    fn a_channel_with_large_activations_is_scaled_up_and_the_error_falls() {
        let _guard = tch::no_grad_guard();
        let _random = crate::torch::seeded(11);
        let (x, magnitude, moments) = input(64);
        let weight = Tensor::randn([48, 64], (Kind::Float, Device::Cpu));
        for duo in [true, false] {
            let found = search(&[weight.shallow_clone()], &magnitude, &moments, GRID, duo).unwrap();
            assert!(found.loss.1 < 0.7 * found.loss.0, "{:?}", found.loss);
            let scales = Vec::<f32>::try_from(&found.scales).unwrap();
            assert!(scales[3] > 1.5 * scales[4]);
            // The loss is the error of the outputs.
            let value = GRID.value(&(&weight * &found.scales)).unwrap() / &found.scales;
            let error = x.matmul(&(value - &weight).tr()).square().sum(Kind::Double);
            let error = f64::try_from(error).unwrap();
            assert!((error / found.loss.1 - 1.0).abs() < 1e-3, "{error} {:?}", found.loss);
        }
    }

    #[test]
    fn dead_channels_and_zero_rows_leave_finite_scales() {
        let _guard = tch::no_grad_guard();
        let _random = crate::torch::seeded(12);
        let (x, ..) = input(64);
        let _ = x.narrow(1, 7, 2).fill_(0.0);
        let magnitude = x.abs().mean_dim([0].as_slice(), false, Kind::Float);
        let moments = x.tr().matmul(&x);
        let weight = Tensor::randn([8, 64], (Kind::Float, Device::Cpu));
        let _ = weight.narrow(0, 2, 1).fill_(0.0);
        let _ = weight.narrow(1, 9, 1).fill_(0.0);
        let found = search(&[weight], &magnitude, &moments, GRID, true).unwrap();
        assert!(found.loss.1.is_finite() && found.loss.1 <= found.loss.0);
        assert!(bool::try_from(found.scales.isfinite().all()).unwrap());
        assert!(f64::try_from(found.scales.min()).unwrap() > 0.0);
    }

    #[test]
    fn without_any_input_the_weights_stay() {
        let weight = Tensor::ones([4, 32], (Kind::Float, Device::Cpu));
        let zeros = Tensor::zeros([32], (Kind::Float, Device::Cpu));
        let found = search(&[weight], &zeros, &zeros.diag(0), GRID, true).unwrap();
        assert_eq!((found.ratio, found.loss), (None, (0.0, 0.0)));
    }
}
