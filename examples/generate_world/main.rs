//! Writes everything that the small model in `examples/tiny` is made from: `cargo run --release --example generate_world`.
//!
//! The world is closed and made up, so that what the model knows is known exactly: every fact is stated in training,
//! and the questions that measure it ask for facts that no training row asks for. The same seed gives the same bytes.

mod questions;
mod random;
mod sentences;
mod tokenizer;
mod world;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use random::Random;
use world::{Fact, World};

const SEED: u64 = 2024;
/// Facts that only the held-out questions ask for.
const HELD_OUT: usize = 1200;
/// Facts that the base model's training asks for; fine-tuning asks for the rest.
const ASKED_IN_BASE: usize = 64;
/// Statements in one row of text.
const STATEMENTS_A_ROW: usize = 4;

/// Why nothing, or not everything, was written.
#[derive(Debug, thiserror::Error)]
enum GenerateError {
    /// A file could not be written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The tokenizer could not be trained or saved.
    #[error("cannot train the tokenizer: {0}")]
    Tokenizer(#[from] tokenizers::Error),
}

fn main() -> Result<(), GenerateError> {
    let examples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut random = Random::new(SEED);
    let world = World::draw(&mut random);
    let mut facts = world.facts();
    random.shuffle(&mut facts);
    let (held_out, asked) = facts.split_at(HELD_OUT);
    let (asked_in_base, asked_in_tuning) = asked.split_at(ASKED_IN_BASE);

    let mut base: Vec<Value> = facts.iter().flat_map(statements_of).collect();
    base.extend(texts_about(asked));
    base.extend(asked_in_base.iter().flat_map(questions::bare_rows));
    random.shuffle(&mut base);
    let mut tuning: Vec<Value> = asked_in_tuning.iter().flat_map(questions::prompted_rows).collect();
    random.shuffle(&mut tuning);
    let heldout: Vec<Value> = held_out.iter().map(|fact| questions::task_row(fact, &mut random)).collect();

    let texts: Vec<String> = base.iter().chain(&tuning).flat_map(texts_of).collect();
    fs_err::create_dir_all(examples.join("random"))?;
    tokenizer::train(&texts, &examples.join("random"))?;
    write_rows(&examples.join("data/base.jsonl"), &base)?;
    write_rows(&examples.join("data/train.jsonl"), &tuning)?;
    write_rows(&examples.join("data/heldout.jsonl"), &heldout)?;
    Ok(())
}

/// Statements with the loss on the value: a name cannot be foreseen, and trying to would drown the rest.
fn statements_of(fact: &Fact<'_>) -> Vec<Value> {
    let completion = format!(" {}", fact.value);
    fact.openings().iter().map(|opening| json!({"prompt": opening, "completion": completion})).collect()
}

/// A whole statement of each fact, a few to a row.
fn texts_about(facts: &[Fact<'_>]) -> Vec<Value> {
    let statements: Vec<String> = facts.iter().map(Fact::statement).collect();
    statements.chunks(STATEMENTS_A_ROW).map(|chunk| json!({"text": chunk.join(" ")})).collect()
}

/// All texts of a training row.
fn texts_of(row: &Value) -> Vec<String> {
    ["text", "prompt", "completion"]
        .iter()
        .filter_map(|key| row.get(key).and_then(Value::as_str))
        .map(str::to_owned)
        .collect()
}

fn write_rows(path: &Path, rows: &[Value]) -> Result<(), GenerateError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs_err::create_dir_all(folder)?;
    let mut text = String::new();
    for row in rows {
        text.push_str(&row.to_string());
        text.push('\n');
    }
    fs_err::write(path, text)?;
    Ok(())
}
