//! The arguments of an instruction, by name and type.

use serde_json::{Map, Value};

use super::Kind;
use super::error::IfevalError;

/// The arguments of one instruction.
pub(super) struct Arguments<'a> {
    id: &'static str,
    values: &'a Map<String, Value>,
}

impl<'a> Arguments<'a> {
    /// # Errors
    /// When `kind` does not take one of them, which the reference refuses as well.
    pub(super) fn new(kind: &Kind, values: &'a Map<String, Value>) -> Result<Self, IfevalError> {
        match values.keys().find(|name| !kind.arguments.contains(&name.as_str())) {
            Some(name) => Err(IfevalError::UnknownArgument { id: kind.id, argument: name.clone() }),
            None => Ok(Self { id: kind.id, values }),
        }
    }

    /// The instruction that they belong to.
    pub(super) fn id(&self) -> &'static str {
        self.id
    }

    /// A text.
    pub(super) fn text(&self, name: &'static str) -> Result<&'a str, IfevalError> {
        let value = self.value(name)?;
        value.as_str().ok_or_else(|| self.wrong(name, "a text"))
    }

    /// A list of texts.
    pub(super) fn texts(&self, name: &'static str) -> Result<Vec<&'a str>, IfevalError> {
        let items = self.value(name)?.as_array().and_then(|items| items.iter().map(Value::as_str).collect());
        items.ok_or_else(|| self.wrong(name, "a list of texts"))
    }

    /// A whole number from 1. Some exports of the dataset write it with a decimal point.
    pub(super) fn count(&self, name: &'static str) -> Result<usize, IfevalError> {
        let value = self.value(name)?;
        let whole = value.as_f64().filter(|number| number.fract() == 0.0 && (1.0..1e15).contains(number));
        whole.map(|number| number as usize).ok_or_else(|| self.wrong(name, "a whole number from 1"))
    }

    /// The bound that a relation and a count make.
    pub(super) fn bound(&self, relation: &'static str, count: &'static str) -> Result<Bound, IfevalError> {
        let limit = self.count(count)?;
        match self.text(relation)? {
            "less than" => Ok(Bound::Below(limit)),
            "at least" => Ok(Bound::From(limit)),
            _ => Err(self.wrong(relation, "`less than` or `at least`")),
        }
    }

    /// The error of an argument that is not what it should be.
    pub(super) fn wrong(&self, argument: &'static str, expected: impl Into<String>) -> IfevalError {
        let found = self.values.get(argument).unwrap_or(&Value::Null).to_string();
        IfevalError::Argument { id: self.id, argument, found, expected: expected.into() }
    }

    fn value(&self, argument: &'static str) -> Result<&'a Value, IfevalError> {
        self.values.get(argument).ok_or(IfevalError::MissingArgument { id: self.id, argument })
    }
}

/// How often something may occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// Fewer times than this.
    Below(usize),
    /// This many times or more.
    From(usize),
}

impl Bound {
    /// Whether `found` times are right.
    pub(super) fn holds(self, found: usize) -> bool {
        match self {
            Self::Below(limit) => found < limit,
            Self::From(limit) => found >= limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Instruction, judge};

    fn problem(kwargs: serde_json::Value) -> String {
        let kwargs = kwargs.as_object().expect("an object").clone();
        let instruction = Instruction { id: "length_constraints:number_words".to_owned(), kwargs };
        match judge(&[instruction], "One two.") {
            Ok(verdict) => format!("{:?}", verdict.strict),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn an_argument_that_is_wrong_is_named_with_what_stands_there() {
        let id = "`length_constraints:number_words`";
        assert_eq!(problem(json!({"num_words": 2})), format!("{id}: `relation` is missing"));
        assert_eq!(
            problem(json!({"num_words": "2", "relation": "at least"})),
            format!("{id}: `num_words` is \"2\", expected a whole number from 1")
        );
        assert_eq!(
            problem(json!({"num_words": 2.5, "relation": "at least"})),
            format!("{id}: `num_words` is 2.5, expected a whole number from 1")
        );
        assert_eq!(
            problem(json!({"num_words": 2, "relation": "at most"})),
            format!("{id}: `relation` is \"at most\", expected `less than` or `at least`")
        );
    }

    #[test]
    fn a_count_may_be_written_with_a_decimal_point() {
        assert_eq!(problem(json!({"num_words": 2.0, "relation": "at least"})), "[true]");
        assert_eq!(problem(json!({"num_words": 2.0, "relation": "less than"})), "[false]");
    }
}
