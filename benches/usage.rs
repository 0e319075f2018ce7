//! What benchmarks share: settings from the environment, and what the process has used.
#![allow(unreachable_pub, reason = "a module of several benchmarks")]

/// A variable of the environment, if it is there and can be read.
pub fn setting<T: std::str::FromStr>(name: &str, unless_told: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(unless_told)
}

/// CPU seconds of this process so far, and its peak RSS in MiB.
pub fn usage() -> (f64, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> =
        stat.rsplit(')').next().unwrap_or("").split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    ((fields.get(11).unwrap_or(&0.0) + fields.get(12).unwrap_or(&0.0)) / 100.0, peak.unwrap_or(0) / 1024)
}
