//! BoolQ (Clark et al., 2019, arXiv 1905.10044): a passage and a question to answer with yes or no.

use serde_json::json;

use super::NO_TEST;
use crate::eval::harness::spec::{Spec, names};
use crate::eval::harness::template::Rule;

pub(super) fn tasks() -> Vec<Spec> {
    vec![Spec {
        version: 2.0.into(),
        metrics: names(&["acc"]),
        ..Spec::new(
            "boolq",
            NO_TEST,
            "{{passage}}\nQuestion: {{question}}?\nAnswer:",
            Rule::Constant(json!(["no", "yes"])),
            Rule::template("label"),
        )
    }]
}
