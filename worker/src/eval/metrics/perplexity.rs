//! `perplexity`: how much texts surprise the model, of the log-likelihood of each; how long each is does not matter.

use qpipe_nodes::results::Figure;

use super::{Compared, Metric, SELECTIONS, Value};

/// The metric.
pub(super) struct Perplexity;

impl Metric for Perplexity {
    fn name(&self) -> &'static str {
        "perplexity"
    }

    fn compares(&self) -> Compared {
        Compared::Nothing
    }

    fn selections(&self) -> usize {
        SELECTIONS
    }

    fn of(&self, figures: &[&Figure]) -> Result<Value, String> {
        let log_likelihood = |figure: &&Figure| match figure {
            Figure::Number(log_likelihood) => *log_likelihood,
            // No task makes another figure under this name.
            _ => f64::NAN,
        };
        let values: Vec<f64> = figures.iter().map(log_likelihood).collect();
        Ok(Box::new(move |selected| {
            let sum: f64 = selected.iter().map(|&question| values[question]).sum();
            (-sum / selected.len() as f64).exp()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::metrics::together;

    #[test]
    fn the_spread_is_that_of_lm_eval() {
        // lm_eval 0.4.13: bootstrap_stderr(perplexity, [-1.0, -2.5, -0.25, -4.0, -3.0], 100000)
        let figures = [-1.0, -2.5, -0.25, -4.0, -3.0].map(Figure::Number);
        let (value, stderr) = together(&Perplexity, &figures.each_ref(), 2).expect("a figure");
        assert_eq!(value, 2.15_f64.exp());
        assert!(stderr.is_some_and(|stderr| (stderr - 6.520_613_649_404_23).abs() < 1e-9), "{stderr:?}");
        assert_eq!(together(&Perplexity, &figures.each_ref()[..1], 2).map(|(_, stderr)| stderr), Ok(None));
    }
}
