//! hyper on tokio: a task for each connection, all on one thread.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

pub(super) fn serve(body: String) {
    let body = Bytes::from(body);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::from_std(super::listen()).expect("a listener");
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            tokio::spawn(converse(stream, body.clone()));
        }
    });
}

async fn converse(stream: TcpStream, body: Bytes) {
    stream.set_nodelay(true).expect("no delay");
    let answer = service_fn(move |_| {
        let mut response = Response::new(Full::new(body.clone()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(super::CONTENT_TYPE));
        async { Ok::<_, Infallible>(response) }
    });
    // Answers to pipelined requests are sent together, as the other servers send them.
    let connection = http1::Builder::new().pipeline_flush(true).serve_connection(TokioIo::new(stream), answer);
    // The client closes the connection once it has all answers.
    let _ = connection.await;
}
