//! What an unquoted word means: the core schema of YAML 1.2 (section 10.3.2), in which `1e-4` is a number
//! and `no` is text.

use serde_json::Number;

use super::value::Data;

/// Reads a plain scalar.
pub(super) fn resolve(text: &str) -> Data {
    match text.bytes().next() {
        None => return Data::Null,
        Some(b'~' | b'n' | b'N' | b't' | b'T' | b'f' | b'F') => match text {
            "~" | "null" | "Null" | "NULL" => return Data::Null,
            "true" | "True" | "TRUE" => return Data::Bool(true),
            "false" | "False" | "FALSE" => return Data::Bool(false),
            _ => {}
        },
        Some(b'0'..=b'9' | b'+' | b'-' | b'.') => {
            if let Some(number) = number(text) {
                return Data::Number(number);
            }
        }
        Some(_) => {}
    }
    Data::Text(text.to_owned())
}

/// The number that `text` spells. Whole numbers beyond 64 bits become floating-point; what JSON, and so a
/// key, cannot hold (`.inf`, `.nan`) is no number here.
fn number(text: &str) -> Option<Number> {
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            let good = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
            return if good { u64::from_str_radix(digits, radix).ok().map(Number::from) } else { None };
        }
    }
    let positive = text.strip_prefix('+').unwrap_or(text);
    let unsigned = positive.strip_prefix('-').unwrap_or(positive);
    if unsigned.len() + 1 < text.len() || !is_float(unsigned) {
        return None;
    }
    let whole =
        positive.parse::<u64>().map(Number::from).or_else(|_| positive.parse::<i64>().map(Number::from));
    whole.ok().or_else(|| Number::from_f64(positive.parse().ok()?))
}

/// `( "." [0-9]+ | [0-9]+ ( "." [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(text: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.strip_prefix(['-', '+']).unwrap_or(exponent)),
        None => (text, "0"),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let some = !(whole.is_empty() && fraction.is_empty());
    some && digits(whole) && digits(fraction) && !exponent.is_empty() && digits(exponent)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn json(text: &str) -> serde_json::Value {
        let span = crate::pipeline::source::Span { source: 0, start: 0, end: 0 };
        super::super::value::Value { span, data: resolve(text) }.to_json()
    }

    #[test]
    fn the_core_schema() {
        for (text, expected) in [
            ("", "null"),
            ("~", "null"),
            ("null", "null"),
            ("True", "true"),
            ("false", "false"),
            ("yes", r#""yes""#),
            ("12", "12"),
            ("+12", "12"),
            ("-3", "-3"),
            ("0x1F", "31"),
            ("0o17", "15"),
            ("007", "7"),
            ("1e-4", "0.0001"),
            ("2e3", "2000.0"),
            (".5", "0.5"),
            ("5.", "5.0"),
            ("-1.5E+2", "-150.0"),
            ("18446744073709551615", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("1_000", r#""1_000""#),
            ("1.2.3", r#""1.2.3""#),
            ("-", r#""-""#),
            (".", r#"".""#),
            ("..", r#""..""#),
            ("../x", r#""../x""#),
            ("e5", r#""e5""#),
            ("1e", r#""1e""#),
            ("nullable", r#""nullable""#),
            (".inf", r#"".inf""#),
            ("1e999", r#""1e999""#),
            ("+-1", r#""+-1""#),
            ("18446744073709551616", "18446744073709551616.0"),
        ] {
            assert_eq!(json(text), serde_json::from_str::<serde_json::Value>(expected).unwrap(), "{text}");
        }
    }
}
