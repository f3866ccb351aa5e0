//! A task's documents on their way to the model: as tokens, then laid out in batches.

use std::ops::Range;
use std::sync::Arc;

use super::engine;
use super::layout::{self, Batch};
use super::replies::{self, Prompt};
use super::sequences::Sequences;
use super::task::{Asked, Document};
use crate::model::Decoder;

/// A task's documents as tokens, in their order.
pub(super) enum Tokens {
    /// Continuations to be scored.
    Sequences(Vec<Sequences>),
    /// Prompts to be continued, one a document.
    Prompts(Vec<Prompt>),
}

/// A task's documents, laid out.
pub(super) enum Work {
    /// Continuations to be scored.
    Score(Vec<Batch>),
    /// Prompts to be continued: batches are lists of their indices.
    Write { prompts: Vec<Prompt>, batches: Vec<Vec<usize>> },
}

impl Work {
    /// Lays out `tokens` for a `decoder`, and maybe a `reference`, in batches of about `batch_tokens` tokens. Depends on nothing
    /// that changes between attempts, so that an interrupted evaluation forms the same batches again.
    pub(super) fn new(
        tokens: Tokens,
        decoder: &Decoder,
        reference: Option<&Decoder>,
        batch_tokens: usize,
    ) -> Self {
        let is_apart = decoder.mixes_tokens() || reference.is_some_and(Decoder::mixes_tokens);
        match tokens {
            Tokens::Sequences(sequences) => Self::Score(match is_apart {
                true => layout::apart(&sequences, batch_tokens),
                false => layout::together(&sequences, engine::cost((decoder, reference)), batch_tokens),
            }),
            Tokens::Prompts(prompts) => {
                let most = if is_apart { 1 } else { replies::MOST_PROMPTS };
                let batches = replies::pack(&prompts, decoder.config(), decoder.kind(), most);
                Self::Write { prompts, batches }
            }
        }
    }

    /// Tokens that go through the model before anything is written, a prefix once.
    pub(super) fn tokens(&self) -> u64 {
        let tokens = |(prefix, batches): (usize, Range<usize>)| {
            prefix + batches.map(|batch| self.tokens_of(batch)).sum::<usize>()
        };
        self.families().map(tokens).sum::<usize>() as u64
    }

    /// Whether continuations are to be scored.
    pub(super) fn is_scoring(&self) -> bool {
        matches!(self, Self::Score(_))
    }

    /// How many batches there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Score(batches) => batches.len(),
            Self::Write { batches, .. } => batches.len(),
        }
    }

    /// All batches, those together that begin with the same tokens: how many these are, and the batches.
    pub(super) fn families(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        let mut families = Vec::new();
        match self {
            Self::Score(batches) => {
                let mut end = 0;
                for family in batches.chunk_by(Batch::is_akin) {
                    families.push((family[0].prefix.len(), end..end + family.len()));
                    end += family.len();
                }
            }
            Self::Write { batches, .. } => {
                families.extend((0..batches.len()).map(|batch| (0, batch..batch + 1)))
            }
        }
        families.into_iter()
    }

    /// What the rows of a batch begin with; nothing, mostly.
    pub(super) fn prefix(&self, batch: usize) -> Option<&Arc<[i64]>> {
        match self {
            Self::Score(batches) => Some(&batches[batch].prefix).filter(|prefix| !prefix.is_empty()),
            Self::Write { .. } => None,
        }
    }

    /// Tokens of a batch behind those of its family.
    pub(super) fn tokens_of(&self, batch: usize) -> usize {
        match self {
            Self::Score(batches) => batches[batch].tokens(),
            Self::Write { prompts, batches } => {
                batches[batch].iter().map(|&index| prompts[index].ids.len()).sum()
            }
        }
    }

    /// The documents of a batch, each once.
    pub(super) fn documents(&self, batch: usize) -> Vec<usize> {
        match self {
            Self::Score(batches) => batches[batch].documents(),
            Self::Write { batches, .. } => batches[batch].clone(),
        }
    }
}

/// Whether `documents`, which are of one task, are prompts to be continued.
pub(super) fn are_prompts(documents: &[Document]) -> bool {
    matches!(documents.first().map(|document| &document.asked), Some(Asked::Reply(_)))
}
