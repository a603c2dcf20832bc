//! An MQTT 3.1.1 broker: quality of service 0 and 1, retained messages, wills, keep-alive, and
//! sessions that outlive their connections.
//!
//! Try it: `cargo run -p examples --example mqtt_broker -- 127.0.0.1:1883`, then
//! `mosquitto_sub -t 'tea/#' -q 1` and `mosquitto_pub -t tea/green -m hot -q 1 -r`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use examples::mqtt::{self, Connect, Packet, Publish, matches};
use sealed::{Address, CloseReason, Config, ConnectionId, Context, EventLoop, Input, ListenerId, Service};

const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Messages of one session that are sent and not acknowledged.
const UNACKNOWLEDGED_MAX: usize = 20;
/// Messages that wait for one session. Further ones replace the oldest.
const WAITING_MAX: usize = 1_000;
const RETAINED_MAX: usize = 10_000;
const SESSIONS_MAX: usize = 10_000;
const FILTERS_MAX: usize = 100;

#[derive(Debug)]
struct Message {
    topic: String,
    payload: Vec<u8>,
}

type Shared = Rc<Message>;

/// What a client subscribes to, and what it has not acknowledged.
#[derive(Debug, Default)]
struct Session {
    /// The default is no connection.
    connection: ConnectionId,
    /// The session outlives its connection.
    stays: bool,
    filters: Vec<(String, u8)>,
    waiting: VecDeque<Shared>,
    sent: VecDeque<(u16, Shared)>,
    last_number: u16,
}

#[derive(Debug, Default)]
struct Broker {
    sessions: HashMap<Rc<str>, Session>,
    retained: BTreeMap<String, Shared>,
}

#[derive(Debug, Default)]
struct Client {
    /// `None` before the client has introduced itself.
    name: Option<Rc<str>>,
    keep_alive: Duration,
    will: Option<Will>,
}

/// What is published if a client goes without a word.
#[derive(Debug)]
struct Will {
    message: Shared,
    is_retained: bool,
    quality: u8,
}

fn quality_of(publish: &Publish<'_>) -> u8 {
    u8::from(publish.number.is_some())
}

fn shared(publish: &Publish<'_>) -> Shared {
    Rc::new(Message { topic: publish.topic.to_owned(), payload: publish.payload.to_vec() })
}

fn encode(message: &Message, number: Option<u16>, is_retained: bool, is_again: bool) -> Vec<u8> {
    mqtt::publish(&Publish { topic: &message.topic, payload: &message.payload, is_retained, number }, is_again)
}

impl Session {
    /// Sends a message, or keeps it for later. Returns whether another one was dropped for it.
    fn deliver(&mut self, cx: &mut Context<Broker>, message: &Shared, quality: u8) -> bool {
        if quality == 0 {
            // Such a message may get lost, and is if the client does not read.
            if cx.has_room(self.connection) {
                cx.write(self.connection, &encode(message, None, false, false));
            }
            return false;
        }
        self.waiting.push_back(message.clone());
        let is_full = self.waiting.len() > WAITING_MAX;
        if is_full {
            self.waiting.pop_front();
        }
        self.send_waiting(cx);
        is_full
    }

    fn send_waiting(&mut self, cx: &mut Context<Broker>) {
        while self.sent.len() < UNACKNOWLEDGED_MAX && cx.has_room(self.connection) {
            let Some(message) = self.waiting.pop_front() else { return };
            self.last_number = self.last_number.checked_add(1).unwrap_or(1);
            cx.write(self.connection, &encode(&message, Some(self.last_number), false, false));
            self.sent.push_back((self.last_number, message));
        }
    }

    /// Sends again what the client has not acknowledged on its last connection.
    fn resume(&mut self, cx: &mut Context<Broker>) {
        for (number, message) in &self.sent {
            cx.write(self.connection, &encode(message, Some(*number), false, true));
        }
        self.send_waiting(cx);
    }
}

