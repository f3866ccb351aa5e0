//! One more token for every row as a CUDA graph: recorded once, repeated for each token. What a card needs for a token is less than
//! what a processor needs to queue its hundreds of operations.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use qpipe_kernels::cuda::Graph;
use qpipe_kernels::decode::{self, Parts, Slots};
use tch::{Kind, TchError, Tensor};

use super::decoder::Decoder;
use super::kv_cache::{KvCache, Past};
use super::patterns::Attention;
use crate::memory::release_cached;

/// So many tokens are written without a graph after the rows have changed: recording one takes as long as writing two.
const STEADY: usize = 2;

/// What graphs had in memory stays with libtorch when they are gone. After so many it is given back.
const RELEASE_AFTER: usize = 16;

/// Graphs that were to be recorded in this process.
static RECORDED: AtomicUsize = AtomicUsize::new(0);

/// Places for the next token of every row, of which the card alone knows where they are.
#[derive(Debug)]
struct NextToken<'a> {
    cache: &'a KvCache,
    place: &'a Tensor,
    first: &'a Tensor,
    parts: &'a Parts,
}

impl Past for NextToken<'_> {
    fn append_positions(&mut self, positions: &Tensor) -> Tensor {
        positions.shallow_clone()
    }

    fn append(&mut self, _layer: usize, _keys: &Tensor, _values: &Tensor) -> (Tensor, Tensor) {
        unreachable!("`next` says where keys and values go")
    }

    fn next(&self, layer: usize) -> Option<Slots<'_>> {
        let (keys, values) = self.cache.buffers(layer)?;
        let Self { place, first, parts, .. } = *self;
        Some(Slots { keys, values, place, first: Some(first), parts })
    }
}

/// A recorded step.
#[derive(Debug)]
struct Step {
    graph: Graph,
    /// i64 [B, 1].
    ids: Tensor,
    /// i64 `[1]`: tokens before this one.
    place: Tensor,
    /// What the graph reads and writes beside it: where rows begin, i64 `[B]`, and room for attention.
    _kept: (Tensor, Parts),
    /// [B, vocabulary].
    logits: Tensor,
}

impl Step {
    /// For a cache with a token at least, whose buffers must stay as long; `padding` is i64 [B, 1]. `None` where it cannot be recorded.
    fn record(decoder: &Decoder, cache: &KvCache, padding: &Tensor) -> Result<Option<Self>, TchError> {
        let device = decoder.device();
        let ids = Tensor::f_zeros([padding.size()[0], 1], (Kind::Int64, device))?;
        let place = Tensor::f_full([1], cache.len(), (Kind::Int64, device))?;
        let first = padding.f_reshape([-1])?.f_contiguous()?;
        let (keys, _) = cache.buffers(0).expect("the cache has tokens");
        let parts = Parts::new(decoder.config().heads, keys).expect("`can_decode` has looked at the shape");
        if RECORDED.fetch_add(1, Ordering::Relaxed) % RELEASE_AFTER == RELEASE_AFTER - 1 {
            release_cached(device);
        }
        let pass = || -> Result<Tensor, TchError> {
            let positions = place.f_sub(&first)?.f_unsqueeze(1)?;
            let mut past = NextToken { cache, place: &place, first: &first, parts: &parts };
            let hidden = decoder.hidden(&ids, &positions, &Attention::Next, Some(&mut past));
            Ok(decoder.logits(&hidden.f_select(1, 0)?))
        };
        // Once without: code is loaded. What it writes is written over. What fails in either, for want of memory say, is left to the way without
        // a graph, which says so if it fails, too.
        let recorded = catch_unwind(AssertUnwindSafe(|| -> Result<(Graph, Tensor), String> {
            let _ = pass().map_err(|error| error.to_string())?;
            let (graph, logits) = Graph::record(device, pass).map_err(|error| error.to_string())?;
            Ok((graph, logits.map_err(|error| error.to_string())?))
        }));
        let reason = match recorded {
            Ok(Ok((graph, logits))) => {
                return Ok(Some(Self { graph, ids, place, _kept: (first, parts), logits }));
            }
            Ok(Err(reason)) => reason,
            Err(_) => String::from("an operation failed"),
        };
        tracing::debug!("tokens are written without a CUDA graph: {reason}");
        release_cached(device);
        Ok(None)
    }

    /// The logits after `tokens`, one a row, which have `place` before them; they stand until the next call.
    fn run(&mut self, tokens: &[i64], place: i64) -> Result<Tensor, TchError> {
        self.ids.f_copy_(&Tensor::f_from_slice(tokens)?.f_unsqueeze(1)?)?;
        let _ = self.place.f_fill_(place)?;
        self.graph.replay().map_err(|error| TchError::Torch(error.to_string()))?;
        Ok(self.logits.shallow_clone())
    }
}

/// The steps of one batch of rows: recorded once the rows stay the same.
#[derive(Debug)]
pub(super) struct Steps<'a> {
    decoder: &'a Decoder,
    is_possible: bool,
    /// Tokens a row since the rows have changed.
    written: usize,
    step: Option<Step>,
    /// Tokens a row that the graph has put into the cache's buffers, and that the cache does not know of.
    ahead: i64,
}

impl<'a> Steps<'a> {
    /// Those of `decoder`. LLM.int8() waits for the card in every layer.
    pub(super) fn new(decoder: &'a Decoder) -> Self {
        let config = decoder.config();
        let heads = (config.heads, config.kv_heads, config.head_dim);
        let is_possible =
            !decoder.mixes_tokens() && decode::can_decode(decoder.kind(), decoder.device(), heads);
        Self { decoder, is_possible, written: 0, step: None, ahead: 0 }
    }

    /// The logits [B, vocabulary] after `tokens`, one a row; they stand until the next call. `None`: this token is to be written without a
    /// graph.
    pub(super) fn next(
        &mut self,
        tokens: &[i64],
        cache: &mut KvCache,
        padding: &Tensor,
    ) -> Result<Option<Tensor>, TchError> {
        if !self.is_possible || cache.is_empty() {
            return Ok(None);
        }
        let place = cache.len() + self.ahead;
        if place >= cache.room() {
            // The buffers have to grow.
            self.leave(cache, padding)?;
            return Ok(None);
        }
        if self.step.is_none() {
            self.written += 1;
            if self.written <= STEADY {
                return Ok(None);
            }
            self.step = Step::record(self.decoder, cache, padding)?;
        }
        let Some(step) = &mut self.step else {
            self.is_possible = false;
            return Ok(None);
        };
        let logits = step.run(tokens, place)?;
        self.ahead += 1;
        Ok(Some(logits))
    }

    /// Tells `cache` what was written into its buffers: rows, or the buffers, are about to change.
    pub(super) fn leave(&mut self, cache: &mut KvCache, padding: &Tensor) -> Result<(), TchError> {
        if self.ahead > 0 {
            let (from, device) = (cache.len(), self.decoder.device());
            let places = Tensor::f_arange_start(from, from + self.ahead, (Kind::Int64, device))?;
            cache.advance(&places.f_sub(padding)?);
        }
        (self.step, self.written, self.ahead) = (None, 0, 0);
        Ok(())
    }
}
