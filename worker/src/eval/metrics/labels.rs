//! Labels of questions to choose from: the right one and the chosen one.

use std::collections::BTreeMap;

use qpipe_nodes::results::Figure;

/// What stands for a right label that is none of the choices.
pub(in crate::eval) const NO_LABEL: i64 = -100;

/// The pairs of a right label and a chosen one.
pub(super) fn pairs(figures: &[&Figure]) -> Vec<[i64; 2]> {
    let pair = |figure: &&Figure| match figure {
        Figure::Labels(pair) => *pair,
        // No task makes another figure under the name of such a metric.
        _ => [NO_LABEL; 2],
    };
    figures.iter().map(pair).collect()
}

/// The labels that occur, numbered in their order.
pub(super) fn numbered(pairs: &[[i64; 2]]) -> BTreeMap<i64, usize> {
    let mut labels: BTreeMap<i64, usize> = pairs.iter().flatten().map(|&label| (label, 0)).collect();
    for (number, place) in labels.values_mut().enumerate() {
        *place = number;
    }
    labels
}
