//! Starts TLS on a connection that already exists, for protocols that begin as plain text.

use crate::context::{Context, Due};
use crate::id::{ConnectionId, TimerId};
use crate::service::Service;
use crate::slot::Flags;
use crate::tls::{Acceptor, Connector, Error, ServerName, Session};

/// TLS on a connection that already exists. Needs the feature `tls`.
impl<S: Service> Context<S> {
    /// Starts TLS on an open connection, with this side as the server, as after the command
    /// `STARTTLS` of SMTP.
    ///
    /// Take the command from the [`Input`](crate::Input) first. Output that is queued is sent as
    /// plain text, before the handshake; output that is written from now on is sent encrypted,
    /// after the handshake. Input that the service has not taken counts as the beginning of the
    /// handshake. So plain text sent right after the command, by the peer or by an attacker, makes
    /// the handshake fail; the service never sees it.
    ///
    /// [`Service::secured`] reports the end of the handshake, which has
    /// [`Config::handshake_limit`](crate::Config::handshake_limit).
    ///
    /// # Errors
    ///
    /// Returns [`Error::NotPossible`] if the connection is not open, has not been made yet, has
    /// TLS already, or if one side has ended its output, and [`Error::Rustls`] if the configuration
    /// cannot be used. The connection goes on as it was.
    pub fn start_tls_server(&mut self, id: ConnectionId, acceptor: &Acceptor) -> Result<(), Error> {
        self.start_tls(id, |limit| acceptor.session(limit))
    }

    /// Starts TLS on an open connection, with this side as the client, once the server has agreed.
    /// The server must present a certificate for `name`. Otherwise like
    /// [`start_tls_server`](Self::start_tls_server).
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`start_tls_server`](Self::start_tls_server).
    pub fn start_tls_client(
        &mut self,
        id: ConnectionId,
        connector: &Connector,
        name: ServerName<'static>,
    ) -> Result<(), Error> {
        self.start_tls(id, |limit| connector.session(name, Some(limit)))
    }

    fn start_tls(
        &mut self,
        id: ConnectionId,
        session: impl FnOnce(TimerId) -> Result<Session, rustls::Error>,
    ) -> Result<(), Error> {
        let Some(slot) = self.connections.find_mut(id).filter(|slot| slot.is_open()) else {
            return Err(Error::NotPossible);
        };
        let has_tls = slot.extras().is_some_and(|extras| extras.tls.is_some());
        if has_tls || slot.is(Flags::CONNECTING | Flags::SHUT | Flags::ENDED) {
            return Err(Error::NotPossible);
        }
        let limit = self.set_due(self.config.handshake_limit, Due::Limit(id));
        let mut session = match session(limit) {
            Ok(session) => session,
            Err(error) => {
                self.timers.cancel(limit);
                return Err(error.into());
            }
        };
        session.is_late = true;
        if self.connections.extras(id).is_none() {
            return Err(Error::NotPossible);
        }
        if let Some(buffers) = self.connections.find_mut(id).and_then(|slot| slot.buffers.as_mut()) {
            if !fault!("plain-output-encrypted") {
                session.ahead = std::mem::take(&mut buffers.outbox);
                // The next flush reports these bytes, which the kernel already has.
                buffers.outbox.sent_ahead = std::mem::take(&mut session.ahead.sent_ahead);
            }
            let extras = buffers.extras_mut();
            extras.left_to_tls = !fault!("plain-input-shown");
            extras.tls = Some(session);
        }
        self.connections.will_flush(id.slot);
        self.connections.will_read(id.slot);
        Ok(())
    }
}
