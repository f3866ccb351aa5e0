//! Values as Python writes them in its source: `ast.literal_eval`, with which lm-eval reads choices and answers that a template
//! prints.
//!
//! Texts in all forms of quotes, numbers, lists, tuples, mappings, `True`, `False` and `None`. Tuples are read as lists. Sets,
//! bytes, complex numbers and characters by name (`\N{…}`) are not read; nor is a lone surrogate, which no text here can have.
//! An integer beyond 64 bits becomes the text of its digits.

use serde_json::{Map, Value};

use super::literal_text;

/// Lists within lists, at most.
const DEEPEST: usize = 100;

/// `ast.literal_eval(text)`. `None`: it is no literal.
pub(super) fn read(text: &str) -> Option<Value> {
    if text.contains('\0') {
        return None;
    }
    // Python reads its source with the line breaks of Unix.
    let text = text.trim_start_matches([' ', '\t']).replace("\r\n", "\n").replace('\r', "\n");
    let mut reader = Reader { rest: text.trim_start_matches('\n'), depth: 0 };
    let value = reader.value()?;
    reader.skip_space();
    reader.rest.is_empty().then_some(value)
}

/// A list of what [`read`] gives; a tuple too. `None`: it is none.
pub(super) fn list(text: &str) -> Option<Vec<Value>> {
    match read(text)? {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self) -> Option<Value> {
        self.skip_space();
        let first = self.rest.chars().next()?;
        match first {
            '[' => self.sequence(']').map(|(values, _)| values.into()),
            '(' => self.tuple(),
            '{' => self.mapping(),
            '+' | '-' => {
                self.rest = &self.rest[1..];
                self.skip_space();
                self.number(first == '-')
            }
            '0'..='9' | '.' => self.number(false),
            _ if literal_text::begins(self.rest) => self.texts(),
            _ => self.name(),
        }
    }

    /// Texts that follow each other are one.
    fn texts(&mut self) -> Option<Value> {
        let mut all = String::new();
        while literal_text::begins(self.rest) {
            let (text, rest) = literal_text::read(self.rest)?;
            all.push_str(&text);
            self.rest = rest;
            self.skip_space();
        }
        Some(all.into())
    }

    fn name(&mut self) -> Option<Value> {
        let (value, name) = match self.rest {
            rest if rest.starts_with("None") => (Value::Null, "None"),
            rest if rest.starts_with("True") => (true.into(), "True"),
            rest if rest.starts_with("False") => (false.into(), "False"),
            _ => return None,
        };
        self.rest = &self.rest[name.len()..];
        let goes_on = |next: char| next.is_alphanumeric() || next == '_';
        (!self.rest.starts_with(goes_on)).then_some(value)
    }

    /// In parentheses: a value by itself stands for itself, several are a tuple.
    fn tuple(&mut self) -> Option<Value> {
        let (mut values, ends_with_comma) = self.sequence(')')?;
        match (values.len(), ends_with_comma) {
            (1, false) => values.pop(),
            _ => Some(values.into()),
        }
    }

    /// Values up to the bracket `end`, and whether a comma stood before it.
    fn sequence(&mut self, end: char) -> Option<(Vec<Value>, bool)> {
        let mut values = Vec::new();
        let comma = self.entries(end, |reader| {
            values.push(reader.value()?);
            Some(())
        })?;
        Some((values, comma))
    }

    fn mapping(&mut self) -> Option<Value> {
        let mut entries = Map::new();
        self.entries('}', |reader| {
            let key = reader.value()?;
            reader.skip_space();
            reader.take(':')?;
            let value = reader.value()?;
            // What may be hashed: no list, and no mapping.
            let key = (!key.is_array() && !key.is_object()).then(|| crate::eval::python::text_of(&key))?;
            entries.insert(key, value);
            Some(())
        })?;
        Some(entries.into())
    }

    /// Reads entries with commas between them, from one bracket to the other; whether a comma stood before the last.
    fn entries(&mut self, end: char, mut entry: impl FnMut(&mut Self) -> Option<()>) -> Option<bool> {
        self.rest = &self.rest[1..];
        self.depth += 1;
        let mut comma = false;
        let mut may_go_on = self.depth <= DEEPEST;
        loop {
            self.skip_space();
            if self.take(end).is_some() {
                self.depth -= 1;
                return Some(comma);
            }
            if !may_go_on {
                return None;
            }
            entry(self)?;
            self.skip_space();
            comma = self.take(',').is_some();
            may_go_on = comma;
        }
    }

    fn take(&mut self, wanted: char) -> Option<()> {
        self.rest = self.rest.strip_prefix(wanted)?;
        Some(())
    }

    /// Blanks and comments; line breaks within brackets, and at the end.
    fn skip_space(&mut self) {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\u{c}']);
            match self.rest.chars().next() {
                Some('#') => self.rest = self.rest.find('\n').map_or("", |end| &self.rest[end..]),
                Some('\n') if self.depth > 0 || self.rest.trim().is_empty() => self.rest = &self.rest[1..],
                _ => return,
            }
        }
    }

    fn number(&mut self, is_negative: bool) -> Option<Value> {
        let is_part = |character: char| character.is_ascii_alphanumeric() || "._".contains(character);
        let mut length = self.rest.find(|character| !is_part(character)).unwrap_or(self.rest.len());
        let is_exponent = |text: &str| text.ends_with(['e', 'E']) && !text.starts_with("0x");
        if is_exponent(&self.rest[..length]) && self.rest[length..].starts_with(['+', '-']) {
            let digits = self.rest[length + 1..].find(|next: char| !next.is_ascii_digit() && next != '_');
            length = digits.map_or(self.rest.len(), |digits| length + 1 + digits);
        }
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest;
        number(word, is_negative)
    }
}

