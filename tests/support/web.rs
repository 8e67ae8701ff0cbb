//! A minimal HTTP client.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::daemon::PATIENCE;

/// An HTTP response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The header fields, with lowercase names.
    pub fields: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Requests `path`.
pub fn get(server: SocketAddr, path: &str) -> Answer {
    request(server, "GET", path, "")
}

/// The value of a metric in the text of `/metrics`.
pub fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// Sends a request with additional header fields, each ending in `\r\n`.
pub fn request(server: SocketAddr, method: &str, path: &str, fields: &str) -> Answer {
    let host = if fields.contains("Host:") { String::new() } else { format!("Host: {server}\r\n") };
    // With HTTP/1.0, the response always ends with the connection.
    raw(server, &format!("{method} {path} HTTP/1.0\r\n{host}{fields}\r\n"))
}

/// Sends `request` verbatim and reads the response.
pub fn raw(server: SocketAddr, request: &str) -> Answer {
    let mut stream = connect(server);
    stream.write_all(request.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    let status = line().split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
    let fields = std::iter::from_fn(|| {
        let line = line();
        let (name, value) = line.split_once(": ")?;
        Some((name.to_ascii_lowercase(), value.to_owned()))
    });
    let fields = fields.collect();
    let mut body = String::new();
    reader.read_to_string(&mut body).unwrap();
    Answer { status, fields, body }
}

pub fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Polls `path` until `is_right` accepts its JSON.
pub fn wait_for(server: SocketAddr, path: &str, is_right: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let json = get(server, path).json();
        if is_right(&json) {
            return json;
        }
        assert!(Instant::now() < deadline, "{path} stays {json}");
        thread::sleep(Duration::from_millis(50));
    }
}
