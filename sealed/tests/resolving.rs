//! Resolving names without blocking the loop: connections by name, the cache, failures.

mod common;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use common::{Book, Call, Node, SECOND, address, ms};
use sealed::sim::{Faults, Simulation};
use sealed::{CloseReason, Config, Connect, Error, Resolver, ResolverConfig, Workers};

const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const TWO: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const SIX: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// Starts a server at 10.0.0.1:80 with the name db.example, and a loop that connects.
fn stage() -> (Simulation, Node, Resolver, Node) {
    let sim = Simulation::new(8);
    let server = Node::echo(&sim, &address("10.0.0.1:80"));
    sim.set_name("db.example", [ONE]);
    let resolver = Resolver::new(&sim.workers(2, 10), ResolverConfig::default());
    let caller = Node::start(&sim, Config::default(), Book::default());
    sim.settle();
    (sim, caller, resolver, server)
}

/// Returns a resolver whose lookups are counted.
fn counting(workers: &Workers, config: ResolverConfig) -> (Resolver, Arc<AtomicU32>) {
    let lookups = Arc::new(AtomicU32::new(0));
    let counter = lookups.clone();
    let resolver = Resolver::with_lookup(workers, config, move |host| {
        counter.fetch_add(1, Ordering::Relaxed);
        match host {
            "known.example" => Ok(vec![ONE]),
            "panics.example" => panic!("a planned panic of a lookup"),
            "empty.example" => Ok(Vec::new()),
            _ => Err(ErrorKind::NotFound.into()),
        }
    });
    (resolver, lookups)
}

#[test]
fn a_connection_is_made_by_name() {
    let (sim, caller, resolver, _server) = stage();
    let id = caller.act(|cx| {
        let id = cx.connect(Connect::by_name(&resolver, "db.example", 80), ()).expect("started");
        cx.write(id, b"hello");
        id
    });
    sim.settle();
    assert_eq!(caller.calls(), [Call::Connected(id), Call::Drained(id)]);
    assert_eq!(caller.received(), b"hello");
    assert_eq!(caller.act(|cx| cx.peer_addr(id)), Some(address("10.0.0.1:80")));
    // Another spelling of the same name.
    let again = caller.act(|cx| cx.connect(Connect::by_name(&resolver, "DB.Example.", 80), ()).expect("started"));
    sim.settle();
    assert_eq!(caller.calls(), [Call::Connected(again)]);
}

#[test]
fn all_addresses_of_a_name_are_tried_and_their_families_alternate() {
    let (sim, caller, resolver, _server) = stage();
    sim.set_name("db.example", [SIX, ONE]);
    sim.set_unreachable(address("[2001:db8::1]:80"));
    let id = caller.act(|cx| cx.connect(Connect::by_name(&resolver, "db.example", 80), ()).expect("started"));
    sim.run_for(SECOND);
    assert_eq!(caller.calls(), [Call::Connected(id)]);
    assert_eq!(caller.act(|cx| cx.peer_addr(id)), Some(address("10.0.0.1:80")));
}

#[test]
fn a_name_that_cannot_be_resolved_is_reported_once() {
    let (sim, caller, resolver, _server) = stage();
    let id = caller.act(|cx| cx.connect(Connect::by_name(&resolver, "other.example", 80), ()).expect("started"));
    sim.settle();
    assert_eq!(caller.calls(), [Call::Closed(id, CloseReason::NotConnected(ErrorKind::NotFound))]);
    sim.run_for(SECOND * 20);
    assert_eq!(caller.calls(), []);
    assert!(caller.is_empty());
}

#[test]
fn the_time_limit_of_a_connection_includes_the_lookup() {
    let (sim, caller, resolver, _server) = stage();
    sim.set_faults(Faults { slow_work: 1.0, delay_max: SECOND * 1_000, ..Faults::default() });
    let start = sim.now();
    let id = caller.act(|cx| cx.connect(Connect::by_name(&resolver, "db.example", 80).limit(ms(300)), ()));
    let id = id.expect("started");
    sim.run_for(SECOND);
    let calls = caller.calls_at();
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert_eq!(calls[0].1, Call::Closed(id, CloseReason::NotConnected(ErrorKind::TimedOut)));
    let took = calls[0].0.saturating_sub(start);
    assert!(took >= ms(300) && took < ms(310), "{took:?}");
    sim.run_for(SECOND * 1_000);
    assert_eq!(caller.calls(), [], "the late answer finds nobody");
    assert!(caller.is_empty());
}

#[test]
fn a_late_answer_does_not_reach_the_next_connection_in_the_slot() {
    let (sim, caller, resolver, _server) = stage();
    sim.set_faults(Faults { slow_work: 1.0, delay_max: SECOND, ..Faults::default() });
    let connect = |name: &str| caller.act(|cx| cx.connect(Connect::by_name(&resolver, name, 80), ())).expect("started");
    let first = connect("other.example");
    caller.act(|cx| cx.abort(first));
    sim.run_for(ms(1));
    assert_eq!(caller.calls(), [Call::Closed(first, CloseReason::Aborted)], "the lookup is not done yet");
    let second = connect("db.example");
    assert_eq!(caller.act(|cx| cx.connections()), 1);
    sim.run_for(SECOND * 3);
    assert_eq!(caller.calls(), [Call::Connected(second)]);
}

