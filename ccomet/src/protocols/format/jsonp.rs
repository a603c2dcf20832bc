//! JSONP: a reply within a function call. The function's name is the only part of a request that
//! the server returns as script.

/// The maximum length of a name, in bytes.
const BYTES_MAX: usize = 128;

/// Returns whether this is a JavaScript identifier in ASCII, dotted or indexed: `cb`, `ns.cb`,
/// `cbs[3]`, `jQuery1_2`.
pub(crate) fn is_callback(text: &str) -> bool {
    if text.is_empty() || text.len() > BYTES_MAX {
        return false;
    }
    text.split('.').all(|part| {
        let (name, indexes) = part.find('[').map_or((part, ""), |bracket| part.split_at(bracket));
        is_identifier(name) && are_indexes(indexes)
    })
}

fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b'$';
    bytes.next().is_some_and(letter) && bytes.all(|byte| letter(byte) || byte.is_ascii_digit())
}

/// Returns whether a text is a sequence of `[123]`; it may be empty.
fn are_indexes(mut text: &str) -> bool {
    while !text.is_empty() {
        let Some((index, rest)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) else { return false };
        if index.is_empty() || !index.bytes().all(|byte| byte.is_ascii_digit()) {
            return false;
        }
        text = rest;
    }
    true
}

/// Wraps JSON into a function call for a script tag. The comment in front keeps a plug-in from
/// reading the reply as its own format, since the name of a callback could have the magic bytes of
/// that format.
pub(crate) fn wrap(callback: Option<&str>, json: Vec<u8>) -> Vec<u8> {
    let Some(callback) = callback else {
        let mut json = json;
        json.push(b'\n');
        return json;
    };
    let mut out = Vec::with_capacity(json.len() + callback.len() + 8);
    out.extend_from_slice(b"/**/");
    out.extend_from_slice(callback.as_bytes());
    out.push(b'(');
    out.extend_from_slice(&json);
    out.extend_from_slice(b");\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_no_magic_bytes_of_a_plug_in() {
        assert_eq!(wrap(Some("f"), b"{}".to_vec()), b"/**/f({});\n");
    }

    #[test]
    fn only_dotted_or_indexed_identifiers_are_callbacks() {
        for good in ["cb", "ns.cb", "jQuery123_456", "$", "_a.b.c", "cbs[0]", "a[1][2].b[3]", &"x".repeat(128)] {
            assert!(is_callback(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "1a",
            "a b",
            "a-b",
            "a(",
            "alert(1)//",
            "a;b",
            "a[",
            "a[]",
            "a[x]",
            "a[1",
            "a]",
            "[1]",
            "a['b']",
            "a\n",
            "a<b",
            "é",
            "a\u{2028}",
            &"x".repeat(129),
        ] {
            assert!(!is_callback(bad), "{bad:?}");
        }
    }
}
