//! The shipped data and model: what is trained on, what is asked, and how large it is.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Files that training reads, of those that are committed.
const TRAINING_FILES: [&str; 2] = ["data/base.jsonl", "data/train.jsonl"];

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

fn rows(file: &str) -> Vec<Value> {
    let text = fs_err::read_to_string(examples().join(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What a question asks for, whatever its wording: the attribute and the thing. `None`: it asks for no fact.
fn fact_asked(question: &str) -> Option<(String, String)> {
    let question = question.strip_suffix('?')?;
    let (attribute, thing) = match question.strip_prefix("What is the ") {
        Some(rest) => rest.split_once(" of ")?,
        None => question.strip_prefix("Which ")?.strip_suffix(" have")?.split_once(" does ")?,
    };
    Some((attribute.to_owned(), thing.to_owned()))
}

/// Every fact that a training row asks for.
fn facts_asked_in(file: &str) -> BTreeSet<(String, String)> {
    rows(file)
        .iter()
        .filter_map(|row| row.get("prompt")?.as_str())
        .flat_map(|prompt| prompt.lines().filter_map(fact_asked).collect::<Vec<_>>())
        .collect()
}

#[test]
fn no_held_out_question_is_asked_in_training() {
    let held_out: BTreeSet<_> = rows("data/heldout.jsonl")
        .iter()
        .map(|row| fact_asked(row["question"].as_str().unwrap()).expect("asks for a fact"))
        .collect();
    assert!(held_out.len() >= 1000, "{} facts are asked for", held_out.len());
    for file in TRAINING_FILES {
        let asked = facts_asked_in(file);
        assert!(!asked.is_empty(), "{file} asks nothing");
        let both: Vec<_> = held_out.intersection(&asked).collect();
        assert!(both.is_empty(), "{file} asks for {both:?}");
    }
}

#[test]
fn held_out_questions_are_well_formed_and_no_letter_is_favoured() {
    let questions = rows("data/heldout.jsonl");
    let mut letters = BTreeMap::new();
    let mut texts = BTreeSet::new();
    for question in &questions {
        let choices: BTreeSet<&str> =
            question["choices"].as_array().unwrap().iter().map(|choice| choice.as_str().unwrap()).collect();
        assert_eq!(choices.len(), 4, "{question}");
        assert!(texts.insert(question["question"].as_str().unwrap()), "asked twice: {question}");
        *letters.entry(question["answer"].as_str().unwrap()).or_insert(0_usize) += 1;
    }
    assert_eq!(letters.keys().copied().collect::<String>(), "ABCD");
    for (letter, count) in letters {
        let share = count as f64 / questions.len() as f64;
        assert!((0.2..0.3).contains(&share), "{letter} is right in {share:.3} of the questions");
    }
}

#[test]
fn the_shipped_model_is_small_and_its_linear_layers_suit_every_kernel() {
    let folder = examples().join("tiny");
    let bytes: u64 =
        fs_err::read_dir(&folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= 8 * 1000 * 1000, "{bytes} bytes");
    let config: Value =
        serde_json::from_str(&fs_err::read_to_string(folder.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["model_type"], "qwen3");
    let number = |key: &str| config[key].as_u64().unwrap();
    for (what, width) in [
        ("hidden", number("hidden_size")),
        ("feed-forward", number("intermediate_size")),
        ("query", number("num_attention_heads") * number("head_dim")),
        ("key and value", number("num_key_value_heads") * number("head_dim")),
    ] {
        assert_eq!(width % 128, 0, "{what} width {width}");
    }
}
