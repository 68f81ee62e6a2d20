//! The lake's settings: `livelake.toml`, under environment variables, under `--set` on the command line.
//!
//! Every key can be given in all three places: `[http] port = 8000`, `LIVELAKE_HTTP__PORT=8000`, `--set http.port=8000`. An unknown key
//! is an error that names the nearest one. Durations are written as people do (`200ms`, `10s`).

use std::path::Path;
use std::time::Duration;

use livelake_sinks::FileRules;
use serde::{Deserialize, Deserializer};

/// All settings, with their defaults.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The HTTP server.
    pub http: Http,
    /// The PostgreSQL wire server.
    pub postgres: Postgres,
    /// The engine.
    pub engine: Engine,
    /// Commits.
    pub epochs: Epochs,
    /// Looking after the tables.
    pub maintenance: Maintenance,
    /// Where tables are.
    pub storage: Storage,
}

/// `[http]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Address to listen on.
    pub bind: String,
    /// Port; 0 picks a free one.
    pub port: u16,
}

impl Default for Http {
    fn default() -> Self {
        Http { bind: "127.0.0.1".to_owned(), port: 8000 }
    }
}

/// `[postgres]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Postgres {
    /// Address to listen on.
    pub bind: String,
    /// Port; 0 picks a free one.
    pub port: u16,
}

impl Default for Postgres {
    fn default() -> Self {
        Postgres { bind: "127.0.0.1".to_owned(), port: 5433 }
    }
}

/// `[engine]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Engine {
    /// Timely worker threads; 0: one per core.
    pub workers: usize,
    /// The least time between two ticks.
    #[serde(deserialize_with = "duration")]
    pub tick: Duration,
    /// How much history is kept in memory for `AS OF`.
    #[serde(deserialize_with = "duration")]
    pub retention: Duration,
    /// What `now()` means; only the system's time so far.
    pub clock: TimeBase,
    /// Bytes of memory above which no source is read on; absent: no limit.
    #[serde(deserialize_with = "size")]
    pub memory_limit: Option<u64>,
}

/// `engine.clock`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum TimeBase {
    /// `now()` is the system's time.
    #[default]
    System,
    /// `now()` is the greatest event time read.
    Event,
}

impl Default for Engine {
    fn default() -> Self {
        Engine {
            workers: 0,
            tick: Duration::from_millis(1),
            retention: Duration::from_secs(30),
            clock: TimeBase::System,
            memory_limit: None,
        }
    }
}

/// `[epochs]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Epochs {
    /// Time between two commits.
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
    /// Snapshots that every table keeps at least.
    pub keep: usize,
    /// Younger snapshots are kept too.
    #[serde(deserialize_with = "duration")]
    pub keep_for: Duration,
}

impl Default for Epochs {
    fn default() -> Self {
        Epochs { interval: Duration::from_secs(10), keep: 20, keep_for: Duration::ZERO }
    }
}

/// `[maintenance]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Maintenance {
    /// Time between two passes over all tables; zero: only when asked (VACUUM).
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
    /// Files that nobody reaches go once they are this old.
    #[serde(deserialize_with = "duration")]
    pub orphans_after: Duration,
    /// Bytes of a data file at most.
    #[serde(deserialize_with = "size")]
    pub file_size: Option<u64>,
    /// A smaller data file that loses rows is written anew; a larger one gets a delete file.
    #[serde(deserialize_with = "size")]
    pub thin_from: Option<u64>,
    /// Percent of its rows that a data file may have lost before it is written anew.
    pub most_gone: u8,
}

impl Default for Maintenance {
    fn default() -> Self {
        Maintenance {
            interval: Duration::from_secs(600),
            orphans_after: Duration::from_secs(86_400),
            file_size: None,
            thin_from: None,
            most_gone: 20,
        }
    }
}

impl Maintenance {
    /// What the tables' files should be like.
    pub fn files(&self) -> FileRules {
        let rules = FileRules::default();
        FileRules {
            target_bytes: self.file_size.unwrap_or(rules.target_bytes),
            thinned_from_bytes: self.thin_from.unwrap_or(rules.thinned_from_bytes),
            most_gone: f64::from(self.most_gone) / 100.0,
            ..rules
        }
    }
}

/// `[storage]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// Where the tables are: a folder, relative to the lake, or `s3://bucket/folder`.
    pub warehouse: String,
    /// The Iceberg catalog: `sqlite:PATH` relative to the lake, or `postgres://…`.
    pub catalog: String,
}

impl Default for Storage {
    fn default() -> Self {
        Storage { warehouse: ".livelake/warehouse".to_owned(), catalog: "sqlite:.livelake/catalog.db".to_owned() }
    }
}

/// All keys, for the nearest one to a typo.
const KEYS: [&str; 19] = [
    "http.bind",
    "http.port",
    "postgres.bind",
    "postgres.port",
    "engine.workers",
    "engine.tick",
    "engine.retention",
    "engine.clock",
    "engine.memory_limit",
    "epochs.interval",
    "epochs.keep",
    "epochs.keep_for",
    "maintenance.interval",
    "maintenance.orphans_after",
    "maintenance.file_size",
    "maintenance.thin_from",
    "maintenance.most_gone",
    "storage.warehouse",
    "storage.catalog",
];

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text)
        .map_err(|_| serde::de::Error::custom(format!("`{text}` is not a duration such as 200ms or 10s")))
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = match toml::Value::deserialize(deserializer)? {
        toml::Value::String(text) => text,
        other => other.to_string(),
    };
    match crate::memory::parse_size(&text) {
        Some(0) | None => Err(serde::de::Error::custom(format!("`{text}` is not a size such as 500MB or 2GiB"))),
        size => Ok(size),
    }
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ConfigError(String);

