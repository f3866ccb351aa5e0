//! The `evaluate` action.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;
use qpipe_nodes::kinds::{Bos, Dtype, Evaluate};
use qpipe_nodes::protocol::Level;
use qpipe_nodes::results::{EVALUATION_FILE, Evaluation, QUANTIZATION_FILE, Quantization, TaskResult};
use serde_json::Value;

use super::answers;
use super::earlier;
use super::engine;
use super::error::EvalError;
use super::harness::{HarnessTask, file};
use super::replies::{Prompt, Writer};
use super::room::Room;
use super::rows::Data;
use super::scorer::{Prepared, Scorer};
use super::sequences::Encoder;
use super::task::{Asked, Document, Questions, Task, TaskOptions};
use super::tasks_named;
use super::work::{self, Tokens, Work};
use crate::context::{Context, Facts};
use crate::data::chat::ChatTemplate;
use crate::error::ActionError;
use crate::memory::KeepFreed;
use crate::model::{Checkpoint, Decoder, Products, Tokenizer};
use crate::torch;

/// What ends a reply, beside the tokenizer's own token.
const GENERATION_FILE: &str = "generation_config.json";

/// A task and what it asks.
type Read = (Box<dyn Task>, Questions);

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
    let mut results = earlier::take_over(context)?;
    let tasks = read_tasks(context, &parameters, &options, &results)?;
    if let Some(tensor) = checkpoint.beyond_layers() {
        let layers = checkpoint.config.layers;
        let message = format!(
            "{}: `num_hidden_layers` is {layers}, but the weights have `{tensor}`, which is ignored",
            checkpoint.config.file.display()
        );
        context.log(Level::Warn, message);
    }
    let mut read = Vec::new();
    for (task, questions) in tasks {
        let tokens = tokens_of(context, (&checkpoint, &tokenizer), parameters.bos, &*task, &questions)?;
        read.push((task, questions, tokens));
    }
    let decoder = engine::load(&checkpoint, context.device(), parameters.dtype, Products::FASTEST)?;
    let reference = reference(context, &checkpoint, parameters.dtype)?;
    let room = Room::find(context)?;
    let batch_tokens = match parameters.batch_tokens {
        Some(tokens) => tokens as usize,
        None => room.batch_tokens(&decoder),
    };
    let prepare = |(task, questions, tokens)| {
        let work = Work::new(tokens, &decoder, reference.as_ref(), batch_tokens);
        Prepared { task, questions, work }
    };
    let prepared: Vec<Prepared> = read.into_iter().map(prepare).collect();
    let _kept = KeepFreed::start();
    let ends = tokens_that_end(context.input("model")?, &checkpoint, &tokenizer)?;
    let writer = Writer::new(&decoder, &tokenizer, ends, parameters.seed);
    let mut scorer = Scorer::new(context, (&decoder, reference.as_ref()), writer, room, &prepared);
    scorer.answer(&prepared, &mut |prepared, responses| {
        let result = answers::write(context, prepared, &responses, &parameters, &options)?;
        results.insert(prepared.task.name().to_owned(), result);
        Ok(())
    })?;
    let facts = facts(&results);
    let evaluation = Evaluation {
        tasks: results,
        dtype: torch::kind_name(decoder.kind()).to_owned(),
        device: torch::device_name(context.device()).to_owned(),
        scheme: decoder.scheme_name(),
        quantization: quantization_of(context.input("model")?)?,
        groups: parameters.task_groups,
    };
    context.write_json(EVALUATION_FILE, &evaluation)?;
    Ok(facts)
}

/// A task's questions as tokens. What is odd about them is said.
fn tokens_of(
    context: &Context<'_>,
    (checkpoint, tokenizer): (&Checkpoint, &Tokenizer),
    bos: Option<Bos>,
    task: &dyn Task,
    questions: &Questions,
) -> Result<Tokens, ActionError> {
    let (name, documents) = (task.name(), &questions.documents);
    let has_none = |document: &&Document| document.gold.is_empty() && !document.requests().is_empty();
    let unanswerable = documents.iter().filter(has_none).count();
    if unanswerable > 0 {
        let of = documents.len();
        let message = format!(
            "{name}: {unanswerable} of {of} questions have no right answer among their choices and count as wrong"
        );
        context.log(Level::Warn, message);
    }
    let positions = checkpoint.config.max_positions;
    let encoder = Encoder::new(tokenizer, task.rules(), bos, positions)?;
    let tokens = match work::are_prompts(documents) {
        true => Tokens::Prompts(prompts(&encoder, documents)?),
        false => Tokens::Sequences(encoder.encode_all(documents)?),
    };
    if encoder.cut() > 0 {
        let cut = encoder.cut();
        let message = format!(
            "{name}: of {cut} questions the context is longer than the model's {positions} positions and loses its first tokens"
        );
        context.log(Level::Warn, message);
    }
    Ok(tokens)
}

