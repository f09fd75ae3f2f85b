//! Ctrl-C: the first one asks the running command to stop at a point where nothing partial is left; the second one
//! ends the process.

use std::ops::ControlFlow;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

/// The exit code a shell expects of a process ended by SIGINT.
const EXIT_CODE: i32 = 130;

/// Whether to go on: not once an interrupt asked to stop.
pub fn go_on() -> ControlFlow<()> {
    if flag().load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// The flag that an interrupt sets. The first call begins to listen.
pub fn flag() -> &'static AtomicBool {
    static FLAG: AtomicBool = AtomicBool::new(false);
    static LISTEN: Once = Once::new();
    LISTEN.call_once(|| {
        let listening = ctrlc::set_handler(|| {
            if FLAG.swap(true, Ordering::Relaxed) {
                std::process::exit(EXIT_CODE);
            }
        });
        if let Err(error) = listening {
            tracing::warn!(%error, "interrupts end the process at once");
        }
    });
    &FLAG
}