impl Broker {
    fn publish(&mut self, cx: &mut Context<Self>, message: &Shared, is_retained: bool, quality: u8) {
        if is_retained && message.payload.is_empty() {
            self.retained.remove(&message.topic);
        } else if is_retained && (self.retained.len() < RETAINED_MAX || self.retained.contains_key(&message.topic)) {
            self.retained.insert(message.topic.clone(), message.clone());
        }
        for (name, session) in &mut self.sessions {
            let granted = session.filters.iter().filter(|(filter, _)| matches(filter, &message.topic));
            if let Some(granted) = granted.map(|(_, granted)| *granted).max()
                && session.deliver(cx, message, granted.min(quality))
            {
                eprintln!("{name}: too many messages wait, and the oldest is dropped");
            }
        }
    }

    fn connect(&mut self, cx: &mut Context<Self>, id: ConnectionId, connect: &Connect<'_>) {
        let own = format!("{id:?}");
        let name: Rc<str> = if connect.client.is_empty() { own.into() } else { connect.client.into() };
        let is_nameless = connect.client.is_empty() && !connect.is_clean;
        let is_full = self.sessions.len() >= SESSIONS_MAX && !self.sessions.contains_key(&name);
        if is_nameless || is_full {
            // The name is not allowed, or the server is unavailable.
            cx.write(id, &mqtt::connect_ack(false, if is_nameless { 2 } else { 3 }));
            return cx.close(id);
        }
        let is_known = !connect.is_clean && self.sessions.contains_key(&name);
        if let Some(old) = self.sessions.get(&name) {
            // The client has connected again: its other connection ends, with its will.
            cx.abort(old.connection);
        }
        if !is_known {
            self.sessions.remove(&name);
        }
        let session = self.sessions.entry(name.clone()).or_default();
        (session.connection, session.stays) = (id, !connect.is_clean);
        let keep_alive = Duration::from_secs(connect.keep_alive_s.into());
        let will = connect.will.as_ref().map(|will| {
            let (message, quality) = (shared(will), quality_of(will));
            Will { message, is_retained: will.is_retained, quality }
        });
        if let Some(client) = cx.state_mut(id) {
            *client = Client { name: Some(name), keep_alive, will };
        }
        cx.write(id, &mqtt::connect_ack(is_known, 0));
        session.resume(cx);
    }

    fn subscribe(&mut self, cx: &mut Context<Self>, id: ConnectionId, number: u16, filters: &[(&str, u8)]) {
        let Some(session) = session(&mut self.sessions, cx, id) else { return };
        let mut granted = Vec::new();
        for (filter, quality) in filters {
            session.filters.retain(|(held, _)| held != filter);
            let has_room = session.filters.len() < FILTERS_MAX;
            if has_room {
                session.filters.push(((*filter).to_owned(), *quality));
            }
            granted.push(if has_room { *quality } else { 0x80 });
        }
        cx.write(id, &mqtt::subscribe_ack(number, &granted));
        for (topic, message) in &self.retained {
            // They have quality 0 here: a client gets as many as it has room for.
            if cx.has_room(id) && filters.iter().any(|(filter, _)| matches(filter, topic)) {
                cx.write(id, &encode(message, None, true, false));
            }
        }
    }

    fn handle(&mut self, cx: &mut Context<Self>, id: ConnectionId, packet: Packet<'_>) {
        let is_known = cx.state(id).is_some_and(|client| client.name.is_some());
        match packet {
            Packet::Connect(connect) if !is_known => self.connect(cx, id, &connect),
            Packet::Connect(_) => cx.abort(id),
            _ if !is_known => cx.abort(id),
            Packet::Publish(publish) => {
                self.publish(cx, &shared(&publish), publish.is_retained, quality_of(&publish));
                if let Some(number) = publish.number {
                    cx.write(id, &mqtt::publish_ack(number));
                }
            }
            Packet::PubAck(number) => {
                if let Some(session) = session(&mut self.sessions, cx, id) {
                    session.sent.retain(|(sent, _)| *sent != number);
                    session.send_waiting(cx);
                }
            }
            Packet::Subscribe(number, filters) => self.subscribe(cx, id, number, &filters),
            Packet::Unsubscribe(number, filters) => {
                if let Some(session) = session(&mut self.sessions, cx, id) {
                    session.filters.retain(|(held, _)| !filters.contains(&&**held));
                }
                cx.write(id, &mqtt::unsubscribe_ack(number));
            }
            Packet::Ping => _ = cx.write(id, &mqtt::PONG),
            Packet::Disconnect => {
                if let Some(client) = cx.state_mut(id) {
                    client.will = None;
                }
                cx.close(id);
            }
        }
    }
}

