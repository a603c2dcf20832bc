//! How the connections of a pool are distributed to its loops.

mod common;

use common::{Book, Call, SECOND, address, ms};
use sealed::sim::{self, Faults, LoopId, Simulation};
use sealed::{Config, EventLoop, Listen, Spread};

#[test]
fn an_acceptor_hands_each_connection_to_the_loop_with_the_fewest() {
    sim::check(0..20, |sim| {
        sim.set_faults(Faults { late_wake: 0.3, interleave: 0.3, stall: 0.1, accept: 0.2, ..Faults::default() });
        let mut pool = sim.pool(Config::default(), 4).expect("a pool");
        pool.spread(Spread::LeastLoaded);
        let at = pool.listen(Listen::on(address("10.0.0.1:80"))).expect("it is free").address;
        let loops = sim.start_pool(pool, |_| Book { echoes: true, ends: true, ..Book::default() }).expect("loops");
        let mut peers: Vec<_> = (0..40).map(|_| sim.connect(&at)).collect();
        for peer in &mut peers {
            peer.send("hello");
            peer.expect("hello");
        }
        let count = |index: usize| {
            let look = |event_loop: &mut EventLoop<Book>| event_loop.parts().1.connections();
            sim.with(loops[index], look).expect("it runs")
        };
        assert_eq!([0, 1, 2, 3].map(count), [10; 4]);
        // The connections of one loop close; the next connections go there.
        let calls =
            sim.with(loops[2], |event_loop: &mut EventLoop<Book>| std::mem::take(&mut event_loop.parts().0.calls));
        let its = calls.expect("it runs").into_iter().filter_map(|(_, call)| match call {
            Call::Accepted(_, peer) => peer.inet(),
            _ => None,
        });
        assert_eq!(its.count(), 10, "each is accepted by the loop that has it, with its peer");
        sim.with(loops[2], |event_loop: &mut EventLoop<Book>| event_loop.parts().1.close_all());
        drop(peers);
        sim.settle();
    });
}

#[test]
fn a_unix_listener_of_a_pool_serves_all_its_loops() {
    let sim = Simulation::new(1);
    let mut pool = sim.pool(Config::default(), 2).expect("a pool");
    let at = pool.listen(sealed::Address::unix("/run/app.sock")).expect("it is free").address;
    assert!(pool.listeners().map(|(id, address)| (id.index(), address)).eq([(0, &at)]));
    let loops = sim.start_pool(pool, |_| Book { echoes: true, ends: true, ..Book::default() }).expect("loops");
    let mut peers: Vec<_> = (0..6).map(|_| sim.connect(&at)).collect();
    for peer in &mut peers {
        peer.send("hello");
        peer.expect("hello");
    }
    for id in loops {
        let look = |event_loop: &mut EventLoop<Book>| event_loop.parts().1.stats().connections;
        assert_eq!(sim.with(id, look), Some(3));
    }
}

fn book() -> Book {
    Book { echoes: true, ends: true, ..Book::default() }
}

/// Starts a pool whose first loop accepts for both, on 10.0.0.1:80.
fn pair(sim: &Simulation, config: Config, listen: Listen) -> Vec<LoopId> {
    let mut pool = sim.pool(config, 2).expect("a pool");
    pool.spread(Spread::LeastLoaded);
    pool.listen(listen).expect("it is free");
    sim.start_pool(pool, |_| book()).expect("loops")
}

fn connections(sim: &Simulation, loops: &[LoopId]) -> Vec<usize> {
    let count = |event_loop: &mut EventLoop<Book>| event_loop.parts().1.connections();
    loops.iter().map(|id| sim.with(*id, count).expect("it runs")).collect()
}

#[test]
fn an_acceptor_keeps_connections_for_which_a_mailbox_has_no_room() {
    let sim = Simulation::new(1);
    let at = address("10.0.0.1:80");
    let loops = pair(&sim, Config { mailbox_messages_max: 0, ..Config::default() }, Listen::on(&at));
    let mut peers: Vec<_> = (0..4).map(|_| sim.connect(&at)).collect();
    for peer in &mut peers {
        peer.send("hello");
        peer.expect("hello");
    }
    assert_eq!(connections(&sim, &loops), [4, 0]);
}

#[test]
fn a_connection_handed_over_to_a_full_loop_is_closed_and_not_counted() {
    let sim = Simulation::new(1);
    let (shared, own) = (address("10.0.0.1:80"), address("10.0.0.1:81"));
    let loops = pair(&sim, Config::default(), Listen::on(&shared).connections_max(2));
    // The first loop has so many connections of its own that it hands over all others.
    let listen = |event_loop: &mut EventLoop<Book>| event_loop.listen(&own).expect("it is free").address;
    sim.with(loops[0], listen).expect("it runs");
    let busy: Vec<_> = (0..10).map(|_| sim.connect(&own)).collect();
    sim.settle();
    let peers: Vec<_> = (0..5).map(|_| sim.connect(&shared)).collect();
    sim.settle();
    assert_eq!(connections(&sim, &loops), [10, 2]);
    assert_eq!(peers.iter().filter(|peer| peer.is_over()).count(), 3);
    drop((busy, peers));
    sim.settle();
    let _next = [sim.connect(&shared), sim.connect(&shared)];
    sim.settle();
    assert_eq!(connections(&sim, &loops), [1, 1]);
}

#[test]
fn a_loop_that_shuts_down_takes_no_connection_over() {
    sim::check(0..20, |sim| {
        let at = address("10.0.0.1:80");
        let loops = pair(sim, Config { linger: ms(100), ..Config::default() }, Listen::on(&at));
        sim.settle();
        // It is stopped before it knows of them.
        sim.set_faults(Faults { late_wake: 1.0, delay_max: ms(100), ..Faults::default() });
        let peers: Vec<_> = (0..4).map(|_| sim.connect(&at)).collect();
        sim.run_for(ms(1));
        sim.with(loops[0], |event_loop: &mut EventLoop<Book>| event_loop.parts().1.stop()).expect("it runs");
        sim.run_for(SECOND);
        assert!(loops.iter().all(|id| !sim.is_running(*id)), "nobody is left to wait for");
        assert!(peers.iter().all(sim::Peer::is_over));
    });
}

#[test]
fn an_acceptor_that_is_full_accepts_for_loops_that_are_not() {
    let at = address("10.0.0.1:80");
    let of_each_loop = (Config { connections_max: 2, ..Config::default() }, Listen::on(&at));
    let of_the_listener = (Config::default(), Listen::on(&at).connections_max(2));
    for (config, listen) in [of_each_loop, of_the_listener] {
        let sim = Simulation::new(1);
        let loops = pair(&sim, config, listen);
        let mut peers: Vec<_> = (0..4).map(|_| sim.connect(&at)).collect();
        sim.settle();
        assert_eq!(connections(&sim, &loops), [2, 2]);
        let mut late = sim.connect(&at);
        late.send("hello");
        assert!(late.is_silent_for(SECOND), "the backlog holds it");
        sim.with(loops[1], |event_loop: &mut EventLoop<Book>| event_loop.parts().1.close_all()).expect("it runs");
        sim.settle();
        peers.retain(|peer| !peer.is_over());
        late.expect("hello");
        assert_eq!((peers.len(), connections(&sim, &loops)), (2, vec![2, 1]));
    }
}
