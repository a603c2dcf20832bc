//! A SOCKS5 proxy (RFC 1928, RFC 1929): a handshake in steps, connections to hosts that clients
//! name, a rule for what clients may reach, rates, and one idle limit for both directions.
//!
//! Try it: `cargo run -p examples --example socks5 -- 127.0.0.1:1080`, then
//! `curl --socks5-hostname 127.0.0.1:1080 https://example.org`. `--user NAME:PASSWORD` requires
//! these of clients, `--rate BYTES` limits the bytes per second of each client in each direction,
//! and
//! `--private` lets clients reach private networks and the machine of the proxy too.

use std::net::IpAddr;
use std::time::Duration;

use examples::socks::{
    CONNECT, Code, LOGIN, LOGIN_VERSION, NO_LOGIN, NO_METHOD, Reader, Request, VERSION, is_same, reply,
};
use examples::targets::is_public;
use sealed::{
    Address, CloseReason, Config, Connect, ConnectionId, Context, Error, EventLoop, Input, ListenerId, Rate, Rates,
    Resolver, ResolverConfig, Service, Workers,
};

/// The time for the whole handshake of a client, up to its request.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// The time without progress in either direction after which a tunnel is reset. While the kernel
/// feeds a slow reader from its buffers, which can take minutes, the proxy sees no progress.
const IDLE_MAX: Duration = Duration::from_secs(15 * 60);
/// The time for which a side may accept none of the output that is left after the other has gone.
const LINGER: Duration = Duration::from_secs(60);

struct Socks {
    /// Resolves names, and refuses addresses that clients may not reach.
    resolver: Resolver,
    /// The name and the password that clients have to send, with a colon between them.
    login: Option<String>,
    rates: Rates,
}

/// One of the two connections of a tunnel, or a client that has none yet.
#[derive(Default)]
struct Side {
    step: Step,
    /// The connection on the other side. The default identifies no connection.
    other: ConnectionId,
    /// The bytes that both sides had queued when the idle limit was set; stored with the client.
    queued: usize,
}

#[derive(Default, Clone, Copy)]
enum Step {
    /// The client has to say which methods it knows.
    #[default]
    Methods,
    Login,
    Request,
    /// The client has its tunnel, although the target may not be connected yet.
    Tunnel,
    /// This is not a client but the other end of a tunnel.
    Target,
}

impl Socks {
    fn choose_method(&self, cx: &mut Context<Self>, id: ConnectionId, message: &mut Reader<'_>) -> Option<()> {
        let methods = message.methods()?;
        let (wanted, next) = if self.login.is_some() { (LOGIN, Step::Login) } else { (NO_LOGIN, Step::Request) };
        if methods.contains(&wanted) {
            cx.write(id, &[VERSION, wanted]);
            cx.state_mut(id)?.step = next;
        } else {
            cx.write(id, &[VERSION, NO_METHOD]);
            cx.close(id);
        }
        Some(())
    }

    fn log_in(&self, cx: &mut Context<Self>, id: ConnectionId, message: &mut Reader<'_>) -> Option<()> {
        let (name, password) = message.login()?;
        let given = [name, b":", password].concat();
        let is_right = self.login.as_ref().is_some_and(|login| is_same(&given, login.as_bytes()));
        cx.write(id, &[LOGIN_VERSION, u8::from(!is_right)]);
        if is_right {
            cx.state_mut(id)?.step = Step::Request;
        } else {
            cx.close(id);
        }
        Some(())
    }

    fn answer(&self, cx: &mut Context<Self>, id: ConnectionId, request: Result<Request, Code>) {
        let Request { host, port, .. } = match request {
            Ok(request) if request.command == CONNECT => request,
            Ok(_) => return refuse(cx, id, Code::CommandNotSupported),
            Err(code) => return refuse(cx, id, code),
        };
        let side = Side { step: Step::Target, other: id, queued: 0 };
        match cx.connect(Connect::by_name(&self.resolver, host, port), side) {
            Ok(target) => {
                cx.set_linger(id, LINGER);
                cx.set_linger(target, LINGER);
                if let Some(side) = cx.state_mut(id) {
                    (side.step, side.other) = (Step::Tunnel, target);
                }
                set_idle_limit(cx, id);
            }
            Err(Error::Connect { source: error, .. }) => refuse(cx, id, error.kind().into()),
            Err(_) => refuse(cx, id, Code::Failed),
        }
    }
}

