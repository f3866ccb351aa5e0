//! The readings of a response that a loose verdict looks at.

use crate::eval::python;

/// The readings of `response` that are not blank, each once: with or without its first line, its last line and
/// its asterisks. The first is the response itself, since no reading of a blank one is more than blank.
pub(super) fn of(response: &str) -> Vec<String> {
    let first = response.find('\n');
    let last = response.rfind('\n');
    let from = first.map_or(response.len(), |at| at + 1);
    let to = last.unwrap_or(0);
    let lines = [
        response,
        python::strip(&response[from..]),
        python::strip(&response[..to]),
        python::strip(response.get(from..to).unwrap_or("")),
    ];
    let mut variants: Vec<String> = Vec::new();
    for text in lines.iter().map(|lines| (*lines).to_owned()).chain(lines.map(|lines| lines.replace('*', "")))
    {
        if !python::strip(&text).is_empty() && !variants.contains(&text) {
            variants.push(text);
        }
    }
    variants
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn three_lines_with_asterisks_have_eight_readings() {
        assert_eq!(
            of("a*\n b* \nc*"),
            ["a*\n b* \nc*", "b* \nc*", "a*\n b*", "b*", "a\n b \nc", "b \nc", "a\n b", "b"]
        );
    }

    #[test]
    fn a_line_of_its_own_is_first_and_last() {
        assert_eq!(of("a"), ["a"]);
        assert_eq!(of("a\nb"), ["a\nb", "b", "a"]);
        assert_eq!(of("a\n\n"), ["a\n\n", "a"]);
    }

    #[test]
    fn only_what_is_removed_is_stripped() {
        assert_eq!(of(" a* "), [" a* ", " a "]);
    }

    #[test]
    fn blank_readings_are_left_out() {
        assert!(of("").is_empty());
        assert!(of("\n \u{1c}\n").is_empty());
        assert_eq!(of("***\n*"), ["***\n*", "*", "***"]);
    }
}
