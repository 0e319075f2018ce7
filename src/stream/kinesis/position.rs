//! A place in a stream: how far each of its shards was read.
//!
//! As text: `k1 3:4967…,4:T,5:E` names shards (`3` is `shardId-000000000003`) with the sequence number of the last record read, `T` for none yet of what the shard
//! keeps, `E` for a shard read to its end whose children were not begun. `k1 @1763751234567` is a time in milliseconds on all shards, `k1 3:@1763…` on one. A shard
//! that isn't named was read before those that are, if it is an ancestor of one; else it comes after its parents. So a position
//! stays good when the stream is resharded.

use crate::error::{Area, Error, Kind, Result};
use crate::stream::LogPosition;
use crate::time::Timestamp;
use std::collections::BTreeMap;
use std::fmt;

/// A shard's number within its stream, as its name has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub String);

const ID_PREFIX: &str = "shardId-";
const ID_DIGITS: usize = 12;

impl ShardId {
    fn short(&self) -> &str {
        let digits = self.0.strip_prefix(ID_PREFIX).filter(|digits| digits.len() == ID_DIGITS && all_digits(digits));
        digits.map_or(self.0.as_str(), |digits| match digits.trim_start_matches('0') {
            "" => "0",
            short => short,
        })
    }

    fn from_short(text: &str) -> Self {
        if all_digits(text) && text.len() <= ID_DIGITS {
            Self(format!("{ID_PREFIX}{text:0>ID_DIGITS$}"))
        } else {
            Self(text.to_owned())
        }
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// How far one shard was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardPlace {
    /// Nothing was read: from its oldest record.
    Oldest,
    /// Nothing was read: from what arrived at this time or later.
    At(Timestamp),
    /// Up to the record with this sequence number.
    After(String),
    /// All of it; its children were not begun.
    Ended,
}

/// Where a stream is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamPosition {
    /// From the oldest records that it keeps.
    Oldest,
    /// From what arrives after the reading has begun.
    Latest,
    /// From what arrived at this time or later.
    At(Timestamp),
    /// From these places on.
    Shards(BTreeMap<ShardId, ShardPlace>),
}

impl fmt::Display for StreamPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("k1 ")?;
        match self {
            StreamPosition::Oldest => f.write_str("oldest"),
            StreamPosition::Latest => f.write_str("latest"),
            StreamPosition::At(time) => write!(f, "@{}", time.as_micros() / 1000),
            StreamPosition::Shards(shards) => {
                for (number, (shard, place)) in shards.iter().enumerate() {
                    write!(f, "{}{}:", if number == 0 { "" } else { "," }, shard.short())?;
                    match place {
                        ShardPlace::Oldest => f.write_str("T")?,
                        ShardPlace::At(time) => write!(f, "@{}", time.as_micros() / 1000)?,
                        ShardPlace::After(sequence_number) => f.write_str(sequence_number)?,
                        ShardPlace::Ended => f.write_str("E")?,
                    }
                }
                Ok(())
            }
        }
    }
}

fn time(millis: &str) -> Option<Timestamp> {
    Some(Timestamp::from_micros(millis.parse::<i64>().ok()?.checked_mul(1000)?))
}

fn parse(text: &str) -> Option<StreamPosition> {
    let text = text.strip_prefix("k1 ")?;
    match text {
        "oldest" => return Some(StreamPosition::Oldest),
        "latest" => return Some(StreamPosition::Latest),
        _ => {}
    }
    if let Some(millis) = text.strip_prefix('@') {
        return Some(StreamPosition::At(time(millis)?));
    }
    let mut shards = BTreeMap::new();
    for part in text.split(',') {
        let (shard, place) = part.rsplit_once(':')?;
        let place = match place {
            "T" => ShardPlace::Oldest,
            "E" => ShardPlace::Ended,
            place => match place.strip_prefix('@') {
                Some(millis) => ShardPlace::At(time(millis)?),
                None => ShardPlace::After(Some(place).filter(|place| all_digits(place))?.to_owned()),
            },
        };
        shards.insert(ShardId::from_short(Some(shard).filter(|shard| !shard.is_empty())?), place);
    }
    Some(StreamPosition::Shards(shards))
}

impl TryFrom<&LogPosition> for StreamPosition {
    type Error = Error;

    fn try_from(position: &LogPosition) -> Result<Self> {
        parse(&position.0).ok_or_else(|| {
            Error::new(Area::Stream, Kind::Corrupt, "a position on the stream is not one of a Kinesis stream")
                .with("position", &position.0)
                .remedy("name the stream that the lake was filled from, or a new one: the lake's own checkpoints are gone on from")
        })
    }
}

impl From<&StreamPosition> for LogPosition {
    fn from(position: &StreamPosition) -> Self {
        LogPosition(position.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_short_and_come_back() {
        let shards = [
            ("shardId-000000000000", ShardPlace::Ended),
            ("shardId-000000000003", ShardPlace::After("49680431484340046891701745855035937655605931773213540354".into())),
            ("shardId-000000000120", ShardPlace::Oldest),
            ("other", ShardPlace::At(Timestamp::from_micros(1_763_751_234_567_000))),
        ];
        let shards = shards.into_iter().map(|(shard, place)| (ShardId(shard.into()), place)).collect();
        let position = StreamPosition::Shards(shards);
        let text = position.to_string();
        assert_eq!(text, "k1 other:@1763751234567,0:E,3:49680431484340046891701745855035937655605931773213540354,120:T");
        for position in [position, StreamPosition::Oldest, StreamPosition::Latest, StreamPosition::At(Timestamp::from_micros(5000))]
        {
            assert_eq!(StreamPosition::try_from(&LogPosition::from(&position)).unwrap(), position);
        }
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for text in ["", "there", "1:76", "k1 ", "k1 3", "k1 3:x", "k1 :4", "k1 @", "k1 @99999999999999999999", "k2 oldest"] {
            let error = StreamPosition::try_from(&LogPosition(text.into())).unwrap_err();
            assert_eq!((error.kind(), error.exit_code()), (Kind::Corrupt, 4), "{text}");
        }
    }
}