fn refuse(cx: &mut Context<Socks>, client: ConnectionId, code: Code) {
    cx.write(client, &reply(code, None));
    cx.close(client);
}

/// Sets the idle limit of a tunnel, for its client, whichever side was active.
fn set_idle_limit(cx: &mut Context<Socks>, id: ConnectionId) {
    let client = match cx.state(id) {
        Some(Side { step: Step::Tunnel, .. }) => id,
        Some(Side { step: Step::Target, other, .. }) => *other,
        _ => return,
    };
    let queued = queued(cx, client);
    if let Some(side) = cx.state_mut(client) {
        side.queued = queued;
    }
    // The limit that draining has set stays.
    if !cx.is_draining() {
        cx.set_deadline(client, IDLE_MAX);
    }
}

fn queued(cx: &Context<Socks>, client: ConnectionId) -> usize {
    cx.queued(client) + cx.state(client).map_or(0, |side| cx.queued(side.other))
}

impl Service for Socks {
    type Connection = Side;
    type Message = ();
    type Timer = ();

    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, _: ListenerId, _: &Address) {
        cx.set_deadline(id, HANDSHAKE_MAX);
        cx.set_rates(id, self.rates);
    }

    fn connected(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        let Some(client) = cx.state(id).map(|side| side.other) else { return };
        let from = cx.local_addr(id).and_then(|address| address.inet());
        cx.write(client, &reply(Code::Succeeded, from));
        set_idle_limit(cx, id);
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        while cx.is_open(id) && !input.is_empty() {
            let Some((step, other)) = cx.state(id).map(|side| (side.step, side.other)) else { return };
            let mut message = Reader(input.bytes());
            let done = match (step, message.version()) {
                (Step::Tunnel | Step::Target, _) => {
                    // What a client sends before the target is connected waits in its queue.
                    if !cx.write(other, input.take_all()) {
                        cx.pause(id);
                    }
                    return set_idle_limit(cx, id);
                }
                (Step::Methods, Some(VERSION)) => self.choose_method(cx, id, &mut message),
                (Step::Login, Some(LOGIN_VERSION)) => self.log_in(cx, id, &mut message),
                (Step::Request, Some(VERSION)) => message.request().map(|request| self.answer(cx, id, request)),
                _ => return cx.close(id),
            };
            if done.is_none() {
                return;
            }
            input.take(input.len() - message.0.len());
        }
    }

    fn drained(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        if let Some(other) = cx.state(id).map(|side| side.other) {
            cx.resume(other);
        }
        // Otherwise the limit would count the bytes that have just been sent as later progress.
        set_idle_limit(cx, id);
    }

    fn ended(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        match cx.state(id) {
            // The other direction may continue for a long time.
            Some(Side { step: Step::Tunnel | Step::Target, other, .. }) => cx.half_close(*other),
            _ => cx.close(id),
        }
    }

    fn timed_out(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        let before = cx.state(id).map_or(0, |side| side.queued);
        if queued(cx, id) < before && !cx.is_draining() {
            set_idle_limit(cx, id);
        } else {
            // An ordinary end would look like the end of the data.
            cx.reset(id);
        }
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: ConnectionId, side: Side, reason: CloseReason) {
        match reason {
            CloseReason::NotConnected(failure) => refuse(cx, side.other, failure.into()),
            CloseReason::Closed | CloseReason::Ended => cx.close(side.other),
            // The reset shows the other side that its data is incomplete.
            _ => cx.reset(side.other),
        }
    }

    fn draining(&mut self, cx: &mut Context<Self>, limit: Duration) {
        // What is left at the limit of the loop itself may see an ordinary end.
        for id in cx.connection_ids() {
            cx.set_deadline(id, limit / 10 * 9);
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut address = "127.0.0.1:1080".to_owned();
    let (mut login, mut rate, mut allow) = (None, None, is_public as fn(IpAddr) -> bool);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--user" => login = Some(arguments.next().ok_or("--user needs NAME:PASSWORD")?),
            "--rate" => rate = Some(Rate::per_second(arguments.next().ok_or("--rate needs a number")?.parse()?)),
            "--private" => allow = |_| true,
            _ => address = argument,
        }
    }
    let resolver = Resolver::new(&Workers::new(16, 1_000), ResolverConfig { allow, ..ResolverConfig::default() });
    let socks = Socks { resolver, login, rates: Rates { read: rate, write: rate } };
    let mut event_loop = EventLoop::new(Config::default(), socks)?;
    println!("listening on {}", event_loop.listen(address)?.address);
    event_loop.stop_on_signals()?;
    Ok(event_loop.run()?)
}

