//! Figures as text, the same in the document and on the terminal.

/// `1962` as `1,962`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share as per cent: `0.4434` as `44.34`.
pub(super) fn percent(share: f64) -> String {
    format!("{:.2}", 100.0 * share)
}

/// A difference of shares in points, always signed; nothing is neither `+` nor `-`.
pub(super) fn points(difference: f64) -> String {
    let text = format!("{:+.2}", 100.0 * difference);
    if text == "-0.00" || text == "+0.00" { "0.00".to_owned() } else { text }
}

/// A probability: four decimals, and a bound for what is smaller.
pub(super) fn probability(p: f64) -> String {
    if p < 0.0001 { "<0.0001".to_owned() } else { format!("{p:.4}") }
}

/// A probability as `p = 0.0123` or `p < 0.0001`.
pub(super) fn probability_of(name: &str, p: f64) -> String {
    if p < 0.0001 { format!("{name} < 0.0001") } else { format!("{name} = {p:.4}") }
}

/// A divergence: four decimals, or two digits where that would show nothing.
pub(super) fn divergence(nats: f64) -> String {
    if nats == 0.0 || nats >= 0.001 { format!("{nats:.4}") } else { format!("{nats:.1e}") }
}

/// A duration with a unit that keeps three digits.
pub(super) fn duration(seconds: f64) -> String {
    if seconds >= 1.0 {
        format!("{seconds:.2} s")
    } else if seconds >= 0.001 {
        format!("{:.1} ms", 1e3 * seconds)
    } else {
        format!("{:.1} us", 1e6 * seconds)
    }
}

/// A figure with one decimal where it has few digits, and none where it has many.
pub(super) fn quantity(value: f64) -> String {
    if value.abs() >= 1000.0 { count(value.round() as u64) } else { format!("{value:.1}") }
}

/// A figure with three digits that count.
pub(super) fn digits(value: f64) -> String {
    let exponent = format!("{value:.2e}").split_once('e').and_then(|(_, exponent)| exponent.parse().ok());
    format!("{value:.*}", (2 - exponent.unwrap_or(0_i32)).max(0) as usize)
}

/// `plural(1, "question")` is `1 question`, `plural(2, …)` is `2 questions`.
pub(super) fn plural(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        let texts = [0, 7, 999, 1000, 1962, 151_936, 1_000_000].map(count);
        assert_eq!(texts, ["0", "7", "999", "1,000", "1,962", "151,936", "1,000,000"]);
    }

    #[test]
    fn nothing_has_no_sign() {
        assert_eq!([0.0, -0.000_001, 0.0123, -0.0123].map(points), ["0.00", "0.00", "+1.23", "-1.23"]);
    }

    #[test]
    fn small_figures_keep_digits() {
        assert_eq!([0.0, 0.000_012, 0.0123].map(divergence), ["0.0000", "1.2e-5", "0.0123"]);
        assert_eq!([1e-9, 0.05].map(probability), ["<0.0001", "0.0500"]);
        assert_eq!([2.5, 0.0123, 0.000_045].map(duration), ["2.50 s", "12.3 ms", "45.0 us"]);
    }

    #[test]
    fn three_digits_count() {
        let digits = [0.012345, 0.9999, 1.5, 9.999, 42.42, 1234.5, 0.0].map(digits);
        assert_eq!(digits, ["0.0123", "1.00", "1.50", "10.0", "42.4", "1234", "0.00"]);
    }
}
