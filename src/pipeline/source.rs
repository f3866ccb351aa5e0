//! The texts a pipeline is read from, and places in them.

use std::path::PathBuf;
use std::sync::Arc;

use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

/// A range of bytes in one of the sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Span {
    /// Index into [`Sources`].
    pub(super) source: u32,
    /// The first byte.
    pub(super) start: u32,
    /// One past the last byte.
    pub(super) end: u32,
}

impl Span {
    /// The part of this span that is `length` bytes long and begins `offset` bytes after its start.
    pub(super) fn part(self, offset: usize, length: usize) -> Self {
        let start = self.start + u32::try_from(offset).unwrap_or(0);
        Self { start, end: start + u32::try_from(length).unwrap_or(0), ..self }
    }
}

/// A line and a column, both from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// One file, or the text of one `--set`.
#[derive(Debug)]
pub struct Source {
    /// As shown in messages: the path as it was given, or `--set`.
    name: String,
    /// Relative paths in the text start here.
    folder: PathBuf,
    text: String,
    /// Where each line begins, in bytes.
    lines: Vec<u32>,
}

impl Source {
    /// A text shown as `name`, whose relative paths start at `folder`.
    pub(super) fn new(name: String, folder: PathBuf, text: String) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = breaks.filter_map(|(at, _)| u32::try_from(at + 1).ok());
        let lines = std::iter::once(0).chain(starts).collect();
        Self { name, folder, text, lines }
    }

    /// As shown in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where relative paths start.
    pub(super) fn folder(&self) -> &PathBuf {
        &self.folder
    }

    /// The index of the line that holds byte `offset`.
    fn line_of(&self, offset: u32) -> usize {
        self.lines.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    /// The bytes of the lines `first` to `last`, without the last line break.
    fn bytes_of(&self, first: usize, last: usize) -> (usize, usize) {
        let start = self.lines.get(first).map_or(self.text.len(), |start| *start as usize);
        let end = self.lines.get(last + 1).map_or(self.text.len(), |next| *next as usize - 1);
        (start, end.max(start))
    }

    pub(super) fn position(&self, offset: u32) -> Position {
        let line = self.line_of(offset);
        let start = self.lines[line] as usize;
        let before = self.text.get(start..offset as usize).unwrap_or_default();
        Position { line: line + 1, column: before.chars().count() + 1 }
    }

    /// The part of `span` on its first line: what fits under one line of carets.
    pub(super) fn first_line(&self, span: Span) -> Span {
        let (start, end) = self.bytes_of(self.line_of(span.start), self.line_of(span.start));
        let end = start + self.text.get(start..end).map_or(0, |line| line.trim_end().len());
        let end = u32::try_from(end).unwrap_or(u32::MAX);
        Span { end: span.end.min(end).max(span.start), ..span }
    }
}

impl SourceCode for Source {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let end = span.offset() + span.len();
        if end > self.text.len() {
            return Err(MietteError::OutOfBounds);
        }
        let offset = |at: usize| u32::try_from(at).map_err(|_| MietteError::OutOfBounds);
        let position = self.position(offset(span.offset())?);
        let last_byte = if span.is_empty() { end } else { end - 1 };
        let first = (position.line - 1).saturating_sub(lines_before);
        let last = (self.line_of(offset(last_byte)?) + lines_after).min(self.lines.len() - 1);
        let (mut start, end) = self.bytes_of(first, last);
        let mut column = 0;
        if lines_before == 0 {
            start = span.offset();
            column = position.column - 1;
        }
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            &self.text.as_bytes()[start..end.max(start)],
            (start, end.max(start) - start).into(),
            first,
            column,
            last - first + 1,
        )))
    }
}

/// All texts of one pipeline: the file, what it includes, and every `--set`.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    list: Vec<Arc<Source>>,
}

impl Sources {
    /// Adds a source and gives its index.
    pub(super) fn add(&mut self, source: Source) -> (u32, Arc<Source>) {
        let source = Arc::new(source);
        self.list.push(Arc::clone(&source));
        (u32::try_from(self.list.len() - 1).unwrap_or(u32::MAX), source)
    }

    pub(super) fn get(&self, index: u32) -> &Arc<Source> {
        &self.list[index as usize]
    }

    /// The text under `span`.
    pub(super) fn slice(&self, span: Span) -> &str {
        self.get(span.source).text.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    /// `file:line:column` of the beginning of `span`.
    pub(super) fn place(&self, span: Span) -> String {
        let source = self.get(span.source);
        let Position { line, column } = source.position(span.start);
        format!("{}:{line}:{column}", source.name)
    }

    /// The files and the `--set`s, in the order they were read.
    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.list.iter().map(Arc::as_ref)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new("x.yaml".to_owned(), PathBuf::new(), text.to_owned())
    }

    #[test]
    fn columns_count_characters() {
        let source = source("ab\nécé: x\n");
        assert_eq!(source.position(0), Position { line: 1, column: 1 });
        assert_eq!(source.position(3), Position { line: 2, column: 1 });
        assert_eq!(source.position(8), Position { line: 2, column: 4 });
        assert_eq!(source.position(12), Position { line: 3, column: 1 });
    }

    #[test]
    fn context_lines_stop_at_the_ends() {
        let source = source("one\ntwo\nthree");
        let whole = source.read_span(&(4, 3).into(), 5, 5).unwrap();
        assert_eq!(whole.data(), b"one\ntwo\nthree");
        let alone = source.read_span(&(5, 1).into(), 0, 0).unwrap();
        assert_eq!((alone.line(), alone.column(), alone.data()), (1, 1, b"wo".as_slice()));
        assert!(source.read_span(&(13, 0).into(), 1, 1).is_ok(), "the end of the text is a place");
        assert!(source.read_span(&(13, 1).into(), 1, 1).is_err());
    }

    #[test]
    fn a_span_is_cut_at_the_end_of_its_line() {
        let source = source("a: {  \r\n b: 1 }\n");
        let cut = source.first_line(Span { source: 0, start: 3, end: 15 });
        assert_eq!((cut.start, cut.end), (3, 4));
    }
}
