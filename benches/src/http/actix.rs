//! actix-http on its own server, with one worker, and one more thread that accepts.

use std::convert::Infallible;
use std::time::Duration;

use actix_http::{HttpService, Response, StatusCode};
use actix_service::fn_service;
use bytes::Bytes;

use super::CONTENT_TYPE;

pub(super) fn serve(body: String) {
    let body = Bytes::from(body);
    let listener = super::listen();
    let service = move || {
        let body = body.clone();
        let answer = move |_| {
            let mut response = Response::build(StatusCode::OK);
            response.insert_header(("Content-Type", CONTENT_TYPE));
            let response = response.body(body.clone());
            async { Ok::<_, Infallible>(response) }
        };
        // As long as the server of this project keeps a connection.
        HttpService::build().keep_alive(Duration::from_secs(75)).h1(fn_service(answer)).tcp()
    };
    let server = actix_server::Server::build().workers(1).disable_signals();
    let server = server.listen("http", listener, service).expect("a server");
    actix_rt::System::new().block_on(server.run()).expect("a good end");
}
