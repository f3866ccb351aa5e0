//! Python's way with texts, values and regular expressions, where it differs from Rust's.

mod case;
pub(super) mod pattern;
pub(super) mod random;
pub(super) mod repr;
pub(super) mod translate;

pub(super) use repr::text_of;

pub(super) use crate::data::space::is_space;

/// `str.strip()`.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.rstrip()`.
pub(super) fn strip_end(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

/// `str.split()`.
pub(super) fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|part| !part.is_empty())
}

/// `str.isupper()`: no cased character is of another case, and there is one.
pub(super) fn is_upper(text: &str) -> bool {
    let mut upper = false;
    for character in text.chars() {
        if character.is_lowercase() || is_title(character) {
            return false;
        }
        upper |= character.is_uppercase();
    }
    upper
}

/// `str.islower()`: no cased character is of another case, and there is one.
pub(super) fn is_lower(text: &str) -> bool {
    let mut lower = false;
    for character in text.chars() {
        if character.is_uppercase() || is_title(character) {
            return false;
        }
        lower |= character.is_lowercase();
    }
    lower
}

/// Whether `character` is a ligature of an upper and a lower case letter: of neither case, but with a lower case.
fn is_title(character: char) -> bool {
    !character.is_uppercase() && !character.is_lowercase() && character.to_lowercase().ne([character])
}

/// `str.isdigit()` of what `int` and `ast.literal_eval` read too: ASCII digits.
pub(super) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `str.capitalize()`: the first character as in a title, the others in lower case.
pub(super) fn capitalize(text: &str) -> String {
    let mut characters = text.chars();
    let Some(first) = characters.next() else { return String::new() };
    // Digraphs (DZ, LJ, NJ, DŽ) have a form for titles of their own.
    let title = match first {
        '\u{1c4}'..='\u{1c6}' => "\u{1c5}".to_owned(),
        '\u{1c7}'..='\u{1c9}' => "\u{1c8}".to_owned(),
        '\u{1ca}'..='\u{1cc}' => "\u{1cb}".to_owned(),
        '\u{1f1}'..='\u{1f3}' => "\u{1f2}".to_owned(),
        // An apostrophe and the letter, which alone has a case.
        '\u{149}' => "\u{2bc}N".to_owned(),
        first => {
            let upper: String = first.to_uppercase().collect();
            let mut letters = upper.chars();
            // ß becomes Ss, ﬁ becomes Fi.
            letters.next().into_iter().chain(letters.flat_map(char::to_lowercase)).collect()
        }
    };
    let lower = text.to_lowercase();
    let first_lower: String = first.to_lowercase().collect();
    format!("{title}{}", lower.strip_prefix(&first_lower).unwrap_or(characters.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_capitalized_as_in_python() {
        for (text, expected) in [
            ("heLLO World", "Hello world"),
            ("", ""),
            ("ßA", "Ssa"),
            ("ǆX", "ǅx"),
            ("ŉX", "ʼNx"),
            ("İ", "İ"),
            ("1A", "1a"),
        ] {
            assert_eq!(capitalize(text), expected);
        }
    }

    #[test]
    fn whitespace_is_pythons() {
        assert_eq!(strip("\u{1c} a\u{a0}"), "a");
        assert_eq!(strip_end(" a\n\u{3000}"), " a");
        assert_eq!(strip("\u{200b}a\u{feff}"), "\u{200b}a\u{feff}");
        assert_eq!(split("\u{1d}a\u{1e}b  c ").collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(is_number("012") && !is_number("-1") && !is_number(""));
    }

    #[test]
    fn a_text_has_a_case_when_all_its_cased_characters_have_it() {
        assert!(is_upper("A-1 Ⅷ 中!"));
        assert!(!is_upper("1 中"));
        assert!(!is_upper("Aª"));
        assert!(is_lower("a-1 ß ª"));
        assert!(!is_lower(""));
        // A titlecase ligature is of neither case.
        assert!(!is_upper("Aǅ"));
        assert!(!is_lower("aǅ"));
        assert!(!is_upper("ᾈ"));
    }
}
