//! Tests of `tokenizer.rs`.

use serde_json::json;
use tempfile::TempDir;

use super::*;

/// A word-level tokenizer of `words` that puts `<s>` in front.
fn folder(words: &[&str]) -> TempDir {
    let folder = TempDir::new().unwrap();
    let vocab: serde_json::Map<String, Value> =
        words.iter().enumerate().map(|(id, word)| ((*word).to_owned(), json!(id))).collect();
    let tokenizer = json!({
        "version": "1.0",
        "truncation": { "max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right" },
        "padding": {
            "strategy": { "Fixed": 8 }, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "<s>"
        },
        "added_tokens": [
            { "id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
              "normalized": false, "special": true },
        ],
        "normalizer": null,
        "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": "<s>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
            "pair": [],
            "special_tokens": { "<s>": { "id": "<s>", "ids": [0], "tokens": ["<s>"] } },
        },
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "<s>" },
    });
    write(&folder, TOKENIZER_FILE, &tokenizer);
    folder
}

fn write(folder: &TempDir, name: &str, value: &Value) {
    fs::write(folder.path().join(name), value.to_string()).unwrap();
}

fn config(vocab_size: i64) -> Value {
    json!({
        "model_type": "llama", "vocab_size": vocab_size, "hidden_size": 8, "intermediate_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 1, "bos_token_id": 1, "eos_token_id": [3, 2],
    })
}

#[test]
fn a_text_is_neither_padded_nor_cut() {
    let folder = folder(&["<s>", "a", "b", "c", "d"]);
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    assert_eq!(tokenizer.encode("a b c d", true).unwrap(), [0, 1, 2, 3, 4]);
    assert_eq!(tokenizer.encode("a b", false).unwrap(), [1, 2]);
    let batch = ["a b c d", "a", "", "a b c d"];
    assert_eq!(
        tokenizer.encode_batch(&batch).unwrap(),
        [vec![1, 2, 3, 4], vec![1], vec![], vec![1, 2, 3, 4]]
    );
    assert_eq!(tokenizer.decode(&[0, 1, 2], true).unwrap(), "a b");
    assert_eq!(tokenizer.vocab_size(), 5);
    assert_eq!(tokenizer.token_id("c"), Some(3));
}

#[test]
fn special_tokens_come_from_the_first_file_that_names_them() {
    let folder = folder(&["<s>", "a", "b", "c", "d"]);
    assert_eq!(Tokenizer::open(folder.path()).unwrap().bos_id(), None);
    write(&folder, "config.json", &config(5));
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_id()), (Some(1), Some(3)));
    write(&folder, "special_tokens_map.json", &json!({ "bos_token": "a", "eos_token": { "content": "b" } }));
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_id()), (Some(1), Some(2)));
    write(&folder, "tokenizer_config.json", &json!({ "bos_token": "d", "add_bos_token": true }));
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_id()), (Some(4), Some(2)));
    // The post-processor adds its token, whatever `add_bos_token` says.
    assert_eq!(tokenizer.special_around().unwrap(), (vec![0], vec![]));
    write(&folder, "tokenizer_config.json", &json!({ "bos_token": "<s>", "add_bos_token": false }));
    assert_eq!(Tokenizer::open(folder.path()).unwrap().special_around().unwrap(), (vec![0], vec![]));
}

#[test]
fn chat_templates_are_found_wherever_they_are_kept() {
    let folder = folder(&["<s>", "a"]);
    assert_eq!(Tokenizer::open(folder.path()).unwrap().chat_template(), None);
    let several = json!([{ "name": "tool_use", "template": "T" }, { "name": "default", "template": "D" }]);
    write(&folder, "tokenizer_config.json", &json!({ "chat_template": several }));
    assert_eq!(Tokenizer::open(folder.path()).unwrap().chat_template(), Some("D"));
    write(&folder, "tokenizer_config.json", &json!({ "chat_template": "S" }));
    assert_eq!(Tokenizer::open(folder.path()).unwrap().chat_template(), Some("S"));
    fs::write(folder.path().join("chat_template.jinja"), "J").unwrap();
    assert_eq!(Tokenizer::open(folder.path()).unwrap().chat_template(), Some("J"));
}

