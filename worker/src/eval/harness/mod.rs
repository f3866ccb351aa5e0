//! The tasks of lm-evaluation-harness: the same prompts, requests, choices and counts.
//!
//! ```text
//! Spec ─► Dataset ─► rows ─► Sampler, prompt ─► Document ─► (the engine) ─► scores ─► judge ─► metrics
//! catalog/   files              text                            tokens
//! ```
//!
//! A task is a [`Spec`]: templates and names, as lm-eval's task files have them; `catalog/` holds one file a family. What
//! was read of lm-eval 0.4.13 to write this is in its documentation and its source; the numbers are held to it by
//! tests/parity/harness.py.

pub mod catalog;
mod dataset;
mod exact_match;
pub mod fewshot;
pub mod file;
pub mod filter;
mod judge;
pub mod perplexity;
mod prompt;
pub mod spec;
pub mod template;
pub mod writing;

use std::sync::Arc;

use qpipe_nodes::kinds::Bos;
use qpipe_nodes::task_origin::Origins;
use serde_json::Value;

use self::dataset::Dataset;
use self::fewshot::Sampler;
use self::prompt::Piece;
use self::spec::{Answering, Spec};
use self::template::{Problem, Rule, Templates};
use super::error::EvalError;
use super::python::{self, literal};
use super::rows::{Data, DataRow};
use super::task::{
    Asked, Definition, Document, Generation, Judgement, Overlong, Place, Questions, Request, Response, Rules,
    Source, Task, TaskOptions,
};

pub use judge::metric_is_better_when_higher;

/// A task of lm-eval's.
#[derive(Clone, Debug)]
pub struct HarnessTask {
    spec: Spec,
    /// Where its rules stand, if it comes from a file.
    origins: Origins,
}

impl HarnessTask {
    /// The task that `spec` describes.
    pub fn new(spec: Spec) -> Self {
        Self { spec, origins: Origins::new() }
    }

    /// The same, with where its rules stand.
    pub fn with_origins(self, origins: Origins) -> Self {
        Self { origins, ..self }
    }
}

impl Task for HarnessTask {
    fn name(&self) -> &str {
        &self.spec.name
    }

    fn rules(&self) -> Rules {
        Rules { bos: Bos::Tokenizer, overlong: Overlong::CutContext }
    }

    fn questions(&self, data: &Data, options: &TaskOptions<'_>) -> Result<Questions, EvalError> {
        let dataset = Dataset::new(data, &self.spec);
        let rows = dataset.asked()?;
        // Nothing stands before a text that is scored whole.
        let shots = match self.spec.answering {
            Answering::Foreseeing { .. } => 0,
            _ => self.spec.shots(options.num_fewshot),
        };
        let pool = if shots > 0 { dataset.examples()? } else { Arc::default() };
        let mut writer = Writer {
            spec: &self.spec,
            origins: &self.origins,
            chooses_contexts: None,
            templates: Templates::default(),
            sampler: Sampler::new(Arc::clone(&pool), self.spec.sampling, options.seed),
            pool,
            shots,
            options,
        };
        let of = rows.len() as u64;
        let asked = options.limit.map_or(rows.len(), |limit| limit.of(rows.len()));
        let documents = rows.into_iter().take(asked).map(|row| writer.document(row));
        Ok(Questions { documents: documents.collect::<Result<_, _>>()?, of })
    }

    fn judge(&self, document: &Document, response: &Response) -> Result<Judgement, EvalError> {
        match (&self.spec.answering, &document.asked) {
            (Answering::Writing(writing), _) => writing.verdict.judge(document, response.reply()),
            (Answering::Continuing, _) => Ok(judge::continued(response.scores(), &self.spec.metrics)),
            (_, Asked::Text(text)) => Ok(perplexity::judge(text, response.scores(), &self.spec.metrics)),
            _ => Ok(judge::multiple_choice(document, response.scores(), &self.spec.metrics)),
        }
    }

