//! What a template prints, as Jinja prints it: `str` of Python's values.

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use super::python_objects::Listed;
use crate::eval::python::repr as written;

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
    let has_plain_entries = || {
        value
            .try_iter()
            .is_ok_and(|mut entries| entries.all(|entry| entry.kind() != ValueKind::Seq && is_plain(&entry)))
    };
    match value.kind() {
        ValueKind::None | ValueKind::Bool | ValueKind::String => true,
        ValueKind::Number => value.is_integer() && i64::try_from(value.clone()).is_ok(),
        ValueKind::Seq => !value.is_tuple() && !is_listed(value) && has_plain_entries(),
        _ => false,
    }
}

fn is_listed(value: &Value) -> bool {
    value.downcast_object_ref::<Listed>().is_some()
}

/// `repr(value)`.
fn repr(value: &Value) -> Result<String, Error> {
    Ok(match value.kind() {
        ValueKind::Undefined => return Err(Error::from(ErrorKind::UndefinedError)),
        ValueKind::String => written::quoted(value.as_str().unwrap_or_default()),
        ValueKind::Number if !value.is_integer() => written::float(f64::try_from(value.clone())?),
        ValueKind::Map => {
            let mut entries = Vec::new();
            for key in value.try_iter()? {
                entries.push(format!("{}: {}", repr(&key)?, repr(&value.get_item(&key)?)?));
            }
            format!("{{{}}}", entries.join(", "))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let entries = value.try_iter()?.map(|entry| repr(&entry)).collect::<Result<Vec<_>, _>>()?;
            let entries = entries.join(", ");
            match (value.downcast_object_ref::<Tuple>(), value.downcast_object_ref::<Listed>()) {
                (Some(tuple), _) if tuple.len() == 1 => format!("({entries},)"),
                (Some(_), _) => format!("({entries})"),
                (None, Some(listed)) => listed.printed(&format!("[{entries}]")),
                (None, None) => format!("[{entries}]"),
            }
        }
        _ => value.to_string(),
    })
}
