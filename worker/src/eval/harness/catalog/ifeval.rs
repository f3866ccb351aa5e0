//! IFEval (Zhou et al., 2023, arXiv 2311.07911): prompts with instructions that a program can verify.

use std::sync::Arc;

use serde_json::json;

use crate::eval::harness::spec::{Answering, Spec, Splits};
use crate::eval::harness::template::Rule;
use crate::eval::harness::writing::{Verdict, Writing};
use crate::eval::task::GenerationRule;

/// The dataset calls what is asked `train`.
const SPLITS: Splits =
    Splits { training: None, validation: None, test: Splits::named("train"), fewshot: None };
const MOST_TOKENS: usize = 1280;

pub(super) fn tasks() -> Vec<Spec> {
    let arguments = json!({"until": [], "do_sample": false, "temperature": 0.0, "max_gen_toks": MOST_TOKENS});
    let rule = GenerationRule { until: Vec::new(), max_gen_toks: MOST_TOKENS, sampling: None, arguments };
    vec![Spec {
        version: 4.0.into(),
        num_fewshot: Some(0),
        answering: Answering::Writing(Writing { rule: Arc::new(rule), verdict: Verdict::Ifeval }),
        ..Spec::new("ifeval", SPLITS, "prompt", Rule::Constant(json!([])), Rule::Constant(json!(0)))
    }]
}
