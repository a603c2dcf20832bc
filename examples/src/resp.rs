//! The protocol of Redis, as far as a server needs it.

/// Maximum number of arguments of one command, including its name.
pub const ARGUMENTS_MAX: usize = 1_024;
/// Maximum number of bytes of one argument.
pub const ARGUMENT_BYTES_MAX: usize = 512 * 1024;
/// Maximum number of bytes of one encoded command, including the framing.
pub const COMMAND_BYTES_MAX: usize = 1024 * 1024;
/// Maximum number of bytes of a line: a count, or a command typed by hand.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// An error after which the connection cannot continue: the bytes are not a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtocolError(pub &'static str);

/// Parses one command: an array of strings, or a line of words. Stores the start and the end of
/// each argument in `arguments`. Returns the number of bytes of the command, or `None` if the
/// command is incomplete.
///
/// # Errors
/// If the bytes are not a command.
pub fn parse(bytes: &[u8], arguments: &mut Vec<(usize, usize)>) -> Result<Option<usize>, ProtocolError> {
    arguments.clear();
    let parsed = match bytes.first() {
        None => return Ok(None),
        Some(b'*') => array(bytes, arguments)?,
        Some(_) => inline(bytes, arguments)?,
    };
    if parsed.is_none() && bytes.len() >= COMMAND_BYTES_MAX {
        return Err(ProtocolError("too big a command"));
    }
    Ok(parsed)
}

fn array(bytes: &[u8], arguments: &mut Vec<(usize, usize)>) -> Result<Option<usize>, ProtocolError> {
    let Some((count, mut at)) = number(bytes, 1)? else { return Ok(None) };
    if usize::try_from(count).is_ok_and(|count| count > ARGUMENTS_MAX) {
        return Err(ProtocolError("invalid multibulk length"));
    }
    for _ in 0..count {
        match bytes.get(at) {
            None => return Ok(None),
            Some(b'$') => {}
            Some(_) => return Err(ProtocolError("expected '$'")),
        }
        let Some((length, start)) = number(bytes, at + 1)? else { return Ok(None) };
        let length = usize::try_from(length).ok().filter(|length| *length <= ARGUMENT_BYTES_MAX);
        let end = start + length.ok_or(ProtocolError("invalid bulk length"))?;
        match bytes.get(end..end + 2) {
            None => return Ok(None),
            Some(b"\r\n") => {}
            Some(_) => return Err(ProtocolError("expected a line's end behind a bulk")),
        }
        arguments.push((start, end));
        at = end + 2;
    }
    Ok(Some(at))
}

/// Parses a number that ends with its line. Returns the number, and the start of the next line.
fn number(bytes: &[u8], start: usize) -> Result<Option<(i64, usize)>, ProtocolError> {
    let line = &bytes[start..];
    // The longest number, its sign, and the end of the line.
    let window = &line[..line.len().min(22)];
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        return if window.len() == 22 { Err(ProtocolError("invalid length")) } else { Ok(None) };
    };
    let digits = line[..end].strip_suffix(b"\r").ok_or(ProtocolError("invalid length"))?;
    let value = integer(digits).ok_or(ProtocolError("invalid length"))?;
    Ok(Some((value, start + end + 1)))
}

fn inline(bytes: &[u8], arguments: &mut Vec<(usize, usize)>) -> Result<Option<usize>, ProtocolError> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() > LINE_BYTES_MAX { Err(ProtocolError("too big inline request")) } else { Ok(None) };
    };
    let mut at = 0;
    for word in bytes[..end].split(u8::is_ascii_whitespace) {
        if !word.is_empty() {
            arguments.push((at, at + word.len()));
        }
        at += word.len() + 1;
    }
    if arguments.len() > ARGUMENTS_MAX {
        return Err(ProtocolError("too many arguments"));
    }
    Ok(Some(end + 1))
}

