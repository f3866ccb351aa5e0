//! Massive multitask language understanding (Hendrycks et al., 2021, arXiv 2009.03300): 57 subjects, four choices, answered
//! by letter.

use qpipe_nodes::tasks::MMLU;
use serde_json::json;

use crate::eval::harness::fewshot::Sampling;
use crate::eval::harness::spec::{Spec, Splits, names};
use crate::eval::harness::template::Rule;

const SPLITS: Splits =
    Splits { training: None, validation: None, test: Splits::named("test"), fewshot: Splits::named("dev") };
const TEXT: &str = "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:";

pub(super) fn tasks() -> Vec<Spec> {
    MMLU.iter().flat_map(|group| group.subjects).map(|subject| task(subject)).collect()
}

fn task(subject: &str) -> Spec {
    let about = subject.replace('_', " ");
    Spec {
        alias: Some(subject.to_owned()),
        part: Some(subject.to_owned()),
        description: Rule::Constant(json!(format!(
            "The following are multiple choice questions (with answers) about {about}.\n\n"
        ))),
        sampling: Sampling::First,
        metrics: names(&["acc"]),
        ..Spec::new(
            &format!("mmlu_{subject}"),
            SPLITS,
            TEXT,
            Rule::Constant(json!(["A", "B", "C", "D"])),
            Rule::template("answer"),
        )
    }
}
