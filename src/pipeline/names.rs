//! What names may look like.

/// Node and parameter names: `[A-Za-z_][A-Za-z0-9_-]*`.
pub(super) fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// A pipeline's name is that of a folder: `[A-Za-z0-9._-]+`, and neither `.` nor `..`.
pub(super) fn is_folder_name(name: &str) -> bool {
    !name.is_empty()
        && !matches!(name, "." | "..")
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_and_folder_names() {
        assert!(["a", "_x", "sft-merge", "n2"].into_iter().all(is_identifier));
        assert!(!["", "2n", "-a", "a b", "a.b", "é"].into_iter().any(is_identifier));
        assert!(["quickstart", "2024.run_1", "-"].into_iter().all(is_folder_name));
        assert!(!["", ".", "..", "a/b", "a b"].into_iter().any(is_folder_name));
    }
}
