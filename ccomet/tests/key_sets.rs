//! Keys for RS256 and ES256, and key sets of other programs (JWKS). The keys and tokens in `keys/`
//! were made by OpenSSL for these tests alone.

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use ccomet::{Algorithm, Auth, Claims, Key, Verifier, make_token};
use common::stage::{ANN, Stage};
use common::{Client, Folder, Local, config};
use sealed::Address;
use sealed::sim::PeerListener;
use testing::http::Reply;

const RS256: &str = include_str!("keys/rs256.jwt");
const ES256: &str = include_str!("keys/es256.jwt");
const NOW_S: u64 = 1_800_000_000;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name)
}

fn key(id: &str, algorithm: Algorithm, public: &str) -> Key {
    Key { id: id.to_owned(), algorithm, public_key_file: Some(file(public)), ..Key::default() }
}

fn with_keys(keys: Vec<Key>) -> Auth {
    Auth { keys, ..Auth::default() }
}

fn set(path: PathBuf) -> Auth {
    Auth { jwks_file: Some(path), ..Auth::default() }
}

#[test]
fn tokens_of_another_implementation_are_verified() {
    let auth =
        with_keys(vec![key("r", Algorithm::RS256, "rsa_public.pem"), key("p", Algorithm::ES256, "p256_public.pem")]);
    for auth in [auth, set(file("jwks.json"))] {
        let verifier = Verifier::new(&auth).expect("keys");
        for token in [RS256, ES256] {
            let grant = verifier.verify(token.trim(), NOW_S).expect("a grant");
            assert_eq!(grant.subject.as_deref(), Some("ann"));
            // Another signature.
            let forged = token.trim().replacen("eyJzdWIi", "eyJzdWJi", 1);
            assert!(verifier.verify(&forged, NOW_S).is_err(), "{forged}");
        }
    }
}

#[test]
fn a_key_verifies_no_token_of_another_algorithm() {
    let auth =
        with_keys(vec![key("r", Algorithm::ES256, "p256_public.pem"), key("p", Algorithm::RS256, "rsa_public.pem")]);
    let verifier = Verifier::new(&auth).expect("keys");
    for token in [RS256, ES256] {
        assert!(verifier.verify(token.trim(), NOW_S).is_err());
    }
}

#[test]
fn private_keys_sign_what_public_keys_verify() {
    for (algorithm, private, public) in [
        (Algorithm::RS256, "rsa_private.pem", "rsa_public.pem"),
        (Algorithm::ES256, "p256_private.pem", "p256_public.pem"),
        (Algorithm::EdDSA, "private.pem", "public.pem"),
    ] {
        let auth = with_keys(vec![key("k", algorithm, public)]);
        let claims = Claims { exp: NOW_S + 60, ..Claims::default() };
        let token = make_token(&auth, "k", Some(&file(private)), &claims).expect("a token");
        Verifier::new(&auth).expect("a key").verify(&token, NOW_S).expect("a grant");
        assert!(make_token(&auth, "k", None, &claims).is_err(), "there is nothing to sign with");
    }
}

#[test]
fn a_key_that_does_not_fit_its_algorithm_is_an_error() {
    for (algorithm, public, error) in [
        (Algorithm::RS256, "p256_public.pem", "auth.keys: \"k\" is not an RSA key of 2,048 to 8,192 bits in PEM"),
        (Algorithm::RS256, "rsa_weak_public.pem", "auth.keys: \"k\" is not an RSA key of 2,048 to 8,192 bits in PEM"),
        (Algorithm::ES256, "rsa_public.pem", "auth.keys: \"k\" is not a key on the curve P-256 in PEM"),
        (Algorithm::EdDSA, "p256_public.pem", "auth.keys: \"k\" is not an Ed25519 key"),
    ] {
        let refused = Verifier::new(&with_keys(vec![key("k", algorithm, public)])).expect_err(error);
        assert!(refused.to_string().starts_with(error), "{refused}");
    }
}

#[test]
fn a_key_for_which_anyone_can_sign_is_an_error() {
    // Placeholders of zeros, and the point with the other sign.
    for public in ["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAIA="] {
        let key = |public: &str| Key { public_key: Some(public.to_owned()), ..key("k", Algorithm::EdDSA, "") };
        let key = Key { public_key_file: None, ..key(public) };
        let refused = Verifier::new(&with_keys(vec![key])).expect_err(public).to_string();
        assert_eq!(refused, "auth.keys: \"k\" is not an Ed25519 key");
        let folder = Folder::new("jwks-weak");
        let text = format!("{{\"keys\":[{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"{public}\"}}]}}");
        let refused = Verifier::new(&set(folder.write("jwks.json", text))).expect_err(public).to_string();
        assert!(refused.contains("none of its 1 keys can be used"), "{refused}");
    }
}

