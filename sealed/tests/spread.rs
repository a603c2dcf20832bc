//! How the connections of a pool get to its loops.

mod common;

use common::{Book, Told, address};
use sealed::sim::{Faults, Simulation};
use sealed::{Config, EventLoop, Listen, Spread};

#[test]
fn an_acceptor_hands_each_connection_to_the_loop_that_has_fewest() {
    for seed in 0..20 {
        let sim = Simulation::new(seed);
        sim.set_faults(Faults { late_wake: 0.3, interleave: 0.3, stall: 0.1, accept: 0.2, ..Faults::default() });
        let mut pool = sim.pool(Config::default(), 4).expect("a pool");
        pool.spread(Spread::LeastLoaded);
        let at = pool.listen(Listen::on(address("10.0.0.1:80"))).expect("it is free");
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
        assert_eq!([0, 1, 2, 3].map(count), [10; 4], "seed {seed}");
        // Those of one loop leave; who comes next goes there.
        let told =
            sim.with(loops[2], |event_loop: &mut EventLoop<Book>| std::mem::take(&mut event_loop.parts().0.told));
        let its = told.expect("it runs").into_iter().filter_map(|(_, told)| match told {
            Told::Accepted(_, peer) => peer.tcp(),
            _ => None,
        });
        assert_eq!(its.count(), 10, "each is told to the loop that has it, with its peer");
        sim.with(loops[2], |event_loop: &mut EventLoop<Book>| event_loop.parts().1.close_all());
        drop(peers);
        sim.settle();
    }
}

#[test]
fn a_unix_listener_of_a_pool_serves_all_its_loops() {
    let sim = Simulation::new(1);
    let mut pool = sim.pool(Config::default(), 2).expect("a pool");
    let at = pool.listen(sealed::Address::unix("/run/app.sock")).expect("it is free");
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
