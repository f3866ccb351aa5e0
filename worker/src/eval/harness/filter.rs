//! What is taken out of the replies to a question before they are judged: lm-eval's filters, under the names of its task files.
//!
//! A step sees a list of replies and makes another of it, until `take_first` takes one out. What follows that, sees the
//! characters of the text as if they were replies, as in lm-eval.

use serde_json::{Map, Value};

use super::choice_letter::ChoiceLetter;
use super::spans;
use crate::eval::python::pattern::{Pattern, PatternError};
use crate::eval::python::{self, translate::Flags};

/// What stands for a reply in which nothing is found.
const INVALID: &str = "[invalid]";

/// Why a filter makes nothing of a reply.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum FilterError {
    /// An expression does not work.
    #[error("{0}")]
    Pattern(#[from] PatternError),
    /// There is nothing to take.
    #[error("`{0}` takes the first of nothing")]
    Nothing(&'static str),
    /// There is less to take than is asked for.
    #[error("`take_first_k` takes {asked} replies, and there are {found}")]
    TooFew {
        /// So many are asked for.
        asked: usize,
        /// So many are there.
        found: usize,
    },
    /// A step got what it cannot read.
    #[error("`{step}` reads texts, and got {found}")]
    NoText {
        /// The step.
        step: &'static str,
        /// What it got.
        found: String,
    },
    /// A row without choices.
    #[error("`multi_choice_regex` needs a field `choices` that is a list of texts")]
    NoChoices,
}

/// A filter: steps, one after another.
#[derive(Clone, Debug)]
pub struct Filter {
    /// As tables call it.
    pub name: String,
    steps: Vec<Step>,
}

/// A step of a filter.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// `regex`: the match with this number, from the end where it is negative; of its groups the first that is not empty.
    Regex {
        /// What is looked for.
        pattern: Pattern,
        /// Which match.
        select: i64,
        /// What stands for none.
        fallback: String,
    },
    /// `multi_choice_regex`.
    ChoiceLetter(ChoiceLetter),
    /// `regex_pos`: the tags of a text of `('word', 'TAG')`, else this.
    Tags(Value),
    /// `map`: another value for each reply.
    Map {
        /// By reply.
        values: Map<String, Value>,
        /// For all others.
        other: Value,
    },
    /// `format_span`.
    Spans,
    /// `take_first`.
    First,
    /// `take_first_k`.
    FirstOf(usize),
    /// `majority_vote`: the reply that comes most often, the first of equals.
    Majority,
    /// `remove_whitespace`: without whitespace at its ends.
    RemoveWhitespace,
    /// `lowercase`.
    Lowercase,
    /// `uppercase`.
    Uppercase,
}

impl Step {
    /// `regex` with the defaults of lm-eval.
    ///
    /// # Errors
    /// When `source` is no regular expression of Python.
    pub(super) fn regex(source: &str, select: i64) -> Result<Self, PatternError> {
        let pattern = Pattern::new(source, Flags::default())?;
        Ok(Self::Regex { pattern, select, fallback: INVALID.to_owned() })
    }

    fn apply(&self, replies: &Value, row: &Value) -> Result<Value, FilterError> {
        let each = |change: &dyn Fn(&Value) -> Result<Value, FilterError>| -> Result<Value, FilterError> {
            entries(replies).iter().map(change).collect::<Result<Vec<_>, _>>().map(Value::Array)
        };
        let each_text =
            |step, change: &dyn Fn(&str) -> String| each(&|reply| Ok(change(as_text(step, reply)?).into()));
        match self {
            Self::First => entries(replies).into_iter().next().ok_or(FilterError::Nothing("take_first")),
            Self::FirstOf(count) => first_of(*count, replies),
            Self::Majority => Ok(vec![majority(&entries(replies))?].into()),
            Self::RemoveWhitespace => each_text("remove_whitespace", &|text| python::strip(text).to_owned()),
            Self::Lowercase => each_text("lowercase", &str::to_lowercase),
            Self::Uppercase => each_text("uppercase", &str::to_uppercase),
            Self::Regex { pattern, select, fallback } => each(&|reply| {
                let found = selected(pattern, *select, reply.as_str().unwrap_or_default())?;
                let groups = found.as_deref();
                Ok(match groups.and_then(|groups| groups.iter().find(|group| !group.is_empty())) {
                    Some(group) => python::strip(group).into(),
                    // A match of no characters is a match, unless several groups could have had some.
                    None if groups.is_some_and(|groups| groups.len() == 1) => "".into(),
                    None => fallback.as_str().into(),
                })
            }),
            Self::ChoiceLetter(letter) => {
                let choices = letter.of_row(row)?;
                each(&|reply| Ok(choices.find(reply)?.into()))
            }
            Self::Tags(fallback) => each(&|reply| Ok(spans::tags(as_text("regex_pos", reply)?, fallback))),
            Self::Spans => each(&|reply| Ok(spans::written(as_text("format_span", reply)?).into())),
            Self::Map { values, other } => each(&|reply| {
                let value = reply.as_str().and_then(|reply| values.get(reply));
                Ok(value.unwrap_or(other).clone())
            }),
        }
    }
}

/// The groups of the match number `select` of `re.findall`, from the end where it is negative.
pub(super) fn selected(
    pattern: &Pattern,
    select: i64,
    text: &str,
) -> Result<Option<Vec<String>>, PatternError> {
    let mut found = pattern.find_all(text)?;
    let index = match select {
        0.. => usize::try_from(select).ok(),
        _ => found.len().checked_add_signed(select as isize),
    };
    Ok(index.filter(|&index| index < found.len()).map(|index| found.swap_remove(index)))
}

