//! Tests of `pieces.rs`.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::*;

/// Byte-level BPE with merges inside words, of whitespace, of punctuation with line ends, and of contractions.
fn tokenizer(normalizer: &Value, pre_tokenizer: &Value, added: &[Value]) -> Tokenizer {
    let mut alphabet: Vec<String> = ByteLevel::alphabet().into_iter().map(String::from).collect();
    alphabet.sort();
    let merges = [
        "t h", "th e", "Ġ t", "Ġ Ġ", "Ċ Ċ", "Ġ Ċ", ". Ċ", "? Ċ", "' s", "n Ġ", "e Ċ", "1 2", "12 3", "Ġ a",
        "Ġa n", "Ã ©",
    ];
    let mut vocab: Vec<String> = alphabet;
    vocab.extend(merges.iter().map(|merge| merge.replace(' ', "")));
    let vocab: serde_json::Map<String, Value> =
        vocab.into_iter().enumerate().map(|(id, word)| (word, json!(id))).collect();
    let model = json!({
        "type": "BPE", "vocab": vocab, "merges": merges, "dropout": null, "unk_token": null,
        "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
    });
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": null, "model": model,
    });
    Tokenizer::from_bytes(file.to_string()).unwrap()
}

fn byte_level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
}

fn split(expression: &str, behavior: &str, invert: bool) -> Value {
    json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": behavior, "invert": invert})
}

fn isolated(expression: &str) -> Value {
    split(expression, "Isolated", false)
}

fn digits(individual: bool) -> Value {
    json!({"type": "Digits", "individual_digits": individual})
}

fn sequence(parts: &[Value]) -> Value {
    json!({"type": "Sequence", "pretokenizers": parts})
}

/// `marks`: of lstrip, rstrip, single_word and normalized those whose letters are there.
fn added(id: u32, content: &str, marks: &str) -> Value {
    let has = |mark| marks.contains(mark);
    json!({"id": id, "content": content, "single_word": has('w'), "lstrip": has('l'), "rstrip": has('r'),
        "normalized": has('n'), "special": !has('n')})
}

/// Every kind of tokenizer that can be cut for.
static LOCAL: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    let nfc = json!({"type": "NFC"});
    let marks = [
        added(900, "<end>", "lr"),
        added(901, "  ", ""),
        added(902, "the", "lw"),
        added(903, "\n\n<", ""),
        added(904, "e\u{301}", "n"),
        added(905, "_S", "nw"),
    ];
    let mut splitters = vec![byte_level(true)];
    for expression in EXPRESSIONS {
        splitters.extend([isolated(expression), split(expression, "Removed", true)]);
    }
    let mut all = Vec::new();
    for (index, splitter) in splitters.iter().enumerate() {
        let digits = digits(index % 2 == 0);
        let parts = [splitter.clone(), byte_level(false)];
        all.extend([
            tokenizer(&Value::Null, splitter, &[]),
            tokenizer(&nfc, &sequence(&parts), &marks),
            tokenizer(&Value::Null, &sequence(&[digits.clone(), parts[0].clone(), parts[1].clone()]), &marks),
            tokenizer(&nfc, &sequence(&[parts[0].clone(), digits, byte_level(true)]), &[]),
        ]);
    }
    all
});

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode_fast(text, false).unwrap().get_ids().to_vec()
}

fn by_pieces(tokenizer: &Tokenizer, text: &str, long: usize) -> Vec<u32> {
    pieces_of(text, long).flat_map(|piece| ids(tokenizer, piece)).collect()
}

/// Texts in which every kind of character stands beside every other.
fn texts() -> impl Strategy<Value = String> {
    let parts = prop::sample::select(vec![
        "the", "an", "a", "S", "'s", "'", "é", "e\u{301}", "ä", "日", "12", "3", "1234", " ", "  ", "\n",
        "\n\n", "\t", "\r\n", "\u{a0}", "\u{2003}", ".", "?", "<", "<end>", "/", "_", "🙂", "\u{301}", "İ",
        "ſ",
    ]);
    prop::collection::vec(parts, 0..60).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn pieces_have_the_tokens_of_the_whole(text in texts(), long in 1_usize..9) {
        for tokenizer in LOCAL.iter() {
            prop_assert!(can_cut(tokenizer));
            prop_assert_eq!(by_pieces(tokenizer, &text, long), ids(tokenizer, &text));
        }
    }
}

#[test]
fn texts_have_the_pieces_of_what_they_have_in_common() {
    let examples = "The following are multiple choice questions about anatomy.\n\nWhich nerve is it? A. one\nAnswer: B\n".repeat(9);
    let (one, other) = (format!("{examples}the first"), format!("Of another length\n{examples}another one"));
    assert_eq!(pieces(&one).collect::<String>(), one);
    assert!(pieces(&one).all(|piece| piece.len() < LONG + 16));
    let known: Vec<&str> = pieces(&one).collect();
    // The examples but for their first line, whose line end is another's.
    let new: Vec<&str> = pieces(&other).filter(|piece| !known.contains(piece)).collect();
    assert!(new.concat().len() < 3 * LONG && known.len() > 18, "{new:?}");
    assert_eq!(pieces("").count(), 0);
}

#[test]
fn a_tokenizer_that_sees_across_a_cut_is_not_cut_for() {
    let gpt2 = byte_level(true);
    let expression = EXPRESSIONS[1];
    let spaced =
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let metaspace =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    let whole = sequence(&[isolated(r"[\s\S]+"), byte_level(false)]);
    let letters = [byte_level(false), isolated(EXPRESSIONS[0])];
    for pre_tokenizer in [
        Value::Null,
        spaced,
        metaspace,
        byte_level(false),
        whole.clone(),
        split(expression, "Isolated", true),
        split(expression, "Removed", false),
        split(expression, "MergedWithNext", false),
        sequence(&letters),
        sequence(&[digits(true), byte_level(false), isolated(expression)]),
        sequence(&[isolated(expression), json!({"type": "Punctuation", "behavior": "Isolated"})]),
    ] {
        assert!(!can_cut(&tokenizer(&Value::Null, &pre_tokenizer, &[])), "{pre_tokenizer}");
    }
    for normalizer in [json!({"type": "Prepend", "prepend": "▁"}), json!({"type": "NFKC"})] {
        assert!(!can_cut(&tokenizer(&normalizer, &gpt2, &[])), "{normalizer}");
    }
    for token in [
        added(900, "New York", ""),
        added(900, "user", "r"),
        added(900, " x", "w"),
        added(900, "\u{212a} x", "n"),
    ] {
        assert!(!can_cut(&tokenizer(&Value::Null, &gpt2, std::slice::from_ref(&token))), "{token}");
    }
    // They would have other tokens.
    for pre_tokenizer in [whole, sequence(&letters)] {
        let tokenizer = tokenizer(&Value::Null, &pre_tokenizer, &[]);
        assert_ne!(by_pieces(&tokenizer, "an the", 1), ids(&tokenizer, "an the"));
    }
}
