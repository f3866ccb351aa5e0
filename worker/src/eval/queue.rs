//! Which batch a lane does next.
//!
//! The batches of a family begin with the same prefix: a lane that does one after the other reads it once. So a lane stays with
//! its family. When nothing is left of that, it begins the first that nobody is at. When there is none, it helps where most is
//! left, unless it would have to read more before it can than it would find there.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Batches that are waiting. Lanes take them out, each what suits it.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    families: Vec<Family>,
    /// How many of the families, from the first, somebody is at or was.
    begun: usize,
    is_closed: bool,
}

/// What is left of a family.
#[derive(Debug)]
struct Family {
    /// Tokens that are read once before any of its batches.
    prefix: usize,
    /// Tokens of `batches`.
    tokens: usize,
    /// Each batch with its tokens.
    batches: VecDeque<(usize, usize)>,
    /// How many lanes are at it.
    lanes: usize,
}

/// A batch that was taken out of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    family: usize,
    /// Its number.
    pub(super) batch: usize,
}

impl Queue {
    /// Adds a family that begins with `prefix` tokens: the number of each of its batches, and its tokens behind the prefix.
    /// One without a batch is none.
    pub(super) fn add(&mut self, prefix: usize, batches: impl IntoIterator<Item = (usize, usize)>) {
        let batches: VecDeque<(usize, usize)> = batches.into_iter().collect();
        if !batches.is_empty() {
            let tokens = batches.iter().map(|(_, tokens)| tokens).sum();
            self.waiting().families.push(Family { prefix, tokens, batches, lanes: 0 });
        }
    }

    /// How many batches are left.
    pub(super) fn len(&self) -> usize {
        self.waiting().families.iter().map(|family| family.batches.len()).sum()
    }

    /// The next batch for a lane that did `last`; none when the rest is others'.
    pub(super) fn next(&self, last: Option<Taken>) -> Option<Taken> {
        let mut waiting = self.waiting();
        if waiting.is_closed {
            return None;
        }
        let own = last.map(|last| last.family).filter(|&own| !waiting.families[own].batches.is_empty());
        let family = match own {
            Some(own) => own,
            None if waiting.begun < waiting.families.len() => {
                waiting.begun += 1;
                waiting.begun - 1
            }
            None => waiting.in_need()?,
        };
        let of = &mut waiting.families[family];
        of.lanes += usize::from(own.is_none());
        let (batch, tokens) = of.batches.pop_front()?;
        of.tokens -= tokens;
        Some(Taken { family, batch })
    }

    /// Hands out nothing from now on.
    pub(super) fn close(&self) {
        self.waiting().is_closed = true;
    }

    /// Whether nothing is handed out any more.
    pub(super) fn is_closed(&self) -> bool {
        self.waiting().is_closed
    }

    /// Whoever panicked left it whole: no step in between can.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// The family with most left for each lane that is at it, of those in which help can read the prefix before all is done.
    fn in_need(&self) -> Option<usize> {
        let left = |family: &Family| family.tokens / family.lanes.max(1);
        let worth = |&family: &usize| left(&self.families[family]) > self.families[family].prefix;
        (0..self.families.len()).filter(worth).max_by_key(|&family| left(&self.families[family]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(families: &[(usize, &[usize])]) -> Queue {
        let mut queue = Queue::default();
        for (prefix, batches) in families {
            queue.add(*prefix, batches.iter().map(|&batch| (batch, 10)));
        }
        queue
    }

    /// The batches that two lanes take in turn.
    fn in_turn(queue: &Queue) -> [Vec<usize>; 2] {
        let (mut found, mut last) = ([Vec::new(), Vec::new()], [None; 2]);
        while queue.len() > 0 {
            for lane in 0..2 {
                if let Some(taken) = queue.next(last[lane]) {
                    found[lane].push(taken.batch);
                    last[lane] = Some(taken);
                }
            }
        }
        found
    }

    #[test]
    fn a_lane_stays_with_its_family_and_then_begins_another() {
        let queue = queue(&[(50, &[0, 1, 2]), (50, &[3, 4]), (50, &[]), (0, &[5])]);
        assert_eq!(queue.len(), 6);
        assert_eq!(in_turn(&queue), [vec![0, 1, 2], vec![3, 4, 5]]);
        assert_eq!(queue.next(None), None);
    }

    #[test]
    fn a_lane_helps_where_it_is_worth_reading_the_prefix() {
        assert_eq!(in_turn(&queue(&[(29, &[0, 1, 2, 3])])), [vec![0, 2], vec![1, 3]]);
        assert_eq!(in_turn(&queue(&[(30, &[0, 1, 2, 3])])), [vec![0, 1, 2, 3], vec![]]);
    }

    #[test]
    fn many_lanes_spread_over_families() {
        let queue = queue(&[(1, &[0, 1, 2, 3]), (1, &[4, 5, 6, 7])]);
        let taken: Vec<usize> = (0..6).filter_map(|_| queue.next(None)).map(|taken| taken.batch).collect();
        assert_eq!(taken, [0, 4, 5, 1, 6, 2]);
    }

    #[test]
    fn nothing_is_taken_from_a_closed_queue() {
        let queue = queue(&[(0, &[0]), (0, &[1])]);
        assert!(queue.next(None).is_some() && !queue.is_closed());
        queue.close();
        assert_eq!((queue.next(None), queue.is_closed()), (None, true));
    }
}
