//! Several servers that share a Redis. Redis is slow, breaks its connections, is killed and started
//! again, perhaps without what it had confirmed, and loses its functions.

use std::time::Duration;

use ccomet::{Config, RedisUrl, Simulated};
use sealed::sim::{Random, Simulation};
use testing::redis::{Restart, SimRedis};

const ADDRESS: &str = "10.7.0.1:6379";

/// What happens to the Redis of a world, and the number of servers.
#[derive(Debug, Clone)]
pub struct OnRedis {
    pub servers: u16,
    /// The probability that something happens to it in a round.
    troubles: f64,
    /// It may lose what it has confirmed, so that numbers begin anew.
    pub loses: bool,
}

impl OnRedis {
    pub fn draw(config: &mut Config, random: &mut Random) -> Self {
        config.store.redis = Some(RedisUrl::new(format!("redis://{ADDRESS}")));
        config.store.window_messages_max = *random.pick(&[1_000, 10, 3]).expect("one");
        Self {
            servers: *random.pick(&[1, 2, 3]).expect("one"),
            troubles: *random.pick(&[0.0, 0.02, 0.1]).expect("one"),
            loses: random.chance(0.4),
        }
    }
}

/// The Redis of a world, and the servers beside the first.
pub struct Site {
    redis: SimRedis,
    pub servers: Vec<Simulated>,
    on: OnRedis,
    random: Random,
    sim: Simulation,
}

impl Site {
    pub fn new(sim: &Simulation, on: OnRedis) -> Self {
        let mut random = sim.random(12);
        let redis = SimRedis::start(sim, ADDRESS);
        redis.set_pushes_after(random.chance(0.5));
        redis.set_node_max(*random.pick(&[100, 2, 1]).expect("one"));
        redis.set_clock_offset(*random.pick(&[0, 0, 90_000, -90_000]).expect("one"));
        Self { redis, servers: Vec::new(), on, random, sim: sim.clone() }
    }

    /// Starts all servers but the first, which is returned.
    pub fn start(&mut self, config: &Config) -> Simulated {
        let start = |number: u16| {
            let mut config = config.clone();
            config.front.listen = format!("127.0.0.1:{}", 8_100 + number).parse().expect("an address");
            config.admin.listen = format!("127.0.0.1:{}", 8_000 + number).parse().expect("an address");
            Simulated::start(&self.sim, config).expect("it starts")
        };
        let first = start(0);
        self.servers = (1..self.on.servers).map(start).collect();
        first
    }

    /// Lets something happen to Redis.
    pub fn act(&mut self) {
        if !self.random.chance(self.on.troubles) {
            return;
        }
        let kinds = if self.on.loses { 9 } else { 5 };
        match self.random.below(kinds) {
            0 => {
                self.sim.note("Redis resets its connections");
                self.redis.reset_connections();
            }
            1 | 2 => self.redis.cut_after(self.random.below(2_000)),
            3 => {
                let time = self.random.time(Duration::from_secs(4));
                self.sim.note(format!("Redis does nothing for {time:?}"));
                self.redis.pause(time);
            }
            4 => {
                self.sim.note("Redis loses its functions");
                self.redis.flush_functions();
            }
            5 => {
                self.sim.note("Redis loses all data");
                self.redis.flush_all();
            }
            6 => self.restart(Restart::Full),
            7 => self.restart(Restart::Empty),
            _ => {
                let lost = self.random.below(8);
                self.restart(Restart::WithoutNewest(lost));
            }
        }
    }

    fn restart(&mut self, restart: Restart) {
        self.sim.note(format!("Redis is killed, and started again: {restart:?}"));
        self.redis.kill();
        let pause = *self.random.pick(&[0, 300, 5_000]).expect("one");
        self.sim.run_for(Duration::from_millis(pause));
        self.redis.restart(restart);
    }

    /// Ends all troubles.
    pub fn calm_down(&mut self) {
        self.on.troubles = 0.0;
        self.redis.cut_after(usize::MAX);
    }

    /// Returns the number of sockets that the servers have for one another, if each loop has a
    /// connection.
    pub fn sockets(&self, loops: usize) -> usize {
        let servers = usize::from(self.on.servers);
        1 + servers * 2 * loops + (servers - 1) * 2 * loops
    }

    /// Ends the other servers, and Redis.
    pub fn end(mut self) {
        self.servers.drain(..).for_each(Simulated::kill);
        self.redis.kill();
    }
}
