//! Which base files count: all files of a table by file group, and the rule by which the timeline makes them visible. Pure.

use super::commit_metadata::CommitMetadata;
use super::timeline::Timeline;
use super::{FileId, FileSlice, InstantTime};
use std::collections::{BTreeMap, BTreeSet};

/// A file group: partition path and id.
pub(super) type GroupKey = (String, FileId);

/// The files of one slice, by name: one, but for what a failed task of Spark's, or a session that was fenced, left beside it.
type Files = BTreeMap<String, FileSlice>;

/// All base files of a table, whether they count or not, and which file groups have ended.
#[derive(Debug, Clone, Default)]
pub(super) struct FileGroups {
    /// The slices of each group by instant.
    groups: BTreeMap<GroupKey, BTreeMap<InstantTime, Files>>,
    /// When each group that ended did so.
    replaced: BTreeMap<GroupKey, InstantTime>,
}

impl FileGroups {
    /// Adds a base file.
    pub(super) fn insert(&mut self, slice: FileSlice) {
        let slices = self.groups.entry((slice.partition_path.clone(), slice.file_id.clone())).or_default();
        slices.entry(slice.instant.clone()).or_default().insert(slice.file_name.clone(), slice);
    }

    /// Forgets base files.
    pub(super) fn remove<'a>(&mut self, slices: impl IntoIterator<Item = &'a FileSlice>) {
        for slice in slices {
            let key = (slice.partition_path.clone(), slice.file_id.clone());
            let Some(group) = self.groups.get_mut(&key) else { continue };
            if let Some(files) = group.get_mut(&slice.instant) {
                files.remove(&slice.file_name);
                if files.is_empty() {
                    group.remove(&slice.instant);
                }
            }
            if group.is_empty() {
                self.groups.remove(&key);
            }
        }
    }

    /// Takes in what a completed commit says: which groups ended, and, where `adds_files`, which files it wrote.
    pub(super) fn apply(&mut self, instant: &InstantTime, commit: &CommitMetadata, adds_files: bool) {
        for (partition, id) in commit.replaced() {
            let ended = self.replaced.entry((partition.to_owned(), id.clone())).or_insert_with(|| instant.clone());
            *ended = ended.clone().min(instant.clone());
        }
        if adds_files {
            for (partition, stat) in commit.stats() {
                let name = stat.path.as_deref().and_then(|path| path.rsplit('/').next());
                if let Some(slice) = name.and_then(|name| FileSlice::parse(partition, name, stat.file_size_in_bytes)) {
                    self.insert(slice);
                }
            }
        }
    }

    /// The slices that hold the table's rows, as of an instant (inclusive) or now; ordered by partition and file id.
    pub(super) fn live(&self, timeline: &Timeline, as_of: Option<&InstantTime>) -> Vec<FileSlice> {
        let counts = Counts::of(timeline);
        let until = |time: &InstantTime| as_of.is_none_or(|as_of| time <= as_of);
        let groups = self.groups.iter().filter(|(key, _)| !self.replaced.get(*key).is_some_and(until));
        groups
            .filter_map(|(_, slices)| {
                let newest = slices.iter().rev().find(|(time, _)| until(time) && counts.committed(time));
                newest.and_then(|(_, files)| files.values().next_back()).cloned()
            })
            .collect()
    }

    /// Files that count no more, given that queries as of `earliest_retained` and later must stay possible, and never one in `kept_files`.
    ///
    /// Of each group that lives, the newest slice *before* `earliest_retained` stays too, as Hudi keeps it: a reader that began
    /// just before has it open.
    pub(super) fn to_clean(
        &self,
        timeline: &Timeline,
        earliest_retained: &InstantTime,
        kept_files: &BTreeSet<String>,
    ) -> Vec<FileSlice> {
        let counts = Counts::of(timeline);
        let mut files = Vec::new();
        for (key, slices) in &self.groups {
            let ended = self.replaced.get(key).is_some_and(|replaced| replaced < earliest_retained);
            let committed = slices.iter().rev().filter(|(time, _)| counts.committed(time));
            let before = committed.filter(|(time, _)| ended || *time < earliest_retained);
            let old = before.skip(usize::from(!ended)).flat_map(|(_, files)| files.values());
            files.extend(old.filter(|slice| !kept_files.contains(&slice.path())).cloned());
        }
        files
    }

    /// All files of the groups that ended at or before `instant`.
    pub(super) fn ended_by(&self, instant: &InstantTime) -> Vec<FileSlice> {
        let ended = self.replaced.iter().filter(|(_, replaced)| *replaced <= instant);
        ended.filter_map(|(key, _)| self.groups.get(key)).flat_map(BTreeMap::values).flat_map(Files::values).cloned().collect()
    }

    /// Forgets which groups ended, of those that have no files any more.
    pub(super) fn forget_ended(&mut self) {
        let groups = &self.groups;
        self.replaced.retain(|key, _| groups.contains_key(key));
    }

    /// Files whose instant neither counts as committed nor is under way: what a crash left.
    pub(super) fn orphans(&self, timeline: &Timeline) -> Vec<FileSlice> {
        let counts = Counts::of(timeline);
        let pending: BTreeSet<&InstantTime> = timeline.pending().map(|(time, _, _)| time).collect();
        let orphaned = |slice: &&FileSlice| !counts.committed(&slice.instant) && !pending.contains(&slice.instant);
        self.groups.values().flat_map(BTreeMap::values).flat_map(Files::values).filter(orphaned).cloned().collect()
    }

    /// Files of slices that have more than one: only the commit can say which of them counts.
    pub(super) fn doubled(&self) -> Vec<FileSlice> {
        let files = self.groups.values().flat_map(BTreeMap::values).filter(|files| files.len() > 1);
        files.flat_map(Files::values).cloned().collect()
    }

    /// Files that an instant wrote.
    pub(super) fn written_by(&self, instant: &InstantTime) -> Vec<FileSlice> {
        self.groups.values().filter_map(|slices| slices.get(instant)).flat_map(Files::values).cloned().collect()
    }
}

