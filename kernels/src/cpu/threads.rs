//! Work on as many threads as libtorch has where it is called.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Parts for each thread, so that none waits long for another.
const PARTS: usize = 4;

/// Runs `work` on a pool of `threads` threads, which the calling thread keeps.
pub(crate) fn on_threads(threads: i32, work: impl FnOnce() + Send) {
    with_pool(threads, |pool| match pool {
        Some(pool) => pool.install(work),
        // Without threads of its own it runs on rayon's.
        None => work(),
    });
}

/// Gives `work` ranges that make up 0 to `count`: multiples of `step` but for the last one, and on one thread where `count` is
/// at most `alone`. The calling thread takes part, so that little is lost where the others are slow to wake.
pub(crate) fn in_parts(count: usize, step: usize, alone: usize, work: impl Fn(Range<usize>) + Sync) {
    let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1);
    let steps = count.div_ceil(step);
    let parts = (threads * PARTS).min(steps);
    if threads <= 1 || parts <= 1 || count <= alone {
        return work(0..count);
    }
    let next = AtomicUsize::new(0);
    let take = || {
        loop {
            let part = next.fetch_add(1, Ordering::Relaxed);
            if part >= parts {
                break;
            }
            let bound = |part: usize| (part * steps / parts * step).min(count);
            work(bound(part)..bound(part + 1));
        }
    };
    with_pool(threads as i32, |pool| match pool {
        Some(pool) => pool.in_place_scope(|scope| {
            for _ in 1..threads.min(parts) {
                scope.spawn(|_| take());
            }
            take();
        }),
        None => take(),
    });
}

fn with_pool<R>(threads: i32, work: impl FnOnce(Option<&ThreadPool>) -> R) -> R {
    thread_local! {
        static POOL: RefCell<Option<(i32, ThreadPool)>> = const { RefCell::new(None) };
    }
    POOL.with_borrow_mut(|kept| {
        if kept.as_ref().is_none_or(|(size, _)| *size != threads) {
            let builder = ThreadPoolBuilder::new().num_threads(threads.max(1) as usize);
            *kept = builder.build().ok().map(|pool| (threads, pool));
        }
        work(kept.as_ref().map(|(_, pool)| pool))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn parts_make_up_the_whole() {
        for (count, step) in [(0, 1), (1, 4), (103, 4), (1000, 16)] {
            for threads in [1, 3] {
                tch::set_num_threads(threads);
                let found = Mutex::new(Vec::new());
                in_parts(count, step, 2, |range| found.lock().expect("no panic").push(range));
                let mut found = found.into_inner().expect("no panic");
                found.sort_by_key(|range| range.start);
                assert_eq!(found.iter().map(|range| range.start).next(), Some(0));
                assert!(found.is_sorted_by(|one, next| one.end == next.start && next.start % step == 0));
                assert_eq!(found.last().map(|range| range.end), Some(count));
            }
        }
    }
}
