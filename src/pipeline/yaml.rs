//! YAML text to a tree of values with places. The only file that names `serde_yaml`.
//!
//! It builds on the event stream of serde-saphyr's parser: deserializing through its `Spanned<T>` costs five
//! times as much, which a generated file of 10,000 nodes cannot afford, and knows the beginnings of values
//! only.

use std::collections::HashMap;
use std::mem;

use serde_yaml::granit_parser::{
    ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, Span as ParserSpan, StrInput, Tag,
};

use super::error::{Code, Mistake, Mistakes};
use super::scalar;
use super::source::Span;
use super::value::{Data, Entry, Key, Value};

/// Aliases may repeat values up to this many in all.
const MOST_VALUES: usize = 1_000_000;

/// Mappings with more keys than this are searched for duplicates through a table.
const FEW_KEYS: usize = 12;

/// Reads the one document in `text`, which is the part of source `source` that begins at byte `base`. `None`
/// if there is none or if it is not YAML; the mistakes then say so.
pub(super) fn parse(text: &str, source: u32, base: usize, mistakes: &mut Mistakes) -> Option<Value> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let parser = Parser::new_from_str_with_options(text, options);
    let mut composer = Composer {
        parser,
        text,
        source,
        base,
        anchors: HashMap::new(),
        values: 0,
        mistakes: Mistakes::default(),
    };
    let document = composer.document().unwrap_or_else(|mistake| {
        composer.mistakes.push(*mistake);
        None
    });
    mistakes.append(composer.mistakes);
    document
}

type Composed<T> = Result<T, Box<Mistake>>;

struct Composer<'t> {
    parser: Parser<'t, StrInput<'t>>,
    text: &'t str,
    source: u32,
    base: usize,
    /// By the parser's number; `None` while the anchored value is being read.
    anchors: HashMap<usize, Option<Value>>,
    values: usize,
    mistakes: Mistakes,
}

