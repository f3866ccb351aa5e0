//! What a model writes after prompts, many at a time, up to where each reply ends.

use std::cmp::Reverse;
use std::sync::Arc;

use tch::{Kind, Tensor};

use super::error::EvalError;
use super::python::random::PythonRandom;
use super::task::{GenerationRule, Place, Sampling};
use crate::finite::is_finite;
use crate::model::generate::generate;
use crate::model::{Config, Decoder, Tokenizer};

/// Keys and values of the replies that are written together take so many bytes at most. A constant, so that an
/// interrupted evaluation packs the same batches again.
const CACHE_BYTES: u64 = 1 << 30;
/// Prompts that are continued together at most.
pub(super) const MOST_PROMPTS: usize = 64;
/// Tokens of a reply's end that are looked at for a text that ends it, beside one for each of its bytes.
const LOOKED_AT: usize = 4;

/// A prompt as tokens.
#[derive(Clone, Debug)]
pub(super) struct Prompt {
    /// Where its row stands.
    pub(super) place: Place,
    /// At least one.
    pub(super) ids: Vec<i64>,
    /// How the reply goes on, and where it ends.
    pub(super) rule: Arc<GenerationRule>,
}

/// Packs prompts into batches: indices of `prompts`, the longest first, as many together as keys and values have room for, at
/// most `most`. Depends on nothing else.
pub(super) fn pack(prompts: &[Prompt], config: &Config, kind: Kind, most: usize) -> Vec<Vec<usize>> {
    let token_bytes = config.cache_bytes(kind.elt_size_in_bytes() as u64);
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    order.sort_by_key(|&index| Reverse(prompts[index].ids.len()));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut room = 0;
    for index in order {
        match batches.last_mut() {
            Some(batch) if batch.len() < room => batch.push(index),
            _ => {
                let prompt = &prompts[index];
                let tokens = (prompt.ids.len() + prompt.rule.max_gen_toks) as u64;
                let rows = CACHE_BYTES / (token_bytes * tokens).max(1);
                room = usize::try_from(rows).unwrap_or(most).clamp(1, most);
                batches.push(vec![index]);
            }
        }
    }
    batches
}

/// A reply that is being written.
struct Draft<'a> {
    rule: &'a GenerationRule,
    tokens: Vec<u32>,
    random: PythonRandom,
    /// Tokens of the end that are searched for a text that ends the reply.
    looked_at: usize,
}

/// Writes replies with one model.
#[derive(Clone)]
pub(super) struct Writer<'a> {
    decoder: &'a Decoder,
    tokenizer: &'a Tokenizer,
    /// Tokens that end every reply.
    ends: Vec<i64>,
    seed: u64,
}

impl<'a> Writer<'a> {
    /// `ends` are the tokens that end every reply; `seed` is that of drawn tokens.
    pub(super) fn new(decoder: &'a Decoder, tokenizer: &'a Tokenizer, ends: Vec<i64>, seed: u64) -> Self {
        Self { decoder, tokenizer, ends, seed }
    }

    /// The replies to the prompts `indices` of `prompts`, in that order: without what ends them.
    ///
    /// # Errors
    /// When libtorch or the tokenizer fails, or the model computes a NaN.
    pub(super) fn reply(&self, prompts: &[Prompt], indices: &[usize]) -> Result<Vec<String>, EvalError> {
        let mut drafts: Vec<Draft<'_>> = indices
            .iter()
            .map(|&index| {
                let rule = &*prompts[index].rule;
                let looked_at = rule.until.iter().map(String::len).max().unwrap_or(0) + LOOKED_AT;
                // A prompt draws its own numbers, whatever stands beside it in a batch.
                let random = PythonRandom::new(self.seed ^ (index as u64).rotate_left(32));
                Draft { rule, tokens: Vec::new(), random, looked_at }
            })
            .collect();
        let ids: Vec<&[i64]> = indices.iter().map(|&index| prompts[index].ids.as_slice()).collect();
        let room = drafts.iter().map(|draft| draft.rule.max_gen_toks).max().unwrap_or(0);
        generate::<EvalError>(self.decoder, &ids, room, &mut |rows, logits| {
            let (highest, likeliest) = logits.f_max_dim(-1, false)?;
            if !is_finite(&highest)? {
                let finite = Vec::<bool>::try_from(highest.f_isfinite()?)?;
                let row = rows[finite.iter().position(|is_finite| !is_finite).unwrap_or_default()];
                let place = prompts[indices[row]].place.clone();
                return Err(EvalError::ReplyNotFinite { place, token: drafts[row].tokens.len() });
            }
            let likeliest = Vec::<i64>::try_from(likeliest)?;
            let mut chosen = Vec::with_capacity(rows.len());
            for (place, &row) in rows.iter().enumerate() {
                let draft = &mut drafts[row];
                let token = match draft.rule.sampling {
                    None => likeliest[place],
                    Some(sampling) => draw(&logits.f_select(0, place as i64)?, sampling, &mut draft.random)?,
                };
                draft.tokens.push(u32::try_from(token).unwrap_or_default());
                chosen.push((!self.is_finished(draft, token)?).then_some(token));
            }
            Ok(chosen)
        })?;
        drafts.iter().map(|draft| self.text(draft)).collect()
    }

