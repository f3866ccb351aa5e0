//! `sft` and `sft-merge` as actions: against transformers and peft (golden vectors made by
//! `tests/parity/sft_parity.py`), interrupted and resumed, and on broken input.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use fs_err as fs;
use qpipe_nodes::kinds::{Lora, Sft};
use qpipe_nodes::protocol::{Action, Device, Event, Failure, Input};
use qpipe_worker::context::{Context, Events, Facts};
use qpipe_worker::data::rows;
use qpipe_worker::error::ActionError;
use qpipe_worker::model::{Attention, Checkpoint, Decoder, LoadOptions, TensorFiles, Tokenizer};
use qpipe_worker::sft::adapter::Adapter;
use qpipe_worker::sft::encode::Encoder;
use qpipe_worker::sft::{self, lora, merge};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

/// Relative, of losses of float32 runs.
const LOSS_TOLERANCE: f64 = 1e-4;
/// Absolute, of merged float32 weights.
const WEIGHT_TOLERANCE: f64 = 1e-6;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/sft").join(name)
}

fn expected() -> Value {
    serde_json::from_str(&fs::read_to_string(golden("expected.json")).unwrap()).unwrap()
}

/// Keeps what is said, and asks for a stop at the first progress if it should.
#[derive(Default)]
struct Recorder {
    events: Mutex<Vec<Event>>,
    stop: AtomicBool,
    interrupts: bool,
}

impl Events for Recorder {
    fn send(&self, event: &Event) {
        if self.interrupts && matches!(event, Event::Progress { .. }) {
            self.stop.store(true, Ordering::Relaxed);
        }
        self.events.lock().unwrap().push(event.clone());
    }
}

impl Recorder {
    fn logged(&self, words: &str) -> bool {
        let events = self.events.lock().unwrap();
        events.iter().any(|event| matches!(event, Event::Log { message, .. } if message.contains(words)))
    }
}

/// A worker runs one action at a time, so libtorch's generator belongs to it alone; so it must here.
static ONE_ACTION: Mutex<()> = Mutex::new(());

/// An action in a scratch folder of its own.
struct Run {
    scratch: tempfile::TempDir,
    params: Value,
    inputs: BTreeMap<String, Input>,
}

impl Run {
    fn new(params: Value, inputs: &[(&str, &Path)]) -> Self {
        let inputs =
            inputs.iter().map(|(port, path)| ((*port).to_owned(), Input::One(path.to_path_buf()))).collect();
        Self { scratch: tempfile::tempdir().unwrap(), params, inputs }
    }

    fn sft(params: Value) -> Self {
        Self::new(params, &[("model", &golden("model")), ("data", &golden("rows.jsonl"))])
    }

    fn attempt(
        &self,
        run: fn(&Context<'_>) -> Result<Facts, ActionError>,
        recorder: &Recorder,
    ) -> Result<Facts, ActionError> {
        let _alone = ONE_ACTION.lock().unwrap_or_else(PoisonError::into_inner);
        tch::set_num_threads(1);
        let action = Action {
            id: 1,
            kind: "sft".to_owned(),
            params: self.params.clone(),
            inputs: self.inputs.clone(),
            scratch: self.scratch.path().to_owned(),
            device: Device::Cpu,
            threads: 1,
            max_memory: None,
        };
        run(&Context::new(&action, recorder, &recorder.stop))
    }

    fn train(&self) -> Facts {
        self.attempt(sft::run, &Recorder::default()).unwrap()
    }

    fn out(&self, file: &str) -> PathBuf {
        self.scratch.path().join("out").join(file)
    }

    /// The losses of all steps, from the unit that a finished run leaves.
    fn losses(&self) -> Vec<f32> {
        let units = self.scratch.path().join("units");
        let unit = fs::read_dir(units).unwrap().next().unwrap().unwrap().path();
        Vec::<f32>::try_from(TensorFiles::open(&unit).unwrap().tensor("losses").unwrap()).unwrap()
    }
}

fn failure(error: ActionError) -> (Failure, String, String) {
    match error {
        ActionError::Failed { class, message, help } => (class, message, help.unwrap_or_default()),
        ActionError::Stopped => panic!("stopped"),
    }
}

fn assert_losses(run: &Run, expected: &Value) {
    let ours = run.losses();
    let theirs: Vec<f64> = serde_json::from_value(expected.clone()).unwrap();
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert!((f64::from(*ours) - theirs).abs() <= LOSS_TOLERANCE * theirs, "{ours} {theirs}");
    }
}

