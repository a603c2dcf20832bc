//! Service managers: sockets that systemd passes, and reports of the server's state. Without
//! systemd, it does nothing.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use ccomet::{Life, Reload, Server, Sockets};
use listenfd::ListenFd;
use sd_notify::NotifyState;

/// A shorter watchdog interval would expire before a loop counts as hanging.
const WATCHDOG_MIN: Duration = Duration::from_secs(2);

/// Returns the passed sockets: by their names `front` and `admin`, or in this order if they have no
/// names.
pub(crate) fn sockets() -> io::Result<Sockets> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names: Vec<&str> = names.split(':').collect();
    let mut given = ListenFd::from_env();
    let mut sockets = Sockets::default();
    for index in 0..given.len() {
        let name = match names.get(index) {
            Some(name @ (&"front" | &"admin")) => name,
            _ if index == 0 => "front",
            _ => "admin",
        };
        let socket: Option<TcpListener> = given.take_tcp_listener(index)?;
        if name == "front" { sockets.front = socket } else { sockets.admin = socket }
    }
    Ok(sockets)
}

/// Reports from now on that the server is ready, alive, and shutting down.
pub(crate) fn keep_informed(server: &mut Server) {
    let watchdog = sd_notify::watchdog_enabled();
    if watchdog.is_some_and(|watchdog| watchdog < WATCHDOG_MIN) {
        tracing::warn!("the watchdog's interval is shorter than the two seconds that a heartbeat may take");
    }
    server.on_life(move |life| match life {
        Life::Alive if watchdog.is_some() => tell(NotifyState::Watchdog),
        Life::Alive => {}
        Life::Stopping => tell(NotifyState::Stopping),
    });
    tell(NotifyState::Ready);
}

/// Reports a step of a reload.
pub(crate) fn note_reload(step: Reload<'_>) {
    match (step, NotifyState::monotonic_usec_now()) {
        // The service manager compares this time with that of its request.
        (Reload::Begun, Ok(now)) => tell_all(&[NotifyState::Reloading, now]),
        (Reload::Begun, Err(_)) => {}
        _ => tell(NotifyState::Ready),
    }
}

fn tell(state: NotifyState<'_>) {
    tell_all(&[state]);
}

fn tell_all(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}
