//! The patterns of `PSUBSCRIBE`.

/// Returns whether a text matches a pattern with `*`, `?`, `[a-z]`, `[^a]` and `\`.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], _) => text.is_empty(),
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|skipped| matches(rest, &text[skipped..])),
        (_, []) => false,
        ([b'?', rest @ ..], [_, texts @ ..]) => matches(rest, texts),
        ([b'[', class @ ..], [byte, texts @ ..]) => {
            let (is_in, rest) = in_class(class, *byte);
            is_in && matches(rest, texts)
        }
        ([b'\\', exact, rest @ ..] | [exact, rest @ ..], [byte, texts @ ..]) => exact == byte && matches(rest, texts),
    }
}

/// Returns whether a byte is in the class at the start of a pattern, after its bracket, and the
/// rest of the pattern.
fn in_class(class: &[u8], byte: u8) -> (bool, &[u8]) {
    let (is_negated, mut rest) = match class {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, class),
    };
    let mut is_in = false;
    loop {
        rest = match rest {
            [] => return (is_in != is_negated, rest),
            [b']', rest @ ..] => return (is_in != is_negated, rest),
            [b'\\', exact, rest @ ..] => {
                is_in |= *exact == byte;
                rest
            }
            [low, b'-', high, rest @ ..] => {
                is_in |= (*low.min(high)..=*low.max(high)).contains(&byte);
                rest
            }
            [exact, rest @ ..] => {
                is_in |= *exact == byte;
                rest
            }
        };
    }
}
