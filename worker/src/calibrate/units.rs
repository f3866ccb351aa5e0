//! Units of a calibration: the running measurements of some blocks after some micro-batches.
//!
//! Whoever goes on from one has the very sums that the killed attempt had, so the order of additions and with it
//! every bit is that of an undisturbed run. One unit is kept; it is dropped when the next one is published.

use std::time::{Duration, Instant};

use qpipe_nodes::kinds::Extent;
use qpipe_nodes::protocol::Level;

use super::accumulate::Accumulator;
use super::measured::{self, MeasuredFile};
use crate::context::Context;
use crate::error::ActionError;

/// Units are published at most this often,
const PERIOD: Duration = Duration::from_secs(1);
/// and so rarely that writing them takes at most this share of the time.
pub(super) const SHARE_OF_TIME: u32 = 20;
/// Bytes a second that writing is expected to reach before it was tried.
const EXPECTED_SPEED: f64 = 300e6;

/// The running measurements of some blocks.
pub(super) struct Progress {
    /// Micro-batches that are in them, counted from the first of all.
    pub(super) done: usize,
    /// By block, then by input.
    pub(super) blocks: Vec<Vec<Accumulator>>,
}

/// Publishes units of the blocks from number `first` on, and finds them again.
pub(super) struct Units<'a> {
    context: &'a Context<'a>,
    first: usize,
    published: Option<String>,
    last: Instant,
    period: Duration,
}

impl<'a> Units<'a> {
    /// For measurements that will take `bytes` bytes.
    pub(super) fn new(context: &'a Context<'a>, first: usize, bytes: u64) -> Self {
        let expected = Duration::from_secs_f64(bytes as f64 / EXPECTED_SPEED);
        let period = PERIOD.max(expected * SHARE_OF_TIME);
        Self { context, first, published: None, last: Instant::now(), period }
    }

    /// The newest unit of an earlier attempt, with the measurements of `blocks` blocks.
    pub(super) fn restore(&mut self, blocks: usize, extent: Extent) -> Result<Option<Progress>, ActionError> {
        let prefix = format!("from-block-{:05}-batch-", self.first);
        let batches = |name: &str| name.strip_prefix(&prefix)?.strip_suffix(".safetensors")?.parse().ok();
        let mut found = self.context.units().into_iter().filter_map(|name| Some((batches(&name)?, name)));
        let Some((done, name)) = found.next_back() else { return Ok(None) };
        let Some(path) = self.context.unit(&name) else { return Ok(None) };
        let file = MeasuredFile::open(&path)?;
        let device = self.context.device();
        let blocks = (self.first..self.first + blocks)
            .map(|index| file.block(index, extent, device))
            .collect::<Result<_, _>>()?;
        self.context.log(Level::Info, format!("goes on after {done} micro-batches of an earlier attempt"));
        self.published = Some(name);
        Ok(Some(Progress { done, blocks }))
    }

    /// Publishes `progress` if it is time.
    pub(super) fn publish_if_due(&mut self, progress: &Progress) -> Result<(), ActionError> {
        if self.last.elapsed() < self.period { Ok(()) } else { self.publish(progress) }
    }

    /// Publishes `progress` and drops the unit before.
    pub(super) fn publish(&mut self, progress: &Progress) -> Result<(), ActionError> {
        let name = format!("from-block-{:05}-batch-{:06}.safetensors", self.first, progress.done);
        if self.published.as_ref() == Some(&name) {
            return Ok(());
        }
        let begin = Instant::now();
        self.context.publish_unit(&name, |path| Ok(measured::write(path, self.first, &progress.blocks)?))?;
        if let Some(previous) = self.published.replace(name) {
            self.context.drop_unit(&previous);
        }
        self.period = PERIOD.max(begin.elapsed() * SHARE_OF_TIME);
        self.last = Instant::now();
        Ok(())
    }

    /// Drops the last unit: something better took its place.
    pub(super) fn forget(&mut self) {
        if let Some(name) = self.published.take() {
            self.context.drop_unit(&name);
        }
    }
}
