//! The rules by which a task makes texts of a row: a field's name, a Jinja template, a list, or a function of ours.
//!
//! Templates are rendered as lm-eval's are: undefined names are errors, the last newline is kept, strings have Python's
//! methods, and values are printed as Python prints them.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, ValueKind};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, escape_formatter};
use minijinja_contrib::pycompat;
use serde_json::Value;

use crate::eval::python;

/// How a text, a list of texts or an index comes from a row.
#[derive(Clone, Debug)]
pub enum Rule {
    /// A field's name where the row has it, else a Jinja template.
    Template(String),
    /// The same for every row.
    Constant(Value),
    /// A function: what lm-eval's own tasks do in Python.
    Function(fn(&Value) -> Result<Value, String>),
}

impl Rule {
    /// A template.
    pub fn template(source: &str) -> Self {
        Self::Template(source.to_owned())
    }

    /// Whether its value may be something else than the text of a field.
    pub fn is_computed(&self) -> bool {
        matches!(self, Self::Function(_))
    }

    /// The value for `row`. What a template prints is a text, unless all of it is one expression: then its value stays
    /// what it is.
    ///
    /// # Errors
    /// In words: what the template or the function cannot do with this row.
    pub fn value(&self, templates: &Templates, row: &Value) -> Result<Value, String> {
        match self {
            Self::Constant(value) => Ok(value.clone()),
            Self::Function(function) => function(row),
            Self::Template(source) => match row.get(source) {
                Some(field) => Ok(field.clone()),
                None => templates.evaluate(source, row),
            },
        }
    }
}

/// Renders templates.
pub struct Templates {
    environment: Environment<'static>,
}

impl Default for Templates {
    fn default() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
        environment.set_syntax(syntax.expect("the default delimiters"));
        environment.set_unknown_method_callback(|state, value, method, args| {
            match (value.kind(), method, args) {
                (ValueKind::Seq, "index", [wanted]) => index_of(value, wanted),
                _ => pycompat::unknown_method_callback(state, value, method, args),
            }
        });
        environment.set_formatter(|out, state, value| match value.kind() {
            ValueKind::Bool | ValueKind::None | ValueKind::Seq | ValueKind::Map => {
                let value = serde_json::to_value(value)
                    .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
                out.write_str(&python::text_of(&value)).map_err(Error::from)
            }
            _ => escape_formatter(out, state, value),
        });
        environment.add_filter("regex_replace", regex_replace);
        Self { environment }
    }
}

impl Templates {
    fn evaluate(&self, source: &str, row: &Value) -> Result<Value, String> {
        let variables = minijinja::Value::from(Serde(row));
        if let Some(expression) = sole_expression(source)
            && let Ok(compiled) = self.environment.compile_expression(expression)
        {
            let value = compiled.eval(variables).map_err(words)?;
            if value.is_undefined() {
                return Err(format!("`{expression}` is undefined"));
            }
            return serde_json::to_value(&value).map_err(|error| error.to_string());
        }
        self.environment.render_str(source, variables).map(Value::String).map_err(words)
    }
}

/// The expression of a template that is nothing but `{{ expression }}`.
fn sole_expression(source: &str) -> Option<&str> {
    let inner = source.strip_prefix("{{")?.strip_suffix("}}")?;
    let is_plain = !inner.starts_with('-') && !inner.ends_with('-') && !inner.contains("}}");
    is_plain.then(|| inner.trim())
}

fn words(error: Error) -> String {
    error.detail().map_or_else(|| error.to_string(), |detail| format!("{}: {detail}", error.kind()))
}

/// Python's `list.index`.
fn index_of(list: &minijinja::Value, wanted: &minijinja::Value) -> Result<minijinja::Value, Error> {
    let place = list.try_iter()?.position(|value| value == *wanted);
    place.map(minijinja::Value::from).ok_or_else(|| {
        Error::new(ErrorKind::InvalidOperation, format!("{wanted:?} is not in the list {list:?}"))
    })
}

/// Python's `re.sub(pattern, replacement, text)`.
fn regex_replace(text: &str, pattern: &str, replacement: &str) -> Result<String, Error> {
    let pattern = regex::Regex::new(pattern)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("regex_replace: {error}")))?;
    // Python writes groups as \1, the crate as ${1}.
    let groups = regex::Regex::new(r"\\(\d)").expect("a constant pattern");
    let replacement = replacement.replace('$', "$$");
    let replacement = groups.replace_all(&replacement, "$${$1}");
    Ok(pattern.replace_all(text, replacement.as_ref()).into_owned())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(source: &str, row: &Value) -> Result<Value, String> {
        Rule::template(source).value(&Templates::default(), row)
    }

    #[test]
    fn fields_expressions_and_texts() {
        let row = json!({"a": " x ", "b": ["one", "it's"], "n": 3, "t": true, "c": {"label": ["A", "B"]}});
        assert_eq!(value("n", &row), Ok(json!(3)));
        assert_eq!(value("{{a.strip()}}\nAnswer:\n", &row), Ok(json!("x\nAnswer:\n")));
        assert_eq!(value("{{ b }}", &row), Ok(json!(["one", "it's"])));
        assert_eq!(value("{{[n, a]}}", &row), Ok(json!([3, " x "])));
        assert_eq!(value("{{c.label.index('B')}}", &row), Ok(json!(1)));
        assert_eq!(value("so {{b}} {{t}} {{none}}", &row), Ok(json!("so ['one', \"it's\"] True None")));
        assert_eq!(value("{{a}}-{{n}}", &row), Ok(json!(" x -3")));
        assert_eq!(
            value("{{ 'a1b2' | regex_replace('([a-z])', '<\\\\1>') }}!", &row),
            Ok(json!("<a>1<b>2!"))
        );
    }

    #[test]
    fn what_a_row_lacks_is_an_error() {
        let row = json!({"c": {"label": ["A"]}});
        assert!(value("{{missing}}", &row).is_err());
        assert!(value("Say {{missing}}", &row).unwrap_err().contains("undefined"));
        assert!(value("{{c.label.index('Z')}}", &row).unwrap_err().contains("is not in the list"));
    }
}
