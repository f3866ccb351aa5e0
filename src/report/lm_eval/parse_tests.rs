//! Tests of `parse.rs`.

use std::path::PathBuf;

use super::*;

const TABLE: &str = "\
|    Tasks    |Version|Filter|n-shot|Metric|   |Value |   |Stderr|
|-------------|------:|------|-----:|------|---|-----:|---|------|
|mmlu         |      2|none  |      |acc   |↑  |0.6320|±  |   N/A|
| - humanities|      2|none  |      |acc   |↑  |0.5868|±  |0.0068|
|  - a\\|b      |      1|none  |     0|acc   |↑  |0.5000|±  |0.0447|
|             |       |strict|     0|ppl   |↓  |1.0000|±  |0.0447|
";

#[test]
fn a_table_is_read_and_printed_again() {
    let table = PrintedTable::parse(TABLE).expect("a table");
    assert!(!table.of_groups);
    let [top, group, task, again] = table.rows.as_slice() else { panic!("{:?}", table.rows) };
    assert_eq!((top.alias(), top.depth(), top.stderr.as_str()), ("mmlu", 0, "   N/A"));
    assert_eq!((group.alias(), group.depth(), group.n_shot.as_str()), ("humanities", 1, ""));
    assert_eq!((task.alias(), task.depth(), task.value.as_str()), ("a|b", 2, "0.5000"));
    assert_eq!((again.name.as_str(), again.filter.as_str(), again.arrow.as_str()), ("", "strict", "↓"));
    assert_eq!(table.print(), TABLE);
}

#[test]
fn errors_name_the_line() {
    let with = |line: usize, replaced: &str| {
        let mut lines: Vec<&str> = TABLE.lines().collect();
        lines[line - 1] = replaced;
        PrintedTable::parse(&lines.join("\n")).expect_err("a broken table")
    };
    assert_eq!(with(1, "|Tasks|Version|"), LmEvalError::NoHeading { line: 1 });
    assert_eq!(with(2, "|mmlu|2|none||acc|↑|0.6|±|0.1|"), LmEvalError::NoSeparator { line: 2 });
    assert_eq!(with(4, "| - humanities"), LmEvalError::NotARow { line: 4 });
    assert_eq!(with(5, "|a|b|"), LmEvalError::WrongCells { line: 5, expected: 9, found: 2 });
    assert_eq!(PrintedTable::parse(""), Err(LmEvalError::NoHeading { line: 1 }));
    let heading_only = TABLE.lines().next().expect("a heading");
    assert_eq!(PrintedTable::parse(heading_only), Err(LmEvalError::NoSeparator { line: 2 }));
}

#[test]
fn tables_of_a_document_are_found_among_others() {
    let document = format!("# Results\n\n|a|b|\n|-|-|\n|1|2|\n\n```\n{TABLE}```\n\n{TABLE}| broken\n");
    let error = PrintedTable::find_all(&document).expect_err("the second is broken");
    assert_eq!(error, LmEvalError::NotARow { line: 22 });
    let document = document.replace("| broken\n", "");
    assert_eq!(PrintedTable::find_all(&document).expect("two tables").len(), 2);
}

/// A document whose tables were printed by a version up to 0.4.11.
#[test]
#[expect(clippy::print_stdout, reason = "says why it did nothing")]
fn published_tables_are_read_and_printed_again() {
    let Some(data) = std::env::var_os("QPIPE_TEST_DATA") else {
        println!("skipped: QPIPE_TEST_DATA is not set");
        return;
    };
    let path = PathBuf::from(data).join("published/llama31_8b_int8_dynamic.md");
    let document = std::fs::read_to_string(path).expect("a published document");
    let tables = PrintedTable::find_all(&document).expect("valid tables");
    assert_eq!(tables.iter().map(|table| table.rows.len()).collect::<Vec<_>>(), [70, 70]);
    for table in tables {
        let printed = table.print();
        assert!(document.contains(&format!("```text\n{printed}```")), "{printed}");
        // The same figures, understood again: nothing in these tables depends on what was lost.
        let cells =
            |row: &PrintedRow| row.cells().map(|text| super::super::cell::Cell::Text(text.clone())).to_vec();
        let rows: Vec<_> = table.rows.iter().map(cells).collect();
        let headings: Vec<&str> = [TASKS].into_iter().chain(HEADINGS).collect();
        assert_eq!(markdown::render(&headings, &rows), printed);
    }
}
