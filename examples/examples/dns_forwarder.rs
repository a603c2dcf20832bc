//! Datagrams: a DNS forwarder. It passes queries of clients on to an upstream server under ids of
//! its own, asks again if no answer comes, and gives up with SERVFAIL. The number of queries in
//! progress is bounded, and so is all memory that a client can make it use.
//!
//! Try it: `cargo run -p examples --example dns_forwarder -- 127.0.0.1:5353 9.9.9.9:53`, then
//! `dig @127.0.0.1 -p 5353 example.org`.

use std::collections::HashMap;
use std::time::Duration;

use sealed::{
    Address, Config, ConnectionId, Context, Datagram, DatagramId, EventLoop, Input, Result, Service, TimerId,
};

/// Time that the upstream has for an answer, and the number of times that it is asked.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
const ATTEMPTS_MAX: u32 = 3;
/// Maximum number of queries under way. With more, guessing an id gets easier.
const QUERIES_MAX: usize = 4_096;
/// Maximum length of a query. A query is one question and little else.
const QUERY_BYTES_MAX: usize = 512;

/// Length of the header of a DNS message: id, flags, and four counts, each of two bytes.
const HEADER_BYTES: usize = 12;
/// Bits of the flags.
const IS_ANSWER: u8 = 0x80; // in the first byte
const SERVER_FAILED: u8 = 2; // in the second byte

/// A query under way.
struct Query {
    client: Address,
    /// The id that the client chose.
    client_id: [u8; 2],
    /// The query as it goes to the upstream, with the id that the forwarder chose.
    bytes: Vec<u8>,
    attempts: u32,
    timer: TimerId,
}

/// The queries under way by their ids at the upstream, and these ids by client and client id.
#[derive(Default)]
pub(crate) struct Forwarder {
    /// The socket that clients send to, and the one that is connected to the upstream.
    clients: DatagramId,
    upstream: DatagramId,
    queries: HashMap<[u8; 2], Query>,
    ids: HashMap<(Address, [u8; 2]), [u8; 2]>,
}

impl Forwarder {
    /// Opens the sockets of a forwarder on its loop, and returns the address for clients.
    pub(crate) fn open(event_loop: &mut EventLoop<Self>, at: &str, upstream: &str) -> Result<Address> {
        let (forwarder, cx) = event_loop.parts();
        forwarder.clients = cx.bind_datagram(Datagram::on(at).received_bytes_max(QUERY_BYTES_MAX))?;
        // The kernel discards datagrams that do not come from the address of the upstream.
        forwarder.upstream = cx.bind_datagram(Datagram::to(upstream))?;
        Ok(cx.datagram_addr(forwarder.clients).expect("it is open"))
    }

    fn take_query(&mut self, cx: &mut Context<Self>, client: &Address, bytes: &[u8]) {
        let Some(client_id) = id_of(bytes) else { return };
        if bytes[2] & IS_ANSWER != 0 || question(bytes).is_none() {
            return;
        }
        // A client that asks again has to wait for the same answer.
        if self.ids.contains_key(&(client.clone(), client_id)) {
            return;
        }
        let id = if self.queries.len() < QUERIES_MAX { self.free_id(cx) } else { None };
        let Some(id) = id else { return self.refuse(cx, client, client_id, bytes) };
        let mut bytes = bytes.to_vec();
        bytes[..2].copy_from_slice(&id);
        let timer = cx.set_timer(ANSWER_LIMIT, id);
        // A datagram that is dropped here is like one that is lost on the way: it is sent again.
        let _ = cx.send(self.upstream, &bytes);
        self.ids.insert((client.clone(), client_id), id);
        self.queries.insert(id, Query { client: client.clone(), client_id, bytes, attempts: 1, timer });
    }

