//! What a template prints, as Jinja prints it: `str` of Python's values.

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use super::text;

/// `str(value)`.
///
/// # Errors
/// When it is undefined, or has an entry that is.
pub(super) fn text_of(value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => repr(value),
    }
}

/// Whether a value stays what it is where a template is nothing but an expression: what a row may hold, and prints the same from
/// there.
pub(super) fn is_plain(value: &Value) -> bool {
    let has_plain_entries =
        || value.try_iter().is_ok_and(|mut entries| entries.all(|entry| entry.kind() != ValueKind::Seq && is_plain(&entry)));
    match value.kind() {
        ValueKind::None | ValueKind::Bool | ValueKind::String => true,
        ValueKind::Number => value.is_integer() && i64::try_from(value.clone()).is_ok(),
        ValueKind::Seq => !value.is_tuple() && has_plain_entries(),
        _ => false,
    }
}

/// `repr(value)`.
fn repr(value: &Value) -> Result<String, Error> {
    Ok(match value.kind() {
        ValueKind::Undefined => return Err(Error::from(ErrorKind::UndefinedError)),
        ValueKind::String => text::quoted(value.as_str().unwrap_or_default()),
        ValueKind::Number if !value.is_integer() => text::float(f64::try_from(value.clone())?),
        ValueKind::Map => {
            let mut entries = Vec::new();
            for key in value.try_iter()? {
                entries.push(format!("{}: {}", repr(&key)?, repr(&value.get_item(&key)?)?));
            }
            format!("{{{}}}", entries.join(", "))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let entries = value.try_iter()?.map(|entry| repr(&entry)).collect::<Result<Vec<_>, _>>()?;
            match value.downcast_object_ref::<Tuple>() {
                Some(tuple) if tuple.len() == 1 => format!("({},)", entries.join(", ")),
                Some(_) => format!("({})", entries.join(", ")),
                None => format!("[{}]", entries.join(", ")),
            }
        }
        _ => value.to_string(),
    })
}
