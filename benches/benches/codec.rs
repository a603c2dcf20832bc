//! The cost of decoding a request, and of encoding a response.
//!
//! `cargo bench -p benches --bench codec`

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sealed_http::Response;
use sealed_http::codec::{Event, Limits, RequestDecoder};

const BROWSER: &[u8] = b"GET /channels/news?after=oldest HTTP/1.1\r\nHost: localhost:8100\r\nConnection: keep-alive\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: text/event-stream\r\nSec-Fetch-Mode: cors\r\nAccept-Encoding: gzip\r\n\r\n";

const PUBLISH: &[u8] = b"POST /channels/news HTTP/1.1\r\nHost: localhost:8100\r\nContent-Length: 5\r\n\r\nhello";

const CHUNKED: &[u8] = b"POST /channels/news HTTP/1.1\r\nHost: localhost:8100\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";

fn decode(mut input: &[u8]) -> usize {
    let limits = Limits::default();
    let mut decoder = RequestDecoder::new();
    let mut length = 0;
    loop {
        let (used, event) = decoder.decode(input, &limits).expect("a request");
        input = &input[used..];
        match event {
            Event::Head(head) => length += black_box(&head).path().len(),
            Event::Data(data) => length += data.len(),
            Event::End => return length,
            Event::Incomplete => unreachable!("it is whole"),
        }
    }
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for (name, request) in [("browser", BROWSER), ("publish", PUBLISH), ("chunked", CHUNKED)] {
        group.throughput(Throughput::Bytes(request.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| decode(black_box(request))));
    }
    group.finish();
    criterion.bench_function("encode", |bencher| {
        let mut out = Vec::new();
        bencher.iter(|| {
            out.clear();
            let response = Response::new(200).header("Content-Type", "application/json").body("{}");
            response.encode(&mut out, 1, true, false, "Mon, 23 Nov 2026 09:46:58 GMT");
            black_box(&out);
        });
    });
}

criterion_group!(benches, codec);
criterion_main!(benches);
