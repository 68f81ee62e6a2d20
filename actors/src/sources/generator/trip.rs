//! One trip: drawn from the city, corrected later perhaps, written as a row in JSON.

use super::random::Random;
use super::text;
use super::timeline::{HOUR, Hours, MINUTE, SECOND};
use super::zones::{DayPart, JFK, LA_GUARDIA, LAST_ZONE, NEWARK, Zones};

/// A row of the database's table `trips`. Money in cents, distance in hundredths of a mile, times in microseconds since 1970 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trip {
    pub id: u64,
    pub pickup: i64,
    pub dropoff: i64,
    pub distance: i32,
    pub fare: i32,
    pub extra: i32,
    pub mta_tax: i32,
    pub tip: i32,
    pub tolls: i32,
    pub improvement: i32,
    pub congestion: i32,
    pub airport_fee: Option<i32>,
    pub from: u16,
    pub to: u16,
    pub vendor: u8,
    pub passengers: Option<u8>,
    pub rate_code: u8,
    pub payment: u8,
    pub store_and_forward: bool,
}

impl Trip {
    /// A trip that is written to the database at an instant, soon after it ended in most cases. Its number decides it.
    pub(super) fn draw(zones: &Zones, hours: &mut Hours, seed: u64, id: u64, written: i64) -> Trip {
        let mut random = Random::new(seed, 0x7219, id);
        let dropoff = written - lateness(&mut random);
        let info = hours.at(dropoff);
        let part = DayPart::of(info.hour_of_week);
        let mut from = zones.draw_pickup(&mut random, part);
        let mut to = zones.draw_dropoff(&mut random, part, from);
        let distance = match zones.distance(from, to) {
            0 => random.between(35, 180),
            miles => i64::from(miles) * random.between(88, 128) / 100 + 25,
        } as i32;
        let minutes_us = duration(&mut random, zones, from, to, distance, info);
        let rate_code = match (from, to) {
            (JFK, other) | (other, JFK) if zones.is_manhattan(other) => 2,
            (_, NEWARK) => 3,
            _ if random.chance(200) => 5,
            _ => 1,
        };
        let fare = fare(&mut random, rate_code, distance, minutes_us);
        let weekend = info.hour_of_week >= 120;
        let extra = match info.hour_of_week % 24 {
            16..=19 if !weekend => 250,
            20..=23 | 0..=5 => 100,
            _ => 0,
        };
        let payment = [1, 2, 0, 3, 4][match random.below(1000) {
            0..750 => 0,
            750..960 => 1,
            960..975 => 2,
            975..990 => 3,
            _ => 4,
        }];
        let airport = matches!(from, JFK | LA_GUARDIA);
        let crosses = zones.is_manhattan(from) != zones.is_manhattan(to);
        let tolls = if crosses && random.chance(if airport || distance > 900 { 45_000 } else { 12_000 }) { 694 } else { 0 };
        if random.chance(600) {
            (from, to) = if random.chance(50_000) { (264, 264) } else { (from, 265) };
        }
        let mut trip = Trip {
            id,
            pickup: dropoff - minutes_us,
            dropoff,
            distance,
            fare,
            extra,
            mta_tax: 50,
            tip: if payment == 1 { (fare + extra) * random.between(8, 31) as i32 / 100 } else { 0 },
            tolls,
            improvement: 100,
            congestion: if zones.is_manhattan(from) || zones.is_manhattan(to) { 250 } else { 0 },
            airport_fee: if random.chance(4_000) { None } else { Some(if airport { 175 } else { 0 }) },
            from,
            to,
            vendor: [2, 1, 6, 7][match random.below(1000) {
                0..720 => 0,
                720..980 => 1,
                980..995 => 2,
                _ => 3,
            }],
            passengers: match random.below(100) {
                0..3 => None,
                3..76 => Some(1),
                76..90 => Some(2),
                high => Some(3 + (high % 4) as u8),
            },
            rate_code,
            payment,
            store_and_forward: random.chance(700),
        };
        trip.spoil(&mut random);
        trip
    }

    /// Makes one in a hundred trips one of those that real records have and analytics must leave out: voided (all amounts
    /// negative), without distance, ended before it began, longer than a day.
    fn spoil(&mut self, random: &mut Random) {
        match random.below(10_000) {
            0..40 => {
                let amounts = [
                    &mut self.fare,
                    &mut self.extra,
                    &mut self.mta_tax,
                    &mut self.improvement,
                    &mut self.congestion,
                    &mut self.tolls,
                ];
                amounts.into_iter().for_each(|amount| *amount = -*amount);
                self.tip = 0;
                self.airport_fee = self.airport_fee.map(|fee| -fee);
                self.payment = if self.payment.is_multiple_of(2) { 3 } else { 4 };
            }
            40..75 => self.distance = 0,
            75..90 => std::mem::swap(&mut self.pickup, &mut self.dropoff),
            90..96 => self.pickup = self.dropoff - random.between(25, 41) * HOUR,
            _ => {}
        }
    }

