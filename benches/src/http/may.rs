//! `may_minihttp`: a coroutine for each connection, on one worker.

use std::io;

use may_minihttp::{HttpServer, HttpService, Request, Response};

#[derive(Clone)]
struct Same(&'static str);

impl HttpService for Same {
    fn call(&mut self, _: Request<'_, '_, '_>, response: &mut Response<'_>) -> io::Result<()> {
        response.header("Content-Type: text/plain");
        response.body(self.0);
        Ok(())
    }
}

pub(super) fn serve(body: String) {
    may::config().set_workers(1);
    // The server binds its port itself, and does not report a port that the system chooses.
    let address = testing::process::free_address([127, 0, 0, 1]);
    let server = HttpServer(Same(body.leak())).start(address).expect("a server");
    println!("{address}");
    server.join().expect("a good end");
}
