//! JSON that is also safe in a script: `</`, `<!`, `<s`, U+2028 and U+2029 are escaped in every
//! string.

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

/// Appends a JSON string.
pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
    write(text, out);
}

/// Appends any value as JSON.
#[allow(clippy::expect_used)] // neither writing to memory nor the types of this crate can fail
pub(crate) fn write<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    let mut serializer = Serializer::with_formatter(out, ScriptSafe(CompactFormatter));
    value.serialize(&mut serializer).expect("JSON into memory");
}

/// Appends a number.
pub(crate) fn write_number(number: u64, out: &mut Vec<u8>) {
    write(&number, out);
}

/// A formatter that escapes the characters that JavaScript or HTML would interpret.
struct ScriptSafe(CompactFormatter);

impl Formatter for ScriptSafe {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let bytes = fragment.as_bytes();
        let mut written = 0;
        for (index, byte) in bytes.iter().enumerate() {
            let (length, escape): (usize, &[u8]) = match byte {
                // Only a '/' behind '<' can close a script tag.
                b'/' if index > 0 && bytes[index - 1] == b'<' => (1, b"\\/"),
                // Behind `<!--` and `<script` in a script, `</script>` does not end the script.
                b'<' if matches!(bytes.get(index + 1), Some(b'!' | b's' | b'S')) => (1, b"\\u003c"),
                0xe2 if bytes[index..].starts_with("\u{2028}".as_bytes()) => (3, b"\\u2028"),
                0xe2 if bytes[index..].starts_with("\u{2029}".as_bytes()) => (3, b"\\u2029"),
                _ => continue,
            };
            writer.write_all(&bytes[written..index])?;
            writer.write_all(escape)?;
            written = index + length;
        }
        writer.write_all(&bytes[written..])
    }

    fn write_null<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.write_null(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_round_trip_and_contain_nothing_that_a_script_interprets() {
        let text = "'\"\\ </script><!--<script <SCRIPT <b> < \r\n\t\u{0} \u{2028}\u{2029} 😀 中文 / <//";
        let mut out = Vec::new();
        write_string(text, &mut out);
        assert_eq!(serde_json::from_slice::<String>(&out).expect("JSON"), text);
        let written = String::from_utf8(out).expect("UTF-8");
        for forbidden in ["</", "<!", "<s", "<S", "\u{2028}", "\u{2029}", "\n", "\r"] {
            assert!(!written.contains(forbidden), "{forbidden:?} in {written}");
        }
    }
}
