//! Documents as tokens.

use std::collections::HashMap;

use qpipe_nodes::kinds::Bos;

use super::error::EvalError;
use super::python;
use super::task::{Document, Overlong, Place, Request, Rules};
use crate::model::{ModelError, Tokenizer};

/// Documents whose texts are in memory twice at one time.
const ENCODED_AT_ONCE: usize = 1024;

/// A request as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Tokens of context + continuation.
    pub ids: Vec<i64>,
    /// Tokens of the context alone, at least one. The continuation is what follows so many tokens, even where the tokenizer
    /// merges over the border.
    pub context: usize,
}

/// A document as tokens, one sequence a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequences(pub Vec<Sequence>);

impl Sequences {
    /// Tokens of context + continuation over all requests.
    pub fn tokens(&self) -> u64 {
        self.0.iter().map(|sequence| sequence.ids.len() as u64).sum()
    }
}

/// Turns documents into tokens under one rule for the beginning-of-sequence token.
#[derive(Debug)]
pub struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    /// The token, and how it is written.
    bos: Option<(i64, String)>,
    /// What stands for an empty context: the token that begins a sequence, else the one that ends it.
    prefix: Option<i64>,
    overlong: Overlong,
    /// The most tokens that the model has positions for.
    positions: usize,
}

impl<'a> Encoder<'a> {
    /// `rule` is the pipeline's, if it has one; `positions` is the most tokens that the model has positions for.
    ///
    /// # Errors
    /// When a beginning-of-sequence token is due and the tokenizer has none.
    pub fn new(
        tokenizer: &'a Tokenizer,
        rules: Rules,
        rule: Option<Bos>,
        positions: i64,
    ) -> Result<Self, EvalError> {
        let token = tokenizer.bos_id();
        let bos = match rule.unwrap_or(rules.bos) {
            Bos::Never => None,
            Bos::Always => Some(token.ok_or(EvalError::NoBos)?),
            Bos::Tokenizer => match token {
                Some(token) if tokenizer.adds_bos()? => Some(token),
                _ => None,
            },
        };
        let bos = match bos {
            Some(token) => Some((i64::from(token), tokenizer.decode(&[token], false)?)),
            None => None,
        };
        let prefix = token.or_else(|| tokenizer.eos_id()).map(i64::from);
        Ok(Self {
            tokenizer,
            bos,
            prefix,
            overlong: rules.overlong,
            positions: usize::try_from(positions).unwrap_or(0),
        })
    }

    /// The tokens of one document.
    ///
    /// # Errors
    /// When a continuation adds no token, or the model's context is too short.
    pub fn encode(&self, document: &Document) -> Result<Sequences, EvalError> {
        let mut encoded = self.encode_all(std::slice::from_ref(document))?;
        Ok(encoded.pop().expect("one document, one answer"))
    }

    /// The tokens of many documents, on all cores. A text that several requests share is encoded once.
    ///
    /// # Errors
    /// Those of [`Encoder::encode`], for the first document that has one.
    pub fn encode_all(&self, documents: &[Document]) -> Result<Vec<Sequences>, EvalError> {
        let mut sequences = Vec::with_capacity(documents.len());
        for some in documents.chunks(ENCODED_AT_ONCE) {
            let mut texts = Texts::default();
            for request in some.iter().flat_map(|document| &document.requests) {
                let (context, continuation) = parts(request);
                if context.is_empty() {
                    texts.add(continuation);
                } else {
                    texts.add(context.to_owned());
                    texts.add(format!("{context}{continuation}"));
                }
            }
            let encoded = texts.encode(self.tokenizer)?;
            for document in some {
                let sequence = |(index, request)| self.sequence(&document.place, index, request, &encoded);
                let requests = document.requests.iter().enumerate().map(sequence);
                sequences.push(Sequences(requests.collect::<Result<_, EvalError>>()?));
            }
        }
        Ok(sequences)
    }

    fn sequence(
        &self,
        place: &Place,
        index: usize,
        request: &Request,
        encoded: &HashMap<String, Vec<i64>>,
    ) -> Result<Sequence, EvalError> {
        let (context, continuation) = parts(request);
        let tokens = |text: &str| encoded.get(text).map(Vec::as_slice).unwrap_or_default();
        let (mut ids, mut context) = if context.is_empty() {
            // Nothing is before the continuation but the token that begins a sequence.
            let prefix = self.prefix.ok_or_else(|| EvalError::EmptyPrompt { place: place.clone() })?;
            let continuation = tokens(&continuation);
            let given = usize::from(continuation.first() == Some(&prefix));
            (std::iter::once(prefix).chain(continuation[given..].iter().copied()).collect::<Vec<_>>(), 1)
        } else {
            let bos = match &self.bos {
                // A context that begins with it, as a chat template's does, gets no second one.
                Some((token, text)) if text.is_empty() || !context.starts_with(text) => Some(*token),
                _ => None,
            };
            let with_bos = |ids: &[i64]| bos.into_iter().chain(ids.iter().copied()).collect::<Vec<_>>();
            (with_bos(tokens(&format!("{context}{continuation}"))), with_bos(tokens(context)).len())
        };
        if context == 0 {
            return Err(EvalError::EmptyPrompt { place: place.clone() });
        }
        if ids.len() <= context {
            return Err(EvalError::EmptyCandidate { place: place.clone(), index });
        }
        match self.overlong {
            Overlong::Refuse if ids.len() > self.positions => {
                let (tokens, context) = (ids.len(), self.positions as i64);
                return Err(EvalError::TooLong { place: place.clone(), tokens, context });
            }
            Overlong::Refuse => {}
            // The last token is scored, never read: one more fits.
            Overlong::CutContext => {
                let tokens = ids.len() - context;
                if tokens > self.positions {
                    let context = self.positions as i64;
                    return Err(EvalError::LongContinuation { place: place.clone(), index, tokens, context });
                }
                let beyond = ids.len().saturating_sub(self.positions + 1);
                ids.drain(..beyond);
                context -= beyond;
            }
        }
        Ok(Sequence { ids, context })
    }
}

/// The request with the whitespace at the end of its context moved to the front of its continuation.
fn parts(request: &Request) -> (&str, String) {
    let context = python::strip_end(&request.context);
    (context, format!("{}{}", &request.context[context.len()..], request.continuation))
}

/// Texts to be encoded, each once.
#[derive(Default)]
struct Texts {
    texts: Vec<String>,
    known: HashMap<String, ()>,
}

impl Texts {
    fn add(&mut self, text: String) {
        if self.known.insert(text.clone(), ()).is_none() {
            self.texts.push(text);
        }
    }

    fn encode(self, tokenizer: &Tokenizer) -> Result<HashMap<String, Vec<i64>>, ModelError> {
        let encoded = tokenizer.encode_batch(self.texts.clone(), false)?;
        let wide = |ids: Vec<u32>| ids.into_iter().map(i64::from).collect();
        Ok(self.texts.into_iter().zip(encoded.into_iter().map(wide)).collect())
    }
}
