//! `livelake bench nexmark`: each query in a process of its own, so that its peak of memory is its own.

mod events;
mod measure;
mod query;

use std::process::Command;

use self::measure::{Measured, Settings, generator_alone, measure};
use self::query::{QUERIES, Query};
use super::super::{Failure, running};

/// The query that is none: the generator alone.
const NONE: &str = "none";

/// The 22 Nexmark queries as SQL text through the whole engine.
#[derive(Debug, clap::Args)]
pub struct Nexmark {
    /// How many events.
    #[arg(long, default_value_t = 4_000_000)]
    events: u64,
    /// Events of a second of their own time: what windows see. The reference's generators begin with 10,000,000.
    #[arg(long, value_name = "EVENTS", default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// Engine threads; the generator has one of its own.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Events of a tick.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    tick: u64,
    /// Only these queries, as q0,q3; `none` is the generator alone.
    #[arg(long, value_delimiter = ',')]
    queries: Vec<String>,
    /// Seed of the events.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Compare each answer with a batch computation after each tick: for few events and no figures.
    #[arg(long)]
    check: bool,
    /// A JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
    /// All queries in this process.
    #[arg(long, hide = true)]
    here: bool,
}

impl Nexmark {
    /// Prints a line a query.
    ///
    /// # Errors
    /// A query does not exist or cannot be run, or its answer differs.
    pub fn run(self) -> Result<(), Failure> {
        let chosen = self.chosen()?;
        if !self.json {
            println!("query   events/s  seconds  peak MiB       rows  view MiB{}", if self.check { "  differences" } else { "" });
        }
        let mut differing = Vec::new();
        for name in chosen {
            let measured = if self.here { self.measure_here(name)? } else { self.measure_apart(name)? };
            if self.json {
                println!("{}", serde_json::to_string(&measured).map_err(running)?);
            } else {
                println!("{}", line(&measured));
            }
            if measured.differences.is_some_and(|count| count > 0) {
                differing.push(format!("{name}: the view differs from its batch computation in {:?} rows", measured.differences));
            }
        }
        if differing.is_empty() { Ok(()) } else { Err(Failure::Differs(differing)) }
    }

    fn chosen(&self) -> Result<Vec<&'static str>, Failure> {
        let names = || QUERIES.iter().map(|query| query.name).chain([NONE]);
        if self.queries.is_empty() {
            return Ok(names().collect());
        }
        let find = |wanted: &String| {
            let known = || names().collect::<Vec<_>>().join(", ");
            names().find(|name| name == wanted).ok_or_else(|| vec![format!("there is no query {wanted}: there are {}", known())])
        };
        self.queries.iter().map(find).collect::<Result<_, _>>().map_err(Failure::Usage)
    }

    fn measure_here(&self, name: &str) -> Result<Measured, Failure> {
        let Nexmark { events, rate: event_rate, workers, tick, seed, check, .. } = *self;
        let settings = Settings { events, tick, event_rate, workers, seed, check };
        match QUERIES.iter().find(|query: &&Query| query.name == name) {
            Some(query) => measure(query, &settings),
            None => generator_alone(&settings),
        }
    }

    fn measure_apart(&self, name: &str) -> Result<Measured, Failure> {
        let mut child = Command::new(std::env::current_exe().map_err(running)?);
        child.args(["bench", "nexmark", "--here", "--json", "--queries", name]);
        let numbers = [
            ("--events", self.events),
            ("--rate", self.rate),
            ("--workers", self.workers as u64),
            ("--tick", self.tick),
            ("--seed", self.seed),
        ];
        for (option, value) in numbers {
            child.args([option, &value.to_string()]);
        }
        if self.check {
            child.arg("--check");
        }
        let output = child.stderr(std::process::Stdio::inherit()).output().map_err(running)?;
        serde_json::from_slice(&output.stdout)
            .map_err(|error| running(format!("{name} ended without figures ({}): {error}", output.status)))
    }
}

fn line(measured: &Measured) -> String {
    const MIB: f64 = (1 << 20) as f64;
    let differences = measured.differences.map(|count| format!("  {count:>11}")).unwrap_or_default();
    format!(
        "{:<5} {:>10.0} {:>8.2} {:>9.0} {:>10} {:>9.0}{differences}",
        measured.query,
        measured.events_per_second,
        measured.seconds,
        measured.peak_bytes as f64 / MIB,
        measured.rows,
        measured.view_bytes as f64 / MIB
    )
}
