//! What Python takes for whitespace, and what its templates do with it.

use std::borrow::Cow;

use minijinja::Environment;

/// `str.isspace` of a character.
pub fn is_space(character: char) -> bool {
    // Python counts the four separators of ASCII as whitespace; Unicode's property does not.
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// `text.method()` for the three that strip.
pub fn stripped<'a>(text: &'a str, method: &str) -> Option<&'a str> {
    match method {
        "strip" => Some(text.trim_matches(is_space)),
        "lstrip" => Some(text.trim_start_matches(is_space)),
        "rstrip" => Some(text.trim_end_matches(is_space)),
        _ => None,
    }
}

/// Gives `environment` Jinja's `trim`.
pub fn add_trim(environment: &mut Environment<'_>) {
    environment.add_filter("trim", |text: Cow<'_, str>, characters: Option<Cow<'_, str>>| {
        let of_list = |character| match &characters {
            Some(list) => list.contains(character),
            None => is_space(character),
        };
        text.trim_matches(of_list).to_owned()
    });
}
