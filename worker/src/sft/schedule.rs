//! The learning rate: linear warm-up, then half a cosine to zero.

/// The same curve as transformers' `get_cosine_schedule_with_warmup`.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// The learning rate after the warm-up.
    pub peak: f64,
    /// Steps of the warm-up; the first of them has a rate of zero.
    pub warmup: u64,
    /// Steps in all.
    pub steps: u64,
}

impl Schedule {
    /// The rate of step `step`, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * step as f64 / self.warmup as f64;
        }
        let rest = self.steps.saturating_sub(self.warmup).max(1);
        let progress = (step - self.warmup) as f64 / rest as f64;
        self.peak * (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_linearly_then_falls_to_zero() {
        let schedule = Schedule { peak: 2e-3, warmup: 4, steps: 12 };
        let rates: Vec<f64> = (0..=12).map(|step| schedule.rate(step)).collect();
        assert_eq!(rates[0], 0.0);
        assert_eq!(rates[2], 1e-3);
        assert_eq!(rates[4], 2e-3);
        assert!((rates[8] - 1e-3).abs() < 1e-12);
        assert!(rates[12].abs() < 1e-12);
        assert!(rates[4..].windows(2).all(|pair| pair[1] < pair[0]));
    }

    #[test]
    fn without_warmup_the_first_step_has_the_peak() {
        assert_eq!(Schedule { peak: 1.0, warmup: 0, steps: 3 }.rate(0), 1.0);
    }

    #[test]
    fn a_warmup_longer_than_the_run_never_divides_by_zero() {
        let schedule = Schedule { peak: 1.0, warmup: 5, steps: 3 };
        assert!((0..3).all(|step| schedule.rate(step).is_finite()));
    }
}