#[test]
fn a_key_set_without_a_usable_key_is_an_error() {
    let folder = Folder::new("jwks");
    for (text, error) in [
        ("{\"keys\":[]}", "none of its 0 keys can be used"),
        ("{\"keys\":[{\"kty\":\"oct\",\"k\":\"c2VjcmV0\"}]}", "none of its 1 keys can be used"),
        ("{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}]}", "none of its 1 keys can be used"),
        ("{}", "missing field `keys`"),
        ("no JSON", "expected"),
    ] {
        let refused = Verifier::new(&set(folder.write("jwks.json", text))).expect_err(text).to_string();
        assert!(refused.starts_with("auth.jwks_file: ") && refused.contains(error), "{refused}");
    }
    let missing = Verifier::new(&set(folder.join("missing"))).expect_err("no file").to_string();
    assert!(missing.starts_with("auth.jwks_file: ") && missing.contains("cannot be read: "), "{missing}");
}

#[test]
fn a_server_with_a_key_set_needs_tokens_and_a_reload_reads_the_set_anew() {
    let folder = Folder::new("jwks-server");
    let sets = std::fs::read_to_string(file("jwks.json")).expect("a file");
    let mut settings = config(2);
    settings.auth = set(folder.write("jwks.json", &sets));
    let mut server = ccomet::Server::bind(settings.clone()).expect("it starts");
    server.reload_from(move || Ok(settings.clone()));
    let server = Local::run(server);
    let status = |token: &str| {
        Client::connect(server.front).get(&format!("/channels/news?wait=0&token={}", token.trim())).status
    };
    assert_eq!((status(RS256), status(ES256)), (200, 200));
    assert_eq!(Client::connect(server.front).get("/channels/news?wait=0").status, 401);
    folder.write("jwks.json", sets.replace("\"kid\": \"r\"", "\"kid\": \"other\""));
    assert_eq!(Client::connect(server.admin).post("/reload", "").status, 200);
    assert_eq!((status(RS256), status(ES256)), (401, 200));
}

/// A server whose keys are at a URL, and the program that serves them.
struct Fetching {
    stage: Stage,
    provider: PeerListener,
}

impl Fetching {
    fn new(loops: usize) -> Self {
        let stage = Stage::with(1, loops, |config| "http://10.0.0.9/keys?of=us".clone_into(&mut config.auth.jwks_url));
        let provider = stage.sim.listen("10.0.0.9:80".parse::<Address>().expect("an address")).expect("it is free");
        Self { stage, provider }
    }

