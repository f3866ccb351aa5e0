//! Four-choice questions from the rows of data files.

use qpipe_nodes::limit::Limit;
use serde_json::Value;

use super::error::EvalError;
use super::rows::{self, Data, DataRow, described};
use super::task::Place;

/// Choices a question has.
pub const CHOICES: usize = 4;
/// Their names, in order.
pub const LETTERS: [&str; CHOICES] = ["A", "B", "C", "D"];

/// A question as it stands in the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Where.
    pub place: Place,
    /// Its text.
    pub question: String,
    /// The choices.
    pub choices: [String; CHOICES],
    /// Index of the right one.
    pub answer: u32,
}

/// Reads the questions of a file, or of all data files in a folder and its subfolders in the order of their
/// paths: those within `limit`, at least one. Rows after a number of questions are not looked at.
///
/// # Errors
/// When a file cannot be read, a row is no question, or there is none.
pub fn read(data: &Data, limit: Option<Limit>) -> Result<Vec<Question>, EvalError> {
    let most = limit.and_then(Limit::count).unwrap_or(usize::MAX);
    let mut questions = Vec::new();
    for file in data.files() {
        for row in rows::read(file, most - questions.len())? {
            questions.push(question(row)?);
        }
    }
    questions.truncate(limit.map_or(questions.len(), |limit| limit.of(questions.len())));
    if questions.is_empty() { Err(EvalError::Empty(data.path().to_owned())) } else { Ok(questions) }
}

fn question(row: DataRow) -> Result<Question, EvalError> {
    let DataRow { place, fields } = row;
    // Other fields are of no concern.
    let field = |name: &'static str| {
        fields.get(name).ok_or_else(|| EvalError::Missing { place: place.clone(), field: name })
    };
    let wrong = |field: &'static str, found: String, expected: &'static str| EvalError::Field {
        place: place.clone(),
        field,
        found,
        expected,
    };
    let question = match field("question")? {
        Value::String(question) => question.clone(),
        other => return Err(wrong("question", described(other).to_owned(), "a text")),
    };
    let choices = match field("choices")? {
        Value::Array(choices) => choices,
        other => return Err(wrong("choices", described(other).to_owned(), "a list of four texts")),
    };
    let found = choices.len();
    let choices: Vec<String> = choices
        .iter()
        .map(|choice| match choice {
            Value::String(choice) => Ok(choice.clone()),
            other => {
                Err(wrong("choices", format!("a list with {}", described(other)), "a list of four texts"))
            }
        })
        .collect::<Result<_, _>>()?;
    let Ok(choices) = choices.try_into() else { return Err(EvalError::Choices { place, found }) };
    let answer = field("answer")?;
    let Some(answer) = answer_index(answer) else {
        return Err(EvalError::Answer { place, found: answer.to_string() });
    };
    Ok(Question { place, question, choices, answer })
}

fn answer_index(answer: &Value) -> Option<u32> {
    let index = match answer {
        Value::String(letter) => {
            LETTERS.iter().position(|known| known.eq_ignore_ascii_case(letter.trim()))?
        }
        Value::Number(number) => usize::try_from(number.as_u64()?).ok()?,
        _ => return None,
    };
    (index < CHOICES).then_some(index as u32)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::path::Path;

    use fs_err as fs;

    use super::*;

    const ROW: &str = r#"{"question": "q", "choices": ["w", "x", "y", "z"], "answer": "C", "subject": "s"}"#;

    fn read_bytes(bytes: &[u8], limit: Option<Limit>) -> Result<Vec<Question>, EvalError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("data.jsonl");
        fs::write(&file, bytes).unwrap();
        read(&Data::open(&file).unwrap(), limit)
    }

    fn message(bytes: &[u8]) -> String {
        let text = read_bytes(bytes, None).unwrap_err().to_string();
        let (_, after) = text.split_once("data.jsonl").unwrap();
        after.to_owned()
    }

    #[test]
    fn rows_blank_lines_and_both_forms_of_the_answer_are_read() {
        let text = format!("{ROW}\r\n\n  \n{}\n", ROW.replace("\"C\"", "3"));
        let questions = read_bytes(text.as_bytes(), None).unwrap();
        assert_eq!(questions.iter().map(|q| q.answer).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(questions.iter().map(|q| q.place.line).collect::<Vec<_>>(), [1, 4]);
        assert_eq!(questions[0].choices, ["w", "x", "y", "z"]);
    }

    #[test]
    fn mistakes_name_their_file_and_line() {
        let second = |row: String| message(format!("{ROW}\n{row}\n").as_bytes());
        assert_eq!(second(ROW.replace(", \"z\"", "")), ":2: `choices` has 3 entries, expected 4");
        let expected = "expected a letter from A to D or an index from 0 to 3";
        assert_eq!(second(ROW.replace("\"C\"", "4")), format!(":2: `answer` is 4, {expected}"));
        assert_eq!(second(ROW.replace("\"C\"", "-1")), format!(":2: `answer` is -1, {expected}"));
        assert_eq!(second(ROW.replace("\"C\"", "1.5")), format!(":2: `answer` is 1.5, {expected}"));
        assert_eq!(second(ROW.replace("\"C\"", "\"E\"")), format!(":2: `answer` is \"E\", {expected}"));
        assert_eq!(second(ROW.replace("question", "query")), ":2: `question` is missing");
        assert_eq!(second(ROW.replace("\"q\"", "null")), ":2: `question` is null, expected a text");
        assert_eq!(
            second(ROW.replace("\"x\"", "7")),
            ":2: `choices` is a list with a number, expected a list of four texts"
        );
        let wrong = ROW.replace("[\"w\", \"x\", \"y\", \"z\"]", "\"wxyz\"");
        assert_eq!(second(wrong), ":2: `choices` is a text, expected a list of four texts");
        assert_eq!(second("{\"question\": \"q\"".to_owned()), ":2:16: EOF while parsing an object");
        assert_eq!(second("[1]".to_owned()), ":2: expected a JSON object, found a list");
        assert_eq!(message(b"\xff\xfe\n"), ":1: not valid UTF-8");
        assert_eq!(message(b"\n \n"), ": no questions");
    }

    #[test]
    fn the_limit_hides_what_comes_later() {
        let text = format!("{ROW}\nbroken\n");
        assert_eq!(read_bytes(text.as_bytes(), Some(Limit::Count(1))).unwrap().len(), 1);
        assert!(read_bytes(text.as_bytes(), Some(Limit::Count(2))).is_err());
        let text = format!("{ROW}\n").repeat(5);
        assert_eq!(read_bytes(text.as_bytes(), Some(Limit::Part(0.5))).unwrap().len(), 3);
    }

    #[test]
    fn a_folder_is_read_in_the_order_of_its_paths() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Data::open(folder.path()), Err(EvalError::NoFiles(_))));
        fs::create_dir(folder.path().join("b")).unwrap();
        for (name, answer) in
            [("c.jsonl", "3"), ("a.jsonl", "0"), ("b/x.jsonl", "1"), ("notes.txt", "broken")]
        {
            fs::write(folder.path().join(name), ROW.replace("\"C\"", answer)).unwrap();
        }
        let questions = read(&Data::open(folder.path()).unwrap(), None).unwrap();
        assert_eq!(questions.iter().map(|q| q.answer).collect::<Vec<_>>(), [0, 1, 3]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let text = Data::open(Path::new("no/such.jsonl")).unwrap_err().to_string();
        assert!(text.contains("no/such.jsonl"), "{text}");
    }
}
