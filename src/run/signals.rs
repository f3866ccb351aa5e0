//! Ctrl-C and SIGTERM: the first asks the run to end cleanly, the second ends the workers at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};

/// Counts the signals that came since it was made; with its end they mean again what they meant before.
pub(super) struct Interrupts {
    count: Arc<AtomicUsize>,
    registered: Vec<SigId>,
}

impl Interrupts {
    /// Begins to listen.
    pub(super) fn listen() -> Self {
        let count = Arc::new(AtomicUsize::new(0));
        let registered = [SIGINT, SIGTERM]
            .into_iter()
            .filter_map(|signal| {
                let count = Arc::clone(&count);
                // SAFETY: the handler only adds to an atomic, which is async-signal-safe.
                unsafe {
                    signal_hook::low_level::register(signal, move || {
                        _ = count.fetch_add(1, Ordering::Relaxed)
                    })
                }
                .ok()
            })
            .collect();
        Self { count, registered }
    }

    /// How many came.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}
