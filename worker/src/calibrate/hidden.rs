//! The hidden states of all micro-batches between two blocks: in memory, or on disk where they do not fit.
//!
//! `hidden-00003.safetensors` is a unit: what block 3 is given, `[B, T, hidden]` of each micro-batch under its number.
//! States on disk are such a unit for every block; states in memory are published now and then, so that an
//! interrupted attempt does not start at block 0.

use std::path::Path;
use std::time::{Duration, Instant};

use qpipe_nodes::protocol::Level;
use tch::{Kind, Tensor};

use super::run::Run;
use super::units::SHARE_OF_TIME;
use crate::error::ActionError;
use crate::model::{BlockRunner, CheckpointWriter, ModelError, TensorFiles, TensorSpec};

/// States in memory are published at most this often.
const PERIOD: Duration = Duration::from_secs(2);

/// What a pass through a block reads and writes: each micro-batch is taken once, then put back.
pub(super) trait HiddenStates {
    /// The states of micro-batch number `number`, on the device.
    fn take(&mut self, number: usize) -> Result<Tensor, ActionError>;
    /// Its states behind the block.
    fn put(&mut self, number: usize, states: Tensor) -> Result<(), ActionError>;
}

/// The states in front of a block.
pub(super) struct Hidden {
    block: usize,
    states: States,
    /// The unit that holds states of this or an earlier block.
    published: Option<String>,
    last: Instant,
    period: Duration,
}

enum States {
    /// By number, from the run's first micro-batch on.
    Memory(InMemory),
    /// In the published unit.
    Disk,
}

impl Hidden {
    /// The states to start from, in front of block `first` or one before it: an interrupted attempt's newest, else
    /// the embedded tokens.
    pub(super) fn begin(run: &Run<'_>, on_disk: bool, first: usize) -> Result<Self, ActionError> {
        let mut this =
            Self { block: 0, states: States::Disk, published: None, last: Instant::now(), period: PERIOD };
        this.restore(run, first)?;
        if this.published.is_none() {
            let runner = BlockRunner::new(run.checkpoint, run.options)?;
            if on_disk {
                this.publish(run, &mut |number| run.embedded(&runner, number))?;
            } else {
                let all = (run.start..run.batches.len()).map(|number| run.embedded(&runner, number));
                let states = all.map(|states| states.map(Some)).collect::<Result<_, _>>()?;
                this.states = States::Memory(InMemory { first: run.start, states });
            }
        } else if !on_disk {
            let mut file = this.open(run)?;
            let all = (run.start..run.batches.len()).map(|number| file.take(number));
            let states = all.map(|states| states.map(Some)).collect::<Result<_, _>>()?;
            this.states = States::Memory(InMemory { first: run.start, states });
        }
        Ok(this)
    }

    /// The block that is next.
    pub(super) fn block(&self) -> usize {
        self.block
    }

    /// Has `pass` take all micro-batches through the block that is next. What comes out is kept if `keep`.
    pub(super) fn advance(
        &mut self,
        run: &Run<'_>,
        keep: bool,
        pass: &mut dyn FnMut(&mut dyn HiddenStates) -> Result<(), ActionError>,
    ) -> Result<(), ActionError> {
        let mut states = std::mem::replace(&mut self.states, States::Disk);
        match &mut states {
            States::Memory(memory) => {
                pass(memory)?;
                self.block += 1;
                if keep && self.last.elapsed() >= self.period {
                    self.publish(run, &mut |number| memory.peek(number))?;
                }
            }
            States::Disk => {
                let mut file = self.open(run)?;
                self.block += 1;
                if keep {
                    let specs = specs(run)?;
                    self.replace(run, |path| {
                        file.to = Some(CheckpointWriter::single(path, specs)?);
                        pass(&mut file)?;
                        file.to.take().map_or(Ok(()), |writer| Ok(writer.finish()?))
                    })?;
                } else {
                    pass(&mut file)?;
                }
            }
        }
        self.states = states;
        Ok(())
    }

    /// Drops the unit.
    pub(super) fn forget(&mut self, run: &Run<'_>) {
        if let Some(name) = self.published.take() {
            run.context.drop_unit(&name);
        }
    }

