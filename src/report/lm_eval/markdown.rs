//! A Markdown table as pytablewriter's `MarkdownTableWriter` renders it.
//!
//! A column of numbers stands to the right and has one number of decimals, the least that shows each of its floats
//! whole; any text among them makes it a column of texts, which stands to the left. There only its numbers stand to the
//! right, still with decimals of their own. Headings are centred. There are no blanks around a cell.

use super::cell::{Cell, Kind, Value, understand};
use super::width::width;

/// A dash line takes three dashes at least.
const NARROWEST: usize = 3;

/// What a column is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ColumnKind {
    Text,
    Integer,
    Real,
    /// Of one kind that is neither text nor number, or empty.
    Other,
}

/// A column as it is laid out.
pub(super) struct Column {
    /// Whether the line of dashes says that it is one of numbers.
    pub(super) is_numeric: bool,
    /// (what is printed, whether it stands to the right).
    pub(super) cells: Vec<(String, bool)>,
}

/// The table: heading, dashes and rows, each ending with a line break.
pub(super) fn render(headings: &[&str], rows: &[Vec<Cell>]) -> String {
    let columns: Vec<Column> =
        (0..headings.len()).map(|index| column(rows.iter().filter_map(move |row| row.get(index)))).collect();
    lay_out(headings, &columns)
}

/// The table of cells that are already what is printed, as many in each column.
pub(super) fn lay_out(headings: &[&str], columns: &[Column]) -> String {
    let widths: Vec<usize> = headings
        .iter()
        .zip(columns)
        .map(|(heading, column)| {
            let cells = column.cells.iter().map(|(cell, _)| width(cell));
            cells.max().unwrap_or_default().max(width(heading)).max(NARROWEST)
        })
        .collect();

    let mut text = String::new();
    let centred = headings.iter().zip(&widths).map(|(heading, wide)| {
        let free = wide.saturating_sub(width(heading));
        format!("{}{heading}{}", " ".repeat(free / 2), " ".repeat(free - free / 2))
    });
    line(&mut text, centred);
    let dashes = columns.iter().zip(&widths).map(|(column, wide)| match column.is_numeric {
        true => format!("{}:", "-".repeat(wide - 1)),
        false => "-".repeat(*wide),
    });
    line(&mut text, dashes);
    let rows = columns.first().map_or(0, |column| column.cells.len());
    for row in 0..rows {
        let cells = columns.iter().zip(&widths).map(|(column, wide)| {
            let (cell, is_right) = &column.cells[row];
            let blanks = " ".repeat(wide.saturating_sub(width(cell)));
            let padded = if *is_right { format!("{blanks}{cell}") } else { format!("{cell}{blanks}") };
            // After padding: a bar in a cell moves the rest of its row.
            padded.replace('|', r"\|")
        });
        line(&mut text, cells);
    }
    text
}

fn line(text: &mut String, cells: impl Iterator<Item = String>) {
    for cell in cells {
        text.push('|');
        text.push_str(&cell);
    }
    text.push_str("|\n");
}

fn column<'a>(cells: impl Iterator<Item = &'a Cell>) -> Column {
    let values = understand(cells);
    let kind = column_kind(&values);
    let decimals = values.iter().map(|value| match value {
        Value::Real { decimals, .. } => *decimals,
        _ => 0,
    });
    let decimals = decimals.max().unwrap_or_default();
    let cells = values.iter().map(|value| (printed(value, kind, decimals), stands_right(value.kind(), kind)));
    Column { is_numeric: matches!(kind, ColumnKind::Integer | ColumnKind::Real), cells: cells.collect() }
}

fn column_kind(values: &[Value]) -> ColumnKind {
    let has = |kind: Kind| values.iter().any(|value| value.kind() == kind);
    let count = |kinds: &[Kind]| kinds.iter().filter(|kind| has(**kind)).count();
    if has(Kind::Text) {
        return ColumnKind::Text;
    }
    if has(Kind::Flag) {
        let is_mixed = values.iter().any(|value| value.kind() != Kind::Flag);
        return if is_mixed { ColumnKind::Text } else { ColumnKind::Other };
    }
    let is_real = has(Kind::Real)
        || count(&[Kind::Infinity, Kind::NotANumber, Kind::Blank]) >= 2
        || count(&[Kind::Integer, Kind::Infinity, Kind::NotANumber]) >= 2;
    match (is_real, has(Kind::Integer)) {
        (true, _) => ColumnKind::Real,
        (false, true) => ColumnKind::Integer,
        (false, false) => ColumnKind::Other,
    }
}

fn printed(value: &Value, column: ColumnKind, decimals: usize) -> String {
    match value {
        Value::Text(text) | Value::Blank(text) => text.clone(),
        Value::Integer(number) if column == ColumnKind::Real => number.fixed(decimals),
        Value::Integer(number) => number.fixed(0),
        Value::Real { number, .. } => number.fixed(decimals),
        Value::Flag(flag) => super::python::flag(*flag).to_owned(),
        // Also what was less than any number: its sign is lost on the way in.
        Value::Infinity => "Infinity".to_owned(),
        Value::NotANumber => "NaN".to_owned(),
    }
}

fn stands_right(value: Kind, column: ColumnKind) -> bool {
    match column {
        ColumnKind::Integer | ColumnKind::Real => true,
        ColumnKind::Text => matches!(value, Kind::Integer | Kind::Real),
        ColumnKind::Other => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of one column, its rows between `/`.
    fn one(cells: &[&str]) -> String {
        let rows: Vec<Vec<Cell>> = cells.iter().map(|cell| vec![Cell::Text((*cell).to_owned())]).collect();
        render(&["Value"], &rows).replace("|\n|", "/").replace(['|', '\n'], "")
    }

    #[test]
    fn zeros_are_dropped_for_the_whole_column() {
        assert_eq!(one(&["0.7480", "0.7100"]), "Value/----:/0.748/0.710");
        assert_eq!(one(&["0.0000", "1.0000"]), "Value/----:/    0/    1");
        assert_eq!(one(&["1.0000", "", "0.5000"]), "Value/----:/  1.0/     /  0.5");
    }

    #[test]
    fn a_text_turns_the_column_to_the_left_but_not_its_numbers() {
        assert_eq!(one(&["0.1000", "   N/A", "12.0000"]), "Value /------/   0.1/   N/A/    12");
        assert_eq!(one(&["   N/A", "0.1000"]), "Value /------/   N/A/0.1000");
    }

    #[test]
    fn what_is_no_finite_number_has_its_own_words() {
        assert_eq!(one(&["nan", "0.5000"]), "Value/----:/  NaN/  0.5");
        assert_eq!(one(&["-inf", ""]), " Value  /-------:/Infinity/        ");
        assert_eq!(one(&["nan"]), "Value/-----/NaN  ");
    }

    #[test]
    fn a_table_without_rows_has_a_heading() {
        assert_eq!(one(&[]), "Value/-----");
        assert_eq!(render(&[""], &[]), "|   |\n|---|\n");
    }

    #[test]
    fn a_bar_in_a_cell_is_escaped_after_padding() {
        assert_eq!(render(&["Tasks"], &[vec![Cell::Text("a|b".into())]]), "|Tasks|\n|-----|\n|a\\|b  |\n");
    }
}
