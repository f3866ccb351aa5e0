//! OpenBookQA (Mihaylov et al., 2018, arXiv 1809.02789): elementary science, four choices.

use super::THREE_SPLITS;
use crate::eval::harness::spec::Spec;
use crate::eval::harness::template::Rule;

pub(super) fn tasks() -> Vec<Spec> {
    vec![Spec::new(
        "openbookqa",
        THREE_SPLITS,
        "question_stem",
        Rule::template("{{choices.text}}"),
        Rule::template("{{choices.label.index(answerKey.lstrip())}}"),
    )]
}