impl Config {
    /// Reads the settings of a lake.
    ///
    /// # Errors
    /// The file cannot be read or parsed, a key is unknown, or a value makes no sense; in words with the place.
    pub fn load(folder: &Path, environment: &dyn Fn() -> Vec<(String, String)>, sets: &[String]) -> Result<Config, ConfigError> {
        let path = folder.join("livelake.toml");
        let mut table = match std::fs::read_to_string(&path) {
            Ok(text) => text.parse::<toml::Table>().map_err(|error| ConfigError(format!("{}: {error}", path.display())))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => toml::Table::new(),
            Err(error) => return Err(ConfigError(format!("cannot read {}: {error}", path.display()))),
        };
        for (section, value) in &table {
            let Some(keys) = value.as_table() else { return Err(unknown(section, &path.display().to_string())) };
            for key in keys.keys() {
                check_known(&format!("{section}.{key}"), &path.display().to_string())?;
            }
        }
        for (name, value) in environment() {
            if let Some(key) = name.strip_prefix("LIVELAKE_")
                && let Some((section, key)) = key.split_once("__")
            {
                set(&mut table, &format!("{}.{}", section.to_lowercase(), key.to_lowercase()), &value, &name)?;
            }
        }
        for assignment in sets {
            let (key, value) = assignment
                .split_once('=')
                .ok_or_else(|| ConfigError(format!("--set {assignment}: write it as section.key=value")))?;
            set(&mut table, key.trim(), value.trim(), "--set")?;
        }
        let config: Config =
            table.try_into().map_err(|error: toml::de::Error| ConfigError(format!("{}: {}", path.display(), error.message())))?;
        if config.epochs.interval.is_zero() {
            return Err(ConfigError("epochs.interval must be above zero".to_owned()));
        }
        if !(1..=100).contains(&config.maintenance.most_gone) {
            return Err(ConfigError("maintenance.most_gone is a percentage from 1 to 100".to_owned()));
        }
        if config.engine.clock == TimeBase::Event {
            let message = "engine.clock = event is not supported yet: now() is the system's time; leave the setting out, and compare \
                           with a time column instead of now() for replays";
            return Err(ConfigError(message.to_owned()));
        }
        Ok(config)
    }

    /// Worker threads to start.
    pub fn workers(&self) -> usize {
        match self.engine.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
    }
}

fn unknown(key: &str, place: &str) -> ConfigError {
    let nearest = KEYS.iter().max_by(|left, right| strsim::jaro_winkler(left, key).total_cmp(&strsim::jaro_winkler(right, key)));
    ConfigError(match nearest {
        Some(nearest) => format!("{place}: unknown setting `{key}`; did you mean `{nearest}`?"),
        None => format!("{place}: unknown setting `{key}`"),
    })
}

fn check_known(key: &str, place: &str) -> Result<(), ConfigError> {
    if KEYS.contains(&key) { Ok(()) } else { Err(unknown(key, place)) }
}

fn set(table: &mut toml::Table, key: &str, value: &str, place: &str) -> Result<(), ConfigError> {
    check_known(key, place)?;
    let Some((section, name)) = key.split_once('.') else { return Err(unknown(key, place)) };
    let value = match value.parse::<i64>() {
        Ok(number) => toml::Value::Integer(number),
        Err(_) => toml::Value::String(value.to_owned()),
    };
    if let Some(section) = table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new())).as_table_mut() {
        section.insert(name.to_owned(), value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(sets: &[&str], variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let variables: Vec<(String, String)> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        Config::load(Path::new("/nowhere/to/be/found"), &|| variables.clone(), &sets)
    }

    #[test]
    fn layers_win_in_order() {
        let config =
            load(&["http.port=1", "engine.tick=5ms"], &[("LIVELAKE_HTTP__PORT", "2"), ("LIVELAKE_POSTGRES__PORT", "3")]).unwrap();
        assert_eq!((config.http.port, config.postgres.port, config.engine.tick), (1, 3, Duration::from_millis(5)));
    }

    #[test]
    fn a_typo_is_told_what_was_meant() {
        assert_eq!(
            load(&["http.prot=1"], &[]).unwrap_err().to_string(),
            "--set: unknown setting `http.prot`; did you mean `http.port`?"
        );
        assert!(load(&["engine.clock=event"], &[]).unwrap_err().to_string().contains("not supported yet"));
        assert!(load(&["engine.clock=sundial"], &[]).unwrap_err().to_string().contains("sundial"));
        assert!(load(&["engine.memory_limit=lots"], &[]).unwrap_err().to_string().contains("not a size"));
        assert_eq!(load(&["engine.memory_limit=2GB"], &[]).unwrap().engine.memory_limit, Some(2_000_000_000));
        assert_eq!(load(&["engine.memory_limit=5000000"], &[]).unwrap().engine.memory_limit, Some(5_000_000));
        assert!(load(&["epochs.interval=soon"], &[]).unwrap_err().to_string().contains("not a duration"));
    }
}
