//! The order of a table's transactions, and the system time of each.
//!
//! Rows come lane by lane, so the order in which transactions reached the source can't be told from the order of arrival; it is that of their places in the
//! binlog. (A stream that others write has no binlog; its rows come in one lane, and in their order.) System time is the commit time, made strictly
//! increasing: it depends on the transactions alone, not on how they fall into commits.

use crate::event::TransactionStamp;

/// Bits of a place in a binlog file.
const OFFSET_BITS: u32 = 40;
/// Bits of a transaction's number in a batch.
const BATCH_BITS: u32 = 24;

/// A transaction's place among a table's; snapshot rows come before the first transaction that they don't have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::merge) struct SourceOrder(pub(in crate::merge) u64);

impl SourceOrder {
    /// Before everything that comes from the stream: the rows that a table has already.
    pub(in crate::merge) const FIRST: Self = Self(0);

    /// Of a transaction in the batch that was the table's `arrival`th, the `index`th of it.
    pub(in crate::merge) fn of(stamp: &TransactionStamp, arrival: u64, index: u64) -> Self {
        let place = match stamp.coordinates.file_number() {
            0 => arrival.saturating_add(1) << BATCH_BITS | index.min((1 << BATCH_BITS) - 1),
            file => file << OFFSET_BITS | stamp.coordinates.offset.min((1 << OFFSET_BITS) - 1),
        };
        Self(place << 1 | u64::from(!stamp.is_snapshot))
    }

    /// Whether it is a snapshot's.
    pub(super) fn is_snapshot(self) -> bool {
        self.0 & 1 == 0
    }
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
    pub(in crate::merge) fn new(transactions: impl Iterator<Item = (SourceOrder, i64)>, previous: i64) -> Self {
        let mut times: Vec<(SourceOrder, i64)> = transactions.collect();
        times.sort_unstable();
        times.dedup_by_key(|(order, _)| *order);
        let mut last = previous;
        for (_, time) in &mut times {
            last = (*time).max(last.saturating_add(1));
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
        let whole = SystemTimes::new(all.into_iter().rev().chain(all), 0);
        let of: Vec<i64> = all.iter().map(|(order, _)| whole.of(*order)).collect();
        assert_eq!(of, [100, 101, 102, 200, 201]);
        for cut in 0..=all.len() {
            let first = SystemTimes::new(all[..cut].iter().copied(), 0);
            let second = SystemTimes::new(all[cut..].iter().copied(), first.last());
            let parts: Vec<i64> =
                all.iter().enumerate().map(|(i, (order, _))| if i < cut { first.of(*order) } else { second.of(*order) }).collect();
            assert_eq!(parts, of);
        }
    }
}
