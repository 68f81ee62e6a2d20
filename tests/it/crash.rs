//! kill -9 at random instants, and deaths at every named place, many times, while rows come in: the tables end as if nothing had happened.
//!
//! A kill comes a random while after a random number of epochs, so that on a slow machine, too, there are epochs between two kills. Every
//! other round the process dies by itself at a failpoint: while it hydrates, writes files, changes the catalog, tidies up or maintains its
//! tables. `LIVELAKE_KILLS` says how many rounds there are (60).

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use livelake_actors::sources::generator::{Generator, GeneratorOptions, Kind};

use crate::process::{LakeDir, Running, until};

/// Messages for each round.
const MESSAGES: usize = 1_200;

/// Places to die at, and how many times at most they are passed before.
const PLACES: [(&str, u64); 14] = [
    ("file", 40),
    ("metadata", 8),
    ("metadata-written", 8),
    ("catalog-begin", 3),
    ("catalog-moved", 3),
    ("catalog-commit", 3),
    ("committed", 1),
    ("sweep", 30),
    ("hydrate", 6),
    ("maintenance-begin", 1),
    ("maintenance-commit", 1),
    ("maintenance-committed", 1),
    ("orphan", 3),
    ("file", 4),
];

/// Small files are thinned too, and tables are maintained all the time.
const SETTINGS: [&str; 6] = [
    "epochs.interval=60ms",
    "epochs.keep=3",
    "maintenance.interval=80ms",
    "maintenance.orphans_after=0s",
    "maintenance.thin_from=1",
    "maintenance.most_gone=60",
];

const SOURCES: &str = "
CREATE SOURCE cdc.trips (
    id BIGINT PRIMARY KEY, vendor_id INTEGER NOT NULL, pickup_datetime TIMESTAMPTZ NOT NULL, dropoff_datetime TIMESTAMPTZ NOT NULL,
    trip_distance DOUBLE PRECISION, pickup_location_id INTEGER NOT NULL, total_amount DECIMAL(10, 2)
) WITH (connector = 'files', path = 'trips.ndjson', format = 'debezium-json', decimal.handling.mode = 'double', poll = '50ms');
CREATE MATERIALIZED VIEW views.zones AS
SELECT pickup_location_id, count(*) AS trips, sum(total_amount) AS revenue, avg(trip_distance) AS miles, count(DISTINCT vendor_id) AS vendors
FROM cdc.trips GROUP BY pickup_location_id;
CREATE MATERIALIZED VIEW views.windows AS
SELECT window_start, vendor_id, count(*) AS trips, max(total_amount) AS most
FROM TUMBLE(cdc.trips, pickup_datetime, INTERVAL '1 hour') GROUP BY window_start, window_end, vendor_id;
CREATE SINK sinks.trips FROM cdc.trips WITH (connector = 'iceberg', table = 'cdc.trips', partition_by = 'day(pickup_datetime)');
CREATE SINK sinks.zones FROM views.zones WITH (connector = 'iceberg', table = 'views.zones');
CREATE SINK sinks.windows FROM views.windows WITH (connector = 'iceberg', table = 'views.windows', partition_by = 'vendor_id');
";

/// A stream of numbers that only depends on the seed, for the instants of the kills.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

fn messages(rounds: usize) -> Vec<Vec<u8>> {
    let mut options = GeneratorOptions::new(Kind::Trips);
    options.start_us = Some(1_741_000_000_000_000);
    options.rate = Some(0.0);
    let mut generator = Generator::new(&options, 0);
    let mut chunks = Vec::new();
    let mut count = 0;
    while count < MESSAGES * rounds {
        let mut bytes = Vec::new();
        count += generator.fill(&mut bytes, 400, 0);
        chunks.push(bytes);
    }
    chunks
}

/// How often a lake has looked after its tables; none where it does not answer.
fn maintained(running: &Running) -> Option<u64> {
    let url = running.url();
    let text = ureq::get(format!("{url}/metrics")).call().ok()?.body_mut().read_to_string().ok()?;
    text.lines().find_map(|line| line.strip_prefix("livelake_maintenance_passes_total "))?.parse().ok()
}

