//! The generator as a source: its bytes through the decoder of its format, like a file's.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Generator, GeneratorOptions, GeneratorPosition};
use crate::decode::{DecodeSpec, Decoder, Input, decoder};
use crate::sources::{Budget, Position, Positions, SourceError, SourceEvent, SourceReader};

/// A message about a trip has 920 bytes on average.
const MESSAGE_BYTES: usize = 920;

/// What to read.
#[derive(Clone, Debug)]
pub struct ReaderOptions {
    /// What to generate.
    pub generator: GeneratorOptions,
    /// Where the past ends if neither the options nor a recorded position say so, microseconds since 1970 UTC: the lake's start. All
    /// generator sources of a lake must be given the same, or an audit trail would tell of other trips than the table beside it.
    pub start_us: i64,
    /// Whether reading is [`Done`](SourceEvent::Done) at the source's present end: at `start_us` where no number of events is given.
    pub once: bool,
}

/// Opens the generator as a source. Its only partition is called like its kind; `_file` is the same, `_row_number` the message's
/// number from 1.
///
/// # Errors
/// A contradictory specification, or a recorded position of another connector.
pub fn open(options: ReaderOptions, spec: Arc<DecodeSpec>, from: &Positions) -> Result<Box<dyn SourceReader>, SourceError> {
    let partition: Arc<str> = options.generator.kind.name().into();
    let generator = match from.get(&partition) {
        None => Generator::new(&options.generator, options.start_us),
        Some(Position::Generator { message, origin_us }) => {
            Generator::resume(&options.generator, GeneratorPosition { message: *message, origin_us: *origin_us })
        }
        Some(other) => {
            let message = format!("{} was read by another connector so far ({other:?}): give it another name", spec.name);
            return Err(SourceError::Options(message));
        }
    };
    let end_us = (options.once && options.generator.events.is_none()).then_some(options.start_us);
    Ok(Box::new(GeneratorReader {
        generator,
        decoder: decoder(&spec)?,
        partition,
        bytes: Vec::new(),
        once: options.once,
        end_us,
    }))
}

struct GeneratorReader {
    generator: Generator,
    decoder: Box<dyn Decoder>,
    partition: Arc<str>,
    bytes: Vec<u8>,
    once: bool,
    /// Messages that come later are not read.
    end_us: Option<i64>,
}

impl SourceReader for GeneratorReader {
    fn next(&mut self, budget: Budget) -> Result<SourceEvent, SourceError> {
        let now_us = now_us();
        let first_line = self.generator.position().message + 1;
        self.bytes.clear();
        let messages = (budget.bytes / MESSAGE_BYTES).max(1);
        match self.end_us {
            Some(end_us) => self.generator.fill_until(&mut self.bytes, messages, end_us),
            None => self.generator.fill(&mut self.bytes, messages, now_us),
        };
        if self.bytes.is_empty() {
            let Some(due_us) = self.generator.next_due_us().filter(|_| !self.once) else { return Ok(SourceEvent::Done) };
            let wait = Duration::from_micros(due_us.saturating_sub(now_us).clamp(0, 3_600_000_000) as u64);
            return Ok(SourceEvent::Idle { until: Instant::now() + wait });
        }
        self.decoder.decode(Input::Lines { file: &self.partition, first_line, bytes: &self.bytes, header: None, last: true })?;
        let GeneratorPosition { message, origin_us } = self.generator.position();
        Ok(SourceEvent::Batch {
            partition: self.partition.to_string(),
            decoded: self.decoder.take(),
            position: Position::Generator { message, origin_us },
            bytes: self.bytes.len() as u64,
        })
    }
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{DataType, Decimal128Type, Field, Int64Type, Schema, TimeUnit};
    use livelake_dataflow::protocol::{InputBatch, Op};

    use super::super::{Kind, Truth};
    use super::*;
    use crate::decode::{DecimalHandling, Format};

    const ORIGIN: i64 = 1_740_960_000_000_000;

