//! What the generator promises, held against the bytes it writes.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::Value;

use super::*;

const ORIGIN: i64 = 1_740_960_000_000_000;

fn options(kind: Kind) -> GeneratorOptions {
    GeneratorOptions { rate: Some(0.0), events: Some(120_000), start_us: Some(ORIGIN), ..GeneratorOptions::new(kind) }
}

fn all(options: &GeneratorOptions) -> Vec<u8> {
    Generator::new(options, 0).next_chunk(usize::MAX, i64::MAX).bytes
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.strip_suffix(b"\n").unwrap_or(bytes).split(|byte| *byte == b'\n')
}

/// A reader as plain as can be: the last state of every key, and the lines it could not take.
#[derive(Default)]
struct Replay {
    rows: HashMap<u64, Value>,
    ops: HashMap<String, u64>,
    broken: u64,
    late: u64,
}

impl Replay {
    fn of(bytes: &[u8]) -> Self {
        let mut replay = Replay::default();
        for line in lines(bytes) {
            match replay.take(line) {
                Some(op) => *replay.ops.entry(op).or_default() += 1,
                None => replay.broken += 1,
            }
        }
        replay
    }

    fn take(&mut self, line: &[u8]) -> Option<String> {
        let message: Value = serde_json::from_slice(line).ok()?;
        let op = message["op"].as_str()?.to_owned();
        let (before, after) = (&message["before"], &message["after"]);
        let row = if after.is_null() { before } else { after };
        let id = row["id"].as_u64()?;
        if message["source"]["table"] == "trips" {
            row["pickup_location_id"].as_u64()?;
        }
        if op == "u" || op == "d" {
            assert_eq!(self.rows.get(&id), Some(before), "before is the row as it was");
            assert_ne!(before, after);
        }
        let old = if after.is_null() { self.rows.remove(&id) } else { self.rows.insert(id, after.clone()) };
        assert_eq!(old.is_some(), op == "u" || op == "d", "{op} of {id}");
        if op == "c" {
            let ended = after["dropoff_datetime"].as_i64()?.max(after["pickup_datetime"].as_i64()?);
            self.late += u64::from(ended < message["source"]["ts_us"].as_i64()? - LATE_US);
        }
        Some(op)
    }
}

fn cents(value: &Value) -> i64 {
    (value.as_f64().unwrap() * 100.0).round() as i64
}

#[test]
fn the_same_options_write_the_same_bytes() {
    for kind in [Kind::Trips, Kind::PaymentTypes, Kind::Vendors, Kind::Weather] {
        let options = GeneratorOptions { events: Some(20_000), ..options(kind) };
        let bytes = all(&options);
        assert_eq!(lines(&bytes).count(), 20_000, "{kind:?}");
        assert!(bytes == all(&options), "{kind:?}");
        if kind == Kind::Trips || kind == Kind::Weather {
            assert!(bytes != all(&GeneratorOptions { seed: 2, ..options.clone() }), "{kind:?}");
        }
        // However they are cut into chunks.
        let mut generator = Generator::new(&options, 0);
        let mut chunks = Vec::new();
        while generator.fill(&mut chunks, 777, 0) > 0 {}
        assert!(bytes == chunks, "{kind:?}");
    }
}

#[test]
fn reading_goes_on_anywhere_as_if_it_had_not_stopped() {
    for kind in [Kind::Trips, Kind::PaymentTypes, Kind::Vendors, Kind::Weather] {
        let options = GeneratorOptions { rate: Some(50.0), history_events: Some(30_000), events: None, ..options(kind) };
        let mut generator = Generator::new(&options, 0);
        let mut random = random::Random::new(9, 9, 9);
        for _ in 0..60 {
            generator.next_chunk(random.below(4_000) as usize, i64::MAX);
            let position = generator.position();
            let restored: GeneratorPosition = serde_json::from_str(&serde_json::to_string(&position).unwrap()).unwrap();
            let mut resumed = Generator::resume(&options, restored);
            let (expected, found) = (generator.next_chunk(300, i64::MAX), resumed.next_chunk(300, i64::MAX));
            assert!(expected == found, "{kind:?} at {position:?}");
            assert!(expected.messages >= 300);
        }
        assert!(generator.position().message > 60_000);
    }
}

#[test]
fn a_plain_replay_ends_with_the_truth() {
    let options = options(Kind::Trips);
    let replay = Replay::of(&all(&options));
    let truth = Generator::truth(&options, 0, 120_000);
    assert_eq!(truth.messages, 120_000);
    assert_eq!(truth.live_rows, replay.rows.len() as u64);
    assert_eq!(truth.total_amount_cents, replay.rows.values().map(|row| cents(&row["total_amount"])).sum::<i64>());
    assert_eq!((truth.inserts, truth.updates, truth.deletes), (replay.ops["c"], replay.ops["u"], replay.ops["d"]));
    assert_eq!((truth.broken, truth.late), (replay.broken, replay.late));

    let share = |count: u64| count as f64 / 120_000.0;
    assert!((0.047..0.053).contains(&share(truth.updates)), "{truth:?}");
    assert!((0.018..0.022).contains(&share(truth.deletes)), "{truth:?}");
    assert!((0.0007..0.0013).contains(&share(truth.broken)), "{truth:?}");
    assert!((0.014..0.026).contains(&share(truth.late)), "{truth:?}");
    let amounts = |row: &Value| -> i64 {
        ["fare_amount", "extra", "mta_tax", "tip_amount", "tolls_amount", "improvement_surcharge", "congestion_surcharge"]
            .iter()
            .map(|name| cents(&row[*name]))
            .sum::<i64>()
            + row["airport_fee"].as_f64().map_or(0, |fee| (fee * 100.0).round() as i64)
    };
    assert!(replay.rows.values().all(|row| amounts(row) == cents(&row["total_amount"])));
}

