//! What a task file takes out of replies: its `filter_list`, under lm-eval's names.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ParamError;

/// One entry of `filter_list`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilterList {
    /// As tables call it.
    pub name: String,
    /// Its steps.
    pub filter: Vec<Step>,
}

/// A step of a filter. Steps see all replies to a question.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "function", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// A match of an expression of Python's.
    Regex {
        /// The expression.
        #[serde(default = "after_hashes")]
        regex_pattern: String,
        /// Which match, from the end where it is negative.
        #[serde(default)]
        group_select: i64,
        /// What stands for none.
        #[serde(default = "invalid")]
        fallback: String,
    },
    /// The letter of a choice: what the expression matches, else the letter of a choice of the row that the reply names, else a
    /// letter after a colon.
    MultiChoiceRegex {
        /// The expression.
        #[serde(default = "after_hashes")]
        regex_pattern: String,
        /// Which match, from the end where it is negative.
        #[serde(default)]
        group_select: i64,
        /// What stands for none.
        #[serde(default = "invalid")]
        fallback: String,
        /// Choices are looked for in upper and lower case.
        #[serde(default)]
        ignore_case: bool,
        /// Choices are looked for without punctuation.
        #[serde(default)]
        ignore_punctuation: bool,
        /// What these match is taken out before choices are looked for.
        #[serde(default)]
        regexes_to_ignore: Option<Vec<String>>,
    },
    /// The tags of a text of `('word', 'TAG')`.
    RegexPos {
        /// Passed over, as lm-eval does.
        #[serde(default)]
        regex_pattern: Option<String>,
        /// Passed over, as lm-eval does.
        #[serde(default)]
        group_select: i64,
        /// What stands for none.
        #[serde(default)]
        fallback: Value,
    },
    /// Another value for each reply.
    Map {
        /// By reply.
        #[serde(default)]
        mapping_dict: Option<Map<String, Value>>,
        /// For all others.
        #[serde(default)]
        default_value: Value,
    },
    /// Named entities as `label: value $ label: value`.
    FormatSpan,
    /// The first reply.
    TakeFirst,
    /// The first replies.
    TakeFirstK {
        /// How many.
        k: u32,
    },
    /// The reply that comes most often.
    MajorityVote,
    /// Without whitespace at its ends.
    RemoveWhitespace,
    /// In lower case.
    Lowercase,
    /// In upper case.
    Uppercase,
}

impl FilterList {
    /// What is wrong with it, the entry `index` of a task file that asks each question `repeats` times.
    pub(super) fn check(&self, index: usize, repeats: u32) -> Vec<ParamError> {
        let mut errors = Vec::new();
        // Behind `take_first` characters are taken, of which a reply has any number.
        let of_replies = self.filter.iter().take_while(|step| !matches!(step, Step::TakeFirst));
        for (step, function) in of_replies.enumerate() {
            if let Step::TakeFirstK { k } = function
                && *k > repeats
            {
                let replies = if repeats == 1 { "one reply" } else { "fewer replies" };
                let message = format!("takes {k} replies, and there is {replies} to a question");
                let mut error = ParamError::value("filter_list", message);
                error.path.extend([index.to_string(), "filter".into(), step.to_string(), "k".into()]);
                errors.push(error);
            }
        }
        errors
    }
}

fn after_hashes() -> String {
    r"#### (\-?[0-9\.\,]+)".to_owned()
}
fn invalid() -> String {
    "[invalid]".to_owned()
}
