//! Tests of `pieces.rs`.

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

fn split(expression: &str) -> Value {
    let split =
        json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false});
    json!({"type": "Sequence", "pretokenizers": [split, byte_level(false)]})
}

fn added(id: u32, content: &str, lstrip: bool, rstrip: bool, single_word: bool) -> Value {
    json!({"id": id, "content": content, "single_word": single_word, "lstrip": lstrip, "rstrip": rstrip, "normalized": false,
        "special": true})
}

/// All that can be cut.
fn local() -> Vec<Tokenizer> {
    let marks = [
        added(900, "<end>", true, true, false),
        added(901, "  ", false, false, false),
        added(902, "the", true, false, true),
        added(903, "\n\n<", false, false, false),
    ];
    let digits = json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, byte_level(true)]});
    let mut tokenizers = vec![
        tokenizer(&Value::Null, &byte_level(true), &[]),
        tokenizer(&json!({"type": "NFC"}), &byte_level(true), &marks),
        tokenizer(&Value::Null, &digits, &marks),
    ];
    for (_, expression) in EXPRESSIONS {
        tokenizers.push(tokenizer(&Value::Null, &split(expression), &[]));
        tokenizers.push(tokenizer(&json!({"type": "NFC"}), &split(expression), &marks));
    }
    tokenizers
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode_fast(text, false).unwrap().get_ids().to_vec()
}

fn by_pieces(tokenizer: &Tokenizer, text: &str, shortest: usize) -> Vec<u32> {
    pieces_of(text, shortest).flat_map(|piece| ids(tokenizer, piece)).collect()
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
    fn pieces_have_the_tokens_of_the_whole(text in texts(), shortest in 1_usize..9) {
        for tokenizer in local() {
            prop_assert!(can_cut(&tokenizer));
            prop_assert_eq!(by_pieces(&tokenizer, &text, shortest), ids(&tokenizer, &text));
        }
    }
}

#[test]
fn texts_that_begin_alike_begin_with_the_same_pieces() {
    let head =
        "The following are multiple choice questions about anatomy.\n\nWhich nerve is it? A. one\n".repeat(9);
    let (one, other) = (format!("{head} the first"), format!("{head}another one"));
    let alike = pieces(&one).zip(pieces(&other)).take_while(|(one, other)| one == other).count();
    assert_eq!(pieces(&one).collect::<String>(), one);
    assert!(pieces(&one).all(|piece| piece.len() < SHORTEST + 16));
    assert_eq!(alike + 1, pieces(&one).count());
    assert_eq!(pieces("").count(), 0);
}

#[test]
fn a_tokenizer_that_sees_across_a_cut_is_not_cut_for() {
    let gpt2 = byte_level(true);
    let spaced =
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let unknown = split(r"\p{L}+\s*|.");
    let metaspace =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    let rest = json!({"type": "Prepend", "prepend": "▁"});
    for tokenizer in [
        tokenizer(&Value::Null, &Value::Null, &[]),
        tokenizer(&Value::Null, &spaced, &[]),
        tokenizer(&Value::Null, &unknown, &[]),
        tokenizer(&Value::Null, &metaspace, &[]),
        tokenizer(&Value::Null, &byte_level(false), &[]),
        tokenizer(&rest, &gpt2, &[]),
        tokenizer(&Value::Null, &gpt2, &[added(900, "New York", false, false, false)]),
        tokenizer(&Value::Null, &gpt2, &[added(900, "user", false, true, false)]),
        tokenizer(&Value::Null, &gpt2, &[added(900, " x", false, false, true)]),
    ] {
        assert!(!can_cut(&tokenizer));
    }
    // The first of them would have other tokens.
    let whole = tokenizer(&Value::Null, &split(r"[\s\S]+"), &[]);
    assert_ne!(by_pieces(&whole, "an the", 1), ids(&whole, "an the"));
}
