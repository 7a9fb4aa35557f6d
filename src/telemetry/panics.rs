//! What is logged of a panic: a line like all others, at once, and its backtrace when somebody has time for it.
//!
//! The standard library's own hook writes text beside the lines of the log, and with `RUST_BACKTRACE` set it names the frames
//! before the panic goes on, which takes a tenth of a second or more: an actor that ended would be back only after that, and all
//! who wait for it would wait as long.
//!
//! Owns: the hook of the process. Does not own: what follows a panic (see [`crate::actors::supervisor`]).

use crate::storage::priority;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering};

/// The frames of a panic are being named. One at a time: whoever takes a backtrace meanwhile would wait for that.
static NAMING: AtomicBool = AtomicBool::new(false);

/// Ends with the naming that it stands for, whatever ends that.
struct Naming;

impl Drop for Naming {
    fn drop(&mut self) {
        NAMING.store(false, Ordering::Release);
    }
}

/// Has panics logged from here on, for the whole process.
pub fn log_panics() {
    std::panic::set_hook(Box::new(log));
}

fn log(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let what = text.or_else(|| payload.downcast_ref::<&str>().copied());
    let what = what.unwrap_or("of no words");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(what, place, thread = std::thread::current().name(), "a panic");
    if NAMING.swap(true, Ordering::AcqRel) {
        return;
    }
    let naming = Naming;
    // Its frames are numbers until somebody reads them; nothing at all, unless the environment asks for them.
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        let name = move || {
            let _naming = naming;
            priority::lower_to_the_last();
            tracing::error!(place, %backtrace, "the backtrace of a panic");
        };
        // Without a thread there is none: it is not worth holding anybody up.
        let _ = std::thread::Builder::new()
            .name("pairdb-backtrace".to_owned())
            .spawn(name);
    }
}
