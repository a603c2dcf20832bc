use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::{EncodingKey, Header, encode};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::*;
use crate::config::auth::{Algorithm as Setting, Key, Secret};

const SECRET: &str = "a secret that is long enough for it";
const NOW_S: u64 = 1_800_000_000;

/// Creates a token that is signed with the private key.
fn signed_by_pair(kid: Option<&str>) -> String {
    crypto::install();
    encode(&header(Algorithm::EdDSA, kid), &claims(), &EncodingKey::from_ed_der(&private_key())).expect("a token")
}

/// Returns the private key, which is the same in all runs: 32 bytes in their DER frame.
fn private_key() -> Vec<u8> {
    let prefix = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    [&prefix[..], &[7; 32]].concat()
}

fn public_key() -> Vec<u8> {
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&private_key()).expect("a key");
    pair.public_key().as_ref().to_vec()
}

fn shared(id: &str, secret: &str) -> Key {
    Key { id: id.to_owned(), secret: Some(Secret::new(secret)), ..Key::default() }
}

fn public(id: &str) -> Key {
    let public_key = Some(BASE64.encode(public_key()));
    Key { id: id.to_owned(), algorithm: Setting::EdDSA, public_key, ..Key::default() }
}

fn verifier(keys: Vec<Key>) -> Verifier {
    Verifier::new(&Auth { keys, ..Auth::default() }).expect("keys")
}

fn claims() -> Value {
    json!({"sub": "ann", "exp": NOW_S + 60, "subscribe": ["news.*"], "publish": ["chat"]})
}

fn header(algorithm: Algorithm, kid: Option<&str>) -> Header {
    Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) }
}

