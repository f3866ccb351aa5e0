//! How long a layer takes.

use std::time::{Duration, Instant};

/// Calls before the first that counts: pages are read, threads are started, caches are filled.
const WARM_UP: usize = 2;
/// Calls that are timed at least, and at most.
const REPEATS: (usize, usize) = (5, 101);
/// So long is measured between these.
const PATIENCE: Duration = Duration::from_millis(300);

/// The time of one call, from several.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// The median, in seconds.
    pub seconds: f64,
    /// The distance between the quartiles, as a part of the median.
    pub spread: f64,
    /// How many calls were timed.
    pub repeats: usize,
}

impl Speed {
    /// Times `work`.
    pub fn of(mut work: impl FnMut()) -> Self {
        (0..WARM_UP).for_each(|_| work());
        let began = Instant::now();
        let mut times = Vec::new();
        while times.len() < REPEATS.0 || (times.len() < REPEATS.1 && began.elapsed() < PATIENCE) {
            let start = Instant::now();
            work();
            times.push(start.elapsed().as_secs_f64());
        }
        Self::from_times(times)
    }

    fn from_times(mut times: Vec<f64>) -> Self {
        times.sort_unstable_by(f64::total_cmp);
        let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize];
        let median = at(0.5);
        Self { seconds: median, spread: (at(0.75) - at(0.25)) / median, repeats: times.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_call_does_not_move_the_median() {
        let speed = Speed::from_times(vec![1.0, 9.0, 1.2, 1.1, 0.9]);
        assert_eq!((speed.seconds, speed.repeats), (1.1, 5));
        assert!((speed.spread - 0.2 / 1.1).abs() < 1e-12);
    }
}
