//! Which threads are those of event loops: what waits there for a loop may wait for itself.

use std::cell::Cell;
use std::marker::PhantomData;

thread_local! {
    /// Loops that live on this thread: more than one in a simulation.
    static LOOPS: Cell<usize> = const { Cell::new(0) };
}

/// Marks the thread that it is made on as that of a loop, for as long as it lives.
#[derive(Debug)]
pub(crate) struct LoopThread {
    /// It stays on that thread.
    _stays: PhantomData<*const ()>,
}

impl LoopThread {
    pub(crate) fn mark() -> Self {
        LOOPS.set(LOOPS.get() + 1);
        Self { _stays: PhantomData }
    }

    /// Returns whether a loop lives on this thread.
    pub(super) fn is_this() -> bool {
        LOOPS.get() > 0
    }
}

impl Drop for LoopThread {
    fn drop(&mut self) {
        LOOPS.set(LOOPS.get() - 1);
    }
}
