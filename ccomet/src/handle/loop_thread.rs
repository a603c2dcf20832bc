//! A marker for the threads of event loops: a call that blocks there for a loop may wait for
//! itself.

use std::cell::Cell;
use std::marker::PhantomData;

thread_local! {
    /// The number of loops on this thread: more than one in a simulation.
    static LOOPS: Cell<usize> = const { Cell::new(0) };
}

/// A guard that marks its thread as that of a loop, as long as the guard exists.
#[derive(Debug)]
pub(crate) struct LoopThread {
    /// The guard must stay on its thread.
    _stays: PhantomData<*const ()>,
}

impl LoopThread {
    pub(crate) fn mark() -> Self {
        LOOPS.set(LOOPS.get() + 1);
        Self { _stays: PhantomData }
    }

    /// Returns whether this is the thread of a loop.
    pub(super) fn is_this() -> bool {
        LOOPS.get() > 0
    }
}

impl Drop for LoopThread {
    fn drop(&mut self) {
        LOOPS.set(LOOPS.get() - 1);
    }
}
