//! Named places at which a process can be made to die, so that what a crash leaves can be looked at for each of them.
//!
//! The environment variable `LIVELAKE_FAILPOINT` chooses one: `name` (the first time it is reached), `name:3` (the third), `#7` (the seventh
//! of all, whatever its name), `#` (none, but each is named on standard error). The process dies as if it were killed: no destructor runs,
//! no buffer is written. Without the variable a place costs a look at a static.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What to look at in the environment.
pub const VARIABLE: &str = "LIVELAKE_FAILPOINT";

/// Which place is chosen.
#[derive(Debug)]
struct Chosen {
    /// Absent: any.
    name: Option<String>,
    /// Which time.
    time: u64,
    reached: AtomicU64,
}

impl Chosen {
    fn parse(text: &str) -> Option<Chosen> {
        let (name, time) = match text.strip_prefix('#') {
            Some(time) => (None, time.parse().unwrap_or(u64::MAX)),
            None => match text.split_once(':') {
                Some((name, time)) => (Some(name.to_owned()), time.parse().ok()?),
                None => (Some(text.to_owned()), 1),
            },
        };
        Some(Chosen { name, time, reached: AtomicU64::new(0) })
    }

    fn is_hit(&self, name: &str) -> bool {
        self.name.as_ref().is_none_or(|chosen| chosen == name) && self.reached.fetch_add(1, Ordering::Relaxed) + 1 == self.time
    }
}

/// A place is reached.
pub fn reach(name: &'static str) {
    static CHOSEN: OnceLock<Option<Chosen>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| std::env::var(VARIABLE).ok().and_then(|text| Chosen::parse(&text)));
    if let Some(chosen) = chosen {
        if chosen.name.is_none() {
            eprintln!("failpoint {name}");
        }
        if chosen.is_hit(name) {
            eprintln!("died at failpoint {name}");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_hit_once() {
        let hits = |text: &str, names: &[&str]| -> Vec<bool> {
            let chosen = Chosen::parse(text).unwrap();
            names.iter().map(|name| chosen.is_hit(name)).collect()
        };
        assert_eq!(hits("b", &["a", "b", "b"]), [false, true, false]);
        assert_eq!(hits("b:2", &["b", "a", "b", "b"]), [false, false, true, false]);
        assert_eq!(hits("#2", &["x", "y", "z"]), [false, true, false]);
        assert_eq!(hits("#", &["x", "y"]), [false, false]);
        assert!(Chosen::parse("b:x").is_none());
    }
}
