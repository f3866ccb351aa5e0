//! What Python's `json.loads` accepts.
//!
//! It takes more than the JSON that other parsers take: `NaN`, `Infinity` and `-Infinity`, numbers of any size,
//! halves of surrogate pairs. It does not take a whole number of more than 4300 digits. Nesting without end fails
//! there, and with it the whole evaluation; here it has no limit.

/// The most digits of a whole number that Python converts.
const MOST_DIGITS: usize = 4300;

/// Whether `text` is one JSON value.
pub(super) fn is_value(text: &str) -> bool {
    let mut reader = Reader { text: text.as_bytes(), at: 0 };
    reader.document().is_some()
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

/// Each method reads past what it is named after, or returns nothing where that does not come next.
impl Reader<'_> {
    fn document(&mut self) -> Option<()> {
        // The brackets that are to come, innermost last.
        let mut open: Vec<u8> = Vec::new();
        loop {
            self.white_space();
            match self.text.get(self.at)? {
                b'{' => {
                    self.at += 1;
                    self.white_space();
                    if self.byte(b'}').is_none() {
                        open.push(b'}');
                        self.key()?;
                        continue;
                    }
                }
                b'[' => {
                    self.at += 1;
                    self.white_space();
                    if self.byte(b']').is_none() {
                        open.push(b']');
                        continue;
                    }
                }
                b'"' => self.string()?,
                _ => self.scalar()?,
            }
            loop {
                self.white_space();
                let Some(&close) = open.last() else { return (self.at == self.text.len()).then_some(()) };
                if self.byte(close).is_none() {
                    self.byte(b',')?;
                    if close == b'}' {
                        self.white_space();
                        self.key()?;
                    }
                    break;
                }
                open.pop();
            }
        }
    }

    fn byte(&mut self, byte: u8) -> Option<()> {
        (self.text.get(self.at) == Some(&byte)).then(|| self.at += 1)
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.text[self.at..].starts_with(word.as_bytes()).then(|| self.at += word.len())
    }

    fn white_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    fn key(&mut self) -> Option<()> {
        self.string()?;
        self.white_space();
        self.byte(b':')
    }

    fn string(&mut self) -> Option<()> {
        self.byte(b'"')?;
        loop {
            let byte = *self.text.get(self.at)?;
            self.at += 1;
            match byte {
                b'"' => return Some(()),
                b'\\' => self.escape()?,
                0..0x20 => return None,
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        let letter = *self.text.get(self.at)?;
        self.at += 1;
        match letter {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let digits = self.text.get(self.at..self.at + 4)?;
                self.at += 4;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())
            }
            _ => None,
        }
    }

    fn scalar(&mut self) -> Option<()> {
        let words = ["null", "true", "false", "NaN", "Infinity", "-Infinity"];
        if words.into_iter().any(|word| self.word(word).is_some()) {
            return Some(());
        }
        // The sign is optional.
        let _ = self.byte(b'-');
        let whole = if self.byte(b'0').is_some() { 1 } else { self.digits()? };
        let fraction = self.part(|reader| {
            reader.byte(b'.')?;
            reader.digits()
        });
        let exponent = self.part(|reader| {
            reader.byte(b'e').or_else(|| reader.byte(b'E'))?;
            let _ = reader.byte(b'+').or_else(|| reader.byte(b'-'));
            reader.digits()
        });
        (fraction || exponent || whole <= MOST_DIGITS).then_some(())
    }

    /// Whether `read` read something; if not, nothing is read.
    fn part(&mut self, read: impl FnOnce(&mut Self) -> Option<usize>) -> bool {
        let start = self.at;
        let found = read(self).is_some();
        if !found {
            self.at = start;
        }
        found
    }

    /// How many digits there are, if any.
    fn digits(&mut self) -> Option<usize> {
        let count = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        (count > 0).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::is_value;

    #[test]
    fn values_of_every_kind_are_accepted() {
        for text in
            ["null", " [1, -2.5e+3, 0.1E2]\n", r#"{"a": {"b": []}, "a": "é\u00e9\n"}"#, "\"\"", "-0", "{ }"]
        {
            assert!(is_value(text), "{text}");
        }
    }

    #[test]
    fn what_only_python_takes_is_accepted() {
        for text in ["NaN", "[-Infinity, Infinity]", "1e999", r#""\ud800""#] {
            assert!(is_value(text), "{text}");
        }
        assert!(is_value(&"9".repeat(4300)));
        assert!(is_value(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))));
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in [
            "",
            "01",
            "1.",
            ".5",
            "+1",
            "--1",
            "-NaN",
            "[1,]",
            "{\"a\":1,}",
            "{a: 1}",
            "{'a': 1}",
            "[1 2]",
            "nul",
            "[",
            "\"\t\"",
            r#""\x41""#,
            r#""\u00g0""#,
            "1 2",
            "{\"a\"}",
            "\u{feff}1",
            "1\u{a0}",
            "]",
            "1e",
            "{,}",
        ] {
            assert!(!is_value(text), "{text}");
        }
        assert!(!is_value(&"9".repeat(4301)));
    }
}
