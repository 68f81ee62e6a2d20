//! What `CREATE SOURCE … WITH (connector = 'generator', …)` may say.

use chrono::{DateTime, NaiveDate, NaiveDateTime};

/// What to generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Trips as Debezium's PostgreSQL connector sends them.
    Trips,
    /// The payment types: a snapshot, then now and then an update; Debezium messages.
    PaymentTypes,
    /// The vendors, likewise.
    Vendors,
    /// One JSON object per hour of weather, and a corrected one an hour later.
    Weather,
}

impl Kind {
    const NAMES: [(&'static str, Kind); 4] = [
        ("nyc.trips", Kind::Trips),
        ("nyc.payment_types", Kind::PaymentTypes),
        ("nyc.vendors", Kind::Vendors),
        ("nyc.weather", Kind::Weather),
    ];

    /// The value of the option `kind`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Trips => "nyc.trips",
            Kind::PaymentTypes => "nyc.payment_types",
            Kind::Vendors => "nyc.vendors",
            Kind::Weather => "nyc.weather",
        }
    }

    /// Whether the lines are Debezium change messages (without schemas, `decimal.handling.mode` double, `time.precision.mode`
    /// adaptive). Otherwise each line is a JSON object whose fields are the columns.
    pub fn is_debezium(self) -> bool {
        !matches!(self, Kind::Weather)
    }
}

/// Options of the generator. Two generators with equal options and an equal origin write the same bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratorOptions {
    /// What to generate.
    pub kind: Kind,
    /// Different seeds are different cities with different weather. Sources of one lake share it, so that the weather that trips
    /// were made under is the one that the weather source tells.
    pub seed: u64,
    /// Trips: messages per second from the origin on. 0: the clock is not waited for, event time runs on at the history's density.
    /// Payment types and vendors: updates per second, when given. Weather: 0 for not waiting for the clock.
    pub rate: Option<f64>,
    /// How many messages there are in all; absent: no end.
    pub events: Option<u64>,
    /// Where the past ends and live data begins, microseconds since 1970 UTC; absent: the moment of the first start.
    pub start_us: Option<i64>,
    /// How much of the past comes first, as fast as it is read, microseconds.
    pub history_us: i64,
    /// How many messages about trips the past has. Absent: as many as `rate` gives for `history`, [`HISTORY_EVENTS_MAX`] at most, or
    /// all of `events` with `rate` 0.
    pub history_events: Option<u64>,
    /// Whether live trips come and go with the day, the week and the weather, `rate` being the mean; otherwise they come evenly. The
    /// past always has its rhythm.
    pub rhythm: bool,
    /// How many of 100,000 trip messages are broken.
    pub broken_per_100_000: u32,
}

/// Messages about the past where `history_events` is not given.
pub const HISTORY_EVENTS_MAX: u64 = 300_000;

/// Messages per second where `rate` is not given.
pub const RATE_DEFAULT: f64 = 2.0;

/// The generator's option names.
pub const OPTION_NAMES: [&str; 9] = ["kind", "rate", "events", "seed", "start", "history", "history_events", "rhythm", "broken"];

/// An option that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GeneratorError {
    /// `kind` is missing.
    #[error("the generator needs kind = one of {}", kinds())]
    NoKind,
    /// No such `kind`.
    #[error("the generator has no kind '{name}': give one of {}", kinds())]
    Kind {
        /// What was asked for.
        name: String,
    },
    /// A value that cannot be read.
    #[error("{option} = '{value}' of the generator: {expected}")]
    Value {
        /// The option.
        option: &'static str,
        /// What it says.
        value: String,
        /// What it should say.
        expected: &'static str,
    },
    /// An unknown option.
    #[error("the generator has no option '{name}': did you mean '{nearest}'?")]
    Unknown {
        /// The option.
        name: String,
        /// The most similar one.
        nearest: &'static str,
    },
}

fn kinds() -> String {
    Kind::NAMES.map(|(name, _)| format!("'{name}'")).join(", ")
}

impl GeneratorOptions {
    /// Everything at its default.
    pub fn new(kind: Kind) -> Self {
        GeneratorOptions {
            kind,
            seed: 1,
            rate: None,
            events: None,
            start_us: None,
            history_us: 3 * 86_400_000_000,
            history_events: None,
            rhythm: false,
            broken_per_100_000: 100,
        }
    }

    /// Reads the options of a `WITH` list. The caller leaves out those that are not the generator's own (`connector`, `format`,
    /// `envelope`, …); an unknown name is an error.
    ///
    /// `kind` · `rate` (a number) · `events` (a number) · `seed` (a number) · `start` (`2025-03-03T00:00:00Z`, `2025-03-03`) ·
    /// `history` (`3 days`, `12h`) · `history_events` (a number) · `rhythm` (`true`, `false`) · `broken` (messages in 100,000).
    ///
    /// # Errors
    /// Names the option, and what it should say.
    pub fn parse<'a>(options: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, GeneratorError> {
        let mut kind = None;
        let mut read = GeneratorOptions::new(Kind::Trips);
        for (name, value) in options {
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "kind" => {
                    let known = Kind::NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(value));
                    kind = Some(known.ok_or_else(|| GeneratorError::Kind { name: value.to_owned() })?.1);
                }
                "rate" => read.rate = Some(rate(value)?),
                "events" => read.events = Some(number("events", value)?),
                "seed" => read.seed = number("seed", value)?,
                "start" => read.start_us = Some(start(value)?),
                "history" => read.history_us = history(value)?,
                "history_events" => read.history_events = Some(number("history_events", value)?),
                "rhythm" => read.rhythm = switch(value)?,
                "broken" => read.broken_per_100_000 = number("broken", value)?.min(100_000) as u32,
                unknown => return Err(unknown_option(unknown)),
            }
        }
        read.kind = kind.ok_or(GeneratorError::NoKind)?;
        Ok(read)
    }
}