    /// Returns an unpredictable id: an attacker could forge an answer to a predictable one.
    fn free_id(&self, cx: &Context<Self>) -> Option<[u8; 2]> {
        let secret = cx.secret()?;
        secret.chunks_exact(2).map(|pair| [pair[0], pair[1]]).find(|id| !self.queries.contains_key(id))
    }

    fn take_answer(&mut self, cx: &mut Context<Self>, bytes: &[u8]) {
        let Some(id) = id_of(bytes) else { return };
        let is_wanted = |query: &Query| bytes[2] & IS_ANSWER != 0 && question(bytes) == question(&query.bytes);
        if !self.queries.get(&id).is_some_and(is_wanted) {
            return;
        }
        let Some(query) = self.remove(id) else { return };
        cx.cancel_timer(query.timer);
        let mut answer = bytes.to_vec();
        answer[..2].copy_from_slice(&query.client_id);
        // If there is no room, the client asks again.
        let _ = cx.send_to(self.clients, &query.client, &answer);
    }

    /// Answers that the server failed. The answer is as long as the query, so it is of no use to an
    /// attacker who forges the address of the client.
    fn refuse(&self, cx: &mut Context<Self>, client: &Address, client_id: [u8; 2], query: &[u8]) {
        let mut answer = query.to_vec();
        answer[..2].copy_from_slice(&client_id);
        answer[2] |= IS_ANSWER;
        answer[3] = answer[3] & 0xf0 | SERVER_FAILED;
        let _ = cx.send_to(self.clients, client, &answer);
    }

    fn remove(&mut self, id: [u8; 2]) -> Option<Query> {
        let query = self.queries.remove(&id)?;
        self.ids.remove(&(query.client.clone(), query.client_id));
        Some(query)
    }
}

impl Service for Forwarder {
    type Connection = ();
    type Message = ();
    /// The id of the query that the upstream has not answered in time.
    type Timer = [u8; 2];

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}

    fn datagram(&mut self, cx: &mut Context<Self>, socket: DatagramId, from: &Address, bytes: &[u8]) {
        if socket == self.clients {
            self.take_query(cx, from, bytes);
        } else {
            self.take_answer(cx, bytes);
        }
    }

    // `datagram_failed` is left out: what fails is sent again, like what is lost.

    fn expired(&mut self, cx: &mut Context<Self>, _: TimerId, id: [u8; 2]) {
        let Some(query) = self.queries.get_mut(&id) else { return };
        if query.attempts < ATTEMPTS_MAX {
            query.attempts += 1;
            query.timer = cx.set_timer(ANSWER_LIMIT, id);
            let _ = cx.send(self.upstream, &query.bytes);
        } else if let Some(query) = self.remove(id) {
            self.refuse(cx, &query.client, query.client_id, &query.bytes);
        }
    }
}

/// Returns the id of a message, if the message has a whole header.
fn id_of(message: &[u8]) -> Option<[u8; 2]> {
    message.get(..HEADER_BYTES).map(|header| [header[0], header[1]])
}

/// Returns the question of a message that has exactly one: a name, a type and a class.
fn question(message: &[u8]) -> Option<&[u8]> {
    let (header, body) = message.split_at_checked(HEADER_BYTES)?;
    if header[4..6] != [0, 1] {
        return None;
    }
    // A name is a sequence of labels, each after a byte with its length. An empty one ends it.
    let mut end = 0;
    while let length @ 1..=63 = usize::from(*body.get(end)?) {
        end += 1 + length;
    }
    // Other lengths are of pointers, which a question has no use for.
    (body[end] == 0).then(|| body.get(..end + 5)).flatten()
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let at = arguments.next().unwrap_or_else(|| "127.0.0.1:5353".to_owned());
    let upstream = arguments.next().unwrap_or_else(|| "127.0.0.1:53".to_owned());
    let mut event_loop = EventLoop::new(Config::default(), Forwarder::default())?;
    println!("listening on {}", Forwarder::open(&mut event_loop, &at, &upstream)?);
    event_loop.stop_on_signals()?;
    event_loop.run()
}

