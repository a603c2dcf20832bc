//! The state that a site keeps for each connection.

#[cfg(feature = "websocket")]
use crate::site::socket::Socket;
#[cfg(feature = "files")]
use crate::site::transfer::Transfer;

/// The state that a [`Site`](crate::Site) keeps for each connection: the file that is being sent,
/// or the WebSocket, if any.
#[derive(Debug, Default)]
pub struct SiteConnection {
    #[cfg(any(feature = "files", feature = "websocket"))]
    state: Option<Box<State>>,
}

#[cfg(any(feature = "files", feature = "websocket"))]
#[derive(Debug)]
pub(crate) enum State {
    #[cfg(feature = "files")]
    File(Transfer),
    #[cfg(feature = "websocket")]
    WebSocket(Socket),
}

#[cfg(any(feature = "files", feature = "websocket"))]
impl SiteConnection {
    pub(crate) fn begin(&mut self, state: State) {
        self.state = Some(Box::new(state));
    }

    /// Returns the file that is being sent.
    #[cfg(feature = "files")]
    pub(crate) fn transfer(&mut self) -> Option<&mut Transfer> {
        match self.state.as_deref_mut()? {
            State::File(transfer) => Some(transfer),
            #[cfg(feature = "websocket")]
            State::WebSocket(_) => None,
        }
    }

    /// Forgets the file that has been sent.
    #[cfg(feature = "files")]
    pub(crate) fn end(&mut self) {
        self.state = None;
    }

    /// Returns the open WebSocket.
    #[cfg(feature = "websocket")]
    pub(crate) fn socket(&mut self) -> Option<&mut Socket> {
        match self.state.as_deref_mut()? {
            #[cfg(feature = "files")]
            State::File(_) => None,
            State::WebSocket(socket) => Some(socket),
        }
    }

    /// Returns the page of the WebSocket.
    #[cfg(feature = "websocket")]
    pub(crate) fn websocket_page(&mut self) -> Option<usize> {
        self.socket().map(|socket| socket.page)
    }
}
