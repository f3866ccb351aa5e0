//! Runs of words or characters, counted.

use std::collections::HashMap;
use std::hash::Hash;

/// How often each run of `order` items comes.
pub(super) fn counted<T: Eq + Hash>(items: &[T], order: usize) -> HashMap<&[T], u64> {
    let mut counts = HashMap::new();
    for run in items.windows(order) {
        *counts.entry(run).or_default() += 1;
    }
    counts
}

/// How many runs of one text are found in another, each as often as it is there.
pub(super) fn matches<T: Eq + Hash>(one: &HashMap<&[T], u64>, other: &HashMap<&[T], u64>) -> u64 {
    one.iter().map(|(run, &count)| count.min(other.get(run).copied().unwrap_or_default())).sum()
}
