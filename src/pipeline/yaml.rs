//! YAML text to a tree of values with places. The only file that names `serde_yaml`.
//!
//! It builds on the event stream of serde-saphyr's parser: deserializing through its `Spanned<T>` costs five
//! times as much, which a generated file of 10,000 nodes cannot afford, and knows the beginnings of values
//! only.

mod errors;

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
            Some(Err(error)) => Err(Box::new(errors::in_words(&error, self.text, self.source, self.base))),
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
}

fn count(value: &Value) -> usize {
    1 + match &value.data {
        Data::List(list) => list.iter().map(count).sum::<usize>(),
        Data::Mapping(entries) => entries.iter().map(|entry| count(&entry.value)).sum(),
        _ => 0,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
#[path = "yaml_tests.rs"]
mod tests;
