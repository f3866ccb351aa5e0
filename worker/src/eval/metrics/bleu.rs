//! `bleu` (Papineni et al., 2002) of all replies against one right text each, as sacrebleu computes it by default: words of
//! mteval-v13a, runs of up to four words, exponential smoothing.

use std::sync::LazyLock;

use qpipe_nodes::results::Figure;
use regex::Regex;

use super::{Compared, FEW_SELECTIONS, Metric, Value, counts_of_texts, ngrams, sum};
use crate::eval::python;

/// Words of the longest run.
const ORDER: usize = 4;
/// Words of the reply and of the right text; for each length of runs those that match, and those of the reply.
const COUNTS: usize = 2 + 2 * ORDER;

/// The metric.
pub(super) struct Bleu;

impl Metric for Bleu {
    fn name(&self) -> &'static str {
        "bleu"
    }

    fn compares(&self) -> Compared {
        Compared::Texts
    }

    fn selections(&self) -> usize {
        FEW_SELECTIONS
    }

    fn of(&self, figures: &[&Figure]) -> Result<Value, String> {
        let counts = counts_of_texts(figures, counts);
        Ok(Box::new(move |selected| value(sum(&counts, selected))))
    }
}

fn counts(right: &str, reply: &str) -> [u64; COUNTS] {
    let (right, reply) = (tokenized(right), tokenized(reply));
    let (right, reply): (Vec<&str>, Vec<&str>) =
        (python::split(&right).collect(), python::split(&reply).collect());
    let mut counts = [0; COUNTS];
    counts[0] = reply.len() as u64;
    counts[1] = right.len() as u64;
    for order in 1..=ORDER {
        let found = ngrams::matches(&ngrams::counted(&reply, order), &ngrams::counted(&right, order));
        counts[1 + order] = found;
        counts[1 + ORDER + order] = (reply.len() + 1).saturating_sub(order) as u64;
    }
    counts
}

fn value(counts: [u64; COUNTS]) -> f64 {
    let (reply, right) = (counts[0] as f64, counts[1] as f64);
    let (matching, total) = counts[2..].split_at(ORDER);
    if matching.iter().all(|&count| count == 0) {
        return 0.0;
    }
    let brevity = if reply < right { (1.0 - right / reply).exp() } else { 1.0 };
    // What has no match counts as half a match, the next as a quarter.
    let mut part = 1.0;
    let mut logarithms = 0.0;
    for (&matching, &total) in matching.iter().zip(total) {
        // No reply is as long as that.
        if total == 0 {
            return 0.0;
        }
        let matching = if matching == 0 {
            part /= 2.0;
            part
        } else {
            matching as f64
        };
        logarithms += (100.0 * matching / total as f64).ln();
    }
    brevity * (logarithms / ORDER as f64).exp()
}

/// What is replaced, one after another: punctuation and signs stand alone, but for full stops, commas and hyphens in numbers.
static SEPARATED: LazyLock<[(Regex, &str); 4]> = LazyLock::new(|| {
    [
        (r"[{-~\[-` -&(-+:-@/]", " $0 "),
        (r"([^0-9])([.,])", "$1 $2 "),
        (r"([.,])([^0-9])", " $1 $2"),
        (r"([0-9])(-)", "$1 $2 "),
    ]
    .map(|(pattern, with)| (Regex::new(pattern).expect("a constant pattern"), with))
});

/// The text with blanks between its words.
fn tokenized(text: &str) -> String {
    let mut text = python::strip_end(text).replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    for (name, character) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
        text = text.replace(name, character);
    }
    let text = format!(" {text} ");
    SEPARATED.iter().fold(text, |text, (pattern, with)| pattern.replace_all(&text, *with).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::metrics::texts;

    /// What is expected is what lm_eval 0.4.13 gives with sacrebleu 2.6.0: corpus_bleu, and bootstrap_stderr(bleu, pairs, 100).
    #[test]
    fn values_are_those_of_sacrebleu() {
        texts::check(&Bleu, EXPECTED);
    }

    #[test]
    fn words_are_those_of_mteval() {
        for (text, expected) in WORDS {
            let found = tokenized(text);
            assert_eq!(python::split(&found).collect::<Vec<_>>().join(" "), expected, "{text:?}");
        }
    }

    const EXPECTED: texts::Expected = [
        (1, 19.72940627795883, 0.0),
        (3, 35.431371795284825, 16.2335936614077),
        (10, 40.00692613771813, 11.05958963095929),
    ];
    const WORDS: [(&str, &str); 4] = [
        (
            "Mr. O'Neil's 3.14, 1,000.- and <a>{b}_c|d;e:f",
            "Mr . O'Neil's 3.14 , 1,000 . - and < a > { b } _ c | d ; e : f",
        ),
        ("5-6 -7 a-b .5 5. ,x", "5 - 6 -7 a-b . 5 5 . , x"),
        ("&amp;lt; &quot;x&quot; a&b €5%", "< \" x \" a & b €5 %"),
        ("x-\ny\nz<skipped>…—«»'", "xy z…—«»'"),
    ];
}
