//! The state that a site keeps for each connection.

#[cfg(feature = "websocket")]
use crate::site::socket::Socket;
use crate::site::transfer::Transfer;

/// The state that a [`Site`](crate::Site) keeps for each connection: the file that is being sent,
/// or the WebSocket, if any.
#[derive(Debug, Default)]
pub struct SiteConnection(Option<Box<State>>);

#[derive(Debug)]
pub(crate) enum State {
    File(Transfer),
    #[cfg(feature = "websocket")]
    WebSocket(Socket),
}

impl SiteConnection {
    pub(crate) fn begin(&mut self, state: State) {
        self.0 = Some(Box::new(state));
    }

    pub(crate) fn end(&mut self) {
        self.0 = None;
    }

    pub(crate) fn state(&mut self) -> Option<&mut State> {
        self.0.as_deref_mut()
    }

    /// Returns the file that is being sent.
    pub(crate) fn transfer(&mut self) -> Option<&mut Transfer> {
        match self.state()? {
            State::File(transfer) => Some(transfer),
            #[cfg(feature = "websocket")]
            State::WebSocket(_) => None,
        }
    }

    /// Returns the page of the WebSocket.
    #[cfg(feature = "websocket")]
    pub(crate) fn websocket_page(&mut self) -> Option<usize> {
        match self.state()? {
            State::File(_) => None,
            State::WebSocket(socket) => Some(socket.page),
        }
    }
}
