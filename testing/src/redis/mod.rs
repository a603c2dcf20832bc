//! A model of Redis on a simulated network, with the functions that `ccomet` loads into it.
//!
//! A [`SimRedis`] is held to a real one by a test of `ccomet` that sends the same commands to both.
//! [`Process`] is the model without the network.
//!
//! ```
//! use sealed::sim::Simulation;
//! use testing::redis::{Restart, SimRedis, encode_command};
//!
//! let sim = Simulation::new(1);
//! let mut redis = SimRedis::start(&sim, "10.0.0.7:6379");
//! let mut client = sim.connect(redis.address());
//! let mut bytes = Vec::new();
//! encode_command(&mut bytes, &["PING"]);
//! client.send(bytes);
//! client.expect("+PONG\r\n");
//! redis.restart(Restart::WithoutNewest(3));
//! ```

mod data;
mod functions;
mod glob;
mod info;
mod process;
mod resp;
mod service;

use std::cell::{RefCell, RefMut};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use data::Data;
pub use process::Process;
pub use resp::{Command, Value, decode_command, encode_command};
use sealed::sim::{LoopId, Random, Simulation};
use sealed::{Config, EventLoop};
use service::{Serving, Shared};

/// The data that the process of a restarted Redis has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Nothing, and no functions.
    Empty,
    /// All that was written.
    Full,
    /// All but the newest writes, of which this is the number, up to 10,000. Writes that change
    /// only when keys expire do not count: they are lost with the write that they follow.
    WithoutNewest(usize),
}

/// A Redis on a simulated network. Its data live as long as this does.
#[derive(Debug)]
pub struct SimRedis {
    sim: Simulation,
    address: SocketAddr,
    shared: Rc<RefCell<Shared>>,
    /// Its loop, if it runs.
    id: Option<LoopId>,
    random: Random,
}

impl SimRedis {
    /// Starts a Redis without data or functions at an address. Panics if the address is in use.
    pub fn start(sim: &Simulation, address: &str) -> Self {
        let address: SocketAddr = address.parse().expect("an address");
        Self::start_with(sim, address, Process::new)
    }

    fn start_with(sim: &Simulation, address: SocketAddr, process: impl FnOnce(String) -> Process) -> Self {
        let bits = address.to_string().bytes().fold(7, |bits: u64, byte| bits.wrapping_mul(31) ^ u64::from(byte));
        let mut random = sim.random(bits);
        let shared = Shared {
            process: process(run_id(&mut random)),
            clock_offset: 0,
            paused_until: Duration::ZERO,
            cut_after: None,
            output_max: 32 << 20,
            commands: 0,
        };
        let shared = Rc::new(RefCell::new(shared));
        let mut redis = Self { sim: sim.clone(), address, shared, id: None, random };
        redis.run();
        redis
    }

    /// Starts another Redis with the data of this one, as a replica of it that is promoted has
    /// them, without the newest `lost` writes. This one goes on; they are no longer connected.
    #[must_use]
    pub fn promote_replica(&self, address: &str, lost: usize) -> Self {
        let address: SocketAddr = address.parse().expect("an address");
        let shared = self.shared.borrow();
        let Process { data, libraries, settings, .. } = &shared.process;
        let (mut data, libraries, settings) = (data.clone(), libraries.clone(), settings.clone());
        data.take_back(lost);
        Self::start_with(&self.sim, address, |run_id| Process::with(data, libraries, run_id, settings))
    }

    fn run(&mut self) {
        let sim = self.sim.on_host(self.address.ip());
        let config = Config { input_bytes_max: 64 << 20, ..Config::default() };
        let mut event_loop = sim.event_loop(config, Serving::new(self.shared.clone())).expect("a loop");
        event_loop.listen(self.address).expect("the address is free");
        self.id = Some(sim.start(event_loop));
    }

    /// Returns its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the id of its run, which each restart changes.
    pub fn run_id(&self) -> String {
        self.process().run_id.clone()
    }

    /// Returns the number of commands that it has executed.
    pub fn commands(&self) -> u64 {
        self.shared.borrow().commands
    }