/// The number that `word` is in Python.
fn number(word: &str, is_negative: bool) -> Option<Value> {
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let bytes = word.as_bytes();
    let stands_between_digits =
        |at: usize| at > 0 && is_digit(bytes.get(at - 1)) && is_digit(bytes.get(at + 1));
    if word.match_indices('_').any(|(at, _)| !stands_between_digits(at)) {
        return None;
    }
    let word = word.replace('_', "").to_ascii_lowercase();
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = word.strip_prefix(prefix) {
            let value =
                i128::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with(['+', '-']))?;
            return Some(integer(&value.to_string(), is_negative));
        }
    }
    if word.bytes().all(|byte| byte.is_ascii_digit()) {
        let digits = word.trim_start_matches('0');
        return match (digits, word.starts_with('0')) {
            ("", _) => Some(0.into()),
            (_, true) => None,
            _ => Some(integer(digits, is_negative)),
        };
    }
    let is_float = word.bytes().any(|byte| byte.is_ascii_digit())
        && word.bytes().all(|byte| byte.is_ascii_digit() || b".e+-".contains(&byte));
    let value = word.parse::<f64>().ok().filter(|_| is_float)?;
    serde_json::Number::from_f64(if is_negative { -value } else { value }).map(Value::Number)
}

fn integer(digits: &str, is_negative: bool) -> Value {
    let signed = if is_negative { format!("-{digits}") } else { digits.to_owned() };
    let small = signed.parse::<i64>().map(Value::from);
    small.or_else(|_| signed.parse::<u64>().map(Value::from)).unwrap_or_else(|_| signed.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is expected is what Python 3.11 gives.
    #[test]
    fn literals_are_read() {
        for (text, expected) in [
            ("['a', \"it's\", 'x\\'y\\n',]", json!(["a", "it's", "x'y\n"])),
            (" [1, -2, +3.5, .5, 1e-3, 1_0]", json!([1, -2, 3.5, 0.5, 0.001, 10])),
            ("[0x1F, 0o17, 0b1, 00, 012.5]", json!([31, 15, 1, 0, 12.5])),
            ("[123456789012345678901234567890]", json!(["123456789012345678901234567890"])),
            ("[True, None, False]", json!([true, null, false])),
            ("(('a'))", json!("a")),
            ("('a',)", json!(["a"])),
            ("()", json!([])),
            ("[(1, 2), [ ], {}]", json!([[1, 2], [], {}])),
            ("{'a': 1, 'b': ['x'], 'a': 2}", json!({"a": 2, "b": ["x"]})),
            ("['a' 'b' \"c\"]", json!(["abc"])),
            ("[1] # one\n", json!([1])),
            ("\n['a'\n# b\n,'b'\t]\n", json!(["a", "b"])),
            ("-  1", json!(-1)),
            ("'x'", json!("x")),
        ] {
            assert_eq!(read(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn all_else_is_none() {
        for text in [
            "",
            "a",
            "[a]",
            "['a'",
            "['a'] + []",
            "['a\nb']",
            "[,]",
            "['a',,]",
            "[01]",
            "[1 2]",
            "--1",
            "[not 1]",
            "1__0",
            "1_",
            "0_1x",
            "Nonesuch",
            "{1}",
            "{[]: 1}",
            "\u{a0}[1]",
            "[\u{a0}1]",
            "['\0']",
            "1\n2",
            "[1, 2",
            "b'x'",
            "[nan]",
            "[inf]",
            "0x",
            "0x+1",
            "1e",
            "1.2.3",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
        let deep = "[".repeat(5000) + &"]".repeat(5000);
        assert_eq!(read(&deep), None);
    }

    #[test]
    fn lists_are_told_from_the_rest() {
        assert_eq!(list("('a', 'b')"), Some(vec![json!("a"), json!("b")]));
        assert_eq!(list("'ab'"), None);
    }
}