#[test]
fn most_trips_are_valid_and_some_are_not() {
    let replay = Replay::of(&all(&options(Kind::Trips)));
    let valid = |row: &&Value| {
        let (from, to) = (row["pickup_datetime"].as_i64().unwrap(), row["dropoff_datetime"].as_i64().unwrap());
        let zone = |name: &str| (1..=263).contains(&row[name].as_i64().unwrap());
        let positive = |name: &str| row[name].as_f64().unwrap() > 0.0;
        from < to
            && to - from < 86_400_000_000
            && zone("pickup_location_id")
            && zone("dropoff_location_id")
            && ["trip_distance", "fare_amount", "total_amount"].into_iter().all(positive)
    };
    let share = replay.rows.values().filter(valid).count() as f64 / replay.rows.len() as f64;
    assert!((0.975..0.99).contains(&share), "{share}");
    let mean = |name: &str| replay.rows.values().map(|row| row[name].as_f64().unwrap()).sum::<f64>() / replay.rows.len() as f64;
    assert!((2.0..6.0).contains(&mean("trip_distance")), "{}", mean("trip_distance"));
    assert!((13.0..30.0).contains(&mean("fare_amount")), "{}", mean("fare_amount"));
    let minutes = (mean("dropoff_datetime") - mean("pickup_datetime")) / 60e6;
    assert!((8.0..30.0).contains(&minutes), "{minutes}");
}

#[test]
fn transactions_share_their_number_and_their_commit_and_are_never_split() {
    let options = GeneratorOptions { broken_per_100_000: 0, events: None, ..options(Kind::Trips) };
    let mut generator = Generator::new(&options, 0);
    let (mut last, mut last_lsn, mut shared, mut last_us) = (None, 0, 0, 0);
    for _ in 0..200 {
        let chunk = generator.next_chunk(100, 0);
        assert!((100..120).contains(&chunk.messages));
        for (index, line) in lines(&chunk.bytes).enumerate() {
            let source = serde_json::from_slice::<Value>(line).unwrap()["source"].take();
            let (tx, us, lsn) = (source["txId"].as_u64(), source["ts_us"].as_i64().unwrap(), source["lsn"].as_u64().unwrap());
            assert!(index > 0 || tx != last, "a chunk begins with a transaction");
            assert!(lsn > last_lsn && us >= last_us);
            assert_eq!(source["ts_ms"].as_i64().unwrap(), us / 1000);
            if tx == last {
                shared += 1;
                assert_eq!(us, last_us);
            }
            (last, last_lsn, last_us) = (tx, lsn, us);
        }
    }
    assert!((2_000..4_000).contains(&shared), "{shared}");
}

#[test]
fn the_clock_is_waited_for() {
    let options =
        GeneratorOptions { rate: Some(100.0), events: None, start_us: None, history_events: Some(5_000), ..options(Kind::Trips) };
    let mut generator = Generator::new(&options, ORIGIN);
    let mut past = 0;
    loop {
        let chunk = generator.next_chunk(1_000, ORIGIN);
        past += chunk.messages;
        if chunk.messages == 0 {
            assert_eq!(chunk.position, GeneratorPosition { message: past as u64, origin_us: ORIGIN });
            assert!(chunk.next_due_us.unwrap() > ORIGIN);
            break;
        }
    }
    assert!((5_000..5_010).contains(&past), "{past}");
    assert_eq!(generator.next_chunk(1_000, ORIGIN).messages, 0);
    let live = generator.next_chunk(10_000, ORIGIN + 10_000_000);
    assert!((980..1_020).contains(&live.messages), "{}", live.messages);
    let lag = Generator::lag(&options, generator.position(), ORIGIN + 20_000_000, 1_000_000);
    assert!((980..1_020).contains(&lag), "{lag}");
    // Live trips ended just now, so that the last hour is the last hour.
    let ended = |line: &[u8]| serde_json::from_slice::<Value>(line).ok()?["after"]["dropoff_datetime"].as_i64();
    let recent = lines(&live.bytes).filter_map(ended).filter(|ended| *ended > ORIGIN - 30_000_000).count();
    assert!(recent * 10 > live.messages * 8, "{recent} of {}", live.messages);
    // And that is all of it, where `events` says so.
    let mut short = Generator::new(&GeneratorOptions { events: Some(10), ..options }, ORIGIN);
    let chunk = short.next_chunk(1_000, ORIGIN);
    assert_eq!((chunk.messages, chunk.next_due_us), (10, None));
    assert_eq!(short.next_chunk(1_000, i64::MAX).messages, 0);
}