    /// Whether `token`, the last of the draft, ends it.
    fn is_finished(&self, draft: &Draft<'_>, token: i64) -> Result<bool, EvalError> {
        if self.ends.contains(&token) || draft.tokens.len() >= draft.rule.max_gen_toks {
            return Ok(true);
        }
        let holds = |text: &str| draft.rule.until.iter().any(|end| !end.is_empty() && text.contains(end));
        let tail = &draft.tokens[draft.tokens.len().saturating_sub(draft.looked_at)..];
        // The end of a text may look otherwise by itself: only the whole decides.
        Ok(!draft.rule.until.is_empty()
            && holds(&self.tokenizer.decode(tail, true)?)
            && holds(&self.tokenizer.decode(&draft.tokens, true)?))
    }

    /// The reply, up to the first text that ends it.
    fn text(&self, draft: &Draft<'_>) -> Result<String, EvalError> {
        let text = self.tokenizer.decode(&draft.tokens, true)?;
        let ends = draft.rule.until.iter().filter(|end| !end.is_empty());
        // One after another, as lm-eval does it: they may overlap.
        let reply = ends.fold(text.as_str(), |text, end| text.split(end.as_str()).next().unwrap_or(text));
        Ok(reply.to_owned())
    }
}

/// Draws a token by its logits `[vocabulary]`: temperature, then the `top_k` likeliest, then those of them that come to `top_p`,
/// in transformers' order. Equal ones are taken by their number.
fn draw(logits: &Tensor, sampling: Sampling, random: &mut PythonRandom) -> Result<i64, EvalError> {
    let logits = Vec::<f32>::try_from(logits.f_to_kind(Kind::Float)?.f_to_device(tch::Device::Cpu)?)?;
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&one, &other| logits[other].total_cmp(&logits[one]).then(one.cmp(&other)));
    order.truncate(sampling.top_k.unwrap_or(order.len()).max(1));
    let highest = order.first().map_or(0.0, |&token| logits[token]);
    let weight = |token: usize| (f64::from(logits[token] - highest) / sampling.temperature).exp();
    let total: f64 = order.iter().map(|&token| weight(token)).sum();
    let (mut kept, mut mass) = (0, 0.0);
    while kept < order.len() && (kept == 0 || mass < sampling.top_p * total) {
        mass += weight(order[kept]);
        kept += 1;
    }
    let mut rest = random.random() * mass;
    for &token in &order[..kept] {
        rest -= weight(token);
        if rest < 0.0 {
            return Ok(token as i64);
        }
    }
    Ok(order[kept - 1] as i64)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn share_of(token: i64, sampling: Sampling) -> f64 {
        let logits = Tensor::from_slice(&[2.0_f32, 1.0, 0.0, -1.0]);
        let mut random = PythonRandom::new(1);
        let drawn = (0..4000).filter(|_| draw(&logits, sampling, &mut random).unwrap() == token).count();
        drawn as f64 / 4000.0
    }

    #[test]
    fn tokens_are_drawn_by_their_probabilities() {
        let all = Sampling { temperature: 1.0, top_k: None, top_p: 1.0 };
        // exp(2 - i) over their sum.
        for (token, share) in [(0, 0.6439), (1, 0.2369), (2, 0.0871), (3, 0.0321)] {
            assert!((share_of(token, all) - share).abs() < 0.03, "{token}");
        }
        assert!(share_of(0, Sampling { temperature: 0.5, ..all }) > 0.8);
    }

    #[test]
    fn unlikely_tokens_are_left_out() {
        let two = Sampling { temperature: 1.0, top_k: Some(2), top_p: 1.0 };
        assert_eq!(share_of(2, two) + share_of(3, two), 0.0);
        let three = Sampling { temperature: 1.0, top_k: None, top_p: 0.9 };
        assert_eq!(share_of(3, three), 0.0);
        assert!(share_of(2, three) > 0.0);
        assert_eq!(share_of(0, Sampling { temperature: 1.0, top_k: None, top_p: 0.1 }), 1.0);
    }

    #[test]
    fn prompts_are_packed_by_their_length_and_the_room_for_keys() {
        let config: Config = crate::model::Config::read(std::path::Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../examples/tiny"
        )))
        .unwrap();
        let prompt = |length: usize, most: usize| Prompt {
            place: Place { file: Arc::default(), line: 1 },
            ids: vec![0; length],
            rule: Arc::new(GenerationRule {
                until: Vec::new(),
                max_gen_toks: most,
                sampling: None,
                arguments: serde_json::Value::Null,
            }),
        };
        let prompts: Vec<Prompt> = [3, 9, 5].map(|length| prompt(length, 4)).to_vec();
        assert_eq!(pack(&prompts, &config, Kind::Float, MOST_PROMPTS), [vec![1, 2, 0]]);
        let long: Vec<Prompt> = [3, 9, 5].map(|length| prompt(length, 1 << 30)).to_vec();
        assert_eq!(pack(&long, &config, Kind::Float, MOST_PROMPTS), [vec![1], vec![2], vec![0]]);
        assert_eq!(pack(&vec![prompt(1, 1); 65], &config, Kind::Float, MOST_PROMPTS).len(), 2);
        assert_eq!(pack(&prompts, &config, Kind::Float, 1).len(), 3);
    }
}
