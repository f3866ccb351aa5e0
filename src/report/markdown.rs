//! `report.md`: the comparison as a document.

use std::collections::BTreeSet;

use super::comparison::Row;
use super::lm_eval::TableVersion;
use super::names::Named;
use super::{describe, energy, findings, format, generation, recovery, speed, table, tasks};

/// Name of the file in `results/NAME/`.
pub(super) const MARKDOWN_FILE: &str = "report.md";

/// The document under `heading`.
pub(super) fn render(named: &Named<'_>, heading: &str, table_version: TableVersion) -> String {
    let mut sections = vec![format!("# {heading}"), data(named)];
    sections.extend(measuring(named));
    sections.push(table::markdown(named).trim_end().to_owned());
    sections.push(legend(named));
    let accuracy = findings::accuracy(named);
    if !accuracy.is_empty() {
        sections.push("## What is real".to_owned());
        sections.push(method(named));
        sections.push(bullets(&accuracy));
    }
    sections.extend(speed_and_memory(named));
    sections.extend(generation::section(named));
    sections.extend(energy::section(named));
    sections.extend(tasks_of(named, table_version));
    let quantized: Vec<String> = named
        .iter()
        .filter_map(|(name, row)| {
            row.quantization.as_ref().map(|how| format!("**{name}**: {}.", describe::quantization(how)))
        })
        .collect();
    if !quantized.is_empty() {
        sections.push("## How the rows were quantized".to_owned());
        sections.push(bullets(&quantized));
    }
    let mut text = sections.join("\n\n");
    text.push('\n');
    text
}

/// Ratios, all benchmarks where a model has several, and what else ran; nothing where there is nothing to say.
fn speed_and_memory(named: &Named<'_>) -> Vec<String> {
    let mut sections = speed::section(named);
    let ratios = findings::speed(named);
    if !ratios.is_empty() {
        sections.push(bullets(&ratios));
    }
    sections.extend(busy(named));
    if !ratios.is_empty() {
        sections.push(
            "Each row was measured once, on the machine as it was then: a ratio within some per cent of 1 \
             says nothing."
                .to_owned(),
        );
    }
    if !sections.is_empty() {
        sections.insert(0, "## Speed and memory".to_owned());
    }
    sections
}

/// lm-eval's tables, and what is left of each task.
fn tasks_of(named: &Named<'_>, version: TableVersion) -> Vec<String> {
    let mut sections = Vec::new();
    for (name, row) in named.iter().filter(|(_, row)| !row.tasks.is_empty()) {
        sections.extend([format!("## Tasks of {name}"), recovery::printed(row, version)]);
        let recovered = tasks::recovery_table(row);
        if !recovered.is_empty() {
            sections.push(recovered);
        }
    }
    sections
}

fn rows<'a>(named: &'a Named<'_>) -> impl Iterator<Item = &'a Row> {
    named.iter().map(|(_, row)| row)
}

/// What counts as right, by lm-eval's words for the kinds of tasks.
const RULES: [(&str, &str); 3] = [
    ("multiple_choice", "of choices the one with the highest summed log-probability is the answer"),
    ("loglikelihood", "a continuation is right where each of its tokens is the model's first choice"),
    ("generate_until", "a reply is right by its task's first filter and metric"),
];

/// Those of [`RULES`] that apply.
fn rules(named: &Named<'_>) -> String {
    let kinds: BTreeSet<&str> =
        rows(named).flat_map(|row| &row.tasks).map(|task| task.figures.output_type.as_str()).collect();
    RULES.iter().filter(|(kind, _)| kinds.contains(kind)).map(|(_, rule)| format!("; {rule}")).collect()
}

