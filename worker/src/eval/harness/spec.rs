//! What lm-eval's task files say, as data: where questions come from, how they are written, what is counted.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::fewshot::Sampling;
use super::template::Rule;
use super::writing::Writing;
use crate::eval::python;

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
    pub version: Value,
    /// Which part of the data it asks: a subject.
    pub part: Option<String>,
    /// Whether data that nowhere names the part is all of that part.
    pub part_may_be_absent: bool,
    /// The splits of its data.
    pub splits: Splits,
    /// Makes the question; of a task whose choices are contexts, the index of the right one.
    pub text: Rule,
    /// Makes the choices.
    pub choices: Rule,
    /// Makes the right choice's index or text, or several; of a task whose choices are contexts, what follows them.
    pub target: Rule,
    /// Makes what stands before the examples.
    pub description: Rule,
    /// Makes what begins the answer.
    pub prefix: Option<Prefix>,
    /// How examples differ from questions.
    pub examples: Examples,
    /// Stands between a question and its answer.
    pub target_delimiter: String,
    /// Stands between examples.
    pub fewshot_delimiter: String,
    /// How examples are chosen.
    pub sampling: Sampling,
    /// Rewrites rows.
    pub prepare: Option<Prepare>,
    /// Examples before each question, where the pipeline does not say. A task that has 0 takes no others.
    pub num_fewshot: Option<u32>,
    /// What is counted of scores, in the order of the task file.
    pub metrics: Vec<String>,
    /// How many answers count for each question, at least one.
    pub repeats: usize,
    /// What the model is to do.
    pub answering: Answering,
}

/// What begins an answer.
#[derive(Clone, Debug)]
pub struct Prefix {
    /// Makes it.
    pub rule: Rule,
    /// As the task file has it.
    pub source: String,
}

/// How examples differ from questions, and which they are. What is `None` is as for questions, but for the prefix.
#[derive(Clone, Debug, Default)]
pub struct Examples {
    /// The examples, where no split is named for them.
    pub samples: Option<Arc<Vec<Value>>>,
    /// Makes the question.
    pub text: Option<Rule>,
    /// Makes the choices.
    pub choices: Option<Rule>,
    /// Makes the answer.
    pub target: Option<Rule>,
    /// Makes what begins the answer; `None`: nothing.
    pub prefix: Option<Prefix>,
    /// Stands between a question and its answer.
    pub target_delimiter: Option<String>,
    /// Stands between examples.
    pub fewshot_delimiter: Option<String>,
}

/// What the model is to do with a question.
#[derive(Clone, Debug)]
pub enum Answering {
    /// Choose (`multiple_choice`): the likeliest continuation.
    Choosing,
    /// Write (`generate_until`).
    Writing(Writing),
    /// Foresee the target behind the question (`loglikelihood`).
    Continuing,
    /// Foresee the target, all of it (`loglikelihood_rolling`).
    Foreseeing {
        /// The text whose words and bytes are counted; `None`: the target's own.
        counted: Option<Rule>,
    },
}

impl Answering {
    /// Whether the model chooses.
    pub fn is_choosing(&self) -> bool {
        matches!(self, Self::Choosing)
    }

    /// lm-eval's word.
    pub fn output_type(&self) -> &'static str {
        match self {
            Self::Choosing => "multiple_choice",
            Self::Writing(_) => "generate_until",
            Self::Continuing => "loglikelihood",
            Self::Foreseeing { .. } => "loglikelihood_rolling",
        }
    }
}

/// Tokens that a model writes at most where a task does not say.
pub(super) const DEFAULT_TOKENS: usize = 256;

/// The names of a dataset's splits, as far as a task uses them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Splits {
    /// To learn from: first choice for examples.
    pub training: Option<Cow<'static, str>>,
    /// Asked where there is no test split.
    pub validation: Option<Cow<'static, str>>,
    /// Asked.
    pub test: Option<Cow<'static, str>>,
    /// For examples, before all others.
    pub fewshot: Option<Cow<'static, str>>,
}

