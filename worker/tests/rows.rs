//! Rows of data files in every format: the same rows, and errors that name their place.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use fs_err as fs;
use qpipe_worker::eval::rows::{Data, read};
use serde_json::{Value, json};

/// Made by tests/golden/rows/make.py.
fn golden() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/rows/arc.parquet")).to_owned()
}

fn values(file: &Path) -> Vec<Value> {
    read(file, usize::MAX).unwrap().into_iter().map(|row| Value::Object(row.fields)).collect()
}

#[test]
fn parquet_is_read_with_lists_and_structures() {
    let rows = values(&golden());
    assert_eq!(
        rows[0],
        json!({"id": "q1", "question": "What do bees make?",
            "choices": {"text": ["honey", "milk", "glass"], "label": ["A", "B", "C"]}, "answerKey": "A"})
    );
    assert_eq!(rows[1]["choices"]["text"][1], "東京");
    assert_eq!((rows.len(), &rows[2]["choices"]["text"]), (3, &json!([])));
    assert_eq!(read(&golden(), 2).unwrap().len(), 2);
    // A blob of the cache has no extension.
    let folder = tempfile::tempdir().unwrap();
    let blob = folder.path().join("0123");
    fs::copy(golden(), &blob).unwrap();
    assert_eq!(values(&blob), rows);
}

#[test]
fn formats_hold_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let first = json!({"a": "one", "b": "two, \"2\""});
    // pandas has nothing where a table has no text.
    let (empty, nothing) = (json!({"a": "", "b": "ü\nx"}), json!({"a": null, "b": "ü\nx"}));
    for (name, text) in [
        ("x.jsonl", "{\"a\": \"one\", \"b\": \"two, \\\"2\\\"\"}\n\n{\"a\": \"\", \"b\": \"ü\\nx\"}"),
        ("x.json", "[{\"a\": \"one\", \"b\": \"two, \\\"2\\\"\"}, {\"a\": \"\", \"b\": \"ü\\nx\"}]"),
        ("x.csv", "\u{feff}a,b\none,\"two, \"\"2\"\"\"\n,\"ü\nx\"\n"),
        ("x.tsv", "a\tb\none\t\"two, \"\"2\"\"\"\n\t\"ü\nx\"\n"),
    ] {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        let second = if name.contains(".json") { &empty } else { &nothing };
        assert_eq!(values(&file), [first.clone(), second.clone()], "{name}");
    }
    let names: Vec<PathBuf> = Data::open(folder.path()).unwrap().files().to_vec();
    assert_eq!(names.len(), 4);
}

#[test]
fn rows_of_json_are_a_table() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("x.jsonl", "{\"q\": 1, \"gold\": \"a\"}\n{\"q\": 2.5}\n"),
        ("y.json", "[{\"q\": 1, \"gold\": \"a\"}, {\"q\": 2.5}]"),
    ] {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        let data = Data::open(&file).unwrap();
        let rows: Vec<Value> =
            data.rows(&file).unwrap().iter().map(|row| Value::Object(row.fields.clone())).collect();
        assert_eq!(rows, [json!({"q": 1.0, "gold": "a"}), json!({"q": 2.5, "gold": null})], "{name}");
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let cut = &fs::read(golden()).unwrap()[..300];
    for (name, content, expected) in [
        ("x.parquet", cut, "x.parquet: not a Parquet file that can be read: "),
        ("y.csv", b"a,b\n1\n".as_slice(), "y.csv:2: "),
        ("z.json", b"[{\"a\": 1},\n{]", "z.json:2:2: "),
        ("w.json", b"[1]", "w.json:1: expected a JSON object, found a number"),
    ] {
        let file = folder.path().join(name);
        fs::write(&file, content).unwrap();
        let error = read(&file, usize::MAX).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
