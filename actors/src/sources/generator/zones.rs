//! Where people go: how busy each taxi zone is at which time of the day, and how far it is from one to another.
//!
//! The zones are those of the lake's reference file. Popularity falls off within each borough as in the city's published trip
//! counts: a few dozen zones of Manhattan and the airports have most of the trips, and every zone has some.

use super::random::Random;

/// The reference file of zones that the lakes carry.
pub const ZONES_CSV: &str = include_str!("../../../../examples/nyc/zones.csv");

/// Zones are numbered from 1; those beyond this one are not places.
pub(super) const LAST_ZONE: usize = 263;
pub(super) const NEWARK: u16 = 1;
pub(super) const JFK: u16 = 132;
pub(super) const LA_GUARDIA: u16 = 138;

/// Manhattan's busiest zones, busiest first; the others follow in the order of their numbers.
const BUSIEST: [u16; 44] = [
    237, 161, 236, 162, 186, 230, 142, 170, 48, 239, 163, 234, 68, 79, 141, 107, 249, 164, 238, 229, 263, 140, 100, 231, 246, 43,
    90, 137, 113, 233, 262, 143, 114, 50, 148, 75, 151, 144, 87, 158, 13, 211, 166, 74,
];

/// The weight of a borough's most popular zone and how many places share it before it halves.
const BOROUGHS: [(&str, u32, u32); 6] = [
    ("Manhattan", 100_000, 9),
    ("Brooklyn", 4_200, 10),
    ("Queens", 4_800, 9),
    ("Bronx", 1_100, 14),
    ("Staten Island", 90, 9),
    ("EWR", 260, 9),
];

/// Times of the day that differ in who goes where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DayPart {
    Night,
    Morning,
    Day,
    Evening,
}

impl DayPart {
    /// By the hour of the week in New York, Monday's first being 0.
    pub(super) fn of(hour_of_week: u8) -> Self {
        let weekend = hour_of_week >= 120;
        match hour_of_week % 24 {
            0..=4 => DayPart::Night,
            5..=9 if !weekend => DayPart::Morning,
            5..=16 => DayPart::Day,
            17..=22 => DayPart::Evening,
            _ => DayPart::Night,
        }
    }

    /// How attractive a type of zone is then, against 100: as a place to start from, and to go to.
    fn attraction(self, zone_type: &str) -> (u32, u32) {
        match (self, zone_type) {
            (DayPart::Night, "tourist") => (190, 80),
            (DayPart::Night, "business") => (60, 40),
            (DayPart::Night, "residential") => (80, 150),
            (DayPart::Night, _) => (70, 40),
            (DayPart::Morning, "business") => (55, 190),
            (DayPart::Morning, "residential") => (150, 55),
            (DayPart::Morning, "tourist") => (70, 90),
            (DayPart::Morning, _) => (90, 150),
            (DayPart::Day, _) => (100, 100),
            (DayPart::Evening, "business") => (150, 70),
            (DayPart::Evening, "residential") => (80, 130),
            (DayPart::Evening, "tourist") => (120, 140),
            (DayPart::Evening, _) => (130, 80),
        }
    }
}

/// The map: made once, then only read.
#[derive(Debug)]
pub(super) struct Zones {
    manhattan: [bool; LAST_ZONE + 3],
    /// Hundredths of a mile along the streets, by from × 264 + to.
    distances: Vec<u16>,
    pickups: [Dice; 4],
    dropoffs: [Dice; 4],
}

struct Zone<'a> {
    id: usize,
    borough: &'a str,
    latitude: f64,
    longitude: f64,
    zone_type: &'a str,
}

