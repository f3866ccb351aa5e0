//! The text of a task file, with PyYAML's leniency where the parser has less.

use std::path::Path;

use super::error::Mistakes;
use super::include::{ReadError, read_text};
use super::source::{Source, Sources};
use super::value::Value;
use super::yaml;

/// The parser's words for a line of a quoted text that begins too far left. PyYAML reads such lines, and lm-eval's own task
/// files have some.
const TOO_FAR_LEFT: &str = "invalid indentation in multiline quoted scalar";
/// Texts with more such places are left to the parser.
const MOST_PLACES: usize = 1000;

/// The text of the file at `path`, which the parser then reads as PyYAML does.
pub(super) fn read(path: &Path) -> Result<String, ReadError> {
    read_text(path).map(|(_, text)| indented(text))
}

/// What the file at `path` says, if it can be read; mistakes are for whoever needs the file.
pub(super) fn glance(path: &Path) -> Option<Value> {
    // Of thousands of files, no more is asked than their text.
    let text = std::fs::read_to_string(path).ok()?;
    let text = text.trim_start_matches('\u{feff}');
    let parsed = |text: &str| yaml::parse(text, 0, 0, &mut Mistakes::default());
    parsed(text).or_else(|| parsed(&indented(text.to_owned())))
}

/// `text`, with the lines that stand too far left moved right. In a quoted text a line break and the blanks around it are one
/// space, whatever their number, so that no value changes; nor does the number of a line.
fn indented(mut text: String) -> String {
    let mut blanks = None;
    for _ in 0..MOST_PLACES {
        let start = too_far_left(&text).filter(|&start| !is_marker(&text, start));
        let Some(start) = start else { break };
        // Farther right than any line begins, so that one step is enough; of thousands of files most need none.
        let blanks = blanks.get_or_insert_with(|| " ".repeat(deepest(&text) + 1));
        text = moved(&text, start, blanks);
    }
    text
}

/// How far right a line of `text` begins at most, the dashes of lists in lists included.
fn deepest(text: &str) -> usize {
    let begin = |line: &str| line.len() - line.trim_start_matches([' ', '-', '?']).len();
    text.lines().map(begin).max().unwrap_or_default()
}

/// Whether a line begins at `start` with a mark between documents, which is none farther right: within quotes PyYAML refuses it.
fn is_marker(text: &str, start: usize) -> bool {
    let begins_line = start == 0 || text[..start].ends_with('\n');
    let behind = text[start..].strip_prefix("---").or_else(|| text[start..].strip_prefix("..."));
    begins_line && behind.is_some_and(|behind| behind.chars().next().is_none_or(char::is_whitespace))
}

/// `text` with `blanks` before the line that begins at `start`, within a quoted text, and before those that follow it there: up
/// to the next quote of either kind, which the text cannot end before. Marks between documents stay where they are.
fn moved(text: &str, start: usize, blanks: &str) -> String {
    let (before, rest) = text.split_at(start);
    let (within, behind) = rest.split_at(rest.find(['\'', '"']).unwrap_or(rest.len()));
    let mut out = String::with_capacity(text.len() + blanks.len());
    out.push_str(before);
    out.push_str(blanks);
    let mut place = start;
    for line in within.split_inclusive('\n') {
        // A line of nothing else is a line break of the text.
        let is_break = line.trim().is_empty() && line.ends_with('\n');
        if place > start && !is_break && !is_marker(text, place) {
            out.push_str(blanks);
        }
        out.push_str(line);
        place += line.len();
    }
    // The quote may begin a line.
    if within.ends_with('\n') && !behind.is_empty() {
        out.push_str(blanks);
    }
    out.push_str(behind);
    out
}

/// Where the first line that stands too far left has its text.
fn too_far_left(text: &str) -> Option<usize> {
    let mut sources = Sources::default();
    let mut mistakes = Mistakes::default();
    if yaml::parse(text, 0, 0, &mut mistakes).is_some() || mistakes.is_empty() {
        return None;
    }
    sources.add(Source::new(String::new(), Default::default(), text.to_owned()));
    let errors = mistakes.finish(&sources);
    let place = errors.iter().find(|error| error.to_string() == TOO_FAR_LEFT)?.place()?;
    let mut numbers = place.rsplit(':').map(str::parse::<usize>);
    let (column, line) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    let line_start = text.split_inclusive('\n').take(line - 1).map(str::len).sum::<usize>();
    let before: usize = text[line_start..].chars().take(column - 1).map(char::len_utf8).sum();
    Some(line_start + before)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(text: &str) -> serde_json::Value {
        yaml::parse(&indented(text.to_owned()), 0, 0, &mut Mistakes::default()).unwrap().to_json()
    }

    #[test]
    fn quoted_text_may_go_on_in_the_first_column() {
        let text = "a: '{{[\"x, \",\n\"y\",\n\n\"é\"]}}' # more\nb: \"1\n2 \\\n3\"\n";
        assert_eq!(parsed(text), json!({ "a": "{{[\"x, \", \"y\",\n\"é\"]}}", "b": "1 2 3" }));
        assert_eq!(
            parsed("a:\n  b:\n    - c: 'one\n   two\n\nthree'\n"),
            json!({ "a": { "b": [{ "c": "one two\nthree" }] } })
        );
    }

    #[test]
    fn a_text_far_too_far_left_takes_one_step() {
        let lines = "line of it\n".repeat(400);
        let text = format!("a:\n{}- - b: 'first\n{lines}\nlast'\n", " ".repeat(60));
        let start = too_far_left(&text).unwrap();
        let once = moved(&text, start, &" ".repeat(deepest(&text) + 1));
        assert_eq!(too_far_left(&once), None);
        let expected = format!("first {}\nlast", lines.trim_end().replace('\n', " "));
        assert_eq!(parsed(&text), json!({ "a": [[{ "b": expected }]] }));
    }

    #[test]
    fn marks_between_documents_are_not_moved() {
        let moved = moved("a: 'b\nc\n--- d\n...\n---e\nf'\n", 6, "  ");
        assert_eq!(moved, "a: 'b\n  c\n--- d\n...\n  ---e\n  f'\n");
        let mut mistakes = Mistakes::default();
        assert!(yaml::parse(&indented("a: 'b\n--- d\n'\n".to_owned()), 0, 0, &mut mistakes).is_none());
    }

    #[test]
    fn other_texts_stay_as_they_are() {
        for text in ["a: 'b\n  c'\n", "a: [\n", "a: |\n  'b\nc: 'd'\n", "a: b\nc\n"] {
            assert_eq!(indented(text.to_owned()), text);
        }
        // What is wrong besides is still wrong.
        let mut mistakes = Mistakes::default();
        assert!(yaml::parse(&indented("a: 'b\nc\n".to_owned()), 0, 0, &mut mistakes).is_none());
    }
}
