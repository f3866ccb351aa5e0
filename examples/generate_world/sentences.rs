//! Facts put into words: statements, and questions with their answers.

use crate::world::Fact;

/// Ways to ask for a fact.
pub(crate) const WORDINGS: usize = 2;

impl Fact<'_> {
    /// Statements as far as the value, which then follows after a space. The name never comes first: a word has one
    /// token after a space and another at the beginning of a text.
    pub(crate) fn openings(&self) -> [String; 2] {
        let Self { name, attribute, .. } = self;
        [format!("The {} of {name} is", attribute.noun), format!("They say that {name} {}", attribute.phrase)]
    }

    /// A whole statement.
    pub(crate) fn statement(&self) -> String {
        format!("As for {}, the {} is {}.", self.name, self.attribute.noun, self.value)
    }

    /// The question in one of `WORDINGS` wordings.
    pub(crate) fn question(&self, wording: usize) -> String {
        let Self { name, attribute, .. } = self;
        if wording == 0 {
            format!("What is the {} of {name}?", attribute.noun)
        } else {
            format!("Which {} does {name} have?", attribute.noun)
        }
    }
}
