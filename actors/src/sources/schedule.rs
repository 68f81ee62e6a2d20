//! When a source is looked at again: a cron expression (five fields, UTC) or a name such as `@hourly`.

use std::str::FromStr;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use croner::Cron;

/// Times that come again and again.
#[derive(Clone, Debug)]
pub struct Schedule(Box<Cron>);

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let cron = Cron::from_str(text.trim()).map_err(|error| error.to_string())?;
        let schedule = Schedule(Box::new(cron));
        // the 31st of February is well-formed and never comes
        schedule.after(&Utc::now()).ok_or("it never comes")?;
        Ok(schedule)
    }
}

impl Schedule {
    /// The next time after `time`; `None` if there is none.
    pub fn after(&self, time: &DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.0.find_next_occurrence(time, false).ok()
    }

    /// When that is, seen from now; a day from now where there is none.
    pub fn next(&self) -> Instant {
        let now = Utc::now();
        let wait = self.after(&now).and_then(|next| (next - now).to_std().ok());
        Instant::now() + wait.unwrap_or(Duration::from_secs(86_400))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_as_written() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let next = |schedule: &str, time: &str| Schedule::from_str(schedule).unwrap().after(&at(time)).unwrap();
        assert_eq!(next("@hourly", "2025-03-01T10:15:00Z"), at("2025-03-01T11:00:00Z"));
        assert_eq!(next("@hourly", "2025-03-01T11:00:00Z"), at("2025-03-01T12:00:00Z"));
        assert_eq!(next("30 2 * * 1", "2025-03-01T00:00:00Z"), at("2025-03-03T02:30:00Z"));
        assert_eq!(next("*/5 * * * *", "2025-12-31T23:57:00Z"), at("2026-01-01T00:00:00Z"));
        for wrong in ["often", "61 * * * *", "* * *", "0 0 31 2 *"] {
            assert!(Schedule::from_str(wrong).is_err(), "{wrong}");
        }
    }
}