#[test]
fn rows_are_encoded_as_trl_encodes_them() {
    let tokenizer = Tokenizer::open(&golden("model")).unwrap();
    let rows = rows::read(&golden("rows.jsonl")).unwrap();
    let samples = Encoder::new(&tokenizer, 64).unwrap().all(&rows).unwrap().samples;
    for (ours, theirs) in samples.iter().zip(expected()["samples"].as_array().unwrap()) {
        assert_eq!(json!(ours.ids), theirs["ids"]);
        // The first token has no predecessor: whether it is marked makes no difference to a loss.
        assert_eq!(json!(ours.learn[1..]), json!(theirs["learn"].as_array().unwrap()[1..]));
    }
}

#[test]
fn full_parameter_losses_follow_torch() {
    let expected = &expected()["full"];
    let run = Run::sft(expected["parameters"].clone());
    let facts = run.train();
    assert_losses(&run, &expected["losses"]);
    assert_eq!((&facts["steps"], &facts["rows"]), (&json!(8), &json!(10)));
}

#[test]
fn lora_losses_follow_peft() {
    let expected = &expected()["lora"];
    let run = Run::sft(expected["parameters"].clone());
    run.train();
    assert_losses(&run, &expected["losses"]);
}

#[test]
fn an_adapter_that_peft_wrote_merges_to_pefts_weights() {
    let run = Run::new(json!({}), &[("model", &golden("model")), ("adapter", &golden("peft_adapter"))]);
    run.attempt(merge::run, &Recorder::default()).unwrap();
    let ours = TensorFiles::open(&run.out("model.safetensors")).unwrap();
    let theirs = TensorFiles::open(&golden("peft_merged.safetensors")).unwrap();
    let before = TensorFiles::open(&golden("model/model.safetensors")).unwrap();
    for name in ours.names() {
        let tensor = ours.tensor(name).unwrap();
        if theirs.has(name) {
            assert!(tensor.allclose(&theirs.tensor(name).unwrap(), 0.0, WEIGHT_TOLERANCE, false), "{name}");
        } else {
            assert!(tensor.equal(&before.tensor(name).unwrap()), "{name}");
        }
    }
    for file in ["config.json", "tokenizer.json", "chat_template.jinja"] {
        assert!(run.out(file).is_file(), "{file}");
    }
}

/// Trains with a stop after the first step of every attempt, until it is done.
fn interrupted(params: &Value, file: &str) -> (usize, Vec<u8>) {
    let run = Run::sft(params.clone());
    for attempt in 1.. {
        match run.attempt(sft::run, &Recorder { interrupts: true, ..Recorder::default() }) {
            Ok(_) => return (attempt, fs::read(run.out(file)).unwrap()),
            Err(ActionError::Stopped) => assert!(attempt < 100, "no progress"),
            Err(error) => panic!("{error:?}"),
        }
    }
    unreachable!()
}

fn undisturbed(params: &Value, file: &str) -> Vec<u8> {
    let run = Run::sft(params.clone());
    run.train();
    fs::read(run.out(file)).unwrap()
}

#[test]
fn a_resumed_full_run_gives_the_same_bytes() {
    let params = json!({"steps": 5, "batch_size": 3, "grad_accumulation": 2, "learning_rate": 0.01, "weight_decay": 0.1});
    let (attempts, bytes) = interrupted(&params, "model.safetensors");
    assert_eq!(attempts, 5);
    assert!(bytes == undisturbed(&params, "model.safetensors"));
}

#[test]
fn a_resumed_lora_run_with_dropout_gives_the_same_bytes() {
    let params = json!({"epochs": 1.5, "batch_size": 4, "learning_rate": 0.01, "seed": 9,
        "lora": {"rank": 2, "alpha": 4.0, "dropout": 0.3}});
    let (attempts, bytes) = interrupted(&params, "adapter_model.safetensors");
    assert_eq!(attempts, 4);
    assert!(bytes == undisturbed(&params, "adapter_model.safetensors"));
    let mut other = params.clone();
    other["seed"] = json!(10);
    assert!(bytes != undisturbed(&other, "adapter_model.safetensors"));
}

#[test]
fn a_unit_of_another_run_is_left_out() {
    let mut run = Run::sft(json!({"steps": 2, "learning_rate": 0.01}));
    run.train();
    run.params = json!({"steps": 2, "learning_rate": 0.02});
    let recorder = Recorder::default();
    run.attempt(sft::run, &recorder).unwrap();
    assert!(recorder.logged("other parameters"));
    assert!(fs::read(run.out("model.safetensors")).unwrap() == undisturbed(&run.params, "model.safetensors"));
}

