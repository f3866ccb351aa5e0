//! Tasks whose answer the model writes (`generate_until`): how it writes, and what a reply is worth.

use std::collections::BTreeMap;
use std::sync::Arc;

use qpipe_nodes::results::{Figure, Filtered};
use serde_json::Value;

use super::exact_match::ExactMatch;
use super::filter::Filter;
use crate::eval::error::EvalError;
use crate::eval::ifeval;
use crate::eval::python;
use crate::eval::task::{Document, GenerationRule, Judgement};

/// What a task of written replies has instead of choices.
#[derive(Clone, Debug)]
pub struct Writing {
    /// How the model writes.
    pub(super) rule: Arc<GenerationRule>,
    /// What a reply.
    pub(super) verdict: Verdict,
}

/// What a reply is worth.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// Comparisons with the target, filter by filter. `exact_match` after the first filter says whether the answer is right.
    Compared {
        /// At least one.
        filters: Vec<Filter>,
        /// At least one.
        measures: Vec<Measure>,
    },
    /// Whether the instructions of the row are followed.
    Ifeval,
}

/// How a reply is compared with the right one.
#[derive(Clone, Debug)]
pub(super) enum Measure {
    /// `exact_match`.
    ExactMatch(ExactMatch),
    /// A metric of all replies together, by its name.
    Together(String),
}

/// What is right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Right<'a> {
    /// Any of these.
    pub(super) replies: &'a [String],
    /// Whether the answer is a text, and not a number that a field holds.
    pub(super) is_text: bool,
    /// Whether the answer is a list of several, even if of one entry: then one right reply will do.
    pub(super) is_several: bool,
}

impl Verdict {
    /// An error if `row` does not say how a reply to it is judged.
    pub(super) fn check(&self, row: &Value) -> Result<(), String> {
        match self {
            Self::Compared { .. } => Ok(()),
            Self::Ifeval => ifeval::instructions(row).map(|_| ()).map_err(|error| error.to_string()),
        }
    }

    /// The verdict on the `replies` to a question.
    pub(super) fn judge(
        &self,
        document: &Document,
        right: Right<'_>,
        replies: &[&str],
    ) -> Result<Judgement, EvalError> {
        let judgement = match self {
            Self::Compared { filters, measures } => compared(document, right, replies, filters, measures),
            Self::Ifeval => followed(document, replies.first().copied().unwrap_or_default()),
        };
        judgement.map_err(|problem| EvalError::Judge { place: document.place.clone(), problem })
    }
}

fn compared(
    document: &Document,
    right: Right<'_>,
    replies: &[&str],
    filters: &[Filter],
    measures: &[Measure],
) -> Result<Judgement, String> {
    let row = document.source.as_ref().map_or(&Value::Null, |source| &source.row);
    let mut filtered = Vec::with_capacity(filters.len());
    let mut is_right = None;
    for filter in filters {
        let left = filter.apply(replies, row).map_err(|error| error.to_string())?;
        let mut metrics = BTreeMap::new();
        for measure in measures {
            let (name, figure) = match measure {
                Measure::ExactMatch(comparison) => {
                    let value = share(&left, right, comparison)
                        .map_err(|problem| format!("{problem}, after the filter `{}`", filter.name))?;
                    is_right.get_or_insert(value == 1.0);
                    ("exact_match", Figure::Number(value))
                }
                Measure::Together(name) => {
                    let reply = only_text(&left).ok_or_else(|| {
                        let left = python::text_of(&left);
                        format!("`{name}` compares one text, and the filter `{}` leaves {left}", filter.name)
                    })?;
                    let right = right.replies.first().cloned().unwrap_or_default();
                    (name.as_str(), Figure::Texts([right, reply.to_owned()]))
                }
            };
            metrics.insert(name.to_owned(), figure);
        }
        filtered.push(Filtered { filter: filter.name.clone(), reply: Some(texts(&left)), metrics });
    }
    Ok(Judgement { pred: None, is_right, filtered })
}

/// The text that a filter left, if it left one.
fn only_text(left: &Value) -> Option<&str> {
    match left {
        Value::Array(replies) => replies.first().filter(|_| replies.len() == 1)?.as_str(),
        left => left.as_str(),
    }
}

/// What a filter left, as texts.
fn texts(left: &Value) -> Value {
    match left {
        Value::Array(replies) => replies.iter().map(texts).collect(),
        left => python::text_of(left).into(),
    }
}

