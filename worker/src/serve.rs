//! The worker's life: actions arrive on stdin, events leave on stdout, one action runs at a time.
//!
//! * Events keep the real stdout for themselves; whatever a library prints lands on stderr, which `qpipe` keeps
//!   as the worker's log.
//! * SIGTERM asks the running action to stop at the end of its unit; SIGINT changes nothing: `qpipe` puts the worker into
//!   a process group of its own, hears the terminal's Ctrl-C alone, and sends SIGTERM where it wants one.
//! * When stdin ends, `qpipe` is gone: the process ends at once, in the middle of an action too, so that no
//!   orphan computes on.

use std::fs::File;
use std::io::{self, BufRead, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use qpipe_nodes::protocol::{Action, Event, Failure, Level, PROTOCOL_VERSION, Request};
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use crate::actions::ACTIONS;
use crate::context::{Context, Events, Facts};
use crate::error::{ActionError, first_line};
use crate::{memory, torch};

/// The other side sent what is no request.
const EXIT_GARBAGE: u8 = 2;
/// The worker could not start.
const EXIT_START: u8 = 5;

/// What wakes the worker up.
enum Message {
    Request(Request),
    Garbage { line: String, error: String },
    Terminate,
    EndOfInput,
}

/// Runs until stdin ends, `shutdown` is asked for or SIGTERM comes. Returns the process's exit code.
pub fn main() -> ExitCode {
    log_to_stderr();
    match start() {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("the worker does not start: {error}");
            ExitCode::from(EXIT_START)
        }
    }
}

/// `qpipe` keeps the worker's stderr as its log.
pub(crate) fn log_to_stderr() {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
}

fn start() -> io::Result<ExitCode> {
    qpipe_kernels::environment::check().map_err(io::Error::other)?;
    let events = EventWriter::take_stdout()?;
    let stop = Arc::new(AtomicBool::new(false));
    let busy = Arc::new(AtomicBool::new(false));
    let (sender, messages) = mpsc::channel();
    listen_to_signals(Arc::clone(&stop), sender.clone())?;
    // One pool for work between operations would only take cores from the one inside them.
    tch::set_num_interop_threads(1);
    events.send(&Event::Ready { protocol: PROTOCOL_VERSION, torch: torch::version().to_owned() });
    read_requests(Arc::clone(&busy), sender)?;
    Ok(serve(&messages, &events, &stop, &busy))
}

fn serve(
    messages: &Receiver<Message>,
    events: &EventWriter,
    stop: &AtomicBool,
    busy: &AtomicBool,
) -> ExitCode {
    while let Ok(message) = messages.recv() {
        match message {
            Message::Request(Request::Run(action)) => {
                busy.store(true, Ordering::SeqCst);
                let event = run(&action, events, stop);
                busy.store(false, Ordering::SeqCst);
                events.send(&event);
            }
            Message::Request(Request::Shutdown) | Message::Terminate | Message::EndOfInput => break,
            Message::Garbage { line, error } => {
                tracing::error!("not a request: {error}: {}", line.chars().take(200).collect::<String>());
                return ExitCode::from(EXIT_GARBAGE);
            }
        }
    }
    ExitCode::SUCCESS
}

/// Runs one action and says how it ended.
fn run(action: &Action, events: &dyn Events, stop: &AtomicBool) -> Event {
    let id = action.id;
    let result = catch_unwind(AssertUnwindSafe(|| attempt(action, events, stop)));
    match result.unwrap_or_else(|payload| Err(of_panic(payload.as_ref()))) {
        Ok(facts) => Event::Done { id, facts },
        Err(ActionError::Stopped) => Event::Stopped { id },
        Err(ActionError::Failed { class, message, help }) => Event::Failed { id, class, message, help },
    }
}

fn attempt(action: &Action, events: &dyn Events, stop: &AtomicBool) -> Result<Facts, ActionError> {
    let Some((_, run)) = ACTIONS.iter().find(|(kind, _)| *kind == action.kind) else {
        return Err(ActionError::user(format!("the worker does not run nodes of kind `{}`", action.kind)));
    };
    torch::prepare(action.device, action.threads)?;
    memory::reset_process_peak();
    let context = Context::new(action, events, stop);
    context.check_stop()?;
    let result = run(&context);
    for reason in qpipe_kernels::cuda::take_failures() {
        context.log(Level::Warn, format!("{reason}; what needs it is computed by other kernels"));
    }
    memory::release_cached(context.device());
    let mut facts = result?;
    if let Some(bytes) = memory::process_peak_bytes() {
        facts.entry("process_peak_bytes".to_owned()).or_insert_with(|| Value::from(bytes));
    }
    Ok(facts)
}

