//! Four-choice questions, prompted as in the published eleven-variant study.

use std::sync::Arc;

use qpipe_nodes::kinds::{Bos, Candidates};

use super::error::EvalError;
use super::questions::{self, LETTERS, Question};
use super::rows::Data;
use super::task::{
    Asked, Border, Definition, Document, Judgement, Overlong, Questions, Request, Response, Rules, Task,
    TaskOptions, first_highest,
};

/// The task `mcqa`.
#[derive(Clone, Copy, Debug)]
pub struct Mcqa;

impl Task for Mcqa {
    fn name(&self) -> &str {
        "mcqa"
    }

    /// The published study's.
    fn rules(&self) -> Rules {
        Rules { bos: Bos::Never, overlong: Overlong::Refuse, border: Border::Merged }
    }

    fn questions(&self, data: &Data, options: &TaskOptions<'_>) -> Result<Questions, EvalError> {
        let questions = questions::read(data, options.limit)?;
        let of = questions.len() as u64;
        let documents = questions.into_iter().map(|question| document(question, options)).collect();
        Ok(Questions { documents, times: 1, repeats: 1, of })
    }

    fn judge(&self, document: &Document, responses: &[Response]) -> Result<Judgement, EvalError> {
        let scores = responses.iter().flat_map(Response::scores);
        let pred = first_highest(scores.map(|score| score.log_probability));
        let is_right = document.gold.contains(&pred);
        Ok(Judgement { pred: Some(pred), is_right: Some(is_right), filtered: Vec::new() })
    }

    fn definition(&self, _options: &TaskOptions<'_>) -> Option<Definition> {
        None
    }
}

fn document(question: Question, options: &TaskOptions<'_>) -> Document {
    let topic = options.topic;
    let mut prompt =
        format!("The following are multiple choice questions about {topic}.\n\n{}\n", question.question);
    let candidates: Vec<String> = match options.candidates {
        Candidates::Letters => {
            for (letter, choice) in LETTERS.iter().zip(&question.choices) {
                prompt.push_str(&format!("{letter}. {choice}\n"));
            }
            LETTERS.iter().map(|letter| format!(" {letter}")).collect()
        }
        Candidates::Text => question.choices.iter().map(|choice| format!(" {choice}")).collect(),
    };
    prompt.push_str("Answer:");
    let context: Arc<str> = prompt.into();
    let request = |continuation| Request { context: Arc::clone(&context), continuation };
    Document {
        place: question.place,
        asked: Asked::Continuations(candidates.into_iter().map(request).collect()),
        choices: question.choices.to_vec(),
        gold: vec![question.answer],
        source: None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::eval::Place;

    fn example(candidates: Candidates) -> Document {
        let question = Question {
            place: Place { file: Arc::new(PathBuf::from("x.jsonl")), line: 1 },
            question: "Two and two?".to_owned(),
            choices: ["one", "two", "three", "four"].map(str::to_owned),
            answer: 3,
        };
        document(question, &TaskOptions { topic: "sums", candidates, ..TaskOptions::default() })
    }

    fn continuations(document: &Document) -> Vec<&str> {
        document.requests().iter().map(|request| request.continuation.as_str()).collect()
    }

    #[test]
    fn letters_follow_a_prompt_that_lists_the_choices() {
        let document = example(Candidates::Letters);
        assert_eq!(
            &*document.requests()[0].context,
            "The following are multiple choice questions about sums.\n\nTwo and two?\n\
             A. one\nB. two\nC. three\nD. four\nAnswer:"
        );
        assert_eq!(continuations(&document), [" A", " B", " C", " D"]);
        assert_eq!(document.gold, [3]);
    }

    #[test]
    fn texts_follow_a_prompt_that_does_not_list_them() {
        let document = example(Candidates::Text);
        assert_eq!(
            &*document.requests()[0].context,
            "The following are multiple choice questions about sums.\n\nTwo and two?\nAnswer:"
        );
        assert_eq!(continuations(&document), [" one", " two", " three", " four"]);
    }
}
