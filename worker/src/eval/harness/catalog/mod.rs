//! The tasks that are built in: one file a family.

mod arc;
mod boolq;
mod gsm8k;
mod hellaswag;
mod ifeval;
mod mmlu;
mod openbookqa;
mod piqa;
mod wikitext;
mod winogrande;

use super::spec::{Spec, Splits};

/// Makes the tasks of a family.
type Family = fn() -> Vec<Spec>;

/// Every family, sorted by name.
const FAMILIES: &[Family] = &[
    arc::tasks,
    boolq::tasks,
    gsm8k::tasks,
    hellaswag::tasks,
    ifeval::tasks,
    mmlu::tasks,
    openbookqa::tasks,
    piqa::tasks,
    wikitext::tasks,
    winogrande::tasks,
];

/// A dataset with all three splits under their usual names.
const THREE_SPLITS: Splits = Splits {
    training: Splits::named("train"),
    validation: Splits::named("validation"),
    test: Splits::named("test"),
    fewshot: None,
};
/// A dataset whose test split has no answers.
const NO_TEST: Splits = Splits {
    training: Splits::named("train"),
    validation: Splits::named("validation"),
    test: None,
    fewshot: None,
};

/// The task of this name.
pub fn find(name: &str) -> Option<Spec> {
    FAMILIES.iter().flat_map(|tasks| tasks()).find(|spec| spec.name == name)
}

/// The names of all tasks, in the order of the families.
pub fn names() -> Vec<String> {
    FAMILIES.iter().flat_map(|tasks| tasks()).map(|spec| spec.name).collect()
}
