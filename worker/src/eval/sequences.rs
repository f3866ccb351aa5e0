//! Documents as tokens.

use std::borrow::Cow;
use std::cell::Cell;

use qpipe_nodes::kinds::Bos;

use super::error::EvalError;
use super::families;
use super::python;
use super::task::{Asked, Border, Document, Overlong, Place, Request, Rules};
use crate::model::Tokenizer;

/// Documents whose texts are in memory twice at one time.
const ENCODED_AT_ONCE: usize = 1024;

/// A request as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Tokens of context + continuation.
    pub ids: Vec<i64>,
    /// Tokens of the context alone, at least one. The continuation is what follows so many tokens.
    pub context: usize,
}

/// A document as tokens, one sequence a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequences(pub Vec<Sequence>);

impl Sequences {
    /// How many tokens all requests begin with that are in the context of each, without its last one: that predicts what is
    /// scored.
    pub fn common_context(&self) -> usize {
        let first = self.0.first().map_or(&[][..], |sequence| &sequence.ids);
        let limit = |sequence: &Sequence| families::common(first, &sequence.ids).min(sequence.context - 1);
        self.0.iter().map(limit).min().unwrap_or(0)
    }

    /// Whether all sequences have their first token in common.
    pub fn begins_alike(&self) -> bool {
        let first = |sequence: &Sequence| sequence.ids.first().copied();
        self.0.windows(2).all(|pair| first(&pair[0]) == first(&pair[1]))
    }

    /// Tokens of context + continuation over all requests.
    pub fn tokens(&self) -> u64 {
        self.0.iter().map(|sequence| sequence.ids.len() as u64).sum()
    }
}

