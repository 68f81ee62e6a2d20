//! The HTTP side: requests, error answers, server-sent events.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use ureq::http::{Request, Response};
use ureq::{Agent, Body};

use super::ClientError;

/// A lake's address, and how it is spoken to.
#[derive(Debug)]
pub struct Connection {
    url: String,
    agent: Agent,
}

/// A good answer whose body is still to be read.
#[derive(Debug)]
pub struct Reply {
    /// PostgreSQL's command tag.
    pub tag: String,
    /// When the answer is exact.
    pub as_of: u64,
    response: Response<Body>,
}

impl Reply {
    /// The body, as it comes in.
    pub fn body(self) -> impl Read + Send + 'static {
        // No limit: exports are as large as they are.
        self.response.into_body().into_with_config().limit(u64::MAX).reader()
    }
}

impl Connection {
    /// A connection to `url`, such as `http://127.0.0.1:8000` (the scheme may be left out).
    pub fn new(url: &str) -> Self {
        let url = url.trim_end_matches('/');
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let agent =
            Agent::config_builder().http_status_as_error(false).timeout_connect(Some(Duration::from_secs(10))).build().into();
        Self { url, agent }
    }

    /// The address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends a statement.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], [`ClientError::Refused`].
    pub fn sql(&self, sql: &str, accept: &str) -> Result<Reply, ClientError> {
        let body = serde_json::json!({ "sql": sql }).to_string();
        let request =
            Request::post(format!("{}/api/v1/sql", self.url)).header("content-type", "application/json").header("accept", accept);
        self.answered(request.body(body).map_err(|error| self.unreachable(&error)).map(|request| self.agent.run(request))?)
    }

    /// Gets a path.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], [`ClientError::Refused`].
    pub fn get(&self, path: &str, accept: &str) -> Result<Reply, ClientError> {
        let request = Request::get(format!("{}{path}", self.url)).header("accept", accept);
        self.answered(request.body(()).map_err(|error| self.unreachable(&error)).map(|request| self.agent.run(request))?)
    }

    fn unreachable(&self, reason: &dyn std::fmt::Display) -> ClientError {
        ClientError::Unreachable { url: self.url.clone(), reason: reason.to_string() }
    }

    fn answered(&self, response: Result<Response<Body>, ureq::Error>) -> Result<Reply, ClientError> {
        let mut response = response.map_err(|error| self.unreachable(&error))?;
        let status = response.status().as_u16();
        if !response.status().is_success() {
            let body = response.body_mut().read_to_vec().unwrap_or_default();
            return Err(refusal(status, &body));
        }
        let header =
            |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let as_of = header("x-livelake-as-of").parse().unwrap_or(0);
        Ok(Reply { tag: header("x-livelake-tag"), as_of, response })
    }
}

/// An error answer's envelope as an error.
pub fn refusal(status: u16, body: &[u8]) -> ClientError {
    #[derive(serde::Deserialize)]
    struct Envelope {
        message: String,
        code: Option<String>,
        hint: Option<String>,
        http_status: Option<u16>,
    }
    match serde_json::from_slice::<Envelope>(body) {
        Ok(envelope) => ClientError::Refused {
            status: envelope.http_status.unwrap_or(status),
            code: envelope.code.unwrap_or_default(),
            message: envelope.message,
            hint: envelope.hint,
        },
        Err(_) => {
            let message = format!("HTTP status {status}: {}", String::from_utf8_lossy(&body[..body.len().min(200)]));
            let hint = Some("is this address a livelake's?".to_owned());
            ClientError::Refused { status, code: "unknown".to_owned(), message, hint }
        }
    }
}

/// A name as part of a path.
pub fn encoded(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~$".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// One server-sent event.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    /// Its type; `message` unless said otherwise.
    pub name: String,
    /// Its text.
    pub data: String,
}

/// Events from a body.
pub struct Events<R> {
    body: BufReader<R>,
}

impl<R> std::fmt::Debug for Events<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

impl<R: Read> Events<R> {
    /// Reads events from `body`.
    pub fn new(body: R) -> Self {
        Self { body: BufReader::new(body) }
    }

    /// The next event; nothing at the end.
    ///
    /// # Errors
    /// What reading says.
    pub fn next_event(&mut self) -> std::io::Result<Option<Event>> {
        let mut event = Event { name: "message".to_owned(), data: String::new() };
        let mut line = String::new();
        loop {
            line.clear();
            if self.body.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let text = line.trim_end_matches(['\n', '\r']);
            if text.is_empty() {
                if event.data.is_empty() {
                    continue;
                }
                return Ok(Some(event));
            }
            let (field, value) = text.split_once(':').unwrap_or((text, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => event.name = value.to_owned(),
                "data" => {
                    if !event.data.is_empty() {
                        event.data.push('\n');
                    }
                    event.data.push_str(value);
                }
                // Comments, ids and retry times mean nothing here.
                _ => {}
            }
        }
    }
}
