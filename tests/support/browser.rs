//! Headless Chromium, driven over a pipe.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::daemon::PATIENCE;

/// Chromium reads commands from descriptor 3 and answers on descriptor 4. No name resolves, so the browser
/// can only reach this machine.
const START: &str = r#"exec chromium --headless --no-sandbox --remote-debugging-pipe \
    --user-data-dir="$0" --host-resolver-rules="MAP * ~NOTFOUND, EXCLUDE 127.0.0.1" \
    --disable-background-networking --disable-component-update --disable-dev-shm-usage \
    --no-first-run 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null"#;

const LOADED: &str = "Page.loadEventFired";

/// A browser with one page open, closed on drop.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    profile: PathBuf,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    asked: u64,
    events: Vec<Value>,
}

impl Browser {
    pub fn start() -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let name = format!("wakeupd-page-{}-{}", std::process::id(), STARTED.fetch_add(1, Relaxed));
        let profile = std::env::temp_dir().join(name);
        std::fs::create_dir(&profile).unwrap();
        let mut child = Command::new("sh")
            .args(["-c", START])
            .arg(&profile)
            .env("HOME", &profile)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, messages) = mpsc::channel();
        thread::spawn(move || {
            for message in stdout.split(0).map_while(Result::ok) {
                if sender.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    break;
                }
            }
        });
        let (session, events) = (None, Vec::new());
        let mut browser = Self { child, profile, commands, messages, session, asked: 0, events };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attached = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", &attached);
        browser.session = Some(session["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        browser
    }

    /// Calls a method of its debugging protocol and returns its result.
    pub fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.asked += 1;
        let mut command = json!({ "id": self.asked, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).unwrap();
        loop {
            let mut message = self.message(method);
            if message["id"] == self.asked {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].take();
            }
            self.events.push(message);
        }
    }

    /// The next message from the browser.
    fn message(&self, reason: &str) -> Value {
        let message = self.messages.recv_timeout(PATIENCE);
        message.unwrap_or_else(|error| panic!("{reason}: {error}"))
    }

    /// Opens a page and waits until it has loaded.
    pub fn open(&mut self, address: &str) {
        self.events.retain(|event| event["method"] != LOADED);
        let outcome = self.call("Page.navigate", &json!({ "url": address }));
        assert!(outcome["errorText"].is_null(), "{address}: {outcome}");
        while self.events.iter().all(|event| event["method"] != LOADED) {
            let event = self.message(LOADED);
            self.events.push(event);
        }
    }

    /// The value of a JavaScript expression in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let parameters =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.call("Runtime.evaluate", &parameters);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer:#}");
        answer["result"]["value"].take()
    }

    /// Waits until a JavaScript expression is true in the page.
    pub fn wait_until(&mut self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.value(expression) != json!(true) {
            if Instant::now() > deadline {
                let page = self.value("document.body.innerText");
                let page = page.as_str().unwrap_or_default();
                panic!("not {expression} in {page}\n{:#?}", self.complaints());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Sets the width of the window and a media preference.
    pub fn emulate(&mut self, width: u32, preference: &str, value: &str) {
        let metrics =
            json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", &metrics);
        let features = json!({ "features": [{ "name": preference, "value": value }] });
        self.call("Emulation.setEmulatedMedia", &features);
    }

    /// The browser's complaints: exceptions, failed requests, and breaches of the page's security policy.
    pub fn complaints(&self) -> Vec<String> {
        let is_complaint = |event: &&Value| match event["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" | "Runtime.consoleAPICalled" => true,
            "Log.entryAdded" => event["params"]["entry"]["level"] != "verbose",
            _ => false,
        };
        self.events.iter().filter(is_complaint).map(ToString::to_string).collect()
    }

    /// The URLs that the page requested.
    pub fn requests(&self) -> Vec<&str> {
        let is_request = |event: &&Value| event["method"] == "Network.requestWillBeSent";
        let requests = self.events.iter().filter(is_request);
        requests.map(|event| event["params"]["request"]["url"].as_str().unwrap()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.commands.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}
