//! `json.dumps` as Jinja's `tojson` calls it: keys in order, ASCII only, and nothing that means something in HTML.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

use crate::eval::python::repr;

/// The JSON of `value`; with `indent`, an entry a line.
///
/// # Errors
/// When a value is none of JSON's.
pub(super) fn of(value: &Value, indent: Option<usize>) -> Result<String, Error> {
    let mut out = String::new();
    write(&mut out, value, indent, 0)?;
    let mut escaped = String::with_capacity(out.len());
    for character in out.chars() {
        match character {
            '<' | '>' | '&' | '\'' => escaped.push_str(&format!("\\u{:04x}", character as u32)),
            other => escaped.push(other),
        }
    }
    Ok(escaped)
}

fn write(out: &mut String, value: &Value, indent: Option<usize>, depth: usize) -> Result<(), Error> {
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number if value.is_integer() => out.push_str(&value.to_string()),
        ValueKind::Number => out.push_str(&number(f64::try_from(value.clone())?)),
        ValueKind::String => write_text(out, value.as_str().unwrap_or_default()),
        ValueKind::Seq => {
            let entries: Vec<Value> = value.try_iter()?.collect();
            write_entries(out, &entries, ('[', ']'), indent, depth, &mut |out, entry| {
                write(out, entry, indent, depth + 1)
            })?;
        }
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            keys.sort_by_key(Value::to_string);
            write_entries(out, &keys, ('{', '}'), indent, depth, &mut |out, key| {
                write_text(out, &super::printed::text_of(key)?);
                out.push_str(": ");
                write(out, &value.get_item(key)?, indent, depth + 1)
            })?;
        }
        kind => {
            let problem = format!("{kind} is not JSON serializable");
            return Err(Error::new(ErrorKind::BadSerialization, problem));
        }
    }
    Ok(())
}

fn write_entries(
    out: &mut String,
    entries: &[Value],
    (begin, end): (char, char),
    indent: Option<usize>,
    depth: usize,
    write: &mut dyn FnMut(&mut String, &Value) -> Result<(), Error>,
) -> Result<(), Error> {
    let new_line = |out: &mut String, depth: usize| {
        if let Some(width) = indent {
            out.push('\n');
            out.push_str(&" ".repeat(width * depth));
        }
    };
    out.push(begin);
    for (index, entry) in entries.iter().enumerate() {
        out.push_str(match (index, indent) {
            (0, _) => "",
            (_, None) => ", ",
            (_, Some(_)) => ",",
        });
        new_line(out, depth + 1);
        write(out, entry)?;
    }
    if !entries.is_empty() {
        new_line(out, depth);
    }
    out.push(end);
    Ok(())
}

fn number(number: f64) -> String {
    match number {
        _ if number.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        number => repr::float(number),
    }
}

fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(character),
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out.push('"');
}
