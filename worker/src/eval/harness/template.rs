//! The rules by which a task makes texts of a row: a field's name, a Jinja template, a list, or a function of ours.
//!
//! Templates are rendered as lm-eval's are: undefined names are errors, the last newline is kept, strings have Python's
//! methods, and values are printed as Python prints them.

use std::collections::HashSet;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, ValueKind};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, escape_formatter};
use minijinja_contrib::pycompat;
use serde_json::Value;

use super::{printed, python_filters, python_methods, python_objects};

/// How a text, a list of texts or an index comes from a row.
#[derive(Clone, Debug)]
pub enum Rule {
    /// A field's name where the row has it, else a Jinja template.
    Template(String),
    /// A field's name where the row has it, else a text that stands for itself.
    FieldOrText(String),
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

    /// Whether it is the name of a field that `row` lacks.
    pub fn lacks_field(&self, row: &Value) -> bool {
        matches!(self, Self::Template(source) if is_name(source) && row.get(source).is_none())
    }

    /// Whether its value for `row` is what a template or a text prints, and not what a field holds or a function makes.
    pub(super) fn is_printed(&self, row: &Value) -> bool {
        matches!(self, Self::Template(source) | Self::FieldOrText(source) if row.get(source).is_none())
    }

    /// Its value for `row` where that is no text and was never printed: what a field holds, or what stands for itself.
    pub(super) fn held<'a>(&'a self, row: &'a Value) -> Option<&'a Value> {
        let value = match self {
            Self::Constant(value) => Some(value),
            Self::Template(source) | Self::FieldOrText(source) => row.get(source),
            Self::Function(_) => None,
        };
        value.filter(|value| !value.is_string())
    }

    /// The value for `row`. What a template prints is a text, unless all of it is one expression: then its value stays
    /// what it is.
    ///
    /// # Errors
    /// What the template or the function cannot do with this row.
    pub fn value(&self, templates: &Templates, row: &Value) -> Result<Value, Problem> {
        match self {
            Self::Constant(value) => Ok(value.clone()),
            Self::FieldOrText(text) => Ok(row.get(text).cloned().unwrap_or_else(|| text.as_str().into())),
            Self::Function(function) => Ok(function(row)?),
            Self::Template(source) => match row.get(source) {
                Some(field) => Ok(field.clone()),
                None if is_name(source) => Err(format!("`{source}` is missing").into()),
                None => templates.evaluate(source, row),
            },
        }
    }
}

/// Why a rule makes nothing of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// In words.
    pub words: String,
    /// The line of the template, from 1, where one is to blame.
    pub line: Option<usize>,
    /// Whether what the row gives as the answer is none of its choices.
    pub is_no_choice: bool,
}

impl From<String> for Problem {
    fn from(words: String) -> Self {
        Self { words, line: None, is_no_choice: false }
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
            if let Some(called) = python_methods::call(value, method, args) {
                return called;
            }
            match (value.kind(), method, args) {
                (ValueKind::Seq, "index", [wanted]) => index_of(value, wanted),
                _ => pycompat::unknown_method_callback(state, value, method, args),
            }
        });
        environment.set_formatter(|out, state, value| match value.kind() {
            ValueKind::String | ValueKind::Undefined => escape_formatter(out, state, value),
            _ => out.write_str(&printed::text_of(value)?).map_err(Error::from),
        });
        environment.add_filter("regex_replace", regex_replace);
        environment.add_function("range", python_objects::range);
        python_filters::add_to(&mut environment);
        Self { environment }
    }
}

impl Templates {
    fn evaluate(&self, source: &str, row: &Value) -> Result<Value, Problem> {
        let variables = minijinja::Value::from(Serde(row));
        if let Some(expression) = sole_expression(source)
            && let Ok(compiled) = self.environment.compile_expression(expression)
        {
            let names = || compiled.undeclared_variables(true);
            let value =
                compiled.eval(variables.clone()).map_err(|error| words(&error, expression, &names(), row))?;
            if has_undefined(&value) {
                let words = missing(&names(), row).unwrap_or_else(|| format!("`{expression}` is undefined"));
                return Err(words.into());
            }
            if printed::is_plain(&value) {
                return serde_json::to_value(&value).map_err(|error| error.to_string().into());
            }
        }
        let nothing = HashSet::new();
        let template = self.environment.template_from_str(source);
        let template = template.map_err(|error| words(&error, source, &nothing, row))?;
        let names = || template.undeclared_variables(true);
        let text = template.render(variables);
        text.map(Value::String).map_err(|error| words(&error, source, &names(), row))
    }
}

/// The expression of a template that is nothing but `{{ expression }}`.
fn sole_expression(source: &str) -> Option<&str> {
    let inner = source.strip_prefix("{{")?.strip_suffix("}}")?;
    let is_plain = !inner.starts_with('-') && !inner.ends_with('-') && !inner.contains("}}");
    is_plain.then(|| inner.trim())
}

