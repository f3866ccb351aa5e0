//! Four-choice questions and the prompts that they are asked with.

use serde_json::{Value, json};

use crate::random::Random;
use crate::sentences::WORDINGS;
use crate::world::Fact;

/// The topic that `evaluate` must be given for its prompts to equal these.
const TOPIC: &str = "general knowledge";
const LETTERS: [&str; 4] = ["A", "B", "C", "D"];

/// A row for `evaluate`: asks for `fact`, with three other values of the same attribute, in random order.
pub(crate) fn task_row(fact: &Fact<'_>, random: &mut Random) -> Value {
    let others: Vec<&str> =
        fact.attribute.pool.iter().copied().filter(|value| *value != fact.value).collect();
    let mut choices = random.sample(&others, LETTERS.len() - 1);
    let answer = random.below(LETTERS.len());
    choices.insert(answer, fact.value);
    let question = fact.question(random.below(WORDINGS));
    json!({"question": question, "choices": choices, "answer": LETTERS[answer]})
}

/// Rows for `sft`, one for each wording: the prompt of the four-choice task with `candidates: text`, and the loss on
/// the answer alone.
pub(crate) fn prompted_rows(fact: &Fact<'_>) -> Vec<Value> {
    let topic = format!("The following are multiple choice questions about {TOPIC}.\n\n");
    rows(fact, &topic)
}

/// The same without the task's first line.
pub(crate) fn bare_rows(fact: &Fact<'_>) -> Vec<Value> {
    rows(fact, "")
}

fn rows(fact: &Fact<'_>, topic: &str) -> Vec<Value> {
    let row = |wording| {
        let prompt = format!("{topic}{}\nAnswer:", fact.question(wording));
        json!({"prompt": prompt, "completion": format!(" {}", fact.value)})
    };
    (0..WORDINGS).map(row).collect()
}
