//! What is left to read: the tables' remaining ranges, handed out a chunk at a time.

use super::snapshot::SnapshotPlan;
use super::snapshot_session::Session;
use super::snapshot_split::Splitter;
use crate::error::Error;
use crate::event::{KeyRange, SnapshotProgress, SourcePosition};
use std::collections::VecDeque;

/// A chunk for one reader.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// Index of the table in the plan.
    pub(super) table: usize,
    /// Its number among all jobs.
    pub(super) number: u64,
    /// The rows.
    pub(super) range: KeyRange,
    /// The rows that are wanted of it, as an SQL condition.
    pub(super) filter: Option<String>,
}

/// All tables' remaining work.
#[derive(Debug)]
pub(super) struct Work {
    tables: Vec<TableWork>,
    jobs: u64,
}

#[derive(Debug)]
struct TableWork {
    progress: SnapshotProgress,
    /// Ranges that nobody reads.
    waiting: VecDeque<KeyRange>,
    /// Ranges that somebody reads, by their job's number.
    in_flight: Vec<(u64, KeyRange)>,
    splitter: Splitter,
    abandoned: bool,
}

impl Work {
    /// All that `progress` (a plan's tables in their order) says is left.
    pub(super) fn new(plan: &SnapshotPlan, progress: Vec<SnapshotProgress>) -> Self {
        let tables = progress
            .into_iter()
            .map(|progress| TableWork {
                waiting: progress.remaining_chunks.iter().cloned().collect(),
                in_flight: Vec::new(),
                splitter: Splitter::new(plan.chunk_rows),
                abandoned: false,
                progress,
            })
            .collect();
        Self { tables, jobs: 0 }
    }

    /// The next chunk, split off with `conn` where needed; `None`: all is read or being read. An error comes with its table's index.
    pub(super) async fn next(&mut self, plan: &SnapshotPlan, session: &mut Session) -> Result<Option<Job>, (usize, Error)> {
        for (index, (table, plan)) in self.tables.iter_mut().zip(&plan.tables).enumerate() {
            if table.abandoned {
                continue;
            }
            let Some(range) = table.waiting.front() else { continue };
            // the range stays until the split has succeeded
            let (chunk, rest) = table.splitter.split(session, &plan.table, range.clone()).await.map_err(|error| (index, error))?;
            table.waiting.pop_front();
            if let Some(rest) = rest {
                table.waiting.push_front(rest);
            }
            self.jobs += 1;
            table.in_flight.push((self.jobs, chunk.clone()));
            return Ok(Some(Job { table: index, number: self.jobs, range: chunk, filter: table.progress.filter.clone() }));
        }
        Ok(None)
    }

    /// A chunk was read whole: where its table stands now; `None`: it was abandoned meanwhile.
    pub(super) fn finish(&mut self, job: &Job, rows: u64) -> Option<SnapshotProgress> {
        let table = &mut self.tables[job.table];
        table.in_flight.retain(|(number, _)| *number != job.number);
        table.progress.rows_read += rows;
        table.progress.remaining_chunks = table.in_flight.iter().map(|(_, range)| range).chain(&table.waiting).cloned().collect();
        (!table.abandoned).then(|| table.progress.clone())
    }

    /// A chunk couldn't be read: it waits for the next reader.
    pub(super) fn give_back(&mut self, job: &Job) {
        let table = &mut self.tables[job.table];
        table.in_flight.retain(|(number, _)| *number != job.number);
        table.waiting.push_front(job.range.clone());
    }

    /// No more of a table is read; says whether that is news.
    pub(super) fn abandon(&mut self, table: usize) -> bool {
        let table = &mut self.tables[table];
        table.waiting.clear();
        !std::mem::replace(&mut table.abandoned, true)
    }

    /// A reader stands at a later point from now on: every table that it may still read.
    pub(super) fn raise_high_watermark(&mut self, position: &SourcePosition) {
        for table in &mut self.tables {
            if !table.waiting.is_empty() || !table.in_flight.is_empty() {
                table.progress.high_watermark = position.clone();
            }
        }
    }

    /// What was read of one table may be as new as `position`.
    pub(super) fn raise_high_watermark_of(&mut self, table: usize, position: &SourcePosition) {
        self.tables[table].progress.high_watermark = position.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{BinlogCoordinates, Lineage};

    fn position(offset: u64) -> SourcePosition {
        let coordinates = BinlogCoordinates { file: "b.1".into(), offset };
        SourcePosition { lineage: Lineage("x".into()), coordinates, gtid_set: None }
    }

    fn range(name: &str) -> KeyRange {
        KeyRange { columns: vec!["id".into()], after: Some(vec![name.into()]), through: None, unsplit: false }
    }

    fn work() -> Work {
        let progress = SnapshotProgress {
            low_watermark: position(1),
            high_watermark: position(2),
            remaining_chunks: vec![range("1"), range("2"), range("3")],
            filter: None,
            rows_read: 5,
            estimated_rows: 9,
        };
        let plan = SnapshotPlan {
            tables: Vec::new(),
            lanes: 1,
            connections: 1,
            chunk_rows: 10,
            batch_bytes: 1,
            connect_timeout: std::time::Duration::ZERO,
            lock_wait_timeout: std::time::Duration::ZERO,
        };
        Work::new(&plan, vec![progress])
    }

    /// Hands out the next range without a server.
    fn take(work: &mut Work) -> Job {
        let range = work.tables[0].waiting.pop_front().unwrap();
        work.jobs += 1;
        work.tables[0].in_flight.push((work.jobs, range.clone()));
        Job { table: 0, number: work.jobs, range, filter: None }
    }

    #[test]
    fn what_is_being_read_remains_until_it_is_whole() {
        let mut work = work();
        let (first, second) = (take(&mut work), take(&mut work));
        let progress = work.finish(&second, 10).unwrap();
        assert_eq!(progress.remaining_chunks, [range("1"), range("3")]);
        assert_eq!(progress.rows_read, 15);
        work.give_back(&first);
        work.raise_high_watermark(&position(7));
        let again = take(&mut work);
        assert_eq!(again.range, range("1"));
        assert_eq!(work.finish(&again, 1).unwrap().high_watermark, position(7));
        let last = take(&mut work);
        assert_eq!(work.finish(&last, 1).unwrap().remaining_chunks, []);
        work.raise_high_watermark(&position(9));
        assert_eq!(work.tables[0].progress.high_watermark, position(7), "a table that is read keeps its point");
        assert!(work.abandon(0) && !work.abandon(0));
        assert_eq!(work.finish(&last, 1), None, "an abandoned table never gets further");
    }
}