    /// What the database corrects later: mostly the tip, then the fare, a zone, a time or the vendor. Always changes something.
    pub(super) fn correct(&mut self, random: &mut Random) {
        match random.below(100) {
            0..45 => {
                let tip = random.between(0, 1500) as i32;
                self.tip = if tip == self.tip { tip + 100 } else { tip };
            }
            45..65 => {
                let other = 1 + random.below(LAST_ZONE as u32 - 1) as u16;
                let zone = if random.chance(50_000) { &mut self.from } else { &mut self.to };
                *zone = if other == *zone { other + 1 } else { other };
            }
            65..90 => {
                self.fare += random.between(50, 600) as i32;
                self.distance += random.between(0, 120) as i32;
            }
            90..96 => self.pickup -= random.between(1, 15 * 60) * SECOND,
            _ => self.vendor = if self.vendor == 2 { 1 } else { 2 },
        }
    }

    /// `total_amount`, cents.
    #[inline]
    pub(super) fn total(&self) -> i64 {
        let amounts = [self.fare, self.extra, self.mta_tax, self.tip, self.tolls, self.improvement, self.congestion];
        amounts.into_iter().map(i64::from).sum::<i64>() + i64::from(self.airport_fee.unwrap_or(0))
    }

    /// Appends the row as a JSON object.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":");
        text::unsigned(out, self.id);
        self.write_rest(out, true);
    }

    /// The row from `vendor_id` on, with or without `pickup_location_id`.
    pub(super) fn write_rest(&self, out: &mut Vec<u8>, with_pickup_location: bool) {
        let number = |out: &mut Vec<u8>, name: &[u8], n: i64| {
            out.extend_from_slice(name);
            text::signed(out, n);
        };
        let money = |out: &mut Vec<u8>, name: &[u8], n: i64| {
            out.extend_from_slice(name);
            text::hundredths(out, n);
        };
        number(out, b",\"vendor_id\":", i64::from(self.vendor));
        number(out, b",\"pickup_datetime\":", self.pickup);
        number(out, b",\"dropoff_datetime\":", self.dropoff);
        match self.passengers {
            Some(n) => number(out, b",\"passenger_count\":", i64::from(n)),
            None => out.extend_from_slice(b",\"passenger_count\":null"),
        }
        money(out, b",\"trip_distance\":", i64::from(self.distance));
        number(out, b",\"rate_code_id\":", i64::from(self.rate_code));
        out.extend_from_slice(if self.store_and_forward {
            b",\"store_and_fwd_flag\":\"Y\""
        } else {
            b",\"store_and_fwd_flag\":\"N\""
        });
        if with_pickup_location {
            number(out, b",\"pickup_location_id\":", i64::from(self.from));
        }
        number(out, b",\"dropoff_location_id\":", i64::from(self.to));
        number(out, b",\"payment_type\":", i64::from(self.payment));
        money(out, b",\"fare_amount\":", i64::from(self.fare));
        money(out, b",\"extra\":", i64::from(self.extra));
        money(out, b",\"mta_tax\":", i64::from(self.mta_tax));
        money(out, b",\"tip_amount\":", i64::from(self.tip));
        money(out, b",\"tolls_amount\":", i64::from(self.tolls));
        money(out, b",\"improvement_surcharge\":", i64::from(self.improvement));
        money(out, b",\"total_amount\":", self.total());
        money(out, b",\"congestion_surcharge\":", i64::from(self.congestion));
        match self.airport_fee {
            Some(fee) => money(out, b",\"airport_fee\":", i64::from(fee)),
            None => out.extend_from_slice(b",\"airport_fee\":null"),
        }
        out.push(b'}');
    }
}

/// How long after its end a trip is written: seconds for most, an hour or so for 2 %, up to a day for 0.1 %.
fn lateness(random: &mut Random) -> i64 {
    match random.below(1000) {
        0..979 => random.between(0, 20 * SECOND),
        979..999 => random.exponential(HOUR).min(6 * HOUR),
        _ => i64::from(random.below(1440)) * MINUTE,
    }
}

/// How long a trip takes, microseconds: slow in Manhattan by day, faster at night and on long ways, slower in bad weather.
fn duration(random: &mut Random, zones: &Zones, from: u16, to: u16, distance: i32, info: super::timeline::HourInfo) -> i64 {
    let hour = info.hour_of_week % 24;
    let crowded = zones.is_manhattan(from) && zones.is_manhattan(to);
    let rush = info.hour_of_week < 120 && matches!(hour, 7..=9 | 16..=18);
    // Tenths of a mile an hour.
    let speed = match hour {
        0..=5 => 215,
        22..=23 => 165,
        _ if rush => 105,
        _ => 125,
    } - if crowded { 25 } else { 0 }
        + i64::from(distance.min(2000)) / 22;
    let driving = i64::from(distance) * HOUR / 10 / speed;
    let weather = info.weather.condition.duration_permille();
    (90 * SECOND + driving * weather / 1000) * random.between(82, 130) / 100
}

/// The fare in cents: the meter in steps of 70 cents, or the flat fare to and from JFK.
fn fare(random: &mut Random, rate_code: u8, distance: i32, duration_us: i64) -> i32 {
    let minutes = (duration_us / MINUTE) as i32;
    let metered = 300 + ((distance * 11 / 5 + minutes * 42) / 70) * 70;
    match rate_code {
        2 => 7000,
        3 => metered + 2000,
        5 => (metered + random.between(0, 3000) as i32) / 500 * 500 + 500,
        _ => metered,
    }
}
