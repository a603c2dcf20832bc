//! TLS on the listeners: clients of all transports, certificates that are renewed, and files that
//! cannot be used.

#![cfg(feature = "tls")]

#[path = "common/behind.rs"]
mod behind;
mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use behind::{Behind, make_certificate};
use ccomet::{Config, Server, Tls};
use common::{Client, Folder, Local, config};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ProtocolVersion};

fn files(folder: &Folder) -> Tls {
    Tls { cert: folder.join("fullchain.pem"), key: folder.join("privkey.pem") }
}

/// Starts a server with TLS on the front, which can be reloaded.
fn start(folder: &Folder) -> Behind {
    let tls = make_certificate(folder);
    let mut settings = config(2);
    settings.front.tls = Some(files(folder));
    let mut server = Server::bind(settings.clone()).expect("it starts");
    server.reload_from(move || Ok(settings.clone()));
    let server = Local::run(server);
    Behind { address: server.front, tls, server }
}

#[test]
fn clients_of_all_transports_get_each_message_at_once() {
    start(&Folder::new("tls")).assert_prompt("TLS");
}

#[test]
fn both_versions_of_tls_are_spoken_and_http_1_is_agreed_on() {
    let folder = Folder::new("tls-versions");
    let mut server = start(&folder);
    let roots = server.tls.clone();
    for (version, number) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let pem = std::fs::read(folder.join("fullchain.pem")).expect("a file");
        let mut tls = with_versions(&pem, &[version]);
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        server.tls = Arc::new(tls);
        let mut stream = server.tls([127, 0, 0, 1]);
        stream.write_all(b"GET /channels/a?wait=0 HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        let mut start = [0; 15];
        stream.read_exact(&mut start).expect("a response");
        assert_eq!(&start, b"HTTP/1.1 200 OK");
        assert_eq!(stream.conn.protocol_version(), Some(number));
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
    drop(roots);
}

fn with_versions(pem: &[u8], versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem).expect("PEM")).expect("a certificate");
    ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots).with_no_client_auth()
}

