//! What a backslash makes of the letter after it.

use super::group::back_reference;
use super::{DIGIT, Flags, SPACE, TranslateError, Translator, WORD};

/// What an escape outside a class means.
pub(super) enum Escape {
    /// One character.
    Literal(char),
    /// A class or a reference.
    Item(String),
    /// A place, which no quantifier can repeat.
    Assertion(String),
}

impl Translator {
    /// An escape outside a class whose backslash is read already.
    pub(super) fn escape(&mut self, flags: Flags) -> Result<Escape, TranslateError> {
        let character = self.next("an escape")?;
        Ok(match character {
            'A' => Escape::Assertion(r"\A".to_owned()),
            'Z' => Escape::Assertion(r"\z".to_owned()),
            'b' => Escape::Assertion(format!("(?:(?<=[{WORD}])(?![{WORD}])|(?<![{WORD}])(?=[{WORD}]))")),
            'B' => Escape::Assertion(format!("(?:(?<=[{WORD}])(?=[{WORD}])|(?<![{WORD}])(?![{WORD}]))")),
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => Escape::Item(category(character)),
            '1'..='9' => {
                // Three octal digits are a character, one or two digits a group.
                let start = self.at - 1;
                let digits = self.octal_digits(character);
                if digits.len() == 3 {
                    return octal(&digits).map(Escape::Literal);
                }
                self.at = start + 1;
                let second = self.peek().filter(char::is_ascii_digit);
                self.at += usize::from(second.is_some());
                let number: String = self.source[start..self.at].iter().collect();
                Escape::Item(back_reference(self.reference(&number)?, flags))
            }
            _ => Escape::Literal(self.character_escape(character)?),
        })
    }

    /// The character that an escape stands for whose letter is read already.
    pub(super) fn character_escape(&mut self, letter: char) -> Result<char, TranslateError> {
        Ok(match letter {
            'a' => '\u{7}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            'x' => self.hexadecimal('x', 2)?,
            'u' => self.hexadecimal('u', 4)?,
            'U' => self.hexadecimal('U', 8)?,
            '0' => {
                let digits = self.octal_digits('0');
                octal(&digits)?
            }
            'N' => return Err(TranslateError::Unsupported(r"\N".to_owned())),
            letter if letter.is_ascii_alphanumeric() => return Err(TranslateError::Escape(letter)),
            other => other,
        })
    }

    /// Up to three octal digits, of which the first is read already. It may be another digit, and is then alone.
    pub(super) fn octal_digits(&mut self, first: char) -> String {
        let mut digits = String::from(first);
        while digits.len() < 3
            && first.is_digit(8)
            && let Some(next) = self.peek().filter(|next| next.is_digit(8))
        {
            self.at += 1;
            digits.push(next);
        }
        digits
    }

    fn hexadecimal(&mut self, letter: char, length: usize) -> Result<char, TranslateError> {
        let digits: String = self.source.iter().skip(self.at).take(length).collect();
        if digits.chars().count() < length || !digits.chars().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(TranslateError::Escape(letter));
        }
        self.at += length;
        let code = u32::from_str_radix(&digits, 16).ok();
        code.and_then(char::from_u32)
            .ok_or_else(|| TranslateError::Unsupported(format!("\\{letter}{digits}")))
    }
}

/// The class that `\w` and its like stand for.
pub(super) fn category(letter: char) -> String {
    let (set, negated) = match letter {
        'd' => (DIGIT, ""),
        'D' => (DIGIT, "^"),
        's' => (SPACE, ""),
        'S' => (SPACE, "^"),
        'w' => (WORD, ""),
        _ => (WORD, "^"),
    };
    format!("[{negated}{set}]")
}

/// The character of an octal number.
pub(super) fn octal(digits: &str) -> Result<char, TranslateError> {
    let code = u32::from_str_radix(digits, 8).ok().filter(|&code| code <= 0o377);
    code.and_then(char::from_u32).ok_or_else(|| TranslateError::Unsupported(format!("\\{digits}")))
}
