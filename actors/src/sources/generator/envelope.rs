//! The frame of a Debezium change message, as version 3.6's PostgreSQL connector with its JSON converter writes it without schemas.

use super::text;

/// What the frame tells besides the rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    /// `r`, `c`, `u` or `d`.
    pub op: u8,
    /// `source.table`.
    pub table: &'static str,
    /// Commit of the transaction, microseconds since 1970 UTC.
    pub committed_us: i64,
    /// When the connector saw it.
    pub seen_us: i64,
    /// Number of the transaction.
    pub tx_id: u64,
    /// Position in the write-ahead log.
    pub lsn: u64,
    /// End of the transaction before; absent for snapshot rows.
    pub last_lsn: Option<u64>,
}

/// Appends what comes before the row before.
pub(super) fn open(out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"before\":");
}

/// Appends what stands between the row before and the row after.
pub(super) fn after(out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"after\":");
}

/// Appends everything after the row after, without a line end.
pub(super) fn close(out: &mut Vec<u8>, event: &Event) {
    let number = |out: &mut Vec<u8>, name: &[u8], n: u64| {
        out.extend_from_slice(name);
        text::unsigned(out, n);
    };
    let us = event.committed_us.max(0) as u64;
    out.extend_from_slice(
        b",\"source\":{\"version\":\"3.6.1.Final\",\"connector\":\"postgresql\",\"name\":\"lakehouse\",\"ts_ms\":",
    );
    text::unsigned(out, us / 1000);
    out.extend_from_slice(if event.op == b'r' { b",\"snapshot\":\"true\"" } else { b",\"snapshot\":\"false\"" });
    out.extend_from_slice(b",\"db\":\"lakehouse\",\"sequence\":\"[");
    match event.last_lsn {
        Some(lsn) => {
            number(out, b"\\\"", lsn);
            out.extend_from_slice(b"\\\"");
        }
        None => out.extend_from_slice(b"null"),
    }
    number(out, b",\\\"", event.lsn);
    number(out, b"\\\"]\",\"ts_us\":", us);
    number(out, b",\"ts_ns\":", us);
    out.extend_from_slice(b"000,\"schema\":\"public\",\"table\":\"");
    out.extend_from_slice(event.table.as_bytes());
    number(out, b"\",\"txId\":", event.tx_id);
    number(out, b",\"lsn\":", event.lsn);
    out.extend_from_slice(b",\"xmin\":null,\"origin\":null,\"origin_lsn\":null},\"transaction\":null,\"op\":\"");
    out.push(event.op);
    let us = event.seen_us.max(0) as u64;
    number(out, b"\",\"ts_ms\":", us / 1000);
    number(out, b",\"ts_us\":", us);
    number(out, b",\"ts_ns\":", us);
    out.extend_from_slice(b"000}");
}
