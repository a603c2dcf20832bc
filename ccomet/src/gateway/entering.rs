//! A new connection, and its client's address: the connection's own, or the one that a proxy names
//! before the first request.

use std::net::IpAddr;

use sealed::{Address, ConnectionId, Input, ListenerId, fault};
use sealed_http::Http;
use sealed_http::codec::ProxyHeader;
use sealed_http::server::Preface;

use super::{Gateway, loop_time};
use crate::access::client::Entrance;
use crate::core::problem::Problem;
use crate::protocols::call::Door;

impl Gateway {
    /// Handles a new connection.
    pub(super) fn come(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, listener: ListenerId, peer: &Address) {
        let door = if listener.index() == 0 { Door::Front } else { Door::Admin };
        if let Some(client) = http.state_mut(id) {
            client.door = door;
        }
        self.answering.meter.note_accepted(door);
        let entrance = self.client_tracker.accepted(id, door, peer.ip(), loop_time(http));
        let has_tls =
            if door == Door::Front { self.config.front.tls.is_some() } else { self.config.admin.tls.is_some() };
        // A handshake, of which each costs more than many requests, would only lead to a refusal.
        let is_cut_off = has_tls && entrance == Entrance::Barred;
        let why = match entrance {
            _ if is_cut_off => Some((
                Problem::Forbidden.code(),
                "The network of the client may not connect (allow, deny), and is cut off before the TLS handshake.",
                false,
            )),
            Entrance::Unannounced => Some(("not_a_proxy", "Only trusted proxies may connect to this listener.", false)),
            Entrance::Shut => Some((
                "too_many_connections",
                "One address has twice as many connections as limits.connections_per_address_max, and more are cut off.",
                true,
            )),
            _ => None,
        };
        if let Some((code, reason, is_limit)) = why {
            self.answering.refusals.note_silent(code, reason, is_limit, peer.to_string());
        }
        if is_cut_off {
            return http.abort(id);
        }
        enter(http, id, entrance);
    }

    /// Reads the bytes before the first request, in which a proxy names the client of its
    /// connection.
    pub(super) fn read_preface(
        &mut self,
        http: &mut Http<'_, Self>,
        id: ConnectionId,
        input: &mut Input<'_>,
    ) -> Preface {
        let source: Option<IpAddr> = match ProxyHeader::decode(input.bytes(), self.config.limits.head_bytes_max) {
            Ok(None) => return Preface::Incomplete,
            Ok(Some((length, header))) => {
                input.take(if fault!("announcement-extension-left") { length.min(52) } else { length });
                match header {
                    ProxyHeader::Proxied { source, .. } => Some(source.ip()),
                    ProxyHeader::Local => None,
                }
            }
            Err(error) => {
                tracing::debug!(?id, %error, "closed: a trusted proxy did not name the client of its connection");
                return Preface::Wrong;
            }
        };
        let door = http.state(id).map_or(Door::Front, |client| client.door);
        self.answering.refusals.set_client(id, source);
        let entrance = self.client_tracker.announced(id, door, source, loop_time(http));
        enter(http, id, entrance);
        Preface::Over
    }
}

fn enter(http: &mut Http<'_, Gateway>, id: ConnectionId, entrance: Entrance) {
    match entrance {
        Entrance::Open => {}
        Entrance::Barred => {
            if let Some(client) = http.state_mut(id) {
                client.barred = true;
            }
        }
        Entrance::ByProxy => http.await_preface(id),
        Entrance::Shut | Entrance::Unannounced => http.abort(id),
    }
}