#[cfg(test)]
mod tests {
    use sealed::sim::{DatagramPeer, Faults, LoopId, Simulation};

    use super::*;

    const AT: &str = "10.0.0.1:53";
    const UPSTREAM: &str = "10.0.0.2:53";

    fn start(sim: &Simulation) -> LoopId {
        let mut event_loop = sim.event_loop(Config::default(), Forwarder::default()).expect("a loop");
        Forwarder::open(&mut event_loop, AT, UPSTREAM).expect("free addresses");
        sim.start(event_loop)
    }

    fn address(text: &str) -> Address {
        text.parse().expect("an address")
    }

    fn query(id: u16, name: &str) -> Vec<u8> {
        let mut bytes = id.to_be_bytes().to_vec();
        bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        bytes.push(u8::try_from(name.len()).expect("a short name"));
        bytes.extend(name.as_bytes());
        bytes.extend([0, 0, 1, 0, 1]);
        bytes
    }

    /// Returns an answer to a query: the query with some data, in place of a record.
    fn answer(query: &[u8]) -> Vec<u8> {
        let mut bytes = query.to_vec();
        bytes[2] |= IS_ANSWER;
        bytes.extend(b"data");
        bytes
    }

    fn failure(query: &[u8]) -> Vec<u8> {
        let mut bytes = query.to_vec();
        bytes[2] |= IS_ANSWER;
        bytes[3] |= SERVER_FAILED;
        bytes
    }

    fn serve(upstream: &DatagramPeer) {
        while let Some((from, query)) = upstream.take() {
            upstream.send_to(from, answer(&query));
        }
    }

    fn under_way(sim: &Simulation, id: LoopId) -> (usize, usize, usize) {
        let look = |event_loop: &mut EventLoop<Forwarder>| {
            let (forwarder, cx) = event_loop.parts();
            (forwarder.queries.len(), forwarder.ids.len(), cx.timers())
        };
        sim.with(id, look).expect("it runs")
    }

    #[test]
    fn clients_with_the_same_id_get_their_own_answers() {
        let sim = Simulation::new(1);
        let id = start(&sim);
        let upstream = sim.datagram_peer(UPSTREAM).expect("free");
        let ann = sim.datagram_peer("10.0.0.8:1").expect("free");
        let ben = sim.datagram_peer("10.0.0.9:1").expect("free");
        ann.send_to(address(AT), query(7, "tea"));
        ben.send_to(address(AT), query(7, "milk"));
        sim.settle();
        serve(&upstream);
        assert_eq!(ann.expect_from(address(AT)), answer(&query(7, "tea")));
        assert_eq!(ben.expect_from(address(AT)), answer(&query(7, "milk")));
        assert_eq!(under_way(&sim, id), (0, 0, 0));
    }

    #[test]
    fn a_silent_upstream_is_asked_three_times() {
        let sim = Simulation::new(1);
        let id = start(&sim);
        let upstream = sim.datagram_peer(UPSTREAM).expect("free");
        let ann = sim.datagram_peer("10.0.0.8:1").expect("free");
        ann.send_to(address(AT), query(7, "tea"));
        ann.send_to(address(AT), query(7, "tea"));
        assert_eq!(ann.expect(), (address(AT), failure(&query(7, "tea"))));
        assert!(sim.now() >= ANSWER_LIMIT * 3);
        assert_eq!(std::iter::from_fn(|| upstream.take()).count(), 3, "the second query is a repetition");
        assert_eq!(under_way(&sim, id), (0, 0, 0));
    }

    #[test]
    fn an_upstream_that_does_not_exist_is_asked_again() {
        let sim = Simulation::new(1);
        start(&sim);
        let ann = sim.datagram_peer("10.0.0.8:1").expect("free");
        ann.send_to(address(AT), query(7, "tea"));
        sim.run_for(ANSWER_LIMIT / 2);
        let upstream = sim.datagram_peer(UPSTREAM).expect("free");
        sim.run_until(ANSWER_LIMIT, || {
            serve(&upstream);
            false
        });
        assert_eq!(ann.expect().1, answer(&query(7, "tea")));
    }