/// What share of what a filter left is right: 1 or 0 where it left one reply. Of several right answers any will do.
///
/// As lm-eval's arrays have it, a list that it left is compared with several right answers one by one, each reply with the answer
/// at its place, and a list of texts holds no number.
fn share(left: &Value, right: Right<'_>, comparison: &ExactMatch) -> Result<f64, String> {
    let all = right.replies;
    let is_any = |reply: &Value| any(all.iter().map(|right| holds(reply, right, comparison)));
    let is_right = match (left, all) {
        (Value::Array(replies), [_]) if !right.is_several => {
            if replies.iter().any(Value::is_string) != right.is_text {
                return Ok(0.0);
            }
            let found = replies.iter().map(is_any).collect::<Result<Vec<_>, _>>()?;
            let hits = found.iter().filter(|&&is_right| is_right).count();
            return Ok(hits as f64 / replies.len().max(1) as f64);
        }
        (Value::Array(replies), [_, ..]) if replies.len() == all.len() => {
            any(replies.iter().zip(all).map(|(reply, right)| holds(reply, right, comparison)))
        }
        (Value::Array(replies), [_, _, ..]) if replies.len() != 1 => {
            let (replies, all) = (replies.len(), all.len());
            Err(format!("`exact_match` cannot compare {replies} replies with {all} right answers"))
        }
        (Value::Array(replies), _) => any(replies.iter().map(is_any)),
        (reply, _) => is_any(reply),
    };
    is_right.map(|is_right| f64::from(u8::from(is_right)))
}

/// Whether what a filter made of a reply says `right`.
fn holds(reply: &Value, right: &str, comparison: &ExactMatch) -> Result<bool, String> {
    let holds = |text: &str| comparison.holds(text, right).map_err(|error| error.to_string());
    Ok(!reply.is_null() && holds(&python::text_of(reply))?)
}

/// Whether any holds, if each can be told.
fn any(mut found: impl Iterator<Item = Result<bool, String>>) -> Result<bool, String> {
    found.try_fold(false, |is_any, found| Ok(is_any | found?))
}

fn followed(document: &Document, reply: &str) -> Result<Judgement, String> {
    let row = document.source.as_ref().map_or(&Value::Null, |source| &source.row);
    let instructions = ifeval::instructions(row).map_err(|error| error.to_string())?;
    let verdict = ifeval::judge(&instructions, reply).map_err(|error| error.to_string())?;
    let all = |each: &[bool]| each.iter().all(|&follows| follows);
    let is_right = all(&verdict.strict);
    let metrics: BTreeMap<String, Figure> = [
        ("prompt_level_strict_acc", Figure::Flag(is_right)),
        ("inst_level_strict_acc", Figure::Each(verdict.strict.clone())),
        ("prompt_level_loose_acc", Figure::Flag(all(&verdict.loose))),
        ("inst_level_loose_acc", Figure::Each(verdict.loose)),
    ]
    .map(|(name, figure)| (name.to_owned(), figure))
    .into();
    let filtered = Filtered { reply: Some(reply.into()), ..Filtered::unfiltered(metrics) };
    Ok(Judgement { pred: None, is_right: Some(is_right), filtered: vec![filtered] })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is expected is what lm-eval 0.4.13 gives.
    #[test]
    fn what_filters_leave_is_compared() {
        let compare = |left: Value, right: &[&str], is_text: bool| {
            let replies: Vec<String> = right.iter().copied().map(str::to_owned).collect();
            let right = Right { replies: &replies, is_text, is_several: right.len() != 1 };
            share(&left, right, &ExactMatch::default())
        };
        let right = |left: Value, right: &[&str]| compare(left, right, true).unwrap();
        assert_eq!((right(json!("a"), &["a"]), right(json!("a"), &["b"])), (1.0, 0.0));
        assert_eq!((right(json!("a"), &["b", "a"]), right(json!("a"), &[])), (1.0, 0.0));
        assert_eq!((right(json!(["a"]), &["a"]), right(json!(["a", "b"]), &["a"])), (1.0, 0.5));
        assert_eq!((right(json!(3), &["3"]), right(Value::Null, &["None"])), (1.0, 0.0));
        let abc = ["a", "b", "c"];
        assert_eq!((right(json!(["b", "x", "y"]), &abc), right(json!(["x", "b", "y"]), &abc)), (0.0, 1.0));
        assert_eq!((right(json!(["b"]), &abc), right(json!([5, 5]), &["5"])), (1.0, 0.0));
        let problem = compare(json!(["a", "x"]), &abc, true).unwrap_err();
        assert_eq!(problem, "`exact_match` cannot compare 2 replies with 3 right answers");
        let one = Right { replies: &["a".to_owned()], is_text: true, is_several: true };
        assert_eq!(share(&json!(["x", "a"]), one, &ExactMatch::default()), Ok(1.0));
        let number = |left: Value| compare(left, &["5"], false).unwrap();
        assert_eq!((number(json!(["5", "5"])), number(json!([5, 4])), number(json!("5"))), (0.0, 0.5, 1.0));
    }
}
