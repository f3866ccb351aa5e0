//! Texts that the tests of metrics share.

use qpipe_nodes::results::Figure;

use super::{Metric, together};

/// Of so many first pairs: the value, and its standard error.
pub(super) type Expected = [(usize, f64, f64); 3];

/// Right texts and replies.
const PAIRS: [[&str; 2]; 10] = [
    ["The cat sat on the mat, didn't it?", "the cat sat on a mat, did it not?"],
    ["It costs $1,234.50 (about 1-2 weeks' pay).", "It costs 1,234.50 dollars - about 2 weeks' pay."],
    ["Ärger über 3.5% Zinsen &amp; \"Gebühren\"", "Über 3.5% Zinsen & \"Gebühren\" Ärger  \n"],
    [
        "on Monday the president of the club met the minister",
        "the president of the club met the minister on Monday",
    ],
    ["", "nothing is expected"],
    ["something is expected", ""],
    ["x", "x"],
    ["one two three four five six seven", "seven six five four three two one"],
    ["東京は日本の首都です。 Tokyo!", "東京は 日本の首都 。Tokyo !"],
    ["a-\nb <skipped> 5-6 [c] ~d", "ab 5 - 6 c d~ a\u{a0}b"],
];

/// Compares a metric's figures with those `expected`.
pub(super) fn check(metric: &dyn Metric, expected: Expected) {
    let figures = PAIRS.map(|pair| Figure::Texts(pair.map(str::to_owned)));
    for (count, expected, spread) in expected {
        let figures: Vec<&Figure> = figures.iter().take(count).collect();
        let (value, stderr) = together(metric, &figures, 2).expect("a figure");
        assert!((value - expected).abs() < 1e-9, "{count}: {value}, expected {expected}");
        let is_close = stderr.map_or(count == 1, |stderr| (stderr - spread).abs() < 1e-9);
        assert!(is_close, "{count}: {stderr:?}, expected {spread}");
    }
}
