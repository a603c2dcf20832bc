//! Code that the targets share: decodes bytes in pieces, and checks the properties of every result.

use sealed_http::RequestHead;
use sealed_http::codec::{DecodeError, Event, Limits, RequestDecoder};

/// Limits that a short input can reach.
pub const TIGHT: Limits = Limits {
    request_line_bytes_max: 24,
    head_bytes_max: 80,
    headers_max: 4,
    body_bytes_max: 16,
    chunk_line_bytes_max: 8,
    chunk_extension_bytes_max: 8,
    trailer_bytes_max: 16,
    connect_allowed: false,
};

/// The result of decoding the bytes of a connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub whole: Vec<Request>,
    /// The request that is incomplete.
    pub coming: Option<Request>,
    pub error: Option<DecodeError>,
}

/// A decoded request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: Option<String>,
    pub version_minor: u8,
    pub keep_alive: bool,
    pub expects_continue: bool,
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Request {
    fn new(head: &RequestHead<'_>) -> Self {
        Self {
            method: head.method_name().to_owned(),
            path: head.path().to_owned(),
            query: head.query().map(str::to_owned),
            version_minor: head.version_minor(),
            keep_alive: head.keep_alive(),
            expects_continue: head.expects_continue(),
            fields: head.headers().map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
            body: Vec::new(),
        }
    }

    fn is_chunked(&self) -> bool {
        self.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding"))
    }

    /// Asserts the properties of every accepted request. The body may be incomplete.
    fn check(&self, limits: &Limits) {
        let named = |name: &str| self.fields.iter().filter(|field| field.0.eq_ignore_ascii_case(name)).count();
        assert!(self.path.starts_with('/') || (self.path == "*" && self.method == "OPTIONS"), "{self:?}");
        assert!(self.query.iter().chain([&self.path]).all(|text| text.bytes().all(|byte| byte.is_ascii_graphic())));
        assert!(named("host") == 1 || (named("host") == 0 && self.version_minor == 0), "{self:?}");
        assert!(named("content-length") + named("transfer-encoding") <= 1, "{self:?}");
        assert!(self.fields.len() <= limits.headers_max && self.body.len() as u64 <= limits.body_bytes_max);
        for (name, value) in &self.fields {
            assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'));
            assert!(value.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f)), "{self:?}");
        }
    }
}

/// Decodes the pieces as a connection would, and checks every step.
pub fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Outcome {
    let (mut decoder, mut outcome) = (RequestDecoder::new(), Outcome::default());
    let mut kept = Vec::new();
    for piece in pieces {
        kept.extend_from_slice(piece);
        // Each call consumes bytes, or ends a request that consumed some, or is the last.
        let mut calls_left = 2 * kept.len() + 2;
        loop {
            calls_left = calls_left.checked_sub(1).expect("it goes round and round");
            let (taken, event) = match decoder.decode(&kept, limits) {
                Ok(found) => found,
                Err(error) => {
                    let again = decoder.decode(&kept, limits).err();
                    assert_eq!(again, Some(DecodeError::Poisoned), "something is decoded behind an error");
                    outcome.error = Some(error);
                    return outcome;
                }
            };
            assert!(taken <= kept.len(), "more is taken than there is");
            let is_last = matches!(event, Event::Incomplete);
            outcome.note(&event, &kept[..taken], limits);
            kept.drain(..taken);
            if is_last {
                break;
            }
        }
        let held = limits.head_bytes_max.max(limits.request_line_bytes_max + 2);
        assert!(kept.len() <= held, "more is held back than a head can be");
    }
    outcome
}

impl Outcome {
    fn note(&mut self, event: &Event<'_>, taken: &[u8], limits: &Limits) {
        match event {
            Event::Incomplete => {}
            Event::Head(head) => {
                let request = Request::new(head);
                let alone = RequestHead::parse(taken, limits).expect("a head means the same by itself");
                assert_eq!(Request::new(&alone), request, "a head means the same by itself");
                request.check(limits);
                assert!(self.coming.replace(request).is_none(), "a head within a request");
            }
            Event::Data(data) => {
                assert!(!data.is_empty(), "nothing is no data");
                let request = self.coming.as_mut().expect("data belong to a request");
                request.body.extend_from_slice(data);
                request.check(limits);
            }
            Event::End => self.whole.push(self.coming.take().expect("what ends has begun")),
        }
    }
}

/// Decodes bytes whole, one at a time, and in pieces whose lengths depend on the bytes. Asserts
/// that the results are the same, and returns the result.
pub fn decode_every_way(bytes: &[u8], limits: &Limits) -> Outcome {
    let whole = decode([bytes], limits);
    assert_eq!(decode(bytes.chunks(1), limits), whole, "a byte at a time");
    assert_eq!(decode(pieces(bytes), limits), whole, "in pieces");
    whole
}

/// Splits bytes at places that depend on all of them.
fn pieces(bytes: &[u8]) -> Vec<&[u8]> {
    // FNV-1a, continued for each piece.
    let hash = |start: u64, bytes: &[u8]| {
        bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
    };
    let (mut state, mut rest, mut pieces) = (hash(0xcbf2_9ce4_8422_2325, bytes), bytes, Vec::new());
    while !rest.is_empty() {
        state = hash(state, b"piece");
        let (piece, behind) = rest.split_at((1 + (state >> 32) as usize % 32).min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

/// Encodes a request again, so that it has the same meaning.
pub fn encode(request: &Request) -> Vec<u8> {
    let query = request.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let mut bytes =
        format!("{} {}{query} HTTP/1.{}\r\n", request.method, request.path, request.version_minor).into_bytes();
    for (name, value) in &request.fields {
        bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    bytes.extend(b"\r\n");
    if request.is_chunked() {
        if !request.body.is_empty() {
            sealed_http::codec::encode_chunk(&mut bytes, &request.body);
        }
        sealed_http::codec::encode_last_chunk(&mut bytes);
    } else {
        bytes.extend(&request.body);
    }
    bytes
}
