//! HellaSwag (Zellers et al., 2019, arXiv 1905.07830): how does this text go on? Texts are cleaned of what WikiHow's pages
//! leave in them.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value, json};

use super::NO_TEST;
use crate::eval::harness::spec::Spec;
use crate::eval::harness::template::Rule;
use crate::eval::python;

pub(super) fn tasks() -> Vec<Spec> {
    vec![Spec {
        prepare: Some(prepare),
        ..Spec::new("hellaswag", NO_TEST, "{{query}}", Rule::template("choices"), Rule::template("{{label}}"))
    }]
}

/// Adds `query`, `choices` and `gold`. Rows that have the first two are taken as they are.
fn prepare(row: &mut Map<String, Value>) -> Result<(), String> {
    let has = |name: &str| row.get(name).is_some_and(|field| !field.is_null());
    if has("query") && has("choices") {
        return Ok(());
    }
    let text = |name: &str| {
        row.get(name).and_then(Value::as_str).ok_or_else(|| format!("`{name}` is missing, or no text"))
    };
    let context = format!("{} {}", text("ctx_a")?, python::capitalize(text("ctx_b")?));
    let query = clean(&format!("{}: {context}", text("activity_label")?));
    let Some(Value::Array(endings)) = row.get("endings") else {
        return Err("`endings` is missing, or no list".to_owned());
    };
    let choices: Vec<String> =
        endings.iter().map(|ending| clean(ending.as_str().unwrap_or_default())).collect();
    let label = row.get("label").map(python::text_of).unwrap_or_default();
    let gold: u32 = label.parse().map_err(|_| format!("`label` is \"{label}\", expected an index"))?;
    row.insert("query".to_owned(), json!(query));
    row.insert("choices".to_owned(), json!(choices));
    row.insert("gold".to_owned(), json!(gold));
    Ok(())
}

/// Removes WikiHow's markers. Spaces at the end stay, and so does one that a marker left at the start: both are scored.
fn clean(text: &str) -> String {
    static BRACKETS: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\[.*?\]").expect("a constant pattern"));
    let text = python::strip(text).replace(" [title]", ". ");
    BRACKETS.replace_all(&text, "").replace("  ", " ")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn markers_go_and_spaces_are_halved_once() {
        assert_eq!(
            clean(" [header] How to  sit [title] Sit down. [step] Now   rise "),
            " How to sit. Sit down. Now  rise"
        );
    }

    #[test]
    fn a_row_gets_its_query_and_choices() {
        let row = json!({"activity_label": "Sitting", "ctx_a": "A man sits.", "ctx_b": "THE man",
            "endings": ["rises. ", "[step] falls."], "label": "1"});
        let Value::Object(mut row) = row else { panic!("an object") };
        prepare(&mut row).unwrap();
        assert_eq!(row["query"], "Sitting: A man sits. The man");
        assert_eq!(row["choices"], json!(["rises.", " falls."]));
        assert_eq!(row["gold"], 1);
        row.remove("query");
        row.insert("label".to_owned(), json!(""));
        assert_eq!(prepare(&mut row).unwrap_err(), "`label` is \"\", expected an index");
    }
}
