//! Metrics of all questions together, which are not the mean of what each question is worth: one file a metric, under
//! lm-eval's names, and a line in [`METRICS`].
//!
//! A metric first turns what each question adds into counts. Its value is then a function of any selection of questions, so
//! that the standard error is the spread over selections (see [`super::bootstrap`]).

mod bleu;
mod chrf;
mod f1;
mod labels;
mod mcc;
mod ngrams;
mod perplexity;
mod ter;
mod ter_edits;
#[cfg(test)]
mod texts;

use qpipe_nodes::results::Figure;

use super::bootstrap;

pub(super) use labels::NO_LABEL;

/// The value of a metric of some questions, which are named by their numbers; one may come several times.
pub(super) type Value = Box<dyn Fn(&[usize]) -> f64 + Sync>;

/// What a question adds to a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// [`Figure::Texts`].
    Texts,
    /// [`Figure::Labels`].
    Labels,
    /// [`Figure::Number`], the log-likelihood of a text.
    Nothing,
}

/// A metric of all questions together.
pub(super) trait Metric: Sync {
    /// As task files name it.
    fn name(&self) -> &'static str;

    /// What each question adds to it.
    fn compares(&self) -> Compared;

    /// How many selections of questions lm-eval draws for its standard error.
    fn selections(&self) -> usize;

    /// Its value, of what each question adds.
    ///
    /// # Errors
    /// In words, when it has no meaning for these questions.
    fn of(&self, figures: &[&Figure]) -> Result<Value, String>;
}

/// The metrics.
static METRICS: [&dyn Metric; 7] = [
    &bleu::Bleu,
    &chrf::Chrf { name: "chrf", word_order: 0 },
    &chrf::Chrf { name: "chrf++", word_order: 2 },
    &f1::F1,
    &mcc::Mcc,
    &perplexity::Perplexity,
    &ter::Ter,
];

/// lm-eval's `bootstrap_iters`.
const SELECTIONS: usize = 100_000;
/// The same for what takes long.
const FEW_SELECTIONS: usize = 100;

/// The metric `name`, if it is one of all questions together.
pub(super) fn named(name: &str) -> Option<&'static dyn Metric> {
    METRICS.into_iter().find(|metric| metric.name() == name)
}

/// Whether a metric compares the reply to a question with one right text, and not with any of several.
pub(super) fn compares_texts(name: &str) -> bool {
    named(name).is_some_and(|metric| metric.compares() == Compared::Texts)
}

/// Whether a metric compares the chosen label with the right one.
pub(super) fn compares_labels(name: &str) -> bool {
    named(name).is_some_and(|metric| metric.compares() == Compared::Labels)
}

/// The value of a metric, and its standard error.
///
/// # Errors
/// In words, when it has no meaning for these questions.
pub(super) fn together(
    metric: &dyn Metric,
    figures: &[&Figure],
    threads: usize,
) -> Result<(f64, Option<f64>), String> {
    let value = metric.of(figures)?;
    let all: Vec<usize> = (0..figures.len()).collect();
    Ok((value(&all), bootstrap::stderr(all.len(), metric.selections(), &value, threads)))
}

/// What each question adds to a metric of two texts: counts of its right text and its reply.
fn counts_of_texts<const N: usize>(
    figures: &[&Figure],
    counts: impl Fn(&str, &str) -> [u64; N],
) -> Vec<[u64; N]> {
    let of = |figure: &&Figure| match figure {
        Figure::Texts([right, reply]) => counts(right, reply),
        // No task makes another figure under the name of such a metric.
        _ => [0; N],
    };
    figures.iter().map(of).collect()
}

/// The sum of the counts of the questions `selected`.
fn sum<const N: usize>(counts: &[[u64; N]], selected: &[usize]) -> [u64; N] {
    let mut sums = [0; N];
    for &question in selected {
        for (sum, count) in sums.iter_mut().zip(&counts[question]) {
            *sum += count;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_task_files() {
        for metric in METRICS {
            let name = metric.name();
            assert!(named(name).is_some_and(|found| found.name() == name), "{name}");
            let lower = ["perplexity", "ter"].contains(&name);
            assert_eq!(qpipe_nodes::task_file::more_is_better(name), !lower, "{name}");
        }
        assert!(named("acc").is_none());
    }
}