#[cfg(test)]
mod tests {
    use sealed::sim::{self, Faults, Link, LoopId, Peer, Simulation};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const AT: &str = "10.0.0.1:1080";
    const OPEN: [u8; 3] = [VERSION, 1, NO_LOGIN];
    /// A request to connect to port 80 of a host whose address is 10.0.0.2.
    const BY_NAME: &[u8] = b"\x05\x01\x00\x03\x03tea\x00\x50";

    fn address(text: &str) -> Address {
        text.parse().expect("an address")
    }

    /// Starts a proxy that lets clients reach what does not begin with 192.
    fn start(sim: &Simulation, login: Option<&str>, rate: Option<Rate>) -> LoopId {
        let allow = |ip: IpAddr| !ip.to_canonical().to_string().starts_with("192.");
        sim.set_name("tea", [[192, 0, 0, 1].into(), [10, 0, 0, 2].into()]);
        sim.set_name("secret", [[192, 0, 0, 1].into()]);
        let resolver = Resolver::new(&sim.workers(4, 100), ResolverConfig { allow, ..ResolverConfig::default() });
        let socks = Socks { resolver, login: login.map(str::to_owned), rates: Rates { read: rate, write: rate } };
        let mut event_loop = sim.event_loop(Config::default(), socks).expect("a loop");
        event_loop.listen(AT).expect("it is free");
        sim.start(event_loop)
    }

    #[test]
    fn a_handshake_may_come_in_single_bytes_or_with_the_data() {
        let by_ipv4 = [5, 1, 0, 1, 10, 0, 0, 2, 0, 80];
        let by_ipv6 = [5, 1, 0, 4, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 80];
        for (host, request) in [("10.0.0.2:80", BY_NAME), ("10.0.0.2:80", &by_ipv4), ("[fd00::2]:80", &by_ipv6)] {
            let sim = Simulation::new(1);
            start(&sim, Some("ann:tea"), None);
            let target = sim.listen(address(host)).expect("it is free");
            let handshake = [b"\x05\x02\x00\x02\x01\x03ann\x03tea", request, b"question"].concat();
            for piece in [1, handshake.len()] {
                let mut client = sim.connect(address(AT));
                for bytes in handshake.chunks(piece) {
                    client.send(bytes);
                    sim.run_for(Duration::from_millis(1));
                }
                client.expect([VERSION, LOGIN, LOGIN_VERSION, 0, VERSION, 0, 0]);
                let mut server = target.accept().expect("the proxy calls");
                server.expect("question");
            }
        }
    }

    #[test]
    fn refusals_have_their_codes() {
        let ask = |request: &[u8]| [&OPEN, request].concat();
        let refusal = |code| [&[VERSION, NO_LOGIN], &*reply(code, None)].concat();
        for (login, sent, wanted) in [
            (None, vec![4, 1, 0, 80], vec![]),
            (None, vec![VERSION, 1, LOGIN], vec![VERSION, NO_METHOD]),
            (Some("ann:tea"), OPEN.to_vec(), vec![VERSION, NO_METHOD]),
            (Some("ann:tea"), b"\x05\x01\x02\x01\x03ann\x03ale\x05\x01\x00\x01".to_vec(), vec![5, 2, 1, 1]),
            (None, ask(&[4]), vec![VERSION, NO_LOGIN]),
            (None, ask(&[5, 2, 0, 1, 10, 0, 0, 2, 0, 80]), refusal(Code::CommandNotSupported)),
            (None, ask(&[5, 1, 0, 9]), refusal(Code::AddressTypeNotSupported)),
            (None, ask(b"\x05\x01\x00\x03\x04tee\xff\x00\x50"), refusal(Code::HostUnreachable)),
            (None, ask(&[5, 1, 0, 1, 10, 0, 0, 3, 0, 80]), refusal(Code::HostUnreachable)),
            (None, ask(BY_NAME), refusal(Code::Refused)),
            (None, ask(b"\x05\x01\x00\x03\x06secret\x00\x50"), refusal(Code::NotAllowed)),
            (None, ask(b"\x05\x01\x00\x03\x10::ffff:192.0.0.1\x00\x50"), refusal(Code::NotAllowed)),
        ] {
            let sim = Simulation::new(1);
            start(&sim, login, None);
            sim.set_unreachable(address("10.0.0.3:80"));
            let mut client = sim.connect(address(AT));
            client.send(&sent);
            assert_eq!((client.expect_end(), client.failure()), (wanted, None), "{sent:?}");
        }
    }

