//! Public keys in the form of X.509 (`SubjectPublicKeyInfo`, RFC 5280), as `openssl pkey -pubout`
//! writes them.

/// The DER before the 32 bytes of an Ed25519 public key (RFC 8410).
const ED25519: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
pub(super) const ED25519_BYTES: usize = 32;
/// The Ed25519 keys of small order, with the sign bit cleared. Anyone can sign for them: all zeros,
/// which may be a placeholder in a configuration, is one of them.
const ED25519_WEAK: [[u8; ED25519_BYTES]; 7] = [
    [0; ED25519_BYTES],
    ends(1, 0, 0),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
    ends(0xec, 0xff, 0x7f),
    ends(0xed, 0xff, 0x7f),
    ends(0xee, 0xff, 0x7f),
];

/// Returns an array with this first and last byte, and the others between them.
const fn ends(first: u8, others: u8, last: u8) -> [u8; ED25519_BYTES] {
    let mut bytes = [others; ED25519_BYTES];
    (bytes[0], bytes[ED25519_BYTES - 1]) = (first, last);
    bytes
}

/// The DER before the 65 bytes of a point on the curve P-256 (RFC 5480).
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// An uncompressed point: a byte, and two coordinates of 32 bytes.
pub(super) const P256_BYTES: usize = 65;

/// The algorithm identifier of RSA keys (RFC 3279).
const RSA: [u8; 15] = [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;

/// Returns the 32 bytes of an Ed25519 key.
pub(super) fn ed25519(der: &[u8]) -> Option<&[u8]> {
    der.strip_prefix(&ED25519).filter(|key| key.len() == ED25519_BYTES)
}

/// Returns whether an Ed25519 key has the length of one, and is not one for which anyone can sign.
pub(super) fn is_strong_ed25519(key: &[u8]) -> bool {
    let Ok(mut key) = <[u8; ED25519_BYTES]>::try_from(key) else { return false };
    key[ED25519_BYTES - 1] &= 0x7f;
    !ED25519_WEAK.contains(&key)
}

/// Returns the point of a key on P-256.
pub(super) fn p256(der: &[u8]) -> Option<&[u8]> {
    der.strip_prefix(&P256).filter(|key| key.len() == P256_BYTES)
}

/// Returns an RSA key as `RSAPublicKey` (PKCS #1).
pub(super) fn rsa(der: &[u8]) -> Option<&[u8]> {
    let (inside, []) = element(der, SEQUENCE)? else { return None };
    let (bits, []) = element(inside.strip_prefix(&RSA)?, BIT_STRING)? else { return None };
    // The number of unused bits comes first.
    bits.strip_prefix(&[0])
}

/// Returns an RSA key as `RSAPublicKey` (PKCS #1), from its modulus and exponent as unsigned
/// big-endian numbers.
pub(super) fn rsa_of_parts(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let integer = |number: &[u8]| {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        let number = number.get(zeros..).unwrap_or_default();
        // A zero keeps the number from being negative.
        let sign: &[u8] = if number.first().is_some_and(|top| *top < 0x80) { &[] } else { &[0] };
        encoded(INTEGER, &[sign, number].concat())
    };
    encoded(SEQUENCE, &[integer(modulus), integer(exponent)].concat())
}

/// Returns the number of bits of the modulus of an `RSAPublicKey`.
pub(super) fn rsa_bits(key: &[u8]) -> Option<usize> {
    let (inside, []) = element(key, SEQUENCE)? else { return None };
    let (modulus, _) = element(inside, INTEGER)?;
    let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
    let top = modulus.first()?;
    Some(modulus.len() * 8 - top.leading_zeros() as usize)
}

/// Splits DER into the content of its first element, which has this tag, and the rest.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0x00..=0x7f => (usize::from(*length), rest),
        // The length itself has one or two bytes, which suffices for all keys that are accepted.
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), rest.get(2..)?),
        _ => return None,
    };
    rest.split_at_checked(length).filter(|_| *first == tag)
}

/// Returns an element of DER with less than 64 KiB of content.
fn encoded(tag: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = (content.len() as u16).to_be_bytes();
    let head: &[u8] = match content.len() {
        0..=0x7f => &[tag, low],
        0x80..=0xff => &[tag, 0x81, low],
        _ => &[tag, 0x82, high, low],
    };
    [head, content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_rsa_key_of_parts_is_der_without_negative_numbers() {
        assert_eq!(rsa_of_parts(&[0, 0, 0x7f], &[1, 0, 1]), [0x30, 8, 2, 1, 0x7f, 2, 3, 1, 0, 1]);
        assert_eq!(rsa_of_parts(&[0x80], &[3]), [0x30, 7, 2, 2, 0, 0x80, 2, 1, 3]);
        for bits in [1, 1_000, 2_048, 4_096] {
            let mut modulus = vec![0xff; bits / 8 + 1];
            modulus[0] = ((1_u16 << (bits % 8)) - 1) as u8;
            let key = rsa_of_parts(&modulus, &[1, 0, 1]);
            assert_eq!(rsa_bits(&key), Some(bits));
            let spki = encoded(SEQUENCE, &[&RSA[..], &encoded(BIT_STRING, &[&[0], &key[..]].concat())].concat());
            assert_eq!(rsa(&spki), Some(&key[..]));
            assert_eq!(rsa(&spki[..spki.len() - 1]), None);
        }
        assert_eq!((rsa(&[]), ed25519(&[]), p256(&[])), (None, None, None));
    }
}
