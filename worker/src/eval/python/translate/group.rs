//! Groups, what refers to them, and the flags that hold inside.

use super::{Flags, TranslateError, Translator};

/// Flags that `(?i)` or `(?-i:` switch.
#[derive(Default)]
pub(super) struct Switches {
    on: Vec<char>,
    off: Vec<char>,
}

impl Switches {
    pub(super) fn applied_to(&self, mut flags: Flags) -> Flags {
        for (letters, value) in [(&self.on, true), (&self.off, false)] {
            for letter in letters {
                match letter {
                    'i' => flags.ignore_case = value,
                    'm' => flags.multi_line = value,
                    's' => flags.dot_all = value,
                    'x' => flags.verbose = value,
                    _ => {}
                }
            }
        }
        flags
    }
}

impl Translator {
    /// `(?i)` and the like, which may stand at the very beginning only.
    pub(super) fn leading_flags(&mut self) -> Result<Option<Switches>, TranslateError> {
        let start = self.at;
        if self.take("(?") && self.peek().is_some_and(|c| c.is_ascii_alphabetic() && c != 'P') {
            let switches = self.switches()?;
            if self.take(")") {
                return Ok(Some(switches));
            }
        }
        self.at = start;
        Ok(None)
    }

    /// Letters up to a colon or a bracket.
    fn switches(&mut self) -> Result<Switches, TranslateError> {
        let mut switches = Switches::default();
        let mut off = false;
        while let Some(character) = self.peek() {
            match character {
                'i' | 'm' | 's' | 'x' | 'u' if !off => switches.on.push(character),
                'i' | 'm' | 's' | 'x' if off => switches.off.push(character),
                '-' if !off => off = true,
                ')' | ':' => break,
                other => return Err(TranslateError::Unsupported(format!("(?{other}"))),
            }
            self.at += 1;
        }
        Ok(switches)
    }

    /// A group whose bracket is read already.
    pub(super) fn group(&mut self, flags: Flags) -> Result<(), TranslateError> {
        let mut inner = flags;
        let mut number = None;
        if !self.take("?") {
            number = Some(self.open());
        } else if self.take("P<") {
            let name = self.until('>', "the name of a group")?;
            number = Some(self.open());
            if self.names.insert(name.clone(), self.closed.len()).is_some() {
                return Err(TranslateError::SecondGroup(name));
            }
        } else if self.take("P=") {
            let name = self.until(')', "a reference to a group")?;
            let group = self.reference(&name)?;
            self.regex.push_str(&back_reference(group, flags));
            return Ok(());
        } else if self.take("(") {
            let name = self.until(')', "the condition of a group")?;
            let group = self.reference(&name)?;
            self.regex.push_str(&format!("(?({group})"));
        } else if let Some(opening) =
            [":", ">", "=", "!", "<=", "<!"].into_iter().find(|opening| self.take(opening))
        {
            self.regex.push_str(&format!("(?{opening}"));
        } else {
            inner = self.switches()?.applied_to(flags);
            if !self.take(":") {
                return Err(TranslateError::LateFlags);
            }
            self.regex.push_str("(?:");
        }
        self.alternatives(inner)?;
        self.next("a group")?;
        self.regex.push(')');
        if let Some(number) = number {
            self.closed[number - 1] = true;
        }
        Ok(())
    }

    /// Opens a group that captures. Returns its number.
    fn open(&mut self) -> usize {
        self.closed.push(false);
        self.regex.push('(');
        self.closed.len()
    }

    /// The number of a closed group by its name or number.
    pub(super) fn reference(&self, name: &str) -> Result<usize, TranslateError> {
        let number = name.parse().ok().or_else(|| self.names.get(name).copied());
        number
            .filter(|&number: &usize| number > 0 && self.closed.get(number - 1) == Some(&true))
            .ok_or_else(|| TranslateError::NoGroup(name.to_owned()))
    }
}

/// A reference that no digit after it can lengthen. Where case is ignored, letters are compared by Unicode's simple
/// case folding, which is not quite what Python does for `ſ`, `ı` and `İ`.
pub(super) fn back_reference(group: usize, flags: Flags) -> String {
    if flags.ignore_case { format!(r"(?i:\{group})") } else { format!(r"(?:\{group})") }
}