#[test]
fn kills_leave_the_tables_of_an_undisturbed_run() {
    let rounds = std::env::var("LIVELAKE_KILLS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(60);
    let disturbed = LakeDir::new(&[("10_lake.sql", SOURCES)]);
    let undisturbed = LakeDir::new(&[("10_lake.sql", SOURCES)]);
    let chunks = messages(rounds);
    let append = |lake: &LakeDir, bytes: &[u8]| {
        let path = lake.path().join("trips.ndjson");
        std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
    };
    let mut seed = 20_250_303;
    let (mut waited_for, mut died) = (0, BTreeMap::new());
    for (round, part) in chunks.chunks(chunks.len().div_ceil(rounds)).enumerate() {
        // some of it comes while the lake is down
        let (first, others) = part.split_first().unwrap();
        append(&disturbed, first);
        if round % 2 == 1 {
            let (place, passed) = PLACES[round / 2 % PLACES.len()];
            let mut running = disturbed.start_dying(&format!("{place}:{}", next(&mut seed) % passed + 1), &SETTINGS);
            for bytes in others {
                let before = disturbed.epochs().len();
                append(&disturbed, bytes);
                until("an epoch, or its death", || (running.has_ended() || disturbed.epochs().len() > before).then_some(()));
            }
            // maintenance comes by itself, and looks twice before it does anything
            let enough = |running: &Running| maintained(running).is_none_or(|passes| passes >= 8);
            until("maintenance, or its death", || {
                (!place.starts_with("maintenance") || running.has_ended() || enough(&running)).then_some(())
            });
            if running.has_ended() {
                let said = running.said();
                assert!(said.contains("died at failpoint"), "it died by itself: {said}");
                *died.entry(place).or_insert(0) += 1;
            }
            running.kill();
            continue;
        }
        let running = disturbed.start(&SETTINGS);
        // and it dies while it starts, or after some epochs with their news
        let epochs = next(&mut seed) as usize % (others.len() + 2);
        for bytes in others.iter().take(epochs) {
            append(&disturbed, bytes);
            running.next_epoch();
            waited_for += 1;
        }
        others.iter().skip(epochs).for_each(|bytes| append(&disturbed, bytes));
        // nothing is waited for here: the moment of the kill is what differs
        std::thread::sleep(Duration::from_millis(next(&mut seed) % 150));
        running.kill();
    }
    println!("{rounds} rounds; deaths at places: {died:?}; epochs: {}", disturbed.epochs().len());
    assert!(died.len() >= 8, "{died:?}");
    disturbed.expect(&["run", "--once"]);
    chunks.iter().for_each(|bytes| append(&undisturbed, bytes));
    undisturbed.expect(&["run", "--once"]);

    let (mut after, mut expected) = (disturbed.tables(), undisturbed.tables());
    for tables in [&mut after, &mut expected] {
        // an error row says when it was met, which is another time in another run
        for row in tables.get_mut("cdc.trips$errors").unwrap() {
            row.truncate(row.rfind('|').unwrap());
        }
    }
    assert_eq!(after.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (table, rows) in &expected {
        assert!(after[table] == *rows, "{table} differs: {} rows, expected {}", after[table].len(), rows.len());
    }
    assert!(expected["cdc.trips"].len() > MESSAGES * rounds / 2);
    let epochs = disturbed.epochs();
    assert!(waited_for >= rounds / 2, "only {waited_for} epochs were waited for");
    assert!(epochs.len() >= waited_for, "{} epochs, where {waited_for} were seen", epochs.len());
    for (at, (number, _)) in epochs.iter().enumerate() {
        assert_eq!(*number, at as u64 + 1, "epochs have neither gaps nor repeats");
    }
    assert!(epochs.windows(2).all(|pair| pair[0].1 < pair[1].1), "timestamps only go forward");
}
