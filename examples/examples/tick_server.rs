//! A game server with a fixed rate: 60 times a second, all players get the positions of all.
//!
//! A client sends its moves, two signed bytes each. A frame is the number of the tick (4 bytes),
//! the number of players (2), and for each its number (4), x and y (4 each); all are little-endian.
//!
//! Try it: `cargo run -p examples --example tick_server`, then
//! `{ printf '\1\1'; sleep 1; } | nc 127.0.0.1 7777 | xxd | tail`.

use std::time::Duration;

use bytes::Bytes;
use sealed::{Address, Config, ConnectionId, Context, EventLoop, Input, ListenerId, Service, TimerId};

const RATE: u32 = 60;

#[derive(Debug, Default)]
struct Game {
    tick: u32,
    last_player: u32,
    /// Frames that clients missed because they read too slowly.
    skipped: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Player {
    number: u32,
    x: i32,
    y: i32,
}

impl Service for Game {
    type Connection = Player;
    type Message = ();
    type Timer = ();

    fn started(&mut self, cx: &mut Context<Self>) {
        cx.set_interval(Duration::from_secs(1) / RATE, ());
    }

    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, _: ListenerId, _: &Address) {
        self.last_player += 1;
        if let Some(player) = cx.state_mut(id) {
            player.number = self.last_player;
        }
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        let Some(player) = cx.state_mut(id) else { return };
        let whole = input.len() / 2 * 2;
        for step in input.take(whole).chunks_exact(2) {
            player.x = player.x.saturating_add(i32::from(step[0].cast_signed()));
            player.y = player.y.saturating_add(i32::from(step[1].cast_signed()));
        }
    }

    fn expired(&mut self, cx: &mut Context<Self>, _: TimerId, (): ()) {
        self.tick += 1;
        let ids = cx.connection_ids();
        let mut frame = self.tick.to_le_bytes().to_vec();
        frame.extend((ids.len() as u16).to_le_bytes());
        for Player { number, x, y } in ids.iter().filter_map(|id| cx.state(*id).copied()) {
            frame.extend(number.to_le_bytes().into_iter().chain(x.to_le_bytes()).chain(y.to_le_bytes()));
        }
        // All connections share the bytes. Each frame replaces the one before, so a client that has
        // not taken the last one needs no further one yet.
        let frame = Bytes::from(frame);
        for id in ids {
            if cx.queued(id) == 0 {
                cx.write_through(id, std::slice::from_ref(&frame));
            } else {
                self.skipped += 1;
            }
        }
    }
}

fn main() -> sealed::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    let config = Config { connections_max: u16::MAX.into(), ..Config::default() };
    let mut event_loop = EventLoop::new(config, Game::default())?;
    println!("listening on {}", event_loop.listen(address)?.address);
    event_loop.stop_on_signals()?;
    event_loop.run()
}

#[cfg(test)]
mod tests {
    use sealed::sim::{Link, LoopId, Peer, Simulation};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn start(sim: &Simulation) -> (LoopId, Address) {
        let mut event_loop = sim.event_loop(Config::default(), Game::default()).expect("a loop");
        let address = event_loop.listen("10.0.0.1:7777").expect("it is free").address;
        (sim.start(event_loop), address)
    }

    /// Takes a frame: its tick, and number, x and y of each player.
    fn take_frame(peer: &mut Peer) -> (u32, Vec<[i32; 3]>) {
        let number = |bytes: &[u8]| bytes.try_into().map(i32::from_le_bytes).expect("four bytes");
        let head = peer.take_exact(6);
        let count = usize::from(u16::from_le_bytes([head[4], head[5]]));
        let body = peer.take_exact(count * 12);
        let players = body.chunks(12).map(|player| [&player[..4], &player[4..8], &player[8..]].map(number));
        (number(&head[..4]) as u32, players.collect())
    }

    #[test]
    fn frames_come_at_the_rate_and_have_the_moves_of_all() {
        let sim = Simulation::new(1);
        let (_, address) = start(&sim);
        let mut one = sim.connect(&address);
        one.send([1, 0, 2, 0xff]);
        take_frame(&mut one);
        let mut two = sim.connect(&address);
        two.send([0]);
        two.send([5]);
        sim.run_for(SECOND / 10);
        let (first, _) = take_frame(&mut one);
        sim.run_for(SECOND * 10);
        one.send([1]);
        let mut last = (first, Vec::new());
        for wanted in 1..=10 * RATE {
            last = take_frame(&mut one);
            assert_eq!(last.0, first + wanted, "none is missing");
        }
        last.1.sort_unstable();
        assert_eq!(last.1, [[1, 3, -1], [2, 0, 5]]);
        let late = sim.now().saturating_sub(SECOND / RATE * last.0);
        assert!(late < SECOND / 5, "{late:?}");
    }

    #[test]
    fn a_client_that_does_not_read_misses_frames_and_holds_up_nobody() {
        let sim = Simulation::new(1);
        let (game, address) = start(&sim);
        sim.set_link(Link { buffer_bytes: 1_000, ..Link::default() });
        let (mut deaf, mut other) = (sim.connect(&address), sim.connect(&address));
        deaf.stall();
        for _ in 0..300 {
            take_frame(&mut other);
        }
        let skipped = sim.with(game, |event_loop: &mut EventLoop<Game>| event_loop.parts().0.skipped);
        assert!(skipped.is_some_and(|skipped| (100..300).contains(&skipped)), "{skipped:?}");
        deaf.unstall();
        sim.run_for(SECOND);
        let (mut before, mut gaps) = (0, 0);
        for _ in 0..40 {
            let (tick, _) = take_frame(&mut deaf);
            gaps += u32::from(tick > before + 1);
            before = tick;
        }
        assert!(gaps > 0, "it goes on with whole frames, after a gap");
    }
}