impl<'t> Composer<'t> {
    fn document(&mut self) -> Composed<Option<Value>> {
        let mut document = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(document),
                Event::DocumentStart(..) if document.is_some() => {
                    let at = self.span(&span);
                    return Err(Box::new(
                        Mistake::new(Code::Syntax, at, "a second document begins here")
                            .help("Keep one pipeline a file."),
                    ));
                }
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                event => document = Some(self.value(event, &span)?),
            }
        }
    }

    fn next(&mut self) -> Composed<(Event<'t>, ParserSpan)> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(Box::new(self.syntax(&error))),
            None => Ok((Event::StreamEnd, ParserSpan::default())),
        }
    }

    fn span(&self, span: &ParserSpan) -> Span {
        let start = self.base + span.start.byte_offset().unwrap_or(0);
        let end = self.base + span.end.byte_offset().unwrap_or(0);
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Span { source: self.source, start: offset(start), end: offset(end.max(start)) }
    }

    fn value(&mut self, event: Event<'t>, span: &ParserSpan) -> Composed<Value> {
        let at = self.span(span);
        self.values += 1;
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let data = self.scalar(&text, style, tag.as_deref(), at);
                (anchor, Value { span: at, data })
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.open(anchor, tag.as_deref(), "seq", at);
                (anchor, self.list(at)?)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.open(anchor, tag.as_deref(), "map", at);
                (anchor, self.mapping(at)?)
            }
            Event::Alias(anchor) => return self.alias(anchor, at),
            _ => return Err(Box::new(Mistake::new(Code::Syntax, at, "a value was expected here"))),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, Some(value.clone()));
        }
        Ok(value)
    }

    fn open(&mut self, anchor: usize, tag: Option<&Tag>, core: &str, at: Span) {
        if anchor != 0 {
            self.anchors.insert(anchor, None);
        }
        if tag.is_some_and(|tag| tag.core_suffix() != Some(core)) {
            self.unknown_tag(tag, at);
        }
    }

    fn unknown_tag(&mut self, tag: Option<&Tag>, at: Span) {
        let name = tag.map(Tag::original).unwrap_or_default();
        if name == "!function" {
            let mistake =
                Mistake::new(Code::Syntax, at, "`!function` names Python code, which is not run here");
            self.mistakes
                .push(mistake.help("Write the rule as a Jinja template, or use a task without Python."));
            return;
        }
        let mistake = Mistake::new(Code::Syntax, at, format!("the tag `{name}` does not fit here"));
        self.mistakes.push(mistake.help("Leave the tag out, or quote the value to make it text."));
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Span) -> Data {
        let plain = style == ScalarStyle::Plain;
        let suffix = match tag.map(Tag::core_suffix) {
            // The parser writes `~` for a value that is not there.
            None if plain && at.start == at.end => return Data::Null,
            None if plain => return scalar::resolve(text),
            None | Some(Some("str")) => return Data::Text(text.to_owned()),
            Some(suffix) => suffix,
        };
        let data = scalar::resolve(text);
        let fits = match (suffix, &data) {
            (Some("null"), Data::Null) | (Some("bool"), Data::Bool(_)) | (Some("float"), Data::Number(_)) => {
                true
            }
            (Some("int"), Data::Number(number)) => !number.is_f64(),
            _ => false,
        };
        if !fits {
            self.unknown_tag(tag, at);
        }
        data
    }

    fn alias(&mut self, anchor: usize, at: Span) -> Composed<Value> {
        let Some(Some(value)) = self.anchors.get(&anchor) else {
            return Err(Box::new(Mistake::new(Code::Syntax, at, "this alias stands inside what it repeats")));
        };
        let value = value.clone();
        self.values += count(&value);
        if self.values > MOST_VALUES {
            let message = format!("aliases repeat more than {MOST_VALUES} values");
            return Err(Box::new(Mistake::new(Code::Syntax, at, message)));
        }
        // Inside, mistakes are shown where they are written; the value as a whole stands here.
        Ok(Value { span: at, data: value.data })
    }

    fn list(&mut self, start: Span) -> Composed<Value> {
        let mut list = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                let end = self.end_of(start, &span, list.last().map(|last: &Value| last.span));
                return Ok(Value { span: end, data: Data::List(list) });
            }
            list.push(self.value(event, &span)?);
        }
    }

    fn mapping(&mut self, start: Span) -> Composed<Value> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged: Vec<Value> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                let end = self.end_of(start, &span, entries.last().map(|last| last.value.span));
                self.reject_duplicates(&mut entries);
                self.merge(&mut entries, merged);
                return Ok(Value { span: end, data: Data::Mapping(entries) });
            }
            let at = self.span(&span);
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let key = self.key(event, at)?;
            let (event, span) = self.next()?;
            let value = self.value(event, &span)?;
            if is_merge {
                merged.push(value);
            } else {
                entries.push(Entry { key, value });
            }
        }
    }

    fn key(&self, event: Event<'t>, at: Span) -> Composed<Key> {
        match event {
            Event::Scalar(..) if at.start == at.end => {
                Err(Box::new(Mistake::new(Code::Syntax, at, "a key is missing before `:`")))
            }
            Event::Scalar(text, ..) => Ok(Key { text: text.into_owned(), span: at }),
            _ => Err(Box::new(
                Mistake::new(Code::Syntax, at, "a key has to be plain text")
                    .help("Put text that begins with `{`, `[` or `*` into quotes: `\"${params.name}\"`."),
            )),
        }
    }

    /// From the opening bracket to the closing one, or, without brackets, to the end of the last value.
    fn end_of(&self, start: Span, closing: &ParserSpan, last: Option<Span>) -> Span {
        let closing = self.span(closing);
        let bracketed = start.end > start.start && closing.end > closing.start;
        let end = if bracketed { closing.end } else { last.map_or(start.end, |last| last.end) };
        Span { end: end.max(start.end), ..start }
    }

    fn reject_duplicates(&mut self, entries: &mut Vec<Entry>) {
        let first = |entries: &[Entry], index: usize| {
            entries[..index].iter().position(|earlier| earlier.key.text == entries[index].key.text)
        };
        let duplicates: Vec<(usize, usize)> = if entries.len() <= FEW_KEYS {
            (1..entries.len()).filter_map(|i| first(entries, i).map(|earlier| (earlier, i))).collect()
        } else {
            let mut seen: HashMap<&str, usize> = HashMap::with_capacity(entries.len());
            let repeated = |(i, entry)| {
                let entry: &Entry = entry;
                let earlier = *seen.entry(entry.key.text.as_str()).or_insert(i);
                (earlier != i).then_some((earlier, i))
            };
            entries.iter().enumerate().filter_map(repeated).collect()
        };
        for &(earlier, index) in &duplicates {
            let key = &entries[index].key;
            let mistake =
                Mistake::new(Code::DuplicateKey, key.span, format!("`{}` stands here twice", key.text));
            self.mistakes.push(mistake.label("again").also(entries[earlier].key.span, "the first time"));
        }
        for (_, index) in duplicates.into_iter().rev() {
            entries.remove(index);
        }
    }

    /// `<<: *defaults`, or a list of such: keys that are not given, the first mapping winning.
    fn merge(&mut self, entries: &mut Vec<Entry>, merged: Vec<Value>) {
        let flatten = |value: Value| match value.data {
            Data::List(list) => list,
            data => vec![Value { span: value.span, data }],
        };
        for mut value in merged.into_iter().flat_map(flatten) {
            let Data::Mapping(defaults) = &mut value.data else {
                let message = format!("`<<` takes a mapping, but this is {}", value.describe());
                self.mistakes.push(Mistake::new(Code::InvalidValue, value.span, message));
                continue;
            };
            for entry in mem::take(defaults) {
                if !entries.iter().any(|given| given.key.text == entry.key.text) {
                    entries.push(entry);
                }
            }
        }
    }

    /// The parser's error in words about this file.
    fn syntax(&self, error: &ScanError) -> Mistake {
        let offset = error.marker().byte_offset().unwrap_or(self.text.len()).min(self.text.len());
        let width =
            self.text[offset..].chars().next().filter(|c| *c != '\n' && *c != '\r').map_or(0, char::len_utf8);
        let whole = Span { source: self.source, start: 0, end: 0 };
        let at = whole.part(self.base + offset, width);
        let line_start = self.text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.text[line_start..].lines().next().unwrap_or_default();
        let indentation = line.bytes().take_while(|byte| matches!(byte, b' ' | b'\t'));
        if let Some(tab) = indentation.into_iter().position(|byte| byte == b'\t') {
            let at = whole.part(self.base + line_start + tab, 1);
            return Mistake::new(Code::Syntax, at, "a tab stands in the indentation")
                .help("Indent with spaces.");
        }
        let mistake = Mistake::new(Code::Syntax, at, reword(error.kind()));
        let variable = line.find("${").filter(|at| !line[..*at].ends_with(['"', '\'']));
        if variable.is_some() {
            return mistake.help("Between braces, put `${…}` into quotes: `\"${params.name}\"`.");
        }
        match error.kind() {
            ErrorKind::UnknownAnchor => {
                mistake.help("Declare it above with `&name`, or quote text that begins with `*`.")
            }
            ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidMappingValueWhitespace => {
                mistake.help("Put text that contains `: ` into quotes.")
            }
            _ => mistake,
        }
    }
}

