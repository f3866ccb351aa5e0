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
mod choice_letter;
mod dataset;
mod exact_match;
pub mod fewshot;
pub mod file;
pub mod filter;
mod gold;
mod json_text;
mod judge;
mod literal;
mod literal_text;
pub mod perplexity;
mod printed;
mod prompt;
mod python_filters;
mod python_methods;
mod python_objects;
#[cfg(test)]
mod python_tests;
mod spans;
pub mod spec;
pub mod template;
mod writer;
pub mod writing;

use std::iter;
use std::sync::Arc;

use qpipe_nodes::kinds::Bos;
use qpipe_nodes::results::Figure;
use qpipe_nodes::task_origin::Origins;
use serde_json::Value;

use self::dataset::Dataset;
use self::spec::{Answering, Spec};
use self::writer::Writer;
use self::writing::Right;
use super::error::EvalError;
use super::metrics;
use super::rows::Data;
use super::task::{
    Asked, Border, Definition, Document, Judgement, Overlong, Questions, Response, Rules, Source, Task,
    TaskOptions,
};

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

    /// The answer to a question where it is no text and was never printed.
    fn held_target<'a>(&'a self, document: &'a Document) -> Option<&'a Value> {
        self.spec.target.held(&document.source.as_ref()?.row)
    }

    /// What a reply to a question is compared with.
    fn right<'a>(&self, document: &'a Document) -> Right<'a> {
        let replies = document.choices.as_slice();
        let has_choices = self.spec.has_choices();
        let is_only = |source: &Source| matches!(replies, [reply] if *reply == source.target);
        // lm-eval makes texts of choices, and of nothing else that is to be compared with several replies.
        let is_text = has_choices || self.held_target(document).is_none_or(Value::is_array);
        let is_several = !has_choices && !document.source.as_ref().is_none_or(is_only);
        Right { replies, is_text, is_several }
    }

    /// Whether the right labels alone already leave a metric of labels without meaning: before anything is computed.
    fn check_labels(&self, documents: &[Document]) -> Result<(), EvalError> {
        let labels = |document: &Document| {
            Figure::Labels([judge::right_label(document, self.held_target(document)); 2])
        };
        let of_labels = self.spec.metrics.iter().filter(|name| metrics::compares_labels(name));
        for metric in of_labels.filter_map(|name| metrics::named(name)) {
            let figures: Vec<Figure> = documents.iter().map(labels).collect();
            let checked = metric.of(&figures.iter().collect::<Vec<_>>());
            let wrong = |problem| EvalError::TaskFile { task: self.spec.name.clone(), problem };
            checked.map(drop).map_err(wrong)?;
        }
        Ok(())
    }
}

impl Task for HarnessTask {
    fn name(&self) -> &str {
        &self.spec.name
    }

    fn rules(&self) -> Rules {
        Rules { bos: Bos::Tokenizer, overlong: Overlong::CutContext, border: Border::Apart }
    }

    fn questions(&self, data: &Data, options: &TaskOptions<'_>) -> Result<Questions, EvalError> {
        let dataset = Dataset::new(data, &self.spec);
        let rows = dataset.asked()?;
        // Nothing stands before a text that is scored whole.
        let shots = match self.spec.answering {
            Answering::Foreseeing { .. } => 0,
            _ => self.spec.shots(options.num_fewshot),
        };
        let pool = match (shots, self.spec.samples()) {
            (0, _) => Arc::default(),
            (_, Some(samples)) => Arc::clone(samples),
            (_, None) => dataset.examples()?,
        };
        let mut writer = Writer::new(&self.spec, &self.origins, options, (shots, pool));
        let of = rows.len() as u64;
        let asked = options.limit.map_or(rows.len(), |limit| limit.of(rows.len()));
        let documents = rows.into_iter().take(asked).map(|row| writer.document(row));
        let mut documents: Vec<Document> = documents.collect::<Result<_, _>>()?;
        self.check_labels(&documents)?;
        let times = self.spec.times();
        if times > 1 {
            documents = documents.into_iter().flat_map(|document| iter::repeat_n(document, times)).collect();
        }
        Ok(Questions { documents, times, repeats: self.spec.repeats, of })
    }

    fn judge(&self, document: &Document, responses: &[Response]) -> Result<Judgement, EvalError> {
        let scores = responses.first().map_or(&[][..], Response::scores);
        let metrics = &self.spec.metrics;
        match (&self.spec.answering, &document.asked) {
            (Answering::Writing(writing), _) => {
                let replies: Vec<&str> = responses.iter().map(Response::reply).collect();
                writing.verdict.judge(document, self.right(document), &replies)
            }
            (Answering::Continuing, _) => Ok(judge::continued(scores, metrics)),
            (_, Asked::Text(text)) => Ok(perplexity::judge(text, scores, metrics)),
            _ => {
                let right_label = judge::right_label(document, self.held_target(document));
                Ok(judge::multiple_choice(document, right_label, scores, metrics))
            }
        }
    }

    fn definition(&self, options: &TaskOptions<'_>) -> Option<Definition> {
        Some(Definition {
            alias: self.spec.alias.clone(),
            version: self.spec.version.clone(),
            num_fewshot: self.spec.shots(options.num_fewshot),
            output_type: self.spec.answering.output_type(),
        })
    }
}
