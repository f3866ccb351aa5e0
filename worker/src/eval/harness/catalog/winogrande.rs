//! WinoGrande (Sakaguchi et al., 2019, arXiv 1907.10641): which of two names fills the blank. The two sentences up to the
//! blank are the choices; what follows the blank is scored after each.

use serde_json::{Value, json};

use super::NO_TEST;
use crate::eval::harness::spec::{Spec, names};
use crate::eval::harness::template::Rule;
use crate::eval::python;

pub(super) fn tasks() -> Vec<Spec> {
    vec![Spec {
        metrics: names(&["acc"]),
        text: Rule::Function(right),
        ..Spec::new("winogrande", NO_TEST, "", Rule::Function(choices), Rule::Function(rest))
    }]
}

fn field<'a>(row: &'a Value, name: &str) -> Result<&'a str, String> {
    row.get(name).and_then(Value::as_str).ok_or_else(|| format!("`{name}` is no text"))
}

fn halves(row: &Value) -> Result<(&str, &str), String> {
    field(row, "sentence")?.split_once('_').ok_or_else(|| "`sentence` has no blank `_`".to_owned())
}

/// The index of the right name.
fn right(row: &Value) -> Result<Value, String> {
    match field(row, "answer")? {
        "1" => Ok(json!(0)),
        "2" => Ok(json!(1)),
        other => Err(format!("`answer` is \"{other}\", expected \"1\" or \"2\"")),
    }
}

fn choices(row: &Value) -> Result<Value, String> {
    let (before, _) = halves(row)?;
    Ok(json!([format!("{before}{}", field(row, "option1")?), format!("{before}{}", field(row, "option2")?)]))
}

fn rest(row: &Value) -> Result<Value, String> {
    Ok(json!(python::strip(halves(row)?.1)))
}