fn wrong(option: &'static str, value: &str, expected: &'static str) -> GeneratorError {
    GeneratorError::Value { option, value: value.to_owned(), expected }
}

fn number(option: &'static str, value: &str) -> Result<u64, GeneratorError> {
    value.replace('_', "").parse().map_err(|_| wrong(option, value, "give a whole number, such as 100000"))
}

fn rate(value: &str) -> Result<f64, GeneratorError> {
    let rate: f64 = value.replace('_', "").parse().unwrap_or(f64::NAN);
    let known = rate == 0.0 || (0.000_001..=100_000_000.0).contains(&rate);
    known
        .then_some(rate)
        .ok_or_else(|| wrong("rate", value, "give messages per second, such as 100, or 0 for as fast as it goes"))
}

fn switch(value: &str) -> Result<bool, GeneratorError> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" => Ok(true),
        "false" | "off" | "no" => Ok(false),
        _ => Err(wrong("rhythm", value, "give true or false")),
    }
}

fn start(value: &str) -> Result<i64, GeneratorError> {
    let expected = "give an instant of this century, such as 2025-03-03T00:00:00Z (UTC where it names no zone)";
    let instant = DateTime::parse_from_rfc3339(value)
        .map(|at| at.timestamp_micros())
        .or_else(|_| NaiveDateTime::parse_from_str(value, "%Y-%m-%d %H:%M:%S").map(|at| at.and_utc().timestamp_micros()))
        .or_else(|_| {
            NaiveDate::parse_from_str(value, "%Y-%m-%d")
                .map(|day| day.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros())
        })
        .map_err(|_| wrong("start", value, expected))?;
    // 2000-01-01 to 2100-01-01: beyond that the zone's rules and the generator's arithmetic are nobody's wish.
    (946_684_800_000_000..4_102_444_800_000_000)
        .contains(&instant)
        .then_some(instant)
        .ok_or_else(|| wrong("start", value, expected))
}

fn history(value: &str) -> Result<i64, GeneratorError> {
    let expected = "give a duration of ten years at the most, such as '3 days' or '12h'";
    let duration = humantime::parse_duration(value).map_err(|_| wrong("history", value, expected))?;
    let us = i64::try_from(duration.as_micros()).map_err(|_| wrong("history", value, expected))?;
    (us <= 3660 * 86_400_000_000).then_some(us).ok_or_else(|| wrong("history", value, expected))
}

fn unknown_option(name: &str) -> GeneratorError {
    let likeness = |known: &&str| (strsim::jaro_winkler(name, known) * 1000.0) as u32;
    let nearest = OPTION_NAMES.into_iter().max_by_key(|known| likeness(known)).unwrap_or("kind");
    GeneratorError::Unknown { name: name.to_owned(), nearest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_people_write_them() {
        let options = GeneratorOptions::parse([
            ("kind", "nyc.trips"),
            ("rate", "0"),
            ("events", "1_000_000"),
            ("seed", "7"),
            ("start", "2025-03-03T00:00:00Z"),
            ("history", "3 days"),
            ("rhythm", "true"),
        ])
        .unwrap();
        assert_eq!(options.start_us, Some(1_740_960_000_000_000));
        assert_eq!(
            (options.events, options.seed, options.rate, options.history_us),
            (Some(1_000_000), 7, Some(0.0), 259_200_000_000)
        );
        assert!(options.rhythm);
        assert_eq!(GeneratorOptions::parse([("kind", "NYC.Weather"), ("start", "2025-03-03")]).unwrap().kind, Kind::Weather);
        for (_, kind) in Kind::NAMES {
            assert_eq!(GeneratorOptions::parse([("kind", kind.name())]).unwrap(), GeneratorOptions::new(kind));
        }
    }

    #[test]
    fn errors_say_what_to_write_instead() {
        let error =
            |options: &[(&'static str, &'static str)]| GeneratorOptions::parse(options.iter().copied()).unwrap_err().to_string();
        assert!(error(&[]).contains("'nyc.trips'"));
        assert!(error(&[("kind", "nyc.trip")]).contains("no kind 'nyc.trip'"));
        assert_eq!(error(&[("kind", "nyc.trips"), ("sead", "1")]), "the generator has no option 'sead': did you mean 'seed'?");
        for (name, value) in [
            ("rate", "-1"),
            ("rate", "fast"),
            ("rate", "inf"),
            ("events", "1.5"),
            ("start", "soon"),
            ("history", "3"),
            ("start", "1925-01-01"),
            ("history", "100 years"),
            ("rhythm", "maybe"),
        ] {
            assert!(error(&[("kind", "nyc.trips"), (name, value)]).starts_with(&format!("{name} = '{value}'")), "{name} {value}");
        }
    }
}
