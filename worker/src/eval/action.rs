//! The `evaluate` action.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fs_err as fs;
use qpipe_nodes::kinds::Evaluate;
use qpipe_nodes::protocol::Level;
use qpipe_nodes::results::{EVALUATION_FILE, Evaluation, QUANTIZATION_FILE, Quantization, TaskResult};
use serde_json::Value;

use super::answers;
use super::engine;
use super::error::EvalError;
use super::row;
use super::rows::Data;
use super::scorer::{Prepared, Scorer};
use super::sequences::Encoder;
use super::task::{Questions, Task, TaskOptions};
use super::tasks_named;
use crate::context::{Context, Facts};
use crate::data::chat::ChatTemplate;
use crate::error::ActionError;
use crate::model::Tokenizer;
use crate::torch;

/// A task and what it asks.
type Asked = (Box<dyn Task>, Questions);

/// Scores a model on tasks: `TASK.jsonl` with a line a question, and `evaluation.json`.
///
/// # Errors
/// When the data, the tokenizer or the checkpoint are wrong, or a score is not a number.
pub fn run(context: &Context<'_>) -> Result<Facts, ActionError> {
    let parameters: Evaluate = context.params()?;
    let (checkpoint, tokenizer) = engine::open(context.input("model")?)?;
    let chat = chat_template(&parameters, &tokenizer)?;
    let options = TaskOptions {
        topic: parameters.topic.as_deref().unwrap_or_default(),
        candidates: parameters.candidates,
        limit: parameters.limit,
        num_fewshot: parameters.num_fewshot,
        seed: parameters.seed,
        chat: chat.as_ref(),
    };
    // Questions are read and counted in tokens before any weight is: mistakes in the data show at once.
    let tasks = read_tasks(context, &parameters, &options)?;
    if let Some(tensor) = checkpoint.beyond_layers() {
        let layers = checkpoint.config.layers;
        let message = format!(
            "{}: `num_hidden_layers` is {layers}, but the weights have `{tensor}`, which is ignored",
            checkpoint.config.file.display()
        );
        context.log(Level::Warn, message);
    }
    let (cost, batch_tokens) = (engine::cost(&checkpoint.config), parameters.batch_tokens as usize);
    let mut prepared = Vec::new();
    for (task, questions) in tasks {
        let unanswerable = questions.documents.iter().filter(|document| document.gold.is_empty()).count();
        if unanswerable > 0 {
            let (name, of) = (task.name(), questions.documents.len());
            let message = format!(
                "{name}: {unanswerable} of {of} questions have no right answer among their choices and count as wrong"
            );
            context.log(Level::Warn, message);
        }
        let positions = checkpoint.config.max_positions;
        let encoder = Encoder::new(&tokenizer, task.rules(), parameters.bos, positions)?;
        let sequences = encoder.encode_all(&questions.documents)?;
        prepared.push(Prepared { task, rows: row::rows(&sequences, cost, batch_tokens), questions });
    }
    let decoder = engine::load(&checkpoint, context.device(), parameters.dtype)?;
    let mut scorer = Scorer::new(context, &decoder, batch_tokens, &prepared);
    let mut results = BTreeMap::new();
    for prepared in &prepared {
        let scores = scorer.answer(prepared)?;
        let result = answers::write(context, prepared, &scores, &parameters, &options)?;
        results.insert(prepared.task.name().to_owned(), result);
    }
    let facts = facts(&results);
    let evaluation = Evaluation {
        tasks: results,
        dtype: torch::kind_name(decoder.kind()).to_owned(),
        device: torch::device_name(context.device()).to_owned(),
        scheme: decoder.scheme_name(),
        quantization: quantization_of(context.input("model")?)?,
    };
    context.write_json(EVALUATION_FILE, &evaluation)?;
    Ok(facts)
}

/// The model's chat template, if the pipeline asks for it.
fn chat_template(parameters: &Evaluate, tokenizer: &Tokenizer) -> Result<Option<ChatTemplate>, ActionError> {
    if !parameters.chat_template {
        return Ok(None);
    }
    let template = ChatTemplate::of(tokenizer)?;
    template.map(Some).ok_or_else(|| {
        ActionError::user("`chat_template: true`, but the model's tokenizer has no chat template")
            .help("Use a model with a chat_template in tokenizer_config.json, or leave `chat_template` out.")
    })
}

/// What the model's folder says of its quantization, if qpipe did it.
fn quantization_of(model: &Path) -> Result<Option<Quantization>, ActionError> {
    let file = model.join(QUANTIZATION_FILE);
    if !file.is_file() {
        return Ok(None);
    }
    serde_json::from_slice(&fs::read(&file)?)
        .map(Some)
        .map_err(|error| ActionError::user(format!("{}: {error}", file.display())))
}

/// The tasks that the pipeline names, groups as their tasks, with their questions.
fn read_tasks(
    context: &Context<'_>,
    parameters: &Evaluate,
    options: &TaskOptions<'_>,
) -> Result<Vec<Asked>, EvalError> {
    let inputs = context.inputs("data");
    let mut tasks: Vec<Asked> = Vec::new();
    for name in &parameters.tasks {
        let data = Data::open(data_of(&inputs, name)?)?;
        for task in tasks_named(name).ok_or_else(|| EvalError::UnknownTask(name.clone()))? {
            // `mmlu` and `mmlu_anatomy` may both be named.
            if tasks.iter().all(|(other, _)| other.name() != task.name()) {
                let questions = task.questions(&data, options)?;
                tasks.push((task, questions));
            }
        }
    }
    Ok(tasks)
}

/// The data of a task: a single input serves all of them.
fn data_of<'a>(inputs: &'a [(String, PathBuf)], task: &str) -> Result<&'a PathBuf, EvalError> {
    inputs
        .iter()
        .find(|(name, _)| name.is_empty() || name == task)
        .map(|(_, path)| path)
        .ok_or_else(|| EvalError::MissingData(task.to_owned()))
}

fn facts(tasks: &BTreeMap<String, TaskResult>) -> Facts {
    let mut facts = Facts::new();
    facts.insert("questions".to_owned(), Value::from(tasks.values().map(|task| task.n).sum::<u64>()));
    facts.insert("tokens".to_owned(), Value::from(tasks.values().map(|task| task.tokens).sum::<u64>()));
    for (name, task) in tasks {
        facts.insert(format!("{name}_accuracy"), Value::from(task.accuracy));
    }
    facts
}
