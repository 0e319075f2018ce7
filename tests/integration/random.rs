//! Random numbers that a printed seed brings back.

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// From a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// From the seed in the environment variable `name`, else from the clock; printed, so that a failure can be had again.
    pub(crate) fn from_environment(name: &str) -> Self {
        let now = || std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into();
        let seed = std::env::var(name).map_or_else(|_| now(), |text| text.parse().unwrap());
        println!("{name}={seed}");
        Random(seed)
    }

    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Another generator, independent of this one.
    pub(crate) fn split(&mut self) -> Self {
        Random(self.next())
    }
}
