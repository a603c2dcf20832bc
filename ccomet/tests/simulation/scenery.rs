//! The features of a world: the server's configuration, and which of the rarer features it has.

use std::time::Duration;

use ccomet::{Anonymous, Config, Key, Pattern, Secret, StoreFaults};
use sealed::sim::{Link, Random, Simulation};

use crate::backends::Hooking;
use crate::crowds;
use crate::disks::OnDisk;
use crate::proxies::Proxying;
use crate::redis::OnRedis;
use crate::rulings::Ruling;
use crate::tokens;

/// The features that only some worlds have.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools)] // each is a thing of its own
pub struct Scenery {
    /// Clients connect through proxies, and addresses count.
    pub proxying: Option<Proxying>,
    /// Some channels need tokens.
    pub has_tokens: bool,
    /// The server asks a back end about some channels.
    pub hooking: Option<Hooking>,
    /// All clients are silent at times, for longer than any sweep or timeout takes.
    pub is_silent: bool,
    /// Keys of publishers are dropped before their time.
    pub forgets_keys: bool,
    /// There are many channels, and messages to all of them.
    pub is_wide: bool,
    /// Some channels have limits of their own.
    pub ruling: Option<Ruling>,
    /// Messages are kept by a store that is slow and fails.
    pub store: Option<StoreFaults>,
    /// Messages are kept by a store on a disk.
    pub on_disk: Option<OnDisk>,
    /// Messages are kept by a Redis, which several servers may share.
    pub on_redis: Option<OnRedis>,
    /// Clients come to new channels together, and one of them may make none.
    pub is_crowded: bool,
}

impl Scenery {
    /// Returns whether the numbers of channels may restart at any time.
    pub fn restarts_numbers(&self) -> bool {
        self.store.is_some_and(|store| store.cuts > 0 && store.restarts > 0)
            || self.on_redis.as_ref().is_some_and(|on_redis| on_redis.loses)
    }
}

/// Returns the faults of a store that only keeps late.
pub fn calm(store: StoreFaults) -> StoreFaults {
    StoreFaults { delay_max: store.delay_max.min(Duration::from_millis(50)), refusals: 0, cuts: 0, ..store }
}

fn any_store(random: &mut Random) -> StoreFaults {
    let millis = |millis: u64| Duration::from_millis(millis);
    StoreFaults {
        window_max: *random.pick(&[1_000, 3, 1]).expect("one"),
        delay_max: millis(*random.pick(&[0, 50, 2_000]).expect("one")),
        refusals: *random.pick(&[0, 20]).expect("one"),
        cuts: *random.pick(&[0, 10]).expect("one"),
        cut_max: millis(*random.pick(&[1_000, 20_000]).expect("one")),
        restarts: *random.pick(&[0, 0, 30]).expect("one"),
        idle_max: millis(*random.pick(&[0, 500, 5_000]).expect("one")),
    }
}

/// Draws the features of a seed, and the configuration for them.
pub fn draw(sim: &Simulation, random: &mut Random) -> (Config, Scenery) {
    let mut config = any_config(random);
    let mut redis = sim.random(11);
    let on_redis = redis.chance(0.15).then(|| OnRedis::draw(&mut config, &mut redis));
    if let Some(on_redis) = on_redis {
        return (config, Scenery { on_redis: Some(on_redis), ..Scenery::default() });
    }
    let mut random = sim.random(2);
    let proxying = random.chance(0.3).then(|| Proxying::draw(&mut config, &mut random));
    let has_tokens = random.chance(0.25);
    if has_tokens {
        tokens::configure(&mut config, &mut random);
    }
    let hooking = random.chance(0.25).then(|| Hooking::draw(&mut config, &mut random));
    let is_silent = random.chance(0.15);
    let forgets_keys = random.chance(0.1);
    if forgets_keys {
        config.history.keys_max = 2;
        config.limits.subscribers_per_channel_max = 2;
        config.limits.patterns_max = 1;
    }
    let is_wide = random.chance(0.05);
    config.limits.encoded_bytes_max = *random.pick(&[16 << 20, 4_000]).expect("one");
    let ruling = random.chance(0.25).then(|| Ruling::draw(&mut config, &mut random));
    let mut random = sim.random(6);
    let store = random.chance(0.3).then(|| any_store(&mut random));
    let mut disks = sim.random(9);
    // A server that ends with questions to the back end may fail to ask.
    let on_disk = (hooking.is_none() && disks.chance(0.4)).then(|| OnDisk::draw(&mut config, &mut disks));
    let store = store.filter(|_| on_disk.is_none());
    let has_others = proxying.is_some() || has_tokens || hooking.is_some() || ruling.is_some() || forgets_keys;
    let is_crowded = !has_others && sim.random(8).chance(0.4);
    if is_crowded {
        crowds::configure(&mut config);
    }
    let scenery = Scenery {
        proxying,
        has_tokens,
        hooking,
        is_silent,
        forgets_keys,
        is_wide,
        ruling,
        store,
        on_disk,
        on_redis,
        is_crowded,
    };
    (config, scenery)
}

