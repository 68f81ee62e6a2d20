//! SQL cursors: `DECLARE name CURSOR FOR query`, `FETCH`, `CLOSE`. Drivers use them to read large answers in pieces; the rows are pulled from
//! the lake as they are fetched. A cursor lives until it is closed or its connection ends (`WITH HOLD`'s lifetime for all).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use futures::StreamExt;
use pgwire::error::{PgWireError, PgWireResult};
use tokio::sync::Mutex;

use super::error::{not_supported, wire};
use super::handlers::{Backend, Outcome, Rows};
use super::session::Session;
use crate::statements::tokens;

/// A connection's open cursors.
#[derive(Default)]
pub(super) struct Cursors(Mutex<HashMap<String, Cursor>>);

impl std::fmt::Debug for Cursors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cursors")
    }
}

struct Cursor {
    schema: SchemaRef,
    rows: Rows,
    /// Rows that came with the last batch and were not asked for yet.
    ready: VecDeque<RecordBatch>,
}

/// What a statement does with cursors.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CursorStatement<'a> {
    /// `DECLARE name … CURSOR … FOR query`.
    Declare { name: String, query: &'a str },
    /// `FETCH [FORWARD] [count | ALL | NEXT] [FROM | IN] name`; without a count: all.
    Fetch { name: String, count: Option<usize> },
    /// `CLOSE name`, or all.
    Close(Option<String>),
}

impl<'a> CursorStatement<'a> {
    /// The statement, if it is about cursors.
    pub(super) fn parse(sql: &'a str) -> PgWireResult<Option<Self>> {
        let tokens = tokens(sql);
        let is = |index: usize, word: &str| tokens.get(index).is_some_and(|token| token.eq_ignore_ascii_case(word));
        let name_at = |index: usize| tokens.get(index).map(|token| name(token)).ok_or_else(|| syntax(sql));
        if is(0, "declare") {
            let Some(at) = tokens.iter().position(|token| token.eq_ignore_ascii_case("for")) else { return Err(syntax(sql)) };
            let Some(first) = tokens.get(at + 1) else { return Err(syntax(sql)) };
            if tokens[..at]
                .windows(2)
                .any(|pair| pair[0] != "NO" && !pair[0].eq_ignore_ascii_case("no") && pair[1].eq_ignore_ascii_case("scroll"))
            {
                return Err(not_supported("a cursor that scrolls back", "declare it without SCROLL and read forward"));
            }
            let start = first.as_ptr() as usize - sql.as_ptr() as usize;
            return Ok(Some(Self::Declare { name: name_at(1)?, query: &sql[start..] }));
        }
        if is(0, "close") {
            return Ok(Some(Self::Close(if is(1, "all") { None } else { Some(name_at(1)?) })));
        }
        if !is(0, "fetch") {
            return Ok(None);
        }
        let mut at = 1;
        if is(at, "forward") {
            at += 1;
        }
        let mut count = Some(1);
        if is(at, "all") {
            count = None;
            at += 1;
        } else if is(at, "next") {
            at += 1;
        } else if let Some(number) = tokens.get(at).and_then(|token| token.parse().ok()) {
            count = Some(number);
            at += 1;
        } else if ["prior", "first", "last", "absolute", "relative", "backward", "-"].iter().any(|word| is(at, word)) {
            return Err(not_supported("reading a cursor other than forward", "use FETCH [FORWARD] count FROM name"));
        }
        if is(at, "from") || is(at, "in") {
            at += 1;
        }
        Ok(Some(Self::Fetch { name: name_at(at)?, count }))
    }
}

fn syntax(sql: &str) -> PgWireError {
    wire("42601", format!("this is no cursor statement: {sql}"), Some("write DECLARE name CURSOR FOR query".to_owned()))
}

fn name(token: &str) -> String {
    match token.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => token.to_lowercase(),
    }
}

fn unknown(name: &str) -> PgWireError {
    wire("34000", format!("there is no cursor {name}"), Some("DECLARE it on this connection first".to_owned()))
}