impl Zones {
    /// Reads the reference file.
    pub(super) fn new() -> Self {
        let zones: Vec<Zone<'_>> = ZONES_CSV.lines().skip(1).filter_map(parse).collect();
        let weights = popularity(&zones);
        let mut manhattan = [false; LAST_ZONE + 3];
        let mut distances = vec![0; (LAST_ZONE + 1) * (LAST_ZONE + 1)];
        for from in &zones {
            manhattan[from.id] = from.borough == "Manhattan";
            for to in &zones {
                distances[from.id * (LAST_ZONE + 1) + to.id] = street_hundredths(from, to);
            }
        }
        let dice = |part: DayPart, start: bool| {
            let mut attracted = vec![0_u64; LAST_ZONE];
            for zone in &zones {
                let (from, to) = part.attraction(zone.zone_type);
                // Nobody in the file's Newark zone may take a New York taxi, but many go there.
                let here = if zone.id == usize::from(NEWARK) && start { 1 } else { weights[zone.id] };
                attracted[zone.id - 1] = u64::from(here) * u64::from(if start { from } else { to });
            }
            Dice::new(&attracted)
        };
        let parts = [DayPart::Night, DayPart::Morning, DayPart::Day, DayPart::Evening];
        Zones { manhattan, distances, pickups: parts.map(|part| dice(part, true)), dropoffs: parts.map(|part| dice(part, false)) }
    }

    /// Where a trip starts.
    #[inline]
    pub(super) fn draw_pickup(&self, random: &mut Random, part: DayPart) -> u16 {
        self.pickups[part as usize].draw(random)
    }

    /// Where a trip that starts there ends: mostly the nearer of two places that people like.
    #[inline]
    pub(super) fn draw_dropoff(&self, random: &mut Random, part: DayPart, from: u16) -> u16 {
        let dice = &self.dropoffs[part as usize];
        let (one, other) = (dice.draw(random), dice.draw(random));
        if self.distance(from, other) < self.distance(from, one) && random.chance(80_000) { other } else { one }
    }

    /// Hundredths of a mile along the streets; 0 within a zone and to what is not a place.
    #[inline]
    pub(super) fn distance(&self, from: u16, to: u16) -> u16 {
        if usize::from(from.max(to)) > LAST_ZONE {
            0
        } else {
            self.distances[usize::from(from) * (LAST_ZONE + 1) + usize::from(to)]
        }
    }

    /// Whether a zone lies in Manhattan.
    #[inline]
    pub(super) fn is_manhattan(&self, zone: u16) -> bool {
        self.manhattan[usize::from(zone)]
    }
}

/// A line of the reference file that is a place. No field of the file needs quotes (a test holds this).
fn parse(line: &str) -> Option<Zone<'_>> {
    let mut fields = line.split(',');
    let id = fields.next()?.parse().ok()?;
    let borough = fields.next()?;
    let (_name, _service_zone) = (fields.next()?, fields.next()?);
    let (latitude, longitude) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let zone_type = fields.next()?;
    ((1..=LAST_ZONE).contains(&id)).then_some(Zone { id, borough, latitude, longitude, zone_type })
}

