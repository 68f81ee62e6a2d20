//! The files of the flagship lake, which `livelake demo` writes into a folder and runs. They are `examples/nyc`, carried in the binary.

use std::borrow::Cow;

/// Name and content of each file of the lake's folder.
pub const FILES: [(&str, &str); 7] = [
    ("livelake.toml", include_str!("../../../../examples/nyc/livelake.toml")),
    ("10_sources.sql", include_str!("../../../../examples/nyc/10_sources.sql")),
    ("15_tables.sql", include_str!("../../../../examples/nyc/15_tables.sql")),
    ("20_views.sql", include_str!("../../../../examples/nyc/20_views.sql")),
    ("30_sinks.sql", include_str!("../../../../examples/nyc/30_sinks.sql")),
    ("40_audit.sql", include_str!("../../../../examples/nyc/40_audit.sql")),
    ("zones.csv", super::ZONES_CSV),
];

/// How the files say the rate of trips.
const RATE: &str = "rate = '2'";

/// How the files say that live trips come and go with the hours.
const RHYTHM: &str = "rhythm = 'true'";

/// The lake's files for a rate of trips per second: those who ask for a rate get it evenly, day and night. Without one they are
/// [`FILES`] as they are.
pub fn files(rate: Option<f64>) -> Vec<(&'static str, Cow<'static, str>)> {
    FILES
        .into_iter()
        .map(|(name, content)| match rate {
            Some(rate) if content.contains(RATE) => {
                (name, Cow::Owned(content.replace(RATE, &format!("rate = '{rate}'")).replace(RHYTHM, "rhythm = 'false'")))
            }
            _ => (name, Cow::Borrowed(content)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{GeneratorOptions, Kind};
    use super::*;

    /// The options of each `WITH (connector = 'generator', …)`, without those that are not the generator's.
    fn generators(sql: &str) -> Vec<GeneratorOptions> {
        let of = |list: &str| {
            let pairs: Vec<(String, String)> = list
                .split(',')
                .map(|pair| pair.split_once('=').unwrap())
                .map(|(name, value)| (name.trim().to_owned(), value.trim().trim_matches('\'').to_owned()))
                .filter(|(name, _)| {
                    !["format", "time_zone", "envelope", "time.precision.mode", "decimal.handling.mode"].contains(&name.as_str())
                })
                .collect();
            GeneratorOptions::parse(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))).unwrap()
        };
        let code: String = sql.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
        let lists = code.split("connector = 'generator',").skip(1).map(|rest| rest.split_once(')').unwrap().0.to_owned());
        lists.map(|list| of(&list)).collect()
    }

    #[test]
    fn the_sources_options_are_the_generators_and_agree() {
        let all: Vec<GeneratorOptions> = FILES.iter().flat_map(|(_, content)| generators(content)).collect();
        assert_eq!(all.len(), 7);
        for options in &all {
            assert_eq!((options.seed, options.history_us), (all[0].seed, all[0].history_us), "weather and trips are of one city");
            let twin: Vec<&GeneratorOptions> = all.iter().filter(|other| other.kind == options.kind).collect();
            assert!(twin.iter().all(|other| *other == options), "an audit trail reads the same messages");
        }
    }

    #[test]
    fn a_rate_goes_into_every_trip_source() {
        assert!(files(None).iter().zip(FILES).all(|((name, content), file)| (*name, content.as_ref()) == file));
        let trips = files(Some(1000.5))
            .into_iter()
            .flat_map(|(_, content)| generators(&content))
            .filter(|options| options.kind == Kind::Trips);
        let trips: Vec<GeneratorOptions> = trips.collect();
        assert_eq!(trips.len(), 2);
        assert!(trips.iter().all(|options| options.rate == Some(1000.5) && !options.rhythm));
    }

    #[test]
    fn the_month_files_lake_has_the_same_views() {
        let views = FILES.iter().find(|(name, _)| *name == "20_views.sql").unwrap().1;
        assert!(views == include_str!("../../../../examples/tlc/20_views.sql"), "copy examples/nyc/20_views.sql to examples/tlc");
    }
}
