//! RESP2 and RESP3: values of a server, and commands of a client.

/// A reply or a push.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Nothing.
    Nil,
    /// A simple string.
    Simple(String),
    /// An error: a code in capitals, and a text.
    Error(String),
    /// An integer.
    Integer(i64),
    /// A bulk string.
    Bytes(Vec<u8>),
    /// A text with its kind, which RESP2 sends as a bulk string.
    Verbatim(String),
    /// An array.
    Array(Vec<Value>),
    /// A map, which RESP2 sends as an array.
    Map(Vec<(Value, Value)>),
    /// A push, which RESP2 sends as an array.
    Push(Vec<Value>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Bytes(text.as_bytes().to_vec())
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl Value {
    /// Returns the reply of success.
    pub fn ok() -> Self {
        Self::Simple("OK".to_owned())
    }

    /// Returns whether it is an error.
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// Appends it as the version `protocol` of RESP (2 or 3) encodes it.
    pub fn encode(&self, protocol: u8, out: &mut Vec<u8>) {
        let is_newer = protocol >= 3;
        match self {
            Self::Nil => out.extend_from_slice(if is_newer { b"_\r\n" } else { b"$-1\r\n" }),
            Self::Simple(text) => line(out, '+', text),
            Self::Error(text) => line(out, '-', text),
            Self::Integer(number) => line(out, ':', &number.to_string()),
            Self::Bytes(bytes) => bulk(out, '$', bytes),
            Self::Verbatim(text) if is_newer => bulk(out, '=', format!("txt:{text}").as_bytes()),
            Self::Verbatim(text) => bulk(out, '$', text.as_bytes()),
            Self::Array(values) => list(out, '*', values, protocol),
            Self::Push(values) => list(out, if is_newer { '>' } else { '*' }, values, protocol),
            Self::Map(pairs) => {
                let (kind, count) = if is_newer { ('%', pairs.len()) } else { ('*', 2 * pairs.len()) };
                line(out, kind, &count.to_string());
                for (key, value) in pairs {
                    key.encode(protocol, out);
                    value.encode(protocol, out);
                }
            }
        }
    }

    /// Decodes the first value of what a server has sent, and returns it with its length. Returns
    /// `None` if it is not complete. Panics if it is none of these values.
    pub fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut reader = Reader { bytes, at: 0 };
        let value = reader.value()?;
        Some((value, reader.at))
    }
}

fn line(out: &mut Vec<u8>, kind: char, text: &str) {
    out.extend_from_slice(format!("{kind}{text}\r\n").as_bytes());
}

fn bulk(out: &mut Vec<u8>, kind: char, bytes: &[u8]) {
    line(out, kind, &bytes.len().to_string());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn list(out: &mut Vec<u8>, kind: char, values: &[Value], protocol: u8) {
    line(out, kind, &values.len().to_string());
    for value in values {
        value.encode(protocol, out);
    }
}

/// The name of a command, and its arguments.
pub type Command = Vec<Vec<u8>>;

/// Appends a command.
pub fn encode_command(out: &mut Vec<u8>, parts: &[impl AsRef<[u8]>]) {
    line(out, '*', &parts.len().to_string());
    for part in parts {
        bulk(out, '$', part.as_ref());
    }
}

/// Decodes the first command of what a client has sent, and returns it with its length. Returns
/// `None` if it is not complete.
///
/// # Errors
/// The error that Redis sends before it closes such a connection.
pub fn decode_command(bytes: &[u8]) -> Result<Option<(Command, usize)>, String> {
    let mut reader = Reader { bytes, at: 0 };
    let Some(head) = reader.line() else { return Ok(None) };
    let Some(count) = head.strip_prefix('*') else {
        // An inline command: words in a line.
        return Ok(Some((head.split_whitespace().map(|word| word.as_bytes().to_vec()).collect(), reader.at)));
    };
    let count: i64 = count.parse().map_err(|_| "ERR Protocol error: invalid multibulk length".to_owned())?;
    let mut parts = Vec::new();
    for _ in 0..count {
        let Some(head) = reader.line() else { return Ok(None) };
        let Some(length) = head.strip_prefix('$') else {
            let found = head.chars().next().unwrap_or(' ');
            return Err(format!("ERR Protocol error: expected '$', got '{found}'"));
        };
        let length = length.parse().map_err(|_| "ERR Protocol error: invalid bulk length".to_owned())?;
        let Some(part) = reader.block(length) else { return Ok(None) };
        parts.push(part.to_vec());
    }
    Ok(Some((parts, reader.at)))
}

/// A place in received bytes. Its methods return `None` if more bytes are needed.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn line(&mut self) -> Option<String> {
        let rest = self.bytes.get(self.at..)?;
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        self.at += end + 2;
        Some(String::from_utf8_lossy(&rest[..end]).into_owned())
    }

    fn block(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        self.bytes.get(end..end.checked_add(2)?)?;
        let block = &self.bytes[self.at..end];
        self.at = end + 2;
        Some(block)
    }

    fn values(&mut self, count: &str) -> Option<Vec<Value>> {
        (0..count.parse::<usize>().expect("a count")).map(|_| self.value()).collect()
    }

    fn value(&mut self) -> Option<Value> {
        let head = self.line()?;
        let (kind, rest) = head.split_at_checked(1).expect("a kind");
        Some(match kind {
            "+" => Value::Simple(rest.to_owned()),
            "-" => Value::Error(rest.to_owned()),
            ":" => Value::Integer(rest.parse().expect("an integer")),
            "_" => Value::Nil,
            "$" | "*" if rest == "-1" => Value::Nil,
            "$" => Value::Bytes(self.block(rest.parse().expect("a length"))?.to_vec()),
            "=" => {
                let text = self.block(rest.parse().expect("a length"))?;
                Value::Verbatim(String::from_utf8_lossy(text.get(4..).expect("a kind")).into_owned())
            }
            "*" | "~" => Value::Array(self.values(rest)?),
            ">" => Value::Push(self.values(rest)?),
            "%" => {
                let count = rest.parse::<usize>().expect("a count");
                Value::Map((0..count).map(|_| Some((self.value()?, self.value()?))).collect::<Option<_>>()?)
            }
            _ => panic!("not a value: {head}"),
        })
    }
}