fn signed(kid: Option<&str>, claims: &Value) -> String {
    crypto::install();
    encode(&header(Algorithm::HS256, kid), claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("a token")
}

/// Creates a token with these parts, signed by HMAC with that key.
fn forged(header: &Value, claims: &Value, key: &[u8]) -> String {
    let message = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    let signature = ring::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", BASE64.encode(signature))
}

#[test]
fn a_token_of_either_algorithm_grants_its_claims() {
    let both = verifier(vec![shared("s", SECRET), public("e")]);
    for token in [signed(Some("s"), &claims()), signed_by_pair(Some("e"))] {
        let grant = both.verify(&token, NOW_S).expect("a grant");
        assert_eq!(grant.subject.as_deref(), Some("ann"));
        assert_eq!(grant.expires_s, Some(NOW_S + 60));
        assert!(grant.subscribe[0].matches("news.uk") && grant.publish[0].matches("chat"));
        assert!(grant.presence.is_empty());
    }
}

#[test]
fn times_are_exact_to_the_second() {
    let auth = Auth { keys: vec![shared("s", SECRET)], leeway_s: 0, ..Auth::default() };
    let verifier = Verifier::new(&auth).expect("keys");
    let token = signed(None, &json!({"exp": NOW_S + 60, "nbf": NOW_S}));
    assert_eq!(verifier.verify(&token, NOW_S - 1), Err(Refused::NotYet));
    assert!(verifier.verify(&token, NOW_S).is_ok() && verifier.verify(&token, NOW_S + 59).is_ok());
    assert_eq!(verifier.verify(&token, NOW_S + 60), Err(Refused::Expired));
    let with_fraction = signed(None, &json!({"exp": f64::from(NOW_S as u32) + 0.5}));
    assert!(verifier.verify(&with_fraction, NOW_S - 1).is_ok());
    assert_eq!(verifier.verify(&with_fraction, NOW_S), Err(Refused::Expired));
}

#[test]
fn nbf_may_be_ahead_of_the_servers_clock_by_the_leeway() {
    let verifier = verifier(vec![shared("s", SECRET)]);
    let token = |nbf: u64| signed(None, &json!({"exp": NOW_S + 600, "nbf": nbf}));
    assert!(verifier.verify(&token(NOW_S + 1), NOW_S).is_ok());
    assert!(verifier.verify(&token(NOW_S + 60), NOW_S).is_ok());
    assert_eq!(verifier.verify(&token(NOW_S + 61), NOW_S), Err(Refused::NotYet));
}

#[test]
fn a_subject_may_be_the_number_of_a_user() {
    let verifier = verifier(vec![shared("s", SECRET)]);
    for number in [json!(7), json!(-7), json!(u64::MAX)] {
        let token = signed(None, &json!({"exp": NOW_S + 60, "sub": number}));
        let grant = verifier.verify(&token, NOW_S).expect("a grant");
        assert_eq!(grant.subject.as_deref(), Some(&*number.to_string()));
    }
    let fraction = signed(None, &json!({"exp": NOW_S + 60, "sub": 7.5}));
    assert_eq!(verifier.verify(&fraction, NOW_S), Err(Refused::Subject));
}

#[test]
fn the_longest_token_and_the_shortest_key_are_accepted() {
    let (id, secret) = ("i".repeat(128), "s".repeat(32));
    let key = EncodingKey::from_secret(secret.as_bytes());
    let verifier = verifier(vec![shared(&id, &secret)]);
    let token = |filling: usize| {
        let claims = json!({"exp": NOW_S + 60, "filling": "f".repeat(filling)});
        encode(&header(Algorithm::HS256, Some(&id)), &claims, &key).expect("a token")
    };
    let is_longest = |filling: &usize| token(*filling).len() == TOKEN_BYTES_MAX;
    let filling = (5_500..6_100).find(is_longest).expect("one has that length");
    assert!(verifier.verify(&token(filling), NOW_S).is_ok());
    assert_eq!(verifier.verify(&token(filling + 3), NOW_S), Err(Refused::Invalid));
    let too_long = Auth { keys: vec![shared(&"i".repeat(129), &secret)], ..Auth::default() };
    assert!(matches!(Verifier::new(&too_long), Err(AuthError::Id(_))));
}

#[test]
fn a_malformed_claim_is_refused_and_named() {
    let verifier = verifier(vec![shared("s", SECRET)]);
    let exp = NOW_S + 60;
    for (claims, refused) in [
        (json!({}), Refused::Expiry),
        (json!({"exp": "soon"}), Refused::Expiry),
        (json!({"exp": -1}), Refused::Expiry),
        (json!({"exp": 1e300}), Refused::Expiry),
        (json!({"exp": exp, "nbf": "x"}), Refused::NotBefore),
        (json!({"exp": exp, "subscribe": "news"}), Refused::Subscribe),
        (json!({"exp": exp, "subscribe": [""]}), Refused::Subscribe),
        (json!({"exp": exp, "publish": ["a,b"]}), Refused::Publish),
        (json!({"exp": exp, "presence": {}}), Refused::Presence),
        (json!({"exp": exp, "sub": true}), Refused::Subject),
        (json!({"exp": exp, "sub": 1.5}), Refused::Subject),
        (json!({"exp": exp, "aud": "somebody else"}), Refused::Audience),
    ] {
        assert_eq!(verifier.verify(&signed(None, &claims), NOW_S), Err(refused), "{claims}");
    }
    // The error reveals nothing about the claims of a token with a foreign signature.
    let strange =
        forged(&json!({"alg": "HS256", "kid": "s"}), &json!({"exp": "soon"}), b"another secret, as long as ours is");
    assert_eq!(verifier.verify(&strange, NOW_S), Err(Refused::Invalid));
}

#[test]
fn a_token_is_valid_for_its_audience_alone() {
    let auth = Auth { keys: vec![shared("s", SECRET)], audience: Some("us".to_owned()), ..Auth::default() };
    let verifier = Verifier::new(&auth).expect("keys");
    let verify = |aud: Value| verifier.verify(&signed(None, &json!({"exp": NOW_S + 60, "aud": aud})), NOW_S);
    assert!(verify(json!("us")).is_ok() && verify(json!(["them", "us"])).is_ok());
    for other in [json!("them"), json!([]), json!(["them"]), json!(null), json!("u")] {
        assert_eq!(verify(other.clone()), Err(Refused::Audience), "{other}");
    }
}

#[test]
fn the_key_determines_the_algorithm_and_the_token_never_does() {
    let both = verifier(vec![shared("s", SECRET), public("e")]);
    // The public key is not secret: a token that is signed with it as an HMAC secret must be
    // refused.
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(public_key()));
    let claims = claims();
    for (header, key) in [
        (json!({"alg": "HS256", "kid": "e"}), public_key()),
        (json!({"alg": "HS256", "kid": "e"}), pem.into_bytes()),
        (json!({"alg": "EdDSA", "kid": "e"}), public_key()),
        (json!({"alg": "EdDSA", "kid": "s"}), SECRET.into()),
        (json!({"alg": "HS512", "kid": "s"}), SECRET.into()),
        (json!({"alg": "none", "kid": "s"}), SECRET.into()),
        (json!({"alg": "None", "kid": "s"}), SECRET.into()),
        (json!({"alg": "HS256", "kid": "s", "crit": ["exp"]}), SECRET.into()),
    ] {
        assert_eq!(both.verify(&forged(&header, &claims, &key), NOW_S), Err(Refused::Invalid), "{header}");
    }
    let good = forged(&json!({"alg": "HS256", "kid": "s"}), &claims, SECRET.as_bytes());
    assert!(both.verify(&good, NOW_S).is_ok(), "what is forged here is well made otherwise");
    let unsigned = format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), BASE64.encode(claims.to_string()));
    assert_eq!(verifier(vec![shared("s", SECRET)]).verify(&unsigned, NOW_S), Err(Refused::Invalid));
}

