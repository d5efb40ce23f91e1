//! Chromium without a window, spoken to by its debugging protocol: just what the tests need.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::daemon::{Daemon, PATIENCE};

pub(super) struct Browser {
    process: Child,
    socket: WebSocketStream<tokio::net::TcpStream>,
    next: u64,
    /// Events that nobody has looked at.
    pub(super) events: Vec<Value>,
    _profile: tempfile::TempDir,
}

/// Whether there is one, installed now if need be; says so where there isn't.
pub(super) fn there_is_one() -> bool {
    let there =
        || Command::new("chromium").arg("--version").output().is_ok_and(|o| o.status.success());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if there() {
        return true;
    }
    let install = Command::new(root.join("integration/packages")).arg("chromium").output();
    if let Ok(install) = &install {
        eprintln!("{}", String::from_utf8_lossy(&install.stderr));
    }
    let there = there();
    if !there {
        eprintln!("SKIPPED: chromium can't be had here, so nobody has looked at the status page");
    }
    there
}

impl Browser {
    /// Starts one beside a daemon, on its node's network, with an empty page.
    pub(super) async fn start(daemon: &Daemon) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let command = format!(
            "exec chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage \
             --no-first-run --disable-background-networking --disable-component-update \
             --disable-sync --hide-scrollbars --remote-debugging-port=0 --user-data-dir={} about:blank",
            profile.path().display()
        );
        let process = daemon
            .on_node(&command)
            // What it leaves there when it is killed goes with the profile.
            .env("TMPDIR", profile.path())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(profile.path().join("stderr")).unwrap())
            .spawn()
            .unwrap();
        // It writes its port and the path of its own socket there.
        let file = profile.path().join("DevToolsActivePort");
        let read = || std::fs::read_to_string(&file).unwrap_or_default();
        daemon.until("chromium listens", || read().lines().count() >= 2).await;
        let text = read();
        let mut lines = text.lines();
        let (port, path) = (lines.next().unwrap(), lines.next().unwrap());
        let address = format!("127.0.0.1:{port}");
        let netns = format!("/proc/{}/ns/net", daemon.process_id());
        let connect = || std::net::TcpStream::connect(&address);
        let stream = haled::sys::netns::within(netns.as_ref(), connect).unwrap();
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let (socket, _) =
            tokio_tungstenite::client_async(format!("ws://{address}{path}"), stream).await.unwrap();
        let mut browser = Self { process, socket, next: 0, events: Vec::new(), _profile: profile };
        browser.open_page().await;
        browser
    }

    async fn open_page(&mut self) {
        // Flat: every later call goes to the one page, by its session.
        let made = self.call_in(None, "Target.createTarget", json!({ "url": "about:blank" })).await;
        let target = json!({ "targetId": made["targetId"], "flatten": true });
        let attached = self.call_in(None, "Target.attachToTarget", target).await;
        self.events.clear();
        self.events.push(json!({ "session": attached["sessionId"] }));
        for domain in ["Page.enable", "Network.enable", "Runtime.enable", "Log.enable"] {
            self.call(domain, json!({})).await;
        }
    }

    /// Calls a method on the page.
    pub(super) async fn call(&mut self, method: &str, params: Value) -> Value {
        let session = self.events[0]["session"].as_str().unwrap().to_owned();
        self.call_in(Some(&session), method, params).await
    }

    async fn call_in(&mut self, session: Option<&str>, method: &str, params: Value) -> Value {
        self.next += 1;
        let mut call = json!({ "id": self.next, "method": method, "params": params });
        if let Some(session) = session {
            call["sessionId"] = session.into();
        }
        self.socket.send(Message::text(call.to_string())).await.unwrap();
        loop {
            let next = tokio::time::timeout(PATIENCE, self.socket.next()).await;
            let message = next.expect("chromium does not answer").unwrap().unwrap();
            let Message::Text(text) = message else { continue };
            let message: Value = serde_json::from_str(&text).unwrap();
            if message["id"] == self.next {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    pub(super) async fn go(&mut self, url: &str) {
        let went = self.call("Page.navigate", json!({ "url": url })).await;
        assert!(went["errorText"].is_null(), "{went}");
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'").await;
    }

    /// The value of an expression in the page.
    pub(super) async fn value(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true });
        let result = self.call("Runtime.evaluate", params).await;
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression in the page is true.
    pub(super) async fn until(&mut self, expression: &str) {
        let began = Instant::now();
        while self.value(expression).await != true {
            if began.elapsed() > PATIENCE {
                let page = self.value("document.documentElement.outerHTML").await;
                panic!("never came: {expression}\n{}", page.as_str().unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(super) async fn press(&mut self, key: &str, text: &str) {
        let mut params = json!({ "type": "keyDown", "key": key, "code": key, "text": text });
        if key == "Tab" {
            params["windowsVirtualKeyCode"] = 9.into();
        } else if key == "Enter" {
            params["windowsVirtualKeyCode"] = 13.into();
        }
        self.call("Input.dispatchKeyEvent", params.clone()).await;
        params["type"] = "keyUp".into();
        params.as_object_mut().unwrap().remove("text");
        self.call("Input.dispatchKeyEvent", params).await;
    }

    /// A picture of the whole page, `width` wide, into `file`.
    pub(super) async fn picture(&mut self, file: &Path, width: u32, dark: bool) {
        let size = json!({
            "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", features).await;
        let params = json!({ "format": "png", "captureBeyondViewport": true });
        let shot = self.call("Page.captureScreenshot", params).await;
        let png = base64::engine::general_purpose::STANDARD.decode(shot["data"].as_str().unwrap());
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, png.unwrap()).unwrap();
    }

    /// What the page asked for, by URL.
    pub(super) fn requests(&self) -> Vec<String> {
        let sent = self.events.iter().filter(|e| e["method"] == "Network.requestWillBeSent");
        sent.map(|event| event["params"]["request"]["url"].as_str().unwrap().to_owned()).collect()
    }

    /// Whatever the page complained of.
    pub(super) fn complaints(&self) -> Vec<&Value> {
        let bad = |event: &&Value| {
            let params = &event["params"];
            match event["method"].as_str() {
                Some("Runtime.exceptionThrown") => true,
                Some("Log.entryAdded") => params["entry"]["level"] == "error",
                Some("Runtime.consoleAPICalled") => {
                    params["type"] == "error" || params["type"] == "warning"
                }
                _ => false,
            }
        };
        self.events.iter().filter(bad).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
