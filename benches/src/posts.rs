//! Very many messages from one thread to a loop on another: this project's mailbox compared with
//! others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use sealed::{Config, ConnectionId, Context, EventLoop, Input, Service};

/// Posts this many messages, and returns how long it takes until the loop has received all of them.
pub type Post = fn(usize) -> Duration;

/// The ways to post, that of this project first.
pub const WAYS: [(&str, Post); 3] = [("sealed", sealed), ("mpsc and mio", bare), ("tokio mpsc", tokio)];

#[derive(Default)]
struct Counting(usize);

impl Service for Counting {
    type Connection = ();
    type Message = usize;
    type Timer = ();

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}

    fn message(&mut self, _: &mut Context<Self>, _: usize) {
        self.0 += 1;
    }
}

fn sealed(count: usize) -> Duration {
    let config = Config { mailbox_messages_max: count, ..Config::default() };
    let mut event_loop = EventLoop::new(config, Counting::default()).expect("a loop");
    let mailbox = event_loop.mailbox();
    let start = Instant::now();
    let poster = thread::spawn(move || (0..count).for_each(|n| mailbox.post(n).expect("room")));
    while event_loop.service().0 < count {
        event_loop.turn(None).expect("a tick");
    }
    let time = start.elapsed();
    poster.join().expect("a good end");
    time
}

/// Posts with the minimum that a loop on mio needs: an unbounded queue, and one wake-up for any
/// number of posts.
fn bare(count: usize) -> Duration {
    let mut poll = Poll::new().expect("a poll");
    let mut events = Events::with_capacity(16);
    let waker = Waker::new(poll.registry(), Token(0)).expect("a waker");
    let woken = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = mpsc::channel();
    let start = Instant::now();
    let poster = thread::spawn({
        let woken = woken.clone();
        move || {
            for n in 0..count {
                sender.send(n).expect("sent");
                if !woken.swap(true, Ordering::AcqRel) {
                    waker.wake().expect("woken");
                }
            }
            // The waker has to outlive the wait.
            waker
        }
    });
    let mut had = 0;
    while had < count {
        poll.poll(&mut events, None).expect("events");
        woken.store(false, Ordering::SeqCst);
        had += receiver.try_iter().count();
    }
    let time = start.elapsed();
    poster.join().expect("a good end");
    time
}

fn tokio(count: usize) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let start = Instant::now();
    let poster = thread::spawn(move || (0..count).for_each(|n| sender.send(n).expect("sent")));
    runtime.block_on(async { while receiver.recv().await.is_some() {} });
    let time = start.elapsed();
    poster.join().expect("a good end");
    time
}
