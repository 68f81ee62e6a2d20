//! What a REST catalog answered instead of what was asked for, or why it did not answer.

use std::time::Duration;

/// See the module.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct RestFault {
    /// The status of the answer; `None` if there was none.
    pub status: Option<u16>,
    /// What the server said, or what became of the connection.
    pub message: String,
    /// Whether the request may have reached the server.
    pub was_sent: bool,
}

impl RestFault {
    /// An answer that says no.
    pub(super) fn answered(status: u16, body: &str) -> RestFault {
        let said = serde_json::from_str::<serde_json::Value>(body).ok();
        let part = |name: &str| said.as_ref().and_then(|said| Some(said.get("error")?.get(name)?.as_str()?.to_owned()));
        let text = match (part("type"), part("message")) {
            (Some(kind), Some(message)) => format!("{kind}: {message}"),
            (None, Some(message)) => message,
            // a proxy's page is of no use as a whole
            _ => body.lines().next().unwrap_or_default().chars().take(200).collect(),
        };
        RestFault {
            status: Some(status),
            message: format!("status {status}: {text}").trim_end_matches([':', ' ']).to_owned(),
            was_sent: true,
        }
    }

    /// No answer.
    pub(super) fn unanswered(error: &reqwest::Error, within: Duration) -> RestFault {
        let mut message = match error.is_timeout() {
            true => format!("no answer within {} s", within.as_secs()),
            false => error.to_string(),
        };
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            message = format!("{message}: {inner}");
            cause = inner.source();
        }
        RestFault { status: None, message, was_sent: !error.is_connect() && !error.is_builder() }
    }

    /// An answer that does not make sense.
    pub(super) fn unreadable(what: impl std::fmt::Display) -> RestFault {
        RestFault { status: None, message: format!("its answer cannot be read: {what}"), was_sent: true }
    }

    /// Whether the server refused because things are not as the request takes for granted.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self.status, Some(404 | 409))
    }

    /// Whether what was asked for may have been done all the same.
    pub(super) fn may_be_done(&self) -> bool {
        self.was_sent && self.status.is_none_or(|status| status >= 500)
    }

    /// Whether asking again later may help, for a question that changes nothing.
    pub(super) fn is_passing(&self) -> bool {
        self.status.is_none_or(|status| status == 429 || status >= 500)
    }

    /// In one line, with what to do about it.
    pub(crate) fn advice(&self) -> String {
        let hint = match self.status {
            Some(401 | 403 | 419) => {
                "the catalog refuses this user: LIVELAKE_CATALOG_TOKEN or LIVELAKE_CATALOG_CREDENTIAL (or …_FILE) say who asks"
            }
            Some(404) => "is this the address of an Iceberg REST catalog? It is the part before /v1",
            None if !self.was_sent => "is the catalog running, and the address right?",
            _ => return self.message.clone(),
        };
        format!("{hint} ({})", self.message)
    }
}
