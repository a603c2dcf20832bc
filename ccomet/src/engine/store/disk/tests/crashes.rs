//! A store that is stopped at random moments, by kills and power cuts, on a disk that fails: what
//! it has kept is there, and nothing else is.

use sealed::sim::Random;

use super::*;

const CHANNELS: [&str; 4] = ["a", "b", "c", "d"];
const SEEDS: u64 = 400;
const STEPS: usize = 300;

/// A channel of the store, and all of its messages.
type Found = (KeptChannel, Vec<(u64, String)>);

/// What the test knows of a channel.
#[derive(Debug, Clone)]
struct Model {
    epoch: Epoch,
    /// The numbers that have to be there.
    kept_from: u64,
    next: u64,
    /// The messages before this number were dropped for ever.
    cleared: u64,
    texts: BTreeMap<u64, String>,
}

#[derive(Debug, Clone)]
enum Asked {
    Append(Vec<String>),
    Clear,
    Remove,
}

/// A channel, and the changes of which at most one may be kept: those that were asked for since the
/// last one that is. The store has refused them, or has not answered.
#[derive(Debug, Clone, Default)]
struct Known {
    model: Option<Model>,
    open: Vec<Asked>,
    /// Set while the store has the change in progress.
    is_in_progress: bool,
}

impl Known {
    fn with(&self, asked: &Asked) -> Option<Model> {
        let mut model = self.model.clone()?;
        match asked {
            Asked::Append(texts) => {
                for text in texts {
                    model.texts.insert(model.next, text.clone());
                    model.next += 1;
                }
            }
            Asked::Clear => (model.kept_from, model.cleared) = (model.next, model.next),
            Asked::Remove => return None,
        }
        Some(model)
    }

    /// Returns the model that agrees with what was found.
    #[allow(clippy::option_option)] // the model may be that there is no channel
    fn agreeing(&self, found: Option<&Found>, is_limited: bool) -> Option<Option<Model>> {
        let with = self.open.iter().map(|asked| self.with(asked));
        std::iter::once(self.model.clone()).chain(with).find(|model| agree(model.as_ref(), found, is_limited))
    }
}

