//! A server behind a proxy that speaks TLS, and what no client may notice of the proxy.

#![allow(dead_code, unreachable_pub, missing_debug_implementations)] // each test uses a part

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tungstenite::{Message, WebSocket};

use crate::common::{Client, Folder, Local, PATIENCE, wait_until};

pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A server, and the address of the proxy in front of it.
pub struct Behind {
    pub address: SocketAddr,
    pub tls: Arc<ClientConfig>,
    pub server: Local,
}

impl Behind {
    /// Opens a connection with TLS from an address of loopback.
    pub fn tls(&self, from: [u8; 4]) -> Tls {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((from, 0)).into()).expect("a port");
        socket.connect(&self.address.into()).expect("connected");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        stream.set_nodelay(true).expect("no delay");
        let name = ServerName::try_from("localhost").expect("a name");
        StreamOwned::new(ClientConnection::new(Arc::clone(&self.tls), name).expect("a client"), stream)
    }

    pub fn client(&self) -> Client<Tls> {
        Client::over(self.tls([127, 0, 0, 1]))
    }

    pub fn socket(&self, target: &str) -> WebSocket<Tls> {
        self.socket_from([127, 0, 0, 1], target)
    }

    pub fn socket_from(&self, from: [u8; 4], target: &str) -> WebSocket<Tls> {
        let url = format!("wss://localhost:{}{target}", self.address.port());
        let (mut socket, _) = tungstenite::client(url, self.tls(from)).expect("it opens");
        assert_eq!(item(&mut socket)["type"], "hello");
        socket
    }

    /// Returns the status of a poll from this address.
    pub fn status(&self, from: [u8; 4], headers: &str) -> u16 {
        let mut client = Client::over(self.tls(from));
        client.ask("GET", "/channels/news?wait=0", headers);
        client.reply().status
    }

    pub fn subscribers(&self, channel: &str) -> u64 {
        let info = Client::connect(self.server.admin).get(&format!("/info?cname={channel}")).json();
        info["subscribers"].as_u64().expect("a number")
    }

    /// Asserts that each message arrives at once, over every transport.
    pub fn assert_prompt(&self, what: &str) {
        let mut publisher = self.client();
        let mut events = self.client().events("/channels/news", "");
        let mut lines = self.client();
        lines.ask("GET", "/channels/news", "Accept: application/x-ndjson\r\n");
        assert_eq!(lines.head().0, 200);
        assert!(lines.chunk().expect("a line").contains("hello"));
        let mut page = self.client();
        page.ask("GET", "/channels/news?transport=iframe", "");
        assert_eq!(page.head().0, 200);
        let mut socket = self.socket("/channels/news");
        let mut poll = self.client();
        let mut after = publisher.publish("other", "");
        for n in 0..5 {
            // Nothing follows the message: a transport that waited for more would wait for ever.
            after.clone_from(&publisher.publish("news", format!("message {n}")));
            assert_eq!(events.next().message(), format!("message {n}"), "{what}");
            for client in [&mut lines, &mut page] {
                while !client.chunk().expect("the stream goes on").contains(&format!("message {n}")) {}
            }
            assert_eq!(item(&mut socket)["data"], format!("message {n}"));
        }
        // A poll waits for the next message, and is then answered.
        poll.ask("GET", &format!("/channels/news?after={after}"), "");
        wait_until("the poll waits", || self.subscribers("news") == 5);
        publisher.publish("news", "the last");
        assert_eq!(poll.reply().messages(), ["the last"]);
        // The WebSocket can publish, too.
        socket.send(Message::text(r#"{"type":"publish","channel":"news","data":"back","ref":1}"#)).expect("sent");
        let items = [item(&mut socket), item(&mut socket), item(&mut socket)];
        assert!(items.iter().any(|item| item["type"] == "published"), "{items:?}");
        // Another loop, which may get the message a little later, may answer the poll.
        wait_until("a poll has both", || {
            poll.get(&format!("/channels/news?after={after}")).messages() == ["the last", "back"]
        });
        // The server does not wait for clients that leave.
        drop((events, lines, page, socket));
        wait_until("nobody is left", || self.subscribers("news") == 0);
    }

    /// Asserts that a WebSocket can publish after a silence that is longer than the server
    /// remembers an address without requests.
    pub fn assert_sockets_outlast_silence(&self, what: &str) {
        let (ann, bob) = ([127, 0, 0, 3], [127, 0, 0, 4]);
        let mut socket = self.socket_from(ann, "/channels/news");
        // The server forgets addresses about once a second.
        let mut other = Client::over(self.tls(bob));
        for _ in 0..2 {
            assert_eq!(other.get("/channels/other?wait=2").status, 200, "{what}");
            socket.send(Message::text(r#"{"type":"publish","channel":"news","data":"back","ref":1}"#)).expect("sent");
            let items = [item(&mut socket), item(&mut socket)];
            assert!(items.iter().any(|item| item["type"] == "published"), "{what}: {items:?}");
            assert!(items.iter().any(|item| item["data"] == "back"), "{what}: {items:?}");
        }
    }
}

pub fn make_certificate(folder: &Folder) -> Arc<ClientConfig> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    folder.write("fullchain.pem", &pem);
    folder.write("privkey.pem", &key);
    folder.write("comet.pem", pem.clone() + &key);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM")).expect("a certificate");
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

/// Returns the single item of the next reply that has one.
pub fn item(socket: &mut WebSocket<Tls>) -> Value {
    loop {
        let Message::Text(text) = socket.read().expect("a message") else { continue };
        let reply: Value = serde_json::from_str(&text).expect("JSON");
        if let [item] = reply["items"].as_array().expect("items").as_slice() {
            return item.clone();
        }
    }
}

/// Returns a setting of a proxy, in seconds.
pub fn seconds(configuration: &str, name: &str) -> u64 {
    let value = configuration.split_once(&format!("{name} ")).expect("the setting").1;
    value.split_once('s').expect("seconds").0.parse().expect("a number")
}