impl Cursors {
    /// Carries a cursor statement out.
    pub(super) async fn run(
        &self,
        backend: &Backend,
        session: &Session,
        statement: CursorStatement<'_>,
        parameters: Vec<ScalarValue>,
    ) -> PgWireResult<Outcome> {
        match statement {
            CursorStatement::Declare { name, query } => {
                let Outcome::Rows { schema, rows, .. } = Box::pin(backend.run(session, query, parameters)).await? else {
                    return Err(wire("42601", "a cursor needs a query that gives rows", None));
                };
                let mut cursors = self.0.lock().await;
                if cursors.contains_key(&name) {
                    return Err(wire("42P03", format!("cursor {name} exists already"), Some("CLOSE it first".to_owned())));
                }
                cursors.insert(name, Cursor { schema, rows, ready: VecDeque::new() });
                Ok(Outcome::Done("DECLARE CURSOR".to_owned()))
            }
            CursorStatement::Fetch { name, count } => {
                let mut cursors = self.0.lock().await;
                let cursor = cursors.get_mut(&name).ok_or_else(|| unknown(&name))?;
                let batches = cursor.take(count).await?;
                let rows = futures::stream::iter(batches.into_iter().map(Ok)).boxed();
                Ok(Outcome::Rows { schema: Arc::clone(&cursor.schema), rows, tag: "FETCH".to_owned() })
            }
            CursorStatement::Close(None) => {
                self.0.lock().await.clear();
                Ok(Outcome::Done("CLOSE CURSOR ALL".to_owned()))
            }
            CursorStatement::Close(Some(name)) => {
                self.0.lock().await.remove(&name).ok_or_else(|| unknown(&name))?;
                Ok(Outcome::Done("CLOSE CURSOR".to_owned()))
            }
        }
    }

    /// Columns of an open cursor: clients describe it as they do a portal.
    pub(super) async fn schema(&self, name: &str) -> Option<SchemaRef> {
        self.0.lock().await.get(name).map(|cursor| Arc::clone(&cursor.schema))
    }

    /// Columns of what a statement answers with.
    pub(super) async fn describe(&self, statement: &CursorStatement<'_>) -> PgWireResult<Option<SchemaRef>> {
        match statement {
            CursorStatement::Fetch { name, .. } => {
                let cursors = self.0.lock().await;
                cursors.get(name).map(|cursor| Some(Arc::clone(&cursor.schema))).ok_or_else(|| unknown(name))
            }
            _ => Ok(None),
        }
    }
}

impl Cursor {
    /// The next `count` rows, fewer at the end.
    async fn take(&mut self, count: Option<usize>) -> PgWireResult<Vec<RecordBatch>> {
        let mut wanted = count.unwrap_or(usize::MAX);
        let mut taken = Vec::new();
        while wanted > 0 {
            let batch = match self.ready.pop_front() {
                Some(batch) => batch,
                None => match self.rows.next().await {
                    Some(batch) => batch?,
                    None => break,
                },
            };
            let rows = batch.num_rows();
            if rows > wanted {
                self.ready.push_front(batch.slice(wanted, rows - wanted));
                taken.push(batch.slice(0, wanted));
                break;
            }
            wanted -= rows;
            taken.push(batch);
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_statements_are_read() {
        let parse = |sql| CursorStatement::parse(sql).unwrap();
        let name = || "c".to_owned();
        assert_eq!(
            parse("DECLARE C NO SCROLL CURSOR WITH HOLD FOR SELECT 'for'"),
            Some(CursorStatement::Declare { name: name(), query: "SELECT 'for'" })
        );
        assert_eq!(parse("FETCH FORWARD 5 FROM \"c\""), Some(CursorStatement::Fetch { name: name(), count: Some(5) }));
        assert_eq!(parse("fetch c"), Some(CursorStatement::Fetch { name: name(), count: Some(1) }));
        assert_eq!(parse("FETCH ALL IN c"), Some(CursorStatement::Fetch { name: name(), count: None }));
        assert_eq!(parse("CLOSE ALL"), Some(CursorStatement::Close(None)));
        assert_eq!(parse("SELECT 1"), None);
        assert!(CursorStatement::parse("DECLARE c SCROLL CURSOR FOR SELECT 1").is_err());
        assert!(CursorStatement::parse("FETCH BACKWARD 1 FROM c").is_err());
    }
}