impl Splits {
    /// The split of this name.
    pub const fn named(name: &'static str) -> Option<Cow<'static, str>> {
        Some(Cow::Borrowed(name))
    }
}

impl Spec {
    /// A task of multiple choice without peculiarities.
    pub fn new(name: &str, splits: Splits, text: &str, choices: Rule, target: Rule) -> Self {
        Self {
            name: name.to_owned(),
            alias: None,
            version: 1.0.into(),
            part: None,
            part_may_be_absent: false,
            splits,
            text: Rule::template(text),
            choices,
            target,
            description: Rule::Constant(Value::Null),
            prefix: None,
            examples: Examples::default(),
            target_delimiter: " ".to_owned(),
            fewshot_delimiter: "\n\n".to_owned(),
            sampling: Sampling::Random,
            prepare: None,
            num_fewshot: None,
            metrics: names(&["acc", "acc_norm"]),
            repeats: 1,
            answering: Answering::Choosing,
        }
    }

    /// Examples before each question, if the pipeline asks for so many.
    pub fn shots(&self, asked: Option<u32>) -> u32 {
        match self.num_fewshot {
            Some(0) => 0,
            own => asked.or(own).unwrap_or(0),
        }
    }

    /// How often a question is put to the model: once for each reply that is drawn.
    pub fn times(&self) -> usize {
        match &self.answering {
            Answering::Writing(writing) if writing.rule.sampling.is_some() => self.repeats,
            _ => 1,
        }
    }

    /// Whether it has choices. A task without them has no rule, or one that gives none.
    pub fn has_choices(&self) -> bool {
        match &self.choices {
            Rule::Constant(Value::Null) => false,
            Rule::Constant(Value::Array(choices)) => !choices.is_empty(),
            _ => true,
        }
    }

    /// Makes the choices of an example; `None`: it has none.
    pub fn example_choices(&self) -> Option<&Rule> {
        self.examples.choices.as_ref().or_else(|| self.has_choices().then_some(&self.choices))
    }

    /// Stands between question and answer of an example, and between examples.
    pub fn example_delimiters(&self) -> (&str, &str) {
        let Examples { target_delimiter, fewshot_delimiter, .. } = &self.examples;
        (
            target_delimiter.as_ref().unwrap_or(&self.target_delimiter),
            fewshot_delimiter.as_ref().unwrap_or(&self.fewshot_delimiter),
        )
    }

    /// The examples that the task file holds. A split that is named for them goes before.
    pub fn samples(&self) -> Option<&Arc<Vec<Value>>> {
        self.examples.samples.as_ref().filter(|_| self.splits.fewshot.is_none())
    }

    /// Stands before what is scored: in a conversation only behind an answer that has begun, and not with a blank.
    pub fn continuation_delimiter(&self, is_chat: bool) -> &str {
        let begun = self.prefix.as_ref().is_some_and(|prefix| !prefix.source.ends_with(python::is_space));
        if !is_chat || begun { &self.target_delimiter } else { "" }
    }

    /// The split whose rows are asked.
    pub fn asked_split(&self) -> &str {
        let Splits { validation, test, .. } = &self.splits;
        test.as_ref().or(validation.as_ref()).map_or("test", |split| split)
    }

    /// The split that examples are taken from.
    pub fn example_split(&self) -> &str {
        let Splits { training, validation, test, fewshot } = &self.splits;
        let found = fewshot.as_ref().or(training.as_ref()).or(validation.as_ref()).or(test.as_ref());
        found.map_or("train", |split| split)
    }

    /// Whether lm-eval takes care that a question is not among its own examples. It compares the names of the two splits as
    /// the task file has them, and a split for examples that is not named equals a test split that is not there.
    pub fn excludes_the_question(&self) -> bool {
        self.splits.fewshot == self.splits.test
    }
}

/// Names as a task has them.
pub(super) fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
