//! Training rows as they stand in the files: JSON lines (or a JSON array) of four shapes.
//!
//! | row | what is learned |
//! |---|---|
//! | `{messages: [{role, content}, …]}` | the assistant's turns |
//! | `{prompt, completion}` | the completion |
//! | `{instruction, input, output}` | the output (`input` may be absent or empty) |
//! | `{text}` | every token |
//!
//! Further keys are ignored. A row with several of the shapes counts as the first of this list.

use std::path::{Path, PathBuf};

use fs_err as fs;
use serde_json::{Map, Value};
use thiserror::Error;

/// The shapes as they are named in messages.
pub const SHAPES: &str = "{messages}, {prompt, completion}, {instruction, input, output} and {text}";

/// What a row says.
#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    /// A conversation: objects with a `role` and whatever else the model's chat template reads.
    Messages(Vec<Value>),
    /// A prompt and what is to follow it.
    Completion {
        /// Is not learned.
        prompt: String,
        /// Is learned.
        completion: String,
    },
    /// A task, optionally its material, and the answer.
    Instruction {
        /// The task.
        instruction: String,
        /// Its material; may be empty.
        input: String,
        /// The answer.
        output: String,
    },
    /// Running text.
    Text(String),
}

impl Row {
    /// The shape's keys, as in messages.
    pub fn shape(&self) -> &'static str {
        match self {
            Self::Messages(_) => "{messages}",
            Self::Completion { .. } => "{prompt, completion}",
            Self::Instruction { .. } => "{instruction, input, output}",
            Self::Text(_) => "{text}",
        }
    }
}

/// A row and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Located {
    /// The row.
    pub row: Row,
    /// Index into [`Rows::files`].
    pub file: usize,
    /// Line in a file of JSON lines, place in a JSON array; from 1.
    pub number: usize,
}

/// All rows of a data artifact, in the order of its files' names.
#[derive(Debug)]
pub struct Rows {
    /// The files.
    pub files: Vec<DataFile>,
    /// Their rows.
    pub rows: Vec<Located>,
}

impl Rows {
    /// Where a row stands: `data/train.jsonl, line 3`.
    pub fn place(&self, located: &Located) -> String {
        self.files[located.file].place(located.number)
    }
}

/// A data file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// Its path.
    pub path: PathBuf,
    /// One JSON array instead of JSON lines.
    pub array: bool,
}

impl DataFile {
    fn place(&self, number: usize) -> String {
        let counted = if self.array { "row" } else { "line" };
        format!("`{}`, {counted} {number}", self.path.display())
    }
}

/// Why data cannot be read as training rows.
#[derive(Debug, Error)]
pub enum RowsError {
    /// No row at all.
    #[error("`{}` holds no rows", path.display())]
    Empty {
        /// The file or folder.
        path: PathBuf,
    },
    /// Text that is not JSON.
    #[error("{place}: not JSON: {detail}")]
    Json {
        /// Where.
        place: String,
        /// What the parser says.
        detail: String,
    },
    /// A row of no known shape.
    #[error("{place}: {found} is not a training row")]
    Shape {
        /// Where.
        place: String,
        /// What stands there.
        found: String,
        /// It is a four-choice question.
        question: bool,
    },
    /// A key with a value of another type.
    #[error("{place}: `{key}` is {found}, {expected} is due")]
    Type {
        /// Where.
        place: String,
        /// The key.
        key: &'static str,
        /// The type that stands there.
        found: &'static str,
        /// The type that should.
        expected: &'static str,
    },
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl RowsError {
    /// What to do.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Empty { .. } | Self::Json { .. } => {
                Some(format!("A data file has one JSON object a line, of one of the shapes {SHAPES}."))
            }
            Self::Shape { question: true, .. } => Some(
                "Questions are for `evaluate`; to train on one, write it as {prompt, completion} or {text}."
                    .to_owned(),
            ),
            Self::Shape { .. } | Self::Type { .. } => Some(format!("Use one of the shapes {SHAPES}.")),
            Self::Io(_) => None,
        }
    }
}

