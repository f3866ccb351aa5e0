//! Work on as many threads as libtorch has where it is called.
//!
//! On libtorch's own threads, OpenMP's, where they can be had: they wait for work by spinning, and a second pool beside them
//! would wait for them.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_uint, c_void};
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Parts for each thread, so that none waits long for another.
const PARTS: usize = 4;

/// Values that one thread goes through once, to bring them into another form, without waking another.
pub(crate) const VALUES_ALONE: usize = 1 << 15;

/// Products that one thread does without waking another.
pub(crate) const ALONE: usize = 1 << 17;

/// Runs `work` on a pool of `threads` threads, which the calling thread keeps.
pub(crate) fn on_threads(threads: i32, work: impl FnOnce() + Send) {
    with_pool(threads, |pool| match pool {
        Some(pool) => pool.install(work),
        // Without threads of its own it runs on rayon's.
        None => work(),
    });
}

/// Into how many parts work is divided at most.
pub(crate) fn parts() -> usize {
    PARTS * usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1)
}

/// Gives `work` ranges that make up 0 to `count`: multiples of `step` but for the last one, and on one thread where `count` is
/// at most `alone`. The calling thread takes part.
pub(crate) fn in_parts(count: usize, step: usize, alone: usize, work: impl Fn(Range<usize>) + Sync) {
    let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1);
    let steps = count.div_ceil(step);
    let parts = parts().min(steps);
    if threads <= 1 || parts <= 1 || count <= alone {
        return work(0..count);
    }
    let next = AtomicUsize::new(0);
    in_team(threads.min(parts), &|| {
        loop {
            let part = next.fetch_add(1, Ordering::Relaxed);
            if part >= parts {
                break;
            }
            let bound = |part: usize| (part * steps / parts * step).min(count);
            work(bound(part)..bound(part + 1));
        }
    });
}

/// Calls `work` on `threads` threads, the calling one among them, and waits for all.
fn in_team(threads: usize, work: &(dyn Fn() + Sync)) {
    let Some(parallel) = openmp() else {
        return with_pool(threads as i32, |pool| match pool {
            Some(pool) => pool.in_place_scope(|scope| {
                (1..threads).for_each(|_| scope.spawn(|_| work()));
                work();
            }),
            None => work(),
        });
    };
    let team = Team { work, panicked: Mutex::new(None) };
    let threads = c_uint::try_from(threads).unwrap_or(1);
    // SAFETY: `member` takes what it is given for a `Team`, and this one outlives the call, which waits for all threads.
    unsafe { parallel(member, ptr::from_ref(&team).cast_mut().cast(), threads, 0) };
    if let Some(payload) = team.panicked.into_inner().unwrap_or_else(PoisonError::into_inner) {
        panic::resume_unwind(payload);
    }
}

struct Team<'a> {
    work: &'a (dyn Fn() + Sync),
    /// What a member panicked with: it must not unwind into C.
    panicked: Mutex<Option<Box<dyn Any + Send>>>,
}

extern "C" fn member(team: *mut c_void) {
    // SAFETY: see `in_team`.
    let team = unsafe { &*team.cast::<Team<'_>>() };
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(team.work)) {
        team.panicked.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
    }
}

/// `GOMP_parallel(function, data, threads, flags)` of GNU's OpenMP.
type Parallel = unsafe extern "C" fn(extern "C" fn(*mut c_void), *mut c_void, c_uint, c_uint);

/// That of the OpenMP which libtorch brought along; another build of libtorch may have none of this name.
fn openmp() -> Option<Parallel> {
    const NAME: &CStr = c"GOMP_parallel";
    unsafe extern "C" {
        fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    }
    static FOUND: OnceLock<Option<Parallel>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        // SAFETY: the null handle means all libraries that the program has loaded.
        let symbol = unsafe { dlsym(ptr::null_mut(), NAME.as_ptr()) };
        // SAFETY: the function of this name has this type, by the ABI of GNU's OpenMP, which does not change.
        (!symbol.is_null()).then(|| unsafe { std::mem::transmute::<*mut c_void, Parallel>(symbol) })
    })
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

    #[test]
    fn a_panic_comes_out_where_the_work_was_given_out() {
        tch::set_num_threads(2);
        let work = |range: Range<usize>| assert!(!range.contains(&77), "no memory for 77");
        let payload = panic::catch_unwind(|| in_parts(100, 1, 0, work)).expect_err("it panics");
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"no memory for 77"));
    }

    #[test]
    fn libtorch_brings_openmp() {
        assert!(openmp().is_some());
    }
}
