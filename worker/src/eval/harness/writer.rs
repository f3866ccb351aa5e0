//! Makes the documents of a task: what stands before a question, what is asked, which answers are right.

use std::sync::Arc;

use qpipe_nodes::task_origin::Origins;
use serde_json::Value;

use super::fewshot::Sampler;
use super::prompt::{self, Piece, Turn};
use super::spec::{Answering, Prefix, Spec};
use super::template::{Problem, Rule, Templates};
use super::{gold, literal, perplexity};
use crate::eval::error::EvalError;
use crate::eval::metrics;
use crate::eval::python::text_of;
use crate::eval::rows::{self, DataRow};
use crate::eval::task::{Asked, Document, Generation, Place, Request, Source, TaskOptions};

/// Makes documents of rows, one after another: each question draws its examples from where the one before it stopped.
pub(super) struct Writer<'a> {
    spec: &'a Spec,
    origins: &'a Origins,
    /// Whether the choices stand before what is scored: then the question is the index of the right one. As in lm-eval, the
    /// first row decides.
    chooses_contexts: Option<bool>,
    /// Whether an answer that is a list is several of which any is right. As in lm-eval, the first row decides.
    has_several_answers: Option<bool>,
    templates: Templates,
    sampler: Sampler,
    pool: Arc<Vec<Value>>,
    shots: u32,
    options: &'a TaskOptions<'a>,
}

/// What stands before a question, and what begins its answer.
struct Before {
    pieces: Vec<Piece>,
    prefix: String,
}

impl<'a> Writer<'a> {
    /// Puts `shots` examples of a pool before each question.
    pub(super) fn new(
        spec: &'a Spec,
        origins: &'a Origins,
        options: &'a TaskOptions<'a>,
        (shots, pool): (u32, Arc<Vec<Value>>),
    ) -> Self {
        let sampler = Sampler::new(Arc::clone(&pool), spec.sampling, options.seed);
        let templates = Templates::default();
        Self {
            spec,
            origins,
            chooses_contexts: None,
            has_several_answers: None,
            templates,
            sampler,
            pool,
            shots,
            options,
        }
    }

    /// The document of a row.
    ///
    /// # Errors
    /// What a rule of the task cannot do with it; there are too few examples; the chat template refuses it.
    pub(super) fn document(&mut self, row: DataRow) -> Result<Document, EvalError> {
        let place = row.place;
        let row = Value::Object(row.fields);
        let text = self.text(&place, "doc_to_text", &self.spec.text, &row)?;
        let is_index = self.spec.answering.is_choosing() && gold::integer(&text).is_some();
        let chooses_contexts = *self.chooses_contexts.get_or_insert(is_index);
        let before = Before {
            pieces: self.before(&place, &row, chooses_contexts)?,
            prefix: self.prefix(&place, "gen_prefix", self.spec.prefix.as_ref(), &row)?,
        };
        let target = match self.has_no_answer(&row) {
            true => Value::Null,
            false => self.target(&place, "doc_to_target", &self.spec.target, &row)?,
        };
        let is_several = target.as_array().is_some_and(|targets| !targets.is_empty());
        self.has_several_answers.get_or_insert(is_several);
        self.check_answer(&place, &target)?;
        let spec = self.spec;
        let (asked, choices, gold) = match &spec.answering {
            Answering::Choosing => {
                let choices = self.choices(&place, "doc_to_choice", &spec.choices, &row)?;
                let (requests, gold) = self.requests(&place, &before, &text, &choices, &target)?;
                let gold = gold.into_iter().filter(|&index| index < choices.len());
                let gold = gold.map(|index| index as u32).collect();
                (Asked::Continuations(requests), choices, gold)
            }
            Answering::Writing(writing) => {
                writing
                    .verdict
                    .check(&row)
                    .map_err(|problem| self.wrong(&place, "process_results", problem))?;
                let prompt = self.context(&place, &before, text_of(&text), &spec.target_delimiter)?;
                let rule = Arc::clone(&writing.rule);
                let right = self.right_replies(&place, &target, &row)?;
                (Asked::Reply(Generation { prompt, rule }), right, Vec::new())
            }
            Answering::Continuing => {
                let context = self.context(&place, &before, text_of(&text), &spec.target_delimiter)?;
                let continuation = text_of(&target);
                let request = Request { context, continuation: continuation.clone() };
                (Asked::Continuations(vec![request]), vec![continuation], vec![0])
            }
            Answering::Foreseeing { counted } => {
                let text = text_of(&target);
                let counted = match counted {
                    Some(rule) => text_of(&self.value(&place, "process_results", rule, &row)?),
                    None => text.clone(),
                };
                (Asked::Text(perplexity::whole(text, &counted)), Vec::new(), Vec::new())
            }
        };
        let source = Some(Source { target: text_of(&target), row });
        Ok(Document { place, asked, choices, gold, source })
    }

