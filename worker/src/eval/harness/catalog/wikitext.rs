//! WikiText-2 (Merity et al., 2016, arXiv 1609.07843), page by page, with the spaces of its tokens taken out again.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

use super::THREE_SPLITS;
use crate::eval::harness::spec::{Answering, Spec, names};
use crate::eval::harness::template::Rule;

pub(super) fn tasks() -> Vec<Spec> {
    vec![Spec {
        version: 2.0.into(),
        metrics: names(&["word_perplexity", "byte_perplexity", "bits_per_byte"]),
        answering: Answering::Foreseeing { counted: Some(Rule::template("page")) },
        ..Spec::new("wikitext", THREE_SPLITS, "", Rule::Constant(json!([])), Rule::Function(target))
    }]
}

/// The text that is scored.
fn target(row: &Value) -> Result<Value, String> {
    match row.get("page") {
        Some(Value::String(page)) => Ok(json!(without_spaces(page))),
        Some(_) => Err("`page` is no text".to_owned()),
        None => Err("`page` is missing".to_owned()),
    }
}

/// Takes out what the dataset's tokenizer put in, in this order.
fn without_spaces(page: &str) -> String {
    static BETWEEN: LazyLock<[(Regex, &str); 6]> = LazyLock::new(|| {
        [
            // Meant for apostrophes before years, but the slashes are part of it.
            ("/' [0-9]/", "/'[0-9]/"),
            (r"\(\s*([^)]*?)\s*\)", "(${1})"),
            (r"\[\s*([^\]]*?)\s*\]", "[${1}]"),
            (r"\{\s*([^}]*?)\s*\}", "{${1}}"),
            (r#""\s*([^"]*?)\s*""#, "\"${1}\""),
            (r"'\s*([^']*?)\s*'", "'${1}'"),
        ]
        .map(|(pattern, replacement)| (Regex::new(pattern).expect("a constant pattern"), replacement))
    });
    const NUMBERS_AND_PUNCTUATION: [(&str, &str); 9] = [
        (" @-@ ", "-"),
        (" @,@ ", ","),
        (" @.@ ", "."),
        (" : ", ": "),
        (" ; ", "; "),
        (" . ", ". "),
        (" ! ", "! "),
        (" ? ", "? "),
        (" , ", ", "),
    ];
    const THE_REST: [(&str, &str); 8] = [
        ("= = = =", "===="),
        ("= = =", "==="),
        ("= =", "=="),
        (" ° ", "°"),
        (" \n", "\n"),
        ("\n ", "\n"),
        (" N ", " 1 "),
        (" 's", "'s"),
    ];
    let replaced =
        |text: String, all: &[(&str, &str)]| all.iter().fold(text, |text, (from, to)| text.replace(from, to));
    let (years, brackets) = BETWEEN.split_at(1);
    let matched = |text: String, all: &[(Regex, &str)]| {
        all.iter().fold(text, |text, (pattern, to)| pattern.replace_all(&text, *to).into_owned())
    };
    let text = matched(page.replace("s '", "s'"), years);
    let text = matched(replaced(text, &NUMBERS_AND_PUNCTUATION), brackets);
    replaced(text, &THE_REST)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `wikitext_detokenizer` of lm-eval 0.4.13.
    #[test]
    fn a_page_loses_the_spaces_of_its_tokens() {
        let page = " = Robert Boulter = \n \n Robert 's role ( in 1 @,@ 000 plays , \" Herons \" ) ; it was 20 @.@ 5 \
            ° C . \n = = Career = = \n Actors ' co @-@ star [ sic ] said : ' No ' ! ";
        let expected = " = Robert Boulter =\n\nRobert's role (in 1,000 plays, \"Herons\"); it was 20.5°C.\n== Career ==\nActors' co-star [sic] said: 'No'! ";
        assert_eq!(without_spaces(page), expected);
    }
}