/// What was asked, and how answers were taken.
fn data(named: &Named<'_>) -> String {
    let devices = || {
        let dtype = describe::distinct(rows(named).map(|row| row.dtype.clone()));
        let device = describe::distinct(rows(named).map(|row| row.device.clone()));
        format!("computed in {dtype} on {device}")
    };
    if rows(named).all(|row| !row.tasks.is_empty()) {
        let n = describe::distinct(rows(named).map(|row| format::count(row.n)));
        let tasks = rows(named).map(|row| row.tasks.len()).max().unwrap_or(0) as u64;
        if rows(named).all(|row| row.n == 0) {
            return format!(
                "{} foresaw the texts of {}, {}. The tables below have their perplexity.",
                format::plural(named.iter().count() as u64, "model"),
                format::plural(tasks, "task"),
                devices(),
            );
        }
        return format!(
            "{} answered {n} questions of {}, {}. The accuracy is that of all questions together{}.",
            format::plural(named.iter().count() as u64, "model"),
            format::plural(tasks, "task"),
            devices(),
            rules(named),
        );
    }
    let n = describe::distinct(rows(named).map(|row| format::count(row.n)));
    let candidates =
        describe::distinct(rows(named).map(|row| describe::candidates(row.candidates).to_owned()));
    let bos = describe::distinct(rows(named).map(|row| describe::bos(row.bos).to_owned()));
    format!(
        "{} answered {n} four-choice questions. An answer is the choice with the highest \
         summed log-probability; {candidates} were scored, with {bos} before the prompt, {}.",
        format::plural(named.iter().count() as u64, "model"),
        devices(),
    )
}

/// How time and memory were measured, if they were.
fn measuring(named: &Named<'_>) -> Option<String> {
    let mut settings: Vec<String> =
        named.benchmarks().map(|(_, benchmark)| describe::setting(benchmark)).collect();
    settings.sort();
    settings.dedup();
    match settings.as_slice() {
        [] => None,
        [one] => Some(format!("Time and memory: {one}.")),
        several => {
            Some(format!("Time and memory were measured in {} ways:\n\n{}", several.len(), bullets(several)))
        }
    }
}

/// Which rows were measured while something else ran.
fn busy(named: &Named<'_>) -> Option<String> {
    let busy = named.benchmarks().filter(|(_, benchmark)| generation::is_busy(benchmark));
    let names: Vec<String> = busy.map(|(name, _)| format!("**{name}**")).collect();
    (!names.is_empty()).then(|| {
        let was = if names.len() == 1 { "was" } else { "were" };
        format!("Other programs ran while {} {was} measured: {}.", names.join(", "), generation::AGAIN)
    })
}

/// What the columns mean.
fn legend(named: &Named<'_>) -> String {
    let mut text = String::from("*95 %*: Wilson's interval of the accuracy.");
    if rows(named).any(|row| row.difference().is_some()) {
        text.push_str(
            " *points*: accuracy less that of the model *against*, in per cent of the questions, with Tango's paired 95 % interval. \
             *p*: McNemar's exact two-sided test; *Holm*: corrected for all comparisons of this table. *flips*: \
             questions to which another choice was given. *KL*: mean divergence of the choice probabilities \
             from those of the model *against*, in nats.",
        );
    }
    if rows(named).any(|row| row.benchmark().is_some()) {
        text.push_str(
            " *tokens/s*: tokens of prompt and candidate over all candidates. *peak MiB*: mean over questions of the \
             peak of allocated device memory. *score*: 1000 x accuracy / peak MiB.",
        );
    }
    text
}

/// How the verdicts are reached, and how far `n` questions reach.
fn method(named: &Named<'_>) -> String {
    let comparisons = rows(named).filter(|row| row.difference().is_some()).count() as u64;
    let half_widths = rows(named).map(|row| 0.5 * (row.ci95.high - row.ci95.low));
    let widest = half_widths.fold(0.0, f64::max);
    format!(
        "An accuracy by itself is known to about ±{:.1} points here. Models that answered the same questions are compared question by \
         question, which sees smaller differences. A difference is called real where McNemar's exact p, \
         corrected for {}, is below {}; where it is not, no difference has been shown, which is not a proof that there is none.",
        100.0 * widest,
        format::plural(comparisons, "comparison"),
        super::SIGNIFICANCE,
    )
}

fn bullets(lines: &[String]) -> String {
    lines.iter().map(|line| format!("- {line}")).collect::<Vec<_>>().join("\n")
}
