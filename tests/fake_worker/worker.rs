//! A worker without libtorch, for tests of the engine: it speaks the protocol, writes small artifacts that
//! depend on nothing but its inputs, and misbehaves when asked to.
//!
//! A node's `seed` says how, of a calibration also its `samples`: see [`Mischief`]. Every action is appended to the file in FAKE_WORKER_LOG.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, clippy::exit, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, Write, stdin, stdout};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use qpipe_nodes::kinds::{Bos, Candidates, Protocol};
use qpipe_nodes::protocol::{Action, Event, Failure, Input, Level, OUT, PROTOCOL_VERSION, Request, UNITS};
use qpipe_nodes::results::{Answer, BenchmarkResult, Evaluation, TaskResult};

/// An earlier, smaller calibration.
const PREVIOUS: &str = qpipe_nodes::kinds::Calibrate::PREVIOUS;

/// What a node does by its seed; 0 and others: what it should.
enum Mischief {
    None,
    Abort,
    Garbage,
    Slow,
    UserError,
    Exit,
    Deterministic,
    OutOfMemory,
    EditsItsInput,
}

impl Mischief {
    fn of(action: &Action) -> Self {
        match action.params["seed"].as_u64() {
            Some(1001) => Self::Abort,
            Some(1002) => Self::Garbage,
            Some(1003) => Self::Slow,
            Some(1004) => Self::UserError,
            Some(1005) => Self::Exit,
            Some(1006) => Self::Deterministic,
            Some(1007) => Self::OutOfMemory,
            Some(1008) => Self::EditsItsInput,
            _ if action.params["samples"] == 990 => Self::UserError,
            _ => Self::None,
        }
    }
}

fn main() {
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&stop)).unwrap();
    say(&Event::Ready { protocol: PROTOCOL_VERSION, torch: "2.11.0".to_owned() });
    // As the real one: when qpipe dies, stdin ends, and so does the worker, in the middle of an action too.
    let (requests, queue) = mpsc::channel();
    std::thread::spawn(move || {
        for line in stdin().lock().lines().map_while(Result::ok) {
            requests.send(serde_json::from_str::<Request>(&line).unwrap()).unwrap();
        }
        std::process::exit(0);
    });
    while let Ok(Request::Run(action)) = queue.recv() {
        log(&action);
        act(&action, &stop);
    }
}

fn act(action: &Action, stop: &AtomicBool) {
    let id = action.id;
    let seed = digest(action);
    match Mischief::of(action) {
        Mischief::Abort => {
            eprintln!("about to abort");
            std::process::abort();
        }
        Mischief::Garbage => {
            println!("this is no event");
            std::thread::sleep(Duration::from_secs(60));
        }
        Mischief::Exit => {
            eprintln!("cannot go on");
            std::process::exit(3);
        }
        Mischief::UserError => {
            let message = "train.jsonl:3: the row has no text".to_owned();
            return say(&Event::Failed {
                id,
                class: Failure::User,
                message,
                help: Some("Mend the row.".into()),
            });
        }
        Mischief::Deterministic => {
            let message = "the loss is not finite at step 2".to_owned();
            let help = Some("Lower `learning_rate`.".into());
            return say(&Event::Failed { id, class: Failure::Deterministic, message, help });
        }
        Mischief::OutOfMemory => {
            eprintln!("memory allocation of 16384000000 bytes failed");
            std::process::abort();
        }
        Mischief::EditsItsInput => {
            let Some(Input::One(data)) = action.inputs.get("data") else { unreachable!() };
            fs::write(data, "{\"text\": \"edited meanwhile\"}\n").unwrap();
        }
        Mischief::Slow => {
            let units = action.scratch.join(UNITS);
            fs::create_dir_all(&units).unwrap();
            for step in 0..100 {
                let name = format!("{step:03}");
                if units.join(&name).exists() {
                    continue;
                }
                if stop.load(Ordering::Relaxed) {
                    return say(&Event::Stopped { id });
                }
                std::thread::sleep(Duration::from_millis(40));
                fs::write(units.join("partial"), format!("{seed} {step}")).unwrap();
                fs::rename(units.join("partial"), units.join(&name)).unwrap();
                say(&Event::Unit { id, name });
                say(&Event::Progress { id, done: step + 1, total: 100, unit: "steps".into(), note: None });
            }
        }
        Mischief::None => {}
    }
    if let Some(Input::One(previous)) = action.inputs.get(PREVIOUS) {
        let message = fs::read_to_string(previous.join("statistics.json")).unwrap();
        say(&Event::Log { id: Some(id), level: Level::Info, message: format!("goes on from {message}") });
    }
    say(&Event::Progress { id, done: 1, total: 1, unit: "steps".into(), note: Some("loss 1.00".into()) });
    write_artifact(action, &seed);
    say(&Event::Done { id, facts: BTreeMap::new() });
}

