//! Dropping what comes from outside without letting a panic through.

use std::panic::{self, AssertUnwindSafe};

/// Runs a call from outside, and returns its result; `None` if it panicked.
pub(crate) fn run<T>(call: impl FnOnce() -> T) -> Option<T> {
    match panic::catch_unwind(AssertUnwindSafe(call)) {
        Ok(value) => Some(value),
        Err(payload) => {
            discard(payload);
            None
        }
    }
}

/// Drops a value whose `Drop` can panic, such as the payload of a panic. A payload that panics with
/// another payload that panics is leaked: dropping could go on forever.
#[cold]
pub(crate) fn discard<T>(value: T) {
    if fault!("panic-of-drop-let-through") {
        return drop(value);
    }
    let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| drop(value))) else { return };
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(payload);
    }
}
