//! How often an item may come.

use super::{TranslateError, Translator};

impl Translator {
    /// A quantifier with its mode, if one comes next. A brace that begins none stands for itself.
    pub(super) fn quantifier(&mut self) -> Result<Option<String>, TranslateError> {
        let mut quantifier = match self.peek() {
            Some(character @ ('*' | '+' | '?')) => {
                self.at += 1;
                character.to_string()
            }
            Some('{') => match self.braces()? {
                Some(quantifier) => quantifier,
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        if let Some(mode @ ('?' | '+')) = self.peek() {
            self.at += 1;
            quantifier.push(mode);
        }
        Ok(Some(quantifier))
    }

    fn braces(&mut self) -> Result<Option<String>, TranslateError> {
        let Some(length) = self.source[self.at..].iter().position(|&character| character == '}') else {
            return Ok(None);
        };
        let inside: String = self.source[self.at + 1..self.at + length].iter().collect();
        let (least, most) = inside.split_once(',').unwrap_or((&inside, &inside));
        let digits = |text: &str| text.chars().all(|character| character.is_ascii_digit());
        if inside.is_empty() || !digits(least) || !digits(most) {
            return Ok(None);
        }
        let least = if least.is_empty() { "0" } else { least };
        if let (Ok(least), Ok(most)) = (least.parse::<u64>(), most.parse::<u64>())
            && least > most
        {
            return Err(TranslateError::Backwards(format!("{{{inside}}}")));
        }
        self.at += length + 1;
        Ok(Some(if inside.contains(',') { format!("{{{least},{most}}}") } else { format!("{{{least}}}") }))
    }

    /// Repeats what was written from `start`.
    pub(super) fn repeat(&mut self, start: usize, quantifier: &str) {
        if ["(?=", "(?!", "(?<"].iter().any(|look| self.regex[start..].starts_with(look)) {
            self.repeat_look(start, quantifier);
            return;
        }
        match quantifier.strip_suffix('+').filter(|rest| !rest.is_empty()) {
            Some(possessive) => {
                self.regex.push_str(possessive);
                self.enclose(start, "(?>", ")");
            }
            None => self.regex.push_str(quantifier),
        }
    }

    /// `fancy-regex` repeats no lookaround. Looking twice sees the same; only whether it must look remains.
    fn repeat_look(&mut self, start: usize, quantifier: &str) {
        let optional = quantifier.starts_with(['*', '?']) || quantifier.starts_with("{0");
        let lazy = quantifier.len() > 1 && quantifier.ends_with('?');
        match (optional, lazy) {
            (false, _) => {}
            (true, false) => self.enclose(start, "(?:", "|)"),
            (true, true) => self.enclose(start, "(?:|", ")"),
        }
    }

    fn enclose(&mut self, start: usize, opening: &str, closing: &str) {
        self.regex.insert_str(start, opening);
        self.regex.push_str(closing);
    }
}
