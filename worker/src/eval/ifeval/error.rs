//! What can be wrong with an instruction. Every message names it, and the argument.

/// Why a row of the dataset cannot be read, or a response cannot be judged.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum IfevalError {
    /// A row without one of its fields.
    #[error("`{field}` is missing")]
    MissingField {
        /// The field.
        field: &'static str,
    },
    /// A field of another type.
    #[error("`{field}` holds {found}, expected {expected}")]
    Field {
        /// The field.
        field: &'static str,
        /// The JSON that stands there.
        found: String,
        /// What should, in words.
        expected: &'static str,
    },
    /// Lists that should be of one length.
    #[error("`instruction_id_list` has {instructions} {}, `kwargs` has {kwargs}", entries(*instructions))]
    Lengths {
        /// Entries of `instruction_id_list`.
        instructions: usize,
        /// Entries of `kwargs`.
        kwargs: usize,
    },
    /// An instruction of no known kind.
    #[error("unknown instruction `{id}`")]
    UnknownInstruction {
        /// Its name.
        id: String,
    },
    /// An argument that an instruction needs and does not have.
    #[error("`{id}`: `{argument}` is missing")]
    MissingArgument {
        /// The instruction.
        id: &'static str,
        /// The argument.
        argument: &'static str,
    },
    /// An argument that an instruction does not take.
    #[error("`{id}` takes no argument `{argument}`")]
    UnknownArgument {
        /// The instruction.
        id: &'static str,
        /// The argument.
        argument: String,
    },
    /// An argument of another type, or out of its range.
    #[error("`{id}`: `{argument}` is {found}, expected {expected}")]
    Argument {
        /// The instruction.
        id: &'static str,
        /// The argument.
        argument: &'static str,
        /// The JSON that stands there.
        found: String,
        /// What should, in words.
        expected: String,
    },
    /// A keyword that is no regular expression of Python, or one that is not supported.
    #[error("`{id}`: `{argument}` has {problem}")]
    Pattern {
        /// The instruction.
        id: &'static str,
        /// The argument.
        argument: &'static str,
        /// The expression, and what is wrong with it or happened as it ran.
        problem: String,
    },
}

impl IfevalError {
    /// What to do.
    pub fn help(&self) -> &'static str {
        match self {
            Self::MissingField { .. } | Self::Field { .. } | Self::Lengths { .. } => {
                "Write a row as in google/IFEval: `prompt`, `instruction_id_list` (names), `kwargs` (one object a name)."
            }
            Self::UnknownInstruction { .. } => {
                "Use one of the 25 names of google/IFEval, for example `punctuation:no_comma`."
            }
            Self::MissingArgument { .. } | Self::UnknownArgument { .. } | Self::Argument { .. } => {
                "Look at a row of google/IFEval with this instruction; null, 0 and empty texts count as missing."
            }
            Self::Pattern { .. } => {
                "Keywords are regular expressions of Python's `re`: escape what should be taken literally."
            }
        }
    }
}

fn entries(count: usize) -> &'static str {
    if count == 1 { "entry" } else { "entries" }
}
