//! The statistics of a comparison: plain functions of counts and of scores.
//!
//! | what | method |
//! |---|---|
//! | interval of one accuracy | Wilson's score interval (Wilson 1927) |
//! | interval of a paired difference | Tango's score interval (Tango 1998, Statistics in Medicine 17:891-908) |
//! | test of a paired difference | McNemar's exact two-sided test (binomial, McNemar 1947) |
//! | many tests in one report | Holm's step-down correction (Holm 1979) |
//! | distance of two distributions | Kullback-Leibler divergence, in nats |
//!
//! Tango's interval is the set of differences that the score test does not reject, with the nuisance
//! parameter at its constrained maximum likelihood. At a difference of zero that test is McNemar's own, so
//! interval and test tell the same story; and, unlike Wald's and Newcombe's, it keeps its coverage
//! where few answers change at all, which is what a good quantization looks like (Fagerland, Lydersen and Laake
//! 2014, Statistics in Medicine 33:2850-2875). No answer changed in 1,000 questions gives +-0.4 points, not +-0.

use serde::{Deserialize, Serialize};

/// The 97.5 % quantile of the standard normal distribution: two-sided 95 %.
const Z95: f64 = 1.959_963_984_540_054;

/// A closed interval. Serialized as `[low, high]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f64; 2]", into = "[f64; 2]")]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl From<[f64; 2]> for Interval {
    fn from([low, high]: [f64; 2]) -> Self {
        Self { low, high }
    }
}

impl From<Interval> for [f64; 2] {
    fn from(interval: Interval) -> Self {
        [interval.low, interval.high]
    }
}

/// Questions that exactly one of two models answered rightly, among `n` that both answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discordant {
    /// Right in the baseline only.
    pub lost: u64,
    /// Right in the variant only.
    pub won: u64,
    /// Questions in all.
    pub n: u64,
}

impl Discordant {
    /// Accuracy of the variant less that of the baseline. 0 for no questions.
    pub fn difference(self) -> f64 {
        if self.n == 0 { 0.0 } else { (self.won as f64 - self.lost as f64) / self.n as f64 }
    }

    /// The score statistic of the hypothesis that the difference is `delta`: standard normal under it.
    fn score(self, delta: f64) -> f64 {
        let (lost, won, n) = (self.lost as f64, self.won as f64, self.n as f64);
        // The probability of "lost", at the maximum of the likelihood given the difference, is the larger root
        // of 2n q^2 + linear q - lost delta (1 - delta) = 0.
        let linear = delta * (2.0 * n + lost - won) - lost - won;
        let discriminant = (linear * linear + 8.0 * n * lost * delta * (1.0 - delta)).max(0.0);
        let loss = ((discriminant.sqrt() - linear) / (4.0 * n)).max(0.0).max(-delta);
        let variance = n * (2.0 * loss + delta * (1.0 - delta));
        let distance = won - lost - n * delta;
        if variance > 0.0 { distance / variance.sqrt() } else { distance * f64::INFINITY }
    }

    /// Tango's 95 % score interval of [`Self::difference`]. `[-1, 1]` for no questions.
    pub fn interval(self) -> Interval {
        if self.n == 0 {
            return Interval { low: -1.0, high: 1.0 };
        }
        let centre = self.difference();
        // The statistic falls as the difference grows: both ends are found by halving.
        let low = bisect(-1.0, centre, |delta| self.score(delta) > Z95);
        let high = bisect(centre, 1.0, |delta| self.score(delta) > -Z95);
        Interval { low, high }
    }

