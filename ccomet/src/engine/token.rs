//! Tokens, each of which opens one channel.

/// A secret that opens a channel: 128 random bits.
#[derive(Clone, Copy)]
pub(crate) struct Token([u8; 16]);

impl Token {
    pub(crate) fn new(bits: [u8; 16]) -> Self {
        Self(bits)
    }

    /// Parses 32 hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let bits = u128::from_str_radix(text, 16).ok().filter(|_| is_hex)?;
        Some(Self(bits.to_be_bytes()))
    }

    /// Compares two tokens in constant time.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let differing = self.0.iter().zip(other.0).fold(0, |differing, (mine, theirs)| differing | (mine ^ theirs));
        std::hint::black_box(differing) == 0
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Hides the secret from logs.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}
