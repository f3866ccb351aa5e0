//! Standard errors of figures that have no formula for it: the spread of the figure over samples of the questions, drawn with
//! replacement (Efron, 1979). The samples are lm-eval's: chunk number i comes from Python's `Random(i).choices`.

use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};

use super::python::random::PythonRandom;

/// lm-eval's `bootstrap_iters`, in chunks of `CHUNK`.
const CHUNKS: usize = 100;
const CHUNK: usize = 1000;

/// The standard error of `figure`, on `threads` threads; none of fewer than two values.
pub(super) fn stderr(values: &[f64], figure: &(dyn Fn(&[f64]) -> f64 + Sync), threads: usize) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let next = AtomicUsize::new(0);
    let mut chunks: Vec<(usize, Vec<f64>)> = thread::scope(|scope| {
        let work = || {
            let mut chunks = Vec::new();
            loop {
                let chunk = next.fetch_add(1, Ordering::Relaxed);
                if chunk >= CHUNKS {
                    return chunks;
                }
                chunks.push((chunk, replicates(chunk as u64, values, figure)));
            }
        };
        let threads: Vec<_> = (0..threads.clamp(1, CHUNKS)).map(|_| scope.spawn(work)).collect();
        let chunks = |thread: ScopedJoinHandle<'_, Vec<_>>| {
            thread.join().unwrap_or_else(|payload| panic::resume_unwind(payload))
        };
        threads.into_iter().flat_map(chunks).collect()
    });
    // Sums depend on the order.
    chunks.sort_by_key(|(chunk, _)| *chunk);
    let figures: Vec<f64> = chunks.into_iter().flat_map(|(_, figures)| figures).collect();
    let n = figures.len() as f64;
    let mean = figures.iter().sum::<f64>() / n;
    let squares: f64 = figures.iter().map(|figure| (figure - mean).powi(2)).sum();
    Some((squares / (n - 1.0)).sqrt())
}

fn replicates(seed: u64, values: &[f64], figure: &dyn Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut random = PythonRandom::new(seed);
    let mut sample = vec![0.0; values.len()];
    let mut replicate = |_| {
        for value in &mut sample {
            *value = values[(random.random() * values.len() as f64) as usize];
        }
        figure(&sample)
    };
    (0..CHUNK).map(&mut replicate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::harness::perplexity;

    #[test]
    fn the_spread_is_that_of_lm_eval() {
        // lm_eval 0.4.13: bootstrap_stderr(perplexity, [-1.0, -2.5, -0.25, -4.0, -3.0], 100000)
        let found = stderr(&[-1.0, -2.5, -0.25, -4.0, -3.0], &perplexity::of_texts, 2).expect("a spread");
        assert!((found - 6.520_613_649_404_23).abs() < 1e-9, "{found}");
        assert_eq!(stderr(&[-1.0], &perplexity::of_texts, 2), None);
    }
}
