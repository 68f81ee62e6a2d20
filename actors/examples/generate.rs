//! Writes what the generator makes to standard output, one message a line, for a look at it or for another program:
//!
//! ```sh
//! cargo run --release -p livelake-actors --example generate -- kind=nyc.trips rate=0 events=1000 start=2025-03-03
//! ```
//!
//! Arguments are the connector's options. The truth about the messages (rows, sums, counts) goes to standard error.

use std::error::Error;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use livelake_actors::sources::generator::{Generator, GeneratorOptions};

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let options = arguments.iter().map(|argument| argument.split_once('=').unwrap_or((argument, "")));
    let options = GeneratorOptions::parse(options)?;
    let mut generator = Generator::new(&options, now_us());
    let origin_us = generator.position().origin_us;
    let mut out = std::io::stdout().lock();
    let mut bytes = Vec::new();
    while let Some(due) = generator.next_due_us() {
        let wait = due - now_us();
        if wait > 0 {
            std::thread::sleep(Duration::from_micros(wait as u64));
        }
        bytes.clear();
        generator.fill(&mut bytes, 10_000, now_us());
        out.write_all(&bytes)?;
        out.flush()?;
    }
    let truth = Generator::truth(&options, origin_us, generator.position().message);
    eprintln!("{}", serde_json::to_string(&truth)?);
    Ok(())
}
