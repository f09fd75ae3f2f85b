//! A request on its way through the engine: where its events go, and whether anybody still wants them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::request::{Event, Request};

/// Takes a request's events, on the engine's thread: it must not wait. False means that no more events are wanted.
pub type Sink = Box<dyn FnMut(Event) -> bool + Send>;

/// The caller's end of a request. To drop it cancels the request.
#[derive(Debug)]
pub struct Ticket(Arc<AtomicBool>);

impl Ticket {
    /// Ends the request: its answers end with the tokens that they have, before the next step but one.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// The engine's end of it.
pub(crate) struct Job {
    pub(crate) request: Request,
    sink: Sink,
    cancelled: Arc<AtomicBool>,
}

impl Job {
    pub(crate) fn new(request: Request, sink: Sink) -> (Self, Ticket) {
        let cancelled = Arc::new(AtomicBool::new(false));
        (Self { request, sink, cancelled: cancelled.clone() }, Ticket(cancelled))
    }

    pub(crate) fn send(&mut self, event: Event) {
        if !(self.sink)(event) {
            self.cancelled.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("request", &self.request).finish_non_exhaustive()
    }
}
