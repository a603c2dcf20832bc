//! The server of this project, written as its documentation recommends.

use bytes::Bytes;
use sealed::{Config, ConnectionId, EventLoop};
use sealed_http::{Handler, Http, Request, Response, Server, Settings};

use super::CONTENT_TYPE;

struct Same {
    body: Bytes,
}

impl Handler for Same {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, _: &Request<'_>) {
        http.respond(id, &Response::new(200).header("Content-Type", CONTENT_TYPE).body(self.body.clone()));
    }
}

pub(super) fn serve(body: String) {
    let server = Server::new(Settings::default(), Same { body: body.into() });
    let mut event_loop = EventLoop::new(Config::default(), server).expect("a loop");
    println!("{}", event_loop.listen("127.0.0.1:0").expect("a port").address);
    event_loop.run().expect("a good end");
}
