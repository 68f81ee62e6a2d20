//! The city's weather: a function of the seed and the hour, nothing else, so that trips and the weather feed agree however each
//! of them is started.
//!
//! Smooth noise of several periods is laid over the month's normal and the day's course, all in whole numbers (tenths, hundredths),
//! so that every platform computes the same. Rain makes more people take taxis, snow keeps them at home.

use super::random::hash;

/// What the sky does, as `weather.hourly_weather` will call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Clear,
    Cloudy,
    Rain,
    Snow,
    Fog,
}

/// One hour's weather.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Weather {
    /// Tenths of a degree Celsius.
    pub temperature: i64,
    pub humidity_percent: i64,
    /// Tenths of a hectopascal at sea level.
    pub pressure: i64,
    /// Tenths of km/h.
    pub wind: i64,
    /// Hundredths of a millimetre, melted.
    pub precipitation: i64,
    /// Hundredths of a centimetre.
    pub snowfall: i64,
    pub cloud_percent: i64,
    /// Hundredths of a kilometre.
    pub visibility: i64,
    pub condition: Condition,
}

impl Condition {
    /// How many trips there are, against 1000 in fair weather.
    pub(super) fn demand_permille(self) -> i64 {
        match self {
            Condition::Clear | Condition::Cloudy => 1000,
            Condition::Rain => 1180,
            Condition::Snow => 620,
            Condition::Fog => 930,
        }
    }

    /// How long the same way takes, against 1000 on dry roads.
    pub(super) fn duration_permille(self) -> i64 {
        match self {
            Condition::Clear | Condition::Cloudy => 1000,
            Condition::Rain => 1110,
            Condition::Snow => 1420,
            Condition::Fog => 1080,
        }
    }
}

/// Normal temperature in the middle of each month, tenths of a degree.
const NORMALS: [i64; 12] = [10, 22, 65, 125, 178, 228, 256, 248, 212, 150, 92, 40];

/// The day's course, tenths of a degree by hour of UTC: coolest about 10 UTC (5 in New York), warmest about 20.
const COURSE: [i64; 24] =
    [5, 0, -5, -10, -14, -18, -22, -26, -30, -33, -35, -34, -28, -18, -6, 7, 18, 27, 33, 36, 37, 34, 25, 14];

/// The weather of an hour (hours since 1970 UTC).
pub(super) fn weather(seed: u64, hour: i64) -> Weather {
    let noise = |channel: u64, period: i64| smooth(seed, channel, hour, period);
    let temperature = normal(hour) + COURSE[hour.rem_euclid(24) as usize] + noise(1, 71) * 55 / 1000 + noise(2, 11) * 14 / 1000;
    let cloud_percent = (48 + noise(3, 37) * 62 / 1000 + noise(4, 9) * 22 / 1000).clamp(0, 100);
    let wet = noise(5, 13) * 6 / 10 + noise(3, 37) * 5 / 10 + noise(6, 3) / 10;
    let precipitation = if cloud_percent > 55 && wet > 380 { 15 + (wet - 380) * (wet - 380) / 220 } else { 0 };
    let snows = precipitation > 0 && temperature <= 5;
    let wind = (125 + noise(7, 29) * 95 / 1000 + noise(8, 5) * 40 / 1000 + precipitation / 4).max(5);
    let humidity_percent = (60 + noise(3, 37) * 18 / 1000 + noise(9, 17) * 14 / 1000 + if precipitation > 0 { 18 } else { 0 }
        - COURSE[hour.rem_euclid(24) as usize] / 4)
        .clamp(18, 100);
    let fog = precipitation == 0 && humidity_percent > 72 && wind < 110 && noise(10, 8) > 430;
    let visibility = if fog {
        15 + (hash(seed, 11, hour as u64) % 70) as i64
    } else if snows {
        (600 - precipitation * 2).max(90)
    } else {
        (1600 - precipitation * 3).max(250)
    };
    let condition = match () {
        () if snows => Condition::Snow,
        () if precipitation > 0 => Condition::Rain,
        () if fog => Condition::Fog,
        () if cloud_percent >= 60 => Condition::Cloudy,
        () => Condition::Clear,
    };
    Weather {
        temperature,
        humidity_percent,
        pressure: 10_155 - noise(3, 37) * 95 / 1000 + noise(12, 90) * 70 / 1000,
        wind,
        precipitation,
        snowfall: if snows { precipitation * 9 / 10 } else { 0 },
        cloud_percent,
        visibility,
        condition,
    }
}

/// The season's temperature, between the middles of two months.
fn normal(hour: i64) -> i64 {
    const YEAR_HOURS: i64 = 8766;
    // Twelfths of a year since the middle of January, in thousandths.
    let place = (hour - 15 * 24).rem_euclid(YEAR_HOURS) * 12_000 / YEAR_HOURS;
    let (month, part) = ((place / 1000) as usize, place % 1000);
    (NORMALS[month] * (1000 - part) + NORMALS[(month + 1) % 12] * part) / 1000
}

/// Noise from -1000 to 1000 that changes slowly: random values every `period` hours, and a smooth curve between them.
fn smooth(seed: u64, channel: u64, hour: i64, period: i64) -> i64 {
    let knot = hour.div_euclid(period);
    let at = |knot: i64| (hash(seed, 0x57ea_0000 + channel, knot as u64) % 2001) as i64 - 1000;
    let x = hour.rem_euclid(period) * 1000 / period;
    let weight = x * x * (3000 - 2 * x) / 1_000_000;
    (at(knot) * (1000 - weight) + at(knot + 1) * weight) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_year_has_all_kinds_of_weather_in_their_seasons() {
        let first = 482_136; // 2025-01-01T00:00Z
        let hours: Vec<Weather> = (0..8760).map(|hour| weather(1, first + hour)).collect();
        let share = |condition| hours.iter().filter(|w| w.condition == condition).count() as f64 / 8760.0;
        assert!((0.3..0.7).contains(&share(Condition::Clear)), "clear {}", share(Condition::Clear));
        assert!((0.1..0.5).contains(&share(Condition::Cloudy)), "cloudy {}", share(Condition::Cloudy));
        assert!((0.05..0.2).contains(&share(Condition::Rain)), "rain {}", share(Condition::Rain));
        assert!((0.002..0.08).contains(&share(Condition::Snow)), "snow {}", share(Condition::Snow));
        assert!((0.005..0.08).contains(&share(Condition::Fog)), "fog {}", share(Condition::Fog));
        let mean = |from: usize, to: usize| hours[from..to].iter().map(|w| w.temperature).sum::<i64>() / (to - from) as i64;
        assert!(mean(0, 744) < 60, "January: {}", mean(0, 744));
        assert!(mean(4344, 5088) > 200, "July: {}", mean(4344, 5088));
        assert!(hours.iter().all(|w| (-300..450).contains(&w.temperature) && (15..=1600).contains(&w.visibility) && w.wind > 0));
    }
}
