//! What a connection remembers, and the statements that only change or show that: settings and transaction brackets. Drivers send them
//! without being asked, so all that are harmless are accepted.

use std::collections::HashMap;
use std::sync::Mutex;

use pgwire::api::ClientInfo;

use super::copy_in::CopyIn;
use super::cursor::Cursors;
use crate::statements::tokens;

/// State of one connection, kept in its extensions.
#[derive(Debug, Default)]
pub(super) struct Session {
    settings: Mutex<HashMap<String, String>>,
    /// The `COPY … FROM STDIN` that is being fed.
    copy: Mutex<Option<CopyIn>>,
    pub(super) cursors: Cursors,
}

/// What a statement of the session's own does.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Local {
    /// Done; the tag to answer with.
    Done(&'static str),
    /// A transaction bracket opened.
    Begin,
    /// A transaction bracket closed.
    End(&'static str),
    /// One value to show under a column name.
    Show(String, String),
}

/// What the settings are until they are set. The first ones are those that drivers ask for.
const DEFAULTS: &[(&str, &str)] = &[
    ("server_version", "16.6"),
    ("server_version_num", "160006"),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("datestyle", "ISO, MDY"),
    ("intervalstyle", "postgres"),
    ("timezone", "UTC"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
    ("search_path", "\"$user\", public"),
    ("transaction_isolation", "read committed"),
    ("default_transaction_isolation", "read committed"),
    ("transaction_read_only", "off"),
    ("default_transaction_read_only", "off"),
    ("extra_float_digits", "1"),
    ("application_name", ""),
    ("bytea_output", "hex"),
    ("client_min_messages", "notice"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("max_identifier_length", "63"),
    ("is_superuser", "on"),
    ("session_authorization", "lake"),
    ("in_hot_standby", "off"),
    ("row_security", "off"),
    ("work_mem", "4MB"),
    ("jit", "off"),
];

/// The connection's session.
pub(super) fn session_of<C: ClientInfo>(client: &C) -> std::sync::Arc<Session> {
    client.session_extensions().get_or_insert_with(Session::default)
}

impl Session {
    /// Carries a statement out if it is the session's own.
    pub(super) fn local(&self, sql: &str) -> Option<Local> {
        let words = tokens(sql);
        let word = |index: usize| words.get(index).map(|word| word.to_ascii_uppercase()).unwrap_or_default();
        Some(match word(0).as_str() {
            "BEGIN" => Local::Begin,
            "START" if word(1) == "TRANSACTION" => Local::Begin,
            "COMMIT" | "END" => Local::End("COMMIT"),
            "ROLLBACK" if word(1) != "TO" && word(2) != "TO" => Local::End("ROLLBACK"),
            "ABORT" => Local::End("ROLLBACK"),
            "ROLLBACK" => Local::Done("ROLLBACK"),
            "SAVEPOINT" => Local::Done("SAVEPOINT"),
            "RELEASE" => Local::Done("RELEASE"),
            "SET" => {
                self.set(&words[1..]);
                Local::Done("SET")
            }
            "RESET" => {
                let mut settings = self.settings();
                if word(1) == "ALL" {
                    settings.clear()
                } else {
                    drop(settings.remove(&word(1).to_ascii_lowercase()))
                }
                Local::Done("RESET")
            }
            "DISCARD" => {
                self.settings().clear();
                Local::Done(if word(1) == "ALL" { "DISCARD ALL" } else { "DISCARD" })
            }
            "DEALLOCATE" => Local::Done("DEALLOCATE"),
            "UNLISTEN" => Local::Done("UNLISTEN"),
            "SHOW" => {
                let name = match (word(1).as_str(), word(2).as_str()) {
                    ("TRANSACTION", "ISOLATION") => "transaction_isolation".to_owned(),
                    ("TIME", "ZONE") => "timezone".to_owned(),
                    _ if words.len() == 2 => word(1).to_ascii_lowercase(),
                    _ => return None,
                };
                let value = self.get(&name)?;
                Local::Show(name, value)
            }
            _ => return None,
        })
    }

    /// A setting's value, if there is one of that name.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        if let Some(value) = self.settings().get(name) {
            return Some(value.clone());
        }
        DEFAULTS.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    /// `[SESSION | LOCAL] name (TO | =) value, …`, or `TIME ZONE value`.
    fn set(&self, words: &[&str]) {
        let words = match words {
            [scope, rest @ ..] if scope.eq_ignore_ascii_case("session") || scope.eq_ignore_ascii_case("local") => rest,
            all => all,
        };
        let (name, value) = match words {
            [time, zone, value @ ..] if time.eq_ignore_ascii_case("time") && zone.eq_ignore_ascii_case("zone") => {
                ("timezone".to_owned(), value)
            }
            [name, equals, value @ ..] if *equals == "=" || equals.eq_ignore_ascii_case("to") => {
                (name.to_ascii_lowercase(), value)
            }
            // SET TRANSACTION …, SET CONSTRAINTS …: nothing to remember.
            _ => return,
        };
        if let [default] = value
            && default.eq_ignore_ascii_case("default")
        {
            self.settings().remove(&name);
            return;
        }
        let value: Vec<_> =
            value.iter().filter(|word| **word != ",").map(|word| word.trim_matches('\'').replace("''", "'")).collect();
        self.settings().insert(name, value.join(", "));
    }

    /// A copy begins: what follows from the client are its rows.
    pub(super) fn begin_copy(&self, copy: CopyIn) {
        *self.copying() = Some(copy);
    }

    /// The copy that is being fed.
    pub(super) fn copying(&self) -> std::sync::MutexGuard<'_, Option<CopyIn>> {
        // A panic while holding this lock leaves a copy that its next error ends.
        self.copy.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn settings(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        // A panic while holding this lock leaves a whole map behind.
        self.settings.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_kept_shown_and_reset() {
        let session = Session::default();
        let show = |sql: &str| match session.local(sql) {
            Some(Local::Show(_, value)) => Some(value),
            _ => None,
        };
        assert_eq!(show("SHOW server_version"), Some("16.6".to_owned()));
        assert_eq!(session.local("SET SESSION search_path TO city, public"), Some(Local::Done("SET")));
        assert_eq!(show("show search_path"), Some("city, public".to_owned()));
        assert_eq!(session.local("set time zone 'America/New_York'"), Some(Local::Done("SET")));
        assert_eq!(show("SHOW TIME ZONE"), Some("America/New_York".to_owned()));
        session.local("RESET ALL");
        assert_eq!(show("SHOW TimeZone"), Some("UTC".to_owned()));
        assert_eq!(show("SHOW VIEWS"), None);
        assert_eq!(show("SHOW COLUMNS FROM x"), None);
        assert_eq!(session.local("BEGIN ISOLATION LEVEL READ COMMITTED"), Some(Local::Begin));
        assert_eq!(session.local("ROLLBACK TO SAVEPOINT a"), Some(Local::Done("ROLLBACK")));
        assert_eq!(session.local("SELECT 1"), None);
    }
}
