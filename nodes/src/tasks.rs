//! The tasks that a pipeline can name, and the groups they form.

/// A part of MMLU, in the order of lm-eval's tables.
#[derive(Clone, Copy, Debug)]
pub struct MmluGroup {
    /// lm-eval's name without `mmlu_`: `social_sciences`.
    pub name: &'static str,
    /// What tables call it.
    pub alias: &'static str,
    /// Its subjects, sorted.
    pub subjects: &'static [&'static str],
}

/// MMLU's four groups, sorted by name, with their 57 subjects.
pub const MMLU: &[MmluGroup] = &[
    MmluGroup {
        name: "humanities",
        alias: "humanities",
        subjects: &[
            "formal_logic",
            "high_school_european_history",
            "high_school_us_history",
            "high_school_world_history",
            "international_law",
            "jurisprudence",
            "logical_fallacies",
            "moral_disputes",
            "moral_scenarios",
            "philosophy",
            "prehistory",
            "professional_law",
            "world_religions",
        ],
    },
    MmluGroup {
        name: "other",
        alias: "other",
        subjects: &[
            "business_ethics",
            "clinical_knowledge",
            "college_medicine",
            "global_facts",
            "human_aging",
            "management",
            "marketing",
            "medical_genetics",
            "miscellaneous",
            "nutrition",
            "professional_accounting",
            "professional_medicine",
            "virology",
        ],
    },
    MmluGroup {
        name: "social_sciences",
        alias: "social sciences",
        subjects: &[
            "econometrics",
            "high_school_geography",
            "high_school_government_and_politics",
            "high_school_macroeconomics",
            "high_school_microeconomics",
            "high_school_psychology",
            "human_sexuality",
            "professional_psychology",
            "public_relations",
            "security_studies",
            "sociology",
            "us_foreign_policy",
        ],
    },
    MmluGroup {
        name: "stem",
        alias: "stem",
        subjects: &[
            "abstract_algebra",
            "anatomy",
            "astronomy",
            "college_biology",
            "college_chemistry",
            "college_computer_science",
            "college_mathematics",
            "college_physics",
            "computer_security",
            "conceptual_physics",
            "electrical_engineering",
            "elementary_mathematics",
            "high_school_biology",
            "high_school_chemistry",
            "high_school_computer_science",
            "high_school_mathematics",
            "high_school_physics",
            "high_school_statistics",
            "machine_learning",
        ],
    },
];

/// lm-eval's version of MMLU as a group, and of its four groups.
pub const MMLU_VERSION: u32 = 2;

/// Tasks and groups by name, with what they need of the data.
pub const TASKS: &[(&str, &str)] = &[
    ("arc_challenge", "ARC-Challenge: `question`, `choices.text`, `choices.label`, `answerKey`"),
    ("arc_easy", "ARC-Easy: `question`, `choices.text`, `choices.label`, `answerKey`"),
    ("boolq", "BoolQ: `passage`, `question`, `label`"),
    (
        "gsm8k",
        "GSM8K: `question`, `answer` (steps, then `#### ` and a number); a split `train` for the examples",
    ),
    ("hellaswag", "HellaSwag: `activity_label`, `ctx_a`, `ctx_b`, `endings`, `label`"),
    ("ifeval", "IFEval: `prompt`, `instruction_id_list`, `kwargs`"),
    (
        "mcqa",
        "four-choice questions: `question`, `choices` (four texts), `answer` (a letter, or an index from 0)",
    ),
    ("mmlu", "MMLU, 57 subjects: `subject`, `question`, `choices` (four texts), `answer` (an index from 0)"),
    ("openbookqa", "OpenBookQA: `question_stem`, `choices.text`, `choices.label`, `answerKey`"),
    ("piqa", "PIQA: `goal`, `sol1`, `sol2`, `label`"),
    ("wikitext", "WikiText, page by page: `page`"),
    ("winogrande", "WinoGrande: `sentence`, `option1`, `option2`, `answer`"),
];

/// Whether an entry of `tasks` is the path of a task file.
pub fn is_file(task: &str) -> bool {
    task.ends_with(".yaml") || task.ends_with(".yml")
}

/// The tasks that `name` stands for: itself, or those of a group. `None`: there is nothing of that name.
pub fn leaves(name: &str) -> Option<Vec<String>> {
    let of_subjects = |groups: &[MmluGroup]| {
        let subjects = groups.iter().flat_map(|group| group.subjects);
        subjects.map(|subject| format!("mmlu_{subject}")).collect()
    };
    if name == "mmlu" {
        return Some(of_subjects(MMLU));
    }
    if let Some(part) = name.strip_prefix("mmlu_") {
        if let Some(group) = MMLU.iter().find(|group| group.name == part) {
            return Some(of_subjects(&[*group]));
        }
        let is_subject = MMLU.iter().any(|group| group.subjects.contains(&part));
        return is_subject.then(|| vec![name.to_owned()]);
    }
    TASKS.iter().any(|(task, _)| *task == name).then(|| vec![name.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_stand_for_their_tasks() {
        assert_eq!(leaves("mmlu").map(|tasks| tasks.len()), Some(57));
        assert_eq!(leaves("mmlu_social_sciences").map(|tasks| tasks.len()), Some(12));
        assert_eq!(leaves("mmlu_anatomy"), Some(vec!["mmlu_anatomy".to_owned()]));
        assert_eq!(leaves("arc_easy"), Some(vec!["arc_easy".to_owned()]));
        assert_eq!(leaves("mmlu_cooking"), None);
        assert_eq!(leaves("arc"), None);
    }

    #[test]
    fn names_are_sorted() {
        assert!(TASKS.is_sorted());
        assert!(MMLU.is_sorted_by_key(|group| group.name));
        assert!(MMLU.iter().all(|group| group.subjects.is_sorted()));
    }
}
