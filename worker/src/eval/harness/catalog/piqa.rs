//! Physical commonsense (Bisk et al., 2020, arXiv 1911.11641): two ways to reach a goal.

use super::NO_TEST;
use crate::eval::harness::spec::Spec;
use crate::eval::harness::template::Rule;

pub(super) fn tasks() -> Vec<Spec> {
    vec![Spec::new(
        "piqa",
        NO_TEST,
        "Question: {{goal}}\nAnswer:",
        Rule::template("{{[sol1, sol2]}}"),
        Rule::template("label"),
    )]
}
