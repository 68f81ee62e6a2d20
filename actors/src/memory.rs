//! How much memory the process has, as the kernel counts it.

/// The most memory that this process had so far, in bytes; 0 where the kernel does not say.
pub fn peak_bytes() -> u64 {
    field("VmHWM:")
}

/// The memory that this process has now, in bytes; 0 where the kernel does not say.
pub fn resident_bytes() -> u64 {
    field("VmRSS:")
}

fn field(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).map_or(0, |kilobytes| kilobytes * 1024)
}

/// `64MB`, `2GiB`, `1000000`: a number of bytes as people write it.
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim().find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.trim().len());
    let (number, unit) = text.trim().split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1000_u64.pow(2),
        "g" | "gb" => 1000_u64.pow(3),
        "t" | "tb" => 1000_u64.pow(4),
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_people_do() {
        let sizes = ["64MB", "2 GiB", "1000000", "5k"].map(parse_size);
        assert_eq!(sizes, [Some(64_000_000), Some(2 << 30), Some(1_000_000), Some(5000)]);
        assert_eq!(["much", "-1MB", "1.5GB", "9999999999TB"].map(parse_size), [None; 4]);
    }

    #[test]
    fn this_process_has_memory() {
        let peak = peak_bytes();
        assert!(peak > 1 << 20 && resident_bytes() > 1 << 20);
    }
}