/// Returns the idempotency key of a message: the number with which its text begins.
fn key_of_text(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

fn agree(model: Option<&Model>, found: Option<&Found>, is_limited: bool) -> bool {
    let (Some(model), Some((kept, messages))) = (model, found) else {
        // A channel in which nothing was published is not kept.
        return found.is_none() && model.is_none_or(|model| model.next == 0);
    };
    let has_key = |(number, text): &(u64, String)| {
        kept.keys.iter().any(|known| *known.key == *key_of_text(text) && known.next == number + 1)
    };
    let (window, has_keys) = (&kept.window, messages.iter().all(has_key));
    let numbers: Vec<u64> = messages.iter().map(|(number, _)| *number).collect();
    let are_right = messages.iter().all(|(number, text)| model.texts.get(number) == Some(text));
    window.epoch == model.epoch
        && window.kept_from >= model.cleared
        && (window.kept_from <= model.kept_from || is_limited)
        && numbers == (window.kept_from..model.next).collect::<Vec<_>>()
        && are_right
        && has_keys
}

/// A bench, and what it has asked of the store.
struct Run {
    bench: Bench,
    random: Random,
    known: BTreeMap<&'static str, Known>,
    texts: u64,
    /// Set if the log is limited, so that any of the oldest messages may be gone.
    is_limited: bool,
    /// Set if the disk is full at times.
    is_small: bool,
    /// Set if the machine may lose power. Otherwise, processes are killed only.
    loses_power: bool,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut bench = Bench::with_seed(seed);
        let mut random = bench.sim.random(1);
        bench.settings.checkpoint_bytes = [500, 5_000, 1 << 40][random.below(3)];
        let is_limited = random.below(3) == 0;
        bench.settings.bytes_max = if is_limited { 6 * 4_096 } else { 1 << 40 };
        let sync = [LogSync::Commit, LogSync::Commit, LogSync::Interval(Duration::from_millis(50)), LogSync::Never];
        bench.settings.sync = sync[random.below(4)];
        let loses_power = bench.settings.sync == LogSync::Commit;
        let known = CHANNELS.iter().map(|channel| (*channel, Known::default())).collect();
        let is_small = bench.sim.random(2).below(3) == 0;
        Self { bench, random, known, texts: 0, is_limited, is_small, loses_power }
    }

    fn set_faults(&mut self) {
        let mut faults = DiskFaults::default();
        if self.random.below(3) == 0 {
            faults = DiskFaults::any(&mut self.random);
        }
        self.bench.disk.set_faults(faults);
    }

    /// Ends the process, and starts another one, which may end in the middle of its start.
    fn crash(&mut self) {
        self.bench.stores.clear();
        self.bench.shared = None;
        loop {
            if self.loses_power && self.random.below(2) == 0 {
                self.bench.disk.power_cut();
            } else {
                self.bench.disk.kill();
            }
            self.set_faults();
            if self.random.below(3) > 0 {
                self.plan_end(40);
            }
            if self.random.below(4) == 0 {
                self.bench.loops = 1 + self.random.below(3);
            }
            match self.bench.start() {
                Ok(()) if self.look() => return,
                Ok(()) => {
                    self.bench.stores.clear();
                    self.bench.shared = None;
                }
                Err(StoreError::Io { .. } | StoreError::Index { .. } | StoreError::Full { .. }) => {
                    self.bench.disk.set_capacity(None);
                }
                Err(other) => panic!("{other}"),
            }
        }
    }

    /// Plans the end of the process within so many operations of the disk.
    fn plan_end(&mut self, most: usize) {
        let operations = 1 + self.random.below(most) as u64;
        if self.loses_power && self.random.below(2) == 0 {
            self.bench.disk.cut_after(operations);
        } else {
            self.bench.disk.kill_after(operations);
        }
    }

    /// Compares all channels with what is known of them. Returns whether all could be read.
    fn look(&mut self) -> bool {
        for channel in CHANNELS {
            let Some(found) = self.found(channel) else { return false };
            let agreeing = self.known[channel].agreeing(found.as_ref(), self.is_limited);
            let Some(agreeing) = agreeing else {
                panic!("channel {channel}: {:?}, but found {found:?}", self.known[channel]);
            };
            self.bench
                .sim
                .note(format!("found {channel}: {:?}", found.as_ref().map(|(kept, _)| kept.window.kept_from)));
            let kept_from = found.map_or(0, |(kept, _)| kept.window.kept_from);
            let model = agreeing.filter(|model| model.next > 0);
            let model = model.map(|model| Model { kept_from, ..model });
            match &model {
                Some(Model { epoch, next, .. }) => self.bench.places.insert(channel.into(), (*epoch, *next)),
                None => self.bench.places.remove(channel),
            };
            self.known.insert(channel, Known { model, ..Known::default() });
        }
        true
    }

    /// Opens a channel and reads all of it; `None` if the process has ended or the disk fails.
    #[allow(clippy::option_option)] // there may be no channel
    fn found(&mut self, channel: &'static str) -> Option<Option<Found>> {
        let (now, index) = (self.bench.now(), self.bench.store(channel));
        let kept = match self.bench.stores[index].open(now, &name(channel), false) {
            Opened::Absent => None,
            _ => match self.bench.tick().pop() {
                Some(Outcome::Opened { kept: Ok(kept), .. }) => kept,
                _ => return None,
            },
        };
        let Some(kept) = kept else { return Some(None) };
        let window = &kept.window;
        self.bench.places.insert(channel.into(), (window.epoch, window.first + window.entries.len() as u64));
        self.bench.reads += 1;
        let (read, now) = (self.bench.reads, self.bench.now());
        let (epoch, next) = self.bench.places[channel];
        let place = ChannelPlace { channel: &name(channel), epoch, next };
        self.bench.stores[index].read(now, read, place, range(0, false, 10_000));
        match self.bench.tick().pop() {
            Some(Outcome::Page { part: Ok(part), .. }) => Some(Some((kept, payloads(&part)))),
            _ => None,
        }
    }

    fn ask(&mut self, channel: &'static str) {
        let known = &self.known[channel];
        if known.is_in_progress {
            return;
        }
        let asked = match self.random.below(12) {
            0 if known.model.is_some() => Asked::Clear,
            1 if known.model.is_some() => Asked::Remove,
            _ => {
                let texts = (0..=self.random.below(4)).map(|_| {
                    self.texts += 1;
                    format!("{} {}", self.texts, "x".repeat(self.random.below(300)))
                });
                Asked::Append(texts.collect())
            }
        };
        if known.model.is_none() {
            self.bench.places.remove(channel);
            let (epoch, _) = self.bench.place(channel);
            let model = Model { epoch, kept_from: 0, next: 0, cleared: 0, texts: BTreeMap::new() };
            self.known.insert(channel, Known { model: Some(model), ..Known::default() });
        }
        let time = self.bench.now().time;
        let message = |text: &String| {
            let key = Some(key_of_text(text).into());
            Arc::new(Draft { payload: text.clone().into(), key, ..Draft::default() }.taken_at(time))
        };
        let submitted = match &asked {
            Asked::Append(texts) => {
                let messages: Vec<_> = texts.iter().map(message).collect();
                self.bench.submit(channel, StoreChange::Append(&messages))
            }
            Asked::Clear => self.bench.submit(channel, StoreChange::Clear),
            Asked::Remove => self.bench.submit(channel, StoreChange::Remove),
        };
        let Some(known) = self.known.get_mut(channel) else { return };
        known.open.push(asked);
        known.is_in_progress = submitted == Submitted::Later;
        if submitted == Submitted::Kept {
            self.changed(channel, true);
        }
    }

    fn changed(&mut self, channel: &str, is_kept: bool) {
        let known = CHANNELS.iter().find(|name| **name == channel).and_then(|name| self.known.get_mut(name));
        let Some(known) = known else { return };
        known.is_in_progress = false;
        if is_kept && let Some(asked) = known.open.pop() {
            known.model = known.with(&asked);
            known.open.clear();
            match &known.model {
                Some(Model { epoch, next, .. }) => self.bench.places.insert(channel.into(), (*epoch, *next)),
                None => self.bench.places.remove(channel),
            };
        }
    }

    fn tick(&mut self) {
        for outcome in self.bench.tick() {
            if let Outcome::Changed { channel, kept } = outcome {
                self.changed(channel.as_str(), kept.is_ok());
            }
        }
    }

    /// Unloads a channel, opens it again, and compares it with what is known.
    fn open_again(&mut self, channel: &'static str) {
        self.tick();
        if self.known.values().any(|known| known.is_in_progress) {
            return;
        }
        let index = self.bench.store(channel);
        self.bench.stores[index].unload(&name(channel));
        // A channel that cannot be opened may not be changed.
        let Some(found) = self.found(channel) else { return self.crash() };
        let known = &self.known[channel];
        let is_right = agree(known.model.as_ref(), found.as_ref(), self.is_limited);
        assert!(is_right, "channel {channel}: {known:?}, but found {found:?}");
    }

    fn trim(&mut self, channel: &'static str) {
        let messages_max = 1 + self.random.below(20);
        let limits = HistoryLimits { messages_max, ..LIMITS };
        let (now, index) = (self.bench.now(), self.bench.store(channel));
        let kept_from = self.bench.stores[index].trim(now, &name(channel), &limits);
        self.bench.sim.note(format!("trim {channel} to {messages_max}: {kept_from:?}"));
        if let Some(Known { model: Some(model), .. }) = self.known.get_mut(channel) {
            model.kept_from = model.kept_from.max(kept_from.unwrap_or(0));
        }
    }

    fn step(&mut self) {
        let channel = CHANNELS[self.random.below(CHANNELS.len())];
        match self.random.below(40) {
            0..20 => self.ask(channel),
            20..30 => self.tick(),
            30..34 => self.trim(channel),
            34 => {
                if let Some(shared) = &self.bench.shared {
                    shared.begin_checkpoint();
                }
            }
            35 | 36 => self.plan_end(60),
            37 => self.crash(),
            38 => self.open_again(channel),
            _ => {}
        }
        if self.is_small {
            self.fill();
        }
        if self.bench.disk.is_dead() {
            self.crash();
        }
    }

    /// Lets the disk be full or have room again, and the store look at it.
    fn fill(&mut self) {
        match self.random.below(40) {
            0 => self.bench.disk.set_capacity(None),
            1..5 => {
                let room = self.random.below(10_000) as u64;
                self.bench.disk.set_capacity(Some(self.bench.disk.bytes_used() + room));
            }
            5..15 => {
                if let Some(shared) = &self.bench.shared {
                    shared.look_for_room();
                }
                self.tick();
            }
            _ => {}
        }
    }
}

/// Runs `SEEDS` seeds, from `FIRST_SEED` on. `TRACE=1` prints what happened in a seed that fails.
#[test]
fn what_was_kept_survives_any_stop() {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let (first, seeds) = (number("FIRST_SEED").unwrap_or(0), number("SEEDS").unwrap_or(SEEDS));
    for seed in first..first + seeds {
        let mut run = Run::new(seed);
        let sim = run.bench.sim.clone();
        if number("TRACE").is_some() {
            sim.keep_trace(usize::MAX);
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while run.bench.start().is_err() {
                run.bench.disk.kill();
            }
            for _ in 0..STEPS {
                run.step();
            }
        }));
        assert!(outcome.is_ok(), "seed {seed}\n{}", sim.trace());
    }
}
