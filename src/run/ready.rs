//! Which node may run next. No threads, no I/O.

use std::collections::BTreeSet;

/// The instances that wait for a slot, in the pipeline's order: the same run starts nodes in the same order.
#[derive(Debug, Default)]
pub(super) struct ReadyQueue {
    waiting: BTreeSet<(bool, usize, usize)>,
}

impl ReadyQueue {
    /// Adds an instance at `position` of the topological order. A measured node waits until nothing else
    /// can run, since it runs alone.
    pub(super) fn push(&mut self, position: usize, index: usize, measured: bool) {
        self.waiting.insert((measured, position, index));
    }

    /// Takes the first instance that `fits`, with whether it is a measured one.
    pub(super) fn pop(&mut self, mut fits: impl FnMut(usize, bool) -> bool) -> Option<(usize, bool)> {
        let found = self.waiting.iter().copied().find(|&(measured, _, index)| fits(index, measured))?;
        self.waiting.remove(&found);
        Some((found.2, found.0))
    }

    /// Takes all that is left.
    pub(super) fn drain(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.waiting).into_iter().map(|(_, _, index)| index).collect()
    }

    /// True if nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_come_in_the_pipelines_order_and_measured_ones_last() {
        let mut queue = ReadyQueue::default();
        queue.push(3, 30, false);
        queue.push(0, 7, true);
        queue.push(1, 10, false);
        let order: Vec<usize> =
            std::iter::from_fn(|| queue.pop(|_, _| true)).map(|(index, _)| index).collect();
        assert_eq!(order, [10, 30, 7]);
    }

    #[test]
    fn what_does_not_fit_stays() {
        let mut queue = ReadyQueue::default();
        queue.push(0, 1, false);
        queue.push(1, 2, false);
        assert_eq!(queue.pop(|index, _| index == 2), Some((2, false)));
        assert_eq!(queue.pop(|index, _| index == 2), None);
        assert_eq!(queue.drain(), [1]);
    }
}