    /// Answers the next request for the keys within so many seconds. Returns its head.
    fn provide(&self, seconds: u64, status: u16, body: &str) -> Option<String> {
        let mut peer = None;
        self.stage.sim.run_until(Duration::from_secs(seconds), || {
            peer = peer.take().or_else(|| self.provider.accept());
            peer.is_some()
        });
        let mut peer = peer?;
        let head = String::from_utf8(peer.expect("\r\n\r\n")).expect("text");
        peer.send(format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        self.stage.sim.settle();
        Some(head)
    }

    fn ask(&self, token: &str) -> Reply {
        let target = format!("/channels/news?wait=0&token={}", token.trim());
        self.stage.exchange(&mut self.stage.connect(ANN), "GET", &target, "", "")
    }
}

fn sets() -> (String, String) {
    let all = include_str!("keys/jwks.json").to_owned();
    let without_p = all.replace("\"kid\": \"p\"", "\"kid\": \"other\"");
    (all, without_p)
}

#[test]
fn keys_are_fetched_at_the_start_at_an_interval_and_for_an_unknown_key_once_a_minute() {
    let (all, without_p) = sets();
    let server = Fetching::new(3);
    let early = server.ask(RS256);
    assert!(early.is(503, "keys_unavailable") && early.header("retry-after").is_some(), "{early}");
    let without = server.stage.exchange(&mut server.stage.connect(ANN), "GET", "/channels/news?wait=0", "", "");
    assert!(without.is(401, "token_missing"), "{without}");
    let head = server.provide(2, 200, &without_p).expect("a request");
    assert!(head.starts_with("GET /keys?of=us HTTP/1.1\r\n") && head.contains("10.0.0.9"), "{head}");
    // All loops have the keys.
    for _ in 0..9 {
        assert_eq!(server.ask(RS256).status, 200);
    }
    assert_eq!(server.ask(ES256).status, 401);
    assert_eq!(server.provide(50, 200, &all), None, "a minute has not passed");
    server.provide(15, 200, &all).expect("a request");
    assert_eq!(server.ask(ES256).status, 200);
    assert_eq!(server.provide(3_500, 200, &all), None, "all keys are known");
    server.provide(200, 200, &without_p).expect("the interval has passed");
    assert_eq!(server.ask(ES256).status, 401);
}

#[test]
fn a_failed_fetch_keeps_the_keys_and_is_repeated() {
    let (all, _) = sets();
    let server = Fetching::new(1);
    server.provide(2, 200, &all).expect("a request");
    let too_long = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(300_000));
    for (status, body) in [(500, "{}"), (200, "no JSON"), (200, "{\"keys\":[]}"), (200, too_long.as_str())] {
        server.provide(3_700, status, body).expect("a request");
        assert_eq!((server.ask(RS256).status, server.ask(ES256).status), (200, 200));
    }
    server.provide(61, 200, &all).expect("a failed fetch is repeated");
    assert_eq!(server.provide(3_500, 200, &all), None, "the interval has not passed");
}

#[test]
fn a_key_server_that_starts_late_is_asked_soon_and_then_less_and_less_often() {
    let (all, _) = sets();
    let server = Fetching::new(1);
    server.provide(1, 503, "").expect("a request");
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(server.provide(seconds - 1, 503, ""), None, "{seconds} s have not passed");
        server.provide(2, 503, "").expect("the next attempt");
        assert!(server.ask(RS256).is(503, "keys_unavailable"));
    }
    server.provide(61, 200, &all).expect("a request");
    assert_eq!(server.ask(RS256).status, 200);
    let metrics = server.stage.exchange(&mut server.stage.admin(), "GET", "/metrics", "", "").to_string();
    for line in ["{result=\"failed\"} 9\n", "{result=\"fetched\"} 1\n"] {
        assert!(metrics.contains(&format!("ccomet_key_set_fetches_total{line}")), "{metrics}");
    }
}

#[cfg(feature = "tls")]
mod secure {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::process::{Command, Stdio};
    use std::sync::Arc;

    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{ServerConfig, ServerConnection, StreamOwned};

    use super::{RS256, sets};
    use crate::common::{Client, Folder, Process, wait_until};

    #[test]
    fn keys_are_fetched_with_tls_from_a_server_that_the_system_trusts() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).expect("PEM");
        let certificate = CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).expect("PEM");
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
        let (config, listener) = (Arc::new(config.expect("usable")), TcpListener::bind("127.0.0.1:0").expect("a port"));
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let connection = ServerConnection::new(config.clone()).expect("a connection");
                let mut stream = StreamOwned::new(connection, socket.expect("a socket"));
                let (body, mut request) = (sets().0, [0; 1_024]);
                let _ = stream.read(&mut request);
                let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                let _ = stream.flush();
            }
        });
        let folder = Folder::new("jwks-tls");
        let roots = folder.write("roots.pem", made.cert.pem());
        let settings = format!("auth.jwks_url = \"https://localhost:{port}/keys\"\nlog.level = \"info\"\n");
        let settings = folder.write("ccomet.toml", settings);
        let mut command = Command::new(env!("CARGO_BIN_EXE_ccomet"));
        command.args(["--front", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"]).arg(settings);
        command.stderr(Stdio::piped()).env("SSL_CERT_FILE", roots);
        let server = Process::run(&mut command);
        let mut client = Client::connect(server.front);
        let target = format!("/channels/news?wait=0&token={}", RS256.trim());
        wait_until("the keys are there", || client.get(&target).status == 200);
        // The operator learns what is wrong with a server that the system does not trust.
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let mut server = Process::run(command.env("SSL_CERT_FILE", folder.write("other.pem", other.cert.pem())));
        let line = server.errors().map(|line| line.expect("text")).find(|line| line.contains("cannot fetch the keys"));
        assert!(line.expect("a line").contains("the TLS handshake failed: the system does not trust"));
    }
}
