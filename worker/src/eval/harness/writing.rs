//! Tasks whose answer the model writes (`generate_until`): how it writes, and what a reply is worth.

use std::collections::BTreeMap;
use std::sync::Arc;

use qpipe_nodes::results::{Figure, Filtered};
use serde_json::Value;

use super::exact_match::ExactMatch;
use super::filter::Filter;
use super::text;
use crate::eval::error::EvalError;
use crate::eval::ifeval;
use crate::eval::python::pattern::PatternError;
use crate::eval::task::{Document, GenerationRule, Judgement};

/// What a task of written replies has instead of choices.
#[derive(Clone, Debug)]
pub struct Writing {
    /// How the model writes.
    pub(super) rule: Arc<GenerationRule>,
    /// What a reply is worth.
    pub(super) verdict: Verdict,
}

/// What a reply is worth.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// `exact_match` with the target, filter by filter. The first filter's counts as the answer.
    ExactMatch {
        /// At least one.
        filters: Vec<Filter>,
        /// How texts are compared.
        comparison: ExactMatch,
    },
    /// Whether the instructions of the row are followed.
    Ifeval,
}

impl Verdict {
    /// An error if `row` does not say how a reply to it is judged.
    pub(super) fn check(&self, row: &Value) -> Result<(), String> {
        match self {
            Self::ExactMatch { .. } => Ok(()),
            Self::Ifeval => ifeval::instructions(row).map(|_| ()).map_err(|error| error.to_string()),
        }
    }

    /// The verdict on `reply`.
    pub(super) fn judge(&self, document: &Document, reply: &str) -> Result<Judgement, EvalError> {
        let judgement = match self {
            Self::ExactMatch { filters, comparison } => exact_match(document, reply, filters, comparison),
            Self::Ifeval => followed(document, reply),
        };
        judgement.map_err(|problem| EvalError::Judge { place: document.place.clone(), problem })
    }
}

fn exact_match(
    document: &Document,
    reply: &str,
    filters: &[Filter],
    comparison: &ExactMatch,
) -> Result<Judgement, String> {
    let row = document.source.as_ref().map_or(&Value::Null, |source| &source.row);
    let mut filtered = Vec::with_capacity(filters.len());
    let mut is_right = None;
    for filter in filters {
        let left = filter.apply(&[reply], row).map_err(|error| error.to_string())?;
        let value = share(&left, &document.choices, comparison).map_err(|error| error.to_string())?;
        is_right.get_or_insert(value == 1.0);
        let reply = match &left {
            Value::Array(replies) if replies.len() == 1 => text::text_of(&replies[0]),
            left => text::text_of(left),
        };
        let metrics = [("exact_match".to_owned(), Figure::Number(value))].into();
        filtered.push(Filtered { filter: filter.name.clone(), reply: Some(reply), metrics });
    }
    Ok(Judgement { pred: None, is_right, filtered })
}

/// What share of the replies that a filter left is right: 1 or 0 where it left one. Of several right answers any will do,
/// and then one right reply will do too.
fn share(left: &Value, right: &[String], comparison: &ExactMatch) -> Result<f64, PatternError> {
    let replies = match left {
        Value::Array(replies) => replies.as_slice(),
        reply => std::slice::from_ref(reply),
    };
    let mut hits = 0;
    for reply in replies.iter().filter(|reply| !reply.is_null()) {
        let reply = text::text_of(reply);
        let mut holds = false;
        for right in right {
            holds |= comparison.holds(&reply, right)?;
        }
        hits += usize::from(holds);
    }
    Ok(match right.len() {
        1 => hits as f64 / replies.len().max(1) as f64,
        _ => f64::from(u8::from(hits > 0)),
    })
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
    let filtered = Filtered { reply: Some(reply.to_owned()), ..Filtered::unfiltered(metrics) };
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
        let right = |left: Value, right: &[&str]| {
            let right: Vec<String> = right.iter().copied().map(str::to_owned).collect();
            share(&left, &right, &ExactMatch::default()).unwrap()
        };
        assert_eq!((right(json!("a"), &["a"]), right(json!("a"), &["b"])), (1.0, 0.0));
        assert_eq!((right(json!("a"), &["b", "a"]), right(json!("a"), &[])), (1.0, 0.0));
        assert_eq!((right(json!(["a"]), &["a"]), right(json!(["a", "b"]), &["a"])), (1.0, 0.5));
        assert_eq!((right(json!(3), &["3"]), right(Value::Null, &["None"])), (1.0, 0.0));
    }
}
