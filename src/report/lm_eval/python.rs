//! Numbers and flags as Python writes them.

/// The shortest text that reads back as `number`: what `repr` gives. `1.0`, `1e-05`, `nan`.
pub(super) fn repr(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = shortest(number);
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..16).contains(&exponent) {
        let decimals = mantissa.split_once('.').map_or(0, |(_, decimals)| decimals.len() as i32) - exponent;
        return format!("{number:.*}", decimals.max(1) as usize);
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// Mantissa and exponent with as few digits as read back. Of two such texts that are equally near, Python takes the even
/// one, Rust the larger; a text with a given number of digits both round to even.
fn shortest(number: f64) -> String {
    let text = format!("{number:e}");
    let digits = text.split('e').next().unwrap_or_default().bytes().filter(u8::is_ascii_digit).count();
    let rounded = format!("{number:.*e}", digits.saturating_sub(1));
    if rounded.parse() == Ok(number) { rounded } else { text }
}

/// `number` with four decimals, as the format `.4f` gives it.
pub(super) fn four_decimals(number: f64) -> String {
    if number.is_finite() { format!("{number:.4}") } else { repr(number) }
}

/// `True` or `False`.
pub(super) fn flag(flag: bool) -> &'static str {
    if flag { "True" } else { "False" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_short_as_they_read_back() {
        for (number, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1 + 0.2, "0.30000000000000004"),
            (-141.07301330566406, "-141.07301330566406"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1e15, "1000000000000000.0"),
            (-3_766_194_073_771_885.0 / 4.0, "-941548518442971.2"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
            (1e16, "1e+16"),
            (1.25e100, "1.25e+100"),
            (5e-324, "5e-324"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(repr(number), text);
        }
    }

    #[test]
    fn four_decimals_round_the_binary_number() {
        assert_eq!(four_decimals(0.00005), "0.0001");
        assert_eq!(four_decimals(0.03125), "0.0312");
        assert_eq!(four_decimals(-0.0), "-0.0000");
        assert_eq!(four_decimals(f64::NAN), "nan");
    }
}