    /// Looks for the newest unit that has all micro-batches in front of block `first` or one before it.
    fn restore(&mut self, run: &Run<'_>, first: usize) -> Result<(), ActionError> {
        for name in run.context.units().into_iter().rev() {
            let block = name.strip_prefix("hidden-").and_then(|rest| rest.strip_suffix(".safetensors"));
            let Some(block) = block.and_then(|block| block.parse().ok()) else { continue };
            let Some(path) = run.context.unit(&name) else { continue };
            let file = TensorFiles::open(&path)?;
            let serves = self.published.is_none() && block <= first;
            if serves && (run.start..run.batches.len()).all(|n| file.has(&key(n))) {
                run.context.log(Level::Info, format!("goes on at block {block} of an earlier attempt"));
                self.block = block;
                self.published = Some(name);
            } else {
                run.context.drop_unit(&name);
            }
        }
        Ok(())
    }

    fn open(&self, run: &Run<'_>) -> Result<OnDisk, ActionError> {
        let name = self.published.clone().unwrap_or_default();
        let lost = || ActionError::from(std::io::Error::other(format!("unit `{name}` vanished")));
        let path = run.context.unit(&name).ok_or_else(lost)?;
        Ok(OnDisk { from: TensorFiles::open(&path)?, to: None, device: run.context.device() })
    }

    /// Publishes the states in front of the block that is next, micro-batch by micro-batch.
    fn publish(
        &mut self,
        run: &Run<'_>,
        states: &mut dyn FnMut(usize) -> Result<Tensor, ActionError>,
    ) -> Result<(), ActionError> {
        let begin = Instant::now();
        let specs = specs(run)?;
        self.replace(run, |path| {
            let mut writer = CheckpointWriter::single(path, specs)?;
            for number in run.start..run.batches.len() {
                writer.put(&key(number), &states(number)?)?;
            }
            Ok(writer.finish()?)
        })?;
        self.period = PERIOD.max(begin.elapsed() * SHARE_OF_TIME);
        Ok(())
    }

    /// Publishes a unit that `write` writes, and drops the one before.
    fn replace(
        &mut self,
        run: &Run<'_>,
        write: impl FnOnce(&Path) -> Result<(), ActionError>,
    ) -> Result<(), ActionError> {
        let name = format!("hidden-{:05}.safetensors", self.block);
        run.context.publish_unit(&name, write)?;
        if let Some(previous) = self.published.replace(name) {
            run.context.drop_unit(&previous);
        }
        self.last = Instant::now();
        Ok(())
    }
}

fn key(number: usize) -> String {
    format!("batch-{number:06}")
}

fn specs(run: &Run<'_>) -> Result<Vec<TensorSpec>, ModelError> {
    let kind: Kind = run.options.kind(run.checkpoint)?;
    let hidden = run.checkpoint.config.hidden_size;
    let spec = |number: usize| {
        let batch = &run.batches[number];
        let shape = vec![batch.samples.len() as i64, batch.length as i64, hidden];
        TensorSpec { name: key(number), kind, shape }
    };
    Ok((run.start..run.batches.len()).map(spec).collect())
}

struct InMemory {
    first: usize,
    states: Vec<Option<Tensor>>,
}

impl InMemory {
    fn peek(&self, number: usize) -> Result<Tensor, ActionError> {
        let states = self.states.get(number - self.first).and_then(Option::as_ref);
        states.map(Tensor::shallow_clone).ok_or_else(|| missing(number))
    }
}

impl HiddenStates for InMemory {
    fn take(&mut self, number: usize) -> Result<Tensor, ActionError> {
        self.states.get_mut(number - self.first).and_then(Option::take).ok_or_else(|| missing(number))
    }

    fn put(&mut self, number: usize, states: Tensor) -> Result<(), ActionError> {
        if let Some(place) = self.states.get_mut(number - self.first) {
            *place = Some(states);
        }
        Ok(())
    }
}

/// Reads one unit and writes the next.
struct OnDisk {
    from: TensorFiles,
    to: Option<CheckpointWriter>,
    device: tch::Device,
}

impl HiddenStates for OnDisk {
    /// A copy: the map's pages can be given back, and memory of libtorch's own is aligned as it always is.
    fn take(&mut self, number: usize) -> Result<Tensor, ActionError> {
        let states = self.from.tensor(&key(number))?;
        Ok(states.f_to_device_(self.device, states.kind(), false, true)?)
    }

    fn put(&mut self, number: usize, states: Tensor) -> Result<(), ActionError> {
        match &mut self.to {
            Some(writer) => Ok(writer.put(&key(number), &states)?),
            None => Ok(()),
        }
    }
}

fn missing(number: usize) -> ActionError {
    std::io::Error::other(format!("micro-batch {number} was taken and not put back")).into()
}
