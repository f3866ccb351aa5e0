//! The table of a comparison, for the document and for the terminal.

use qpipe_nodes::results::{BenchmarkResult, Divergence};

use super::comparison::{Against, Comparison, Difference, Row};
use super::names::{Named, RowName};
use super::{format, generation};

/// A column: its heading, and its cell for a row (empty where the row has none).
struct Column {
    heading: &'static str,
    cell: fn(&Named<'_>, &Row) -> String,
    /// Figures stand to the right, names to the left.
    is_figure: bool,
    /// Whether the terminal shows it too: lines there are short.
    on_terminal: bool,
}

impl Column {
    const fn figure(heading: &'static str, cell: fn(&Named<'_>, &Row) -> String) -> Self {
        Self { heading, cell, is_figure: true, on_terminal: true }
    }

    const fn name(heading: &'static str, cell: fn(&Named<'_>, &Row) -> String) -> Self {
        Self { heading, cell, is_figure: false, on_terminal: true }
    }

    const fn in_document_only(mut self) -> Self {
        self.on_terminal = false;
        self
    }
}

const COLUMNS: &[Column] = &[
    Column::figure("accuracy %", |_, row| asked(row, format::percent(row.accuracy))),
    Column::figure("95 %", |_, row| {
        asked(row, format!("{} to {}", format::percent(row.ci95.low), format::percent(row.ci95.high)))
    })
    .in_document_only(),
    Column::figure("right", |_, row| {
        asked(row, format!("{}/{}", format::count(row.correct), format::count(row.n)))
    }),
    Column::figure("word perplexity", |_, row| {
        perplexity(row).map_or(String::new(), |value| format!("{value:.3}"))
    }),
    Column::name("linear layers", |_, row| row.scheme.clone()).in_document_only(),
    Column::name("against", |named, row| match &row.against {
        Some(Against::Paired { baseline, .. }) => named.name(*baseline).to_owned(),
        Some(Against::Unpaired { .. }) | None => String::new(),
    }),
    Column::figure("points", |_, row| of_difference(row, |d| format::points(d.diff))),
    Column::figure("95 % of points", |_, row| {
        of_difference(row, |d| format!("{} to {}", format::points(d.ci95.low), format::points(d.ci95.high)))
    }),
    Column::figure("p", |_, row| of_difference(row, |d| format::probability(d.mcnemar_p))),
    Column::figure("p (Holm)", |_, row| of_difference(row, |d| format::probability(d.holm_p)))
        .in_document_only(),
    Column::figure("flips %", |_, row| of_difference(row, |d| format::percent(d.flips))),
    Column::figure("KL", |_, row| of_difference(row, |d| d.kl.map_or(String::new(), format::divergence))),
    Column::figure("KL/token", |_, row| of_divergence(row, |d| format::divergence(d.mean()))),
    Column::figure("top-1 %", |_, row| of_divergence(row, |d| format::percent(d.agreement()))),
    Column::figure("time/question", |_, row| of_benchmark(row, |b| format::duration(b.avg_time_s))),
    Column::figure("tokens/s", |_, row| of_benchmark(row, |b| format::quantity(b.tokens_per_s))),
    Column::figure("peak MiB", |_, row| of_benchmark(row, |b| format::quantity(b.avg_peak_vram_mb))),
    Column::figure("score", |_, row| {
        row.score_acc_over_vram().map_or(String::new(), |score| format!("{score:.3}"))
    })
    .in_document_only(),
];

/// Nothing where no question was asked that can be answered rightly.
fn asked(row: &Row, text: String) -> String {
    if row.n == 0 { String::new() } else { text }
}

/// That of the one text, where there is one.
fn perplexity(row: &Row) -> Option<f64> {
    let metrics = row.tasks.iter().flat_map(|task| &task.figures.metrics);
    let mut found = metrics.filter(|metric| metric.name == "word_perplexity").map(|metric| metric.value);
    found.next().filter(|_| found.next().is_none())
}

fn of_difference(row: &Row, text: impl Fn(&Difference) -> String) -> String {
    row.difference().map_or(String::new(), |(_, difference)| text(difference))
}

fn of_divergence(row: &Row, text: impl Fn(&Divergence) -> String) -> String {
    row.divergence.as_ref().filter(|divergence| divergence.tokens > 0).map_or(String::new(), text)
}

fn of_benchmark(row: &Row, text: impl Fn(&BenchmarkResult) -> String) -> String {
    row.benchmark().map_or(String::new(), text)
}

/// A column with its cells.
struct Filled {
    heading: &'static str,
    is_figure: bool,
    cells: Vec<String>,
}

/// The names, then each wanted column that is not empty in every row.
fn filled(named: &Named<'_>, wanted: impl Fn(&Column) -> bool) -> Vec<Filled> {
    let names = named.iter().map(|(name, _)| name.to_owned()).collect();
    let mut columns = vec![Filled { heading: "model", is_figure: false, cells: names }];
    for column in COLUMNS.iter().filter(|column| wanted(column)) {
        let cells: Vec<String> = named.iter().map(|(_, row)| (column.cell)(named, row)).collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            columns.push(Filled { heading: column.heading, is_figure: column.is_figure, cells });
        }
    }
    columns
}

/// The table in Markdown.
pub(super) fn markdown(named: &Named<'_>) -> String {
    let columns = filled(named, |_| true);
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(columns.iter().map(|column| column.heading.to_owned()).collect());
    for column in &columns {
        text.push_str(if column.is_figure { "|---:" } else { "|---" });
    }
    text.push_str("|\n");
    for index in 0..named.iter().count() {
        text.push_str(&line(columns.iter().map(|column| escaped(&column.cells[index])).collect()));
    }
    text
}

/// `text` so that it stays within its cell.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// The table in plain text, its columns aligned, a line a row; ends with a line break. `names` are
/// in the order of the rows. A row whose model was measured while other programs ran is marked, with a line below.
pub fn table(comparison: &Comparison, names: &[RowName]) -> String {
    let named = Named::new(comparison, names);
    let mut columns = filled(&named, |column| column.on_terminal);
    let busy: Vec<bool> =
        named.iter().map(|(_, row)| row.benchmarks.iter().any(generation::is_busy)).collect();
    if let Some(names) = columns.first_mut() {
        for (name, _) in names.cells.iter_mut().zip(&busy).filter(|(_, is_busy)| **is_busy) {
            name.push_str(" *");
        }
    }
    let width = |text: &str| text.chars().count();
    let mut text = String::new();
    for line in 0..=comparison.rows.len() {
        let mut cells = Vec::with_capacity(columns.len());
        for column in &columns {
            let cell = if line == 0 { column.heading } else { column.cells[line - 1].as_str() };
            let widest = column.cells.iter().map(|cell| width(cell)).max().unwrap_or(0);
            let padding = " ".repeat(widest.max(width(column.heading)) - width(cell));
            cells.push(if column.is_figure { padding + cell } else { cell.to_owned() + &padding });
        }
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    if busy.contains(&true) {
        text.push_str(&format!("*: other programs ran meanwhile; {}.\n", generation::AGAIN));
    }
    text
}