/// Weight of each zone by its number.
fn popularity(zones: &[Zone<'_>]) -> [u32; LAST_ZONE + 1] {
    let mut weights = [0; LAST_ZONE + 1];
    for (borough, top, half) in BOROUGHS {
        let rank_of = |id: usize| BUSIEST.iter().position(|busy| usize::from(*busy) == id);
        let mut ids: Vec<usize> = zones.iter().filter(|zone| zone.borough == borough).map(|zone| zone.id).collect();
        // Within the other boroughs the order is dealt by a hash: their zones are numbered by the alphabet, not by trade.
        ids.sort_by_key(|id| (rank_of(*id).unwrap_or(usize::MAX), super::random::hash(0x20_4e5, 1, *id as u64)));
        for (rank, id) in ids.into_iter().enumerate() {
            weights[id] = (top * half / (half + rank as u32)).max(1);
            if borough == "Manhattan" && rank >= BUSIEST.len() {
                weights[id] = (weights[id] / 6).max(1);
            }
        }
    }
    weights[usize::from(JFK)] = 105_000;
    weights[usize::from(LA_GUARDIA)] = 72_000;
    weights
}

/// A quarter more than the straight line. A degree is 69.05 miles north to south; east to west it is cos(40.73°) of that.
fn street_hundredths(from: &Zone<'_>, to: &Zone<'_>) -> u16 {
    let north = (from.latitude - to.latitude) * 69.05;
    let east = (from.longitude - to.longitude) * 69.05 * 0.7578;
    ((north * north + east * east).sqrt() * 125.0) as u16
}

/// Draws zones by weight in constant time (Vose's alias method).
#[derive(Debug)]
struct Dice {
    /// By side: how much of it (of 2^32) is its own, and whose the rest is.
    sides: Vec<(u32, u16)>,
}

impl Dice {
    fn new(weights: &[u64]) -> Self {
        let n = weights.len() as u64;
        let total: u64 = weights.iter().sum::<u64>().max(1);
        // Each side holds `total`; weight × n is dealt over n sides.
        let mut left: Vec<u64> = weights.iter().map(|weight| weight * n).collect();
        let mut sides: Vec<(u32, u16)> = (0..n).map(|side| (u32::MAX, side as u16)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..left.len()).partition(|side| left[*side] < total);
        while let (Some(poor), Some(rich)) = (small.pop(), large.last().copied()) {
            sides[poor] = (((u128::from(left[poor]) << 32) / u128::from(total)) as u32, rich as u16);
            left[rich] -= total - left[poor];
            if left[rich] < total {
                large.pop();
                small.push(rich);
            }
        }
        Dice { sides }
    }

    #[inline]
    fn draw(&self, random: &mut Random) -> u16 {
        let bits = random.next();
        let side = ((bits >> 32) * self.sides.len() as u64) >> 32;
        let (own, other) = self.sides[side as usize];
        1 + if (bits as u32) < own { side as u16 } else { other }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_file_is_whole() {
        let lines: Vec<&str> = ZONES_CSV.lines().collect();
        assert_eq!(lines[0], "location_id,borough,zone_name,service_zone,latitude,longitude,zone_type");
        assert_eq!(lines.len(), 266);
        assert!(!ZONES_CSV.contains(['"', '\r']) && ZONES_CSV.ends_with('\n'));
        for (id, line) in lines.iter().enumerate().skip(1) {
            let fields: Vec<&str> = line.split(',').collect();
            assert_eq!((fields.len(), fields[0].parse::<usize>().unwrap()), (7, id), "{line}");
            if id <= LAST_ZONE {
                let zone = parse(line).unwrap();
                assert!((40.45..40.95).contains(&zone.latitude) && (-74.3..-73.65).contains(&zone.longitude), "{line}");
                assert!(BOROUGHS.iter().any(|(name, ..)| *name == zone.borough), "{line}");
                assert!(["airport", "business", "tourist", "residential"].contains(&zone.zone_type), "{line}");
            } else {
                assert_eq!(fields[4..], ["", "", ""], "{line} is not a place");
            }
        }
        let airports: Vec<usize> = lines[1..]
            .iter()
            .filter_map(|line| parse(line))
            .filter(|zone| zone.zone_type == "airport")
            .map(|zone| zone.id)
            .collect();
        assert_eq!(airports, [1, 132, 138]);
    }

    #[test]
    fn distances_are_about_right() {
        let zones = Zones::new();
        let jfk_times_square = zones.distance(JFK, 230);
        assert!((1500..2000).contains(&jfk_times_square), "{jfk_times_square}");
        assert_eq!(zones.distance(161, 237), zones.distance(237, 161));
        assert_eq!(zones.distance(264, 1), 0);
    }

    #[test]
    fn a_few_zones_have_most_of_the_trips_and_all_have_some() {
        let zones = Zones::new();
        let mut random = Random::new(1, 1, 1);
        let mut counts = [0_u32; LAST_ZONE + 1];
        for _ in 0..400_000 {
            counts[usize::from(zones.draw_pickup(&mut random, DayPart::Day))] += 1;
        }
        let manhattan: u32 = (1..=LAST_ZONE).filter(|zone| zones.is_manhattan(*zone as u16)).map(|zone| counts[zone]).sum();
        assert!((0.7..0.95).contains(&(f64::from(manhattan) / 400_000.0)), "{manhattan}");
        assert!(counts[usize::from(JFK)] > 8_000 && counts[237] > counts[4]);
        counts.sort_unstable();
        let top: u32 = counts.iter().rev().take(30).sum();
        assert!(top > 200_000, "{top}");
        assert!(counts.iter().filter(|count| **count > 0).count() > 240);
    }
}
