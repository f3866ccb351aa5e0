//! Regular expressions that are written for Python's `re`.

use fancy_regex::{Captures, Regex};

use super::translate::{self, Flags};

/// An expression that does not work, and why.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("`{source_text}`, which does not work as a regular expression: {problem}")]
pub(in crate::eval) struct PatternError {
    /// The expression.
    pub(in crate::eval) source_text: String,
    /// What is wrong with it, or happened as it ran.
    pub(in crate::eval) problem: String,
}

/// A compiled expression.
#[derive(Clone, Debug)]
pub(in crate::eval) struct Pattern {
    source: String,
    translated: String,
    groups: usize,
    regex: Regex,
}

impl Pattern {
    /// `re.compile(source, flags)`.
    ///
    /// # Errors
    /// When it is no regular expression of Python, or one that is not supported.
    pub(in crate::eval) fn new(source: &str, flags: Flags) -> Result<Self, PatternError> {
        let problem = |problem| PatternError { source_text: source.to_owned(), problem };
        let translated = translate::translate(source, flags).map_err(|error| problem(error.to_string()))?;
        let regex = Regex::new(&translated.regex).map_err(|error| problem(error.to_string()))?;
        Ok(Self { source: source.to_owned(), translated: translated.regex, groups: translated.groups, regex })
    }

    /// How many groups it captures.
    pub(in crate::eval) fn groups(&self) -> usize {
        self.groups
    }

    /// Whether it matches anywhere in `text`.
    ///
    /// # Errors
    /// When it backtracks without end.
    pub(in crate::eval) fn occurs(&self, text: &str) -> Result<bool, PatternError> {
        self.regex.is_match(text).map_err(|error| self.failed(&error))
    }

    /// How many matches `re.findall` finds.
    ///
    /// # Errors
    /// When it backtracks without end.
    pub(in crate::eval) fn count(&self, text: &str) -> Result<usize, PatternError> {
        let mut count = 0;
        self.for_each(text, &mut |_| count += 1)?;
        Ok(count)
    }

    /// What `re.findall` gives: of each match its groups, or all of it where there are none. A group that took no part is
    /// empty.
    ///
    /// # Errors
    /// When it backtracks without end.
    pub(in crate::eval) fn find_all(&self, text: &str) -> Result<Vec<Vec<String>>, PatternError> {
        let mut found = Vec::new();
        let first = usize::from(self.groups > 0);
        self.for_each(text, &mut |captures| {
            let group = |index| captures.get(index).map_or("", |group| group.as_str()).to_owned();
            found.push((first..=self.groups).map(group).collect());
        })?;
        Ok(found)
    }

    /// `re.sub(self, "", text)`.
    ///
    /// # Errors
    /// When it backtracks without end.
    pub(in crate::eval) fn remove_from(&self, text: &str) -> Result<String, PatternError> {
        let (mut kept, mut end) = (String::with_capacity(text.len()), 0);
        self.for_each(text, &mut |captures| {
            let Some(all) = captures.get(0) else { return };
            kept.push_str(&text[end..all.start()]);
            end = all.end();
        })?;
        kept.push_str(&text[end..]);
        Ok(kept)
    }

    /// Visits the matches that `re.findall` finds. Those of Rust's crates differ where a match is empty: in Python one may
    /// follow right after another match, and may be followed at the same place by one that is not.
    fn for_each(&self, text: &str, visit: &mut dyn FnMut(&Captures<'_, str>)) -> Result<(), PatternError> {
        let mut advancing = None;
        let mut must_advance = false;
        let mut from = 0;
        loop {
            let regex = match (must_advance, &advancing) {
                (false, _) => &self.regex,
                (true, Some(regex)) => regex,
                (true, None) => advancing.insert(self.advancing()?),
            };
            let found = regex.captures_from_pos(text, from).map_err(|error| self.failed(&error))?;
            let Some((captures, all)) = found.and_then(|captures| {
                let all = captures.get(0)?;
                Some((captures, all.range()))
            }) else {
                return Ok(());
            };
            visit(&captures);
            from = all.end;
            must_advance = all.is_empty();
        }
    }

    /// The same expression, but a match may not end where the search begins.
    fn advancing(&self) -> Result<Regex, PatternError> {
        Regex::new(&format!(r"(?:{})(?!\G)", self.translated)).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &fancy_regex::Error) -> PatternError {
        PatternError { source_text: self.source.clone(), problem: error.to_string() }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn pattern(source: &str) -> Pattern {
        Pattern::new(source, Flags::default()).unwrap()
    }

    #[test]
    fn matches_come_with_their_groups_or_whole() {
        assert_eq!(pattern(r"#### (\-?[0-9\.\,]+)").find_all("#### 7, #### -1.").unwrap(), [["7,"], ["-1."]]);
        assert_eq!(
            pattern(r"(-?[$0-9.,]{2,})|(-?[0-9]+)").find_all("$10 and 3").unwrap(),
            [["$10".to_owned(), String::new()], [String::new(), "3".to_owned()]]
        );
        assert_eq!(pattern("a+").find_all("caab a").unwrap(), [["aa"], ["a"]]);
        assert_eq!(pattern("a*").find_all("baac").unwrap(), [[""], ["aa"], [""], [""]]);
    }

    #[test]
    fn matches_are_removed() {
        assert_eq!(pattern(r"(?s).*#### ").remove_from("so\nthen\n#### 42").unwrap(), "42");
        assert_eq!(pattern(r"\.$").remove_from("4.2.").unwrap(), "4.2");
        assert_eq!(pattern(",").remove_from("1,234").unwrap(), "1234");
    }
}