    fn trips_spec() -> Arc<DecodeSpec> {
        let stamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let declared = Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("pickup_datetime", stamp, false),
            Field::new("pickup_location_id", DataType::Int32, false),
            Field::new("store_and_fwd_flag", DataType::Utf8, true),
            Field::new("total_amount", DataType::Decimal128(10, 2), true),
        ]);
        let mut spec = DecodeSpec::new("taxi_cdc.trips", Arc::new(declared), vec!["id".into()], Format::DebeziumJson);
        spec.decimal_handling = DecimalHandling::Double;
        Arc::new(spec)
    }

    fn trips(events: u64) -> GeneratorOptions {
        GeneratorOptions { rate: Some(0.0), events: Some(events), start_us: Some(ORIGIN), ..GeneratorOptions::new(Kind::Trips) }
    }

    /// Reads to the end: rows by key with their cents, errors, and the positions after each batch.
    fn read(reader: &mut dyn SourceReader) -> (std::collections::HashMap<i64, i64>, u64, Vec<Position>) {
        let (mut rows, mut errors, mut positions) = (std::collections::HashMap::new(), 0, Vec::new());
        loop {
            match reader.next(Budget { bytes: 1 << 20, ..Budget::default() }).unwrap() {
                SourceEvent::Done => return (rows, errors, positions),
                SourceEvent::Batch { decoded, position, .. } => {
                    positions.push(position);
                    errors += decoded.counters.errors;
                    for input in &decoded.inputs {
                        apply(&mut rows, input);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn apply(live: &mut std::collections::HashMap<i64, i64>, input: &InputBatch) {
        let InputBatch::Rows { rows, ops } = input else { panic!("nothing truncates trips") };
        let (ids, totals) = (rows.column(0).as_primitive::<Int64Type>(), rows.column(4).as_primitive::<Decimal128Type>());
        for row in 0..rows.num_rows() {
            if ops.as_ref().is_some_and(|ops| ops[row] == Op::Delete as u8) {
                live.remove(&ids.value(row));
            } else {
                assert!(totals.is_valid(row));
                live.insert(ids.value(row), totals.value(row) as i64);
            }
        }
    }

    #[test]
    fn decoded_trips_are_the_truth_and_every_broken_message_is_put_aside() {
        let options = trips(60_000);
        let reader_options = ReaderOptions { generator: options.clone(), start_us: 0, once: true };
        let (rows, errors, positions) = read(open(reader_options.clone(), trips_spec(), &Positions::default()).unwrap().as_mut());
        let truth: Truth = Generator::truth(&options, 0, 60_000);
        assert_eq!(rows.len() as u64, truth.live_rows);
        assert_eq!(rows.values().sum::<i64>(), truth.total_amount_cents);
        assert_eq!(errors, truth.broken);
        // And from any recorded position on there come as many batches as were left.
        let mut from = Positions::default();
        from.set("nyc.trips", positions[10].clone());
        let (_, _, rest) = read(open(reader_options, trips_spec(), &from).unwrap().as_mut());
        assert_eq!(rest, positions[11..]);
    }

    #[test]
    fn once_ends_at_the_present_and_live_reading_waits_for_the_clock() {
        let generator = GeneratorOptions { history_events: Some(1_000), rate: Some(10.0), ..GeneratorOptions::new(Kind::Trips) };
        let start_us = now_us() + 3_600_000_000;
        let once = ReaderOptions { generator: generator.clone(), start_us, once: true };
        let (_, _, positions) = read(open(once, trips_spec(), &Positions::default()).unwrap().as_mut());
        assert!(
            matches!(positions.last(), Some(Position::Generator { message: 1_000..=1_010, origin_us }) if *origin_us == start_us)
        );
        // The past's last hour lies in the future here, so live reading stops before it and says when to come again.
        let live = ReaderOptions { generator, start_us, once: false };
        let mut reader = open(live, trips_spec(), &Positions::default()).unwrap();
        assert!(matches!(reader.next(Budget::default()).unwrap(), SourceEvent::Batch { .. }));
        let SourceEvent::Idle { until } = reader.next(Budget::default()).unwrap() else { panic!("nothing is due") };
        assert!(until > Instant::now());
    }

    #[test]
    fn a_position_of_another_connector_is_refused() {
        let mut from = Positions::default();
        from.set("nyc.trips", Position::Kafka { offset: 1 });
        let options = ReaderOptions { generator: trips(10), start_us: 0, once: true };
        assert!(open(options, trips_spec(), &from).err().unwrap().to_string().contains("another connector"));
    }
}