fn count(value: &Value) -> usize {
    1 + match &value.data {
        Data::List(list) => list.iter().map(count).sum::<usize>(),
        Data::Mapping(entries) => entries.iter().map(|entry| count(&entry.value)).sum(),
        _ => 0,
    }
}

/// The commonest slips in plain words; the parser's own words for the others.
fn reword(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::UnexpectedEofFlowMapping | ErrorKind::UnexpectedEofImplicitFlowMapping => {
            "the file ends before the `}` of a mapping".to_owned()
        }
        ErrorKind::UnexpectedEofFlowSequence => "the file ends before the `]` of a list".to_owned(),
        ErrorKind::ExpectedFlowMappingSeparator => "`,` or `}` was expected here".to_owned(),
        ErrorKind::ExpectedFlowSequenceSeparator => "`,` or `]` was expected here".to_owned(),
        ErrorKind::ExpectedBlockMappingKey => {
            "a key was expected here, indented like the ones above".to_owned()
        }
        ErrorKind::ExpectedBlockSequenceEntry => "`-` was expected here".to_owned(),
        ErrorKind::MappingValueNotAllowed => "a `:` is not allowed here".to_owned(),
        ErrorKind::SimpleKeyExpected => "a `:` is missing after this key".to_owned(),
        ErrorKind::UnknownAnchor => "this alias has no anchor".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
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
}