    /// Returns its process, for a look at it. Panics while its loop runs.
    pub fn process(&self) -> RefMut<'_, Process> {
        RefMut::map(self.shared.borrow_mut(), |shared| &mut shared.process)
    }

    /// Returns whether it runs.
    pub fn is_running(&self) -> bool {
        self.id.is_some()
    }

    /// Kills its process: its connections end, and its address refuses others, until a
    /// [`restart`](Self::restart).
    pub fn kill(&mut self) {
        if let Some(id) = self.id.take() {
            self.sim.kill(id);
        }
    }

    /// Kills its process if it runs, and starts another, with a new run id.
    pub fn restart(&mut self, restart: Restart) {
        self.kill();
        let run_id = run_id(&mut self.random);
        {
            let mut shared = self.shared.borrow_mut();
            let Process { data, libraries, settings, .. } = &mut shared.process;
            let (mut data, libraries, settings) = (std::mem::take(data), std::mem::take(libraries), settings.clone());
            shared.process = match restart {
                Restart::Empty => Process::with(Data::default(), BTreeSet::new(), run_id, settings),
                Restart::Full => Process::with(data, libraries, run_id, settings),
                Restart::WithoutNewest(lost) => {
                    data.take_back(lost);
                    Process::with(data, libraries, run_id, settings)
                }
            };
            shared.paused_until = Duration::ZERO;
            shared.cut_after = None;
        }
        self.run();
    }

    /// Makes it execute nothing for a time from now. It accepts connections and bytes meanwhile.
    pub fn pause(&self, time: Duration) {
        self.shared.borrow_mut().paused_until = self.sim.now() + time;
    }

    /// Resets all its connections.
    pub fn reset_connections(&self) {
        if let Some(id) = self.id {
            self.sim.with(id, |event_loop: &mut EventLoop<Serving>| {
                let (_, cx) = event_loop.parts();
                cx.connection_ids().into_iter().for_each(|id| cx.reset(id));
            });
        }
    }

    /// Ends a connection after this many more bytes of output: the one that would get the byte
    /// that follows. The commands whose replies are cut off are executed.
    pub fn cut_after(&self, bytes: usize) {
        self.shared.borrow_mut().cut_after = Some(bytes);
    }

    /// Sets the number of bytes that may wait for a client, whose connection it resets beyond. 32
    /// MiB by default.
    pub fn set_output_max(&self, bytes: usize) {
        self.shared.borrow_mut().output_max = bytes;
    }

    /// Removes all data.
    pub fn flush_all(&self) {
        let mut process = self.process();
        process.data.clear(None);
        process.data.end_command();
    }

    /// Removes the functions.
    pub fn flush_functions(&self) {
        self.process().libraries.clear();
    }

    /// Makes it refuse what needs memory, or accept it again.
    pub fn set_full(&self, is_full: bool) {
        self.process().set_full(is_full);
    }

    /// Makes calls of functions, and the loading of functions, fail with an error such as `READONLY
    /// You can't write against a read only replica.`; `None` ends that.
    pub fn set_failure(&self, failure: Option<&str>) {
        self.process().settings.failure = failure.map(str::to_owned);
    }

    /// Sets its clock ahead of that of the simulation, or behind it, by milliseconds.
    pub fn set_clock_offset(&self, offset_ms: i64) {
        self.shared.borrow_mut().clock_offset = offset_ms;
    }

    /// Makes it send a client the messages of its own calls after the reply to the call, as Redis
    /// from 7.2 on and Valkey do; or before it.
    pub fn set_pushes_after(&self, after: bool) {
        self.process().set_pushes_after(after);
    }

    /// Sets the number of messages in a node of a stream, 100 by default: it removes old messages
    /// only by nodes.
    pub fn set_node_max(&self, node_max: usize) {
        self.process().set_node_max(node_max);
    }

    /// Sets the user and the password that new connections need.
    pub fn set_login(&self, user: &str, password: &str) {
        self.process().settings.login = Some((user.to_owned(), password.to_owned()));
    }

    /// Sets a field of `INFO`, such as `redis_version`, `maxmemory_policy`, `role` or
    /// `cluster_enabled`.
    pub fn set_info(&self, field: &str, value: &str) {
        self.process().settings.info.insert(field.to_owned(), value.to_owned());
    }
}

fn run_id(random: &mut Random) -> String {
    format!("{:016x}{:016x}{:08x}", random.bits(), random.bits(), random.bits() >> 32)
}