fn session<'a>(
    sessions: &'a mut HashMap<Rc<str>, Session>,
    cx: &Context<Broker>,
    id: ConnectionId,
) -> Option<&'a mut Session> {
    sessions.get_mut(cx.state(id)?.name.as_ref()?)
}

impl Service for Broker {
    type Connection = Client;
    type Message = ();
    type Timer = ();

    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, _: ListenerId, _: &Address) {
        cx.set_deadline(id, CONNECT_MAX);
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        while cx.is_open(id) {
            match mqtt::decode(input.bytes()) {
                Ok(Some((length, packet))) => {
                    self.handle(cx, id, packet);
                    input.take(length);
                }
                Ok(None) => break,
                Err(mqtt::Malformed) => return cx.abort(id),
            }
        }
        match cx.state(id) {
            Some(client) if client.name.is_some() && client.keep_alive.is_zero() => cx.clear_deadline(id),
            Some(client) if client.name.is_some() => cx.set_deadline(id, client.keep_alive.mul_f32(1.5)),
            _ => {}
        }
    }

    fn drained(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        if let Some(session) = session(&mut self.sessions, cx, id) {
            session.send_waiting(cx);
        }
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: ConnectionId, client: Client, _: CloseReason) {
        if let Some(name) = &client.name
            && let Some(session) = self.sessions.get_mut(name).filter(|session| session.connection == id)
        {
            session.connection = ConnectionId::default();
            if !session.stays {
                self.sessions.remove(name);
            }
        }
        if let Some(will) = client.will {
            self.publish(cx, &will.message, will.is_retained, will.quality);
        }
    }
}

fn main() -> sealed::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1883".to_owned());
    // A packet waits in the input until it is complete.
    let config = Config { input_bytes_max: 300 * 1024, ..Config::default() };
    let mut event_loop = EventLoop::new(config, Broker::default())?;
    println!("listening on {}", event_loop.listen(address)?.address);
    event_loop.stop_on_signals()?;
    event_loop.run()
}

#[cfg(test)]
mod tests {
    use sealed::sim::{self, Faults, Peer, Simulation};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn start(sim: &Simulation) {
        let mut event_loop = sim.event_loop(Config::default(), Broker::default()).expect("a loop");
        event_loop.listen("10.0.0.1:1883").expect("it is free");
        sim.start(event_loop);
    }

    /// Connects a client. `flags` are those of the packet, and `rest` follows the name.
    fn connect(sim: &Simulation, name: &str, flags: u8, rest: &[u8]) -> Peer {
        let mut peer = sim.connect("10.0.0.1:1883".parse::<Address>().expect("an address"));
        let length = (12 + name.len() + rest.len()) as u8;
        let head = [&[0x10, length, 0, 4], &b"MQTT"[..], &[4, flags, 0, 2, 0, name.len() as u8]].concat();
        peer.send([&head, name.as_bytes(), rest].concat());
        peer
    }

    fn subscribe(filter: &str) -> Vec<u8> {
        [&[0x82, filter.len() as u8 + 5, 0, 1, 0, filter.len() as u8], filter.as_bytes(), &[1]].concat()
    }