#[test]
fn some_corrections_touch_rows_of_long_ago() {
    let options = GeneratorOptions { broken_per_100_000: 0, ..options(Kind::Trips) };
    let (mut seen, mut old) = (0_u64, 0);
    for line in lines(&all(&options)) {
        let message: Value = serde_json::from_slice(line).unwrap();
        seen += 1;
        old += u64::from(message["op"] != "c" && message["before"]["id"].as_u64().unwrap() + 20_000 < seen);
    }
    assert!(old > 200, "{old}");
}

#[test]
fn reference_tables_begin_with_a_snapshot_and_change_rarely() {
    for (kind, rows) in [(Kind::PaymentTypes, 7), (Kind::Vendors, 4)] {
        let options = GeneratorOptions { events: Some(1_000), ..options(kind) };
        let replay = Replay::of(&all(&options));
        let truth = Generator::truth(&options, 0, 1_000);
        assert_eq!((replay.rows.len() as u64, replay.ops["r"], replay.ops["u"], replay.broken), (rows, rows, 1_000 - rows, 0));
        assert_eq!((truth.live_rows, truth.snapshot_rows, truth.updates), (rows, rows, 1_000 - rows));
        // By the clock: the snapshot and three days of updates, seven hours apart.
        let by_clock = GeneratorOptions { rate: None, ..options };
        assert_eq!(Generator::new(&by_clock, 0).next_chunk(1_000, ORIGIN).messages as u64, rows + 10);
    }
}

#[test]
fn the_weather_feed_covers_the_trips_and_repeats_hours() {
    let options = GeneratorOptions { rate: None, events: None, ..options(Kind::Weather) };
    let mut generator = Generator::new(&options, 0);
    let chunk = generator.next_chunk(usize::MAX, ORIGIN);
    let mut hours = HashMap::new();
    for line in lines(&chunk.bytes) {
        let row: Value = serde_json::from_slice(line).unwrap();
        let hour = row["observed_at"].as_str().unwrap().to_owned();
        hours.insert(hour, row);
    }
    assert_eq!(hours.len(), 72 + 48 + 1);
    assert!(hours.contains_key("2025-03-03T00:00:00Z") && hours.contains_key("2025-02-26T00:00:00Z"));
    assert_eq!(chunk.messages, 2 * hours.len());
    assert_eq!(chunk.next_due_us, Some(ORIGIN + 3_600_000_000));
    assert_eq!(Generator::truth(&options, 0, chunk.messages as u64).live_rows, hours.len() as u64);
    let told = &hours["2025-03-01T12:00:00Z"];
    let expected = weather::weather(1, 1_740_830_400 / 3600);
    assert_eq!(told["temperature_celsius"].as_f64().unwrap(), expected.temperature as f64 / 10.0);
}

#[test]
fn broken_messages_are_broken_in_several_ways_and_stay_on_their_lines() {
    let options = GeneratorOptions { broken_per_100_000: 20_000, events: Some(5_000), ..options(Kind::Trips) };
    let bytes = all(&options);
    assert_eq!(lines(&bytes).count(), 5_000);
    let (mut not_utf8, mut cut, mut typed, mut missing, mut empty) = (0, 0, 0, 0, 0);
    for line in lines(&bytes) {
        match serde_json::from_slice::<Value>(line) {
            _ if std::str::from_utf8(line).is_err() => not_utf8 += 1,
            Err(_) => cut += 1,
            Ok(message) if message["before"].is_null() && message["after"].is_null() => empty += 1,
            Ok(message) if message["after"]["id"].is_string() => typed += 1,
            Ok(message) if message["op"] == "c" && message["after"].get("pickup_location_id").is_none() => missing += 1,
            Ok(_) => {}
        }
    }
    let kinds = [not_utf8, cut, typed, missing, empty];
    assert!(kinds.iter().all(|count| *count > 100), "{kinds:?}");
    assert_eq!(kinds.iter().sum::<u64>(), Generator::truth(&options, 0, 5_000).broken);
}

/// A floor far below what one core does (see the numbers it prints with `--nocapture`), so that only a blunder fails it.
#[test]
fn generating_keeps_up_with_decoding() {
    let options = GeneratorOptions { events: None, ..options(Kind::Trips) };
    let mut generator = Generator::new(&options, 0);
    let mut bytes = Vec::with_capacity(64 << 20);
    let (start, mut messages, mut written) = (Instant::now(), 0, 0);
    while messages < 400_000 {
        bytes.clear();
        messages += generator.fill(&mut bytes, 20_000, 0);
        written += bytes.len();
    }
    let rate = messages as f64 / start.elapsed().as_secs_f64();
    let skipping = Instant::now();
    Generator::truth(&options, 0, 1_000_000);
    let skipped = 1e6 / skipping.elapsed().as_secs_f64();
    eprintln!("{rate:.0} messages/s of {} bytes; {skipped:.0} messages/s counted", written / messages);
    assert!(rate > 50_000.0 && skipped > 100_000.0, "{rate} {skipped}");
}
