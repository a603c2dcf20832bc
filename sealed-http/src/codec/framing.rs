//! The header fields that determine where a message ends and whether its connection is kept. The
//! rules are those of requests and responses alike.

use crate::codec::error::DecodeError;
use crate::codec::head::check_value;

/// The statements of these header fields.
#[derive(Debug, Default)]
pub(crate) struct FramingFields {
    pub(crate) length: Option<u64>,
    pub(crate) chunked: bool,
    close: bool,
    keep: bool,
}

impl FramingFields {
    /// Checks the value of a header field, and records the statement of the field, if it is one of
    /// these.
    pub(crate) fn read(&mut self, header: &httparse::Header<'_>, version_minor: u8) -> Result<(), DecodeError> {
        check_value(header.value)?;
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            if self.length.replace(parse_length(header.value)?).is_some() {
                return Err(DecodeError::ContentLength);
            }
        } else if is("transfer-encoding") {
            if self.chunked || version_minor == 0 {
                return Err(DecodeError::TransferEncoding);
            }
            check_transfer_coding(header.value)?;
            self.chunked = true;
        } else if is("connection") {
            self.close |= has_token(header.value, "close");
            self.keep |= has_token(header.value, "keep-alive");
        }
        Ok(())
    }

    /// Checks the fields of a whole head. A message with a length and chunked coding may be an
    /// attempt at smuggling (RFC 9112, 6.3).
    pub(crate) fn check(&self) -> Result<(), DecodeError> {
        if self.length.is_some() && self.chunked { Err(DecodeError::TransferEncoding) } else { Ok(()) }
    }

    pub(crate) fn keep_alive(&self, version_minor: u8) -> bool {
        !self.close && (version_minor > 0 || self.keep)
    }

    pub(crate) fn has_body(&self) -> bool {
        self.chunked || self.length.is_some_and(|length| length > 0)
    }
}

/// Returns whether a comma-separated list has this token, in any case.
pub(crate) fn has_token(list: &[u8], wanted: &str) -> bool {
    list.split(|byte| *byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
}

/// Checks that `chunked` is the only transfer coding. If `chunked` is not last, or is repeated, the
/// end of the body is undefined (RFC 9112, 6.3). Other codings before `chunked` are valid, but not
/// implemented.
fn check_transfer_coding(value: &[u8]) -> Result<(), DecodeError> {
    let mut codings =
        value.rsplit(|byte| *byte == b',').map(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"chunked"));
    match (codings.next(), codings.next()) {
        (Some(true), None) => Ok(()),
        (Some(true), Some(false)) if codings.all(|is_chunked| !is_chunked) => Err(DecodeError::TransferCoding),
        _ => Err(DecodeError::TransferEncoding),
    }
}

fn parse_length(value: &[u8]) -> Result<u64, DecodeError> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(DecodeError::ContentLength);
    }
    // A number of at most 19 digits fits.
    Ok(value.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0')))
}
