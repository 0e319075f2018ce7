//! What Binlake's own records say beside their format: which lane, producer, chunk and place they have.

use crate::event::{ChunkIndex, Epoch, Lane};
use std::fmt;
use std::str::FromStr;

/// The place of a record among all that a producer sent: repeats and gaps are told by it. Written as `lane.epoch.chunk.number`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Its lane.
    pub lane: Lane,
    /// Its producer.
    pub epoch: Epoch,
    /// Its chunk on the lane.
    pub chunk: ChunkIndex,
    /// Its number in the chunk: 0, 1, 2, … without a gap.
    pub number: u64,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", self.lane, self.epoch, self.chunk, self.number)
    }
}

impl FromStr for Mark {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('.').map(|part| part.parse::<u64>().map_err(|_| ()));
        let mut next = || parts.next().ok_or(())?;
        let mark = Self {
            lane: Lane(u16::try_from(next()?).map_err(|_| ())?),
            epoch: Epoch(next()?),
            chunk: ChunkIndex(next()?),
            number: next()?,
        };
        if parts.next().is_some() { Err(()) } else { Ok(mark) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let mark = Mark { lane: Lane(3), epoch: Epoch(2), chunk: ChunkIndex(17), number: 4 };
        assert_eq!(mark.to_string(), "3.2.17.4");
        assert_eq!("3.2.17.4".parse(), Ok(mark));
        for wrong in ["", "3.2.17", "3.2.17.4.5", "70000.1.1.1", "a.b.c.d", "-1.2.3.4"] {
            assert!(wrong.parse::<Mark>().is_err(), "{wrong}");
        }
    }
}
