//! Streams, events and graphs.

use std::sync::Arc;

use cudarc::driver::sys::{
    CUevent_flags, CUgraphInstantiate_flags, CUstream, CUstreamCaptureMode, CUstreamCaptureStatus,
};
use cudarc::driver::{CudaEvent, CudaGraph, CudaStream};

use super::error::Doing;
use super::{Device, GpuError};

/// A queue of work on a device: what is given to one stream runs in order. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stream(Arc<CudaStream>);

impl Stream {
    /// A stream of cudarc's, such as candle's.
    pub fn from_cudarc(stream: Arc<CudaStream>) -> Self {
        Self(stream)
    }

    /// A stream of another library, such as `torch.cuda.Stream.cuda_stream`, on `device`.
    ///
    /// # Safety
    /// `address` must be a stream of the device's primary context that outlives this and its clones.
    pub unsafe fn from_raw(device: &Device, address: u64) -> Self {
        // SAFETY: by the caller's promise.
        Self(unsafe { device.context().wrap_borrowed_stream(address as CUstream) })
    }

    /// Waits for all work given to it.
    ///
    /// # Errors
    /// Any error of the driver, from this call or from that work.
    pub fn synchronize(&self) -> Result<(), GpuError> {
        self.0.synchronize().doing("finish a stream's work")
    }

    /// Lets work given from here on start only once `event` has happened.
    ///
    /// # Errors
    /// Any error of the driver.
    pub fn wait(&self, event: &Event) -> Result<(), GpuError> {
        self.0.wait(&event.0).doing("wait for an event")
    }

    /// Records the work that `body` gives to this stream instead of running it.
    ///
    /// The graph replays the launches with the addresses, strides and grids of the capture; what a `Workspace` keeps
    /// in device memory (lengths, slabs) may differ from replay to replay.
    ///
    /// # Errors
    /// Any error of `body` or the driver; the capture has ended either way.
    pub fn capture(&self, body: impl FnOnce() -> Result<(), GpuError>) -> Result<Graph, GpuError> {
        // Thread-local: work of other threads, such as their allocations, goes on.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.0.begin_capture(mode).doing("start to capture a graph")?;
        let captured = body();
        let graph = self.0.end_capture(CUgraphInstantiate_flags(0)).doing("capture a graph");
        captured?;
        // The driver ends a capture with no graph only where the capture was broken.
        graph?.map(Graph).ok_or(GpuError::Capturing { what: "some of this work" })
    }

    /// Whether it is being captured.
    pub(super) fn is_capturing(&self) -> Result<bool, GpuError> {
        let status = self.0.capture_status().doing("tell whether a stream is being captured")?;
        Ok(status != CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE)
    }

    /// Makes its context the thread's, for work on memory or kernels of `device`.
    pub(super) fn bind(&self, device: &Device) -> Result<(), GpuError> {
        if self.0.context() != device.context() {
            let (stream, device) = (self.0.context().ordinal(), device.info().ordinal);
            return Err(GpuError::OtherDevice { stream, device });
        }
        self.bind_own()
    }

    /// Makes its context the thread's.
    pub(super) fn bind_own(&self) -> Result<(), GpuError> {
        self.0.context().bind_to_thread().doing("use the device")
    }

    pub(super) fn raw(&self) -> CUstream {
        self.0.cu_stream()
    }
}

/// A moment in a stream's work.
#[derive(Debug)]
pub struct Event(CudaEvent);

impl Event {
    /// An event that can be timed.
    ///
    /// # Errors
    /// Any error of the driver.
    pub fn new(device: &Device) -> Result<Self, GpuError> {
        let flags = Some(CUevent_flags::CU_EVENT_DEFAULT);
        Ok(Self(device.context().new_event(flags).doing("make an event")?))
    }

    /// An event that only orders, which is cheaper.
    pub(super) fn untimed(device: &Device) -> Result<Self, GpuError> {
        Ok(Self(device.context().new_event(None).doing("make an event")?))
    }

    /// Happens when the work given to `stream` so far is done.
    ///
    /// # Errors
    /// Any error of the driver.
    pub fn record(&self, stream: &Stream) -> Result<(), GpuError> {
        self.0.record(&stream.0).doing("record an event")
    }

    /// Waits for it. One that was never recorded has happened.
    ///
    /// # Errors
    /// Any error of the driver, from this call or from earlier work.
    pub fn synchronize(&self) -> Result<(), GpuError> {
        self.0.synchronize().doing("wait for an event")
    }

    /// Waits for both and returns the milliseconds from this one to `end`. The device's clock ticks about every half
    /// microsecond.
    ///
    /// # Errors
    /// Any error of the driver; also if an event was never recorded.
    pub fn milliseconds_to(&self, end: &Self) -> Result<f32, GpuError> {
        self.0.elapsed_ms(&end.0).doing("time a stretch of work")
    }
}

/// Captured work, to be replayed on the stream that it was captured on.
pub struct Graph(CudaGraph);

// SAFETY: the driver's graphs belong to no thread; they must not be used by two at once, which takes `Sync`.
unsafe impl Send for Graph {}

impl Graph {
    /// Gives all of it to the stream.
    ///
    /// # Errors
    /// Any error of the driver.
    pub fn launch(&self) -> Result<(), GpuError> {
        self.0.launch().doing("launch a graph")
    }

    /// Prepares the device, so that the first launch takes no longer than the others.
    ///
    /// # Errors
    /// Any error of the driver.
    pub fn upload(&self) -> Result<(), GpuError> {
        self.0.upload().doing("upload a graph")
    }
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Graph").finish_non_exhaustive()
    }
}
