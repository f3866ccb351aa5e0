//! The sentences of a report, made from its figures.

use qpipe_nodes::results::BenchmarkResult;

use super::comparison::{Against, Difference};
use super::names::Named;
use super::statistics::Interval;
use super::{describe, format};

/// What can be said about each row's accuracy against its baseline.
pub(super) fn accuracy(named: &Named<'_>) -> Vec<String> {
    let mut sentences = Vec::new();
    for (name, row) in named.iter() {
        match &row.against {
            None => {}
            Some(Against::Unpaired { baseline, reason }) => sentences.push(format!(
                "**{name}** is not compared with **{}** question by question: {reason}.",
                named.name(*baseline)
            )),
            Some(Against::Paired { baseline, difference }) => {
                sentences.push(verdict(name, named.name(*baseline), difference, row.n));
            }
        }
    }
    sentences
}

fn verdict(name: &str, baseline: &str, difference: &Difference, n: u64) -> String {
    let questions = format::plural(n, "question");
    if difference.flipped == 0 {
        return match difference.kl {
            Some(kl) => format!(
                "**{name}** gives the answer of **{baseline}** to every one of {questions} (KL {}).",
                format::divergence(kl)
            ),
            None => format!("**{name}** is right and wrong where **{baseline}** is, in all of {questions}."),
        };
    }
    let balance = balance(difference);
    let interval = interval(difference.ci95);
    let p = format::probability_of("p", difference.mcnemar_p);
    let holm = format::probability_of("corrected p", difference.holm_p);
    if difference.is_real() {
        let direction = if difference.diff < 0.0 { "worse" } else { "better" };
        return format!(
            "**{name}** is {direction} than **{baseline}**, and not by chance: {balance}, {} points, 95 % \
             interval {interval}; {p}, {holm}.",
            format::points(difference.diff),
        );
    }
    let flips = format!(
        "{} ({} %) changed, rightly or not",
        format::plural(difference.flipped, "answer"),
        format::percent(difference.flips)
    );
    let test = if difference.mcnemar_p < super::SIGNIFICANCE {
        format!("alone this would pass ({p}), among all comparisons of this report it does not ({holm})")
    } else {
        format!("chance alone does as much ({p})")
    };
    format!(
        "**{name}** cannot be told from **{baseline}** by {questions}: {balance}, and {test}. The 95 % interval \
         of the difference is {interval} points; {flips}."
    )
}

/// `5 fewer right (60 lost, 55 won)`.
fn balance(difference: &Difference) -> String {
    let (lost, won) = (difference.lost, difference.won);
    let counts = format!("{} lost, {} won", format::count(lost), format::count(won));
    match won.cmp(&lost) {
        std::cmp::Ordering::Less => format!("{} fewer right ({counts})", format::count(lost - won)),
        std::cmp::Ordering::Greater => format!("{} more right ({counts})", format::count(won - lost)),
        std::cmp::Ordering::Equal => format!("as many right ({counts})"),
    }
}

fn interval(ci95: Interval) -> String {
    format!("{} to {}", format::points(ci95.low), format::points(ci95.high))
}

/// How speed and memory relate to the baseline's, for rows that were measured alike.
pub(super) fn speed(named: &Named<'_>) -> Vec<String> {
    let mut sentences = Vec::new();
    for (name, row) in named.iter() {
        let Some(against) = &row.against else { continue };
        let (Against::Paired { baseline, .. } | Against::Unpaired { baseline, .. }) = against;
        let theirs = &named.row(*baseline).benchmarks;
        if row.benchmarks.is_empty() || theirs.is_empty() {
            continue;
        }
        let baseline = named.name(*baseline);
        let mut related = 0;
        for own in &row.benchmarks {
            // A quantized model in 16 bits is set beside its base in float32 where that was measured in nothing else.
            let alike = theirs.iter().filter(|theirs| describe::same_setting(own, theirs));
            let Some(theirs) = alike.min_by_key(|theirs| theirs.dtype != own.dtype) else {
                continue;
            };
            related += 1;
            let how = match row.benchmarks.as_slice() {
                [_] => String::new(),
                several => format!(" ({})", describe::among(several, own)),
            };
            sentences.push(format!("**{name}**{how}: {}", relation(own, theirs, baseline)));
        }
        if related == 0 {
            sentences.push(format!(
                "**{name}** and **{baseline}** were measured differently: their speeds are not set in relation."
            ));
        }
    }
    sentences
}

fn relation(own: &BenchmarkResult, theirs: &BenchmarkResult, baseline: &str) -> String {
    let mut sentence = format!(
        "{} the tokens/s of **{baseline}**, {} its peak memory",
        times(own.tokens_per_s, theirs.tokens_per_s),
        times(own.avg_peak_vram_mb, theirs.avg_peak_vram_mb),
    );
    if own.weight_bytes > 0 && theirs.weight_bytes > 0 {
        sentence.push_str(&format!(
            ", {} its weights' bytes",
            times(own.weight_bytes as f64, theirs.weight_bytes as f64)
        ));
    }
    if own.time_p10_s <= theirs.time_p90_s && theirs.time_p10_s <= own.time_p90_s {
        sentence.push_str(" (the spreads of their times a question overlap)");
    }
    sentence.push('.');
    sentence
}

/// `1.21 x`.
fn times(own: f64, theirs: f64) -> String {
    if theirs > 0.0 { format!("{:.2} x", own / theirs) } else { "an unknown multiple of".to_owned() }
}
