//! Classes in square brackets.

use super::super::case;
use super::escape::{category, octal};
use super::{Flags, TranslateError, Translator, escaped};

/// What stands in a class, or at one end of a range.
enum Member {
    Character(char),
    Category(String),
}

impl Translator {
    /// A class whose bracket is read already.
    pub(super) fn class(&mut self, flags: Flags) -> Result<String, TranslateError> {
        let mut class = String::from(if self.take("^") { "[^" } else { "[" });
        let first = self.at;
        loop {
            if self.at > first && self.take("]") {
                class.push(']');
                return Ok(class);
            }
            let start = self.at;
            let member = self.member()?;
            let open_range = self.peek() == Some('-') && self.source.get(self.at + 1) != Some(&']');
            match member {
                Member::Character(low) if open_range => {
                    self.at += 1;
                    let high = self.member()?;
                    let text: String = self.source[start..self.at].iter().collect();
                    match high {
                        Member::Character(high) if low <= high => range(&mut class, low, high, flags),
                        _ => return Err(TranslateError::Backwards(text)),
                    }
                }
                Member::Character(character) => range(&mut class, character, character, flags),
                Member::Category(_) if open_range && self.source.get(self.at + 1).is_some() => {
                    let text: String = self.source[start..self.at + 1].iter().collect();
                    return Err(TranslateError::Backwards(text));
                }
                Member::Category(category) => class.push_str(&category),
            }
        }
    }

    fn member(&mut self) -> Result<Member, TranslateError> {
        let character = self.next("a class")?;
        if character != '\\' {
            return Ok(Member::Character(character));
        }
        let letter = self.next("a class")?;
        Ok(match letter {
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => Member::Category(category(letter)),
            'b' => Member::Character('\u{8}'),
            '1'..='7' => {
                let digits = self.octal_digits(letter);
                Member::Character(octal(&digits)?)
            }
            '8' | '9' => return Err(TranslateError::Escape(letter)),
            _ => Member::Character(self.character_escape(letter)?),
        })
    }
}

/// Adds the characters from `low` to `high`, and what Python takes for them.
fn range(class: &mut String, low: char, high: char, flags: Flags) {
    class.push_str(&escaped(low));
    if low < high {
        class.push('-');
        class.push_str(&escaped(high));
    }
    if flags.ignore_case {
        let others = case::equivalents_of_range(low, high);
        class.extend(others.into_iter().filter(|other| !(low..=high).contains(other)).map(escaped));
    }
}

#[cfg(test)]
mod tests {
    use super::super::translate;
    use super::*;

    fn class(source: &str, ignore_case: bool) -> String {
        let flags = Flags { ignore_case, ..Flags::default() };
        translate(source, flags).map_or_else(|error| error.to_string(), |found| found.regex)
    }

    #[test]
    fn brackets_and_dashes_at_the_edges_stand_for_themselves() {
        assert_eq!(class("[]a]", false), r"[\x{5D}a]");
        assert_eq!(class("[^]a-]", false), r"[^\x{5D}a\x{2D}]");
        assert_eq!(class("[[&&]", false), r"[\x{5B}\x{26}\x{26}]");
    }

    #[test]
    fn a_range_holds_what_python_takes_for_its_letters() {
        assert_eq!(class("[j-k]", true), "[j-kJK\u{212a}]");
        assert_eq!(class(r"[\w\.]", true), r"[[\p{L}\p{N}_]\x{2E}]");
    }

    #[test]
    fn escapes_stand_for_one_character() {
        assert_eq!(class(r"\x41\u00e9\101\0\.\n", false), r"AéA\x{0}\x{2E}\x{A}");
        assert_eq!(class(r"[\b\7]", false), r"[\x{8}\x{7}]");
        assert_eq!(class(r"\xzz", false), r"unknown escape `\x`");
        assert_eq!(class(r"[\d-a]", false), r"`\d-` ends before it begins");
    }
}
