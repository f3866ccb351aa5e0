//! `document: recovery`: how much of a base model's accuracy its quantized versions keep, in the layout of the published
//! study of Llama-3.1-8B.

use super::comparison::{Comparison, Row};
use super::lm_eval::{TableVersion, groups_table, tasks_table};
use super::names::Named;
use super::{describe, format, tasks};

/// The document under `heading`.
pub(super) fn render(comparison: &Comparison, named: &Named<'_>, heading: &str) -> String {
    let mut sections = vec![format!("# {heading}"), "## Goal".to_owned(), goal(named)];
    sections.extend(["## Hardware".to_owned(), hardware(named)]);
    for (name, row) in named.iter() {
        if row.difference().is_none() {
            sections.extend(["## Base Model".to_owned(), described(name, row)]);
        }
    }
    for (name, row) in named.iter().filter(|(_, row)| row.difference().is_some()) {
        sections.extend(["## Quantized Model".to_owned(), described(name, row)]);
        sections.extend(["## Quantization Scheme".to_owned(), scheme(row)]);
    }
    for (name, row) in named.iter() {
        let role = if row.difference().is_some() { "Compressed" } else { "Base" };
        sections.push(format!("## Accuracy Results for {role} Model: {name}"));
        sections.push(printed(row, comparison.table));
    }
    for (name, row) in named.iter() {
        let table = tasks::recovery_table(row);
        if !table.is_empty() {
            sections.extend([format!("## Recovery of {name}"), table]);
        }
    }
    sections.extend(["## Observation".to_owned(), observations(named)]);
    let mut text = sections.join("\n\n");
    text.push('\n');
    text
}

/// lm-eval's tables of a row's tasks.
pub(super) fn printed(row: &Row, version: TableVersion) -> String {
    let results = tasks::results(row);
    let mut text = tasks_table(&results, version);
    if let Some(groups) = groups_table(&results, version) {
        text.push('\n');
        text.push_str(&groups);
    }
    format!("```text\n{}\n```", text.trim_end())
}

fn goal(named: &Named<'_>) -> String {
    let compared = named.iter().filter(|(_, row)| row.difference().is_some()).count() as u64;
    format!(
        "How much of the base model's accuracy is kept by {}: the same questions were put to all of them, and answers are compared \
         question by question.",
        if compared == 1 {
            "its compressed version".to_owned()
        } else {
            format::plural(compared, "compressed version")
        },
    )
}

fn hardware(named: &Named<'_>) -> String {
    let of_row = |row: &Row| -> Vec<String> {
        if row.benchmarks.is_empty() {
            return vec![row.device.clone()];
        }
        row.benchmarks.iter().map(|it| format!("{} ({})", it.hardware, it.device)).collect()
    };
    describe::distinct(named.iter().flat_map(|(_, row)| of_row(row)))
}

fn described(name: &str, row: &Row) -> String {
    format!("{name}, computed in {} ({})", row.dtype, row.scheme)
}

fn scheme(row: &Row) -> String {
    match &row.quantization {
        Some(how) => format!("{}: {}", row.scheme, describe::quantization(how)),
        None => row.scheme.clone(),
    }
}

fn observations(named: &Named<'_>) -> String {
    let lines: Vec<String> =
        named.iter().filter_map(|(name, row)| tasks::observation(named, name, row)).collect();
    if lines.is_empty() {
        "No two models answered the same questions.".to_owned()
    } else {
        lines.join("\n\n")
    }
}
