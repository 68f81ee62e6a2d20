//! The generator as a source: its bytes through the same decoders as a file's.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::generator::{Generator, GeneratorOptions, GeneratorPosition};
use super::{Budget, Position, Positions, SourceError, SourceEvent, SourceReader};
use crate::decode::{DecodeSpec, Decoder, Input, decoder};

/// The one partition of a generator.
const PARTITION: &str = "generator";
/// Messages in one batch at most.
const MESSAGES_MAX: usize = 8192;

/// Where the past ends for all generators of this process that say nothing else: were it not the same, an audit trail would tell of
/// other trips than the table beside it.
static FIRST_START_US: OnceLock<i64> = OnceLock::new();

#[cfg(test)]
mod tests;

/// What to generate, and whether to stop at what is due now.
#[derive(Clone, Debug)]
pub struct GeneratedOptions {
    /// What.
    pub generator: GeneratorOptions,
    /// Stop at the present end: where no number of events is given, at the messages that were due when reading began.
    pub once: bool,
}

struct GeneratedReader {
    generator: Generator,
    decoder: Box<dyn Decoder>,
    once: bool,
    /// Messages that come later on the timeline are not read, however fast they could be had.
    end_us: Option<i64>,
    name: Arc<str>,
    bytes: Vec<u8>,
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

/// Opens a generator at a recorded position, or at its beginning.
///
/// # Errors
/// A contradictory specification.
pub fn open(options: GeneratedOptions, spec: &Arc<DecodeSpec>, from: &Positions) -> Result<Box<dyn SourceReader>, SourceError> {
    let generator = match from.get(PARTITION) {
        Some(Position::Generator { message, origin_us }) => {
            Generator::resume(&options.generator, GeneratorPosition { message: *message, origin_us: *origin_us })
        }
        _ => Generator::new(&options.generator, *FIRST_START_US.get_or_init(now_us)),
    };
    let unbounded = options.generator.events.is_none();
    Ok(Box::new(GeneratedReader {
        generator,
        decoder: decoder(spec)?,
        once: options.once,
        end_us: (options.once && unbounded).then(now_us),
        name: Arc::from(PARTITION),
        bytes: Vec::new(),
    }))
}

impl SourceReader for GeneratedReader {
    fn next(&mut self, budget: Budget) -> Result<SourceEvent, SourceError> {
        let first_line = self.generator.position().message + 1;
        self.bytes.clear();
        let messages = match self.end_us {
            Some(end_us) => self.generator.fill_until(&mut self.bytes, MESSAGES_MAX, end_us),
            None => self.generator.fill(&mut self.bytes, MESSAGES_MAX, now_us()),
        };
        if messages == 0 {
            return Ok(match self.generator.next_due_us() {
                None => SourceEvent::Done,
                Some(_) if self.once => SourceEvent::Done,
                Some(due) => {
                    let wait = Duration::from_micros((due - now_us()).max(0) as u64).min(budget.wait);
                    SourceEvent::Idle { until: Instant::now() + wait }
                }
            });
        }
        self.decoder.decode(Input::Lines { file: &self.name, first_line, bytes: &self.bytes, header: None, last: true })?;
        let position = self.generator.position();
        Ok(SourceEvent::Batch {
            partition: PARTITION.to_owned(),
            decoded: self.decoder.take(),
            position: Position::Generator { message: position.message, origin_us: position.origin_us },
            bytes: self.bytes.len() as u64,
        })
    }
}
