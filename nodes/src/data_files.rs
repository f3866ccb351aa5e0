//! Which files hold rows of data: their names tell.

/// How the names of data files end, in any case of letters.
pub const EXTENSIONS: &[&str] = &["jsonl", "json", "csv", "tsv", "parquet"];

/// The extension of the file called `name`, if it is one of data.
pub fn extension(name: &str) -> Option<&'static str> {
    let (_, own) = name.rsplit_once('.')?;
    EXTENSIONS.iter().copied().find(|known| own.eq_ignore_ascii_case(known))
}

/// [`extension`] of the file behind a web address; what it asks of the server (`?download=true`) is no part of the name.
pub fn extension_of_address(address: &str) -> Option<&'static str> {
    let path = address.split(['?', '#']).next().unwrap_or(address);
    let (_, path) = path.split_once("://")?;
    let (_, name) = path.rsplit_once('/')?;
    extension(name)
}

/// All extensions, for messages.
pub fn in_words() -> String {
    EXTENSIONS.iter().map(|known| format!(".{known}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_in_any_case() {
        assert_eq!(extension("train.JSONL"), Some("jsonl"));
        assert_eq!(extension("a.tar.parquet"), Some("parquet"));
        for name in ["README.md", "jsonl", "train.jsonl.gz", ""] {
            assert_eq!(extension(name), None, "{name}");
        }
    }

    #[test]
    fn a_question_is_no_part_of_a_files_name() {
        for address in [
            "https://example.org/x.jsonl",
            "https://example.org/a/x.jsonl?download=true",
            "https://example.org/x.JSONL#L3",
            "https://example.org/x.jsonl?file=a/b.csv",
        ] {
            assert_eq!(extension_of_address(address), Some("jsonl"), "{address}");
        }
        for address in ["https://example.org/x?file=x.jsonl", "https://example.json", "https://example.org/"]
        {
            assert_eq!(extension_of_address(address), None, "{address}");
        }
    }
}
