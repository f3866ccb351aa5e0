//! What a running action sees of the outside: its parameters, its inputs, its scratch folder, and a way to
//! say how far it is.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use fs_err as fs;
use qpipe_nodes::Kind;
use qpipe_nodes::protocol::{Action, Device, Event, Failure, Input, Level, OUT, UNITS};
use serde_json::Value;

use crate::error::ActionError;

/// Figures that an action reports besides its artifact.
pub type Facts = BTreeMap<String, Value>;

/// Where events go: stdout in the worker, a list in tests.
pub trait Events {
    /// Sends one event.
    fn send(&self, event: &Event);
}

/// One action while it runs.
pub struct Context<'a> {
    action: &'a Action,
    events: &'a dyn Events,
    stop: &'a AtomicBool,
}

impl<'a> Context<'a> {
    /// `stop` is set by SIGTERM.
    pub fn new(action: &'a Action, events: &'a dyn Events, stop: &'a AtomicBool) -> Self {
        Self { action, events, stop }
    }

    /// The typed parameters.
    pub fn params<K: Kind>(&self) -> Result<K, ActionError> {
        serde_json::from_value(self.action.params.clone()).map_err(|error| {
            ActionError::new(
                Failure::Deterministic,
                format!("the parameters of `{}` do not parse: {error}", K::NAME),
            )
        })
    }

    /// The path of the single input at `port`.
    pub fn input(&self, port: &str) -> Result<&Path, ActionError> {
        match self.action.inputs.get(port) {
            Some(Input::One(path)) => Ok(path),
            Some(_) => Err(ActionError::user(format!("`{port}` takes one artifact"))),
            None => Err(ActionError::user(format!("input `{port}` is missing"))),
        }
    }

    /// The inputs at `port`, whatever their arity; names are empty unless the file gave a map.
    pub fn inputs(&self, port: &str) -> Vec<(String, PathBuf)> {
        match self.action.inputs.get(port) {
            Some(Input::One(path)) => vec![(String::new(), path.clone())],
            Some(Input::Many(paths)) => paths.iter().map(|path| (String::new(), path.clone())).collect(),
            Some(Input::Map(map)) => map.iter().map(|(name, path)| (name.clone(), path.clone())).collect(),
            None => Vec::new(),
        }
    }

    /// The folder that becomes the artifact; made on first use.
    pub fn out(&self) -> Result<PathBuf, ActionError> {
        let out = self.action.scratch.join(OUT);
        fs::create_dir_all(&out)?;
        Ok(out)
    }

    /// Where to compute.
    pub fn device(&self) -> tch::Device {
        match self.action.device {
            Device::Cpu => tch::Device::Cpu,
            Device::Cuda(index) => tch::Device::Cuda(index as usize),
        }
    }

    /// CPU threads.
    pub fn threads(&self) -> u32 {
        self.action.threads
    }

    /// Bytes of memory that the action was told to make do with.
    pub fn max_memory(&self) -> Option<u64> {
        self.action.max_memory
    }

    /// Says how far the action is.
    pub fn progress(&self, done: u64, total: u64, unit: &str, note: Option<String>) {
        self.events.send(&Event::Progress { id: self.action.id, done, total, unit: unit.to_owned(), note });
    }

    /// Says something worth reading.
    pub fn log(&self, level: Level, message: impl Into<String>) {
        self.events.send(&Event::Log { id: Some(self.action.id), level, message: message.into() });
    }

    /// To be called between units of work: an error once SIGTERM came.
    pub fn check_stop(&self) -> Result<(), ActionError> {
        if self.stop.load(Ordering::Relaxed) { Err(ActionError::Stopped) } else { Ok(()) }
    }

    /// The finished unit `name` of this attempt or an earlier one.
    pub fn unit(&self, name: &str) -> Option<PathBuf> {
        let path = self.action.scratch.join(UNITS).join(name);
        path.is_file().then_some(path)
    }

    /// Names of all finished units, sorted.
    pub fn units(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.action.scratch.join(UNITS)) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok())
            .filter(|n| !n.ends_with(".partial"))
            .collect();
        names.sort();
        names
    }

    /// Writes the unit `name` under another name, syncs it, renames it and says so. From then on a crash does
    /// not lose it.
    pub fn publish_unit(
        &self,
        name: &str,
        write: impl FnOnce(&Path) -> Result<(), ActionError>,
    ) -> Result<(), ActionError> {
        let folder = self.action.scratch.join(UNITS);
        fs::create_dir_all(&folder)?;
        let partial = folder.join(format!("{name}.partial"));
        let synced = write(&partial).and_then(|()| Ok(fs::File::open(&partial)?.sync_all()?));
        if let Err(error) = synced {
            // On a full disk half a unit would only keep it full.
            let _ = fs::remove_file(&partial);
            return Err(error);
        }
        fs::rename(&partial, folder.join(name))?;
        self.events.send(&Event::Unit { id: self.action.id, name: name.to_owned() });
        Ok(())
    }

    /// Removes a unit that a later one has made superfluous.
    pub fn drop_unit(&self, name: &str) {
        let _ = fs::remove_file(self.action.scratch.join(UNITS).join(name));
    }

    /// Writes `value` as pretty JSON to `out/name`.
    pub fn write_json(&self, name: &str, value: &impl serde::Serialize) -> Result<(), ActionError> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| ActionError::new(Failure::Deterministic, format!("{name}: {error}")))?;
        let mut file = fs::File::create(self.out()?.join(name))?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        Ok(())
    }
}