fn write_artifact(action: &Action, seed: &str) {
    let out = action.scratch.join(OUT);
    fs::create_dir_all(&out).unwrap();
    let write = |name: &str, text: String| fs::write(out.join(name), text).unwrap();
    match action.kind.as_str() {
        "evaluate" => {
            let random = blake3::hash(seed.as_bytes());
            let answers: Vec<Answer> = (0..30)
                .map(|doc_id| {
                    let pred = u32::from(random.as_bytes()[doc_id as usize] % 4);
                    let scores = (0..4).map(|i| if i == pred { -0.5 } else { -1.0 - f64::from(i) }).collect();
                    Answer {
                        doc_id,
                        scores,
                        pred,
                        gold: (doc_id % 4) as u32,
                        correct: u64::from(pred) == doc_id % 4,
                    }
                })
                .collect();
            let correct = answers.iter().filter(|answer| answer.correct).count() as u64;
            let lines: Vec<String> =
                answers.iter().map(|answer| serde_json::to_string(answer).unwrap()).collect();
            write("mcqa.jsonl", lines.join("\n") + "\n");
            let result = TaskResult {
                n: 30,
                correct: Some(correct),
                accuracy: Some(correct as f64 / 30.0),
                candidates: Candidates::Letters,
                bos: Bos::Never,
                tokens: 1000,
                divergence: None,
                harness: None,
            };
            let evaluation = Evaluation {
                tasks: BTreeMap::from([("mcqa".to_owned(), result)]),
                dtype: "float32".into(),
                device: "cpu".into(),
                scheme: "dense".into(),
                quantization: None,
                groups: Default::default(),
            };
            write("evaluation.json", serde_json::to_string(&evaluation).unwrap());
        }
        "benchmark" => {
            let result = BenchmarkResult {
                protocol: serde_json::from_value::<Protocol>(action.params["protocol"].clone())
                    .unwrap_or_default(),
                device: "cpu".into(),
                hardware: "none".into(),
                threads: action.threads,
                dtype: "float32".into(),
                questions: 10,
                avg_time_s: 0.01,
                tokens_per_s: 1000.0,
                avg_peak_vram_mb: 12.0,
                weight_bytes: 1000,
                process_peak_mb: 20.0,
                time_p50_s: 0.01,
                time_p10_s: 0.009,
                time_p90_s: 0.011,
                load_before: 0.0,
                busy_before: None,
                busy_meanwhile: None,
                clock_mhz: None,
                energy: None,
                generation: Vec::new(),
                roofline: None,
            };
            write("benchmark.json", serde_json::to_string(&result).unwrap());
        }
        "calibrate" => write("statistics.json", action.params["samples"].to_string()),
        "sft" if !action.params["lora"].is_null() => {
            write("adapter_config.json", format!("{{\"seed\": \"{seed}\"}}"));
            write("adapter_model.safetensors", seed.to_owned());
        }
        _ => {
            write("config.json", format!("{{\"seed\": \"{seed}\"}}"));
            write("model.safetensors", seed.to_owned());
        }
    }
}

/// Of the parameters and the bytes of all inputs but an earlier result: what a node's artifact depends on.
fn digest(action: &Action) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(action.kind.as_bytes());
    hasher.update(action.params.to_string().as_bytes());
    for (port, input) in action.inputs.iter().filter(|(port, _)| *port != PREVIOUS) {
        hasher.update(port.as_bytes());
        let paths = match input {
            Input::One(path) => vec![path.clone()],
            Input::Many(paths) => paths.clone(),
            Input::Map(map) => map.values().cloned().collect(),
        };
        for path in paths {
            feed(&mut hasher, &path);
        }
    }
    hasher.finalize().to_hex().to_string()
}

fn feed(hasher: &mut blake3::Hasher, path: &Path) {
    if path.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries.iter().for_each(|entry| feed(hasher, entry));
    } else {
        hasher.update(&fs::read(path).unwrap());
    }
}

fn log(action: &Action) {
    if let Some(path) = std::env::var_os("FAKE_WORKER_LOG") {
        let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
        // In one call: several processes write to it.
        let line = format!("{} {} {}\n", action.kind, digest(action), std::process::id());
        file.write_all(line.as_bytes()).unwrap();
    }
}

fn say(event: &Event) {
    let mut stdout = stdout().lock();
    serde_json::to_writer(&mut stdout, event).unwrap();
    stdout.write_all(b"\n").unwrap();
    stdout.flush().unwrap();
}