#[test]
fn a_token_must_name_its_key_if_there_are_several() {
    let two = verifier(vec![shared("a", "another secret, that is as long as that one"), shared("s", SECRET)]);
    assert!(two.verify(&signed(Some("s"), &claims()), NOW_S).is_ok());
    for kid in [None, Some("a"), Some("b"), Some("")] {
        let refused = if kid.is_none() { Refused::KeyMissing } else { Refused::Invalid };
        assert_eq!(two.verify(&signed(kid, &claims()), NOW_S), Err(refused), "{kid:?}");
    }
    let one = verifier(vec![shared("s", SECRET)]);
    assert!(one.verify(&signed(None, &claims()), NOW_S).is_ok());
    assert_eq!(one.verify(&signed(Some("b"), &claims()), NOW_S), Err(Refused::Invalid));
}

#[test]
fn a_token_with_any_letter_changed_is_refused() {
    let verifier = verifier(vec![shared("s", SECRET)]);
    let token = signed(Some("s"), &claims());
    assert!(verifier.verify(&token, NOW_S).is_ok());
    for at in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).expect("ASCII");
        // A token whose `kid` is changed may be equivalent to one without `kid`.
        assert!(verifier.verify(&changed, NOW_S).is_err(), "{at}: {changed}");
        assert_eq!(verifier.verify(&token[..at], NOW_S), Err(Refused::Invalid), "{at} letters");
    }
    let long = json!({"exp": NOW_S + 60, "sub": "x".repeat(TOKEN_BYTES_MAX)});
    assert_eq!(verifier.verify(&signed(None, &long), NOW_S), Err(Refused::Invalid));
}

#[test]
fn malformed_keys_are_refused_and_never_shown() {
    let short = "31 letters are one letter short";
    assert!(short.len() < 32);
    let refused = |keys: Vec<Key>| Verifier::new(&Auth { keys, ..Auth::default() }).expect_err("no keys");
    assert!(matches!(refused(vec![shared("s", short)]), AuthError::Short(_)));
    assert!(matches!(refused(vec![shared("s", SECRET), public("s")]), AuthError::Id(_)));
    assert!(matches!(refused(vec![shared("", SECRET)]), AuthError::Id(_)));
    let no_key = Key { public_key: Some("AAAA".to_owned()), ..public("e") };
    assert!(matches!(refused(vec![no_key]), AuthError::NotAKey { .. }));
    let both = Key { public_key: public("e").public_key, ..shared("s", SECRET) };
    assert!(matches!(refused(vec![both.clone()]), AuthError::Parts { .. }));
    assert!(matches!(refused(vec![Key { id: "s".to_owned(), ..Key::default() }]), AuthError::Parts { .. }));
    for shown in [format!("{both:?}"), refused(vec![shared("s", short)]).to_string(), refused(vec![both]).to_string()] {
        assert!(!shown.contains(SECRET) && !shown.contains(short), "{shown}");
    }
}

#[test]
fn a_public_key_is_read_from_pem_and_base64() {
    let der = [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00][..], &public_key()].concat();
    let inside = base64::engine::general_purpose::STANDARD.encode(der);
    let (first, second) = inside.split_at(40);
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{first}\n{second}\n-----END PUBLIC KEY-----\n");
    let key = |text: String| Key { public_key: Some(text), ..public("e") };
    let token = signed_by_pair(None);
    for text in [pem, BASE64.encode(public_key()), base64::engine::general_purpose::STANDARD.encode(public_key())] {
        assert!(verifier(vec![key(text.clone())]).verify(&token, NOW_S).is_ok(), "{text}");
    }
}
