//! The protocol as services of sealed, under its simulation.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealed::sim::{Check, Faults, LoopId, Random, Simulation};
use sealed::{Address, CloseReason, Config, Connect, ConnectionId, Context, EventLoop, Input, ListenerId, Mailbox};
use sealed::{Service, TimerId};
use sim_compare::hand_over::HandOver;
use sim_compare::report::{self, Bound, Outcome};
use sim_compare::{Book, Bug, CLIENTS, COMMIT, Hardship, Job, Key, PATIENCE, PORT, RETRY, Requests};
use sim_compare::{SILENCE, Slots, WAIT_MAX, hardships};

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// The loop that has the connections.
struct Front {
    slots: Slots<ConnectionId>,
    queue: Arc<HandOver<Job>>,
    store: Mailbox<()>,
    bug: Bug,
}

impl Front {
    fn request(&mut self, cx: &mut Context<Self>, id: ConnectionId, line: &[u8]) {
        let Some(key) = *cx.state(id).expect("it is open") else { return };
        let Some(job) = Job::parse(&String::from_utf8_lossy(line), key, cx.now()) else {
            cx.write(id, b"malformed\n");
            return;
        };
        if self.bug.ignores(key) {
            return;
        }
        if self.bug == Bug::AckEarly {
            cx.write(id, job.answer().as_bytes());
        }
        if self.queue.push(job) {
            self.store.post(()).expect("there is room");
        }
    }
}

impl Service for Front {
    type Connection = Option<Key>;
    type Message = Job;
    type Timer = ();

    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, _: ListenerId, _: &Address) {
        *cx.state_mut(id).expect("it is open") = Some(self.slots.insert(id));
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        if self.bug == Bug::PartialRead {
            for line in input.take_all().split_inclusive(|byte| *byte == b'\n') {
                self.request(cx, id, line);
            }
        }
        while let Some(line) = input.take_until(b'\n') {
            self.request(cx, id, line);
        }
    }

    fn message(&mut self, cx: &mut Context<Self>, job: Job) {
        if let Some(id) = self.slots.find(job.connection) {
            cx.write(*id, job.answer().as_bytes());
        }
    }

    fn closed(&mut self, _: &mut Context<Self>, _: ConnectionId, state: Option<Key>, _: CloseReason) {
        if let Some(key) = state {
            self.slots.remove(key);
        }
    }
}

/// The loop that commits. A wake-up without a value is its message.
struct Store {
    book: Arc<Mutex<Book>>,
    queue: Arc<HandOver<Job>>,
    front: Option<Mailbox<Job>>,
    is_committing: bool,
    is_woken: bool,
    bug: Bug,
}

impl Store {
    fn commit(&mut self, cx: &mut Context<Self>) {
        let batch = self.queue.take();
        for job in &batch {
            let waited = cx.now().saturating_sub(job.at);
            assert!(waited <= WAIT_MAX, "a request waited {waited:?} for the store");
        }
        (self.is_committing, self.is_woken) = (true, false);
        cx.set_timer(COMMIT, batch);
    }
}

impl Service for Store {
    type Connection = ();
    type Message = ();
    type Timer = Vec<Job>;

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}

    fn message(&mut self, cx: &mut Context<Self>, (): ()) {
        self.is_woken = true;
        if !self.is_committing {
            self.commit(cx);
        }
    }

    fn expired(&mut self, cx: &mut Context<Self>, _: TimerId, batch: Vec<Job>) {
        for job in batch {
            self.book.lock().unwrap().apply(&job.name, job.seq);
            if let Some(front) = self.front.as_ref().filter(|_| self.bug != Bug::AckEarly) {
                front.post(job).expect("there is room");
            }
        }
        self.queue.done();
        self.is_committing = false;
        if self.is_woken {
            self.commit(cx);
        }
    }
}

struct Client {
    server: Address,
    requests: Requests,
    connections: u64,
    bug: Bug,
}

impl Client {
    fn connect(&mut self, cx: &mut Context<Self>) {
        self.connections += 1;
        let to = Connect::to(self.server.clone()).limit(SILENCE);
        if cx.connect(to, ()).is_err() {
            cx.set_timer(RETRY, ());
        }
    }

    fn await_answer(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        if !self.bug.forgets_timer() || self.connections == 1 {
            cx.set_deadline(id, SILENCE);
        }
    }
}