/// Parses a whole number in decimal digits, as Redis does: no plus sign, no leading zeros, and
/// nothing before or after.
pub fn integer(digits: &[u8]) -> Option<i64> {
    let plain = matches!(digits, b"0" | [b'1'..=b'9', ..] | [b'-', b'1'..=b'9', ..]);
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

/// Appends replies to a buffer.
pub trait Reply {
    /// Appends a status line.
    fn simple(&mut self, text: &str);
    /// Appends an error line.
    fn error(&mut self, text: &str);
    /// Appends a number.
    fn number(&mut self, value: i64);
    /// Appends a count.
    fn count(&mut self, count: usize);
    /// Appends a string of any bytes.
    fn bulk(&mut self, bytes: &[u8]);
    /// Appends a nil.
    fn nil(&mut self);
    /// Begins an array: the next `count` replies are its elements.
    fn array(&mut self, count: usize);
}

impl Reply for Vec<u8> {
    fn simple(&mut self, text: &str) {
        self.push(b'+');
        self.extend_from_slice(text.as_bytes());
        self.extend_from_slice(b"\r\n");
    }

    fn error(&mut self, text: &str) {
        self.push(b'-');
        self.extend_from_slice(text.as_bytes());
        self.extend_from_slice(b"\r\n");
    }

    fn number(&mut self, value: i64) {
        self.extend_from_slice(if value < 0 { b":-" } else { b":" });
        push_decimal(self, value.unsigned_abs());
    }

    fn count(&mut self, count: usize) {
        self.push(b':');
        push_decimal(self, count as u64);
    }

    fn bulk(&mut self, bytes: &[u8]) {
        self.push(b'$');
        push_decimal(self, bytes.len() as u64);
        self.extend_from_slice(bytes);
        self.extend_from_slice(b"\r\n");
    }

    fn nil(&mut self) {
        self.extend_from_slice(b"$-1\r\n");
    }

    fn array(&mut self, count: usize) {
        self.push(b'*');
        push_decimal(self, count as u64);
    }
}

fn push_decimal(out: &mut Vec<u8>, mut rest: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    type Words<'a> = (Vec<&'a [u8]>, usize);

    fn words(bytes: &[u8]) -> Result<Option<Words<'_>>, ProtocolError> {
        let mut arguments = Vec::new();
        let used = parse(bytes, &mut arguments)?;
        Ok(used.map(|used| (arguments.iter().map(|(start, end)| &bytes[*start..*end]).collect(), used)))
    }

    #[test]
    fn a_command_is_read_once_it_is_complete_wherever_it_is_split() {
        for whole in [&b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\na\r\nb\r\n"[..], b"SET k  v\r\n", b"*1\r\n$0\r\n\r\n"] {
            for cut in 0..whole.len() {
                assert_eq!(words(&whole[..cut]), Ok(None), "{cut}");
            }
            let with_more = [whole, b"*1\r\n"].concat();
            assert_eq!(words(&with_more).expect("good").expect("whole").1, whole.len());
        }
        let set = words(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\na\r\nb\r\n").expect("good").expect("whole").0;
        assert_eq!(set, [&b"SET"[..], b"k", b"a\r\nb"]);
        assert_eq!(words(b"PING\n").expect("good").expect("whole").0, [b"PING"]);
        assert_eq!(words(b"\r\n"), Ok(Some((vec![], 2))));
        assert_eq!(words(b"*0\r\n"), Ok(Some((vec![], 4))));
        assert_eq!(words(b"*-1\r\n"), Ok(Some((vec![], 5))));
    }

    #[test]
    fn malformed_commands_are_refused() {
        for bytes in [
            &b"*2000\r\n"[..],
            b"*x\r\n",
            b"*1\n",
            b"*1\r\n:5\r\n",
            b"*1\r\n$-1\r\n",
            b"*1\r\n$600000\r\n",
            b"*1\r\n$2\r\nabc\r\n",
            b"*111111111111111111111111",
            b"*+1\r\n",
        ] {
            assert!(words(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
        assert!(words(&vec![b'a'; LINE_BYTES_MAX + 1]).is_err());
        let long = [&b"*3\r\n"[..], &[&b"$500000\r\n"[..], &vec![b'a'; 500_000], b"\r\n"].concat().repeat(3)].concat();
        assert!(words(&long[..COMMAND_BYTES_MAX]).is_err());
    }

    #[test]
    fn written_numbers_can_be_read() {
        for value in [0, 7, -1, 10, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            out.number(value);
            assert_eq!(out, format!(":{value}\r\n").as_bytes());
            assert_eq!(integer(value.to_string().as_bytes()), Some(value));
        }
        for text in ["", "-", "-0", "01", "+1", " 1", "1 ", "9223372036854775808", "1.0"] {
            assert_eq!(integer(text.as_bytes()), None, "{text}");
        }
    }
}
