//! Lists of texts as Python writes them.

/// `ast.literal_eval(text)` where that is a list of strings. `None`: it is something else.
pub(in crate::eval) fn texts(text: &str) -> Option<Vec<String>> {
    let mut rest = super::strip(text).strip_prefix('[')?;
    let mut texts = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(end) = rest.strip_prefix(']') {
            return end.is_empty().then_some(texts);
        }
        let (text, after) = string(rest)?;
        texts.push(text);
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.starts_with(']') => {}
            None => return None,
        }
    }
}

/// The string that `text` begins with, and what follows it.
fn string(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|first| matches!(first, '\'' | '"'))?;
    let mut value = String::new();
    let mut characters = text[1..].chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next()? {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                escaped @ ('\\' | '\'' | '"') => value.push(escaped),
                other => value.extend(['\\', other]),
            },
            '\n' => return None,
            end if end == quote => return Some((value, characters.as_str())),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_strings_are_read_and_nothing_else() {
        let read = |text| texts(text).map(|texts| texts.join("|"));
        assert_eq!(read(r#" ['a', "it's", 'x\'y\n',] "#).as_deref(), Some("a|it's|x'y\n"));
        assert_eq!(read("[]").as_deref(), Some(""));
        for other in ["a", "['a'", "['a' 'b']", "[1, 2]", "['a'] + []", "['a\nb']"] {
            assert_eq!(texts(other), None, "{other}");
        }
    }
}
