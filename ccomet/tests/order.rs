//! All subscribers get messages in one order: many publishers at once, subscribers on every loop.

mod common;

use std::collections::HashMap;

use common::{Client, Local, config};

const PUBLISHERS: usize = 32;
const MESSAGES_EACH: usize = 100;
const SUBSCRIBERS: usize = 64;

#[test]
fn messages_of_many_publishers_on_four_loops_have_one_order() {
    let mut settings = config(4);
    settings.history.messages_max = PUBLISHERS * MESSAGES_EACH;
    let server = Local::start(settings);
    let streams: Vec<_> =
        (0..SUBSCRIBERS).map(|_| Client::connect(server.front).events("/channels/news", "")).collect();
    let front = server.front;

    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            std::thread::spawn(move || {
                let mut client = Client::connect(front);
                let publish =
                    |n: usize| (client.publish("news", format!("{publisher}:{n}")), format!("{publisher}:{n}"));
                (0..MESSAGES_EACH).map(publish).collect::<Vec<_>>()
            })
        })
        .collect();
    let readers: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            std::thread::spawn(move || {
                let event = |_| stream.next();
                let events = (0..PUBLISHERS * MESSAGES_EACH).map(event);
                events.map(|event| (event.id.clone(), event.message())).collect::<Vec<_>>()
            })
        })
        .collect();

    let accepted: HashMap<String, String> =
        publishers.into_iter().flat_map(|publisher| publisher.join().expect("a publisher")).collect();
    let orders: Vec<_> = readers.into_iter().map(|reader| reader.join().expect("a reader")).collect();
    let first = &orders[0];
    assert!(orders.iter().all(|order| order == first), "all see one order");
    assert!(first.is_sorted_by(|(one, _), (other, _)| one < other), "positions rise, and none comes twice");
    assert_eq!(first.len(), accepted.len());
    for (position, message) in first {
        assert_eq!(accepted.get(position), Some(message), "the message has the position that its publisher got");
    }
    // Each publisher waited for its answers, so its own messages are in its own order.
    let mut next = [0; PUBLISHERS];
    for (_, message) in first {
        let (publisher, n) = message.split_once(':').expect("two numbers");
        let publisher: usize = publisher.parse().expect("a number");
        assert_eq!(n.parse(), Ok(next[publisher]));
        next[publisher] += 1;
    }
    // History has the same order on every loop.
    for _ in 0..8 {
        let mut stream = Client::connect(front).events("/channels/news?after=oldest", "");
        for (id, message) in first {
            let event = stream.next();
            assert_eq!((&event.id, &event.message()), (id, message));
        }
    }
}
