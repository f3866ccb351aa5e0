//! A question with what stands before it, as one text.

use serde_json::{Value, json};

use crate::data::chat::{ChatError, ChatTemplate};
use crate::eval::python;

/// Who answers.
const ASSISTANT: &str = "assistant";
/// Marks the end of an answer that has begun. The word is transformers', since a template may see it.
const MARK: &str = "CONTINUE_FINAL_MESSAGE_TAG";

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

    /// A question, and where its answer begins: `None` of an example is one without answer.
    pub(super) fn turn(turn: Turn<'_>) -> Vec<Self> {
        let Turn { question, answer, prefix, target_delimiter, fewshot_delimiter } = turn;
        let answer = answer.filter(|answer| !answer.is_empty());
        let is_delimited = match prefix {
            "" => answer.is_some(),
            prefix => !question.is_empty() && needs_blank(&question, prefix),
        };
        let delimiter = if is_delimited { target_delimiter } else { "" };
        let mut pieces = vec![Self { role: "user", content: question, delimiter: delimiter.to_owned() }];
        match answer {
            Some(answer) => pieces.push(Self {
                role: ASSISTANT,
                content: joined(prefix, answer),
                delimiter: fewshot_delimiter.to_owned(),
            }),
            // The delimiter behind it belongs to what is scored.
            None if !prefix.is_empty() => {
                pieces.push(Self { role: ASSISTANT, content: prefix.to_owned(), delimiter: String::new() });
            }
            None => {}
        }
        pieces
    }
}

/// A question with its answer, or with what begins it.
#[derive(Debug, Default)]
pub(super) struct Turn<'a> {
    /// The question.
    pub(super) question: String,
    /// The answer of an example.
    pub(super) answer: Option<String>,
    /// What begins the answer.
    pub(super) prefix: &'a str,
    /// Stands between question and answer.
    pub(super) target_delimiter: &'a str,
    /// Stands behind the answer.
    pub(super) fewshot_delimiter: &'a str,
}

/// Whether no whitespace stands where the two meet.
fn needs_blank(before: &str, after: &str) -> bool {
    !before.ends_with(python::is_space) && !after.starts_with(python::is_space)
}

/// What begins an answer, and the answer.
fn joined(prefix: &str, answer: String) -> String {
    match prefix {
        "" => answer,
        prefix if needs_blank(prefix, &answer) => format!("{prefix} {answer}"),
        prefix => format!("{prefix}{answer}"),
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
    let write = match messages.last() {
        Some(last) if last["role"] == ASSISTANT => continued,
        _ => ChatTemplate::prompt,
    };
    match (write(template, &messages), messages.split_first()) {
        (Err(_), Some((first, rest))) if first["role"] == "system" => write(template, rest),
        (text, _) => text,
    }
}

/// The conversation up to the end of its last message, which the model goes on with: `continue_final_message` of transformers.
fn continued(template: &ChatTemplate, messages: &[Value]) -> Result<String, ChatError> {
    let mut marked = messages.to_vec();
    let last = marked.last_mut().map(|last| &mut last["content"]);
    let begun = last.as_deref().and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Some(last) = last {
        *last = format!("{begun}{MARK} ").into();
    }
    let text = template.write(&marked)?;
    let place = text.rfind(MARK).filter(|_| text.contains(python::strip(&begun)));
    let place = place
        .ok_or(ChatError::Unclear(messages.iter().filter(|message| message["role"] == ASSISTANT).count()))?;
    let before = &text[..place];
    // A template that takes blanks away behind the mark would have done so without it.
    let keeps_blanks = text[place + MARK.len()..].starts_with(' ');
    Ok(if keeps_blanks { before } else { python::strip_end(before) }.to_owned())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn example(question: &str, answer: &str, prefix: &str) -> Vec<Piece> {
        Piece::turn(Turn {
            question: question.to_owned(),
            answer: Some(answer.to_owned()),
            prefix,
            target_delimiter: " ",
            fewshot_delimiter: "\n\n",
        })
    }

    fn asked(question: &str, prefix: &str, delimiter: &str) -> Vec<Piece> {
        let question = question.to_owned();
        Piece::turn(Turn { question, prefix, target_delimiter: delimiter, ..Turn::default() })
    }

    #[test]
    fn examples_stand_between_description_and_question() {
        let mut pieces = vec![Piece::system("About sums.\n\n")];
        pieces.extend(example("1+1", "2", ""));
        pieces.extend(asked("2+2", "", " "));
        assert_eq!(plain(&pieces), "About sums.\n\n1+1 2\n\n2+2");
        assert_eq!(plain(&example("x", "", "")), "x");
    }

    /// What is expected is what `build_qa_turn` of lm-eval 0.4.13 gives.
    #[test]
    fn an_answer_may_have_begun() {
        assert_eq!(plain(&example("1+1=", "2", "It is")), "1+1= It is 2\n\n");
        assert_eq!(plain(&example("1+1=\n", "2", "It is ")), "1+1=\nIt is 2\n\n");
        assert_eq!(plain(&example("1+1=", "2", "\nIt is\n")), "1+1=\nIt is\n2\n\n");
        assert_eq!(plain(&example("1+1=", "", "It is")), "1+1= It is");
        assert_eq!(plain(&example("", "2", "It is")), "It is 2\n\n");
        assert_eq!(plain(&asked("2+2=", "It is", ": ")), "2+2=: It is");
        assert_eq!(plain(&asked("2+2=\n", "It is", ": ")), "2+2=\nIt is");
        assert_eq!(plain(&asked("2+2=", "It is", "")), "2+2=It is");
    }

    /// What is expected is what transformers 5.17 gives for `continue_final_message`.
    #[test]
    fn a_conversation_ends_within_an_answer_that_has_begun() {
        let template = |content: &str| {
            let source = format!(
                "{{% for m in messages %}}[{{{{ m.role }}}}]{{{{ {content} }}}}<end>{{% endfor %}}\
                 {{% if add_generation_prompt %}}[assistant]{{% endif %}}"
            );
            ChatTemplate::new(&source, "", "").unwrap()
        };
        let (kept, trimmed) = (template("m.content"), template("m.content.strip()"));
        let begun = asked("2+2=", "It is ", " ");
        assert_eq!(conversation(&begun, &kept).unwrap(), "[user]2+2=<end>[assistant]It is ");
        assert_eq!(conversation(&begun, &trimmed).unwrap(), "[user]2+2=<end>[assistant]It is");
        let plain = asked("2+2=", "", " ");
        assert_eq!(conversation(&plain, &kept).unwrap(), "[user]2+2=<end>[assistant]");
        let deaf = template("'x'");
        assert!(matches!(conversation(&begun, &deaf), Err(ChatError::Unclear(1))));
    }
}
