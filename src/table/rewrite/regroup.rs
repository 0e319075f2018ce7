//! Rows that go, as they are, to new file groups: those of an earlier commit, which come again, or those of small files, with their neighbours'.
//!
//! A file group that ended is never used again, since readers leave out all files of its id. So what comes again does so in new ones.

use super::super::FileSlice;
use super::super::file_group::Unit;
use super::Regroup;
use super::cursor::ChangeCursor;
use super::output::Step;
use super::plan::Planner;
use super::pool::Dispatcher;
use super::restore::in_turn;
use crate::error::Result;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Planner<'_> {
    /// Does it; `live` are the table's files by partition. There are no changes.
    pub(super) fn regroup(
        &mut self,
        dispatcher: &Dispatcher,
        regroup: Regroup,
        live: BTreeMap<String, Vec<FileSlice>>,
        changes: &mut ChangeCursor,
    ) -> Result<()> {
        match regroup {
            Regroup::Again { files, ended } => {
                dispatcher.step(Step::Replace(ended))?;
                let mut partitions: BTreeMap<String, Vec<FileSlice>> = BTreeMap::new();
                for file in files {
                    partitions.entry(file.partition_path.clone()).or_default().push(file);
                }
                for (path, slices) in partitions {
                    let (units, _) = self.units(slices)?;
                    for Unit { slices, restore, .. } in units {
                        let (path, files): (Arc<str>, _) = (path.as_str().into(), self.open(&slices)?);
                        self.begin(dispatcher, &path, Vec::new(), self.cut_bytes(&slices), true)?;
                        self.rows(dispatcher, &path, &files, restore, None, changes)?;
                        dispatcher.step(Step::End)?;
                    }
                }
            }
            Regroup::SmallFiles => {
                for (path, slices) in live {
                    let (units, empty) = self.units(slices)?;
                    if !empty.is_empty() {
                        dispatcher.step(Step::Replace(empty))?;
                    }
                    for run in small_runs(units, self.target_bytes()) {
                        self.join(dispatcher, &path, run, changes)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The rows of neighbours in one file group, or as many as their sizes want.
    fn join(&mut self, dispatcher: &Dispatcher, path: &str, run: Vec<Unit>, changes: &mut ChangeCursor) -> Result<()> {
        let path: Arc<str> = path.into();
        let slices: Vec<FileSlice> = run.iter().flat_map(|unit| &unit.slices).cloned().collect();
        self.begin(dispatcher, &path, Vec::new(), self.cut_bytes(&slices), true)?;
        // only what overlaps or isn't sorted needs all of its files at once
        for units in run.chunk_by(|a, b| !a.restore && !b.restore) {
            let of: Vec<FileSlice> = units.iter().flat_map(|unit| &unit.slices).cloned().collect();
            let files = self.open(&of)?;
            match units.iter().any(|unit| unit.restore) {
                true => self.rows(dispatcher, &path, &files, true, None, changes)?,
                false => in_turn(self, dispatcher, &files)?,
            }
        }
        dispatcher.step(Step::End)?;
        dispatcher.step(Step::Replace(slices))
    }
}

/// Neighbours of at most half the target size each that together don't exceed it: so the next time they aren't among them. Files that overlap
/// or aren't sorted are, whatever their number.
fn small_runs(units: Vec<Unit>, target: u64) -> Vec<Vec<Unit>> {
    let mut runs: Vec<Vec<Unit>> = Vec::new();
    let (mut bytes, mut is_open) = (0, false);
    for unit in units {
        let own: u64 = unit.slices.iter().map(|slice| slice.file_bytes).sum();
        let is_small = own <= target / 2;
        match runs.last_mut().filter(|_| is_open && is_small && bytes + own <= target) {
            Some(run) => {
                run.push(unit);
                bytes += own;
            }
            None => {
                runs.push(vec![unit]);
                (bytes, is_open) = (own, is_small);
            }
        }
    }
    runs.retain(|run| run.len() > 1 || run.iter().any(|unit| unit.restore));
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_neighbours_go_together_and_a_second_time_nothing_does() {
        let runs = |sizes: &[(u64, bool)]| -> Vec<Vec<u64>> {
            let units = sizes.iter().enumerate().map(|(i, (bytes, restore))| {
                let slice = FileSlice::parse("", &format!("f{i}_0-0-0_20260101000000000.parquet"), *bytes).unwrap();
                Unit { slices: vec![slice], min: Box::new([]), restore: *restore }
            });
            let runs = small_runs(units.collect(), 100);
            runs.iter().map(|run| run.iter().map(|unit| unit.slices[0].file_bytes).collect()).collect()
        };
        let sorted = |sizes: &[u64]| runs(&sizes.iter().map(|bytes| (*bytes, false)).collect::<Vec<_>>());
        assert_eq!(sorted(&[10, 20, 30, 40, 5]), [[10, 20, 30, 40]], "5 more is too much, and has no neighbour");
        assert_eq!(sorted(&[50, 50, 1]), [[50, 50]]);
        assert_eq!(sorted(&[10, 90, 10, 90]), Vec::<Vec<u64>>::new(), "full ones aren't written again");
        assert_eq!(sorted(&[90, 10, 20, 90, 30, 30]), [[10, 20], [30, 30]]);
        assert_eq!(sorted(&[100, 51]), Vec::<Vec<u64>>::new());
        assert_eq!(runs(&[(90, true), (10, false)]), [[90]], "what isn't sorted is");
    }
}
