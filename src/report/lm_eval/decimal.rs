//! Decimal numbers as texts, exactly: a cell that holds a number is printed from its digits, not from a float.

use std::fmt::Write as _;

use super::python;

/// Exponents beyond this are no figures of a table: the text stays a text.
const LARGEST_EXPONENT: i64 = 9_999;

/// What a text means as a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Finite(Decimal),
    Infinity,
    NotANumber,
}

/// A finite decimal number, `digits` times ten to the `exponent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    /// ASCII digits, at least one.
    digits: String,
    exponent: i64,
}

impl Parsed {
    /// Reads what Python's `Decimal` reads: blanks around, underscores anywhere, `inf` and `nan` in any case.
    pub(super) fn read(text: &str) -> Option<Self> {
        let text = text.trim().replace('_', "");
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(&text);
        let lower = unsigned.to_ascii_lowercase();
        if lower == "inf" || lower == "infinity" {
            return Some(Self::Infinity);
        }
        let payload = lower.strip_prefix('s').unwrap_or(&lower).strip_prefix("nan");
        if payload.is_some_and(|payload| payload.bytes().all(|byte| byte.is_ascii_digit())) {
            return Some(Self::NotANumber);
        }
        let (mantissa, exponent) = match lower.split_once('e') {
            Some((mantissa, exponent)) => (mantissa, whole(exponent)?),
            None => (lower.as_str(), 0),
        };
        let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{before}{after}");
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let exponent = exponent - after.len() as i64;
        (exponent.abs() <= LARGEST_EXPONENT)
            .then(|| Self::Finite(Decimal { negative: text.starts_with('-'), digits, exponent }))
    }
}

/// An exponent: digits, with or without one sign.
fn whole(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let are_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    are_digits.then(|| text.parse().ok()).flatten()
}

impl Decimal {
    /// The decimal number that `number` is written as. None unless it is finite.
    pub(super) fn from_float(number: f64) -> Option<Self> {
        match Parsed::read(&python::repr(number)) {
            Some(Parsed::Finite(decimal)) => Some(decimal),
            _ => None,
        }
    }

    /// The nearest float.
    pub(super) fn to_float(&self) -> f64 {
        let sign = if self.negative { "-" } else { "" };
        format!("{sign}{}e{}", self.digits, self.exponent).parse().unwrap_or(f64::NAN)
    }

    /// The part before the point, without a sign if it is zero.
    pub(super) fn truncated(&self) -> Self {
        let (before, _) = self.split();
        let digits = before.trim_start_matches('0');
        if digits.is_empty() {
            return Self { negative: false, digits: "0".to_owned(), exponent: 0 };
        }
        Self { negative: self.negative, digits: digits.to_owned(), exponent: 0 }
    }

    /// The text with `places` decimals; a half goes to the even neighbour.
    pub(super) fn fixed(&self, places: usize) -> String {
        let (before, mut after) = self.split();
        let rest = if after.len() > places { after.split_off(places) } else { String::new() };
        while after.len() < places {
            after.push('0');
        }
        let mut digits: Vec<u8> = before.bytes().chain(after.bytes()).collect();
        let is_odd = digits.last().is_some_and(|digit| (digit - b'0') % 2 == 1);
        let beyond_half = rest.bytes().next().is_some_and(|first| {
            first > b'5' || first == b'5' && (is_odd || rest.bytes().skip(1).any(|digit| digit != b'0'))
        });
        if beyond_half {
            increment(&mut digits);
        }
        let point = digits.len() - places;
        let mut text = String::with_capacity(digits.len() + 2);
        if self.negative {
            text.push('-');
        }
        for (index, digit) in digits.iter().enumerate() {
            if index == point {
                text.push('.');
            }
            let _ = write!(text, "{}", char::from(*digit));
        }
        text
    }

    /// Digits before and after the point; at least one before, with no zeros that say nothing.
    fn split(&self) -> (String, String) {
        let mut before = self.digits.clone();
        let mut after = String::new();
        if self.exponent >= 0 {
            before.extend(std::iter::repeat_n('0', self.exponent as usize));
        } else {
            let decimals = self.exponent.unsigned_abs() as usize;
            if before.len() < decimals {
                before.insert_str(0, &"0".repeat(decimals - before.len()));
            }
            after = before.split_off(before.len() - decimals);
        }
        let stripped = before.trim_start_matches('0');
        (if stripped.is_empty() { "0".to_owned() } else { stripped.to_owned() }, after)
    }
}

/// Adds one to ASCII digits.
fn increment(digits: &mut Vec<u8>) {
    for digit in digits.iter_mut().rev() {
        if *digit < b'9' {
            *digit += 1;
            return;
        }
        *digit = b'0';
    }
    digits.insert(0, b'1');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        match Parsed::read(text) {
            Some(Parsed::Finite(decimal)) => decimal,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn texts_are_numbers_where_python_says_so() {
        for text in ["1", " +1.5 ", "-.5", "5.", "1_000", "1e-3", "1E+05"] {
            assert!(matches!(Parsed::read(text), Some(Parsed::Finite(_))), "{text}");
        }
        for text in ["", " ", "-", ".", "1 2", "1e", "1e+", "e5", "0x1", "1.2.3", "1,5", "1e99999999"] {
            assert_eq!(Parsed::read(text), None, "{text}");
        }
        assert_eq!(Parsed::read("-Infinity"), Some(Parsed::Infinity));
        assert_eq!(Parsed::read("NaN"), Some(Parsed::NotANumber));
        assert_eq!(Parsed::read("nano"), None);
    }

    #[test]
    fn halves_go_to_the_even_neighbour() {
        for (text, places, expected) in [
            ("0.125", 2, "0.12"),
            ("0.375", 2, "0.38"),
            ("0.12501", 2, "0.13"),
            ("9.995", 2, "10.00"),
            ("-0.0004", 3, "-0.000"),
            ("12", 2, "12.00"),
            ("1.5e3", 0, "1500"),
            ("5e-3", 3, "0.005"),
        ] {
            assert_eq!(decimal(text).fixed(places), expected, "{text}");
        }
    }

    #[test]
    fn the_whole_part_of_a_small_number_is_a_plain_zero() {
        assert_eq!(decimal("-0.9").truncated().fixed(0), "0");
        assert_eq!(decimal("-12.9").truncated().fixed(0), "-12");
        assert_eq!(decimal("1.5e3").truncated().fixed(0), "1500");
    }
}