/// Reads a data file, or all `.jsonl` and `.json` files below a folder in the order of their paths.
///
/// # Errors
///
/// The first row that is not JSON or of no known shape, by file and line; a file without rows.
pub fn read(path: &Path) -> Result<Rows, RowsError> {
    let mut paths = Vec::new();
    if fs::metadata(path)?.is_dir() {
        collect(path, &mut paths)?;
    } else {
        paths.push(path.to_owned());
    }
    let mut all = Rows { files: Vec::new(), rows: Vec::new() };
    for path in paths {
        let text = fs::read(&path)?;
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
        let array = text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
        let file = DataFile { path, array };
        let before = all.rows.len();
        if array {
            read_array(&file, text, all.files.len(), &mut all.rows)?;
        } else {
            read_lines(&file, text, all.files.len(), &mut all.rows)?;
        }
        if all.rows.len() == before {
            return Err(RowsError::Empty { path: file.path });
        }
        all.files.push(file);
    }
    if all.rows.is_empty() { Err(RowsError::Empty { path: path.to_owned() }) } else { Ok(all) }
}

/// Adds the data files below `folder` in the order of their names, hidden ones left out.
fn collect(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<(), RowsError> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    entries.sort();
    for path in entries {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with('.') {
            continue;
        }
        if fs::metadata(&path)?.is_dir() {
            collect(&path, paths)?;
        } else if [".jsonl", ".json"].iter().any(|extension| name.to_lowercase().ends_with(extension)) {
            paths.push(path);
        }
    }
    Ok(())
}

fn read_lines(file: &DataFile, text: &[u8], index: usize, rows: &mut Vec<Located>) -> Result<(), RowsError> {
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let value = serde_json::from_slice(line).map_err(|error| RowsError::Json {
            place: file.place(number),
            detail: without_position(&error),
        })?;
        rows.push(Located { row: parse(value, &|| file.place(number))?, file: index, number });
    }
    Ok(())
}

fn read_array(file: &DataFile, text: &[u8], index: usize, rows: &mut Vec<Located>) -> Result<(), RowsError> {
    let values: Vec<Value> = serde_json::from_slice(text).map_err(|error| RowsError::Json {
        place: format!("`{}`, line {}", file.path.display(), error.line()),
        detail: without_position(&error),
    })?;
    for (number, value) in (1..).zip(values) {
        rows.push(Located { row: parse(value, &|| file.place(number))?, file: index, number });
    }
    Ok(())
}

/// The parser's words: its line is always 1 in a file of JSON lines, so only the column is kept.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let words = text.split(" at line ").next().unwrap_or(&text);
    format!("{words} at column {}", error.column())
}

/// Recognises the shape of one row; `place` says where it stands.
fn parse(value: Value, place: &dyn Fn() -> String) -> Result<Row, RowsError> {
    let Value::Object(mut object) = value else {
        return Err(RowsError::Shape {
            place: place(),
            found: type_name(&value).to_owned(),
            question: false,
        });
    };
    if object.contains_key("messages") {
        return messages(object.remove("messages").unwrap_or_default(), place);
    }
    if object.contains_key("prompt") && object.contains_key("completion") {
        return Ok(Row::Completion {
            prompt: string(&mut object, "prompt", place)?,
            completion: string(&mut object, "completion", place)?,
        });
    }
    if object.contains_key("instruction") && object.contains_key("output") {
        let input = match object.get("input") {
            None | Some(Value::Null) => String::new(),
            Some(_) => string(&mut object, "input", place)?,
        };
        return Ok(Row::Instruction {
            instruction: string(&mut object, "instruction", place)?,
            input,
            output: string(&mut object, "output", place)?,
        });
    }
    if object.contains_key("text") {
        return Ok(Row::Text(string(&mut object, "text", place)?));
    }
    let keys: Vec<&str> = object.keys().map(String::as_str).collect();
    let found =
        if keys.is_empty() { "an empty object".to_owned() } else { format!("{{{}}}", keys.join(", ")) };
    let question = object.contains_key("question") && object.contains_key("choices");
    Err(RowsError::Shape { place: place(), found, question })
}