    #[test]
    fn the_number_of_queries_is_bounded() {
        let sim = Simulation::new(1);
        let id = start(&sim);
        let _upstream = sim.datagram_peer(UPSTREAM).expect("free");
        let ann = sim.datagram_peer("10.0.0.8:1").expect("free");
        for number in 0..5_000 {
            ann.send_to(address(AT), query(number, "tea"));
            sim.run_for(Duration::from_micros(10));
        }
        sim.settle();
        assert_eq!(under_way(&sim, id), (QUERIES_MAX, QUERIES_MAX, QUERIES_MAX));
        let refused: Vec<_> = std::iter::from_fn(|| ann.take()).map(|(_, bytes)| bytes).collect();
        assert_eq!(refused.len(), 5_000 - QUERIES_MAX);
        assert_eq!(refused[0], failure(&query(u16::try_from(QUERIES_MAX).expect("a small number"), "tea")));
    }

    #[test]
    fn what_is_not_asked_or_not_answered_is_ignored() {
        let sim = Simulation::new(1);
        let id = start(&sim);
        let upstream = sim.datagram_peer(UPSTREAM).expect("free");
        let ann = sim.datagram_peer("10.0.0.8:1").expect("free");
        let pointer = [&query(1, "")[..HEADER_BYTES], &[0xc0, 12, 0, 1, 0, 1]].concat();
        for bad in [vec![], vec![1; 11], answer(&query(1, "tea")), query(1, "tea")[..16].to_vec(), pointer] {
            ann.send_to(address(AT), bad);
        }
        sim.settle();
        assert_eq!(under_way(&sim, id), (0, 0, 0));
        ann.send_to(address(AT), query(7, "tea"));
        let (from, asked) = upstream.expect();
        let other_question = [&asked[..2], &answer(&query(1, "milk"))[2..]].concat();
        for bad in [vec![], asked.clone(), other_question] {
            upstream.send_to(from.clone(), bad);
        }
        assert!(ann.is_silent_for(ANSWER_LIMIT / 2));
        upstream.send_to(from, answer(&asked));
        assert_eq!(ann.expect().1, answer(&query(7, "tea")));
    }

    #[test]
    fn every_client_is_answered_though_datagrams_are_lost() {
        for seed in 0..50 {
            let sim = Simulation::new(seed);
            let delay_max = Duration::from_millis(300);
            let faults = Faults { lose: 0.2, duplicate: 0.2, reorder: 0.3, would_block: 0.2, ..Faults::default() };
            sim.set_faults(Faults { delay_max, ..faults });
            let id = start(&sim);
            let upstream = sim.datagram_peer(UPSTREAM).expect("free");
            let client = sim.datagram_peer("10.0.0.8:1").expect("free");
            let mut unanswered: Vec<u16> = (0..30).collect();
            for _ in 0..30 {
                for number in &unanswered {
                    client.send_to(address(AT), query(*number, "tea"));
                }
                sim.run_until(ANSWER_LIMIT * 4, || {
                    serve(&upstream);
                    false
                });
                while let Some((_, bytes)) = client.take() {
                    let number = u16::from_be_bytes([bytes[0], bytes[1]]);
                    assert!([answer(&query(number, "tea")), failure(&query(number, "tea"))].contains(&bytes));
                    unanswered.retain(|other| *other != number);
                }
            }
            assert!(unanswered.is_empty(), "seed {seed}: {unanswered:?}\n{}", sim.trace());
            sim.run_for(ANSWER_LIMIT * 4);
            assert_eq!(under_way(&sim, id), (0, 0, 0));
        }
    }
}