/// Turns documents into tokens under one rule for the special tokens around a text.
#[derive(Debug)]
pub struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    /// Special tokens before a text and behind it.
    around: [Vec<i64>; 2],
    /// A text that begins with this, as a chat template's does, has its special tokens already.
    given: String,
    /// What stands for an empty context: the token that begins a sequence, else the one that ends it.
    prefix: Option<i64>,
    overlong: Overlong,
    border: Border,
    /// The most tokens that the model has positions for.
    positions: usize,
    /// Documents of which a context lost tokens so far.
    cut: Cell<u64>,
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
        let (mut before, mut after) = tokenizer.special_around()?;
        match rule.unwrap_or(rules.bos) {
            Bos::Never => (before, after) = (Vec::new(), Vec::new()),
            Bos::Always => {
                let token = token.ok_or(EvalError::NoBos)?;
                if !before.contains(&token) {
                    before.insert(0, token);
                }
            }
            Bos::Tokenizer => {}
        }
        let first = token.or_else(|| tokenizer.eos_id());
        let given = first.map(|first| tokenizer.decode(&[first], false)).transpose()?.unwrap_or_default();
        let prefix = first.map(i64::from);
        Ok(Self {
            tokenizer,
            around: [before, after].map(|ids| wide(&ids).collect()),
            given,
            prefix,
            overlong: rules.overlong,
            border: rules.border,
            positions: usize::try_from(positions).unwrap_or(0),
            cut: Cell::new(0),
        })
    }

    /// Of how many documents a context or the prompt was too long and lost its first tokens.
    pub fn cut(&self) -> u64 {
        self.cut.get()
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
            let texts: Vec<Cow<'_, str>> = some.iter().flat_map(texts).collect();
            let encoded = self.tokenizer.encode_batch(&texts)?;
            let mut encoded = texts.iter().zip(&encoded).map(|(text, ids)| Encoded { text, ids });
            let mut next = || encoded.next().expect("a list of tokens for each text");
            for document in some {
                let (place, cut) = (&document.place, self.cut.get());
                sequences.push(Sequences(match &document.asked {
                    Asked::Text(_) => self.windows(place, next())?,
                    _ => {
                        let sequence = |(index, _)| self.sequence((place, index), next(), next());
                        let requests = document.requests().iter().enumerate().map(sequence);
                        requests.collect::<Result<_, EvalError>>()?
                    }
                }));
                self.cut.set(self.cut.get().min(cut + 1));
            }
            debug_assert!(encoded.next().is_none(), "as many lists as texts");
        }
        Ok(sequences)
    }

    /// The tokens of each prompt that the model is to continue, on all cores; `replies` says of each how long its reply may be.
    /// A prompt that is too long for that loses its first tokens.
    ///
    /// # Errors
    /// When a prompt has no tokens, or a reply has no room.
    pub fn encode_prompts(
        &self,
        prompts: &[(&Place, &str)],
        replies: &[usize],
    ) -> Result<Vec<Vec<i64>>, EvalError> {
        let texts: Vec<&str> = prompts.iter().map(|(_, prompt)| *prompt).collect();
        let encoded = self.tokenizer.encode_batch(&texts)?;
        let prompt = |((&(place, text), ids), &reply): ((&(&Place, &str), &Vec<u32>), &usize)| {
            let ids = self.whole(Encoded { text, ids });
            if ids.is_empty() {
                return Err(EvalError::EmptyPrompt { place: place.clone() });
            }
            let room = self.positions.saturating_sub(reply);
            if room == 0 {
                let context = self.positions;
                return Err(EvalError::LongReply { place: place.clone(), reply, context });
            }
            self.cut.set(self.cut.get() + u64::from(ids.len() > room));
            Ok(ids[ids.len().saturating_sub(room)..].to_vec())
        };
        prompts.iter().zip(&encoded).zip(replies).map(prompt).collect()
    }

    /// A text as windows of as many tokens as the model has positions for, each token predicted once: the first window after
    /// the token that begins a sequence, the others after the last token of the window before; the last one begins further
    /// back, so that it is full. A token that the tokenizer puts before the text is predicted like the others (lm-eval since
    /// 0.4.9.2); `bos: never` leaves it out.
    fn windows(&self, place: &Place, text: Encoded<'_>) -> Result<Vec<Sequence>, EvalError> {
        let prefix = self.prefix.ok_or_else(|| EvalError::EmptyPrompt { place: place.clone() })?;
        let tokens = self.whole(text);
        let first = tokens.len().min(self.positions);
        let mut windows = Vec::new();
        if first > 0 {
            let ids = std::iter::once(prefix).chain(tokens[..first].iter().copied()).collect();
            windows.push(Sequence { ids, context: 1 });
        }
        let mut done = first;
        while done < tokens.len() {
            let end = tokens.len().min(done + self.positions);
            let ids = tokens[end - self.positions - 1..end].to_vec();
            windows.push(Sequence { context: ids.len() - (end - done), ids });
            done = end;
        }
        Ok(windows)
    }

    /// A text with the special tokens around it, unless it has them already.
    fn whole(&self, Encoded { text, ids }: Encoded<'_>) -> Vec<i64> {
        if !self.given.is_empty() && text.starts_with(&self.given) {
            return wide(ids).collect();
        }
        let [before, after] = &self.around;
        before.iter().copied().chain(wide(ids)).chain(after.iter().copied()).collect()
    }

    /// A request of which the context is `alone`, and all of it `both`.
    fn sequence(
        &self,
        (place, index): (&Place, usize),
        alone: Encoded<'_>,
        both: Encoded<'_>,
    ) -> Result<Sequence, EvalError> {
        let (mut ids, mut context) = if alone.text.is_empty() {
            // Nothing is before the continuation but the token that begins a sequence.
            let prefix = self.prefix.ok_or_else(|| EvalError::EmptyPrompt { place: place.clone() })?;
            let given = usize::from(both.ids.first().is_some_and(|&first| i64::from(first) == prefix));
            (std::iter::once(prefix).chain(wide(&both.ids[given..])).collect::<Vec<_>>(), 1)
        } else {
            let (alone, both) = (self.whole(alone), self.whole(both));
            let before = match self.border {
                Border::Merged => &both[..alone.len().min(both.len())],
                Border::Apart => &alone,
            };
            let scored = both.get(alone.len()..).unwrap_or_default();
            ([before, scored].concat(), alone.len())
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
                self.cut.set(self.cut.get() + u64::from(beyond > 0));
                ids.drain(..beyond);
                context -= beyond;
            }
        }
        Ok(Sequence { ids, context })
    }
}

/// A text and its tokens.
#[derive(Clone, Copy)]
struct Encoded<'a> {
    text: &'a str,
    ids: &'a [u32],
}

/// What is encoded of a document: its text, or of each request the context, then all of it.
fn texts(document: &Document) -> Vec<Cow<'_, str>> {
    if let Asked::Text(whole) = &document.asked {
        return vec![Cow::Borrowed(&whole.text)];
    }
    let mut texts = Vec::new();
    for request in document.requests() {
        texts.push(Cow::Borrowed(context_of(request)));
        texts.push(Cow::Owned(format!("{}{}", request.context, request.continuation)));
    }
    texts
}

/// The whitespace at the end of a context belongs to the continuation.
fn context_of(request: &Request) -> &str {
    python::strip_end(&request.context)
}