    /// McNemar's exact two-sided p: twice the lower tail of Binomial(lost + won, 1/2), at most 1. 1 when no
    /// question separates the models.
    pub fn mcnemar_p(self) -> f64 {
        let trials = self.lost + self.won;
        let fewer = self.lost.min(self.won);
        if self.lost == self.won {
            return 1.0;
        }
        // C(trials, fewer) / 2^trials as a running product, halved (which is exact) whenever it exceeds 1: no
        // factorial overflows, and no logarithm loses digits.
        let above = trials - fewer;
        let (mut term, mut halvings) = (1.0_f64, trials);
        for i in 1..=fewer {
            term *= (above + i) as f64 / i as f64;
            while term > 1.0 && halvings > 0 {
                term *= 0.5;
                halvings -= 1;
            }
        }
        term *= 0.5_f64.powf(halvings as f64);
        let mut tail = 0.0;
        let mut successes = fewer;
        loop {
            tail += term;
            if successes == 0 || term <= tail * f64::EPSILON {
                break;
            }
            term *= successes as f64 / (trials - successes + 1) as f64;
            successes -= 1;
        }
        (2.0 * tail).min(1.0)
    }
}

/// The point in `[low, high]` up to which `holds` is true, to the last bits.
fn bisect(mut low: f64, mut high: f64, holds: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if holds(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// Wilson's 95 % score interval of `correct / n`. `[0, 1]` for no questions.
pub fn wilson(correct: u64, n: u64) -> Interval {
    if n == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let (count, share) = (n as f64, correct as f64 / n as f64);
    let z2 = Z95 * Z95;
    let centre = share + z2 / (2.0 * count);
    let half = Z95 * ((share * (1.0 - share) + z2 / (4.0 * count)) / count).sqrt();
    let scale = 1.0 + z2 / count;
    // At the ends rounding must not leave a residue of 1e-17.
    let low = if correct == 0 { 0.0 } else { (centre - half) / scale };
    let high = if correct == n { 1.0 } else { (centre + half) / scale };
    Interval { low, high }
}

/// Holm's adjusted p-values, in the order of `p`: comparing them with 0.05 keeps the chance of even one false
/// finding in the whole family below 5 %, whatever the dependence between the tests.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut adjusted = vec![0.0; p.len()];
    let mut largest = 0.0_f64;
    for (rank, &index) in order.iter().enumerate() {
        largest = largest.max((p[index] * (p.len() - rank) as f64).min(1.0));
        adjusted[index] = largest;
    }
    adjusted
}

/// Kullback-Leibler divergence D(baseline || variant), in nats, between the softmax of the candidates' scores
/// (natural logarithms up to a constant; both slices of one length). Never negative.
pub fn kl_divergence(baseline: &[f64], variant: &[f64]) -> f64 {
    let (p, q) = (log_softmax(baseline), log_softmax(variant));
    // A sum of rounded terms can fall below zero by some 1e-17.
    p.zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>().max(0.0)
}

fn log_softmax(scores: &[f64]) -> impl Iterator<Item = f64> {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = scores.iter().map(|score| (score - largest).exp()).sum::<f64>().ln();
    scores.iter().map(move |score| score - largest - log_sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The expected figures come from Python: intervals by numerical constrained maximisation of the
    // multinomial likelihood and root finding (scipy 1.17.1 `minimize_scalar` and `brentq`, so not by the formula used here), p by
    // `scipy.stats.binomtest`, Wilson by its `proportion_ci("wilson")`, KL by `scipy.special.rel_entr`.

    fn close(actual: f64, expected: f64, relative: f64) {
        assert!((actual - expected).abs() <= relative * expected.abs(), "{actual} is not {expected}");
    }

    #[test]
    fn tango_interval_equals_numerical_likelihood() {
        for (lost, won, n, low, high) in [
            (40, 20, 160, -0.218_064_244_166_824_82, -0.030_864_533_133_086_722),
            (12, 2, 50, -0.344_708_748_282_148_76, -0.061_112_406_186_343_99),
            (60, 49, 1962, -0.016_272_480_421_603_345, 0.004_901_286_506_496_633),
            (35, 30, 1962, -0.010_882_733_195_475_456, 0.005_658_563_906_755_029),
            (3, 1, 1680, -0.004_705_433_319_831_686, 0.001_728_798_045_422_558_6),
            (0, 0, 1000, -0.003_826_758_485_555_123, 0.003_826_758_485_555_123),
            (0, 5, 1000, 0.001_154_107_722_017_050_2, 0.011_650_955_373_375_118),
            (120, 60, 1962, -0.044_255_444_412_820_796, -0.017_373_318_514_838_2),
            (5, 0, 40, -0.261_121_198_388_510_94, -0.026_425_698_653_052_52),
        ] {
            let interval = Discordant { lost, won, n }.interval();
            close(interval.low, low, 1e-8);
            close(interval.high, high, 1e-8);
        }
    }

    /// The data of Bentur et al. 2009, a worked example of Fagerland, Lydersen and Laake 2014.
    #[test]
    fn tango_interval_equals_the_published_one() {
        let interval = Discordant { lost: 7, won: 1, n: 21 }.interval();
        assert_eq!(format!("{:.3} {:.3}", interval.low, interval.high), "-0.517 -0.026");
    }

    #[test]
    fn interval_mirrors_when_the_models_change_places() {
        let there = Discordant { lost: 60, won: 49, n: 1962 }.interval();
        let back = Discordant { lost: 49, won: 60, n: 1962 }.interval();
        close(there.low, -back.high, 1e-9);
        close(there.high, -back.low, 1e-9);
    }

    #[test]
    fn interval_of_extreme_tables_stays_in_range() {
        for (lost, won, n) in [(0, 10, 10), (10, 0, 10), (1, 0, 1), (0, 0, 1), (5, 5, 10), (0, 0, 0)] {
            let discordant = Discordant { lost, won, n };
            let Interval { low, high } = discordant.interval();
            let difference = discordant.difference();
            assert!(-1.0 <= low && low <= difference && difference <= high && high <= 1.0, "{low} {high}");
        }
    }

    #[test]
    fn mcnemar_equals_scipy() {
        for (lost, won, p) in [
            (0, 0, 1.0),
            (0, 1, 1.0),
            (1, 1, 1.0),
            (5, 1, 0.21875),
            (0, 20, 1.907_348_632_812_5e-6),
            (0, 60, 1.734_723_475_976_807e-18),
            (60, 49, 0.338_185_412_196_661_43),
            (300, 200, 8.940_066_542_253_288e-6),
            (5000, 5200, 0.048_787_963_126_822_34),
            (100_000, 101_000, 0.025_862_392_439_732_95),
        ] {
            close(Discordant { lost, won, n: 1_000_000 }.mcnemar_p(), p, 1e-9);
            close(Discordant { lost: won, won: lost, n: 1_000_000 }.mcnemar_p(), p, 1e-9);
        }
    }

    #[test]
    fn wilson_equals_scipy() {
        for (correct, n, low, high) in [
            (870, 1962, 0.421_574_671_228_085_8, 0.465_496_588_255_281_95),
            (919, 1962, 0.446_402_818_461_645_63, 0.490_519_867_015_550_7),
            (0, 10, 0.0, 0.277_532_799_862_889_26),
            (10, 10, 0.722_467_200_137_110_1, 1.0),
            (1, 1, 0.206_549_314_377_237_45, 1.0),
        ] {
            let interval = wilson(correct, n);
            close(interval.low, low, 1e-12);
            close(interval.high, high, 1e-12);
        }
    }

    #[test]
    fn kl_equals_scipy_and_is_zero_for_equal_distributions() {
        let (p, q) = ([-1.5, -2.25, -0.5, -4.0], [-1.0, -2.5, -0.75, -3.0]);
        close(kl_divergence(&p, &q), 0.069_922_363_707_407_27, 1e-12);
        close(kl_divergence(&q, &p), 0.078_373_701_962_252_88, 1e-12);
        assert_eq!(kl_divergence(&p, &p.map(|score| score - 700.0)), 0.0);
    }

    /// By hand: sorted 0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 x 1 raised to its predecessor.
    #[test]
    fn holm_steps_down_and_stays_monotone() {
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (actual, expected) in adjusted.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            close(*actual, expected, 1e-12);
        }
        assert_eq!(holm(&[0.7, 0.9]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
    }
}