    fn definition(&self, options: &TaskOptions<'_>) -> Option<Definition> {
        Some(Definition {
            alias: self.spec.alias.clone(),
            version: self.spec.version,
            num_fewshot: self.spec.shots(options.num_fewshot),
            output_type: self.spec.answering.output_type(),
        })
    }
}

/// Makes documents of rows, one after another: each question draws its examples from where the one before it stopped.
struct Writer<'a> {
    spec: &'a Spec,
    origins: &'a Origins,
    /// Whether the choices stand before what is scored: then the question is the index of the right one. As in lm-eval, the
    /// first row decides.
    chooses_contexts: Option<bool>,
    templates: Templates,
    sampler: Sampler,
    pool: Arc<Vec<Value>>,
    shots: u32,
    options: &'a TaskOptions<'a>,
}

impl Writer<'_> {
    fn document(&mut self, row: DataRow) -> Result<Document, EvalError> {
        let place = row.place;
        let row = Value::Object(row.fields);
        let text = self.value(&place, "doc_to_text", &self.spec.text, &row)?;
        let is_index = self.spec.answering.is_choosing() && index_of(&text).is_some();
        let chooses_contexts = *self.chooses_contexts.get_or_insert(is_index);
        let before = self.before(&place, &row, chooses_contexts)?;
        let target = match self.has_no_answer(&row) {
            true => Value::Null,
            false => self.target(&place, &row)?,
        };
        let spec = self.spec;
        let (asked, choices, gold) = match &spec.answering {
            Answering::Choosing => {
                let choices = self.choices(&place, &row)?;
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
                let prompt = self.context(&place, before, python::text_of(&text))?;
                let rule = Arc::clone(&writing.rule);
                (Asked::Reply(Generation { prompt, rule }), right_replies(&target), Vec::new())
            }
            Answering::Continuing => {
                let context = self.context(&place, before, python::text_of(&text))?;
                let continuation = python::text_of(&target);
                let request = Request { context, continuation: continuation.clone() };
                (Asked::Continuations(vec![request]), vec![continuation], vec![0])
            }
            Answering::Foreseeing { counted } => {
                let text = python::text_of(&target);
                let counted = match counted {
                    Some(rule) => python::text_of(&self.value(&place, "process_results", rule, &row)?),
                    None => text.clone(),
                };
                (Asked::Text(perplexity::whole(text, &counted)), Vec::new(), Vec::new())
            }
        };
        let source = Some(Source { target: python::text_of(&target), row });
        Ok(Document { place, asked, choices, gold, source })
    }

    /// What is scored, one a choice, and which are right.
    fn requests(
        &self,
        place: &Place,
        before: &[Piece],
        text: &Value,
        choices: &[String],
        target: &Value,
    ) -> Result<(Vec<Request>, Vec<usize>), EvalError> {
        // A conversation ends where the answer begins.
        let delimiter = if self.options.chat.is_some() { "" } else { self.spec.target_delimiter.as_str() };
        if self.chooses_contexts == Some(true) {
            let follows = python::text_of(target);
            let request = |choice: &String| {
                let continuation = format!("{delimiter}{follows}");
                Ok(Request { context: self.context(place, before.to_vec(), choice.clone())?, continuation })
            };
            let requests = choices.iter().map(request).collect::<Result<_, EvalError>>()?;
            return Ok((requests, index_of(text).into_iter().collect()));
        }
        let context = self.context(place, before.to_vec(), python::text_of(text))?;
        let request = |choice: &String| Request {
            context: Arc::clone(&context),
            continuation: format!("{delimiter}{choice}"),
        };
        Ok((choices.iter().map(request).collect(), gold(target, choices)))
    }

    /// The text that ends with `question`.
    fn context(
        &self,
        place: &Place,
        mut pieces: Vec<Piece>,
        question: String,
    ) -> Result<Arc<str>, EvalError> {
        pieces.push(Piece::question(question));
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
            return Err(EvalError::Fewshot {
                task: self.spec.name.clone(),
                asked: shots,
                found: self.pool.len(),
                hint: format!(": files of the split `{split}` are looked for"),
            });
        };
        for example in &examples {
            let choices = match self.spec.answering {
                Answering::Choosing => self.choices(place, example)?,
                _ => Vec::new(),
            };
            let text = self.value(place, "doc_to_text", &self.spec.text, example)?;
            let target = self.target(place, example)?;
            let right = index_of(&text).and_then(|index| choices.get(index));
            let (question, answer) = match right {
                Some(choice) if chooses_contexts => (choice.clone(), python::text_of(&target)),
                _ => (python::text_of(&text), answer(&target, &choices)),
            };
            let delimiters = (self.spec.target_delimiter.as_str(), self.spec.fewshot_delimiter.as_str());
            pieces.extend(Piece::example(question, answer, delimiters));
        }
        Ok(pieces)
    }

    fn choices(&self, place: &Place, row: &Value) -> Result<Vec<String>, EvalError> {
        match self.value(place, "doc_to_choice", &self.spec.choices, row)? {
            Value::Array(choices) if !choices.is_empty() => Ok(choices.iter().map(python::text_of).collect()),
            // A template around several expressions prints a list.
            Value::String(text) if literal::texts(&text).is_some_and(|choices| !choices.is_empty()) => {
                Ok(literal::texts(&text).unwrap_or_default())
            }
            other => {
                let problem = format!("gives {}, expected a list of choices", super::rows::described(&other));
                Err(self.wrong(place, "doc_to_choice", problem))
            }
        }
    }

    /// Whether a question to choose from has no right choice. It is asked, and counted as wrong.
    fn has_no_answer(&self, row: &Value) -> bool {
        let target = &self.spec.target;
        self.spec.answering.is_choosing()
            && (target.lacks_field(row)
                || target.value(&self.templates, row).is_err_and(|problem| problem.is_no_choice))
    }

    /// The answer, or several: a template may print a list.
    fn target(&self, place: &Place, row: &Value) -> Result<Value, EvalError> {
        let target = self.value(place, "doc_to_target", &self.spec.target, row)?;
        let several = target.as_str().and_then(literal::texts);
        Ok(several.map_or(target, |texts| texts.into()))
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

/// The index that a value is, or that a text of digits stands for.
fn index_of(value: &Value) -> Option<usize> {
    match value {
        Value::Number(number) => number.as_u64().and_then(|index| usize::try_from(index).ok()),
        Value::String(text) if python::is_number(text) => text.parse().ok(),
        _ => None,
    }
}

/// The index of a right choice; Python's truth values are numbers.
fn place_of(value: &Value) -> Option<usize> {
    match value {
        Value::Bool(is_second) => Some(usize::from(*is_second)),
        value => index_of(value),
    }
}

/// The indices of the right choices; beyond the choices, or none, where the data's answer is none of them.
fn gold(target: &Value, choices: &[String]) -> Vec<usize> {
    if let Value::Array(targets) = target {
        return targets.iter().filter_map(place_of).collect();
    }
    match (place_of(target), target) {
        (Some(index), _) => vec![index],
        (None, Value::String(text)) => choices.iter().position(|choice| choice == text).into_iter().collect(),
        (None, _) => Vec::new(),
    }
}

/// The replies of which any is right.
fn right_replies(target: &Value) -> Vec<String> {
    match target {
        Value::Array(targets) => targets.iter().map(python::text_of).collect(),
        target => vec![python::text_of(target)],
    }
}

/// What stands behind an example.
fn answer(target: &Value, choices: &[String]) -> String {
    let first = match target {
        Value::Array(targets) => targets.first().unwrap_or(&Value::Null),
        target => target,
    };
    match place_of(first).and_then(|index| choices.get(index)) {
        Some(choice) => choice.clone(),
        None => python::text_of(first),
    }
}