    #[test]
    fn both_directions_are_whole_or_fail() {
        sim::check(0..200, |sim| {
            start(sim, None, None);
            let mut random = sim.random(1);
            let (faults, is_whole) = (Faults::any(&mut random), random.chance(0.5));
            let mild = Faults { reset: 0.0, vanish: 0.0, refuse: 0.0, failed_lookup: 0.0, jump: 0.0, ..faults.clone() };
            sim.set_faults(if is_whole { mild } else { faults });
            sim.set_link(Link { buffer_bytes: 20_000, ..Link::default() });
            let target = sim.listen(address("10.0.0.2:80")).expect("it is free");
            let [upload, download] = [7, 8].map(|byte| vec![byte; random.below(600_000)]);
            let mut client = sim.connect(address(AT));
            client.send([&OPEN[..], BY_NAME, &upload].concat());
            client.finish();
            sim.run_for(30 * SECOND);
            let mut server = target.accept();
            if let Some(server) = &mut server {
                server.send(&download);
                server.finish();
                let got = server.expect_end();
                // It is empty if the proxy gave up at the moment at which it was connected.
                assert!(!server.is_ended() || got == upload || got.is_empty() && !is_whole);
            }
            let got = client.expect_end();
            // The fourth byte is the code of the reply.
            assert!(!client.is_ended() || got.get(3) != Some(&0) || got.len() == 12 + download.len());
            assert!(!is_whole || client.is_ended() && server.is_some_and(|server| server.is_ended()));
        });
    }

    /// Makes a tunnel. Returns its proxy, client and server.
    fn tunnel(sim: &Simulation, rate: Option<Rate>) -> (LoopId, Peer, Peer) {
        let id = start(sim, None, rate);
        let target = sim.listen(address("10.0.0.2:80")).expect("it is free");
        let mut client = sim.connect(address(AT));
        client.send([&OPEN[..], BY_NAME].concat());
        client.take_exact(12);
        (id, client, target.accept().expect("the proxy calls"))
    }

    #[test]
    fn slow_readers_and_rates_bound_what_the_proxy_holds() {
        let sim = Simulation::new(1);
        let (id, mut client, mut server) = tunnel(&sim, Some(Rate::per_second(1_000_000)));
        for peer in [&mut client, &mut server] {
            peer.stall();
            peer.send(vec![7; 10_000_000]);
        }
        for _ in 0..100 {
            sim.run_for(SECOND / 10);
            sim.with(id, |event_loop: &mut EventLoop<Socks>| {
                let (_, cx) = event_loop.parts();
                assert!(cx.connection_ids().iter().all(|id| cx.queued(*id) + cx.input_len(*id) <= 512 * 1024));
            });
        }
        for peer in [&mut client, &mut server] {
            peer.unstall();
            peer.take_exact(10_000_000);
        }
        assert!(sim.now() > 18 * SECOND);
    }

    #[test]
    fn what_is_cut_off_is_reset_at_both_ends() {
        let is_reset = |mut peer: Peer| {
            peer.expect_end();
            peer.failure() == Some(std::io::ErrorKind::ConnectionReset)
        };
        let sims = [1, 2, 3, 4].map(Simulation::new);
        let [by_client, by_server, idle, stopped] = sims.each_ref().map(|sim| tunnel(sim, None));
        by_client.1.reset();
        by_server.2.reset();
        assert!(is_reset(by_client.2) && is_reset(by_server.1));
        let mut silent = sims[2].connect(address(AT));
        silent.send(OPEN);
        sims[2].run_for(HANDSHAKE_MAX + SECOND);
        assert!(is_reset(silent));
        sims[2].run_for(IDLE_MAX - HANDSHAKE_MAX - 2 * SECOND);
        assert!(!idle.1.is_over());
        assert!(sims[2].run_until(2 * SECOND, || idle.1.is_over()) && is_reset(idle.1) && is_reset(idle.2));
        sims[3].with(stopped.0, |event_loop: &mut EventLoop<Socks>| event_loop.stopper().stop());
        assert!(is_reset(stopped.1) && is_reset(stopped.2));
    }
}
