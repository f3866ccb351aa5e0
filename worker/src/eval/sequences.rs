//! Documents as tokens.

use qpipe_nodes::kinds::Bos;

use super::error::EvalError;
use super::task::{Document, Place};
use crate::model::Tokenizer;

/// A document as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequences {
    /// Tokens of prompt + candidate, one sequence a candidate.
    pub full: Vec<Vec<i64>>,
    /// Tokens of the prompt alone. A candidate is what follows so many tokens of its sequence, even where the
    /// tokenizer merges over the border.
    pub prompt_tokens: usize,
}

impl Sequences {
    /// Tokens of prompt + candidate over all candidates.
    pub fn tokens(&self) -> u64 {
        self.full.iter().map(|ids| ids.len() as u64).sum()
    }
}

/// Turns documents into tokens under one rule for the beginning-of-sequence token.
#[derive(Debug)]
pub struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    bos: Option<i64>,
    context: i64,
}

impl<'a> Encoder<'a> {
    /// `context` is the most tokens that the model has positions for.
    ///
    /// # Errors
    /// When a beginning-of-sequence token is due and the tokenizer has none.
    pub fn new(tokenizer: &'a Tokenizer, rule: Bos, context: i64) -> Result<Self, EvalError> {
        let token = tokenizer.bos_id();
        let bos = match rule {
            Bos::Never => None,
            Bos::Always => Some(token.ok_or(EvalError::NoBos)?),
            Bos::Tokenizer => match token {
                Some(token) if adds_bos(tokenizer, token)? => Some(token),
                _ => None,
            },
        };
        Ok(Self { tokenizer, bos: bos.map(i64::from), context })
    }

    /// The tokens of one document.
    ///
    /// # Errors
    /// When a candidate adds no token, or the model's context is too short.
    pub fn encode(&self, document: &Document) -> Result<Sequences, EvalError> {
        let prompt = self.tokenizer.encode(&document.prompt, false)?;
        let full = texts(document).map(|text| Ok(self.tokenizer.encode(&text, false)?));
        self.sequences(&document.place, prompt, full.collect::<Result<_, EvalError>>()?)
    }

    /// The tokens of many documents, on all cores.
    ///
    /// # Errors
    /// Those of [`Encoder::encode`], for the first document that has one.
    pub fn encode_all(&self, documents: &[Document]) -> Result<Vec<Sequences>, EvalError> {
        let all = documents
            .iter()
            .flat_map(|document| [document.prompt.clone()].into_iter().chain(texts(document)));
        let mut encoded = self.tokenizer.encode_batch(all.collect(), false)?.into_iter();
        let mut sequences = Vec::with_capacity(documents.len());
        for document in documents {
            let prompt = encoded.next().unwrap_or_default();
            let full = encoded.by_ref().take(document.candidates.len()).collect();
            sequences.push(self.sequences(&document.place, prompt, full)?);
        }
        Ok(sequences)
    }

    fn sequences(
        &self,
        place: &Place,
        prompt: Vec<u32>,
        full: Vec<Vec<u32>>,
    ) -> Result<Sequences, EvalError> {
        let with_bos = |ids: Vec<u32>| -> Vec<i64> {
            self.bos.into_iter().chain(ids.into_iter().map(i64::from)).collect()
        };
        let prompt_tokens = with_bos(prompt).len();
        let full: Vec<Vec<i64>> = full.into_iter().map(with_bos).collect();
        if prompt_tokens == 0 {
            return Err(EvalError::EmptyPrompt { place: place.clone() });
        }
        if let Some(index) = full.iter().position(|ids| ids.len() <= prompt_tokens) {
            return Err(EvalError::EmptyCandidate { place: place.clone(), index });
        }
        let tokens = full.iter().map(Vec::len).max().unwrap_or(0);
        if i64::try_from(tokens).is_ok_and(|tokens| tokens <= self.context) {
            Ok(Sequences { full, prompt_tokens })
        } else {
            Err(EvalError::TooLong { place: place.clone(), tokens, context: self.context })
        }
    }
}

fn texts(document: &Document) -> impl Iterator<Item = String> {
    document.candidates.iter().map(|candidate| format!("{}{candidate}", document.prompt))
}

/// Whether the tokenizer puts the token before a text by itself: tokenizer_config.json's word, else what its
/// post-processor does.
fn adds_bos(tokenizer: &Tokenizer, token: u32) -> Result<bool, EvalError> {
    match tokenizer.adds_bos() {
        Some(adds) => Ok(adds),
        None => Ok(tokenizer.encode("a", true)?.first() == Some(&token)),
    }
}
