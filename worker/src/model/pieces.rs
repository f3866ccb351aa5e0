//! Texts in pieces whose tokens, one after the other, are those of the whole. What many texts have in common, the examples
//! in their prompts mostly, is then encoded once.
//!
//! A text is cut between an ASCII letter and the whitespace behind it. Byte-level BPE takes a text apart by a regular expression
//! from left to right, then turns each part into tokens by itself. No match of the expressions known here goes from a letter on
//! to whitespace, none asks what stands before it, and none that ends with a letter asks more of what follows than whether
//! it goes on: whitespace and the end of the text are the same to it. So neither side of a cut sees the other. (What stands
//! around a text, a post-processor's special tokens, is not asked for.)

use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{AddedToken, ModelWrapper, Tokenizer};

/// Bytes after which a line is cut, too. Shorter pieces have more in common, and cost more by themselves.
const LONG: usize = 64;

/// Expressions that tokenizer.json files spell out: GPT-2's, which `ByteLevel` has built in, Llama 3's, that of Qwen 2 and 3, GPT-4o's.
const EXPRESSIONS: [&str; 4] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    concat!(
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
];
/// What NFC makes a letter of, K.
const KELVIN_SIGN: char = '\u{212a}';

/// Whether `tokenizer` is one of those whose texts can be cut.
pub(super) fn can_cut(tokenizer: &Tokenizer) -> bool {
    // Dropout draws anew for every word.
    let is_steady = matches!(tokenizer.get_model(), ModelWrapper::BPE(model) if model.dropout.is_none());
    // Whitespace is never composed with the letter before it.
    let is_normal = matches!(tokenizer.get_normalizer(), None | Some(NormalizerWrapper::NFC(_)));
    is_steady && is_normal && takes_text_apart(tokenizer) && keeps_added_tokens_together(tokenizer)
}

/// The pieces of `text`. Behind a line that ends with a letter they are those of what follows, whatever stood before.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    pieces_of(text, LONG)
}

fn pieces_of(text: &str, long: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let bytes = rest.as_bytes();
        let is_cut = |&at: &usize| {
            bytes[at - 1].is_ascii_alphabetic() && (bytes[at] == b'\n' || bytes[at] == b' ' && at >= long)
        };
        let end = (1..bytes.len()).find(is_cut).unwrap_or(bytes.len());
        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Whether words are taken apart by an expression that is known, and every other part leaves a letter with whitespace behind it what they
/// are, until then.
fn takes_text_apart(tokenizer: &Tokenizer) -> bool {
    let parts = match tokenizer.get_pre_tokenizer() {
        Some(PreTokenizerWrapper::Sequence(parts)) => parts.as_ref(),
        Some(part) => std::slice::from_ref(part),
        None => &[],
    };
    let Some(first) = parts.iter().position(takes_words_apart) else { return false };
    let (before, behind) = (&parts[..first], &parts[first..]);
    let is_digits = |part: &PreTokenizerWrapper| matches!(part, PreTokenizerWrapper::Digits(_));
    // As letters for bytes a space is a letter, too.
    let is_bytes = |part: &PreTokenizerWrapper| matches!(part, PreTokenizerWrapper::ByteLevel(bytes) if !bytes.use_regex && !bytes.add_prefix_space);
    before.iter().all(is_digits)
        && behind.iter().all(|part| takes_words_apart(part) || is_digits(part) || is_bytes(part))
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
            is_whole && EXPRESSIONS.contains(&pattern.as_str())
        }
        _ => false,
    }
}

/// Added tokens are found before anything else is: none may lie across a cut, take in whitespace behind one, or ask which letter
/// stands before it.
fn keeps_added_tokens_together(tokenizer: &Tokenizer) -> bool {
    let tokens = tokenizer.get_added_tokens_decoder();
    // Of two with the same number only one is known by its settings.
    tokens.len() == tokenizer.get_added_vocabulary().get_vocab().len()
        && tokens.values().all(stays_on_its_side)
}

fn stays_on_its_side(token: &AddedToken) -> bool {
    let bytes = token.content.as_bytes();
    let is_across =
        bytes.windows(2).any(|pair| pair[0].is_ascii_alphabetic() && pair[1].is_ascii_whitespace());
    let takes_in = token.rstrip && bytes.last().is_some_and(u8::is_ascii_alphabetic);
    let asks = token.single_word && bytes.first().is_some_and(u8::is_ascii_whitespace);
    !(is_across || takes_in || asks || token.content.contains(KELVIN_SIGN))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
#[path = "pieces_tests.rs"]
mod tests;
