//! What lm-eval's task files say, as data: where questions come from, how they are written, what is counted.

use serde_json::{Map, Value};

use super::fewshot::Sampling;
use super::template::Rule;

/// Rewrites a row before anything is made of it.
pub type Prepare = fn(&mut Map<String, Value>) -> Result<(), String>;

/// A task.
#[derive(Clone, Debug)]
pub struct Spec {
    /// As a pipeline names it.
    pub name: String,
    /// What tables call it, if not by its name.
    pub alias: Option<String>,
    /// Raised by lm-eval when the task's numbers change.
    pub version: f64,
    /// Which part of the data it asks: a subject.
    pub part: Option<String>,
    /// The splits of its data.
    pub splits: Splits,
    /// Makes the question; of a task whose choices are contexts, the index of the right one.
    pub text: Rule,
    /// Makes the choices.
    pub choices: Rule,
    /// Makes the right choice's index or text, or several; of a task whose choices are contexts, what follows them.
    pub target: Rule,
    /// Stands before the examples.
    pub description: String,
    /// Stands between a question and its answer.
    pub target_delimiter: String,
    /// Stands between examples.
    pub fewshot_delimiter: String,
    /// How examples are chosen.
    pub sampling: Sampling,
    /// Rewrites rows.
    pub prepare: Option<Prepare>,
    /// What is counted, in the order of the task file.
    pub metrics: Vec<&'static str>,
}

/// The names of a dataset's splits, as far as a task uses them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Splits {
    /// To learn from: first choice for examples.
    pub training: Option<&'static str>,
    /// Asked where there is no test split.
    pub validation: Option<&'static str>,
    /// Asked.
    pub test: Option<&'static str>,
    /// For examples, before all others.
    pub fewshot: Option<&'static str>,
}

impl Spec {
    /// A task of multiple choice without peculiarities.
    pub fn new(name: &str, splits: Splits, text: &str, choices: Rule, target: Rule) -> Self {
        Self {
            name: name.to_owned(),
            alias: None,
            version: 1.0,
            part: None,
            splits,
            text: Rule::template(text),
            choices,
            target,
            description: String::new(),
            target_delimiter: " ".to_owned(),
            fewshot_delimiter: "\n\n".to_owned(),
            sampling: Sampling::Random,
            prepare: None,
            metrics: vec!["acc", "acc_norm"],
        }
    }

    /// The split whose rows are asked.
    pub fn asked_split(&self) -> &'static str {
        self.splits.test.or(self.splits.validation).unwrap_or("test")
    }

    /// The split that examples are taken from.
    pub fn example_split(&self) -> &'static str {
        let Splits { training, validation, test, fewshot } = self.splits;
        fewshot.or(training).or(validation).or(test).unwrap_or("train")
    }

    /// Whether lm-eval takes care that a question is not among its own examples. It compares the names of the two splits as
    /// the task file has them, and a split for examples that is not named equals a test split that is not there.
    pub fn excludes_the_question(&self) -> bool {
        self.splits.fewshot == self.splits.test
    }
}
