//! Alternatives and the items that they consist of.

use super::super::case;
use super::escape::Escape;
use super::{Flags, TranslateError, Translator, escaped};

impl Translator {
    /// The next character.
    pub(super) fn peek(&self) -> Option<char> {
        self.source.get(self.at).copied()
    }

    /// Reads a character; `inside` is what cannot end here.
    pub(super) fn next(&mut self, inside: &'static str) -> Result<char, TranslateError> {
        let character = self.peek().ok_or(TranslateError::Unfinished(inside))?;
        self.at += 1;
        Ok(character)
    }

    /// Reads `text` if it comes next.
    pub(super) fn take(&mut self, text: &str) -> bool {
        let found = text.chars().enumerate().all(|(place, c)| self.source.get(self.at + place) == Some(&c));
        if found {
            self.at += text.chars().count();
        }
        found
    }

    /// Reads up to `end` and past it.
    pub(super) fn until(&mut self, end: char, inside: &'static str) -> Result<String, TranslateError> {
        let mut text = String::new();
        loop {
            match self.next(inside)? {
                character if character == end => return Ok(text),
                character => text.push(character),
            }
        }
    }

    /// Everything up to the end or the bracket that closes what this stands in.
    pub(super) fn alternatives(&mut self, flags: Flags) -> Result<(), TranslateError> {
        loop {
            self.sequence(flags)?;
            if !self.take("|") {
                return Ok(());
            }
            self.regex.push('|');
        }
    }

    fn sequence(&mut self, flags: Flags) -> Result<(), TranslateError> {
        // Where the item begins that a quantifier would repeat.
        let mut item: Option<usize> = None;
        while let Some(character) = self.peek().filter(|c| !matches!(c, '|' | ')')) {
            if flags.verbose && (character.is_ascii_whitespace() || character == '\u{b}') {
                self.at += 1;
                continue;
            }
            if flags.verbose && character == '#' {
                self.at = (self.at..self.source.len())
                    .find(|&at| self.source[at] == '\n')
                    .unwrap_or(self.source.len());
                continue;
            }
            if let Some(quantifier) = self.quantifier()? {
                let Some(start) = item.take() else {
                    return Err(TranslateError::NothingToRepeat(quantifier));
                };
                self.repeat(start, &quantifier);
                continue;
            }
            let start = self.regex.len();
            self.at += 1;
            let repeatable = match character {
                '\\' => match self.escape(flags)? {
                    Escape::Literal(character) => self.literal(character, flags),
                    Escape::Item(text) => self.push(&text, true),
                    Escape::Assertion(text) => self.push(&text, false),
                },
                '[' => {
                    let class = self.class(flags)?;
                    self.push(&class, true)
                }
                '(' if self.take("?#") => {
                    self.until(')', "a comment")?;
                    continue;
                }
                '(' => {
                    self.group(flags)?;
                    true
                }
                '.' if flags.dot_all => self.push(r"[\s\S]", true),
                '.' => self.push(r"[^\n]", true),
                '^' if flags.multi_line => self.push(r"(?:\A|(?<=\n))", false),
                '^' => self.push(r"\A", false),
                '$' if flags.multi_line => self.push(r"(?=\n|\z)", false),
                '$' => self.push(r"(?=\n?\z)", false),
                other => self.literal(other, flags),
            };
            item = repeatable.then_some(start);
        }
        Ok(())
    }

    /// Writes an item. Returns whether it is one that a quantifier may follow.
    fn push(&mut self, text: &str, repeatable: bool) -> bool {
        self.regex.push_str(text);
        repeatable
    }

    fn literal(&mut self, character: char, flags: Flags) -> bool {
        let same = if flags.ignore_case { case::equivalents(character) } else { &[] };
        if same.is_empty() {
            self.regex.push_str(&escaped(character));
        } else {
            let set: String = same.iter().map(|&character| escaped(character)).collect();
            self.regex.push_str(&format!("[{set}]"));
        }
        true
    }
}
