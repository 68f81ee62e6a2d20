//! How much of the machine was left for a process: a promise in seconds holds for a machine that does nothing else.

use std::time::{Duration, Instant};

/// Measures from its making on what others took of the processors' time.
pub struct Share {
    process: u32,
    begun: Instant,
    busy: f64,
    all: f64,
    own: f64,
}

/// Busy and all ticks of all processors since the machine's start.
fn processors() -> (f64, f64) {
    let text = std::fs::read_to_string("/proc/stat").unwrap();
    let ticks: Vec<f64> = text.lines().next().unwrap().split_whitespace().skip(1).map(|word| word.parse().unwrap()).collect();
    // user, nice, system, idle, waiting for a disk, interrupts, …
    let all: f64 = ticks.iter().take(8).sum();
    (all - ticks[3] - ticks[4], all)
}

/// Ticks that a process took.
fn taken(process: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // the second word is the program's name and may hold anything
    let words: Vec<&str> = text[text.rfind(')').unwrap() + 1..].split_whitespace().collect();
    words[11].parse::<f64>().unwrap() + words[12].parse::<f64>().unwrap()
}

impl Share {
    /// From now on.
    pub fn of(process: u32) -> Share {
        let (busy, all) = processors();
        Share { process, begun: Instant::now(), busy, all, own: taken(process) }
    }

    /// Passed time, and how long that would have been without the others.
    pub fn elapsed(&self) -> (Duration, Duration) {
        let (busy, all) = processors();
        let others = (busy - self.busy) - (taken(self.process) - self.own);
        let passed = self.begun.elapsed();
        let share = (others / (all - self.all).max(1.0)).clamp(0.0, 0.95);
        (passed, passed.mul_f64(1.0 - share))
    }
}