fn wide(ids: &[u32]) -> impl Iterator<Item = i64> {
    ids.iter().copied().map(i64::from)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::eval::task::{Generation, GenerationRule, WholeText};

    /// Of a, b, c, ab and a space; c ends texts.
    fn tokenizer(post_processor: &serde_json::Value) -> (tempfile::TempDir, Tokenizer) {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": null, "post_processor": post_processor, "decoder": null,
            "model": {
                "type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, " ": 4}, "merges": ["a b"], "dropout": null,
                "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
                "byte_fallback": false,
            },
        });
        fs_err::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        fs_err::write(folder.path().join("special_tokens_map.json"), r#"{"eos_token": "c"}"#).unwrap();
        let tokenizer = Tokenizer::open(folder.path()).unwrap();
        (folder, tokenizer)
    }

    fn document(asked: Asked) -> Document {
        let place = Place { file: Arc::new(PathBuf::from("x")), line: 1 };
        Document { place, asked, choices: Vec::new(), gold: Vec::new(), source: None }
    }

    fn requests(pairs: &[(&str, &str)]) -> Document {
        let request = |&(context, continuation): &(&str, &str)| Request {
            context: context.into(),
            continuation: continuation.to_owned(),
        };
        document(Asked::Continuations(pairs.iter().map(request).collect()))
    }

    const RULES: Rules = Rules { bos: Bos::Never, overlong: Overlong::CutContext, border: Border::Apart };

    #[test]
    fn a_context_that_merges_with_its_continuation_stands_apart_for_lm_eval() {
        let (_folder, tokenizer) = tokenizer(&json!(null));
        for (border, expected) in [(Border::Merged, [2, 3, 2]), (Border::Apart, [2, 0, 2])] {
            let encoder = Encoder::new(&tokenizer, Rules { border, ..RULES }, None, 16).unwrap();
            let found = encoder.encode(&requests(&[("ca", "bc")])).unwrap();
            assert_eq!(found.0, [Sequence { ids: expected.to_vec(), context: 2 }]);
            // All of it goes into the context's last token.
            let swallowed = encoder.encode(&requests(&[("ca", "b")]));
            assert!(matches!(swallowed, Err(EvalError::EmptyCandidate { .. })));
        }
    }

    #[test]
    fn each_text_of_many_documents_has_its_own_tokens() {
        let (_folder, tokenizer) = tokenizer(&json!(null));
        let encoder = Encoder::new(&tokenizer, RULES, None, 16).unwrap();
        let rule =
            GenerationRule { until: Vec::new(), max_gen_toks: 1, sampling: None, arguments: json!(null) };
        let documents = [
            requests(&[("", "ab"), ("  ", "a"), ("a ", "b"), ("a", " b"), ("ab", " a")]),
            document(Asked::Reply(Generation { prompt: "abab".into(), rule: Arc::new(rule) })),
            document(Asked::Text(WholeText { text: "ba".to_owned(), words: 1, bytes: 2 })),
            requests(&[("b", "c"), ("b", "a")]),
        ];
        let found = encoder.encode_all(&documents).unwrap();
        let ids = |document: &Sequences| document.0.iter().map(|one| one.ids.clone()).collect::<Vec<_>>();
        let expected: [&[&[i64]]; 4] = [
            &[&[2, 3], &[2, 4, 4, 0], &[0, 4, 1], &[0, 4, 1], &[3, 4, 0]],
            &[],
            &[&[2, 1, 0]],
            &[&[1, 2], &[1, 0]],
        ];
        assert_eq!(found.iter().map(ids).collect::<Vec<_>>(), expected.map(|document| document.to_vec()));
        assert!(found.iter().flat_map(|document| &document.0).all(|sequence| sequence.context == 1));
    }

    #[test]
    fn tokens_that_a_tokenizer_puts_behind_a_text_stand_behind_context_and_whole_as_in_lm_eval() {
        let end = json!({"c": {"id": "c", "ids": [2], "tokens": ["c"]}});
        let parts =
            json!([{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "c", "type_id": 0}}]);
        let template =
            json!({"type": "TemplateProcessing", "single": parts, "pair": [], "special_tokens": end});
        let (_folder, tokenizer) = tokenizer(&template);
        let rules = Rules { bos: Bos::Tokenizer, ..RULES };
        let encoder = Encoder::new(&tokenizer, rules, None, 16).unwrap();
        let found = encoder.encode(&requests(&[("a", " b"), ("c", " b"), ("", "b")])).unwrap();
        let expected = [(vec![0, 2, 1, 2], 2), (vec![2, 4, 1], 1), (vec![2, 1], 1)];
        assert_eq!(found.0, expected.map(|(ids, context)| Sequence { ids, context }));
        let text = document(Asked::Text(WholeText { text: "ba".to_owned(), words: 1, bytes: 2 }));
        assert_eq!(encoder.encode(&text).unwrap().0, [Sequence { ids: vec![2, 1, 0, 2], context: 1 }]);
        let never = Encoder::new(&tokenizer, rules, Some(Bos::Never), 16).unwrap();
        let found = never.encode(&requests(&[("a", " b")])).unwrap();
        assert_eq!(found.0, [Sequence { ids: vec![0, 4, 1], context: 1 }]);
    }
}
