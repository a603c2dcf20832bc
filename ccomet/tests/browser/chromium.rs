//! A real browser, driven over the protocol of its developer tools.

use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testing::http::connect;
use testing::process::Process;
use tungstenite::{Message, WebSocket, client};

use crate::common::{Folder, PATIENCE, wait_until};

/// A browser with a profile of its own, ended when it is dropped.
pub(crate) struct Chromium {
    _process: Process,
    _profile: Folder,
    socket: WebSocket<TcpStream>,
    last_id: u64,
}

/// A page, by the session that drives it.
#[derive(Debug, Clone)]
pub(crate) struct Page(String);

impl Chromium {
    /// Starts a browser.
    pub(crate) fn start() -> Self {
        let profile = Folder::new("chromium");
        let mut command = Command::new("chromium");
        command
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--remote-debugging-port=0", "--window-size=900,700", "about:blank"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = Process::start(&mut command);
        let mut active = String::new();
        wait_until("Chromium comes up", || {
            active = std::fs::read_to_string(profile.join("DevToolsActivePort")).unwrap_or_default();
            active.contains("/browser/")
        });
        let (port, path) = active.split_once('\n').expect("a port and a path");
        let stream = connect(SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port"))));
        let (socket, _) = client(format!("ws://127.0.0.1:{port}{}", path.trim()), stream).expect("a WebSocket");
        Self { _process: process, _profile: profile, socket, last_id: 0 }
    }

    /// Opens a page in a window that shares nothing with others.
    pub(crate) fn open(&mut self, url: &str) -> Page {
        let context = self.call(None, "Target.createBrowserContext", json!({}))["browserContextId"].clone();
        let target = self.call(
            None,
            "Target.createTarget",
            json!({"url": "about:blank", "browserContextId": context, "newWindow": true}),
        );
        let attached =
            self.call(None, "Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}));
        let page = Page(attached["sessionId"].as_str().expect("a session").to_owned());
        self.call(Some(&page), "Page.enable", json!({}));
        self.call(Some(&page), "Network.enable", json!({}));
        self.call(Some(&page), "Page.navigate", json!({"url": url}));
        page
    }

    /// Sets the screen of a phone for a page, and its user's choice of colours: `light` or `dark`.
    pub(crate) fn set_screen(&mut self, page: &Page, width: u32, colours: &str) {
        let screen = json!({"width": width, "height": 640, "deviceScaleFactor": 2, "mobile": true});
        self.call(Some(page), "Emulation.setDeviceMetricsOverride", screen);
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": colours}]});
        self.call(Some(page), "Emulation.setEmulatedMedia", media);
    }

    /// Returns the value of an expression as JSON.
    pub(crate) fn eval(&mut self, page: &Page, expression: &str) -> Value {
        let arguments = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let reply = self.call(Some(page), "Runtime.evaluate", arguments);
        assert!(reply.get("exceptionDetails").is_none(), "{expression}: {reply}");
        reply["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub(crate) fn wait(&mut self, page: &Page, expression: &str) {
        let start = Instant::now();
        // A page that is still loading may lack what the expression uses.
        let guarded =
            format!("(() => {{ try {{ return Boolean({expression}); }} catch (error) {{ return false; }} }})()");
        while self.eval(page, &guarded) != Value::Bool(true) {
            if start.elapsed() > PATIENCE {
                let text = self.eval(page, "document.body.innerText.slice(-6000)");
                panic!("waited in vain for {expression}: {}", text.as_str().unwrap_or(""));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Cuts a page off from the network, or connects it again.
    pub(crate) fn set_offline(&mut self, page: &Page, offline: bool) {
        let arguments = json!({"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1});
        self.call(Some(page), "Network.emulateNetworkConditions", arguments);
    }

    /// Returns a picture of a page, as PNG in base64.
    pub(crate) fn screenshot(&mut self, page: &Page) -> String {
        let reply = self.call(Some(page), "Page.captureScreenshot", json!({"format": "png"}));
        reply["data"].as_str().expect("a picture").to_owned()
    }

    #[allow(clippy::needless_pass_by_value)] // arguments are made where they are passed
    fn call(&mut self, page: Option<&Page>, method: &str, arguments: Value) -> Value {
        self.last_id += 1;
        let mut request = json!({"id": self.last_id, "method": method, "params": arguments});
        if let Some(Page(session)) = page {
            request["sessionId"] = session.as_str().into();
        }
        self.socket.send(Message::text(request.to_string())).expect("DevTools listens");
        loop {
            let message = self.socket.read().expect("DevTools answers");
            let Message::Text(text) = message else { continue };
            let reply: Value = serde_json::from_str(&text).expect("JSON");
            if reply["id"] == self.last_id {
                assert!(reply.get("error").is_none(), "{method}: {reply}");
                return reply["result"].clone();
            }
        }
    }
}
