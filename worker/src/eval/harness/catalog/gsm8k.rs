//! GSM8K (Cobbe et al., 2021, arXiv 2110.14168): grade-school arithmetic in words. Twice the same replies: the number after
//! `####`, and the last number of all.

use std::sync::Arc;

use serde_json::json;

use crate::eval::harness::exact_match::ExactMatch;
use crate::eval::harness::filter::{Filter, Step};
use crate::eval::harness::spec::{Answering, DEFAULT_TOKENS, Spec, Splits};
use crate::eval::harness::template::Rule;
use crate::eval::harness::writing::{Measure, Verdict, Writing};
use crate::eval::python::pattern::{Pattern, PatternError};
use crate::eval::python::translate::Flags;
use crate::eval::task::GenerationRule;

const SPLITS: Splits = Splits {
    training: Splits::named("train"),
    validation: None,
    test: Splits::named("test"),
    fewshot: Splits::named("train"),
};
const UNTIL: [&str; 3] = ["Question:", "</s>", "<|im_end|>"];
/// Digit separators, the currency, the steps before the answer, the last period.
const IGNORED: [&str; 4] = [",", r"\$", r"(?s).*#### ", r"\.$"];

pub(super) fn tasks() -> Vec<Spec> {
    let arguments = json!({"until": UNTIL, "do_sample": false, "temperature": 0.0});
    let rule = GenerationRule {
        until: UNTIL.map(str::to_owned).to_vec(),
        max_gen_toks: DEFAULT_TOKENS,
        sampling: None,
        arguments,
    };
    let verdict = verdict().expect("constant patterns");
    vec![Spec {
        version: 3.0.into(),
        num_fewshot: Some(5),
        answering: Answering::Writing(Writing { rule: Arc::new(rule), verdict }),
        ..Spec::new(
            "gsm8k",
            SPLITS,
            "Question: {{question}}\nAnswer:",
            Rule::Constant(json!([])),
            Rule::template("{{answer}}"),
        )
    }]
}

fn verdict() -> Result<Verdict, PatternError> {
    let filter = |name: &str, pattern: &str, select| -> Result<Filter, PatternError> {
        Ok(Filter::new(name, vec![Step::regex(pattern, select)?, Step::First]))
    };
    let filters = vec![
        filter("strict-match", r"#### (\-?[0-9\.\,]+)", 0)?,
        filter("flexible-extract", "(-?[$0-9.,]{2,})|(-?[0-9]+)", -1)?,
    ];
    let pattern = |source: &&str| Pattern::new(source, Flags::default());
    let ignored = IGNORED.iter().map(pattern).collect::<Result<_, _>>()?;
    let comparison = ExactMatch { ignored, ignore_case: true, ..ExactMatch::default() };
    Ok(Verdict::Compared { filters, measures: vec![Measure::ExactMatch(comparison)] })
}
