//! The order of transactions that were read of several servers.
//!
//! Places in the binlogs of two servers don't compare: after a failover the new one's may lie before those of the old one, and be later all the same. A producer
//! reads one server, and the next producer goes on where it ended, so the order of producers (epochs) comes first where places contradict it. Where they
//! don't, places alone are the order: the rows of a snapshot that goes on after a restart so stay among the transactions that they have seen.

use super::fold::HistoryFold;
use super::source_order::{Came, SourceOrder};
use crate::event::Epoch;
use crate::merge::kway::Sequence;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Which server each producer has read, and what that makes of places.
#[derive(Debug, Clone, Default)]
pub(super) struct Servers {
    /// The number of each epoch's server; empty: places of all epochs compare.
    of: BTreeMap<Epoch, u64>,
    /// The places in an order of all servers.
    places: Arc<HashMap<(u64, SourceOrder), SourceOrder>>,
    /// The servers of the pieces, by arrival.
    of_arrival: Arc<HashMap<u64, u64>>,
}

impl Servers {
    /// Of these transactions.
    pub(super) fn of(came: &[Came]) -> Self {
        // mostly
        if came.iter().all(|one| Some(one.epoch) == came.first().map(|first| first.epoch)) {
            return Self::default();
        }
        let mut epochs: BTreeMap<Epoch, BTreeSet<(SourceOrder, i64)>> = BTreeMap::new();
        for came in came {
            epochs.entry(came.epoch).or_default().insert((came.order, came.source_commit_time));
        }
        let (mut of, mut server) = (BTreeMap::new(), 0);
        let mut known: BTreeSet<(SourceOrder, i64)> = BTreeSet::new();
        for (epoch, transactions) in epochs {
            let last = known.last().map(|(order, _)| *order);
            // what comes again comes at its own place
            let is_behind = |one: &(SourceOrder, i64)| last.is_some_and(|last| one.0 <= last) && !known.contains(one);
            if transactions.iter().any(is_behind) {
                server += 1;
                known.clear();
            }
            of.insert(epoch, server);
            // the binlog is read from a place before the snapshot's
            known.extend(transactions.into_iter().filter(|(order, _)| !order.is_snapshot()));
        }
        if server == 0 {
            return Self::default();
        }
        let all: BTreeSet<(u64, SourceOrder)> = came.iter().map(|came| (of[&came.epoch], came.order)).collect();
        let places = all.into_iter().zip(1..).map(|(place, number)| (place, place.1.numbered(number))).collect();
        Self { of, places: Arc::new(places), of_arrival: Arc::default() }
    }

    /// Whether all places compare.
    pub(super) fn is_one(&self) -> bool {
        self.of.is_empty()
    }

    /// The same; it knows of `all` in which epoch each piece came.
    pub(super) fn with_arrivals(self, all: &HistoryFold) -> Self {
        if self.is_one() {
            return self;
        }
        let of_pieces = all.pieces.iter().map(|piece| (piece.place.arrival, piece.place.closing.epoch));
        let of_runs = all.runs.iter().flat_map(|run| run.arrivals.iter().copied());
        let of_arrival = of_pieces.chain(of_runs).filter_map(|(arrival, epoch)| Some((arrival, *self.of.get(&epoch)?)));
        Self { of_arrival: Arc::new(of_arrival.collect()), ..self }
    }

    /// A transaction's place among those of all servers.
    pub(super) fn order(&self, epoch: Epoch, order: SourceOrder) -> SourceOrder {
        let place = self.of.get(&epoch).and_then(|server| self.places.get(&(*server, order)));
        place.copied().unwrap_or(order)
    }

    /// `rows` with the places of their transactions among those of all servers.
    pub(super) fn placed(&self, rows: Sequence) -> Sequence {
        if self.is_one() {
            return rows;
        }
        let (places, of_arrival) = (self.places.clone(), self.of_arrival.clone());
        Box::new(rows.map(move |piece| {
            let mut piece = piece?;
            let orders = piece.trace.iter_mut().flat_map(|trace| trace.orders.iter_mut());
            for (order, arrival) in orders.zip(&piece.arrivals) {
                let place = of_arrival.get(arrival).and_then(|server| places.get(&(*server, *order)));
                *order = place.copied().unwrap_or(*order);
            }
            Ok(piece)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{BinlogCoordinates, TransactionStamp};
    use crate::time::Timestamp;

    fn came(epoch: u64, offset: u64, time: i64, is_snapshot: bool) -> Came {
        let stamp = TransactionStamp {
            gtid: None,
            coordinates: BinlogCoordinates { file: "b.000007".into(), offset },
            source_commit_time: Timestamp::from_micros(time),
            is_snapshot,
        };
        Came { epoch: Epoch(epoch), order: SourceOrder::of(&stamp, 0, 0), source_commit_time: time }
    }

    fn in_order(came: &[Came]) -> Vec<i64> {
        let servers = Servers::of(came);
        let mut times: Vec<_> = came.iter().map(|one| (servers.order(one.epoch, one.order), one.source_commit_time)).collect();
        times.sort_unstable();
        times.dedup();
        times.into_iter().map(|(_, time)| time).collect()
    }

    #[test]
    fn the_new_server_comes_after_the_old_one_wherever_its_binlog_is() {
        let lower = [came(1, 900, 1, false), came(1, 950, 2, false), came(2, 100, 3, false), came(2, 920, 4, false)];
        assert_eq!(in_order(&lower), [1, 2, 3, 4]);
        let at_the_same = [came(1, 900, 1, false), came(2, 900, 2, false), came(3, 100, 3, true), came(3, 100, 4, false)];
        assert_eq!(in_order(&at_the_same), [1, 2, 3, 4]);
        let back = [came(1, 900, 1, false), came(2, 100, 2, false), came(3, 901, 3, false), came(4, 101, 4, false)];
        assert_eq!(in_order(&back), [1, 2, 3, 4]);
    }

    #[test]
    fn of_one_server_places_are_the_order_whoever_read_them() {
        // a snapshot that was killed: its rest is read later, and the binlog from its first point on
        let resumed = [came(1, 100, 5, true), came(2, 300, 9, true), came(2, 150, 6, false), came(2, 350, 10, false)];
        assert_eq!(in_order(&resumed), [5, 6, 9, 10]);
        let again = [came(1, 100, 1, false), came(1, 200, 2, false), came(2, 200, 2, false), came(2, 300, 3, false)];
        assert!(Servers::of(&again).is_one());
        assert_eq!(in_order(&again), [1, 2, 3]);
    }
}