/// What a panic comes to. tch panics with libtorch's whole message, of which the first line says what happened; the
/// rest went to stderr.
fn of_panic(payload: &(dyn std::any::Any + Send)) -> ActionError {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("the action panicked");
    ActionError::of_device(text).unwrap_or_else(|| {
        let first = first_line(text);
        let message = format!("a bug of the worker, or data that it did not foresee: {first}");
        ActionError::new(Failure::Deterministic, message)
    })
}

/// Sends events as JSON lines to what was stdout when the process started.
struct EventWriter {
    stdout: Mutex<File>,
}

impl EventWriter {
    /// Keeps the real stdout for events and lets file descriptor 1 name stderr.
    fn take_stdout() -> io::Result<Self> {
        let real = rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3)?;
        // SAFETY: descriptor 1 is open (it was just copied), and the handle is forgotten, never closed.
        let mut one = unsafe { OwnedFd::from_raw_fd(1) };
        let redirected = rustix::io::dup2(io::stderr(), &mut one);
        std::mem::forget(one);
        redirected?;
        Ok(Self { stdout: Mutex::new(File::from(real)) })
    }
}

impl Events for EventWriter {
    fn send(&self, event: &Event) {
        let mut line = serde_json::to_vec(event).expect("events hold no map with keys other than text");
        line.push(b'\n');
        let mut stdout = self.stdout.lock().unwrap_or_else(PoisonError::into_inner);
        if stdout.write_all(&line).is_err() {
            // Nobody reads any more.
            low_level::exit(1);
        }
    }
}

/// A thread that reads requests until stdin ends. It ends the process itself while an action runs, since the
/// thread that runs it is inside libtorch.
fn read_requests(busy: Arc<AtomicBool>, sender: Sender<Message>) -> io::Result<()> {
    thread::Builder::new().name("requests".to_owned()).spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if line.trim().is_empty() {
                continue;
            }
            let message = match serde_json::from_str(&line) {
                Ok(request) => Message::Request(request),
                Err(error) => Message::Garbage { line, error: error.to_string() },
            };
            if sender.send(message).is_err() {
                return;
            }
        }
        if busy.load(Ordering::SeqCst) {
            low_level::exit(1);
        }
        // The worker may have taken up a request in this moment: it is told, and the next look ends it.
        while sender.send(Message::EndOfInput).is_ok() {
            if busy.load(Ordering::SeqCst) {
                low_level::exit(1);
            }
            thread::sleep(std::time::Duration::from_millis(50));
        }
    })?;
    Ok(())
}

/// A thread that waits for signals: SIGTERM sets `stop` and wakes the worker up, SIGINT is taken and dropped.
fn listen_to_signals(stop: Arc<AtomicBool>, sender: Sender<Message>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            if signal == SIGTERM {
                stop.store(true, Ordering::SeqCst);
                if sender.send(Message::Terminate).is_err() {
                    return;
                }
            }
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(text: &str) -> (Failure, String) {
        match of_panic(&text.to_owned()) {
            ActionError::Failed { class, message, .. } => (class, message),
            ActionError::Stopped => unreachable!("a panic is no stop"),
        }
    }

    #[test]
    fn a_panic_of_tch_becomes_its_first_line() {
        let text = "called `Result::unwrap()` on an `Err` value: Torch(\"shapes do not fit\\nException raised from x\")";
        let (class, message) = failed(text);
        assert_eq!(class, Failure::Deterministic);
        assert!(message.ends_with(": shapes do not fit"), "{message}");
    }

    #[test]
    fn a_panic_for_want_of_memory_is_of_resources() {
        let text = "called `Result::unwrap()` on an `Err` value: Torch(\"[enforce fail at alloc_cpu.cpp:127] err == 0. \
                    DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes. Error code 12 \
                    (Cannot allocate memory)\\nframe #0\")";
        let (class, message) = failed(text);
        assert_eq!(class, Failure::Resources);
        assert!(message.starts_with("DefaultCPUAllocator"), "{message}");
    }

    #[test]
    fn a_panic_for_a_gpu_that_failed_is_of_the_surroundings() {
        let text = "called `Result::unwrap()` on an `Err` value: Torch(\"CUDA error: unspecified launch failure\\nCUDA \
                    kernel errors might be reported later\")";
        let (class, message) = failed(text);
        assert_eq!(
            (class, message.as_str()),
            (Failure::Surroundings, "CUDA error: unspecified launch failure")
        );
    }
}
