//! What a decoder writes, token by token, through a KV cache.

use tch::{Kind, TchError, Tensor};

use super::decoder::Decoder;
use super::kv_cache::KvCache;
use super::next_token::Steps;
use super::patterns::Attention;

/// Chooses each open row's next token, or `None` where the row is finished. Is given the rows (their index in the prompts,
/// ascending) and their logits [rows, vocabulary] in the model's type.
pub type Choose<'a, E> = dyn FnMut(&[usize], &Tensor) -> Result<Vec<Option<i64>>, E> + 'a;

/// Continues several prompts together. Prompts stand at the end of their rows, behind padding that nothing sees, so that
/// the next token of all rows is computed at once; a row that is finished leaves the batch.
///
/// `room` is how many tokens a row gets at most, as far as that is known: keys and values have their place from the start.
///
/// # Errors
///
/// Those of `choose`, and libtorch's.
pub fn generate<E: From<TchError>>(
    decoder: &Decoder,
    prompts: &[&[i64]],
    room: usize,
    choose: &mut Choose<'_, E>,
) -> Result<(), E> {
    let width = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
    if width == 0 {
        return Ok(());
    }
    let _guard = tch::no_grad_guard();
    let device = decoder.device();
    let mut rows: Vec<usize> = (0..prompts.len()).collect();
    let mut ids = Vec::with_capacity(rows.len() * width);
    for prompt in prompts {
        ids.resize(ids.len() + width - prompt.len(), 0);
        ids.extend_from_slice(prompt);
    }
    let padding: Vec<i64> = prompts.iter().map(|prompt| (width - prompt.len()) as i64).collect();
    let is_padded = padding.iter().any(|&places| places > 0);
    let mut padding = Tensor::from_slice(&padding).f_unsqueeze(1)?.f_to_device(device)?;
    let mut prompt =
        Some(Tensor::from_slice(&ids).f_view([rows.len() as i64, width as i64])?.f_to_device(device)?);
    let mut cache = KvCache::with_capacity(decoder.config(), (width + room) as i64);
    let mut steps = Steps::new(decoder);
    let mut tokens: Vec<i64> = Vec::new();
    loop {
        let logits = match steps.next(&tokens, &mut cache, &padding)? {
            Some(logits) => logits,
            None => {
                let input = match prompt.take() {
                    Some(prompt) => prompt,
                    None => Tensor::from_slice(&tokens).f_unsqueeze(1)?.f_to_device(device)?,
                };
                let (past, new) = (cache.len(), input.size()[1]);
                let places = Tensor::f_arange_start(past, past + new, (Kind::Int64, device))?;
                let positions = places.f_sub(&padding)?.f_clamp_min(0)?;
                let attention = match is_padded {
                    true => Attention::Mask(visible(past, new, &padding)?),
                    false => Attention::Causal,
                };
                let hidden = if new == 1 {
                    decoder.hidden(&input, &positions, &attention, Some(&mut cache))
                } else {
                    let last = Tensor::f_full([rows.len() as i64, 1], new - 1, (Kind::Int64, device))?;
                    decoder.hidden_at(&last, &input, &positions, &attention, Some(&mut cache))
                };
                decoder.logits(&hidden.f_squeeze_dim(1)?)
            }
        };
        let chosen = choose(&rows, &logits)?;
        tokens = chosen.iter().copied().flatten().collect();
        if tokens.is_empty() {
            return Ok(());
        }
        if tokens.len() < rows.len() {
            steps.leave(&mut cache, &padding)?;
            let open: Vec<usize> = (0..rows.len()).filter(|&row| chosen[row].is_some()).collect();
            rows = open.iter().map(|&row| rows[row]).collect();
            let open: Vec<i64> = open.into_iter().map(|row| row as i64).collect();
            let open = Tensor::from_slice(&open).f_to_device(device)?;
            padding = padding.f_index_select(0, &open)?;
            cache.select(&open)?;
        }
    }
}

/// Which of all places so far the `new` ones see: bool [B, 1, T, S]. Rows begin after their `padding`, i64 [B, 1]; padding
/// sees itself, so that no row of the attention is empty.
fn visible(past: i64, new: i64, padding: &Tensor) -> Result<Tensor, TchError> {
    let options = (Kind::Int64, padding.device());
    let keys = Tensor::f_arange(past + new, options)?.f_view([1, 1, 1, past + new])?;
    let queries = Tensor::f_arange_start(past, past + new, options)?.f_view([1, 1, new, 1])?;
    let begun = keys.f_ge_tensor(&padding.f_view([-1, 1, 1, 1])?)?;
    let before = keys.f_le_tensor(&queries)?;
    begun.f_logical_and(&before)?.f_logical_or(&keys.f_eq_tensor(&queries)?)
}
