//! Awaiting a handle without an async runtime.

mod common;

use std::sync::Arc;

use ccomet::Server;
use ccomet::handle::{Event, Received, Start};
use common::{Client, Local, config};

fn message(event: Option<Event>) -> Received {
    match event {
        Some(Event::Message(received)) => received,
        other => panic!("no message: {other:?}"),
    }
}

#[test]
fn a_task_awaits_events_without_a_runtime() {
    let server = Server::bind(config(1)).expect("the server starts");
    let handle = server.handle();
    let server = Local::run(server);
    let published = block_on(handle.publish("news", "hello")).expect("published");
    let mut events = handle.events(["news"], &Start::Oldest, 1).expect("a subscription");
    assert!(matches!(block_on(events.recv_async()), Some(Event::Started { .. })));
    let received = message(block_on(events.recv_async()));
    assert_eq!((&*received.data, &received.position), (b"hello".as_slice(), &published));
    // The task waits for the next message.
    let publisher = std::thread::spawn(move || Client::connect(server.front).publish("news", "later"));
    assert_eq!(message(block_on(events.recv_async())).data, b"later".as_slice());
    publisher.join().expect("no panic");
}

/// Runs a task on this thread, which sleeps until the task is woken.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::task::Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}