#[test]
fn busy_workers_are_an_error_at_once() {
    let (sim, caller, _, _server) = stage();
    let workers = sim.workers(1, 0);
    let resolver = Resolver::new(&workers, ResolverConfig::default());
    caller.act(|cx| {
        cx.offload(&workers, |_| 1).expect("a free thread");
        let refused = cx.connect(Connect::by_name(&resolver, "db.example", 80), ()).expect_err("no thread is free");
        assert!(
            matches!(&refused, Error::Connect { address, source } if address == "db.example:80" && source.kind() == ErrorKind::WouldBlock),
            "{refused:?}"
        );
        assert_eq!(cx.connections(), 0);
        assert!(cx.resolve(&resolver, "db.example", |_| 2).is_err());
        assert!(cx.connect(Connect::by_name(&resolver, "10.0.0.1", 80), ()).is_ok(), "an address needs no lookup");
    });
    sim.settle();
    assert!(caller.calls().contains(&Call::Message(1)));
}

#[test]
fn a_host_is_no_path_of_a_socket_and_no_name_that_cannot_exist() {
    let (sim, caller, resolver, _server) = stage();
    let lookups = sim.trace().matches("start work").count();
    let too_long = "a".repeat(255);
    for host in ["", &too_long, "unix:/run/app.sock", "10.0.0.1:80"] {
        let outcome = caller.act(|cx| cx.connect(Connect::by_name(&resolver, host, 80), ()));
        sim.settle();
        match outcome {
            Ok(id) => {
                assert_eq!(
                    caller.calls(),
                    [Call::Closed(id, CloseReason::NotConnected(ErrorKind::NotFound))],
                    "{host}"
                );
            }
            Err(Error::Connect { source, .. }) => assert_eq!(source.kind(), ErrorKind::NotFound, "{host}"),
            Err(error) => panic!("{host}: {error}"),
        }
    }
    assert_eq!(sim.trace().matches("start work").count() - lookups, 2, "the first two need no lookup");
}

#[test]
fn lookups_of_one_name_share_an_answer_which_is_reused_for_a_while() {
    let (sim, caller, _, _server) = stage();
    let (resolver, lookups) = counting(&sim.workers(4, 10), ResolverConfig::default());
    let ask = |host: &'static str| {
        caller
            .act(|cx| cx.resolve(&resolver, host, |found| u32::from(found.is_ok_and(|found| found == [ONE]))))
            .expect("room");
    };
    ask("known.example");
    ask("known.example");
    sim.settle();
    assert_eq!(caller.calls(), [1, 1].map(Call::Message));
    assert_eq!(lookups.load(Ordering::Relaxed), 1, "one lookup for both");
    ask("known.example");
    assert_eq!(caller.calls(), [], "no message arrives within the call");
    sim.settle();
    assert_eq!(caller.calls(), [Call::Message(1)]);
    assert_eq!(lookups.load(Ordering::Relaxed), 1, "the answer is cached");
    sim.run_for(SECOND * 30);
    ask("known.example");
    sim.settle();
    assert_eq!(lookups.load(Ordering::Relaxed), 2, "the answer is too old");
    // A failure is reused for a second.
    for (host, lookups_after) in [("other.example", 3), ("other.example", 3), ("empty.example", 4)] {
        ask(host);
        sim.settle();
        assert_eq!(lookups.load(Ordering::Relaxed), lookups_after);
    }
    sim.run_for(SECOND);
    ask("other.example");
    sim.settle();
    assert_eq!(lookups.load(Ordering::Relaxed), 5);
}

#[test]
fn the_cache_is_bounded_and_drops_the_oldest_name() {
    let sim = Simulation::new(8);
    let caller = Node::start(&sim, Config::default(), Book::default());
    let config = ResolverConfig { names_max: 2, failure_time: SECOND * 60, ..ResolverConfig::default() };
    let (resolver, lookups) = counting(&sim.workers(4, 10), config);
    let after = |host: &str| {
        caller.act(|cx| cx.resolve(&resolver, host, |_| 0)).expect("room");
        sim.settle();
        lookups.load(Ordering::Relaxed)
    };
    assert_eq!(after("a.example"), 1);
    assert_eq!(after("b.example"), 2);
    assert_eq!(after("c.example"), 3);
    assert_eq!(after("c.example"), 3);
    assert_eq!(after("b.example"), 3);
    assert_eq!(after("a.example"), 4, "it was dropped for c.example");
}

