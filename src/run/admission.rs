//! Whether a node may start beside those that run. No threads, no I/O.

/// What a node keeps busy while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Demand {
    /// Bytes of memory, as far as that can be told.
    pub memory: u64,
    /// Cores.
    pub cores: u32,
    /// Whether it measures, and has to be alone.
    pub measured: bool,
}

/// What there is, and what of it is taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admission {
    max_memory: Option<u64>,
    all_cores: u32,
    memory: u64,
    cores: u32,
    idle: bool,
    measuring: bool,
}

impl Admission {
    /// Of a machine with so many cores, where nodes may need so much memory together, and these are `running`.
    pub(super) fn new(
        max_memory: Option<u64>,
        all_cores: u32,
        running: impl Iterator<Item = Demand> + Clone,
    ) -> Self {
        Self {
            max_memory,
            all_cores,
            memory: running.clone().map(|job| job.memory).sum(),
            cores: running.clone().map(|job| job.cores).sum(),
            idle: running.clone().next().is_none(),
            measuring: running.clone().any(|job| job.measured),
        }
    }

    /// Whether a node may start now. By itself every node may, whatever it needs.
    pub(super) fn admits(&self, own: Demand) -> bool {
        let fits = self.max_memory.is_none_or(|max| self.idle || self.memory + own.memory <= max);
        let crowded = own.cores > 0 && self.cores > 0 && self.cores + own.cores > self.all_cores;
        !self.measuring && fits && !crowded && (self.idle || !own.measured)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Demand = Demand { memory: 10, cores: 1, measured: false };

    fn beside(max_memory: Option<u64>, running: &[Demand], own: Demand) -> bool {
        Admission::new(max_memory, 4, running.iter().copied()).admits(own)
    }

    #[test]
    fn memory_is_shared_and_the_first_may_need_more_than_there_is() {
        let large = Demand { memory: 100, ..SMALL };
        assert!(beside(Some(20), &[SMALL], SMALL));
        assert!(!beside(Some(20), &[SMALL, SMALL], SMALL));
        assert!(beside(Some(20), &[], large));
        assert!(!beside(Some(20), &[large], SMALL));
        assert!(beside(None, &[large], large));
    }

    #[test]
    fn cores_are_shared_among_those_that_keep_some_busy() {
        let all = Demand { cores: 4, ..SMALL };
        let none = Demand { cores: 0, ..SMALL };
        let more = Demand { cores: 8, ..SMALL };
        assert!(beside(None, &[SMALL, SMALL, SMALL], SMALL));
        assert!(!beside(None, &[SMALL], all));
        assert!(!beside(None, &[all], SMALL));
        assert!(beside(None, &[all], none), "a download takes no core from anybody");
        assert!(beside(None, &[none], more), "nobody's cores are taken");
    }

    #[test]
    fn a_measurement_is_alone() {
        let measured = Demand { measured: true, ..SMALL };
        assert!(beside(None, &[], measured));
        assert!(!beside(None, &[SMALL], measured));
        assert!(!beside(None, &[measured], SMALL));
        assert!(!beside(None, &[measured], Demand { cores: 0, ..SMALL }));
    }
}
