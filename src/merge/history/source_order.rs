//! The order of a table's transactions, and the system time of each.
//!
//! Rows come lane by lane, so the order in which transactions reached the source can't be told from the order of arrival; it is that of their places in the
//! binlog. (A stream that others write has no binlog; its rows come in one lane, and in their order.) System time is the commit time, made strictly
//! increasing: it depends on the transactions alone, not on how they fall into commits.

use crate::event::{BinlogCoordinates, Epoch, TransactionStamp};

/// Bits of a place in a binlog file.
const OFFSET_BITS: u32 = 40;
/// Bits of a transaction's number in a batch.
const BATCH_BITS: u32 = 24;

/// A transaction's place among a table's; snapshot rows come before the first transaction that they don't have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::merge) struct SourceOrder(pub(in crate::merge) u64);

impl SourceOrder {
    /// Before everything that comes from the stream: the rows that a table has already.
    pub(in crate::merge) const FIRST: Self = Self(0);

    /// Of a transaction in the batch that was the table's `arrival`th, the `index`th of it.
    pub(in crate::merge) fn of(stamp: &TransactionStamp, arrival: u64, index: u64) -> Self {
        if stamp.coordinates.file_number() > 0 {
            return Self(Self::at(&stamp.coordinates).0 & !u64::from(stamp.is_snapshot));
        }
        let place = arrival.saturating_add(1) << BATCH_BITS | index.min((1 << BATCH_BITS) - 1);
        Self(place << 1 | u64::from(!stamp.is_snapshot))
    }

    /// Of a transaction that begins there.
    pub(in crate::merge) fn at(coordinates: &BinlogCoordinates) -> Self {
        let place = coordinates.file_number() << OFFSET_BITS | coordinates.offset.min((1 << OFFSET_BITS) - 1);
        Self(place << 1 | 1)
    }

    /// Whether it is a snapshot's.
    pub(super) fn is_snapshot(self) -> bool {
        self.0 & 1 == 0
    }

    /// The same at another place.
    pub(super) fn numbered(self, place: u64) -> Self {
        Self(place << 1 | self.0 & 1)
    }
}

/// A transaction as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::merge) struct Came {
    /// The producer that sent it.
    pub(in crate::merge) epoch: Epoch,
    /// Its place at the server that this one read.
    pub(in crate::merge) order: SourceOrder,
    /// In microseconds.
    pub(in crate::merge) source_commit_time: i64,
}

/// What a history needs to know of changes, by row.
#[derive(Debug, Clone, Default)]
pub(in crate::merge) struct Trace {
    /// Codes of [`crate::event::Operation`].
    pub(in crate::merge) operations: Vec<u8>,
    /// The transactions.
    pub(in crate::merge) orders: Vec<SourceOrder>,
}

/// The system times of a table's transactions.
#[derive(Debug, Clone)]
pub(in crate::merge) struct SystemTimes {
    /// In their order.
    times: Vec<(SourceOrder, i64)>,
    last: i64,
}

impl SystemTimes {
    /// Of these transactions, given with their commit times in any order and more than once; `previous` is the system time of the last one before.
    ///
    /// `seen_before`, sorted: from each of these places on, a snapshot that began before it has seen nothing. What it may have seen of the transactions before it is not
    /// known, so they are one with it: its rows as the last of them left them.
    pub(in crate::merge) fn new(
        transactions: impl Iterator<Item = (SourceOrder, i64)>,
        previous: i64,
        seen_before: &[SourceOrder],
    ) -> Self {
        let mut times: Vec<(SourceOrder, i64)> = transactions.collect();
        times.sort_unstable();
        times.dedup_by_key(|(order, _)| *order);
        let (mut last, mut seen_until) = (previous, SourceOrder::FIRST);
        for (order, time) in &mut times {
            if order.is_snapshot() && *order > SourceOrder::FIRST {
                let end = seen_before.partition_point(|end| end <= order);
                seen_until = seen_before.get(end).copied().unwrap_or(SourceOrder::FIRST);
            }
            if order.is_snapshot() || *order >= seen_until {
                last = (*time).max(last.saturating_add(1));
            }
            *time = last;
        }
        Self { times, last }
    }

    /// That of a transaction.
    pub(in crate::merge) fn of(&self, order: SourceOrder) -> i64 {
        match self.times.binary_search_by_key(&order, |(order, _)| *order) {
            Ok(found) => self.times[found].1,
            Err(_) => self.last,
        }
    }

    /// That of the first transaction, if there is one.
    pub(in crate::merge) fn first(&self) -> Option<i64> {
        self.times.first().map(|(_, time)| *time)
    }

    /// That of the last transaction.
    pub(in crate::merge) fn last(&self) -> i64 {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_time_rises_and_does_not_depend_on_how_transactions_fall_into_commits() {
        let all = [(1, 100), (2, 100), (3, 90), (4, 200), (5, 200)].map(|(order, time)| (SourceOrder(order), time));
        let whole = SystemTimes::new(all.into_iter().rev().chain(all), 0, &[]);
        let of: Vec<i64> = all.iter().map(|(order, _)| whole.of(*order)).collect();
        assert_eq!(of, [100, 101, 102, 200, 201]);
        for cut in 0..=all.len() {
            let first = SystemTimes::new(all[..cut].iter().copied(), 0, &[]);
            let second = SystemTimes::new(all[cut..].iter().copied(), first.last(), &[]);
            let parts: Vec<i64> =
                all.iter().enumerate().map(|(i, (order, _))| if i < cut { first.of(*order) } else { second.of(*order) }).collect();
            assert_eq!(parts, of);
        }
    }

    #[test]
    fn a_snapshot_is_one_with_what_it_may_have_seen() {
        let at = |place: u64, is_snapshot: bool| SourceOrder(place << 1 | u64::from(!is_snapshot));
        let all = [(at(5, false), 40), (at(10, true), 100), (at(10, false), 90), (at(12, false), 95), (at(15, false), 96)];
        let later = [(at(20, true), 200), (at(21, false), 150), (at(30, false), 160)];
        let times = SystemTimes::new(all.into_iter().chain(later), 0, &[at(5, false), at(15, false), at(22, false)]);
        let of: Vec<i64> = all.iter().chain(&later).map(|(order, _)| times.of(*order)).collect();
        assert_eq!(of, [40, 100, 100, 100, 101, 200, 200, 201]);
        // where nothing happened while it was taken, nothing is one with it
        let exact = SystemTimes::new(all.into_iter(), 0, &[at(10, false)]);
        assert_eq!(all.map(|(order, _)| exact.of(order)), [40, 100, 101, 102, 103]);
    }
}