    fn message(topic: &str, payload: &str, number: Option<u16>, is_retained: bool) -> Vec<u8> {
        mqtt::publish(&Publish { topic, payload: payload.as_bytes(), is_retained, number }, false)
    }

    #[test]
    fn retained_messages_and_wills_reach_subscribers() {
        let sim = Simulation::new(1);
        start(&sim);
        let mut ann = connect(&sim, "ann", 2, b"");
        ann.expect(mqtt::connect_ack(false, 0));
        ann.send([message("tea/green", "hot", Some(7), true), vec![0xc0, 0]].concat());
        ann.expect([&mqtt::publish_ack(7)[..], &mqtt::PONG].concat());
        let mut ben = connect(&sim, "ben", 2, b"");
        ben.send(subscribe("tea/#"));
        ben.expect([&mqtt::connect_ack(false, 0)[..], &[0x90, 3, 0, 1, 1]].concat());
        ben.expect(message("tea/green", "hot", None, true));
        // A client with a will, which falls silent.
        let mut cat = connect(&sim, "cat", 6, b"\x00\x05tea/x\x00\x03bye");
        cat.expect(mqtt::connect_ack(false, 0));
        for _ in 0..4 {
            ben.send([0xc0, 0]);
            sim.run_for(SECOND);
        }
        assert!(cat.is_over() && !ben.is_over());
        ben.expect(message("tea/x", "bye", None, false));
    }

    /// Takes the packets that have come completely. All of them are short.
    fn take_packets(peer: &mut Peer) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        while let [_, length, rest @ ..] = &peer.peek()[..]
            && usize::from(*length) <= rest.len()
        {
            packets.push(peer.take_exact(usize::from(*length) + 2));
        }
        packets
    }

    #[test]
    fn a_session_that_stays_gets_every_message_at_least_once_and_in_order() {
        sim::check(0..100, |sim| {
            start(sim);
            let mut reader = connect(sim, "reader", 0, b"");
            reader.send(subscribe("n"));
            reader.expect([0x90, 3, 0, 1, 1]);
            drop(reader);
            let faults = Faults::any(&mut sim.random(0));
            sim.set_faults(Faults { reset: 0.02, vanish: 0.0, refuse: 0.0, accept: 0.0, slow_connect: 0.0, ..faults });
            let (mut random, mut seen, mut accepted) = (sim.random(1), Vec::<u16>::new(), Vec::new());
            for round in 0..40 {
                if round == 39 {
                    sim.set_faults(Faults::default());
                }
                // Both come for a while, and leave without a word.
                let mut reader = connect(sim, "reader", 0, b"");
                reader.send(subscribe("n"));
                let mut writer = connect(sim, "writer", 2, b"");
                let count = if round == 39 { 50 } else { random.below(4) as u16 };
                // In the last step, what is left comes.
                for step in 0..=count {
                    if step < count {
                        let number = round * 100 + step;
                        writer.send(message("n", &number.to_string(), Some(number + 1), false));
                    }
                    sim.run_for(if step < count { random.time(SECOND / 10) } else { SECOND });
                    for packet in take_packets(&mut reader) {
                        if let Ok(Some((_, Packet::Publish(publish)))) = mqtt::decode(&packet) {
                            seen.push(String::from_utf8_lossy(publish.payload).parse().expect("a number"));
                            reader.send(mqtt::publish_ack(publish.number.expect("it is to be acknowledged")));
                        }
                    }
                }
                let acks = take_packets(&mut writer).into_iter().filter(|packet| packet[0] == 0x40);
                accepted.extend(acks.map(|ack| u16::from_be_bytes([ack[2], ack[3]]) - 1));
            }
            let missing: Vec<_> = accepted.iter().filter(|number| !seen.contains(number)).collect();
            assert!(missing.is_empty(), "{missing:?} of {accepted:?}");
            let mut first = Vec::new();
            for number in seen {
                if !first.contains(&number) {
                    first.push(number);
                }
            }
            assert!(first.is_sorted(), "{first:?}");
        });
    }
}
