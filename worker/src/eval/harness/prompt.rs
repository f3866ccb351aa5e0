//! A question with what stands before it, as one text.

use serde_json::json;

use crate::data::chat::{ChatError, ChatTemplate};

/// A piece of a prompt: what somebody says, and what divides it from the next piece in plain text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    role: &'static str,
    content: String,
    delimiter: String,
}

impl Piece {
    /// The description of the task.
    pub(super) fn system(content: &str) -> Self {
        Self { role: "system", content: content.to_owned(), delimiter: String::new() }
    }

    /// A question.
    pub(super) fn question(content: String) -> Self {
        Self { role: "user", content, delimiter: String::new() }
    }

    /// An example: a question and its answer. An empty answer is none.
    pub(super) fn example(question: String, answer: String, delimiters: (&str, &str)) -> Vec<Self> {
        if answer.is_empty() {
            return vec![Self::question(question)];
        }
        let piece = |role, content, delimiter: &str| Self { role, content, delimiter: delimiter.to_owned() };
        vec![piece("user", question, delimiters.0), piece("assistant", answer, delimiters.1)]
    }
}

/// The pieces one after another.
pub(super) fn plain(pieces: &[Piece]) -> String {
    pieces.iter().flat_map(|piece| [piece.content.as_str(), piece.delimiter.as_str()]).collect()
}

/// The pieces as a conversation in the model's own format, up to where the model is to answer: each example in turns of its
/// own. A template that knows no system message gets none.
///
/// # Errors
/// When the template refuses the conversation.
pub(super) fn conversation(pieces: &[Piece], template: &ChatTemplate) -> Result<String, ChatError> {
    let messages: Vec<_> =
        pieces.iter().map(|piece| json!({"role": piece.role, "content": piece.content})).collect();
    match (template.prompt(&messages), messages.split_first()) {
        (Err(_), Some((first, rest))) if first["role"] == "system" => template.prompt(rest),
        (text, _) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_stand_between_description_and_question() {
        let mut pieces = vec![Piece::system("About sums.\n\n")];
        pieces.extend(Piece::example("1+1".to_owned(), "2".to_owned(), (" ", "\n\n")));
        pieces.push(Piece::question("2+2".to_owned()));
        assert_eq!(plain(&pieces), "About sums.\n\n1+1 2\n\n2+2");
        assert_eq!(plain(&Piece::example("x".to_owned(), String::new(), (" ", "\n\n"))), "x");
    }
}