/// Draws the speed of the network. Returns whether several subscriptions on one connection are too
/// much for it.
pub fn draw_link(sim: &Simulation, random: &mut Random) -> bool {
    let link = Link {
        latency_max: Duration::from_millis(*random.pick(&[1, 30]).expect("one")),
        bandwidth: if random.chance(0.2) { Some(50_000) } else { None },
        buffer_bytes: *random.pick(&[600, 5_000, 200_000]).expect("one"),
        ..Link::default()
    };
    let is_narrow = link.buffer_bytes < 5_000;
    sim.set_link(link);
    is_narrow
}

fn any_config(random: &mut Random) -> Config {
    let mut pick = |from: &[usize]| *random.pick(from).expect("one");
    let mut config = Config { loops: pick(&[1, 2, 3, 4]).try_into().ok(), ..Config::default() };
    config.front.patterns = true;
    // The name in the `Host` of the clients.
    config.admin.hosts = vec!["sim".to_owned()];
    config.admin.forgeable_gets = true;
    // Clients without a token may do everything, too.
    let secret = Secret::new("a secret that is long enough for it");
    config.auth.keys = vec![Key { id: "main".to_owned(), secret: Some(secret), ..Key::default() }];
    let all = || vec![Pattern::all()];
    config.auth.anonymous = Some(Anonymous { subscribe: all(), publish: all(), presence: all() });
    config.limits.patterns_max = pick(&[100, 4]);
    config.icomet.polling_timeout_s = pick(&[60, 3]) as u64;
    config.history.messages_max = pick(&[500, 500, 20, 3, 1]);
    config.history.bytes_max = pick(&[1 << 20, 1 << 20, 3_000]);
    config.history.total_bytes_max = pick(&[256 << 20, 256 << 20, 20_000]);
    config.history.age_max_s = pick(&[3_600, 3_600, 5]) as u64;
    config.limits.batch_bytes_max = pick(&[65_536, 4_096]);
    config.limits.message_bytes_max = pick(&[65_536, 4_096]);
    config.limits.channels_max = pick(&[100_000, 100_000, 4]);
    config.limits.subscribers_max = pick(&[1_000, 1_000, 4]);
    config.limits.connections_max = pick(&[1_000, 1_000, 16]);
    config.limits.deliveries_under_way_max = pick(&[1_024, 1, 2]);
    config.times.heartbeat_s = pick(&[15, 2]) as u64;
    config.times.classic_poll_s = pick(&[55, 3]) as u64;
    config.times.channel_linger_s = pick(&[60, 1]) as u64;
    config.times.channel_idle_s = pick(&[600, 5]) as u64;
    config.times.keep_alive_s = pick(&[75, 2]) as u64;
    config.times.silence_max_s = pick(&[60, 20]) as u64;
    if config.limits.connections_max < 100 {
        // A retry may wait in the backlog for minutes.
        config.history.keys_age_max_s = 3_600;
    }
    config
}
