//! Nexmark's events as Arrow batches: an auction house's persons, auctions and bids, 1 : 3 : 46.
//!
//! The distributions are those of the reference generator (Apache Beam's, which nexmark-flink, RisingWave and Feldera took over): which
//! event is what is its number modulo 50; half of the bids go to one hot auction of each hundred, three quarters of them come from hot
//! bidders, three quarters of the auctions from hot sellers; other bids go to one of the last hundred auctions; prices are 10 to a
//! power evenly from 0 to 6, in cents; auctions stay open for up to twice the time in which a hundred others begin. Rows have the reference's
//! average sizes by an `extra` column of random letters. It is a function of the seed and the number of events a batch, so that each run sees the same.
//!
//! Departures: stamps are in microseconds, not milliseconds; random texts are cut out of one long random text instead of drawn letter
//! by letter, which would cost more than the queries.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use livelake_dataflow::protocol::Timestamp;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Of so many events one is a person, [`AUCTIONS`] are auctions, the rest bids.
const GROUP: u64 = 50;
const AUCTIONS: u64 = 3;
/// Ids begin here.
const FIRST_ID: i64 = 1000;
const FIRST_CATEGORY: i64 = 10;
const CATEGORIES: i64 = 5;
/// How many auctions are open at a time, and how many persons take part.
const OPEN_AUCTIONS: i64 = 100;
const ACTIVE_PERSONS: i64 = 1000;
/// So far ahead of what there is an id may point, so that joins meet rows that come later.
const LEAD: i64 = 10;
/// One of so many ids is the hot one.
const HOT: i64 = 100;
/// Average bytes of a row of each kind, by its `extra`.
const PERSON_BYTES: usize = 200;
const AUCTION_BYTES: usize = 500;
const BID_BYTES: usize = 100;
/// 2015-07-15 00:00:00 UTC, where the reference begins.
pub const BEGIN_US: i64 = 1_436_918_400_000_000;
/// Rows of the table of query 13.
const SIDE_ROWS: i64 = 10_000;

const FIRST_NAMES: [&str; 11] = ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const CITIES: [&str; 10] =
    ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
const CHANNELS: usize = 10_000;
const TEXT: usize = 1 << 18;

/// Where the columns of each kind go.
#[derive(Debug)]
pub struct Schemas {
    /// Of persons.
    pub person: SchemaRef,
    /// Of auctions.
    pub auction: SchemaRef,
    /// Of bids.
    pub bid: SchemaRef,
}

/// The rows of some events that follow each other.
#[derive(Debug)]
pub struct Events {
    /// How many events there are.
    pub count: u64,
    /// The persons among them.
    pub person: RecordBatch,
    /// The auctions among them.
    pub auction: RecordBatch,
    /// The bids among them.
    pub bid: RecordBatch,
}

/// Makes events in order of their numbers.
#[derive(Debug)]
pub struct EventGenerator {
    schemas: Schemas,
    random: SmallRng,
    /// Number of the next event.
    next: u64,
    /// Events of a second of their own time.
    event_rate: u64,
    letters: String,
    words: String,
    hot_urls: Vec<String>,
    channels: Vec<(String, String)>,
}

/// Random letters, one in `gap` a space (0: none).
fn text(random: &mut SmallRng, length: usize, gap: u32) -> String {
    let letter = |random: &mut SmallRng| {
        if gap > 0 && random.random_range(0..gap) == 0 { ' ' } else { char::from(random.random_range(b'a'..=b'z')) }
    };
    (0..length).map(|_| letter(random)).collect()
}

fn url(random: &mut SmallRng) -> String {
    let mut directory = || {
        let length = 3 + random.random_range(0..2);
        text(random, length, 0)
    };
    format!("https://www.nexmark.com/{}/{}/{}/item.htm?query=1", directory(), directory(), directory())
}

impl EventGenerator {
    /// From the first event on; `event_rate` of them are a second apart.
    pub fn new(schemas: Schemas, seed: u64, event_rate: u64) -> EventGenerator {
        let mut random = SmallRng::seed_from_u64(seed);
        let (letters, words) = (text(&mut random, TEXT, 0), text(&mut random, TEXT, 13));
        let hot_urls = HOT_CHANNELS.iter().map(|_| url(&mut random)).collect();
        let channels = (0..CHANNELS as u32)
            .map(|number| {
                let mut url = url(&mut random);
                if random.random_range(0..10) > 0 {
                    url.push_str(&format!("&channel_id={}", (number.reverse_bits() as i32).unsigned_abs()));
                }
                (format!("channel-{number}"), url)
            })
            .collect();
        EventGenerator { schemas, random, next: 0, event_rate, letters, words, hot_urls, channels }
    }

