//! The worker as a process: what it says first, how it ends, and that stdout carries events and nothing else.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod tiny_checkpoint;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use qpipe_nodes::protocol::{Action, Device, Event, Failure, Input, PROTOCOL_VERSION, Request};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tiny_checkpoint::random_weight;

/// How long a worker may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

struct Worker {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts it with an empty environment in another folder: it finds libtorch by itself.
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_qpipe-worker"))
            .env_clear()
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut worker = Self { child, stdin, stdout };
        match worker.event() {
            Event::Ready { protocol, torch } => {
                assert_eq!(protocol, PROTOCOL_VERSION);
                assert!(torch.starts_with("2.11."), "{torch}");
            }
            other => panic!("the first event is {other:?}"),
        }
        worker
    }

    fn send(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn run(&mut self, action: Action) {
        self.send(&serde_json::to_string(&Request::Run(action)).unwrap());
    }

    fn event(&mut self) -> Event {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// The next event that is not progress.
    fn result(&mut self) -> Event {
        loop {
            match self.event() {
                Event::Progress { .. } | Event::Log { .. } | Event::Unit { .. } => {}
                event => return event,
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// How it ended, what else it said on stdout, and its stderr.
    fn end(mut self) -> (ExitStatus, String, String) {
        let began = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < PATIENCE, "the worker does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let (mut out, mut err) = (String::new(), String::new());
        self.stdout.read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (self.child.wait().unwrap(), out, err)
    }
}

/// An evaluation of a random model on many questions: a second of work or more.
fn long_action(folder: &std::path::Path) -> Action {
    let (model, data) = (folder.join("model"), folder.join("questions.jsonl"));
    tiny_checkpoint::write(&model, random_weight);
    tiny_checkpoint::write_questions(&data, 200);
    Action {
        id: 7,
        kind: "evaluate".to_owned(),
        params: json!({"topic": "fruit", "candidates": "text", "batch_tokens": 300}),
        inputs: [("model".to_owned(), Input::One(model)), ("data".to_owned(), Input::One(data))].into(),
        scratch: folder.join("scratch"),
        device: Device::Cpu,
        threads: 1,
        max_memory: None,
    }
}

fn until_progress(worker: &mut Worker) {
    while !matches!(worker.event(), Event::Progress { .. }) {}
}

#[test]
fn it_ends_when_stdin_does() {
    let mut worker = Worker::start();
    worker.stdin = None;
    let (status, out, _) = worker.end();
    assert!(status.success());
    assert_eq!(out, "");
}

#[test]
fn it_ends_when_asked_to() {
    let mut worker = Worker::start();
    worker.send("{\"request\": \"shutdown\"}");
    assert!(worker.end().0.success());
}

#[test]
fn sigterm_ends_an_idle_worker_and_sigint_does_not() {
    let mut worker = Worker::start();
    worker.signal(Signal::INT);
    worker
        .run(Action { kind: "no-such-kind".to_owned(), ..long_action(tempfile::tempdir().unwrap().path()) });
    match worker.result() {
        Event::Failed { id: 7, class: Failure::User, message, .. } => {
            assert!(message.contains("no-such-kind"))
        }
        other => panic!("{other:?}"),
    }
    worker.signal(Signal::TERM);
    assert!(worker.end().0.success());
}

#[test]
fn a_line_that_is_no_request_is_exit_code_2() {
    let mut worker = Worker::start();
    worker.send("{\"request\": \"dance\"}");
    let (status, out, err) = worker.end();
    assert_eq!(status.code(), Some(2));
    assert_eq!(out, "");
    assert!(err.contains("not a request"), "{err}");
}

#[test]
fn an_action_runs_to_its_result_and_the_next_one_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut action = long_action(folder.path());
    action.params = json!({"topic": "fruit", "limit": 3});
    let mut worker = Worker::start();
    for id in [1, 2] {
        worker.run(Action { id, ..action.clone() });
        match worker.result() {
            Event::Done { id: found, facts } => {
                assert_eq!(found, id);
                assert_eq!(facts["questions"], 3);
                assert!(facts["process_peak_bytes"].as_u64().unwrap() > 1 << 20);
            }
            other => panic!("{other:?}"),
        }
    }
    worker.stdin = None;
    assert!(worker.end().0.success());
}

#[test]
fn a_gpu_that_is_not_there_is_said_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = Worker::start();
    worker.run(Action { device: Device::Cuda(1000), ..long_action(folder.path()) });
    match worker.result() {
        Event::Failed { class: Failure::Surroundings, help: Some(_), .. } => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn sigterm_stops_an_action_at_a_unit_and_the_next_attempt_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let action = long_action(folder.path());
    let mut worker = Worker::start();
    worker.run(action.clone());
    until_progress(&mut worker);
    worker.signal(Signal::TERM);
    assert!(matches!(worker.result(), Event::Stopped { id: 7 }));
    assert!(worker.end().0.success());
    assert!(std::fs::read_dir(folder.path().join("scratch/units")).unwrap().count() >= 1);

    let mut worker = Worker::start();
    worker.run(action);
    assert!(matches!(worker.result(), Event::Done { id: 7, .. }));
}

#[test]
fn an_orphan_ends_in_the_middle_of_an_action() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = Worker::start();
    worker.run(long_action(folder.path()));
    until_progress(&mut worker);
    worker.stdin = None;
    let (status, _, _) = worker.end();
    assert_eq!(status.code(), Some(1));
    assert!(!folder.path().join("scratch/out/mcqa.jsonl").exists());
}
