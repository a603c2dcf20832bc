//! Chunked bodies as httparse reads them. A fuzz target includes this file too.

/// Parses a chunked body. Returns the data, and the length of the whole body with its framing.
pub(crate) fn parse(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let httparse::Status::Complete((line, size)) = httparse::parse_chunk_size(&input[at..]).ok()? else {
            return None;
        };
        at += line;
        if size == 0 {
            // As many as the limit on their bytes leaves room for.
            let mut trailer = vec![httparse::EMPTY_HEADER; 1024];
            let parsed = httparse::parse_headers(&input[at..], &mut trailer).ok()?;
            let httparse::Status::Complete((length, _)) = parsed else { return None };
            return Some((body, at + length));
        }
        let end = at.checked_add(usize::try_from(size).ok()?)?;
        body.extend_from_slice(input.get(at..end)?);
        at = end + input.get(end..)?.starts_with(b"\r\n").then_some(2)?;
    }
}