    /// The next events.
    ///
    /// # Errors
    /// If the schemas are not those of Nexmark.
    pub fn next(&mut self, count: u64) -> Result<Events, arrow::error::ArrowError> {
        let (mut person, mut auction) = (Persons::default(), Auctions::default());
        let mut bid = Bids::with_rows((count - count / GROUP * (1 + AUCTIONS)) as usize);
        for number in self.next..self.next + count {
            match number % GROUP {
                0 => self.person(number, &mut person),
                at if at <= AUCTIONS => self.auction(number, &mut auction),
                _ => self.bid(number, &mut bid),
            }
        }
        self.next += count;
        Ok(Events {
            count,
            person: RecordBatch::try_new(self.schemas.person.clone(), person.finish())?,
            auction: RecordBatch::try_new(self.schemas.auction.clone(), auction.finish())?,
            bid: RecordBatch::try_new(self.schemas.bid.clone(), bid.finish())?,
        })
    }

    /// Microseconds since 1970 UTC.
    fn time(&self, number: u64) -> i64 {
        BEGIN_US + (u128::from(number) * 1_000_000 / u128::from(self.event_rate)) as i64
    }

    fn below(&mut self, bound: i64) -> i64 {
        self.random.random_range(0..bound)
    }

    fn price(&mut self) -> i64 {
        (10f64.powf(self.random.random::<f64>() * 6.0) * 100.0).round() as i64
    }

    /// The reference varies sizes by a fifth around the wanted one.
    fn extra(&mut self, has: usize, wanted: usize) -> std::ops::Range<usize> {
        let rest = wanted.saturating_sub(has);
        let delta = (rest + 2) / 5;
        let length = rest - delta + if delta == 0 { 0 } else { self.random.random_range(0..2 * delta) };
        self.piece(length)
    }

    fn piece(&mut self, length: usize) -> std::ops::Range<usize> {
        let from = self.random.random_range(0..TEXT - length);
        from..from + length
    }

    /// A text of 3 to `longest` letters.
    fn some(&mut self, longest: usize) -> std::ops::Range<usize> {
        let length = 3 + self.random.random_range(0..longest - 3);
        self.piece(length)
    }

    fn person(&mut self, number: u64, rows: &mut Persons) {
        rows.id.push(FIRST_ID + last_person(number));
        let first = FIRST_NAMES[self.random.random_range(0..FIRST_NAMES.len())];
        let last = LAST_NAMES[self.random.random_range(0..LAST_NAMES.len())];
        let name = format!("{first} {last}");
        let (user, host) = (self.some(7), self.some(5));
        let email = format!("{}@{}.com", &self.letters[user], &self.letters[host]);
        let mut digits = || self.random.random_range(0..10_000);
        let card = format!("{:04} {:04} {:04} {:04}", digits(), digits(), digits(), digits());
        let city = CITIES[self.random.random_range(0..CITIES.len())];
        let state = STATES[self.random.random_range(0..STATES.len())];
        let has = 16 + name.len() + email.len() + card.len() + city.len() + state.len();
        let extra = self.extra(has, PERSON_BYTES);
        rows.name.append_value(name);
        rows.email_address.append_value(email);
        rows.credit_card.append_value(card);
        rows.city.append_value(city);
        rows.state.append_value(state);
        rows.date_time.push(self.time(number));
        rows.extra.append_value(&self.letters[extra]);
    }

    fn auction(&mut self, number: u64, rows: &mut Auctions) {
        rows.id.push(FIRST_ID + last_auction(number));
        let seller = if self.below(4) > 0 { last_person(number) / HOT * HOT } else { self.some_person(number) };
        rows.seller.push(FIRST_ID + seller);
        rows.category.push(FIRST_CATEGORY + self.below(CATEGORIES));
        let initial = self.price();
        rows.initial_bid.push(initial);
        rows.reserve.push(initial + self.price());
        let time = self.time(number);
        let horizon = self.time(number + OPEN_AUCTIONS as u64 * GROUP / AUCTIONS) - time;
        rows.date_time.push(time);
        rows.expires.push(time + 1 + self.below((horizon * 2).max(1)));
        let (name, description) = (self.some(20), self.some(100));
        let extra = self.extra(56 + name.len() + description.len(), AUCTION_BYTES);
        rows.item_name.append_value(&self.words[name]);
        rows.description.append_value(&self.words[description]);
        rows.extra.append_value(&self.letters[extra]);
    }

    fn bid(&mut self, number: u64, rows: &mut Bids) {
        let newest = last_auction(number);
        let auction = if self.below(2) > 0 {
            newest / HOT * HOT
        } else {
            let oldest = (newest - OPEN_AUCTIONS).max(0);
            oldest + self.below(newest - oldest + 1 + LEAD)
        };
        rows.auction.push(FIRST_ID + auction);
        let bidder = if self.below(4) > 0 { last_person(number) / HOT * HOT + 1 } else { self.some_person(number) };
        rows.bidder.push(FIRST_ID + bidder);
        let price = self.price();
        rows.price.push(price);
        if self.below(2) > 0 {
            let hot = self.random.random_range(0..HOT_CHANNELS.len());
            rows.channel.append_value(HOT_CHANNELS[hot]);
            rows.url.append_value(&self.hot_urls[hot]);
        } else {
            let (channel, url) = &self.channels[self.random.random_range(0..CHANNELS)];
            rows.channel.append_value(channel);
            rows.url.append_value(url);
        }
        rows.date_time.push(self.time(number));
        let extra = self.extra(32, BID_BYTES);
        rows.extra.append_value(&self.letters[extra]);
    }

