//! Where the stream must be read from, should all start again.

use crate::event::{CutPoint, TableId};
use crate::merge::Resume;
use crate::stream::{CutReached, LogPosition};
use std::collections::BTreeMap;

/// Most cuts that are remembered; in between, some are forgotten.
const MOST_CUTS: usize = 4096;

/// The cuts reached that something may still wait behind, and what the tables' checkpoints say.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// In the order in which they were reached.
    reached: Vec<(CutPoint, LogPosition)>,
    /// Where this reading began.
    start: Option<Resume>,
    /// The cut behind which all is that may be needed, if no table says more.
    floor: Option<CutPoint>,
    /// What each table's last commit says.
    durable: BTreeMap<TableId, Option<Resume>>,
    released: Option<CutPoint>,
}

impl Progress {
    /// With what the tables' checkpoints on this stream say; reading starts at the lowest.
    pub(super) fn new(durable: BTreeMap<TableId, Option<Resume>>) -> Self {
        let start = lowest(durable.values()).flatten();
        Self { start, durable, ..Self::default() }
    }

    /// Where reading starts; `None`: at the stream's beginning.
    pub(super) fn start(&self) -> Option<&Resume> {
        self.start.as_ref()
    }

    /// See the field.
    pub(super) fn floor(&self) -> Option<CutPoint> {
        self.floor
    }

    /// Nothing before a cut counts, whatever the tables' commits say.
    pub(super) fn begin_behind(&mut self, cut: CutPoint) {
        self.durable.clear();
        (self.start, self.floor) = (None, Some(cut));
    }

    /// Reading began here, behind the cut before which nothing counts: commits before the first cut that is reached say so.
    pub(super) fn begin_at(&mut self, start: Resume) {
        self.start = Some(start);
    }

    /// Whether a table that `counts` needs what lies before a cut.
    pub(super) fn needs_before(&self, cut: CutPoint, counts: impl Fn(&TableId) -> bool) -> bool {
        let lies_before = |resume: &Option<Resume>| resume.as_ref().is_none_or(|resume| resume.point() < cut);
        self.durable.iter().any(|(table, resume)| counts(table) && lies_before(resume))
    }

    /// Whether no table says from where on it needs the stream.
    pub(super) fn is_unknown(&self) -> bool {
        self.durable.is_empty()
    }

    pub(super) fn reached(&mut self, cut: &CutReached) {
        self.reached.push((cut.point, cut.position.clone()));
        if self.reached.len() > MOST_CUTS {
            // any earlier cut serves as well, only longer to read again
            let mut i = 0;
            self.reached.retain(|_| {
                i += 1;
                i % 2 == 1 || i + 2 > MOST_CUTS
            });
        }
    }

    /// From where all can be read again that waits, if the first that waits is in the window `first_window`.
    pub(super) fn resume(&self, first_window: Option<CutPoint>) -> Option<Resume> {
        let before = self.reached.iter().rev().find(|(point, _)| first_window.is_none_or(|window| *point < window));
        before
            .map(|(cut, position)| Resume { epoch: cut.epoch, cut: cut.number, log_position: position.0.clone() })
            .or_else(|| self.start.clone())
    }

    /// A table is no longer this loop's, or holds the stream no longer.
    pub(super) fn forget(&mut self, table: &TableId) {
        self.durable.remove(table);
    }

    /// A table holds the stream from here on.
    pub(super) fn hold(&mut self, table: &TableId, resume: Option<Resume>) {
        self.durable.insert(table.clone(), resume);
    }

    /// The tables for whose sake reading starts where it does; none if it is for all tables' sake.
    pub(super) fn stranded(&self) -> Vec<TableId> {
        let start = self.start.as_ref().map(Resume::point);
        let is_first = |resume: &Option<Resume>| resume.as_ref().map(Resume::point) <= start;
        let (first, later): (Vec<_>, Vec<_>) = self.durable.iter().partition(|(_, resume)| is_first(resume));
        if later.is_empty() { Vec::new() } else { first.into_iter().map(|(table, _)| table.clone()).collect() }
    }

    /// Reading starts where the tables that hold the stream need it.
    pub(super) fn begin_later(&mut self) {
        self.start = lowest(self.durable.values()).flatten();
    }

    /// A table's commit is durable; `is_needed` says which tables still take part. Gives the log's position that no table needs any more.
    pub(super) fn committed(
        &mut self,
        table: &TableId,
        resume: Option<Resume>,
        is_needed: impl Fn(&TableId) -> bool,
    ) -> Option<LogPosition> {
        self.durable.insert(table.clone(), resume);
        let floor = lowest(self.durable.iter().filter(|(table, _)| is_needed(table)).map(|(_, resume)| resume))??;
        if self.released >= Some(floor.point()) {
            return None;
        }
        self.released = Some(floor.point());
        self.reached.retain(|(point, _)| *point >= floor.point());
        Some(LogPosition(floor.log_position))
    }
}

fn lowest<'a>(resumes: impl Iterator<Item = &'a Option<Resume>>) -> Option<Option<Resume>> {
    resumes.min_by_key(|resume| resume.as_ref().map(Resume::point)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Cut, CutNumber, Epoch, SourcePosition};
    use std::sync::Arc;

    fn point(number: u64) -> CutPoint {
        CutPoint { epoch: Epoch(1), number: CutNumber(number) }
    }

    fn reached(number: u64) -> CutReached {
        let position = SourcePosition {
            lineage: crate::event::Lineage("a".into()),
            coordinates: crate::event::BinlogCoordinates { file: "b.1".into(), offset: number },
            gtid_set: None,
        };
        let cut = Cut {
            number: CutNumber(number),
            position,
            source_commit_time: crate::time::Timestamp::default(),
            tables: BTreeMap::new(),
            schemas: BTreeMap::new(),
            rules: None,
            complete_until: None,
        };
        CutReached { point: point(number), cut: Arc::new(cut), position: LogPosition(format!("p{number}")) }
    }

    #[test]
    fn the_slowest_table_holds_the_stream() {
        let mut progress = Progress::default();
        (1..=5).for_each(|number| progress.reached(&reached(number)));
        assert_eq!(progress.resume(Some(point(4))).unwrap().log_position, "p3");
        assert_eq!(progress.resume(None).unwrap().log_position, "p5");
        assert_eq!(progress.resume(Some(point(1))), None);
        let (a, b): (TableId, TableId) = ("s.a".parse().unwrap(), "s.b".parse().unwrap());
        let at = |progress: &Progress, window| progress.resume(Some(point(window)));
        let (early, late) = (at(&progress, 3), at(&progress, 5));
        progress.durable.insert(b.clone(), early);
        assert_eq!(progress.committed(&a, late.clone(), |_| true), Some(LogPosition("p2".into())));
        assert_eq!(progress.committed(&b, late, |_| true), Some(LogPosition("p4".into())));
    }
}
