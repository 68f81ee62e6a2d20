//! Where the database's transactions end in a stream of change messages: a tick must not show one in parts.
//!
//! Only messages next to a possible cut are looked at, and of those only the bytes around the number, so that this costs nothing per row.

/// A transaction that goes on for longer than this, in bytes, is split.
pub(super) const TRANSACTION_MAX: u64 = 64 << 20;

/// What names the transaction that a change message belongs to: `transaction.id` where the connector gives transaction metadata, else
/// `source.txId`. `None`: a message without one, and a row of a snapshot, whose one transaction is the whole table. The last field of a
/// name is the one outside of the row; should it not be, a transaction is split and nothing else is wrong.
pub(super) fn transaction_of(message: &[u8]) -> Option<&[u8]> {
    if memchr::memmem::find(message, b"\"op\":\"r\"").is_some() {
        return None;
    }
    if let Some(id) = after(message, b"\"transaction\":{\"id\":\"") {
        return id.iter().position(|byte| *byte == b'"').map(|end| &id[..end]);
    }
    let number = after(message, b"\"txId\":")?;
    let length = number.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (length > 0).then(|| &number[..length])
}

fn after<'m>(message: &'m [u8], field: &[u8]) -> Option<&'m [u8]> {
    memchr::memmem::rfind(message, field).map(|at| &message[at + field.len()..])
}

/// How much of some lines can be decoded without splitting the transaction of the last one, which may go on after them. Zero if all of
/// them are one transaction's.
pub(super) fn whole_transactions(lines: &[u8]) -> usize {
    let Some(mut end) = memchr::memrchr(b'\n', lines) else { return 0 };
    let mut open: Option<&[u8]> = None;
    loop {
        let start = memchr::memrchr(b'\n', &lines[..end]).map_or(0, |before| before + 1);
        let transaction = transaction_of(&lines[start..end]);
        let goes_on = match (open, transaction) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(open), Some(transaction)) => open == transaction,
        };
        if !goes_on {
            return end + 1;
        }
        if start == 0 {
            return 0;
        }
        open = transaction;
        end = start - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(transaction: u32, id: u32) -> String {
        format!(r#"{{"before":null,"after":{{"id":{id},"txId":7}},"source":{{"txId":{transaction},"lsn":1}},"op":"c"}}"#) + "\n"
    }

    #[test]
    fn messages_name_their_transaction() {
        assert_eq!(transaction_of(change(571, 1).as_bytes()), Some(&b"571"[..]));
        let with_metadata = r#"{"source":{"txId":571},"op":"u","transaction":{"id":"571:53195829","total_order":1}}"#;
        assert_eq!(transaction_of(with_metadata.as_bytes()), Some(&b"571:53195829"[..]));
        assert_eq!(transaction_of(br#"{"source":{"txId":null},"op":"c","transaction":null}"#), None);
        assert_eq!(transaction_of(br#"{"source":{"txId":571,"snapshot":"true"},"op":"r"}"#), None);
        assert_eq!(transaction_of(b"{}"), None);
    }

    #[test]
    fn lines_are_cut_between_transactions() {
        let (one, two) = (change(1, 1) + &change(1, 2), change(2, 3) + &change(2, 4));
        let all = one.clone() + &two;
        assert_eq!(whole_transactions(all.as_bytes()), one.len());
        assert_eq!(whole_transactions(&all.as_bytes()[..all.len() - 5]), one.len(), "an unended line does not count");
        assert_eq!(whole_transactions(two.as_bytes()), 0);
        assert_eq!(whole_transactions(b""), 0);
        let snapshot = "{\"source\":{\"txId\":9},\"op\":\"r\"}\n".repeat(3);
        assert_eq!(whole_transactions(snapshot.as_bytes()), snapshot.len());
        assert_eq!(whole_transactions((snapshot.clone() + &one).as_bytes()), snapshot.len());
    }
}
