use super::super::source::{Source, Sources};
use super::*;

fn parsed(text: &str) -> Result<serde_json::Value, String> {
    let mut sources = Sources::default();
    sources.add(Source::new("x".into(), "".into(), text.into()));
    let mut mistakes = Mistakes::default();
    match parse(text, 0, 0, &mut mistakes) {
        Some(value) if mistakes.is_empty() => Ok(value.to_json()),
        _ => Err(mistakes.finish(&sources).to_string()),
    }
}

#[test]
fn values_of_all_kinds() {
    let text = "a: [1, -2, 0.5, true, null, ~, \"1\", 'it''s']\nb:\n  c: |\n    two\n    lines\n  d: >-\n    one\n    line\n? e\n: f\n1: g\nempty:\n";
    let expected = serde_json::json!({
        "a": [1, -2, 0.5, true, null, null, "1", "it's"],
        "b": { "c": "two\nlines\n", "d": "one line" },
        "e": "f",
        "1": "g",
        "empty": null,
    });
    assert_eq!(parsed(text), Ok(expected));
}

#[test]
fn tags_are_taken_at_their_word() {
    let read = serde_json::json!({ "a": "1", "b": 2, "c": 3.0, "d": null });
    assert_eq!(parsed("{ a: !!str 1, b: !!int 2, c: !!float 3.0, d: !!null ~ }"), Ok(read));
    assert_eq!(parsed("a: !!int x"), Err("x:1:10: the tag `!!int` does not fit here".to_owned()));
}

#[test]
fn merged_keys_give_way_to_given_ones_and_to_earlier_ones() {
    let text = "x: &x { a: 1, b: 1 }\ny: &y { b: 2, c: 2 }\nz: { <<: [*x, *y], c: 3 }\n";
    assert_eq!(parsed(text).unwrap()["z"], serde_json::json!({ "a": 1, "b": 1, "c": 3 }));
}

#[test]
fn aliases_cannot_repeat_themselves_nor_without_end() {
    assert_eq!(parsed("a: &a [*a]"), Err("x:1:8: this alias stands inside what it repeats".to_owned()));
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    assert!(parsed(&text).unwrap_err().contains("aliases repeat more than 1000000 values"));
}

#[test]
fn duplicates_are_found_in_large_mappings_too() {
    let mut text: String = (0..100).map(|index| format!("k{index}: {index}\n")).collect();
    text.push_str("k7: again\n");
    assert_eq!(parsed(&text), Err("x:101:1: `k7` stands here twice".to_owned()));
}

#[test]
fn spans_cover_what_they_name() {
    let text = "a: { b: [1, 2] }\nc:\n  d: \"x y\"\n  e: f\n";
    let mut mistakes = Mistakes::default();
    let root = parse(text, 0, 0, &mut mistakes).unwrap();
    let slice = |span: Span| &text[span.start as usize..span.end as usize];
    let [a, c] = root.entries() else { panic!("two entries") };
    assert_eq!((slice(a.key.span), slice(a.value.span)), ("a", "{ b: [1, 2] }"));
    assert_eq!(slice(a.value.entries()[0].value.span), "[1, 2]");
    assert_eq!(slice(c.value.span), "d: \"x y\"\n  e: f");
    assert_eq!(slice(c.value.entries()[0].value.span), "\"x y\"");
}
