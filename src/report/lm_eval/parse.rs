//! A printed table, read back.
//!
//! What is read is text, not figures: a table says `0.748` of any figure near it. Printed again, the text is the same.

use super::error::LmEvalError;
use super::markdown::{self, Column};
use super::table::{GROUPS, HEADINGS, TASKS};

const COLUMNS: usize = 1 + HEADINGS.len();

/// A table as lm-eval prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrintedTable {
    /// Whether it is the table of groups.
    pub of_groups: bool,
    /// For each column whether it is one of numbers, which stand to the right.
    pub numeric: [bool; COLUMNS],
    /// From top to bottom.
    pub rows: Vec<PrintedRow>,
}

/// A row: texts without the blanks that fill their cells. Blanks before a text stay, unless its column is one of numbers:
/// they indent a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrintedRow {
    /// The task or group, indented; empty where it is that of the row above.
    pub name: String,
    /// Its version; empty with the name.
    pub version: String,
    /// The filter.
    pub filter: String,
    /// Solved examples in the prompt; empty for many groups.
    pub n_shot: String,
    /// The metric.
    pub metric: String,
    /// `↑`, `↓` or empty.
    pub arrow: String,
    /// The figure.
    pub value: String,
    /// `±`, or empty where there is no figure.
    pub plus_minus: String,
    /// Its standard error.
    pub stderr: String,
}

impl PrintedRow {
    /// The name without its indentation.
    pub fn alias(&self) -> &str {
        let unindented = self.name.trim_start_matches(' ');
        if self.depth() > 0 { &unindented[2..] } else { &self.name }
    }

    /// How many groups the task or group stands in.
    pub fn depth(&self) -> usize {
        let unindented = self.name.trim_start_matches(' ');
        if unindented.starts_with("- ") { self.name.len() - unindented.len() } else { 0 }
    }

    fn from_cells(cells: [String; COLUMNS]) -> Self {
        let [name, version, filter, n_shot, metric, arrow, value, plus_minus, stderr] = cells;
        Self { name, version, filter, n_shot, metric, arrow, value, plus_minus, stderr }
    }

    fn cells(&self) -> [&String; COLUMNS] {
        let Self { name, version, filter, n_shot, metric, arrow, value, plus_minus, stderr } = self;
        [name, version, filter, n_shot, metric, arrow, value, plus_minus, stderr]
    }
}

impl PrintedTable {
    /// Reads a text that is one table, with or without blank lines after it.
    ///
    /// # Errors
    ///
    /// At the first line that is none of such a table; lines count from 1.
    pub fn parse(text: &str) -> Result<Self, LmEvalError> {
        let lines: Vec<(usize, &str)> = (1..).zip(text.trim_end().lines()).collect();
        Self::from_lines(&lines)
    }

    /// Reads all results tables of a document. Other tables and all other text are passed over.
    ///
    /// # Errors
    ///
    /// At the first line below a table's heading that is none of it; lines count from 1, in the document.
    pub fn find_all(document: &str) -> Result<Vec<Self>, LmEvalError> {
        let lines: Vec<(usize, &str)> = (1..).zip(document.lines()).collect();
        let mut tables = Vec::new();
        let mut rest = lines.as_slice();
        while let Some(start) = rest.iter().position(|(_, line)| heading(line).is_some()) {
            rest = &rest[start..];
            let length = rest.iter().take_while(|(_, line)| line.starts_with('|')).count();
            tables.push(Self::from_lines(&rest[..length])?);
            rest = &rest[length..];
        }
        Ok(tables)
    }

    /// The text that was read.
    pub fn print(&self) -> String {
        let first = if self.of_groups { GROUPS } else { TASKS };
        let headings: Vec<&str> = [first].into_iter().chain(HEADINGS).collect();
        // The cells are not looked at again: a number that stood among texts might be taken for another.
        let columns = self.numeric.iter().enumerate().map(|(index, &is_numeric)| {
            let cells = self.rows.iter().map(|row| (row.cells()[index].clone(), is_numeric));
            Column { is_numeric, cells: cells.collect() }
        });
        markdown::lay_out(&headings, &columns.collect::<Vec<_>>())
    }

    fn from_lines(lines: &[(usize, &str)]) -> Result<Self, LmEvalError> {
        let (line, first) = lines.first().copied().unwrap_or((1, ""));
        let of_groups = heading(first).ok_or(LmEvalError::NoHeading { line })?;
        let no_separator = LmEvalError::NoSeparator { line: line + 1 };
        let (_, second) = lines.get(1).ok_or_else(|| no_separator.clone())?;
        let numeric = separator(second).ok_or(no_separator)?;
        let mut rows: Vec<PrintedRow> = Vec::new();
        for &(line, text) in &lines[2..] {
            let cells = split(text).ok_or(LmEvalError::NotARow { line })?;
            let found = cells.len();
            let cells: [String; COLUMNS] =
                cells.try_into().map_err(|_| LmEvalError::WrongCells { line, expected: COLUMNS, found })?;
            let mut columns = numeric.iter();
            let cells = cells.map(|cell| match columns.next() {
                Some(true) => cell.trim().to_owned(),
                _ => cell.trim_end().to_owned(),
            });
            rows.push(PrintedRow::from_cells(cells));
        }
        Ok(Self { of_groups, numeric, rows })
    }
}

/// Whether a heading is that of groups; none if it is no heading of a results table.
fn heading(line: &str) -> Option<bool> {
    let cells = split(line)?;
    let mut cells = cells.iter().map(|cell| cell.trim());
    let of_groups = match cells.next()? {
        TASKS => false,
        GROUPS => true,
        _ => return None,
    };
    cells.eq(HEADINGS).then_some(of_groups)
}

/// For each column whether it is one of numbers; none if the line is no line of dashes.
fn separator(line: &str) -> Option<[bool; COLUMNS]> {
    let cells: [String; COLUMNS] = split(line)?.try_into().ok()?;
    let are_dashes = cells.iter().all(|cell| {
        let dashes = cell.strip_suffix(':').unwrap_or(cell);
        !dashes.is_empty() && dashes.bytes().all(|byte| byte == b'-')
    });
    are_dashes.then(|| cells.map(|cell| cell.ends_with(':')))
}

/// The cells between the bars of a row. An escaped bar is one of a cell.
fn split(line: &str) -> Option<Vec<String>> {
    let inner = line.strip_prefix('|')?.strip_suffix('|')?;
    let mut cells = vec![String::new()];
    for character in inner.chars() {
        let last = cells.last_mut()?;
        match character {
            '|' if last.ends_with('\\') => {
                last.pop();
                last.push('|');
            }
            '|' => cells.push(String::new()),
            other => last.push(other),
        }
    }
    Some(cells)
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
