//! A `qpipe-worker` process: started once, kept warm, replaced when it dies.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use qpipe_nodes::protocol::{Action, Event, Failure, PROTOCOL_VERSION, Request};
use rustix::process::{Pid, Signal, kill_process_group};
use thiserror::Error;

use crate::plan::TORCH_VERSION;

/// Lines of a worker's stderr that are kept for a failure's message.
const LOG_LINES: usize = 20;
/// How long a worker may take to load libtorch, from a slow disk too.
const START_TIME: Duration = Duration::from_secs(300);
/// What qpipe-kernels looks up: the folder of code that was compiled for a GPU.
const CUDA_CODE: &str = "QPIPE_CUDA_CODE";

/// What can go wrong with a worker, as opposed to a node.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// No binary.
    #[error("`{path}` is not there")]
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// It did not start.
    #[error("`{path}` does not start: {source}")]
    Spawn {
        /// The binary.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It started and never said that it is ready.
    #[error("the worker was not ready after {seconds} seconds")]
    Silent {
        /// How long it was waited for.
        seconds: u64,
    },
    /// It died.
    #[error("the worker {how}")]
    Died {
        /// "was killed by SIGKILL", "exited with code 1".
        how: String,
        /// True if memory may have run out: the system killed it, or it said so itself.
        starved: bool,
    },
    /// It said something that is no event.
    #[error("the worker sent a line that is no event: {line}")]
    Garbage {
        /// The line, cut.
        line: String,
    },
    /// It is of another version.
    #[error(
        "the worker speaks protocol {found} on libtorch {torch}; this qpipe needs protocol {PROTOCOL_VERSION} on libtorch {TORCH_VERSION}"
    )]
    Version {
        /// Its protocol.
        found: u32,
        /// Its libtorch.
        torch: String,
    },
}

impl WorkerError {
    /// Whose fault.
    pub fn class(&self) -> Failure {
        match self {
            Self::Died { starved: true, .. } => Failure::Resources,
            _ => Failure::Surroundings,
        }
    }

    /// What to do, as a sentence.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NotFound { .. } => Some("Build it with `cargo build --release --workspace`, or name it in QPIPE_WORKER.".to_owned()),
            Self::Spawn { .. } | Self::Silent { .. } => {
                Some("`qpipe doctor` says what is missing.".to_owned())
            }
            Self::Died { starved: true, .. } => Some("If the system was out of memory, use fewer --jobs or --max-memory. What was finished is kept: run again to go on.".to_owned()),
            Self::Died { .. } => Some("Its last lines are shown above; `qpipe doctor` says whether libtorch is found.".to_owned()),
            Self::Version { .. } | Self::Garbage { .. } => Some("Rebuild both programs from one checkout.".to_owned()),
        }
    }
}

/// An error together with the last lines that the worker wrote to stderr.
#[derive(Debug)]
pub struct BrokenWorker {
    /// What went wrong.
    pub error: WorkerError,
    /// The lines, oldest first.
    pub log: Vec<String>,
}

impl WorkerError {
    /// The error with the log of `worker`, which is ended if it still lives, so that the log is complete.
    pub fn ending(self, mut worker: Worker) -> BrokenWorker {
        // With whatever it started, which would hold its stderr open.
        kill_group(worker.pid());
        let _ = worker.child.wait();
        BrokenWorker { error: self, log: worker.log() }
    }
}

