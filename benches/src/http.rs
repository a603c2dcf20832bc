//! HTTP servers of several kinds that answer every request with the same body, each on one thread,
//! or as close to that as possible. Each prints its address, and serves until it is killed; nginx
//! is a program of its own.
//!
//! `may_minihttp` needs the feature `may`, so that only users who ask for it build its coroutines.
//! Its release 0.1.11 builds and serves; it does not set `TCP_NODELAY`.

mod actix;
mod bare;
mod hyper;
#[cfg(feature = "may")]
mod may;
pub(crate) mod nginx;
mod sealed;

use std::net::TcpListener;

/// The servers, that of this project first. Not all of them are available everywhere.
pub const SERVERS: [&str; 6] = ["sealed-http", "bare mio", "hyper", "actix-http", "may_minihttp", "nginx"];

/// The media type of every answer.
const CONTENT_TYPE: &str = "text/plain";

/// The target of the requests.
pub(crate) const TARGET: &str = "/body";

pub(crate) fn serve(server: &str, body_bytes: &str) {
    let body = body(body_bytes.parse().expect("a length"));
    match server {
        "sealed-http" => sealed::serve(body),
        "bare mio" => bare::serve(&body),
        "hyper" => hyper::serve(body),
        "actix-http" => actix::serve(body),
        #[cfg(feature = "may")]
        "may_minihttp" => may::serve(body),
        _ => unreachable!("one of those"),
    }
}

/// Returns whether the server is available here.
pub(crate) fn can_be_had(server: &str) -> bool {
    match server {
        "may_minihttp" => cfg!(feature = "may"),
        "nginx" => nginx::is_installed(),
        _ => true,
    }
}

/// Returns a body of this many bytes.
fn body(length: usize) -> String {
    "0123456789abcdef".chars().cycle().take(length).collect()
}

/// Creates a listener with the same backlog as `sealed`, and prints its address.
fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    crate::echo::hold_as_many(&listener);
    println!("{}", listener.local_addr().expect("an address"));
    listener.set_nonblocking(true).expect("no waiting");
    listener
}
