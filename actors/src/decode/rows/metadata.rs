//! Columns that come from around a row: where it stood and what its message says of itself.

use crate::decode::column::Column;

/// What a message says of itself, for metadata columns.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Metadata<'a> {
    pub(crate) op: Option<u8>,
    /// Microseconds since 1970.
    pub(crate) source_ts: Option<i64>,
    pub(crate) lsn: Option<i64>,
    pub(crate) tx_id: Option<i64>,
    pub(crate) topic: Option<&'a str>,
    pub(crate) partition: Option<i64>,
    pub(crate) offset: Option<i64>,
    pub(crate) file: Option<&'a str>,
    pub(crate) row_number: Option<i64>,
}

/// Which metadata column one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meta {
    Op,
    SourceTs,
    Lsn,
    TxId,
    Topic,
    Partition,
    Offset,
    File,
    RowNumber,
}

impl Meta {
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "_op" => Meta::Op,
            "_source_ts" => Meta::SourceTs,
            "_lsn" => Meta::Lsn,
            "_tx_id" => Meta::TxId,
            "_topic" => Meta::Topic,
            "_partition" => Meta::Partition,
            "_offset" => Meta::Offset,
            "_file" => Meta::File,
            "_row_number" => Meta::RowNumber,
            _ => return None,
        })
    }

    /// Appends what the message says to the metadata column, or NULL.
    pub(super) fn write(self, column: &mut Column, metadata: &Metadata<'_>) {
        let letter = metadata.op.map(|op| [op]);
        let text = match self {
            Meta::Op => letter.as_ref().and_then(|letter| std::str::from_utf8(letter).ok()),
            Meta::Topic => metadata.topic,
            Meta::File => metadata.file,
            _ => None,
        };
        let number = match self {
            Meta::SourceTs => metadata.source_ts,
            Meta::Lsn => metadata.lsn,
            Meta::TxId => metadata.tx_id,
            Meta::Partition => metadata.partition,
            Meta::Offset => metadata.offset,
            Meta::RowNumber => metadata.row_number,
            _ => None,
        };
        match (text, number) {
            (Some(text), _) => column.push_text(text),
            (None, Some(number)) => column.push_integer(number),
            (None, None) => column.push_null(),
        }
    }
}
