//! "Did you mean …": the valid name nearest to a wrong one.

/// More valid names than this are not listed.
const LISTED: usize = 24;

/// The candidate that `name` was probably meant to be: the fewest typing slips away, at most one for every
/// three characters, capitals and the choice between `-` and `_` counting nothing; or one that `name` begins.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = plain(name);
    let is_short = wanted.len() < 5;
    let allowed = match wanted.chars().count() {
        0..3 => 0,
        length => length / 3,
    };
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let possible = plain(candidate);
        let slips = if wanted.len() >= 3 && possible.starts_with(&wanted) {
            1
        } else if is_short && possible.as_bytes().first() != wanted.as_bytes().first() {
            // `gpu` is one slip from `cpu`, and not meant to be it.
            continue;
        } else if possible.len().abs_diff(wanted.len()) > allowed {
            continue;
        } else {
            strsim::osa_distance(&wanted, &possible)
        };
        if slips <= allowed && best.is_none_or(|(fewest, _)| slips < fewest) {
            best = Some((slips, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

fn plain(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

/// The nearest name, if one is near, and the list of all, if it is short: "Did you mean `a`? Kinds: a, b."
pub(super) fn advice(name: &str, what: &str, candidates: &[&str]) -> Option<String> {
    advice_among(name, candidates, what, candidates)
}

/// The same, with only `likely` ones meant.
pub(super) fn advice_among(name: &str, likely: &[&str], what: &str, candidates: &[&str]) -> Option<String> {
    let near = nearest(name, likely.iter().copied()).map(|near| format!("Did you mean `{near}`?"));
    let all = match candidates.len() {
        0 => None,
        count if count <= LISTED => Some(format!("{what}: {}.", candidates.join(", "))),
        _ => None,
    };
    match (near, all) {
        (Some(near), Some(all)) => Some(format!("{near} {all}")),
        (near, all) => near.or(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_but_does_not_guess() {
        let names = ["learning_rate", "sft-merge", "evaluate", "model", "seed"];
        let near = |name| nearest(name, names);
        assert_eq!(near("learningrate"), Some("learning_rate"));
        assert_eq!(near("sft_merge"), Some("sft-merge"));
        assert_eq!(near("eval"), Some("evaluate"));
        assert_eq!(near("Modle"), Some("model"));
        assert_eq!(near("lr"), None);
        assert_eq!(near("colour"), None);
    }

    #[test]
    fn long_lists_are_not_shown() {
        let many: Vec<String> = (0..100).map(|i| format!("node{i}")).collect();
        let names: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(advice("nod7", "Nodes", &names).as_deref(), Some("Did you mean `node7`?"));
        assert_eq!(advice("x", "Keys", &["a", "b"]).as_deref(), Some("Keys: a, b."));
    }
}