/// A field's name, and no text of its own.
fn is_name(source: &str) -> bool {
    let mut characters = source.chars();
    characters.next().is_some_and(|first| first.is_alphabetic() || first == '_')
        && characters.all(|character| character.is_alphanumeric() || character == '_')
}

/// Whether it is undefined, or a list with an entry that is.
fn has_undefined(value: &minijinja::Value) -> bool {
    let entries = || value.try_iter().is_ok_and(|mut entries| entries.any(|entry| has_undefined(&entry)));
    value.is_undefined() || (value.kind() == ValueKind::Seq && entries())
}

/// What is wrong with a template or `row`, in words: the field that is missing, else what the engine says of which line.
fn words(error: &Error, source: &str, names: &HashSet<String>, row: &Value) -> Problem {
    // What is undefined has no methods either.
    if matches!(error.kind(), ErrorKind::UndefinedError | ErrorKind::UnknownMethod)
        && let Some(missing) = missing(names, row)
    {
        return Problem { line: error.line(), ..missing.into() };
    }
    let problem = error
        .detail()
        .map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    match error.line().and_then(|line| source.lines().nth(line - 1)) {
        Some(text) => Problem {
            words: format!("{problem} in `{text}`"),
            line: error.line(),
            is_no_choice: error.detail().is_some_and(|detail| detail.starts_with(NO_CHOICE)),
        },
        None => problem.into(),
    }
}

/// Which of the `names` that a template uses (`choices.text`) `row` lacks.
fn missing(names: &HashSet<String>, row: &Value) -> Option<String> {
    let mut missing: Vec<&str> = names.iter().filter_map(|name| lacking(name, row)).collect();
    missing.sort_unstable();
    missing.dedup();
    let quoted: Vec<String> = missing.iter().map(|name| format!("`{name}`")).collect();
    let verb = if quoted.len() == 1 { "is" } else { "are" };
    (!quoted.is_empty()).then(|| format!("{} {verb} missing", quoted.join(", ")))
}

/// As much of the path `name` as leads to the first field that is not there. What is no object has methods in place of fields,
/// and an object has Python's beside them.
fn lacking<'a>(name: &'a str, row: &Value) -> Option<&'a str> {
    let mut at = row;
    let mut end = 0;
    for part in name.split('.') {
        let fields = at.as_object()?;
        end += part.len();
        match fields.get(part) {
            Some(value) => at = value,
            None if end > part.len() && DICT_METHODS.contains(&part) => return None,
            None => return name.get(..end),
        }
        end += 1;
    }
    None
}

/// What Jinja finds on an object that has no such field.
const DICT_METHODS: [&str; 8] = ["copy", "get", "items", "keys", "pop", "setdefault", "update", "values"];

/// What `index` says of a value that is not there.
const NO_CHOICE: &str = "not in the list";

/// Python's `list.index`.
fn index_of(list: &minijinja::Value, wanted: &minijinja::Value) -> Result<minijinja::Value, Error> {
    let place = list.try_iter()?.position(|value| value == *wanted);
    place.map(minijinja::Value::from).ok_or_else(|| {
        Error::new(ErrorKind::InvalidOperation, format!("{NO_CHOICE}: {wanted:?} of {list:?}"))
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

    fn problem(source: &str, row: &Value) -> Result<Value, Problem> {
        Rule::template(source).value(&Templates::default(), row)
    }

    fn value(source: &str, row: &Value) -> Result<Value, String> {
        problem(source, row).map_err(|problem| problem.words)
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
        for source in ["label", "{{label}}", "Say {{label}}", "{{[c, label]}}", "{{label.strip()}}"] {
            assert_eq!(value(source, &row).unwrap_err(), "`label` is missing", "{source}");
        }
        assert_eq!(value("{{a}} {{b}}", &row).unwrap_err(), "`a`, `b` are missing");
        for source in ["{{c.text}}", "{{c.text.strip()}}", "Say {{c.text[0].x}}"] {
            assert_eq!(value(source, &row).unwrap_err(), "`c.text` is missing", "{source}");
        }
        assert_eq!(value("{{c.items() | list}}{{d.x.y}}", &row).unwrap_err(), "`d` is missing");
        let third = value("One\n{{c.label[2]}}\n", &row).unwrap_err();
        assert_eq!(third, "undefined value in `{{c.label[2]}}`");
        assert_eq!(problem("One\n{{c.label[2]}}\n", &row).unwrap_err().line, Some(2));
        let answer = problem("{{c.label.index('Z')}}", &row).unwrap_err();
        assert!(answer.is_no_choice && answer.words.contains("not in the list: "), "{answer:?}");
        assert!(!problem("{{c.label[2]}}", &row).unwrap_err().is_no_choice);
    }
}
