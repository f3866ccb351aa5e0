//! Batches side by side, each in a lane: a thread with its share of the cores.
//!
//! The layers of a small model are too short to be divided: cores would wait for each other after every one of them, and
//! stand idle in between. A batch of its own keeps a core busy.

use std::ops::ControlFlow;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use super::queue::Queue;

/// Does a batch, and gives out what comes of it, once or several times: as long as it is not told to break. What a lane keeps
/// from one batch to the next is its own.
pub(super) type Work<'a, K, T> = dyn Fn(&mut K, usize, &mut dyn FnMut(T) -> ControlFlow<()>) + Sync + 'a;

/// How many batches are under way at one time, and on how many threads each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lanes {
    count: usize,
    /// Of all lanes together.
    threads: usize,
}

impl Lanes {
    /// At most `most` lanes on `threads` threads.
    pub(super) fn new(most: usize, threads: usize) -> Self {
        let threads = threads.max(1);
        Self { count: most.clamp(1, threads), threads }
    }

    /// No more than there are batches.
    pub(super) fn for_batches(self, batches: usize) -> Self {
        Self { count: self.count.min(batches).max(1), ..self }
    }

    /// Whether there are more of them than `families`, so that some have to share one.
    pub(super) fn outnumber(self, families: usize) -> bool {
        self.count > families
    }

    /// Has `work` done on each batch of `queue`, and shows `take` what it gives out as soon as it is there, on this thread. When
    /// `take` breaks, nothing new is begun, and those at work are told when they give something out; that is still shown.
    pub(super) fn run<K: Default, T: Send>(
        self,
        queue: &Queue,
        work: &Work<'_, K, T>,
        take: &mut dyn FnMut(usize, T) -> ControlFlow<()>,
    ) {
        let count = self.count.min(queue.len());
        if self.count == 1 {
            let mut flow = ControlFlow::Continue(());
            let mut kept = K::default();
            let mut last = None;
            while flow.is_continue()
                && let Some(taken) = queue.next(last)
            {
                work(&mut kept, taken.batch, &mut |given| {
                    flow = take(taken.batch, given);
                    flow
                });
                last = Some(taken);
            }
            return;
        }
        let panicked = Mutex::new(None);
        let (sender, finished) = mpsc::sync_channel(self.count);
        // Not more where few batches are left: sums depend on it, and what is resumed has the same bits.
        let threads = self.threads / self.count;
        set_threads(threads);
        thread::scope(|scope| {
            for _ in 0..count {
                let sender = sender.clone();
                let panicked = &panicked;
                scope.spawn(move || {
                    set_threads(threads);
                    let lane = || {
                        let mut kept = K::default();
                        let mut last = None;
                        while let Some(taken) = queue.next(last) {
                            work(&mut kept, taken.batch, &mut |given| {
                                // Nobody listens only where `take` panicked.
                                let _ = sender.send((taken.batch, given));
                                if queue.is_closed() {
                                    ControlFlow::Break(())
                                } else {
                                    ControlFlow::Continue(())
                                }
                            });
                            last = Some(taken);
                        }
                    };
                    // libtorch's panics say what was missing, memory mostly: the scope would not.
                    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(lane)) {
                        queue.close();
                        panicked.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
                    }
                });
            }
            drop(sender);
            // Also where `take` panics, or the lanes would do everything for nobody.
            let stop = CloseAtEnd(queue);
            for (batch, found) in finished {
                if take(batch, found).is_break() {
                    queue.close();
                }
            }
            drop(stop);
        });
        set_threads(self.threads);
        if let Some(payload) = panicked.into_inner().unwrap_or_else(PoisonError::into_inner) {
            panic::resume_unwind(payload);
        }
    }
}

/// Lets no lane begin another batch once it is gone.
struct CloseAtEnd<'a>(&'a Queue);

impl Drop for CloseAtEnd<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// libtorch's threads for what this thread starts from now on. MKL has one number for all threads, OpenMP one for each.
fn set_threads(threads: usize) {
    tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(i32::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(batches: impl IntoIterator<Item = usize>) -> Queue {
        let mut queue = Queue::default();
        for batch in batches {
            queue.add(0, [(batch, 1)]);
        }
        queue
    }

    fn squares(lanes: Lanes, stop_at: usize) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        let work = |(): &mut (), batch: usize, give: &mut dyn FnMut(usize) -> ControlFlow<()>| {
            let _ = give(batch * batch);
        };
        lanes.run(&queue(10..30), &work, &mut |batch, square| {
            found.push((batch, square));
            if found.len() >= stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        found.sort_unstable();
        found
    }

    #[test]
    fn every_batch_is_worked_on_once_and_shown() {
        let expected: Vec<(usize, usize)> = (10..30).map(|batch| (batch, batch * batch)).collect();
        for lanes in [Lanes::new(1, 1), Lanes::new(3, 4), Lanes::new(50, 2)] {
            assert_eq!(squares(lanes, usize::MAX), expected);
        }
    }

    #[test]
    fn nothing_new_is_begun_after_a_break() {
        assert_eq!(squares(Lanes::new(1, 1), 5).len(), 5);
        let found = squares(Lanes::new(2, 2), 5);
        assert!((5..20).contains(&found.len()), "{found:?}");
    }

    #[test]
    fn a_batch_that_gives_out_several_things_is_told_to_break() {
        for lanes in [Lanes::new(1, 1), Lanes::new(2, 2)] {
            let mut found = 0;
            let work = |(): &mut (), _: usize, give: &mut dyn FnMut(usize) -> ControlFlow<()>| {
                let _ = (0..1000).try_for_each(&mut *give);
            };
            lanes.run(&queue(0..3), &work, &mut |_, _| {
                found += 1;
                if found >= 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert!((10..30).contains(&found), "{found}");
        }
    }

    #[test]
    fn what_a_lane_panicked_with_comes_out() {
        let work = |(): &mut (), batch: usize, _: &mut dyn FnMut(()) -> ControlFlow<()>| {
            assert!(batch != 1, "no memory for batch {batch}");
        };
        let run = || Lanes::new(2, 2).run(&queue(0..4), &work, &mut |_, ()| ControlFlow::Continue(()));
        let payload = panic::catch_unwind(AssertUnwindSafe(run)).expect_err("it panics");
        let message = payload.downcast_ref::<String>().map(String::as_str);
        assert_eq!(message, Some("no memory for batch 1"));
    }

    #[test]
    fn there_are_no_more_lanes_than_threads_or_than_asked_for() {
        assert_eq!(Lanes::new(8, 2).count, 2);
        assert_eq!(Lanes::new(0, 2).count, 1);
        assert_eq!(Lanes::new(3, 0), Lanes { count: 1, threads: 1 });
        assert_eq!(Lanes::new(3, 8).for_batches(2), Lanes { count: 2, threads: 8 });
        assert_eq!(Lanes::new(3, 8).for_batches(0).count, 1);
    }
}