fn messages(value: Value, place: &dyn Fn() -> String) -> Result<Row, RowsError> {
    let wrong = |key, value: &Value, expected| RowsError::Type {
        place: place(),
        key,
        found: type_name(value),
        expected,
    };
    let Value::Array(messages) = value else {
        return Err(wrong("messages", &value, "a list of objects with `role` and `content`"));
    };
    for message in &messages {
        if !message.is_object() {
            return Err(wrong("messages", message, "a list of objects with `role` and `content`"));
        }
        if !message["role"].is_string() {
            return Err(wrong("role", &message["role"], "a string"));
        }
        if !message["content"].is_string() && message.get("tool_calls").is_none() {
            return Err(wrong("content", &message["content"], "a string"));
        }
    }
    Ok(Row::Messages(messages))
}

fn string(
    object: &mut Map<String, Value>,
    key: &'static str,
    place: &dyn Fn() -> String,
) -> Result<String, RowsError> {
    match object.remove(key).unwrap_or_default() {
        Value::String(text) => Ok(text),
        other => Err(RowsError::Type { place: place(), key, found: type_name(&other), expected: "a string" }),
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn from(name: &str, text: &str) -> Result<Rows, RowsError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        read(&path)
    }

    fn message(text: &str) -> String {
        from("t.jsonl", text).unwrap_err().to_string().rsplit_once("t.jsonl").unwrap().1.to_owned()
    }

    #[test]
    fn reads_the_four_shapes() {
        let text = "{\"text\": \"a\", \"id\": 7}\r\n\n{\"prompt\": \"p\", \"completion\": \" c\"}\n\
                    {\"instruction\": \"i\", \"output\": \"o\"}\n\
                    {\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}";
        let rows = from("t.jsonl", text).unwrap().rows;
        assert_eq!(rows[0].row, Row::Text("a".into()));
        assert_eq!(
            (&rows[1].row, rows[1].number),
            (&Row::Completion { prompt: "p".into(), completion: " c".into() }, 3)
        );
        assert_eq!(
            rows[2].row,
            Row::Instruction { instruction: "i".into(), input: String::new(), output: "o".into() }
        );
        assert_eq!(rows[3].row.shape(), "{messages}");
    }

    #[test]
    fn reads_arrays_and_folders_in_the_order_of_names() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("b.json"), "[{\"text\": \"2\"}, {\"text\": \"3\"}]").unwrap();
        fs::write(folder.path().join("a.jsonl"), "{\"text\": \"1\"}\n").unwrap();
        fs::write(folder.path().join("notes.md"), "nothing").unwrap();
        let rows = read(folder.path()).unwrap();
        let texts: Vec<_> = rows.rows.iter().map(|row| row.row.clone()).collect();
        assert_eq!(texts, ["1", "2", "3"].map(|text| Row::Text(text.into())));
        assert!(rows.place(&rows.rows[2]).ends_with("b.json`, row 2"));
    }

    #[test]
    fn errors_name_the_line_and_what_is_wrong() {
        assert_eq!(
            message("{\"text\": \"a\"}\n{\"text\": \"a\"\n"),
            "`, line 2: not JSON: EOF while parsing an object at column 12"
        );
        assert_eq!(message("{\"text\": 5}"), "`, line 1: `text` is a number, a string is due");
        assert_eq!(message("{\"txt\": \"a\"}"), "`, line 1: {txt} is not a training row");
        assert_eq!(message("[]"), "` holds no rows");
        assert_eq!(message(" \n\n"), "` holds no rows");
        assert_eq!(
            message("{\"messages\": [{\"role\": \"user\"}]}"),
            "`, line 1: `content` is nothing, a string is due"
        );
    }

    #[test]
    fn a_question_is_not_a_training_row() {
        let error = from("t.jsonl", "{\"question\": \"q\", \"choices\": [], \"answer\": 0}").unwrap_err();
        assert!(error.help().unwrap().contains("evaluate"));
    }
}
