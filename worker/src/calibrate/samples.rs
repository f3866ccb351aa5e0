//! Which rows are samples, and their token ids.
//!
//! The order is a permutation of all rows that depends on the seed and on how many rows there are, not on how many
//! samples are taken: 20 samples are the first 20 of 200. Rows are tokenized as far as they are needed.
//!
//! A row becomes the text that the model would read: a prompt with its completion, an instruction in Alpaca's
//! words with its answer, a conversation in the model's chat template. It is tokenized with the special tokens that
//! the tokenizer adds by itself (none where the template wrote them), as llm-compressor and GPTQModel do; unlike in
//! training no end of sequence is added.

use std::path::Path;

use super::error::CalibrateError;
use crate::data::chat::ChatError;
use crate::data::random::Random;
use crate::data::rows::{Located, Row, Rows};
use crate::data::{ChatTemplate, DataError, instruction};
use crate::model::Tokenizer;

/// Stream number of the order of rows, see [`Random::new`].
const ORDER_STREAM: u64 = 2 << 32;

/// The samples of a calibration, in their order.
#[derive(Debug, Default)]
pub struct Samples {
    /// Token ids, none empty.
    pub sequences: Vec<Vec<i64>>,
    /// Where each stands in the data.
    pub places: Vec<String>,
    /// How many were longer than the limit.
    pub cut: usize,
    /// Where rows without a token stand that were passed over.
    pub empty: Vec<String>,
}

impl Samples {
    /// Tokens of all samples.
    pub fn tokens(&self) -> u64 {
        self.sequences.iter().map(|ids| ids.len() as u64).sum()
    }
}

/// The first `count` samples of `rows`, which were read from `data`, cut to `limit` tokens.
///
/// # Errors
///
/// Fewer rows than `count`; a conversation that the chat template refuses.
pub fn take(
    rows: &Rows,
    data: &Path,
    tokenizer: &Tokenizer,
    (count, limit, seed): (usize, usize, u64),
) -> Result<Samples, CalibrateError> {
    let template = ChatTemplate::of(tokenizer)?;
    let mut samples = Samples::default();
    for row in Random::new(seed, ORDER_STREAM).permutation(rows.rows.len()) {
        if samples.sequences.len() == count {
            break;
        }
        let located = &rows.rows[row as usize];
        let place = rows.place(located);
        let mut ids = encode(located, &place, tokenizer, template.as_ref())?;
        if ids.is_empty() {
            samples.empty.push(place);
            continue;
        }
        samples.cut += usize::from(ids.len() > limit);
        ids.truncate(limit);
        samples.sequences.push(ids.into_iter().map(i64::from).collect());
        samples.places.push(place);
    }
    if samples.sequences.len() < count {
        let found = samples.sequences.len();
        return Err(CalibrateError::TooFew { asked: count, found, path: data.to_owned() });
    }
    Ok(samples)
}

/// The token ids of a row; empty if it says nothing.
fn encode(
    located: &Located,
    place: &str,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
) -> Result<Vec<u32>, CalibrateError> {
    let (text, add_special) = match &located.row {
        Row::Text(text) => (text.clone(), true),
        Row::Completion { prompt, completion } => (format!("{prompt}{completion}"), true),
        Row::Instruction { instruction, input, output } if instruction.is_empty() && output.is_empty() => {
            (input.clone(), true)
        }
        Row::Instruction { instruction, input, output } => {
            (format!("{}{output}", instruction::prompt(instruction, input)), true)
        }
        Row::Messages(messages) if messages.is_empty() => (String::new(), false),
        Row::Messages(messages) => {
            let wrong = |source| DataError::Chat { place: place.to_owned(), source };
            let template = template.ok_or(ChatError::NoTemplate).map_err(wrong)?;
            (template.write(messages).map_err(wrong)?, false)
        }
    };
    // Special tokens alone are no sample.
    if text.is_empty() { Ok(Vec::new()) } else { Ok(tokenizer.encode(&text, add_special)?) }
}