#[test]
fn a_lookup_that_panics_is_a_failure() {
    let (sim, caller, _, _server) = stage();
    let (resolver, _) = counting(&sim.workers(1, 10), ResolverConfig::default());
    let text = |found: std::io::Result<Vec<IpAddr>>| {
        u32::from(found.is_err_and(|error| error.to_string() == "the lookup panicked"))
    };
    caller.act(|cx| cx.resolve(&resolver, "panics.example", text)).expect("room");
    sim.settle();
    assert_eq!(caller.calls(), [Call::Message(1)]);
}

#[test]
fn addresses_that_are_not_allowed_are_not_used_by_name_or_by_number() {
    let (sim, caller, _, _server) = stage();
    let allow = |address: IpAddr| address != ONE;
    let resolver = Resolver::new(&sim.workers(1, 10), ResolverConfig { allow, ..ResolverConfig::default() });
    sim.set_name("both.example", [ONE, TWO]);
    let connect = |host: &str| {
        let connected = caller.act(|cx| cx.connect(Connect::by_name(&resolver, host, 80), ()).map(drop));
        sim.settle();
        match (connected, &caller.calls()[..]) {
            (Err(Error::Connect { source, .. }), []) => source.kind(),
            (Ok(()), [Call::Closed(_, CloseReason::NotConnected(kind))]) => *kind,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(connect("10.0.0.1"), ErrorKind::PermissionDenied);
    assert_eq!(connect("::ffff:10.0.0.1"), ErrorKind::PermissionDenied);
    assert_eq!(connect("db.example"), ErrorKind::PermissionDenied);
    assert_eq!(connect("db.example"), ErrorKind::PermissionDenied, "from the cache");
    assert_eq!(connect("both.example"), ErrorKind::ConnectionRefused, "nobody listens at the other address");
}

#[test]
fn a_panic_in_the_message_of_a_lookup_is_one_of_its_service_and_of_no_other() {
    let (sim, caller, _, _server) = stage();
    let (resolver, _) = counting(&sim.workers(1, 10), ResolverConfig::default());
    let mut other = sim.event_loop(Config::default(), Book::default()).expect("a loop");
    let panics = |_| panic!("a planned panic of a message");
    other.parts().1.resolve(&resolver, "known.example", panics).expect("room");
    caller.act(|cx| cx.resolve(&resolver, "known.example", |found| u32::from(found.is_ok()))).expect("room");
    sim.settle();
    assert_eq!(caller.calls(), [Call::Message(1)]);
    let outcome = other.turn(Some(ms(0)));
    assert!(matches!(&outcome, Err(Error::Panicked(text)) if text == "a planned panic of a message"), "{outcome:?}");
}

#[test]
fn the_system_resolves_localhost_and_knows_no_invalid_name() {
    let workers = Workers::new(1, 10);
    let resolver = Resolver::new(&workers, ResolverConfig::default());
    let mut event_loop = sealed::EventLoop::new(Config::default(), Book::default()).expect("a loop");
    event_loop
        .parts()
        .1
        .resolve(&resolver, "localhost", |found| {
            u32::from(found.is_ok_and(|found| found.iter().all(IpAddr::is_loopback)))
        })
        .expect("room");
    // A name under this domain never exists (RFC 6761), whatever answers on this machine.
    event_loop
        .parts()
        .1
        .resolve(&resolver, "sealed.invalid", |found| match found {
            Err(error) if error.kind() == ErrorKind::NotFound => 2,
            _ => 3,
        })
        .expect("room");
    while event_loop.service().calls.len() < 2 {
        event_loop.turn(Some(SECOND * 60)).expect("no failure");
    }
    let calls: Vec<_> = event_loop.service().calls.iter().map(|(_, call)| call.clone()).collect();
    assert_eq!(calls, [1, 2].map(Call::Message));
}

#[test]
fn connections_by_name_over_faults_are_each_reported_once() {
    for seed in 0..200 {
        let sim = Simulation::new(seed);
        sim.set_faults(Faults::any(&mut sim.random(0)));
        let _server = Node::echo(&sim, &address("10.0.0.1:80"));
        sim.set_name("db.example", [TWO, ONE, SIX]);
        let config = ResolverConfig { cache_time: ms(200), ..ResolverConfig::default() };
        let resolver = Resolver::new(&sim.workers(1, 4), config);
        let caller = Node::start(&sim, Config::default(), Book { ends: true, ..Book::default() });
        let mut random = sim.random(1);
        let mut ids = Vec::new();
        for _ in 0..20 {
            let name = ["db.example", "other.example"][random.below(2)];
            ids.extend(caller.act(|cx| cx.connect(Connect::by_name(&resolver, name, 80), ())));
            sim.run_for(random.time(ms(300)));
        }
        sim.set_faults(Faults::default());
        sim.run_for(SECOND * 30);
        let calls = caller.calls();
        for id in &ids {
            let reports = |call: &&Call| match call {
                Call::Connected(of) => of == id,
                Call::Closed(of, reason) => of == id && matches!(reason, CloseReason::NotConnected(_)),
                _ => false,
            };
            assert_eq!(calls.iter().filter(reports).count(), 1, "seed {seed}: {id:?}\n{}", sim.trace());
        }
    }
}