/// What Python goes through: the entries of a list, the characters of a text.
pub(super) fn entries(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values.clone(),
        Value::String(text) => text.chars().map(|character| character.to_string().into()).collect(),
        Value::Object(entries) => entries.keys().map(|key| key.as_str().into()).collect(),
        _ => Vec::new(),
    }
}

fn as_text<'a>(step: &'static str, reply: &'a Value) -> Result<&'a str, FilterError> {
    reply.as_str().ok_or_else(|| FilterError::NoText { step, found: python::text_of(reply) })
}

/// The first replies. Of a text it is the first characters, as many as there are, and still a text.
fn first_of(count: usize, replies: &Value) -> Result<Value, FilterError> {
    match replies {
        Value::Array(replies) if replies.len() < count => {
            Err(FilterError::TooFew { asked: count, found: replies.len() })
        }
        Value::Array(replies) => Ok(replies[..count].to_vec().into()),
        text => Ok(as_text("take_first_k", text)?.chars().take(count).collect::<String>().into()),
    }
}

fn majority(replies: &[Value]) -> Result<Value, FilterError> {
    let count = |reply: &Value| replies.iter().filter(|other| *other == reply).count();
    let mut best: Option<(usize, &Value)> = None;
    for reply in replies {
        let votes = count(reply);
        if best.is_none_or(|(most, _)| votes > most) {
            best = Some((votes, reply));
        }
    }
    best.map(|(_, reply)| reply.clone()).ok_or(FilterError::Nothing("majority_vote"))
}

impl Filter {
    /// Of these steps.
    pub(super) fn new(name: &str, steps: Vec<Step>) -> Self {
        Self { name: name.to_owned(), steps }
    }

    /// What it leaves of the `replies` to the question that `row` is.
    ///
    /// # Errors
    /// When an expression backtracks without end, or a step is given what it cannot read.
    pub(super) fn apply(&self, replies: &[&str], row: &Value) -> Result<Value, FilterError> {
        let replies = replies.iter().copied().map(Value::from).collect();
        self.steps.iter().try_fold(replies, |replies, step| step.apply(&replies, row))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;

    fn filtered(steps: Vec<Step>, replies: &[&str]) -> Value {
        Filter::new("f", steps).apply(replies, &Value::Null).unwrap()
    }

    fn regex(source: &str, select: i64) -> Step {
        Step::regex(source, select).unwrap()
    }

    #[test]
    fn a_match_is_selected_from_either_end() {
        let flexible = |select| vec![regex("(-?[$0-9.,]{2,})|(-?[0-9]+)", select), Step::First];
        assert_eq!(filtered(flexible(-1), &["3 apples and 12 pears"]), "12");
        assert_eq!(filtered(flexible(0), &["3 apples and 12 pears"]), "3");
        assert_eq!(filtered(flexible(2), &["3 apples and 12 pears"]), "[invalid]");
        assert_eq!(filtered(flexible(-1), &["none"]), "[invalid]");
        let strict = vec![regex(r"#### (\-?[0-9\.\,]+)", 0), Step::First];
        assert_eq!(filtered(strict, &["So\n#### 1,234."]), "1,234.");
    }

    #[test]
    fn steps_follow_one_another() {
        let steps = vec![Step::RemoveWhitespace, Step::Lowercase, regex("[a-z]+", 0), Step::First];
        assert_eq!(filtered(steps, &["  YES."]), "yes");
        assert_eq!(filtered(vec![Step::RemoveWhitespace, Step::Uppercase], &["  yes"]), json!(["YES"]));
    }

    /// What is expected is what lm-eval 0.4.13 gives.
    #[test]
    fn of_several_replies_one_is_left() {
        let vote = vec![Step::FirstOf(4), regex("[a-z]", 0), Step::Majority, Step::First];
        assert_eq!(filtered(vote, &["1b", "a", "-a", "b", "a", "a"]), "b");
        assert_eq!(filtered(vec![Step::Majority], &["a", "b", "b"]), json!(["b"]));
        let nothing = Filter::new("f", vec![Step::FirstOf(0), Step::First]).apply(&["a"], &Value::Null);
        assert_eq!(nothing, Err(FilterError::Nothing("take_first")));
        assert_eq!(filtered(vec![Step::First, Step::FirstOf(2)], &["äbc", "d"]), "äb");
        let fewer = Filter::new("f", vec![Step::Majority, Step::FirstOf(2)]).apply(&["a", "b"], &Value::Null);
        assert_eq!(fewer, Err(FilterError::TooFew { asked: 2, found: 1 }));
    }

    /// What is expected is what lm-eval 0.4.13 gives: polemo2 takes the first of a text, too.
    #[test]
    fn replies_become_other_values() {
        let values = json!({"[": 7, "A": 1, "B": [2]}).as_object().unwrap().clone();
        let map = Step::Map { values, other: json!(-1) };
        let steps = vec![regex("[A-Z]+", 0), Step::First, map.clone(), Step::First];
        assert_eq!(filtered(steps.clone(), &["so BA"]), json!([2]));
        assert_eq!(filtered(steps, &["none"]), 7);
        assert_eq!(filtered(vec![map.clone()], &["A", "AB"]), json!([1, -1]));
        let wrong = Filter::new("f", vec![map, Step::Lowercase]).apply(&["A"], &Value::Null);
        assert_eq!(wrong.unwrap_err().to_string(), "`lowercase` reads texts, and got 1");
    }
}
