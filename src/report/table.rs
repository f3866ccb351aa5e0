//! The table of a comparison, for the document and for the terminal.

use super::comparison::{Against, Comparison, Row};
use super::format;
use super::names::{Named, RowName};

/// A column: its heading, and its cell for a row (empty where the row has none).
struct Column {
    heading: &'static str,
    cell: fn(&Named<'_>, &Row) -> String,
    /// Whether the terminal shows it too: lines there are short.
    on_terminal: bool,
}

const COLUMNS: &[Column] = &[
    Column { heading: "accuracy %", cell: |_, row| format::percent(row.accuracy), on_terminal: true },
    Column {
        heading: "95 %",
        cell: |_, row| format!("{} to {}", format::percent(row.ci95.low), format::percent(row.ci95.high)),
        on_terminal: false,
    },
    Column {
        heading: "right",
        cell: |_, row| format!("{}/{}", format::count(row.correct), format::count(row.n)),
        on_terminal: true,
    },
    Column { heading: "linear layers", cell: |_, row| row.scheme.clone(), on_terminal: false },
    Column {
        heading: "against",
        cell: |named, row| match &row.against {
            Some(Against::Paired { baseline, .. }) => named.name(*baseline).to_owned(),
            Some(Against::Unpaired { .. }) | None => String::new(),
        },
        on_terminal: true,
    },
    Column {
        heading: "points",
        cell: |_, row| row.difference().map_or(String::new(), |(_, d)| format::points(d.diff)),
        on_terminal: true,
    },
    Column {
        heading: "95 % of points",
        cell: |_, row| {
            row.difference().map_or(String::new(), |(_, d)| {
                format!("{} to {}", format::points(d.ci95.low), format::points(d.ci95.high))
            })
        },
        on_terminal: true,
    },
    Column {
        heading: "p",
        cell: |_, row| row.difference().map_or(String::new(), |(_, d)| format::probability(d.mcnemar_p)),
        on_terminal: true,
    },
    Column {
        heading: "p (Holm)",
        cell: |_, row| row.difference().map_or(String::new(), |(_, d)| format::probability(d.holm_p)),
        on_terminal: false,
    },
    Column {
        heading: "flips %",
        cell: |_, row| row.difference().map_or(String::new(), |(_, d)| format::percent(d.flips)),
        on_terminal: true,
    },
    Column {
        heading: "KL",
        cell: |_, row| row.difference().map_or(String::new(), |(_, d)| format::divergence(d.kl)),
        on_terminal: true,
    },
    Column {
        heading: "time/question",
        cell: |_, row| row.benchmark.as_ref().map_or(String::new(), |b| format::duration(b.avg_time_s)),
        on_terminal: true,
    },
    Column {
        heading: "tokens/s",
        cell: |_, row| row.benchmark.as_ref().map_or(String::new(), |b| format::quantity(b.tokens_per_s)),
        on_terminal: true,
    },
    Column {
        heading: "peak MiB",
        cell: |_, row| row.benchmark.as_ref().map_or(String::new(), |b| format::quantity(b.avg_peak_vram_mb)),
        on_terminal: true,
    },
    Column {
        heading: "score",
        cell: |_, row| row.score_acc_over_vram().map_or(String::new(), |score| format!("{score:.3}")),
        on_terminal: false,
    },
];

/// Heading and cells, column by column, with the columns that are empty in every row left out.
fn filled<'a>(
    named: &'a Named<'_>,
    wanted: impl Fn(&Column) -> bool + 'a,
) -> impl Iterator<Item = (&'static str, Vec<String>)> + 'a {
    COLUMNS.iter().filter(move |column| wanted(column)).filter_map(|column| {
        let cells: Vec<String> = named.iter().map(|(_, row)| (column.cell)(named, row)).collect();
        cells.iter().any(|cell| !cell.is_empty()).then_some((column.heading, cells))
    })
}

/// The table in Markdown.
pub(super) fn markdown(named: &Named<'_>) -> String {
    let columns: Vec<_> = filled(named, |_| true).collect();
    let mut text = String::from("| model |");
    for (heading, _) in &columns {
        text.push_str(&format!(" {heading} |"));
    }
    text.push_str("\n|---|");
    text.push_str(&"---:|".repeat(columns.len()));
    text.push('\n');
    for (index, (name, _)) in named.iter().enumerate() {
        text.push_str(&format!("| {} |", escaped(name)));
        for (_, cells) in &columns {
            text.push_str(&format!(" {} |", escaped(&cells[index])));
        }
        text.push('\n');
    }
    text
}

/// `text` so that it stays within its cell.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// The table in plain text, its columns aligned, a line a row; ends with a line break. `names` are
/// in the order of the rows.
pub fn table(comparison: &Comparison, names: &[RowName]) -> String {
    let named = Named::new(comparison, names);
    let mut columns = vec![("model", named.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>())];
    columns.extend(filled(&named, |column| column.on_terminal));
    let width = |text: &str| text.chars().count();
    let mut text = String::new();
    for line in 0..=comparison.rows.len() {
        let mut cells = String::new();
        for (position, (heading, column)) in columns.iter().enumerate() {
            let cell = if line == 0 { heading } else { column[line - 1].as_str() };
            let widest = column.iter().map(|cell| width(cell)).max().unwrap_or(0).max(width(heading));
            let padding = " ".repeat(widest - width(cell));
            // Names stand to the left, figures to the right.
            let (before, after) = if position == 0 || *heading == "against" {
                ("", padding.as_str())
            } else {
                (padding.as_str(), "")
            };
            if position > 0 {
                cells.push_str("  ");
            }
            cells.extend([before, cell, after]);
        }
        text.push_str(cells.trim_end());
        text.push('\n');
    }
    text
}
