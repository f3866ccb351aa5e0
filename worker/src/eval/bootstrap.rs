//! Standard errors of figures that have no formula for it: the spread of the figure over samples of the questions, drawn with
//! replacement (Efron, 1979). The samples are lm-eval's: chunk number i comes from Python's `Random(i).choices`.

use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};

use super::python::random::PythonRandom;

/// Selections of questions that are drawn from one generator at most.
const CHUNK: usize = 1000;

/// The standard error of `figure`, which is given the numbers of selected questions, over so many `selections` of `count`
/// questions; on `threads` threads. None of fewer than two questions.
pub(super) fn stderr(
    count: usize,
    selections: usize,
    figure: &(dyn Fn(&[usize]) -> f64 + Sync),
    threads: usize,
) -> Option<f64> {
    if count < 2 {
        return None;
    }
    let size = selections.clamp(1, CHUNK);
    let of = selections / size;
    let next = AtomicUsize::new(0);
    let mut chunks: Vec<(usize, Vec<f64>)> = thread::scope(|scope| {
        let work = || {
            let mut chunks = Vec::new();
            loop {
                let chunk = next.fetch_add(1, Ordering::Relaxed);
                if chunk >= of {
                    return chunks;
                }
                chunks.push((chunk, replicates(chunk as u64, size, count, figure)));
            }
        };
        let threads: Vec<_> = (0..threads.clamp(1, of.max(1))).map(|_| scope.spawn(work)).collect();
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

fn replicates(seed: u64, size: usize, count: usize, figure: &dyn Fn(&[usize]) -> f64) -> Vec<f64> {
    let mut random = PythonRandom::new(seed);
    let mut selected = vec![0; count];
    let mut replicate = |_| {
        for question in &mut selected {
            *question = (random.random() * count as f64) as usize;
        }
        figure(&selected)
    };
    (0..size).map(&mut replicate).collect()
}
