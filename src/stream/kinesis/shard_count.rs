//! How many shards a stream has, and changing that while it is in use.

use super::client::StreamClient;
use crate::cloud::Failure;
use crate::error::{Area, Error, Kind, Result};
use aws_sdk_kinesis::types::{ScalingType, StreamStatus};
use std::time::Duration;
use tokio::time::Instant;

/// One change at a time may at most double or halve the number.
const MOST_FACTOR: u32 = 2;
/// How long all changes together may take: Amazon's take minutes.
const PATIENCE: Duration = Duration::from_secs(1800);
/// How often the stream is asked whether it is active again: from this …
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// … to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// So often a change may come to nothing; only ten a day are allowed.
const MOST_IN_VAIN: u32 = 3;

/// The next number on the way from one to another.
fn step(from: u32, to: u32) -> u32 {
    to.clamp(from.div_ceil(MOST_FACTOR), from.saturating_mul(MOST_FACTOR))
}

impl StreamClient {
    /// How many shards take records.
    pub(super) async fn open_shards(&self) -> Result<u32> {
        Ok(self.describe().await?.ok_or_else(|| self.gone())?.open_shards)
    }

    /// Splits and merges until there are so many shards of equal size.
    pub(super) async fn set_open_shards(&self, wanted: u32) -> Result<()> {
        if wanted == 0 {
            return Err(Error::config("a stream has at least one shard").with("shards", wanted));
        }
        let deadline = Instant::now() + PATIENCE;
        let mut pause = FIRST_PAUSE;
        let (mut asked_at, mut in_vain) = (None, 0);
        loop {
            let facts = self.describe().await?.ok_or_else(|| self.gone())?;
            let is_active = facts.status == StreamStatus::Active;
            if is_active && facts.open_shards == wanted {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(
                    Error::new(Area::Stream, Kind::Transient, "the stream doesn't become active").with("stream", self.name())
                );
            }
            if is_active {
                in_vain = if asked_at == Some(facts.open_shards) { in_vain + 1 } else { 0 };
                if in_vain >= MOST_IN_VAIN {
                    return Err(Error::new(
                        Area::Stream,
                        Kind::Refused,
                        "the service takes the change of shards, and nothing changes",
                    )
                    .with("stream", self.name())
                    .with("shards", facts.open_shards)
                    .remedy("look at the stream's shards, or split and merge them by hand"));
                }
                let count = step(facts.open_shards, wanted);
                tracing::info!(stream = self.name(), from = facts.open_shards, to = count, "the stream is resharded");
                let call = self.sdk().update_shard_count().stream_name(self.name()).scaling_type(ScalingType::UniformScaling);
                match call.target_shard_count(i32::try_from(count).unwrap_or(i32::MAX)).send().await {
                    Ok(_) => (pause, asked_at) = (FIRST_PAUSE, Some(facts.open_shards)),
                    // another process is at it
                    Err(error) if Failure::of(&error) == Failure::Busy => {}
                    Err(error) => {
                        return Err(self.said("the number of shards can't be changed", &error).with("shards", count).remedy(
                            "an on-demand stream chooses by itself; else wait (ten changes a day are allowed), or have the account's limit of shards raised",
                        ));
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_at_most_doubles_or_halves() {
        let way = |mut from: u32, to: u32| {
            let mut steps = Vec::new();
            while from != to {
                from = step(from, to);
                steps.push(from);
            }
            steps
        };
        assert_eq!(way(2, 9), [4, 8, 9]);
        assert_eq!(way(9, 1), [5, 3, 2, 1]);
        assert_eq!(way(4, 4), [] as [u32; 0]);
    }
}