    /// What is scored, one a choice, and which are right.
    fn requests(
        &self,
        place: &Place,
        before: &Before,
        text: &Value,
        choices: &[String],
        target: &Value,
    ) -> Result<(Vec<Request>, Vec<usize>), EvalError> {
        let delimiter = self.spec.continuation_delimiter(self.options.chat.is_some());
        if self.chooses_contexts == Some(true) {
            let follows = text_of(target);
            let request = |choice: &String| {
                let continuation = format!("{delimiter}{follows}");
                Ok(Request { context: self.context(place, before, choice.clone(), "")?, continuation })
            };
            let requests = choices.iter().map(request).collect::<Result<_, EvalError>>()?;
            return Ok((requests, gold::right_choices(text, choices)));
        }
        let context = self.context(place, before, text_of(text), &self.spec.target_delimiter)?;
        let request = |choice: &String| Request {
            context: Arc::clone(&context),
            continuation: format!("{delimiter}{choice}"),
        };
        Ok((choices.iter().map(request).collect(), gold::right_choices(target, choices)))
    }

    /// The text that ends with `question`, and with what begins its answer, before which `delimiter` stands.
    fn context(
        &self,
        place: &Place,
        before: &Before,
        question: String,
        delimiter: &str,
    ) -> Result<Arc<str>, EvalError> {
        let mut pieces = before.pieces.clone();
        let prefix = before.prefix.as_str();
        pieces.extend(Piece::turn(Turn { question, prefix, target_delimiter: delimiter, ..Turn::default() }));
        let text = match self.options.chat {
            None => prompt::plain(&pieces),
            Some(template) => prompt::conversation(&pieces, template)
                .map_err(|error| EvalError::Chat { place: place.clone(), problem: error.to_string() })?,
        };
        Ok(text.into())
    }

    /// The description and the examples.
    fn before(
        &mut self,
        place: &Place,
        row: &Value,
        chooses_contexts: bool,
    ) -> Result<Vec<Piece>, EvalError> {
        let mut pieces = Vec::new();
        let description = self.value(place, "description", &self.spec.description, row)?;
        if let Value::String(text) = &description
            && !text.is_empty()
        {
            pieces.push(Piece::system(text));
        }
        let shots = self.shots;
        if shots == 0 {
            return Ok(pieces);
        }
        let asked = self.spec.excludes_the_question().then_some(row);
        let Some(examples) = self.sampler.sample(shots as usize, asked) else {
            let split = self.spec.example_split();
            let hint = match self.spec.samples() {
                Some(_) => " in its `fewshot_config`".to_owned(),
                None => format!(": files of the split `{split}` are looked for"),
            };
            return Err(EvalError::Fewshot {
                task: self.spec.name.clone(),
                asked: shots,
                found: self.pool.len(),
                hint,
            });
        };
        for example in &examples {
            pieces.extend(self.example(place, example, chooses_contexts)?);
        }
        Ok(pieces)
    }

    /// An example with its answer.
    fn example(
        &self,
        place: &Place,
        example: &Value,
        chooses_contexts: bool,
    ) -> Result<Vec<Piece>, EvalError> {
        let own = &self.spec.examples;
        let choices = match (self.spec.example_choices(), &own.choices) {
            (None, _) => Vec::new(),
            (Some(rule), None) => self.choices(place, "doc_to_choice", rule, example)?,
            (Some(rule), Some(_)) => self.choices(place, "fewshot_config.doc_to_choice", rule, example)?,
        };
        let text = match &own.text {
            None => self.text(place, "doc_to_text", &self.spec.text, example)?,
            Some(rule) => self.text(place, "fewshot_config.doc_to_text", rule, example)?,
        };
        let target = match &own.target {
            None => self.target(place, "doc_to_target", &self.spec.target, example)?,
            Some(rule) => self.target(place, "fewshot_config.doc_to_target", rule, example)?,
        };
        let (question, answer) = match gold::choice(&choices, &text).filter(|_| chooses_contexts) {
            Some(choice) => (choice.clone(), gold::answer(&target, &[])),
            None => (text_of(&text), gold::answer(&target, &choices)),
        };
        let prefix = self.prefix(place, "fewshot_config.gen_prefix", own.prefix.as_ref(), example)?;
        let (target_delimiter, fewshot_delimiter) = self.spec.example_delimiters();
        let answer = Some(answer);
        Ok(Piece::turn(Turn { question, answer, prefix: &prefix, target_delimiter, fewshot_delimiter }))
    }

