//! tokenizer.json through the `tokenizers` crate, and what the files beside it say about special tokens.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde_json::Value;

use super::config::{CONFIG_FILE, Config};
use super::error::ModelError;
use super::pieces;

/// The file that holds the vocabulary and the rules.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
const SETTINGS_FILE: &str = "tokenizer_config.json";
const SPECIAL_TOKENS_FILE: &str = "special_tokens_map.json";
const TEMPLATE_FILE: &str = "chat_template.jinja";
const TEMPLATE_JSON_FILE: &str = "chat_template.json";

/// Text to tokens and back.
#[derive(Debug)]
pub struct Tokenizer {
    file: PathBuf,
    inner: tokenizers::Tokenizer,
    settings: Value,
    bos: Option<u32>,
    eos: Option<u32>,
    chat_template: Option<String>,
    highest: u32,
    can_cut: bool,
}

impl Tokenizer {
    /// Opens the tokenizer of a checkpoint folder. Where the folder has a config.json, every token must have
    /// an embedding.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let file = folder.join(TOKENIZER_FILE);
        if !file.is_file() {
            return Err(ModelError::MissingFile {
                folder: folder.to_owned(),
                file: TOKENIZER_FILE.to_owned(),
            });
        }
        let bytes = fs::read(&file)?;
        let wrong = |problem: String| ModelError::Tokenizer { file: file.clone(), problem };
        let mut inner = tokenizers::Tokenizer::from_bytes(&bytes)
            .map_err(|error| wrong(format!("not a tokenizer: {error}")))?;
        // Neither belongs to the tokens of a text; transformers, too, switches them off unless asked.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| wrong(error.to_string()))?;

        let highest = inner
            .get_vocab(true)
            .into_values()
            .max()
            .ok_or_else(|| wrong("the vocabulary is empty".to_owned()))?;
        let settings = read_json(&folder.join(SETTINGS_FILE))?;
        let special_tokens = read_json(&folder.join(SPECIAL_TOKENS_FILE))?;
        let config = if folder.join(CONFIG_FILE).is_file() { Some(Config::read(folder)?) } else { None };

        let named = |field: &str| {
            let text =
                [&settings, &special_tokens].into_iter().find_map(|file| token_text(file.get(field)?))?;
            inner.token_to_id(text)
        };
        let configured = |token: Option<i64>| token.and_then(|token| u32::try_from(token).ok());
        let bos = named("bos_token").or_else(|| configured(config.as_ref()?.bos));
        let eos = named("eos_token").or_else(|| configured(config.as_ref()?.eos.first().copied()));
        let chat_template = chat_template(folder, &settings)?;
        let can_cut = pieces::can_cut(&inner);

        let this = Self { file, inner, settings, bos, eos, chat_template, highest, can_cut };
        if let Some(config) = &config {
            this.check_fits(config)?;
        }
        Ok(this)
    }

    /// An error if there are tokens without an embedding, in the vocabulary or among those that the post-processor adds.
    pub fn check_fits(&self, config: &Config) -> Result<(), ModelError> {
        let added = self.encode("a", true)?.into_iter().max().unwrap_or(0);
        let highest = self.highest.max(added);
        if i64::from(highest) < config.vocab_size {
            return Ok(());
        }
        let (file, vocab_size) = (self.file.clone(), config.vocab_size);
        Err(ModelError::TokenizerDoesNotFit { file, highest, vocab_size })
    }

    /// The tokens of `text`; with `add_special`, those too that the tokenizer's post-processor puts around it.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, ModelError> {
        let encoding = self.inner.encode_fast(text, add_special).map_err(|error| self.wrong(&*error))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The tokens of each of `texts`, without special ones, on all cores. What they have in common is encoded once, where the
    /// tokenizer lets its texts be cut (pieces.rs).
    pub fn encode_batch<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<Vec<u32>>, ModelError> {
        let mut known = HashMap::new();
        let mut unique = Vec::new();
        let mut place_of = |piece| {
            *known.entry(piece).or_insert_with(|| {
                unique.push(piece);
                unique.len() - 1
            })
        };
        let places: Vec<Vec<usize>> = match self.can_cut {
            true => {
                texts.iter().map(|text| pieces::pieces(text.as_ref()).map(&mut place_of).collect()).collect()
            }
            false => texts.iter().map(|text| vec![place_of(text.as_ref())]).collect(),
        };
        let encoded = self.inner.encode_batch_fast(unique, false).map_err(|error| self.wrong(&*error))?;
        let ids = |places: Vec<usize>| {
            places.into_iter().flat_map(|place| encoded[place].get_ids()).copied().collect()
        };
        Ok(places.into_iter().map(ids).collect())
    }

    /// The text of `ids`, special tokens included unless `skip_special`.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, ModelError> {
        self.inner.decode(ids, skip_special).map_err(|error| self.wrong(&*error))
    }

    /// The token written `text`.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }

    /// The beginning-of-sequence token: tokenizer_config.json's, else special_tokens_map.json's, else
    /// config.json's.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos
    }

    /// The end-of-sequence token, from the same files.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos
    }

    /// The special tokens that the post-processor puts before a text and behind it. `add_bos_token` in tokenizer_config.json says
    /// nothing where there is a tokenizer.json, as in transformers 5.
    pub fn special_around(&self) -> Result<(Vec<u32>, Vec<u32>), ModelError> {
        let (text, all) = (self.encode("a", false)?, self.encode("a", true)?);
        let place = (0..=all.len().saturating_sub(text.len())).find(|&place| all[place..].starts_with(&text));
        Ok(place.map_or_else(Default::default, |place| {
            (all[..place].to_vec(), all[place + text.len()..].to_vec())
        }))
    }

    /// The Jinja template that turns a conversation into text: chat_template.jinja, else
    /// tokenizer_config.json's (the one called `default` where there are several).
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// tokenizer_config.json, or null.
    pub fn settings(&self) -> &Value {
        &self.settings
    }

    /// The highest token id plus one.
    pub fn vocab_size(&self) -> u32 {
        self.highest + 1
    }

    fn wrong(&self, error: &dyn std::error::Error) -> ModelError {
        ModelError::Tokenizer { file: self.file.clone(), problem: error.to_string() }
    }
}

/// A JSON file that may be absent.
fn read_json(file: &Path) -> Result<Value, ModelError> {
    if !file.is_file() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&fs::read_to_string(file)?)
        .map_err(|source| ModelError::Json { file: file.to_owned(), source })
}

/// A special token is written as a text or as an object with a `content`.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

fn chat_template(folder: &Path, settings: &Value) -> Result<Option<String>, ModelError> {
    let file = folder.join(TEMPLATE_FILE);
    if file.is_file() {
        return Ok(Some(fs::read_to_string(&file)?));
    }
    let from_json = read_json(&folder.join(TEMPLATE_JSON_FILE))?;
    let value = from_json.get("chat_template").or_else(|| settings.get("chat_template"));
    Ok(match value {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Array(templates)) => templates
            .iter()
            .find(|template| template.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|template| template.get("template")?.as_str())
            .map(str::to_owned),
        _ => None,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
#[path = "tokenizer_tests.rs"]
mod tests;
