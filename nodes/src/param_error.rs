//! Mistakes in parameters, in words for the person who wrote them.

use std::fmt;

/// Where in a parameter an error lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The key is wrong: it should not be there, or has another name.
    Key,
    /// The value is wrong.
    Value,
    /// Something is absent; the enclosing mapping is to be shown.
    Missing,
}

/// A mistake in a node's parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamError {
    /// Where: mapping keys and list indices from the node's own mapping downward.
    pub path: Vec<String>,
    /// Which part of that place to show.
    pub target: Target,
    /// What is wrong: a lower-case fragment without a final period.
    pub message: String,
    /// What to do, as an imperative sentence.
    pub help: Option<String>,
    /// The names that would be right there: keys for a wrong key, values for a wrong value, the key that is
    /// absent.
    pub alternatives: Vec<String>,
}

impl ParamError {
    /// A mistake in the value of the top-level parameter `key`.
    pub fn value(key: &str, message: impl Into<String>) -> Self {
        Self { path: vec![key.to_owned()], target: Target::Value, ..Self::missing(message) }
    }

    /// A parameter that had to be there.
    pub fn missing(message: impl Into<String>) -> Self {
        Self {
            path: Vec::new(),
            target: Target::Missing,
            message: message.into(),
            help: None,
            alternatives: Vec::new(),
        }
    }

    /// The parameter `name` that had to be there.
    pub(crate) fn absent(name: &str) -> Self {
        Self { alternatives: vec![name.to_owned()], ..Self::missing(format!("`{name}` is missing")) }
    }

    /// The same error about the element `index` of its list.
    #[must_use]
    pub(crate) fn inside(mut self, index: usize) -> Self {
        self.path.push(index.to_string());
        self
    }

    /// The same error with advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// What serde says about the value at `path`.
    pub(crate) fn from_serde(mut path: Vec<String>, message: &str) -> Self {
        if let Some(name) = after(message, "missing field `") {
            return Self { path, ..Self::absent(name) };
        }
        let alternatives =
            || message.split_once(", expected ").map_or_else(Vec::new, |(_, names)| quoted(names));
        if let Some(name) = after(message, "unknown field `") {
            if path.last().map(String::as_str) != Some(name) {
                path.push(name.to_owned());
            }
            let target = Target::Key;
            let message = format!("unknown key `{name}`");
            return Self { path, target, alternatives: alternatives(), ..Self::missing(message) };
        }
        let target = Target::Value;
        if let Some(name) = after(message, "unknown variant `") {
            let alternatives = alternatives();
            let message = match alternatives.as_slice() {
                [only] => format!("`{name}` is not `{only}`"),
                several => format!("`{name}` is not one of {}", several.join(", ")),
            };
            return Self { path, target, alternatives, ..Self::missing(message) };
        }
        let message = reword(message).unwrap_or_else(|| message.to_owned());
        let help = single(&message).map(|value| format!("Write `[{value}]`."));
        Self { path, target, help, ..Self::missing(message) }
    }
}

/// The name between `prefix` and the next backtick.
fn after<'m>(message: &'m str, prefix: &str) -> Option<&'m str> {
    message.strip_prefix(prefix)?.split('`').next()
}

/// The one value that stands where a list is expected.
fn single(message: &str) -> Option<&str> {
    let found = message.strip_prefix("expected a list, found ")?;
    let text = || found.strip_prefix("the text `")?.strip_suffix('`');
    found.strip_prefix("the number ").or_else(text)
}

/// The names between backticks.
fn quoted(names: &str) -> Vec<String> {
    names.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// "invalid type: string "four", expected u32" in terms of what stands in the file.
fn reword(message: &str) -> Option<String> {
    let rest = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "))?;
    let (found, expected) = rest.split_once(", expected ")?;
    let expected = match expected {
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "u64" | "usize" => "a whole number from 0 up".to_owned(),
        "i32" | "i64" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a string" | "string" | "string or map" => "text".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a mapping".to_owned(),
        other if other.starts_with("struct ") => "a mapping".to_owned(),
        other => other.to_owned(),
    };
    let found = match found {
        "sequence" => "a list".to_owned(),
        "map" => "a mapping".to_owned(),
        "null" | "unit value" | "Option value" => "nothing".to_owned(),
        other => match (other.split_once(" \""), other.split_once(" `")) {
            (Some(("string", text)), _) => format!("the text `{}`", text.trim_end_matches('"')),
            (_, Some(("integer" | "floating point", number))) => {
                format!("the number {}", number.trim_end_matches('`'))
            }
            (_, Some(("boolean", value))) => format!("`{value}"),
            _ => other.to_owned(),
        },
    };
    Some(format!("expected {expected}, found {found}"))
}

impl fmt::Display for ParamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path.join("."))?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ParamError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serde_is_reworded() {
        let reworded = |message| ParamError::from_serde(vec!["k".to_owned()], message);
        for (message, expected) in [
            (
                "invalid type: string \"four\", expected u32",
                "expected a whole number from 0 to 4294967295, found the text `four`",
            ),
            (
                "invalid type: floating point `1.5`, expected u64",
                "expected a whole number from 0 up, found the number 1.5",
            ),
            ("invalid type: sequence, expected a string", "expected text, found a list"),
            ("invalid type: boolean `true`, expected f64", "expected a number, found `true`"),
            ("invalid type: null, expected struct Lora", "expected a mapping, found nothing"),
            ("unknown variant `x`, expected `a` or `b`", "`x` is not one of a, b"),
            ("unknown variant `x`, expected `a`", "`x` is not `a`"),
            ("unknown field `x`, expected one of `a`, `b`, `c`", "unknown key `x`"),
            ("unknown field `x`, there are no fields", "unknown key `x`"),
            ("missing field `x`", "`x` is missing"),
        ] {
            assert_eq!(reworded(message).message, expected);
        }
        for (found, help) in [("integer `1`", "Write `[1]`."), ("string \"q\"", "Write `[q]`.")] {
            let message = format!("invalid type: {found}, expected a sequence");
            let error = ParamError::from_serde(vec!["k".to_owned()], &message);
            assert_eq!(error.help.as_deref(), Some(help));
        }
        assert_eq!(reworded("invalid type: map, expected a sequence").help, None);
        let unknown = reworded("unknown field `x`, expected one of `a`, `b`, `c`");
        assert_eq!(unknown.alternatives, ["a", "b", "c"]);
        assert_eq!(unknown.path, ["k", "x"]);
        assert_eq!(unknown.target, Target::Key);
    }
}
