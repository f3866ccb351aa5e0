//! Filters for texts with marked words: `format_span` for named entities, `regex_pos` for parts of speech.

use std::sync::LazyLock;

use regex::{NoExpand, Regex};
use serde_json::{Value, json};

use crate::eval::python;

/// What names of entities' kinds are called, in the order in which they are looked for.
const KINDS: [(&str, &str); 15] = [
    ("person", "PER"),
    ("location", "LOC"),
    ("organization", "ORG"),
    ("counties", "LOC"),
    ("places", "LOC"),
    ("people", "PER"),
    ("persons", "PER"),
    ("company", "ORG"),
    ("country", "LOC"),
    ("continent", "LOC"),
    ("time", "DATE"),
    ("date", "DATE"),
    ("per", "PER"),
    ("loc", "LOC"),
    ("org", "ORG"),
];

/// `\s` of Python.
const SPACE: &str = r"[\s\x1C-\x1F]*";

static NAMED: LazyLock<Vec<(Regex, String)>> = LazyLock::new(|| {
    let named = |(name, kind): (&str, &str)| (compiled(&format!(r"\b{name}{SPACE}:")), format!("{kind}:"));
    KINDS.map(named).into()
});
static ENTITIES: LazyLock<Regex> =
    LazyLock::new(|| compiled(&format!(r"\b(PER|LOC|ORG|DATE):{SPACE}([^$]+)")));
static TAGGED: LazyLock<Regex> = LazyLock::new(|| compiled(r"\('[^']*', '([^']*)'\)"));

fn compiled(source: &str) -> Regex {
    Regex::new(source).expect("a constant pattern")
}

/// `format_span`: the entities of `reply` as `kind: name $ kind: name`.
pub(super) fn written(reply: &str) -> String {
    let mut text = reply.to_lowercase();
    for (name, kind) in NAMED.iter() {
        text = name.replace_all(&text, NoExpand(kind)).into_owned();
    }
    let text = text.replace("$$", "$");
    let text = text.trim_end_matches('$').replace('\n', "$");
    let mut entities = Vec::new();
    for found in ENTITIES.captures_iter(python::strip(&text)) {
        let (_, [kind, names]) = found.extract();
        let names = names.split(',').map(python::strip).filter(|name| name.to_lowercase() != "none");
        entities.extend(names.map(|name| format!("{}: {name}", kind.to_lowercase())));
    }
    entities.join(" $ ")
}

/// `regex_pos`: the tags of a text of `('word', 'TAG')`; of none `fallback`, or a list that says so.
pub(super) fn tags(reply: &str, fallback: &Value) -> Value {
    let tags: Vec<Value> = TAGGED.captures_iter(reply).map(|found| found[1].into()).collect();
    match (tags.is_empty(), fallback) {
        (false, _) => tags.into(),
        (true, Value::Null) => json!(["invalid"]),
        (true, fallback) => fallback.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is expected is what lm-eval 0.4.13 gives.
    #[test]
    fn entities_and_tags_are_found() {
        for (reply, expected) in [
            (
                "PER: Kenya's Ann, bob $ LOC: none, Nairobi\nperson : X",
                "per: kenya's ann $ per: bob $ loc: nairobi $ per: x",
            ),
            ("date: 1 $$ Organization: ACME $$", "date: 1 $ org: acme"),
            ("Time:\tx", "date: x"),
            ("nothing", ""),
        ] {
            assert_eq!(written(reply), expected);
        }
        assert_eq!(tags("[('a', 'NOUN'), ('b', 'X')]", &Value::Null), json!(["NOUN", "X"]));
        assert_eq!(tags("none", &Value::Null), json!(["invalid"]));
        assert_eq!(tags("none", &json!("q")), "q");
    }
}