    /// What begins an answer; nothing where nothing does.
    fn prefix(
        &self,
        place: &Place,
        name: &'static str,
        prefix: Option<&Prefix>,
        row: &Value,
    ) -> Result<String, EvalError> {
        let Some(Prefix { rule, .. }) = prefix else { return Ok(String::new()) };
        Ok(text_of(&self.value(place, name, rule, row)?))
    }

    /// The choices: a list, which a template may print.
    fn choices(
        &self,
        place: &Place,
        name: &'static str,
        rule: &Rule,
        row: &Value,
    ) -> Result<Vec<String>, EvalError> {
        let given = self.value(place, name, rule, row)?;
        let read = given.as_str().and_then(literal::list).map(Value::from);
        match read.unwrap_or(given) {
            Value::Array(choices) if choices.is_empty() => {
                Err(self.wrong(place, name, "gives an empty list".to_owned()))
            }
            Value::Array(choices) => Ok(choices.iter().map(text_of).collect()),
            other => {
                let problem = format!("gives {}, expected a list of choices", rows::described(&other));
                Err(self.wrong(place, name, problem))
            }
        }
    }

    /// The replies of which any is right; where there are choices, the one that the answer is the index of.
    fn right_replies(&self, place: &Place, target: &Value, row: &Value) -> Result<Vec<String>, EvalError> {
        if !self.spec.has_choices() {
            return Ok(match self.has_several_answers {
                Some(true) => gold::right_replies(target),
                _ => vec![text_of(target)],
            });
        }
        let choices = self.choices(place, "doc_to_choice", &self.spec.choices, row)?;
        let right = gold::choice(&choices, target).cloned().ok_or_else(|| {
            let problem = format!("gives {}, expected the index of a choice", rows::described(target));
            self.wrong(place, "doc_to_target", problem)
        })?;
        Ok(vec![right])
    }

    /// An error where there are several answers, and a metric compares with one. Metrics of texts see a list as the text that
    /// Python prints, unless the first answer was one.
    fn check_answer(&self, place: &Place, target: &Value) -> Result<(), EvalError> {
        let is_several = self.has_several_answers == Some(true);
        let compares =
            |name: &&String| is_several && metrics::compares_texts(name) || metrics::compares_labels(name);
        match self.spec.metrics.iter().find(compares) {
            Some(metric) if target.is_array() => {
                let problem = format!("gives a list, and `{metric}` compares with one answer");
                Err(self.wrong(place, "doc_to_target", problem))
            }
            _ => Ok(()),
        }
    }

    /// Whether a question to choose from has no right choice. It is asked, and counted as wrong.
    fn has_no_answer(&self, row: &Value) -> bool {
        let target = &self.spec.target;
        self.spec.answering.is_choosing()
            && (target.lacks_field(row)
                || target.value(&self.templates, row).is_err_and(|problem| problem.is_no_choice))
    }

    /// The question, or the index of a choice.
    fn text(&self, place: &Place, name: &'static str, rule: &Rule, row: &Value) -> Result<Value, EvalError> {
        let text = self.value(place, name, rule, row)?;
        Ok(if rule.is_printed(row) { gold::printed_text(&text, self.spec.has_choices()) } else { text })
    }

    /// The answer, or several.
    fn target(
        &self,
        place: &Place,
        name: &'static str,
        rule: &Rule,
        row: &Value,
    ) -> Result<Value, EvalError> {
        let target = self.value(place, name, rule, row)?;
        Ok(if rule.is_printed(row) { gold::printed_target(target, self.spec.has_choices()) } else { target })
    }

    fn value(&self, place: &Place, name: &'static str, rule: &Rule, row: &Value) -> Result<Value, EvalError> {
        rule.value(&self.templates, row).map_err(|problem| self.wrong(place, name, problem))
    }

    fn wrong(&self, place: &Place, rule: &'static str, problem: impl Into<Problem>) -> EvalError {
        let Problem { words, line, .. } = problem.into();
        let origin = self.origins.get(rule).map(|origin| origin.place(line));
        EvalError::Rule { place: place.clone(), task: self.spec.name.clone(), rule, problem: words, origin }
    }
}
