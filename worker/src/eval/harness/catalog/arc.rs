//! The AI2 Reasoning Challenge (Clark et al., 2018, arXiv 1803.05457): grade-school science, three to five choices.

use super::THREE_SPLITS;
use crate::eval::harness::spec::Spec;
use crate::eval::harness::template::Rule;

pub(super) fn tasks() -> Vec<Spec> {
    [("arc_challenge", "ARC-Challenge"), ("arc_easy", "ARC-Easy")]
        .map(|(name, part)| Spec {
            part: Some(part.to_owned()),
            ..Spec::new(
                name,
                THREE_SPLITS,
                "Question: {{question}}\nAnswer:",
                Rule::template("{{choices.text}}"),
                Rule::template("{{choices.label.index(answerKey)}}"),
            )
        })
        .to_vec()
}