/// The timeline's verdict on instants, made once.
struct Counts<'a> {
    start: Option<&'a InstantTime>,
    commits: BTreeSet<&'a InstantTime>,
}

impl<'a> Counts<'a> {
    fn of(timeline: &'a Timeline) -> Self {
        Self { start: timeline.start(), commits: timeline.commits().map(|(time, _)| time).collect() }
    }

    fn committed(&self, time: &InstantTime) -> bool {
        self.commits.contains(time) || self.start.is_some_and(|start| time < start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(day: u8) -> InstantTime {
        InstantTime::parse(&format!("202601{day:02}000000000")).unwrap()
    }

    fn slice(id: &str, day: u8) -> FileSlice {
        FileSlice::parse("", &format!("{id}_0-0-0_{}.parquet", time(day)), 1).unwrap()
    }

    fn timeline(names: &[(u8, &str)]) -> Timeline {
        let names: Vec<String> = names.iter().map(|(day, suffix)| format!("{}.{suffix}", time(*day))).collect();
        Timeline::from_names(names.iter().map(String::as_str))
    }

    fn groups(files: &[(&str, u8)]) -> FileGroups {
        let mut groups = FileGroups::default();
        files.iter().for_each(|(id, day)| groups.insert(slice(id, *day)));
        groups
    }

    fn names(slices: Vec<FileSlice>) -> Vec<(String, u8)> {
        let day = |slice: &FileSlice| slice.instant.as_str()[6..8].parse().unwrap();
        slices.iter().map(|slice| (slice.file_id.to_string(), day(slice))).collect()
    }

    fn of(list: &[(&str, u8)]) -> Vec<(String, u8)> {
        list.iter().map(|(id, day)| ((*id).to_owned(), *day)).collect()
    }

    #[test]
    fn the_newest_committed_slice_counts() {
        let groups = groups(&[("a", 1), ("a", 2), ("a", 3), ("b", 2), ("c", 3)]);
        let timeline = timeline(&[(1, "commit"), (2, "commit"), (3, "inflight"), (3, "commit.requested")]);
        assert_eq!(names(groups.live(&timeline, None)), of(&[("a", 2), ("b", 2)]));
        assert_eq!(names(groups.live(&timeline, Some(&time(1)))), of(&[("a", 1)]));
        assert!(groups.orphans(&timeline).is_empty(), "what is under way is no orphan");
        assert_eq!(names(groups.written_by(&time(3))), of(&[("a", 3), ("c", 3)]));
    }

    #[test]
    fn a_replaced_group_is_gone_from_its_instant_on() {
        let mut groups = groups(&[("a", 1), ("b", 1), ("c", 2)]);
        let ended = Some(BTreeMap::from([(String::new(), vec![FileId::from_stored("a")])]));
        let replace = CommitMetadata { partition_to_replace_file_ids: ended, ..CommitMetadata::default() };
        groups.apply(&time(2), &replace, true);
        let timeline = timeline(&[(1, "commit"), (2, "replacecommit")]);
        assert_eq!(names(groups.live(&timeline, None)), of(&[("b", 1), ("c", 2)]));
        assert_eq!(names(groups.live(&timeline, Some(&time(1)))), of(&[("a", 1), ("b", 1)]));
        assert_eq!(names(groups.ended_by(&time(2))), of(&[("a", 1)]));
        assert!(groups.to_clean(&timeline, &time(2), &BTreeSet::new()).is_empty());
        assert_eq!(names(groups.to_clean(&timeline, &time(3), &BTreeSet::new())), of(&[("a", 1)]));
    }

    #[test]
    fn cleaning_keeps_what_the_retained_instants_need() {
        let groups = groups(&[("a", 1), ("a", 2), ("a", 3), ("a", 4), ("b", 1), ("c", 1), ("c", 2)]);
        let timeline = timeline(&[(1, "commit"), (2, "commit"), (3, "commit"), (4, "commit")]);
        assert_eq!(names(groups.to_clean(&timeline, &time(4), &BTreeSet::new())), of(&[("a", 2), ("a", 1), ("c", 1)]));
        let savepoint = BTreeSet::from([slice("a", 2).path()]);
        assert_eq!(names(groups.to_clean(&timeline, &time(4), &savepoint)), of(&[("a", 1), ("c", 1)]));
    }

    #[test]
    fn a_slice_may_have_two_files() {
        let mut groups = groups(&[("a", 1), ("b", 1)]);
        let second = FileSlice::parse("", &format!("a_0-0-1_{}.parquet", time(1)), 1).unwrap();
        groups.insert(second.clone());
        assert_eq!(groups.doubled().len(), 2);
        assert_eq!(groups.written_by(&time(1)).len(), 3);
        groups.remove([&second]);
        assert!(groups.doubled().is_empty());
        assert_eq!(names(groups.live(&timeline(&[(1, "commit")]), None)), of(&[("a", 1), ("b", 1)]));
    }

    #[test]
    fn files_of_an_instant_that_is_nowhere_are_orphans() {
        let groups = groups(&[("a", 1), ("a", 4), ("b", 3)]);
        let timeline = timeline(&[(2, "commit"), (3, "commit")]);
        assert_eq!(names(groups.orphans(&timeline)), of(&[("a", 4)]));
        assert_eq!(names(groups.live(&timeline, None)), of(&[("a", 1), ("b", 3)]));
    }
}
