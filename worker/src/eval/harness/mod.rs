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
pub mod fewshot;
mod judge;
mod prompt;
mod random;
pub mod spec;
pub mod template;

use std::sync::Arc;

use qpipe_nodes::kinds::Bos;
use serde_json::Value;

use self::dataset::Dataset;
use self::fewshot::Sampler;
use self::prompt::Piece;
use self::spec::Spec;
use self::template::{Rule, Templates};
use super::error::EvalError;
use super::python;
use super::rows::{Data, DataRow};
use super::task::{
    Definition, Document, Judgement, Overlong, Place, Questions, Request, Rules, Score, Source, Task,
    TaskOptions,
};

pub use judge::metric_is_better_when_higher;

/// A task of lm-eval's.
#[derive(Clone, Debug)]
pub struct HarnessTask {
    spec: Spec,
}

impl HarnessTask {
    /// The task that `spec` describes.
    pub fn new(spec: Spec) -> Self {
        Self { spec }
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
        let shots = options.num_fewshot.unwrap_or(0);
        let pool = if shots > 0 { dataset.examples()? } else { Arc::default() };
        let mut writer = Writer {
            spec: &self.spec,
            chooses_contexts: None,
            templates: Templates::default(),
            sampler: Sampler::new(Arc::clone(&pool), self.spec.sampling, options.seed),
            pool,
            options,
        };
        let of = rows.len() as u64;
        let limit = options.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let documents = rows.into_iter().take(limit).map(|row| writer.document(row));
        Ok(Questions { documents: documents.collect::<Result<_, _>>()?, of })
    }

    fn judge(&self, document: &Document, scores: &[Score]) -> Judgement {
        judge::multiple_choice(document, scores, &self.spec.metrics)
    }

    fn definition(&self, options: &TaskOptions<'_>) -> Option<Definition> {
        Some(Definition {
            alias: self.spec.alias.clone(),
            version: self.spec.version,
            num_fewshot: options.num_fewshot.unwrap_or(0),
            metrics: self.spec.metrics.clone(),
        })
    }
}

/// Makes documents of rows, one after another: each question draws its examples from where the one before it stopped.
struct Writer<'a> {
    spec: &'a Spec,
    /// Whether the choices stand before what is scored: then the question is the index of the right one. As in lm-eval, the
    /// first row decides.
    chooses_contexts: Option<bool>,
    templates: Templates,
    sampler: Sampler,
    pool: Arc<Vec<Value>>,
    options: &'a TaskOptions<'a>,
}

impl Writer<'_> {
    fn document(&mut self, row: DataRow) -> Result<Document, EvalError> {
        let place = row.place;
        let row = Value::Object(row.fields);
        let before = self.before(&place, &row)?;
        let text = self.value(&place, "doc_to_text", &self.spec.text, &row)?;
        let choices = self.choices(&place, &row)?;
        // A question without an answer is asked, and counted as wrong.
        let target = match self.spec.target.lacks_field(&row) {
            true => Value::Null,
            false => self.value(&place, "doc_to_target", &self.spec.target, &row)?,
        };
        let context = |question: &str| -> Result<Arc<str>, EvalError> {
            let mut pieces = before.clone();
            pieces.push(Piece::question(question.to_owned()));
            let text = match self.options.chat {
                None => prompt::plain(&pieces),
                Some(template) => prompt::conversation(&pieces, template)
                    .map_err(|error| EvalError::Chat { place: place.clone(), problem: error.to_string() })?,
            };
            Ok(text.into())
        };
        // A conversation ends where the answer begins.
        let delimiter = if self.options.chat.is_some() { "" } else { self.spec.target_delimiter.as_str() };
        let chooses_contexts = *self
            .chooses_contexts
            .get_or_insert_with(|| self.spec.text.is_computed() && index_of(&text).is_some());
        let (requests, gold) = if chooses_contexts {
            let follows = python::text_of(&target);
            let request = |choice: &String| {
                let continuation = format!("{delimiter}{follows}");
                Ok(Request { context: context(choice)?, continuation })
            };
            (
                choices.iter().map(request).collect::<Result<Vec<_>, EvalError>>()?,
                index_of(&text).into_iter().collect(),
            )
        } else {
            let context = context(&python::text_of(&text))?;
            let request = |choice: &String| Request {
                context: Arc::clone(&context),
                continuation: format!("{delimiter}{choice}"),
            };
            (choices.iter().map(request).collect(), gold(&target, &choices))
        };
        let gold =
            gold.into_iter().filter(|&index| index < choices.len()).map(|index| index as u32).collect();
        let source = Some(Source { target: python::text_of(&target), row });
        Ok(Document { place, requests, choices, gold, source })
    }

    /// The description and the examples.
    fn before(&mut self, place: &Place, row: &Value) -> Result<Vec<Piece>, EvalError> {
        let mut pieces = Vec::new();
        if !self.spec.description.is_empty() {
            pieces.push(Piece::system(&self.spec.description));
        }
        let shots = self.options.num_fewshot.unwrap_or(0);
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
            let choices = self.choices(place, example)?;
            let text = self.value(place, "doc_to_text", &self.spec.text, example)?;
            let target = self.value(place, "doc_to_target", &self.spec.target, example)?;
            let right = index_of(&text).and_then(|index| choices.get(index));
            let (question, answer) = match right {
                Some(choice) if self.spec.text.is_computed() => (choice.clone(), python::text_of(&target)),
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
            other => {
                let problem = format!("gives {}, expected a list of choices", super::rows::described(&other));
                Err(self.wrong(place, "doc_to_choice", problem))
            }
        }
    }

    fn value(&self, place: &Place, name: &'static str, rule: &Rule, row: &Value) -> Result<Value, EvalError> {
        rule.value(&self.templates, row).map_err(|problem| self.wrong(place, name, problem))
    }

    fn wrong(&self, place: &Place, rule: &'static str, problem: String) -> EvalError {
        EvalError::Rule { place: place.clone(), task: self.spec.name.clone(), rule, problem }
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

/// The indices of the right choices; beyond the choices, or none, where the data's answer is none of them.
fn gold(target: &Value, choices: &[String]) -> Vec<usize> {
    if let Value::Array(targets) = target {
        return targets.iter().filter_map(index_of).collect();
    }
    match (index_of(target), target) {
        (Some(index), _) => vec![index],
        (None, Value::String(text)) => choices.iter().position(|choice| choice == text).into_iter().collect(),
        (None, _) => Vec::new(),
    }
}

/// What stands behind an example.
fn answer(target: &Value, choices: &[String]) -> String {
    let first = match target {
        Value::Array(targets) => targets.first().unwrap_or(&Value::Null),
        target => target,
    };
    match index_of(first).and_then(|index| choices.get(index)) {
        Some(choice) => choice.clone(),
        None => python::text_of(first),
    }
}
