//! Python's ranges and views of mappings: lists to go through, which print as what they are.

use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr};
use minijinja::{Error, ErrorKind, Value};

/// Values of a range, at most.
const LONGEST: usize = 100_000;

/// Values, and how they print.
#[derive(Debug)]
pub(super) struct Listed {
    values: Vec<Value>,
    /// All of it, or what stands before the values in parentheses.
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    Whole(String),
    Before(String),
}

impl Listed {
    /// `dict_keys` and its like.
    pub(super) fn view(name: &str, values: Vec<Value>) -> Value {
        Value::from_object(Self { values, shown: Shown::Before(name.to_owned()) })
    }

    /// How it prints, where `entries` is how a list of its values does.
    pub(super) fn printed(&self, entries: &str) -> String {
        match &self.shown {
            Shown::Whole(text) => text.clone(),
            Shown::Before(name) => format!("{name}({entries})"),
        }
    }
}

impl Object for Listed {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.values.get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.values.len())
    }
}

/// `range(stop)`, `range(start, stop)` and `range(start, stop, step)`.
///
/// # Errors
/// When it does not advance, or has too many values.
pub(super) fn range(first: i64, second: Option<i64>, step: Option<i64>) -> Result<Value, Error> {
    let (start, stop) = second.map_or((0, first), |stop| (first, stop));
    let by = step.unwrap_or(1);
    if by == 0 {
        return Err(Error::new(ErrorKind::InvalidOperation, "range() arg 3 must not be zero"));
    }
    let is_before_stop = |value: &i64| if by > 0 { *value < stop } else { *value > stop };
    let all = std::iter::successors(Some(start), |value| value.checked_add(by)).take_while(is_before_stop);
    let values: Vec<Value> = all.take(LONGEST + 1).map(Value::from).collect();
    if values.len() > LONGEST {
        return Err(Error::new(ErrorKind::InvalidOperation, "range has too many elements"));
    }
    let step = if by == 1 { String::new() } else { format!(", {by}") };
    let shown = Shown::Whole(format!("range({start}, {stop}{step})"));
    Ok(Value::from_object(Listed { values, shown }))
}
