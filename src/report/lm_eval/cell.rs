//! What the cells of a column are taken for.
//!
//! pytablewriter does not print the texts that it is given: it looks for numbers in them. A text that comes when
//! most cells above it are texts stays a text, though, so the same `0.5` may be either, by what stands above.

use serde_json::Number;

use super::decimal::{Decimal, Parsed};
use super::python;

/// A cell as it is given.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Text(String),
    Number(Number),
}

/// A cell as it is understood.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Integer(Decimal),
    Real {
        number: Decimal,
        /// Decimals that its shortest float has.
        decimals: usize,
    },
    Flag(bool),
    Infinity,
    NotANumber,
    /// Nothing, or blanks only.
    Blank(String),
}

/// The kinds of [`Value`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Integer,
    Real,
    Flag,
    Infinity,
    NotANumber,
    Blank,
}

impl Value {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Text(_) => Kind::Text,
            Self::Integer(_) => Kind::Integer,
            Self::Real { .. } => Kind::Real,
            Self::Flag(_) => Kind::Flag,
            Self::Infinity => Kind::Infinity,
            Self::NotANumber => Kind::NotANumber,
            Self::Blank(_) => Kind::Blank,
        }
    }

    fn real(number: Decimal) -> Self {
        let decimals = shown_decimals(&python::repr(number.to_float().abs()));
        Self::Real { number, decimals }
    }
}

/// Understands a column from top to bottom.
pub(super) fn understand<'a>(cells: impl IntoIterator<Item = &'a Cell>) -> Vec<Value> {
    // Kinds in the order of their first cell: of two that are equally frequent the earlier leads.
    let mut counts: Vec<(Kind, usize)> = Vec::new();
    let mut values = Vec::new();
    for cell in cells {
        let leading = counts.iter().rev().max_by_key(|(_, count)| *count).map(|(kind, _)| *kind);
        let value = match cell {
            Cell::Number(number) => from_number(number),
            Cell::Text(text) => from_text(text, leading == Some(Kind::Text)),
        };
        match counts.iter_mut().find(|(kind, _)| *kind == value.kind()) {
            Some((_, count)) => *count += 1,
            None => counts.push((value.kind(), 1)),
        }
        values.push(value);
    }
    values
}

fn from_number(number: &Number) -> Value {
    if let Some(float) = number.as_f64().filter(|_| number.is_f64()) {
        match Decimal::from_float(float) {
            Some(decimal) if float.fract() == 0.0 => Value::Integer(decimal.truncated()),
            Some(decimal) => Value::real(decimal),
            None => Value::NotANumber,
        }
    } else {
        from_text(&number.to_string(), false)
    }
}

fn from_text(text: &str, among_texts: bool) -> Value {
    let text = cleaned(text);
    let is_blank = text.trim().is_empty();
    if among_texts && !is_blank {
        return Value::Text(text);
    }
    if is_blank {
        return Value::Blank(text);
    }
    if let Some(whole) = integer(&text) {
        return Value::Integer(whole);
    }
    match Parsed::read(&text) {
        Some(Parsed::Infinity) => return Value::Infinity,
        Some(Parsed::NotANumber) => return Value::NotANumber,
        Some(Parsed::Finite(number)) if is_real(&text, &number) => return Value::real(number),
        Some(Parsed::Finite(_)) | None => {}
    }
    match text.to_lowercase().as_str() {
        "true" => Value::Flag(true),
        "false" => Value::Flag(false),
        _ => Value::Text(text),
    }
}

/// Tabs and line breaks as blanks, and without one pair of quotes around it.
fn cleaned(text: &str) -> String {
    let text = text.replace('\t', "  ").replace("\r\n", " ").replace('\n', " ");
    for quote in ['\'', '"'] {
        let inner = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        if let Some(inner) = inner.filter(|inner| !inner.contains(quote)) {
            return inner.to_owned();
        }
    }
    text
}

/// The whole number in a text. What is not quite one but has thousands' commas, or an exponent in an unusual place, is
/// cut off at its point.
fn integer(text: &str) -> Option<Decimal> {
    if exponent_digits(text).is_some_and(|digits| digits > 2) {
        return None;
    }
    if let Some(Parsed::Finite(number)) = Parsed::read(text)
        && is_real(text, &number)
    {
        return None;
    }
    let text = if has_thousands(text) { text.replace(',', "") } else { text.to_owned() };
    match Parsed::read(&text) {
        Some(Parsed::Finite(number)) => Some(number.truncated()),
        _ => None,
    }
}

/// Whether `number`, read from `text`, has a fraction. With an exponent only a plain `-1.5e-3` counts.
fn is_real(text: &str, number: &Decimal) -> bool {
    let has_exponent = text.contains(['e', 'E']);
    if has_exponent && exponent_digits(text).is_none_or(|digits| digits > 2) {
        return false;
    }
    number.to_float().fract() != 0.0
}

/// The number of digits of the exponent in `-1.5e-3` and its like; none in any other form.
fn exponent_digits(text: &str) -> Option<usize> {
    let (mantissa, exponent) = text.split_once(['e', 'E'])?;
    let mantissa = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let are_digits =
        [before, after, exponent].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    (are_digits && !before.is_empty()).then_some(exponent.len())
}

fn has_thousands(text: &str) -> bool {
    text.as_bytes()
        .windows(3)
        .any(|three| three[0].is_ascii_digit() && three[1] == b',' && three[2].is_ascii_digit())
}

/// Decimals in a float's shortest text. One with an exponent is counted by its characters, as pytablewriter does.
fn shown_decimals(float: &str) -> usize {
    match (float.split_once('.'), float.split_once("e-")) {
        (Some((_, after)), _) => after.len(),
        (None, Some((_, exponent))) => exponent.parse().unwrap_or_default(),
        (None, None) => 0,
    }
    .min(99)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(texts: &[&str]) -> Vec<Kind> {
        let cells: Vec<Cell> = texts.iter().map(|text| Cell::Text((*text).to_owned())).collect();
        understand(&cells).iter().map(Value::kind).collect()
    }

    #[test]
    fn numbers_are_found_in_texts() {
        for (text, kind) in [
            ("1", Kind::Integer),
            ("1.0000", Kind::Integer),
            ("0.5000", Kind::Real),
            ("1e5", Kind::Integer),
            ("1e-5", Kind::Real),
            (".5e-3", Kind::Integer),
            ("1,234", Kind::Integer),
            ("1e400", Kind::Text),
            ("-inf", Kind::Infinity),
            ("nan", Kind::NotANumber),
            ("TRUE", Kind::Flag),
            ("   ", Kind::Blank),
            ("''", Kind::Blank),
            ("'5'", Kind::Integer),
            ("arc_easy", Kind::Text),
        ] {
            assert_eq!(kinds(&[text]), [kind], "{text}");
        }
    }

    #[test]
    fn a_number_below_a_majority_of_texts_is_a_text() {
        use Kind::{Blank, Integer, Real, Text};
        assert_eq!(kinds(&["N/A", "0.5", "0.25"]), [Text, Text, Text]);
        assert_eq!(kinds(&["0.5", "N/A", "0.25"]), [Real, Text, Real]);
        assert_eq!(kinds(&["0.5", "N/A", "N/A", "0.25"]), [Real, Text, Text, Text]);
        assert_eq!(kinds(&["a", " ", "7"]), [Text, Blank, Text]);
        assert_eq!(kinds(&["", "", "a", "7"]), [Blank, Blank, Text, Integer]);
    }
}