/// Ends the process group `pid`, which may be gone already.
fn kill_group(pid: u32) {
    if let Some(group) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

impl From<WorkerError> for BrokenWorker {
    fn from(error: WorkerError) -> Self {
        Self { error, log: Vec::new() }
    }
}

/// The binary: `QPIPE_WORKER`, else beside this program.
pub fn worker_path() -> PathBuf {
    if let Some(path) = std::env::var_os("QPIPE_WORKER") {
        return path.into();
    }
    let mut path = std::env::current_exe().unwrap_or_default();
    path.set_file_name("qpipe-worker");
    path
}

/// A live worker.
pub struct Worker {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    stderr: Arc<Mutex<VecDeque<String>>>,
    drain: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the binary at `path`; [`Self::greet`] waits until it is ready. In a process group of its own: Ctrl-C reaches
    /// qpipe alone, which then asks the workers to stop. Code that it compiles for a GPU is kept in `cuda_code`, unless the
    /// environment names a folder.
    pub fn spawn(path: &Path, cuda_code: Option<&Path>) -> Result<Self, BrokenWorker> {
        if !path.is_file() {
            return Err(WorkerError::NotFound { path: path.to_owned() }.into());
        }
        let mut command = Command::new(path);
        if let Some(folder) = cuda_code.filter(|_| std::env::var_os(CUDA_CODE).is_none()) {
            command.env(CUDA_CODE, folder);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|source| WorkerError::Spawn { path: path.to_owned(), source })?;
        let (Some(stdin), Some(stdout), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            unreachable!("all three streams were asked for as pipes");
        };
        let stderr = Arc::new(Mutex::new(VecDeque::new()));
        let tail = Arc::clone(&stderr);
        let drain = std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                tracing::debug!(target: "worker", "{line}");
                let mut tail = tail.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                if tail.len() == LOG_LINES {
                    tail.pop_front();
                }
                tail.push_back(line);
            }
        });
        Ok(Self { child, stdin, stdout: BufReader::new(stdout), stderr, drain: Some(drain) })
    }

    /// Waits until it has loaded libtorch and says that it is ready. A process that says nothing for five minutes is ended.
    pub fn greet(mut self) -> Result<Self, BrokenWorker> {
        let (answered, has_answered) = mpsc::channel::<()>();
        let pid = self.pid();
        let watch = std::thread::spawn(move || {
            let is_late = has_answered.recv_timeout(START_TIME) == Err(RecvTimeoutError::Timeout);
            if is_late {
                kill_group(pid);
            }
            is_late
        });
        let event = self.next_event();
        drop(answered);
        let is_late = watch.join().unwrap_or(false);
        let error = match event {
            Ok(Event::Ready { protocol: PROTOCOL_VERSION, torch }) if torch.starts_with(TORCH_VERSION) => {
                return Ok(self);
            }
            Ok(Event::Ready { protocol, torch }) => WorkerError::Version { found: protocol, torch },
            Ok(other) => WorkerError::Garbage { line: format!("{other:?} before it was ready") },
            Err(_) if is_late => WorkerError::Silent { seconds: START_TIME.as_secs() },
            Err(error) => error,
        };
        Err(error.ending(self))
    }

    /// For signals.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Hands it an action.
    pub fn send(&mut self, action: Action) -> Result<(), WorkerError> {
        let mut line = serde_json::to_vec(&Request::Run(action)).unwrap_or_default();
        line.push(b'\n');
        match self.stdin.write_all(&line).and_then(|()| self.stdin.flush()) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.died()),
        }
    }

    /// Waits for its next event.
    pub fn next_event(&mut self) -> Result<Event, WorkerError> {
        let mut line = Vec::new();
        match self.stdout.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => Err(self.died()),
            Ok(_) => serde_json::from_slice(&line).map_err(|_| {
                let text = String::from_utf8_lossy(&line);
                WorkerError::Garbage { line: text.trim_end().chars().take(200).collect() }
            }),
        }
    }

    /// The last lines it wrote to stderr. Complete once it has died.
    pub fn log(&mut self) -> Vec<String> {
        if matches!(self.child.try_wait(), Ok(Some(_)))
            && let Some(drain) = self.drain.take()
        {
            let _ = drain.join();
        }
        self.stderr.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).iter().cloned().collect()
    }

    /// Forgets what it wrote for the previous node.
    pub fn clear_log(&mut self) {
        self.stderr.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clear();
    }

    fn died(&mut self) -> WorkerError {
        let status = match self.child.wait() {
            Ok(status) => status,
            Err(error) => return WorkerError::Died { how: format!("is gone: {error}"), starved: false },
        };
        match status.signal() {
            Some(signal) => WorkerError::Died {
                how: format!("was killed by {}", signal_name(signal)),
                starved: signal == 9 || self.log().iter().any(|line| says_out_of_memory(line)),
            },
            None => WorkerError::Died {
                how: format!("exited with code {}", status.code().unwrap_or_default()),
                starved: false,
            },
        }
    }
}

/// What Rust's and C++'s libraries write before they abort for want of memory.
fn says_out_of_memory(line: &str) -> bool {
    line.starts_with("memory allocation of") || line.contains("std::bad_alloc")
}

impl Drop for Worker {
    /// An idle worker holds nothing that a clean end would save.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal_name(signal: i32) -> String {
    match signal {
        4 => "SIGILL".to_owned(),
        6 => "SIGABRT".to_owned(),
        7 => "SIGBUS".to_owned(),
        8 => "SIGFPE".to_owned(),
        9 => "SIGKILL".to_owned(),
        11 => "SIGSEGV".to_owned(),
        15 => "SIGTERM".to_owned(),
        other => format!("signal {other}"),
    }
}
