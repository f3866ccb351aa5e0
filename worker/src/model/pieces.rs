//! Texts in pieces whose tokens, one after the other, are those of the whole. What many texts have in common, the examples
//! in their prompts mostly, is then encoded once.
//!
//! A text is cut between an ASCII letter and the whitespace behind it. Byte-level BPE takes a text apart by a regular expression
//! from left to right, then turns each part into tokens by itself. No match of the expressions known here goes from a letter on
//! to whitespace, none asks what stands before it, and none that ends with a letter asks more of what follows than whether
//! it goes on: whitespace and the end of the text are the same to it. So neither side of a cut sees the other.

use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{AddedToken, ModelWrapper, Tokenizer};

/// Bytes of a piece, at least. Shorter ones have more in common, and cost more by themselves.
const SHORTEST: usize = 64;

/// Expressions that tokenizer.json files spell out. GPT-2's is also what `ByteLevel` has built in.
const EXPRESSIONS: &[(&str, &str)] = &[
    ("GPT-2", r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"),
    (
        "Llama 3",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    (
        "Qwen 2 and 3",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    (
        "GPT-4o",
        concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
            r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
    ),
];

/// Whether `tokenizer` is one of those whose texts can be cut.
pub(super) fn can_cut(tokenizer: &Tokenizer) -> bool {
    // Dropout draws anew for every word.
    let is_steady = matches!(tokenizer.get_model(), ModelWrapper::BPE(model) if model.dropout.is_none());
    // Whitespace is never composed with the letter before it.
    let is_normal = matches!(tokenizer.get_normalizer(), None | Some(NormalizerWrapper::NFC(_)));
    let parts = match tokenizer.get_pre_tokenizer() {
        Some(PreTokenizerWrapper::Sequence(parts)) => parts.as_ref(),
        Some(part) => std::slice::from_ref(part),
        None => &[],
    };
    is_steady
        && is_normal
        && parts.iter().any(takes_words_apart)
        && parts.iter().all(|part| takes_words_apart(part) || is_blind(part))
        && tokenizer.get_added_tokens_decoder().values().all(stays_on_its_side)
}

/// The pieces of `text`; they depend on what stands before and in them only, so texts that begin alike have the same ones.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    pieces_of(text, SHORTEST)
}

fn pieces_of(text: &str, shortest: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let bytes = rest.as_bytes();
        let is_cut = |&at: &usize| bytes[at - 1].is_ascii_alphabetic() && matches!(bytes[at], b' ' | b'\n');
        let end = (shortest..bytes.len()).find(is_cut).unwrap_or(bytes.len());
        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// By an expression that is known.
fn takes_words_apart(part: &PreTokenizerWrapper) -> bool {
    match part {
        PreTokenizerWrapper::ByteLevel(bytes) => bytes.use_regex && !bytes.add_prefix_space,
        PreTokenizerWrapper::Split(Split {
            pattern: SplitPattern::Regex(pattern), behavior, invert, ..
        }) => {
            // Every character is in a match, so "remove all but the matches" is the same as "each match by itself".
            let is_whole = match behavior {
                SplitDelimiterBehavior::Isolated => !invert,
                SplitDelimiterBehavior::Removed => *invert,
                _ => false,
            };
            is_whole && EXPRESSIONS.iter().any(|(_, known)| known == pattern)
        }
        _ => false,
    }
}

/// Does nothing where a letter is followed by whitespace.
fn is_blind(part: &PreTokenizerWrapper) -> bool {
    match part {
        PreTokenizerWrapper::ByteLevel(bytes) => !bytes.use_regex && !bytes.add_prefix_space,
        PreTokenizerWrapper::Digits(_) => true,
        _ => false,
    }
}

/// Added tokens are found before anything else is: none may lie across a cut, take in whitespace behind one, or ask which letter
/// stands before it.
fn stays_on_its_side(token: &AddedToken) -> bool {
    let is_across = token
        .content
        .as_bytes()
        .windows(2)
        .any(|pair| pair[0].is_ascii_alphabetic() && pair[1].is_ascii_whitespace());
    let takes_in = token.rstrip && token.content.ends_with(|last: char| last.is_ascii_alphabetic());
    let asks = token.single_word && token.content.starts_with(|first: char| first.is_ascii_whitespace());
    !(is_across || takes_in || asks)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
#[path = "pieces_tests.rs"]
mod tests;
