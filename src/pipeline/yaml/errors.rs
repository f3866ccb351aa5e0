//! What the parser says of a text that is no YAML, in words about the file.

use super::{ErrorKind, ScanError};
use crate::pipeline::error::{Code, Mistake};
use crate::pipeline::source::Span;

/// The parser's `error` about `text`, the part of source `source` that begins at byte `base`.
pub(super) fn in_words(error: &ScanError, text: &str, source: u32, base: usize) -> Mistake {
    let offset = error.marker().byte_offset().unwrap_or(text.len()).min(text.len());
    let width = text[offset..].chars().next().filter(|c| *c != '\n' && *c != '\r').map_or(0, char::len_utf8);
    let whole = Span { source, start: 0, end: 0 };
    let at = whole.part(base + offset, width);
    let line_start = text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[line_start..].lines().next().unwrap_or_default();
    let indentation = line.bytes().take_while(|byte| matches!(byte, b' ' | b'\t'));
    if let Some(tab) = indentation.into_iter().position(|byte| byte == b'\t') {
        let at = whole.part(base + line_start + tab, 1);
        return Mistake::new(Code::Syntax, at, "a tab stands in the indentation").help("Indent with spaces.");
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