/// The model that predictions are compared with, if there is one.
fn reference(
    context: &Context<'_>,
    checkpoint: &Checkpoint,
    dtype: Option<Dtype>,
) -> Result<Option<Decoder>, ActionError> {
    let inputs = context.inputs("reference");
    let Some((_, folder)) = inputs.first() else { return Ok(None) };
    let reference = Checkpoint::open(folder)?;
    let (own, theirs) = (checkpoint.config.vocab_size, reference.config.vocab_size);
    if own != theirs {
        let message = format!("the model's vocabulary has {own} entries, the reference's {theirs}");
        return Err(ActionError::user(message).help("Compare with the model that this one was made from."));
    }
    Ok(Some(engine::load(&reference, context.device(), dtype, Products::FASTEST)?))
}

/// The prompts of `documents`, all of which are to be continued, as tokens.
fn prompts(encoder: &Encoder<'_>, documents: &[Document]) -> Result<Vec<Prompt>, EvalError> {
    let (mut texts, mut rules) = (Vec::new(), Vec::new());
    for document in documents {
        if let Asked::Reply(generation) = &document.asked {
            texts.push((&document.place, &*generation.prompt));
            rules.push(Arc::clone(&generation.rule));
        }
    }
    let replies: Vec<usize> = rules.iter().map(|rule| rule.max_gen_toks).collect();
    let ids = encoder.encode_prompts(&texts, &replies)?;
    let places = texts.into_iter().map(|(place, _)| place.clone());
    let prompts = ids.into_iter().zip(rules).zip(places);
    Ok(prompts.map(|((ids, rule), place)| Prompt { place, ids, rule }).collect())
}

/// The tokens that end a reply: generation_config.json's, else config.json's, and the tokenizer's.
fn tokens_that_end(
    model: &Path,
    checkpoint: &Checkpoint,
    tokenizer: &Tokenizer,
) -> Result<Vec<i64>, ActionError> {
    let file = model.join(GENERATION_FILE);
    let configured = match file.is_file() {
        false => Value::Null,
        true => serde_json::from_slice::<Value>(&fs::read(&file)?)
            .map_err(|error| ActionError::user(format!("{}: {error}", file.display())))?,
    };
    let mut ends = match &configured["eos_token_id"] {
        Value::Array(tokens) => tokens.iter().filter_map(Value::as_i64).collect(),
        Value::Number(token) => token.as_i64().into_iter().collect(),
        _ => checkpoint.config.eos.clone(),
    };
    ends.extend(tokenizer.eos_id().map(i64::from));
    Ok(ends)
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

/// The tasks that the pipeline names, groups as their tasks, with their questions; without those that are `taken` over.
fn read_tasks(
    context: &Context<'_>,
    parameters: &Evaluate,
    options: &TaskOptions<'_>,
    taken: &BTreeMap<String, TaskResult>,
) -> Result<Vec<Read>, EvalError> {
    let inputs = context.inputs("data");
    let mut tasks: Vec<Read> = Vec::new();
    for name in &parameters.tasks {
        let file = parameters.task_files.get(name);
        let group = file.and_then(|file| file.group.as_deref());
        let data = Data::open(data_of(&inputs, name, group)?)?;
        let named: Vec<Box<dyn Task>> = match file {
            Some(file) => {
                vec![Box::new(HarnessTask::new(file::spec(file)?).with_origins(file.origins.clone()))]
            }
            None => tasks_named(name).ok_or_else(|| EvalError::UnknownTask(name.clone()))?,
        };
        for task in named {
            // `mmlu` and `mmlu_anatomy` may both be named.
            let is_new = tasks.iter().all(|(other, _)| other.name() != task.name());
            if is_new && !taken.contains_key(task.name()) {
                let questions = task.questions(&data, options)?;
                tasks.push((task, questions));
            }
        }
    }
    Ok(tasks)
}

/// The data of a task, or of the group that it was named by: a single input serves all of them.
fn data_of<'a>(
    inputs: &'a [(String, PathBuf)],
    task: &str,
    group: Option<&str>,
) -> Result<&'a PathBuf, EvalError> {
    let named = |wanted: &str| inputs.iter().find(|(name, _)| name.is_empty() || name == wanted);
    named(task)
        .or_else(|| named(group?))
        .map(|(_, path)| path)
        .ok_or_else(|| EvalError::MissingData(task.to_owned()))
}

fn facts(tasks: &BTreeMap<String, TaskResult>) -> Facts {
    let mut facts = Facts::new();
    facts.insert("questions".to_owned(), Value::from(tasks.values().map(|task| task.n).sum::<u64>()));
    facts.insert("tokens".to_owned(), Value::from(tasks.values().map(|task| task.tokens).sum::<u64>()));
    for (name, task) in tasks {
        if let Some(accuracy) = task.accuracy {
            facts.insert(format!("{name}_accuracy"), Value::from(accuracy));
        }
    }
    facts
}