#[test]
fn a_tokenizer_that_does_not_fit_is_refused() {
    let folder = folder(&["<s>", "a", "b", "c", "d"]);
    write(&folder, "config.json", &config(4));
    let text = Tokenizer::open(folder.path()).unwrap_err().to_string();
    assert!(
        text.contains("tokenizer.json: the tokenizer does not fit the model: its highest token is 4"),
        "{text}"
    );
    assert!(text.contains("vocabulary has 4 entries"), "{text}");

    write(&folder, "config.json", &config(5));
    Tokenizer::open(folder.path()).unwrap();
    let file = folder.path().join(TOKENIZER_FILE);
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("\"ids\":[0]", "\"ids\":[5000]")).unwrap();
    let text = Tokenizer::open(folder.path()).unwrap_err().to_string();
    assert!(text.contains("its highest token is 5000"), "{text}");
}

#[test]
fn broken_files_are_named() {
    let folder = folder(&["<s>", "a"]);
    fs::write(folder.path().join("tokenizer_config.json"), "{").unwrap();
    assert!(
        Tokenizer::open(folder.path())
            .unwrap_err()
            .to_string()
            .contains("tokenizer_config.json: not valid JSON")
    );
    fs::write(folder.path().join(TOKENIZER_FILE), "{}").unwrap();
    assert!(
        Tokenizer::open(folder.path()).unwrap_err().to_string().contains("tokenizer.json: not a tokenizer")
    );
    fs::remove_file(folder.path().join(TOKENIZER_FILE)).unwrap();
    assert!(Tokenizer::open(folder.path()).unwrap_err().to_string().contains("has no `tokenizer.json`"));
}

/// The tokenizer of the trained checkpoint among the shared data: ids as the Hub's own gives them.
#[test]
#[expect(clippy::print_stdout, reason = "says why it did nothing")]
fn stories_are_tokenized() {
    let Some(data) = std::env::var_os("QPIPE_TEST_DATA") else {
        println!("skipped: QPIPE_TEST_DATA is not set");
        return;
    };
    let tokenizer = Tokenizer::open(&Path::new(&data).join("hf/stories260K")).unwrap();
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.vocab_size()), (Some(1), Some(2), 512));
    let ids = tokenizer.encode("Once upon a time", true).unwrap();
    assert_eq!(ids, [1, 403, 407, 261, 378]);
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "Once upon a time");
}

/// With GPT-2's tokenizer, which lies among the shared data, too.
#[test]
#[expect(clippy::print_stdout, reason = "says why it did nothing")]
fn many_texts_have_the_tokens_that_each_has_by_itself() {
    let Some(data) = std::env::var_os("QPIPE_TEST_DATA") else {
        println!("skipped: QPIPE_TEST_DATA is not set");
        return;
    };
    let data = Path::new(&data);
    let folder = TempDir::new().unwrap();
    fs::copy(data.join("tokenizers/gpt2_tokenizer.json"), folder.path().join(TOKENIZER_FILE)).unwrap();
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    assert!(tokenizer.can_cut);
    let questions = fs::read_to_string(data.join("mmlu/validation.jsonl")).unwrap();
    let pages = fs::read_to_string(data.join("wikitext2/wiki.test.raw")).unwrap();
    let examples: String = questions.lines().take(5).collect();
    let mut texts: Vec<String> = questions.lines().map(|line| format!("{examples}\n{line}")).collect();
    texts.extend(pages.split("\n = ").map(str::to_owned));
    let found = tokenizer.encode_batch(&texts).unwrap();
    for (text, found) in texts.iter().zip(found) {
        assert_eq!(found, tokenizer.encode(text, false).unwrap(), "{text}");
    }
}
