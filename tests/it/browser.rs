//! A Chromium without a window, driven over its debugging pipe: messages are JSON, each ends with a zero byte.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// What lists the faults of a page's layout.
const LAYOUT: &str = include_str!("layout.js");
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// A Chromium that starts, by name.
pub(crate) fn find() -> Option<&'static str> {
    let found = NAMES.into_iter().find(|name| {
        let version =
            Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    });
    if found.is_none() {
        eprintln!("there is no Chromium: the page is not tested");
    }
    found
}

/// A browser with one page.
pub(crate) struct Browser {
    process: Child,
    to: File,
    from: BufReader<File>,
    calls: u64,
    session: Option<String>,
    _folder: TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Browser {
    pub(crate) fn start(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pipes = ["in", "out"].map(|pipe| folder.path().join(pipe));
        assert!(Command::new("mkfifo").args(&pipes).status().unwrap().success());
        // It reads from descriptor 3 and writes to descriptor 4.
        let script = "name=$1 profile=$2; exec \"$name\" --headless --no-sandbox --disable-gpu --remote-debugging-pipe \
                      \"--user-data-dir=$profile\" 3< \"$3\" 4> \"$4\"";
        let process = Command::new("sh")
            .args(["-c", script, "sh", name])
            .arg(folder.path().join("profile"))
            .args(&pipes)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let to = File::options().write(true).open(&pipes[0]).unwrap();
        let from = BufReader::new(File::open(&pipes[1]).unwrap());
        let mut browser = Self { process, to, from, calls: 0, session: None, _folder: folder };
        let page = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let attach = json!({"targetId": page["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", &attach);
        browser.session = Some(session["sessionId"].as_str().unwrap().to_owned());
        browser
    }

    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.calls += 1;
        let mut call = json!({"id": self.calls, "method": method, "params": params});
        if let Some(session) = &self.session {
            call["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{call}\0").as_bytes()).unwrap();
        loop {
            let mut message = Vec::new();
            self.from.read_until(0, &mut message).unwrap();
            assert_eq!(message.pop(), Some(0), "the browser has ended");
            let mut message: Value = serde_json::from_slice(&message).unwrap();
            // Others are events.
            if message["id"] == self.calls {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].take();
            }
        }
    }

    pub(crate) fn open(&mut self, address: &str) {
        self.call("Page.navigate", &json!({"url": address}));
        self.wait("document.readyState === 'complete' && location.protocol === 'http:'");
    }

    /// The size of the page's window, and whether its user prefers dark colours.
    pub(crate) fn screen(&mut self, width: u32, dark: bool) {
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", &size);
        let scheme = if dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", &features);
    }

    /// The value of an expression in the page.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut found = self.call("Runtime.evaluate", &params);
        assert!(found["exceptionDetails"].is_null(), "{expression}: {found}");
        found["result"]["value"].take()
    }

    /// The text of an element, by its id.
    pub(crate) fn text(&mut self, id: &str) -> String {
        let text = self.value(&format!("document.getElementById('{id}').innerText"));
        text.as_str().unwrap_or_else(|| panic!("{id}: {text}")).to_owned()
    }

    #[track_caller]
    pub(crate) fn wait(&mut self, expression: &str) {
        let start = Instant::now();
        while self.value(expression) != true {
            let late = start.elapsed() > Duration::from_mins(2);
            assert!(!late, "it never happens: {expression} in {}", self.value("document.body.innerText"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn write(&mut self, text: &str) {
        self.call("Input.insertText", &json!({"text": text}));
    }

    /// Presses a key, perhaps with Shift.
    pub(crate) fn press(&mut self, key: &str, shift: bool) {
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            "Tab" => 9,
            other => panic!("the code of {other}"),
        };
        let mut event = json!({
            "type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 * u32::from(shift)
        });
        if key == "Enter" {
            event["text"] = json!("\r");
        }
        self.call("Input.dispatchKeyEvent", &event);
        event["type"] = json!("keyUp");
        self.call("Input.dispatchKeyEvent", &event);
    }

    /// What is wrong with the layout at a width.
    pub(crate) fn faults(&mut self, width: u32, dark: bool) -> Vec<String> {
        self.screen(width, dark);
        let found = self.value(&format!(
            "{LAYOUT}; new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(layoutFaults()))))"
        ));
        serde_json::from_value(found).unwrap()
    }
}
