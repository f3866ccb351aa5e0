//! Which characters an expression of Python that ignores case takes for one another.
//!
//! Python compares lower case letters, one for one, and lets those stand for each other that share an upper case:
//! `s` matches `ſ`, and `i` matches `ı` and `İ`, which a comparison by Unicode's case folding does not say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// No character from here on has a case.
const END_OF_CASED: char = '\u{20000}';

static EQUIVALENTS: LazyLock<BTreeMap<char, Vec<char>>> = LazyLock::new(|| {
    let cased = || ('\0'..END_OF_CASED).filter(|c| c.to_lowercase().ne([*c]) || c.to_uppercase().ne([*c]));
    // The lower case letters behind each upper case, and the characters behind each lower case letter.
    let mut by_upper: BTreeMap<String, BTreeSet<char>> = BTreeMap::new();
    let mut by_lower: BTreeMap<char, BTreeSet<char>> = BTreeMap::new();
    for character in cased() {
        let lower = lower(character);
        by_upper.entry(character.to_uppercase().collect()).or_default().insert(lower);
        by_lower.entry(lower).or_default().extend([character, lower]);
    }
    let mut siblings: BTreeMap<char, BTreeSet<char>> = BTreeMap::new();
    for lowers in by_upper.values() {
        for lower in lowers {
            siblings.entry(*lower).or_default().extend(lowers);
        }
    }
    let mut equivalents = BTreeMap::new();
    for character in cased() {
        let all: BTreeSet<char> = siblings[&lower(character)]
            .iter()
            .filter_map(|sibling| by_lower.get(sibling))
            .flatten()
            .copied()
            .collect();
        if all.len() > 1 {
            equivalents.insert(character, all.into_iter().collect());
        }
    }
    equivalents
});

/// The lower case of `character` that is one character.
fn lower(character: char) -> char {
    character.to_lowercase().next().unwrap_or(character)
}

/// What `character` matches besides what it is, where case is ignored: all of a set with itself, or nothing.
pub(super) fn equivalents(character: char) -> &'static [char] {
    EQUIVALENTS.get(&character).map_or(&[], Vec::as_slice)
}

/// What the characters from `first` to `last` match, where case is ignored.
pub(super) fn equivalents_of_range(first: char, last: char) -> BTreeSet<char> {
    EQUIVALENTS.range(first..=last).flat_map(|(_, all)| all).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_that_share_an_upper_case_match_each_other() {
        assert_eq!(equivalents('a'), ['A', 'a']);
        assert_eq!(equivalents('S'), ['S', 's', 'ſ']);
        assert_eq!(equivalents('i'), ['I', 'i', 'İ', 'ı']);
        assert_eq!(equivalents('K'), ['K', 'k', '\u{212a}']);
        assert_eq!(equivalents('σ'), ['Σ', 'ς', 'σ']);
        assert_eq!(equivalents('µ'), ['µ', 'Μ', 'μ']);
    }

    #[test]
    fn letters_whose_capitals_are_two_letters_match_their_own_kind_only() {
        assert_eq!(equivalents('ß'), ['ß', 'ẞ']);
        assert_eq!(equivalents('ﬅ'), ['ﬅ', 'ﬆ']);
        assert!(equivalents('1').is_empty());
    }

    #[test]
    fn a_range_matches_what_its_characters_match() {
        assert_eq!(equivalents_of_range('j', 'k').into_iter().collect::<String>(), "JKjk\u{212a}");
    }
}
