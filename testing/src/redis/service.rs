//! A Redis on the simulated network.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use sealed::{Address, CloseReason, ConnectionId, Context, Input, ListenerId, Service, TimerId};

use super::process::Process;
use super::resp::{Value, decode_command};

/// What the test changes while a Redis runs.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) process: Process,
    /// The distance of its clock from that of the simulation, in ms.
    pub(super) clock_offset: i64,
    /// Until when, by the time of its loop, it reads nothing.
    pub(super) paused_until: Duration,
    /// The number of bytes of output before the cut of a connection.
    pub(super) cut_after: Option<usize>,
    /// The number of bytes that may wait for a client.
    pub(super) output_max: usize,
    /// The number of commands so far.
    pub(super) commands: u64,
}

/// The service of a Redis.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) shared: Rc<RefCell<Shared>>,
    connections: BTreeMap<u64, ConnectionId>,
    last: u64,
}

impl Serving {
    pub(super) fn new(shared: Rc<RefCell<Shared>>) -> Self {
        Self { shared, connections: BTreeMap::new(), last: 0 }
    }

    fn send(&self, cx: &mut Context<Self>, out: Vec<(u64, Value)>) {
        let mut outputs: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for (client, value) in out {
            let protocol = self.shared.borrow().process.protocol(client);
            value.encode(protocol, outputs.entry(client).or_default());
        }
        for (client, bytes) in outputs {
            let Some(id) = self.connections.get(&client).copied() else { continue };
            let mut shared = self.shared.borrow_mut();
            let kept = shared.cut_after.map_or(bytes.len(), |left| left.min(bytes.len()));
            let is_cut = kept < bytes.len();
            shared.cut_after = if is_cut { None } else { shared.cut_after.map(|left| left - kept) };
            let is_too_much = cx.queued(id) + kept > shared.output_max;
            drop(shared);
            if is_too_much {
                cx.reset(id);
                continue;
            }
            cx.write(id, &bytes[..kept]);
            if is_cut {
                cx.note(|| format!("Redis cuts a connection after {kept} of {} bytes", bytes.len()));
                cx.close(id);
            }
        }
    }

    /// Executes the complete commands in the input. All of them are executed, even if the
    /// connection is cut among their replies.
    fn execute(&self, cx: &mut Context<Self>, client: u64, input: &mut Input<'_>) -> Vec<(u64, Value)> {
        let mut out = Vec::new();
        let now = i64::try_from(cx.unix_time().as_millis()).unwrap_or(i64::MAX);
        let mut shared = self.shared.borrow_mut();
        let now = now + shared.clock_offset;
        loop {
            match decode_command(input.bytes()) {
                Ok(Some((command, length))) => {
                    input.take(length);
                    shared.commands += 1;
                    out.append(&mut shared.process.execute(client, &command, now));
                }
                Ok(None) => return out,
                Err(text) => {
                    input.take_all();
                    out.push((client, Value::Error(text)));
                    return out;
                }
            }
        }
    }
}

impl Service for Serving {
    type Connection = u64;
    type Message = ();
    type Timer = ();

    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, _: ListenerId, _: &Address) {
        self.last += 1;
        self.connections.insert(self.last, id);
        self.shared.borrow_mut().process.connect(self.last);
        if let Some(state) = cx.state_mut(id) {
            *state = self.last;
        }
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        let pause = self.shared.borrow().paused_until.saturating_sub(cx.now());
        if !pause.is_zero() {
            cx.set_timer(pause, ());
            return;
        }
        let Some(client) = cx.state(id).copied() else { return };
        let out = self.execute(cx, client, input);
        self.send(cx, out);
    }

    /// Handles the end of a pause.
    fn expired(&mut self, cx: &mut Context<Self>, _: TimerId, (): ()) {
        self.connections.values().for_each(|id| cx.resume(*id));
    }

    fn closed(&mut self, _: &mut Context<Self>, _: ConnectionId, client: u64, _: CloseReason) {
        self.connections.remove(&client);
        self.shared.borrow_mut().process.disconnect(client);
    }
}
