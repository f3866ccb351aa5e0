//! Rows as token numbers, each marked as learned or not.
//!
//! Text, prompts with completions and instructions are tokenized with the special tokens that the tokenizer adds
//! by itself (a BOS where it has one), and end with the end-of-sequence token where the tokenizer has one, unless
//! the row had to be cut. The completion is what follows the first `len(encode(prompt))` tokens of
//! `encode(prompt + completion)`: the same border that evaluation uses. A conversation is whatever the model's
//! chat template writes, with nothing added.

use std::ops::Range;

use crate::data::chat::{ChatError, Rendered};
use crate::data::rows::{Row, Rows};
use crate::data::{ChatTemplate, DataError, instruction};
use crate::model::Tokenizer;

/// A row to train on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Token numbers.
    pub ids: Vec<i64>,
    /// For each token, whether the model is to learn to predict it. The first never is: nothing comes before it.
    pub learn: Vec<bool>,
}

impl Sample {
    fn has_targets(&self) -> bool {
        self.learn.iter().skip(1).any(|learn| *learn)
    }
}

/// All rows of a training run.
#[derive(Debug, Default)]
pub struct Samples {
    /// Rows with something to learn, in the order of the data.
    pub samples: Vec<Sample>,
    /// How many were longer than the limit.
    pub cut: usize,
    /// Where rows without a token to learn from stand; they are left out.
    pub empty: Vec<String>,
}

/// Tokenizes rows.
pub struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    template: Option<ChatTemplate>,
    end: Option<u32>,
    max_length: usize,
}

impl<'a> Encoder<'a> {
    /// `max_length` is the longest row in tokens.
    pub fn new(tokenizer: &'a Tokenizer, max_length: usize) -> Result<Self, DataError> {
        let template = ChatTemplate::of(tokenizer)?;
        Ok(Self { tokenizer, template, end: tokenizer.eos_id(), max_length })
    }

    /// Tokenizes all rows.
    pub fn all(&self, rows: &Rows) -> Result<Samples, DataError> {
        let mut all = Samples::default();
        for located in &rows.rows {
            let place = || rows.place(located);
            let mut sample = self.sample(&located.row, &place)?;
            if sample.ids.len() > self.max_length {
                sample.ids.truncate(self.max_length);
                sample.learn.truncate(self.max_length);
                all.cut += 1;
            }
            if sample.has_targets() {
                all.samples.push(sample);
            } else {
                all.empty.push(place());
            }
        }
        Ok(all)
    }

    fn sample(&self, row: &Row, place: &dyn Fn() -> String) -> Result<Sample, DataError> {
        match row {
            Row::Text(text) => self.continuation("", text),
            Row::Completion { prompt, completion } => self.continuation(prompt, completion),
            Row::Instruction { instruction, input, output } => {
                self.continuation(&instruction::prompt(instruction, input), output)
            }
            Row::Messages(messages) => {
                let wrong = |source| DataError::Chat { place: place(), source };
                let template = self.template.as_ref().ok_or(ChatError::NoTemplate).map_err(wrong)?;
                self.conversation(&template.render(messages).map_err(wrong)?)
            }
        }
    }

    /// `prompt`, not learned, then `text` and the end, learned.
    fn continuation(&self, prompt: &str, text: &str) -> Result<Sample, DataError> {
        let border = if prompt.is_empty() { 0 } else { self.length_of(prompt, true)? };
        let mut ids = self.tokenizer.encode(&format!("{prompt}{text}"), true)?;
        if let Some(end) = self.end
            && ids.last() != Some(&end)
        {
            ids.push(end);
        }
        // An empty completion teaches nothing, not even to stop.
        let border = if text.is_empty() { ids.len() } else { border };
        let learned = border..ids.len();
        Ok(Sample::new(&ids, std::slice::from_ref(&learned)))
    }

    fn conversation(&self, rendered: &Rendered) -> Result<Sample, DataError> {
        let ids = self.tokenizer.encode(&rendered.text, false)?;
        let mut learned = Vec::with_capacity(rendered.learned.len());
        for range in &rendered.learned {
            let start = self.length_of(&rendered.text[..range.start], false)?;
            let end = self.length_of(&rendered.text[..range.end], false)?;
            learned.push(start..end);
        }
        Ok(Sample::new(&ids, &learned))
    }

    /// Tokens of `text`, an end that the tokenizer itself puts behind it not counted.
    fn length_of(&self, text: &str, add_special: bool) -> Result<usize, DataError> {
        if text.is_empty() && !add_special {
            return Ok(0);
        }
        let ids = self.tokenizer.encode(text, add_special)?;
        let ends = add_special && self.end.is_some() && ids.last().copied() == self.end;
        Ok(ids.len() - usize::from(ends))
    }
}

impl Sample {
    fn new(ids: &[u32], learned: &[Range<usize>]) -> Self {
        Self {
            ids: ids.iter().map(|id| i64::from(*id)).collect(),
            learn: (0..ids.len())
                .map(|place| place > 0 && learned.iter().any(|range| range.contains(&place)))
                .collect(),
        }
    }
}
