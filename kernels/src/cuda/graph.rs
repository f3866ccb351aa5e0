//! Work that is queued once and repeated as one launch: what a card does for one token takes it less time than a processor needs to
//! queue it.

use std::ffi::{c_int, c_void};

use std::sync::atomic::{AtomicUsize, Ordering};

use tch::Device;

use super::CudaError;

unsafe extern "C" {
    fn qpipe_graph_begin(index: c_int, graph: *mut *mut c_void) -> c_int;
    fn qpipe_graph_end(graph: *mut c_void) -> c_int;
    fn qpipe_graph_replay(graph: *mut c_void) -> c_int;
    fn qpipe_graph_free(graph: *mut c_void);
}

/// Recorded work. It reads and writes the tensors that it was recorded with, at their places then, which have to live as long; what it
/// makes lies in memory of its own, the same at every repetition.
#[derive(Debug)]
pub struct Graph {
    raw: *mut c_void,
}

static RECORDED: AtomicUsize = AtomicUsize::new(0);

/// How many graphs this process has recorded.
pub fn graphs_recorded() -> usize {
    RECORDED.load(Ordering::Relaxed)
}

impl Graph {
    /// Records what `work` queues on `device`, which is not run, and gives what `work` gives. It has to have run before, so that code is
    /// loaded; it must not wait for the device, as [`super::check_every_launch`] does.
    ///
    /// # Errors
    ///
    /// Where it is not the first CUDA device, where libtorch has no such functions, and where something cannot be recorded.
    pub fn record<T>(device: Device, work: impl FnOnce() -> T) -> Result<(Self, T), CudaError> {
        let Device::Cuda(index) = device else { return Err(CudaError::NoCudaDevice(device)) };
        if index != 0 {
            // Recording is of the current device, and the shim's stream of the first one.
            return Err(CudaError::Graph("be recorded on another device than the first"));
        }
        let mut raw = std::ptr::null_mut();
        // SAFETY: the shim writes one pointer.
        if unsafe { qpipe_graph_begin(index as c_int, &raw mut raw) } != 0 {
            return Err(CudaError::Graph("be recorded"));
        }
        let mut recording = Recording { graph: Some(Self { raw }) };
        let result = work();
        let graph = recording.end()?;
        RECORDED.fetch_add(1, Ordering::Relaxed);
        Ok((graph, result))
    }

    /// Queues it behind what libtorch has queued on this thread's stream.
    ///
    /// # Errors
    ///
    /// Where the driver refuses.
    pub fn replay(&self) -> Result<(), CudaError> {
        // SAFETY: the graph was recorded and is freed with this.
        if unsafe { qpipe_graph_replay(self.raw) } == 0 {
            Ok(())
        } else {
            Err(CudaError::Graph("be repeated"))
        }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: it was made by the shim, and nothing uses it after this.
        unsafe { qpipe_graph_free(self.raw) };
    }
}

/// Ends the recording also where the work panics: the thread has to have its stream back.
struct Recording {
    graph: Option<Graph>,
}

impl Recording {
    fn end(&mut self) -> Result<Graph, CudaError> {
        let graph = self.graph.take().ok_or(CudaError::Graph("be recorded"))?;
        // SAFETY: the shim made it, and recording began on this thread.
        if unsafe { qpipe_graph_end(graph.raw) } == 0 {
            Ok(graph)
        } else {
            Err(CudaError::Graph("be recorded"))
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if self.graph.is_some() {
            let _ = self.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_recorded_where_there_is_no_card() {
        let error = Graph::record(Device::Cpu, || ()).map(drop).map_err(|error| error.to_string());
        assert_eq!(error, Err(String::from("Cpu is no CUDA device")));
    }
}
