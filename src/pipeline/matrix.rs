//! `matrix`: lists of values, and their combinations.

use serde_json::Value as Json;

use super::error::{Code, Mistake, Mistakes};
use super::names::is_identifier;
use super::references::with_origin;
use super::substitute::Scope;
use super::value::{Data, Entry, Value, describe};

/// One key of `matrix` and its values.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    name: String,
    values: Vec<Json>,
}

/// The values of one instance by axis, in the order of the file.
pub(super) type Point = Vec<(String, Json)>;

impl Axis {
    /// How many values it has; at least one.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }
}

/// A value as it stands in an instance's name.
pub(super) fn shown(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// All combinations, the last axis running fastest; without axes the empty one.
pub(super) fn combinations(axes: &[Axis]) -> Vec<Point> {
    axes.iter().fold(vec![Point::new()], |points, axis| {
        let extend = |point: Point| {
            axis.values.iter().map(move |value| {
                let mut longer = point.clone();
                longer.push((axis.name.clone(), value.clone()));
                longer
            })
        };
        points.into_iter().flat_map(extend).collect()
    })
}

/// Reads the value of `matrix`; `None` after a mistake.
pub(super) fn read(matrix: &Value, scope: Scope<'_>, mistakes: &mut Mistakes) -> Option<Vec<Axis>> {
    let Data::Mapping(entries) = &matrix.data else {
        let message =
            format!("`matrix` is a mapping from names to lists of values, not {}", matrix.describe());
        mistakes.push(
            Mistake::new(Code::InvalidValue, matrix.span, message)
                .help("Write `matrix: { n: [1, 2] }`; a list may be a variable: `{ n: \"${params.ns}\" }`."),
        );
        return None;
    };
    if entries.is_empty() {
        mistakes.push(Mistake::new(Code::InvalidValue, matrix.span, "`matrix` names nothing"));
        return None;
    }
    // Each axis, so that each one's mistakes are seen.
    let axes: Vec<Option<Axis>> = entries.iter().map(|entry| axis(entry, scope, mistakes)).collect();
    axes.into_iter().collect()
}

fn axis(entry: &Entry, scope: Scope<'_>, mistakes: &mut Mistakes) -> Option<Axis> {
    let name = &entry.key.text;
    if !is_identifier(name) {
        mistakes.push(
            Mistake::new(
                Code::InvalidName,
                entry.key.span,
                format!("`{name}` cannot be the name of a matrix value"),
            )
            .help("Begin with a letter or `_`; go on with letters, digits, `_` and `-`."),
        );
        return None;
    }
    let found = scope.json(&entry.value, mistakes)?;
    let reject = |code: Code, message: String| {
        with_origin(Mistake::new(code, entry.value.span, message), &entry.value, scope, &[])
    };
    match values(name, found, &reject) {
        Ok(values) => Some(Axis { name: name.clone(), values }),
        Err(mistake) => {
            mistakes.push(mistake);
            None
        }
    }
}

fn values(name: &str, found: Json, reject: &dyn Fn(Code, String) -> Mistake) -> Result<Vec<Json>, Mistake> {
    let invalid = |message: String| reject(Code::InvalidValue, message);
    let values = match found {
        Json::Array(values) => values,
        other => {
            return Err(invalid(format!(
                "`{name}` of `matrix` is a list of values, not {}",
                describe(&other)
            ))
            .help(format!("Put it into brackets: `[{}]`.", shown(&other))));
        }
    };
    if values.is_empty() {
        return Err(
            invalid(format!("`{name}` of `matrix` is an empty list")).help("Give it at least one value.")
        );
    }
    let mut seen = std::collections::HashSet::new();
    for value in &values {
        if value.is_array() || value.is_object() || value.is_null() {
            return Err(invalid(format!(
                "the values of `{name}` are texts, numbers, true or false, not {}",
                describe(value)
            )));
        }
        if !seen.insert(shown(value)) {
            let message =
                format!("`{}` stands twice in `{name}`: two instances would have one name", shown(value));
            return Err(reject(Code::DuplicateInstance, message));
        }
    }
    Ok(values)
}