#[test]
fn a_reload_reads_certificates_anew_and_a_bad_one_changes_nothing() {
    let folder = Folder::new("tls-renewal");
    let mut server = start(&folder);
    let mut reader = server.client().events("/channels/news", "");
    let renewed = make_certificate(&folder);
    assert_eq!(Client::connect(server.server.admin).post("/reload", "").status, 200);
    let (earlier, mut publisher) = (std::mem::replace(&mut server.tls, renewed), server.client());
    publisher.publish("news", "by the new certificate");
    assert_eq!(reader.next().message(), "by the new certificate");
    server.tls = earlier;
    let mut stream = server.tls([127, 0, 0, 1]);
    assert!(stream.write_all(b"GET / HTTP/1.1\r\n\r\n").and_then(|()| stream.read(&mut [0; 9])).is_err());
    folder.write("privkey.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let refused = Client::connect(server.server.admin).post("/reload", "");
    assert!(refused.is(422, "front.tls.key"), "{refused}");
    publisher.publish("news", "still the new certificate");
    assert_eq!(reader.next().message(), "still the new certificate");
}

#[test]
fn the_admin_listener_has_a_certificate_of_its_own() {
    let folder = Folder::new("tls-admin");
    let tls = make_certificate(&folder);
    let mut settings = config(1);
    settings.admin.tls = Some(files(&folder));
    let server = Local::start(settings);
    Client::connect(server.front).publish("news", "without TLS");
    let behind = Behind { address: server.admin, tls, server };
    assert_eq!(behind.client().get("/channels").json()["channels"][0]["channel"], "news");
}

#[test]
fn a_client_without_tls_is_not_served_and_harms_nobody() {
    let server = start(&Folder::new("tls-plain"));
    let mut plain = TcpStream::connect(server.address).expect("connected");
    plain.write_all(b"GET /channels/a?wait=0 HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    let mut answer = Vec::new();
    // The alert of TLS, or a reset.
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert_eq!(server.client().get("/channels/a?wait=0").status, 200);
    let metrics = Client::connect(server.server.admin).get("/metrics").to_string();
    assert!(metrics.contains("ccomet_refused_total{code=\"tls_failed\"} 1"), "{metrics}");
}

#[test]
fn a_client_of_a_denied_network_is_disconnected_before_the_handshake() {
    let folder = Folder::new("tls-denied");
    make_certificate(&folder);
    let mut settings = config(1);
    settings.front.tls = Some(files(&folder));
    settings.front.deny = vec!["127.0.0.0/8".parse().expect("a network")];
    let server = Local::start(settings);
    let mut denied = TcpStream::connect(server.front).expect("connected");
    denied.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit");
    // It has sent nothing: the server does not wait for the handshake. The end may be a reset.
    let ended = denied.read(&mut [0; 100]).map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |n| n == 0);
    assert!(ended, "the connection has ended");
    let metrics = Client::connect(server.admin).get("/metrics").to_string();
    assert!(metrics.contains("ccomet_refused_total{code=\"forbidden\"} 1"), "{metrics}");
}

#[test]
fn curl_follows_a_stream_and_publishes() {
    if Command::new("curl").arg("--version").output().is_err() {
        return eprintln!("skipped: curl is not installed");
    }
    let folder = Folder::new("tls-curl");
    let server = start(&folder);
    let url = format!("https://localhost:{}/channels/news", server.address.port());
    let ca = folder.join("fullchain.pem");
    let curl = |arguments: &[&str]| {
        let output = Command::new("curl").args(["-sS", "--cacert"]).arg(&ca).args(arguments).output().expect("curl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(curl(&["-d", "hello", &url]).contains("position"));
    assert!(curl(&[&format!("{url}?after=oldest&wait=0")]).contains("hello"));
}

#[test]
fn each_fault_of_the_files_has_an_error_that_names_it() {
    let folder = Folder::new("tls-faults");
    make_certificate(&folder);
    let other = Folder::new("tls-faults-other");
    make_certificate(&other);
    let (good, theirs) = (files(&folder), files(&other));
    let damaged = folder.write("damaged.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let (empty, locked) = (folder.write("empty.pem", ""), folder.write("locked.pem", locked));
    let missing = folder.join("missing.pem");
    let (cert, key) = (&good.cert, &good.key);
    for (cert, key, expected) in [
        (&missing, key, "front.tls.cert: cannot read missing.pem"),
        (cert, &missing, "front.tls.key: cannot read missing.pem"),
        (&empty, key, "front.tls.cert: empty.pem: it has no certificate in PEM (-----BEGIN CERTIFICATE-----)"),
        (key, cert, "-----BEGIN CERTIFICATE-----), but a private key, which belongs in `key`"),
        (cert, &empty, "front.tls.key: empty.pem: it has no private key in PEM (-----BEGIN PRIVATE KEY-----)"),
        (cert, &locked, "front.tls.key: locked.pem: the key has a passphrase"),
        (cert, &theirs.key, "the key does not belong to the first certificate in fullchain.pem"),
        (&damaged, key, "front.tls.cert: damaged.pem: the first certificate cannot be used"),
    ] {
        let mut settings = Config::default();
        settings.front.tls = Some(Tls { cert: cert.clone(), key: key.clone() });
        let error = settings.check().expect_err(expected).to_string();
        let error = error.replace(&format!("{}/", folder.display()), "").replace(&format!("{}/", other.display()), "");
        assert!(error.contains(expected), "{error}\nexpected: {expected}");
    }
    let mut both = Config::default();
    both.front.tls = Some(good);
    both.front.proxy_protocol = true;
    both.front.trusted_proxies = vec!["10.0.0.0/8".parse().expect("a network")];
    let error = both.check().expect_err("both").to_string();
    assert!(error.contains("front.tls") && error.contains("front.proxy_protocol"), "{error}");
}
