//! What is measured of a question, and the figures made of many.

/// One question.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measurement {
    /// Wall time in seconds, tokenizing included.
    pub seconds: f64,
    /// Tokens of prompt + candidate over all candidates.
    pub tokens: u64,
    /// Peak of allocated device memory in bytes, the loaded weights included.
    pub peak_bytes: u64,
}

/// The study's metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Mean wall time of a question in seconds.
    pub avg_time_s: f64,
    /// All tokens / all time.
    pub tokens_per_s: f64,
    /// Mean over questions of the peak, in MiB.
    pub avg_peak_mib: f64,
    /// 10th percentile of the wall time in seconds.
    pub time_p10_s: f64,
    /// Median of the wall time in seconds.
    pub time_p50_s: f64,
    /// 90th percentile of the wall time in seconds.
    pub time_p90_s: f64,
}

/// Bytes of a MiB.
pub const MIB: f64 = (1 << 20) as f64;

/// The metrics of `measurements`, of which there is at least one.
pub fn summarize(measurements: &[Measurement]) -> Summary {
    let count = measurements.len() as f64;
    let seconds: f64 = measurements.iter().map(|one| one.seconds).sum();
    let tokens: u64 = measurements.iter().map(|one| one.tokens).sum();
    let peaks: f64 = measurements.iter().map(|one| one.peak_bytes as f64 / MIB).sum();
    let mut times: Vec<f64> = measurements.iter().map(|one| one.seconds).collect();
    times.sort_by(f64::total_cmp);
    Summary {
        avg_time_s: seconds / count,
        tokens_per_s: tokens as f64 / seconds,
        avg_peak_mib: peaks / count,
        time_p10_s: percentile(&times, 0.1),
        time_p50_s: percentile(&times, 0.5),
        time_p90_s: percentile(&times, 0.9),
    }
}

/// The `share` quantile of sorted values, interpolated linearly between neighbours (as numpy does by default).
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = share * last as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_are_those_of_the_study() {
        let measurement =
            |seconds, tokens, mebibytes: u64| Measurement { seconds, tokens, peak_bytes: mebibytes << 20 };
        let summary = summarize(&[measurement(1.0, 400, 10), measurement(3.0, 600, 20)]);
        assert_eq!(summary.avg_time_s, 2.0);
        assert_eq!(summary.tokens_per_s, 250.0);
        assert_eq!(summary.avg_peak_mib, 15.0);
        assert_eq!(summary.time_p50_s, 2.0);
    }

    #[test]
    fn percentiles_interpolate() {
        let times: Vec<f64> = (0..=10).map(f64::from).collect();
        assert_eq!([0.1, 0.5, 0.9].map(|share| percentile(&times, share)), [1.0, 5.0, 9.0]);
        assert_eq!(percentile(&[4.0], 0.9), 4.0);
        assert_eq!(percentile(&[1.0, 2.0], 0.25), 1.25);
    }
}