    /// One of the active persons, or one who comes soon.
    fn some_person(&mut self, number: u64) -> i64 {
        let persons = last_person(number) + 1;
        let active = persons.min(ACTIVE_PERSONS);
        persons - active + self.below(active + LEAD)
    }
}

/// The newest person at an event, from 0.
fn last_person(number: u64) -> i64 {
    (number / GROUP) as i64
}

/// The newest auction at an event, from 0; the first events of all speak of the first.
fn last_auction(number: u64) -> i64 {
    let (group, at) = ((number / GROUP * AUCTIONS) as i64, (number % GROUP) as i64);
    (group + (at - 1).min(AUCTIONS as i64 - 1)).max(0)
}

/// The table of query 13.
///
/// # Errors
/// If the schema is not that table's.
pub fn side_input(schema: &SchemaRef) -> Result<RecordBatch, arrow::error::ArrowError> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(0..SIDE_ROWS)),
        Arc::new((0..SIDE_ROWS).map(|key| Some(format!("value {key}"))).collect::<StringArray>()),
    ];
    RecordBatch::try_new(schema.clone(), columns)
}

/// A time that an engine can be at once all these events are in it.
pub fn tick_after(events: u64) -> Timestamp {
    BEGIN_US as Timestamp + events
}

#[derive(Default)]
struct Persons {
    id: Vec<i64>,
    name: StringBuilder,
    email_address: StringBuilder,
    credit_card: StringBuilder,
    city: StringBuilder,
    state: StringBuilder,
    date_time: Vec<i64>,
    extra: StringBuilder,
}

impl Persons {
    fn finish(mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(Int64Array::from(self.id)),
            Arc::new(self.name.finish()),
            Arc::new(self.email_address.finish()),
            Arc::new(self.credit_card.finish()),
            Arc::new(self.city.finish()),
            Arc::new(self.state.finish()),
            Arc::new(TimestampMicrosecondArray::from(self.date_time)),
            Arc::new(self.extra.finish()),
        ]
    }
}

#[derive(Default)]
struct Auctions {
    id: Vec<i64>,
    item_name: StringBuilder,
    description: StringBuilder,
    initial_bid: Vec<i64>,
    reserve: Vec<i64>,
    date_time: Vec<i64>,
    expires: Vec<i64>,
    seller: Vec<i64>,
    category: Vec<i64>,
    extra: StringBuilder,
}

impl Auctions {
    fn finish(mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(Int64Array::from(self.id)),
            Arc::new(self.item_name.finish()),
            Arc::new(self.description.finish()),
            Arc::new(Int64Array::from(self.initial_bid)),
            Arc::new(Int64Array::from(self.reserve)),
            Arc::new(TimestampMicrosecondArray::from(self.date_time)),
            Arc::new(TimestampMicrosecondArray::from(self.expires)),
            Arc::new(Int64Array::from(self.seller)),
            Arc::new(Int64Array::from(self.category)),
            Arc::new(self.extra.finish()),
        ]
    }
}

struct Bids {
    auction: Vec<i64>,
    bidder: Vec<i64>,
    price: Vec<i64>,
    channel: StringBuilder,
    url: StringBuilder,
    date_time: Vec<i64>,
    extra: StringBuilder,
}

impl Bids {
    fn with_rows(rows: usize) -> Bids {
        let numbers = || Vec::with_capacity(rows);
        let texts = |bytes: usize| StringBuilder::with_capacity(rows, rows * bytes);
        Bids {
            auction: numbers(),
            bidder: numbers(),
            price: numbers(),
            channel: texts(12),
            url: texts(80),
            date_time: numbers(),
            extra: texts(BID_BYTES),
        }
    }

    fn finish(mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(Int64Array::from(self.auction)),
            Arc::new(Int64Array::from(self.bidder)),
            Arc::new(Int64Array::from(self.price)),
            Arc::new(self.channel.finish()),
            Arc::new(self.url.finish()),
            Arc::new(TimestampMicrosecondArray::from(self.date_time)),
            Arc::new(self.extra.finish()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auctions_are_numbered_in_order() {
        // events 1, 2, 3 of each fifty are auctions; those before the first auction speak of it
        assert_eq!([0, 1, 2, 3, 4, 49, 50, 51, 53, 99].map(last_auction), [0, 0, 1, 2, 2, 2, 2, 3, 5, 5]);
        assert_eq!([0, 49, 50, 149].map(last_person), [0, 0, 1, 2]);
    }
}
