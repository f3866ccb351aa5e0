//! `punctuation`: which marks may occur.

use super::Check;
use super::arguments::Arguments;
use super::error::IfevalError;

/// No comma. Those of other scripts are other characters.
pub(super) fn no_comma(_arguments: &Arguments<'_>) -> Result<Check, IfevalError> {
    Ok(Box::new(|text| Ok(!text.contains(','))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::follows;

    #[test]
    fn only_the_comma_of_ascii_is_one() {
        assert!(!follows("punctuation:no_comma", json!({}), "One, two."));
        assert!(follows("punctuation:no_comma", json!({}), "One، two，three、four."));
    }
}
