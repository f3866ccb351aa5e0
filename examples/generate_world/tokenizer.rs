//! The byte-level BPE tokenizer of the small model, trained on the world's own sentences.

use std::path::Path;

use serde_json::json;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, NormalizerWrapper, TokenizerBuilder};

use crate::GenerateError;

/// Entries of the vocabulary, the 256 bytes and the special token included.
const VOCABULARY: usize = 2048;
/// Ends a text; also pads.
const END: &str = "<|endoftext|>";

/// Trains on `texts` and writes `tokenizer.json` and `tokenizer_config.json` into `folder`.
pub(crate) fn train(texts: &[String], folder: &Path) -> Result<(), GenerateError> {
    let mut trainer = BpeTrainer::builder()
        .vocab_size(VOCABULARY)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(vec![AddedToken::from(END, true)])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let byte_level = ByteLevel::default().add_prefix_space(false);
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(None::<NormalizerWrapper>)
        .with_pre_tokenizer(Some(byte_level))
        .with_post_processor(Some(byte_level))
        .with_decoder(Some(byte_level))
        .build()?;
    tokenizer.train(&mut trainer, texts.iter())?;
    tokenizer.save(folder.join("tokenizer.json"), true)?;
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": END,
        "bos_token": null,
        "unk_token": null,
        "add_bos_token": false,
        "clean_up_tokenization_spaces": false,
        "model_max_length": 256,
    });
    fs_err::write(folder.join("tokenizer_config.json"), format!("{config:#}\n"))?;
    Ok(())
}
