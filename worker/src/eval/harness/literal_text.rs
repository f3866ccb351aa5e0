//! Texts in Python's source: with one or three quotes, raw or with escapes.

/// Whether `source` begins with one.
pub(super) fn begins(source: &str) -> bool {
    let prefix = source.trim_start_matches(['r', 'R', 'u', 'U']);
    source.len() - prefix.len() <= 1 && prefix.starts_with(['\'', '"'])
}

/// The text that `source` begins with, and what follows it.
pub(super) fn read(source: &str) -> Option<(String, &str)> {
    let is_raw = source.starts_with(['r', 'R']);
    let source = source.trim_start_matches(['r', 'R', 'u', 'U']);
    let quote = source.chars().next()?;
    let three: String = [quote; 3].iter().collect();
    let end = if source.starts_with(&three) { three.as_str() } else { &source[..1] };
    let mut value = String::new();
    let mut rest = &source[end.len()..];
    loop {
        if let Some(after) = rest.strip_prefix(end) {
            return Some((value, after));
        }
        let character = rest.chars().next()?;
        rest = &rest[character.len_utf8()..];
        match character {
            '\n' if end.len() == 1 => return None,
            '\\' if is_raw => {
                value.push('\\');
                // It keeps the quote that follows from ending the text.
                let next = rest.chars().next()?;
                value.push(next);
                rest = &rest[next.len_utf8()..];
            }
            '\\' => rest = escape(&mut value, rest)?,
            other => value.push(other),
        }
    }
}

/// Writes what the escape stands for whose backslash is before `rest`; what follows it.
fn escape<'a>(value: &mut String, rest: &'a str) -> Option<&'a str> {
    let letter = rest.chars().next()?;
    let after = &rest[letter.len_utf8()..];
    let plain = match letter {
        '\n' => return Some(after),
        '\\' | '\'' | '"' => letter,
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        '0'..='7' => {
            let digits = rest.bytes().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
            return numbered(value, rest, digits, 8);
        }
        'x' => return numbered(value, after, 2, 16),
        'u' => return numbered(value, after, 4, 16),
        'U' => return numbered(value, after, 8, 16),
        'N' => return None,
        other => {
            value.extend(['\\', other]);
            return Some(after);
        }
    };
    value.push(plain);
    Some(after)
}

/// Writes the character with the number that the first `digits` of `rest` are; what follows them.
fn numbered<'a>(value: &mut String, rest: &'a str, digits: usize, radix: u32) -> Option<&'a str> {
    let number = rest.get(..digits).filter(|number| number.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    value.push(char::from_u32(u32::from_str_radix(number, radix).ok()?)?);
    Some(&rest[digits..])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is expected is what Python 3.11 gives.
    #[test]
    fn quotes_and_escapes_are_pythons() {
        for (source, expected) in [
            (r"'it\'s'", "it's"),
            (r#""a\"b'""#, "a\"b'"),
            ("'''a\n'b'' c'''", "a\n'b'' c"),
            ("\"\"\"\"a\"\"\"", "\"a"),
            ("''", ""),
            (r"'\x41\u00e9\U0001F600\101\400\0'", "Aé😀AĀ\0"),
            (r"'\a\b\f\n\r\t\v\d\\'", "\u{7}\u{8}\u{c}\n\r\t\u{b}\\d\\"),
            ("'a\\\nb'", "ab"),
            (r"r'\n\''", r"\n\'"),
            ("u'x'", "x"),
        ] {
            assert_eq!(read(source), Some((expected.to_owned(), "")), "{source}");
        }
        assert_eq!(read("'a' 'b'"), Some(("a".to_owned(), " 'b'")));
    }

    #[test]
    fn what_is_no_text_is_none() {
        for source in
            ["'a", "'a\nb'", r"'\x4'", r"'\u12'", r"'\ud83d'", r"'\N{BULLET}'", "'''a''", r"'\", r"r'\'"]
        {
            assert_eq!(read(source), None, "{source}");
        }
        assert!(begins("'a") && begins("r'") && begins("U\""));
        assert!(!begins("ur'a'") && !begins("b'a'") && !begins("rest"));
    }
}
