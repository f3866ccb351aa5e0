//! Four-choice questions, prompted as in the published eleven-variant study.

use std::path::Path;

use qpipe_nodes::kinds::Candidates;

use super::error::EvalError;
use super::questions::{self, LETTERS, Question};
use super::task::{Document, Task, TaskOptions};

/// The task `mcqa`.
#[derive(Clone, Copy, Debug)]
pub struct Mcqa;

impl Task for Mcqa {
    fn name(&self) -> &'static str {
        "mcqa"
    }

    fn documents(&self, data: &Path, options: &TaskOptions<'_>) -> Result<Vec<Document>, EvalError> {
        let questions = questions::read(data, options.limit)?;
        Ok(questions.into_iter().map(|question| document(question, options)).collect())
    }
}

fn document(question: Question, options: &TaskOptions<'_>) -> Document {
    let topic = options.topic;
    let mut prompt =
        format!("The following are multiple choice questions about {topic}.\n\n{}\n", question.question);
    let candidates = match options.candidates {
        Candidates::Letters => {
            for (letter, choice) in LETTERS.iter().zip(&question.choices) {
                prompt.push_str(&format!("{letter}. {choice}\n"));
            }
            LETTERS.iter().map(|letter| format!(" {letter}")).collect()
        }
        Candidates::Text => question.choices.iter().map(|choice| format!(" {choice}")).collect(),
    };
    prompt.push_str("Answer:");
    Document { place: question.place, prompt, candidates, gold: question.answer }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::eval::Place;

    fn example(candidates: Candidates) -> Document {
        let question = Question {
            place: Place { file: Arc::new(PathBuf::from("x.jsonl")), line: 1 },
            question: "Two and two?".to_owned(),
            choices: ["one", "two", "three", "four"].map(str::to_owned),
            answer: 3,
        };
        document(question, &TaskOptions { topic: "sums", candidates, limit: None })
    }

    #[test]
    fn letters_follow_a_prompt_that_lists_the_choices() {
        let document = example(Candidates::Letters);
        assert_eq!(
            document.prompt,
            "The following are multiple choice questions about sums.\n\nTwo and two?\n\
             A. one\nB. two\nC. three\nD. four\nAnswer:"
        );
        assert_eq!(document.candidates, [" A", " B", " C", " D"]);
        assert_eq!(document.gold, 3);
    }

    #[test]
    fn texts_follow_a_prompt_that_does_not_list_them() {
        let document = example(Candidates::Text);
        assert_eq!(
            document.prompt,
            "The following are multiple choice questions about sums.\n\nTwo and two?\nAnswer:"
        );
        assert_eq!(document.candidates, [" one", " two", " three", " four"]);
    }
}
