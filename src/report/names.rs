//! What the pipeline file calls the rows of a comparison.

use qpipe_nodes::results::BenchmarkResult;

use super::comparison::{Comparison, Row};
use super::describe;

/// A row's names in the pipeline file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowName {
    /// The model node's label, else its instance.
    pub row: String,
    /// The evaluate node's instance: names the samples file.
    pub instance: String,
}

/// A comparison's rows under the names they are shown by.
pub(super) struct Named<'a> {
    rows: &'a [Row],
    names: Vec<String>,
}

impl<'a> Named<'a> {
    /// Joins the two, which are in one order. Of rows with one name, each gets its instance added, so that
    /// none hides another; a row without a name is called by its number.
    pub(super) fn new(comparison: &'a Comparison, names: &[RowName]) -> Self {
        let shared = |name: &RowName| names.iter().filter(|other| other.row == name.row).count() > 1;
        let names = (0..comparison.rows.len())
            .map(|index| match names.get(index) {
                Some(name) if shared(name) => format!("{} ({})", name.row, name.instance),
                Some(name) => name.row.clone(),
                None => format!("row {}", index + 1),
            })
            .collect();
        Self { rows: &comparison.rows, names }
    }

    /// Names and rows in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'a Row)> {
        self.names.iter().map(String::as_str).zip(self.rows)
    }

    /// All benchmarks in the order of their rows, under the model's name; where a model has several, with what
    /// tells them apart.
    pub(super) fn benchmarks(&self) -> impl Iterator<Item = (String, &'a BenchmarkResult)> {
        self.iter().flat_map(|(name, row)| {
            row.benchmarks.iter().map(move |benchmark| {
                let name = match row.benchmarks.as_slice() {
                    [_] => name.to_owned(),
                    several => format!("{name} ({})", describe::among(several, benchmark)),
                };
                (name, benchmark)
            })
        })
    }

    /// The row with this index.
    pub(super) fn row(&self, index: usize) -> &'a Row {
        &self.rows[index]
    }

    /// The name of the row with this index.
    pub(super) fn name(&self, index: usize) -> &str {
        &self.names[index]
    }
}
