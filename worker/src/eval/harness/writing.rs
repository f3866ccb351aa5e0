//! Tasks whose answer the model writes (`generate_until`): how it writes, and what a reply is worth.

use std::collections::BTreeMap;
use std::sync::Arc;

use qpipe_nodes::results::{Figure, Filtered};
use serde_json::Value;

use super::exact_match::ExactMatch;
use super::filter::Filter;
use crate::eval::error::EvalError;
use crate::eval::ifeval;
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
    let mut filtered = Vec::with_capacity(filters.len());
    let mut is_right = None;
    for filter in filters {
        let left = filter.apply(reply).map_err(|error| error.to_string())?;
        let mut holds = false;
        for right in &document.choices {
            holds |= comparison.holds(&left, right).map_err(|error| error.to_string())?;
        }
        is_right.get_or_insert(holds);
        let metrics = [("exact_match".to_owned(), Figure::Number(f64::from(u8::from(holds))))].into();
        filtered.push(Filtered { filter: filter.name.clone(), reply: Some(left), metrics });
    }
    Ok(Judgement { pred: None, is_right, filtered })
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
