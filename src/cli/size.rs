//! Amounts in words: bytes, seconds, and `--max-memory`'s value.

/// `4GiB`, `500MB`, `800M`: decimal for MB, binary for MiB and for the bare letters.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| format!("`{text}` does not begin with a number"))?;
    let factor = match unit.trim() {
        "" | "B" => 1.0,
        "K" | "KiB" => 1024.0,
        "M" | "MiB" => 1024.0 * 1024.0,
        "G" | "GiB" => 1024.0 * 1024.0 * 1024.0,
        "T" | "TiB" => 1024.0_f64.powi(4),
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        other => return Err(format!("`{other}` is no unit of memory; use MiB, GiB, MB or GB")),
    };
    Ok((number * factor) as u64)
}

/// `3.2 MiB`.
pub(super) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// `0.03 s`, `12.4 s`, `2 min 05 s`, `1 h 02 min`.
pub(super) fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 9.995 => format!("{s:.2} s"),
        s if s < 99.95 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{} min {:02} s", s as u64 / 60, s as u64 % 60),
        s => format!("{} h {:02} min", s as u64 / 3600, s as u64 % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_unit() {
        assert_eq!(parse("4GiB"), Ok(4 << 30));
        assert_eq!(parse("1.5G"), Ok(3 << 29));
        assert_eq!(parse("500MB"), Ok(500_000_000));
        assert_eq!(parse("12"), Ok(12));
        assert!(parse("4 bananas").is_err());
        assert!(parse("much").is_err());
    }

    #[test]
    fn times_have_a_readable_unit() {
        assert_eq!(seconds(0.031), "0.03 s");
        assert_eq!(seconds(125.0), "2 min 05 s");
        assert_eq!(seconds(3725.0), "1 h 02 min");
    }
}