#[test]
fn lora_learns_and_merging_gives_the_adapted_model() {
    let targets =
        vec!["q_proj".to_owned(), "v_proj".to_owned(), "up_proj".to_owned(), "down_proj".to_owned()];
    let lora = Lora { rank: 8, alpha: 16.0, dropout: 0.0, targets };
    let params = Sft {
        steps: Some(80),
        ..serde_json::from_value(json!({"steps": 80, "learning_rate": 0.02})).unwrap()
    };
    let mut params = serde_json::to_value(&params).unwrap();
    params["lora"] = serde_json::to_value(&lora).unwrap();
    let run = Run::sft(params);
    run.train();
    let losses = run.losses();
    assert!(losses[79] < 0.25 * losses[0], "{} {}", losses[0], losses[79]);

    let adapter_folder = run.scratch.path().join("out");
    let merged = Run::new(json!({}), &[("model", &golden("model")), ("adapter", &adapter_folder)]);
    merged.attempt(merge::run, &Recorder::default()).unwrap();
    let options = LoadOptions::inference(tch::Device::Cpu, Some(Kind::Float));
    let load = |folder: &Path| Decoder::load(&Checkpoint::open(folder).unwrap(), &options).unwrap();
    let mut adapted = load(&golden("model"));
    let parameters = lora::attach(&mut adapted, &lora, 0, tch::Device::Cpu).unwrap();
    let adapter = Adapter::read(&adapter_folder).unwrap();
    tch::no_grad(|| {
        for parameter in parameters {
            let layer = parameter.name.rsplit_once(".lora_").unwrap().0;
            let matrices = &adapter.layers[layer];
            let value = if parameter.name.ends_with(lora::A_SUFFIX) { &matrices.a } else { &matrices.b };
            parameter.master.shallow_clone().copy_(value);
        }
        let ids = Tensor::from_slice(&[4i64, 5, 9, 12, 4, 16, 30]).unsqueeze(0);
        let positions = Tensor::arange(7, (Kind::Int64, tch::Device::Cpu)).unsqueeze(0);
        let hidden = |decoder: &Decoder| decoder.hidden(&ids, &positions, &Attention::Causal, None);
        let merged = load(&merged.scratch.path().join("out"));
        assert!(hidden(&adapted).allclose(&hidden(&merged), 1e-4, 1e-5, false));
        assert!(!hidden(&adapted).allclose(&hidden(&load(&golden("model"))), 1e-2, 1e-2, false));
    });
}

fn data_error(text: &str) -> (Failure, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("rows.jsonl");
    fs::write(&data, text).unwrap();
    let run = Run::new(json!({"steps": 1}), &[("model", &golden("model")), ("data", &data)]);
    failure(run.attempt(sft::run, &Recorder::default()).unwrap_err())
}

#[test]
fn broken_data_is_the_users_failure_and_names_the_line() {
    let (class, message, _) = data_error("");
    assert_eq!(class, Failure::User);
    assert!(message.ends_with("holds no rows"), "{message}");
    let (class, message, help) = data_error("{\"text\": \"the cat\"}\n{\"words\": \"the cat\"}\n");
    assert_eq!(class, Failure::User);
    assert!(message.contains("rows.jsonl`, line 2: {words} is not a training row"), "{message}");
    assert!(help.contains("{prompt, completion}"), "{help}");
    let (_, message, _) = data_error("{\"prompt\": \"the cat\", \"completion\": \"\"}\n");
    assert!(message.contains("none of the 1 rows"), "{message}");
}

#[test]
fn messages_need_a_template() {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(golden("model")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "chat_template.jinja" {
            fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
    }
    let run = Run::new(json!({"steps": 1}), &[("model", folder.path()), ("data", &golden("rows.jsonl"))]);
    let (class, message, _) = failure(run.attempt(sft::run, &Recorder::default()).unwrap_err());
    assert_eq!(class, Failure::User);
    assert!(message.contains("line 6: a {messages} row needs a chat template"), "{message}");
}

#[test]
fn a_quantized_base_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(golden("model/model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let mut config: Value =
        serde_json::from_str(&fs::read_to_string(golden("model/config.json")).unwrap()).unwrap();
    config["quantization_config"] = json!({"quant_method": "compressed-tensors"});
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let run = Run::new(json!({}), &[("model", folder.path()), ("adapter", &golden("peft_adapter"))]);
    let (class, message, help) = failure(run.attempt(merge::run, &Recorder::default()).unwrap_err());
    assert_eq!(class, Failure::User);
    assert!(
        message.contains("round the adapter away") && help.contains("quantize what comes out"),
        "{message} {help}"
    );
}

#[test]
fn a_rate_that_diverges_fails_at_its_step() {
    let run = Run::sft(json!({"steps": 60, "learning_rate": 1e30, "clip": 0.0}));
    let (class, message, _) = failure(run.attempt(sft::run, &Recorder::default()).unwrap_err());
    assert_eq!(class, Failure::Deterministic);
    assert!(message.contains("is not finite at step"), "{message}");
}