impl Service for Client {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn started(&mut self, cx: &mut Context<Self>) {
        self.connect(cx);
    }

    fn connected(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        cx.write(id, self.requests.to_send().as_bytes());
        self.await_answer(cx, id);
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        while let Some(line) = input.take_until(b'\n') {
            self.requests.answered(&String::from_utf8_lossy(line));
            self.await_answer(cx, id);
        }
        if self.requests.are_done() {
            cx.close(id);
        } else if !self.requests.are_waiting() {
            cx.write(id, self.requests.to_send().as_bytes());
        }
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: ConnectionId, (): (), _: CloseReason) {
        if !self.requests.are_done() {
            cx.set_timer(RETRY, ());
        }
    }

    fn expired(&mut self, cx: &mut Context<Self>, _: TimerId, (): ()) {
        self.connect(cx);
    }
}

fn start_server(sim: &Simulation, bug: Bug, book: &Arc<Mutex<Book>>) -> [LoopId; 2] {
    let queue = Arc::new(HandOver::new(bug));
    let config = Config::default();
    let (book, of_front) = (book.clone(), queue.clone());
    let store = Store { book, queue, front: None, is_committing: false, is_woken: false, bug };
    let mut store = sim.event_loop(config.clone(), store).expect("a loop");
    let front = Front { slots: Slots::new(bug), queue: of_front, store: store.mailbox(), bug };
    let mut front = sim.event_loop(config, front).expect("a loop");
    store.parts().0.front = Some(front.mailbox());
    front.listen(SocketAddr::new(SERVER, PORT)).expect("it is free");
    [sim.start(front), sim.start(store)]
}

fn faults(random: &mut Random) -> Faults {
    // A jump of the clock would look like a request that waited long.
    Faults { jump: 0.0, ..Faults::any(random) }
}

fn run(sim: &Simulation, bug: Bug) {
    let book = Arc::new(Mutex::new(Book::new(bug)));
    let mut server = Some(start_server(&sim.on_host(SERVER), bug, &book));
    let hosts = [2, 3, 4].map(|last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)));
    let clients = [0, 1, 2].map(|client| {
        let requests = Requests::new(CLIENTS[client]);
        let server = Address::from(SocketAddr::new(SERVER, PORT));
        let service = Client { server, requests, connections: 0, bug };
        let host = sim.on_host(hosts[client]);
        sim.start(host.event_loop(Config::default(), service).expect("a loop"))
    });
    for (at, hardship) in hardships(sim.seed()) {
        sim.run_for(at.saturating_sub(sim.now()));
        match hardship {
            Hardship::Cut(client) => sim.partition(hosts[client], SERVER),
            Hardship::Heal(client) => sim.heal(hosts[client], SERVER),
            Hardship::Kill => server.take().into_iter().flatten().for_each(|id| sim.kill(id)),
            Hardship::Start => {
                server.get_or_insert_with(|| start_server(&sim.on_host(SERVER), bug, &book));
            }
        }
    }
    let is_done = |id| sim.with(id, |client: &mut EventLoop<Client>| client.service().requests.are_done());
    let are_done = || clients.iter().all(|id| is_done(*id) == Some(true));
    // The random faults go on for a while.
    if !sim.run_until(Duration::from_secs(10), are_done) {
        sim.set_faults(Faults::default());
        assert!(sim.run_until(PATIENCE, are_done), "the clients have not got all answers");
    }
    book.lock().unwrap().check();
}

/// Runs seeds in portions, because a check has no limit of time.
fn search(bug: Bug, bound: Bound) -> Outcome {
    let start = report::cpu_time();
    let runs = AtomicU64::new(0);
    while runs.load(Ordering::Relaxed) < bound.runs && report::cpu_time().saturating_sub(start) < bound.time {
        let first = runs.load(Ordering::Relaxed);
        let check = Check::new(first..bound.runs.min(first + 50)).threads(1).shrink(0, Duration::ZERO).faults(faults);
        let failure = report::attempt(|| {
            check.run(|sim| {
                runs.fetch_add(1, Ordering::Relaxed);
                run(sim, bug);
            });
        });
        if failure.is_some() {
            return Outcome { runs: runs.into_inner(), failure };
        }
    }
    Outcome { runs: runs.into_inner(), failure: None }
}

fn main() {
    report::main(search);
}
