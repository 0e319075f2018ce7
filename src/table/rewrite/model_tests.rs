//! Random histories of commits against a model of forty lines: a map from (partition, key) to the row and the commit that last changed it.

use super::super::base_file::MAX_ROW_GROUP_ROWS;
use super::super::{FileSlice, InstantTime, SortedChanges, TableOptions};
use super::{KeyIndex, Regroup, RewriteInput, RewriteOutput, SharedColumns, rewrite};
use crate::error::Result;
use crate::table::partition_path::partition_path;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a row is: the columns besides key and partition.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) text: Option<String>,
    pub(super) number: Option<i64>,
    pub(super) added: Option<i32>,
    pub(super) commit: u32,
}

/// (partition value, first key column, second key column).
pub(super) type ModelKey = (Option<String>, i32, String);

#[derive(Debug, Clone)]
pub(super) enum Change {
    Upsert(Row),
    Delete,
}

/// A table in a memory store, without a timeline: `live` is what the last commit left.
pub(super) struct Harness {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) live: Vec<FileSlice>,
    field_ids: Option<String>,
    pub(super) index: KeyIndex,
    pub(super) columns: Option<SchemaRef>,
    pub(super) commits: u32,
    partitioned: bool,
    composite: bool,
    target: u64,
    pub(super) model: BTreeMap<(String, i32, String), (ModelKey, Row)>,
    wide: bool,
    added: bool,
    pub(super) shared: Option<Arc<SharedColumns>>,
    /// Whether the greater number is the newer row.
    pub(super) ordered: bool,
    /// What the next commit does in the place of changes.
    pub(super) regroup: Option<Regroup>,
}

pub(super) fn instant(commit: u32) -> InstantTime {
    InstantTime::parse(&format!("202601010000{commit:05}")).unwrap()
}

impl Harness {
    pub(super) fn new(partitioned: bool, composite: bool, target: u64) -> Self {
        Self {
            store: Arc::new(InMemory::new()),
            live: Vec::new(),
            field_ids: None,
            index: KeyIndex::default(),
            columns: None,
            commits: 0,
            partitioned,
            composite,
            target,
            model: BTreeMap::new(),
            wide: false,
            added: false,
            shared: None,
            ordered: false,
            regroup: None,
        }
    }

    pub(super) fn schema(&self) -> SchemaRef {
        let number = if self.wide { DataType::Int64 } else { DataType::Int32 };
        let mut fields = vec![
            Field::new("id", DataType::Int32, false),
            Field::new("sub", DataType::Utf8, !self.composite),
            Field::new("text", DataType::Utf8, true),
            Field::new("number", number, true),
        ];
        if self.added {
            fields.push(Field::new("added", DataType::Int32, true));
        }
        fields.push(Field::new("part", DataType::Utf8, true));
        Arc::new(Schema::new(fields))
    }

    fn path_of(&self, part: Option<&str>) -> String {
        if self.partitioned { partition_path(&["part".to_owned()], [part]) } else { String::new() }
    }

    fn batch(&self, rows: &[(&ModelKey, &Change)]) -> SortedChanges {
        let row = |change: &Change| match change {
            Change::Upsert(row) => Some(row.clone()),
            Change::Delete => None,
        };
        let number: ArrayRef = match self.wide {
            true => Arc::new(Int64Array::from_iter(rows.iter().map(|(_, c)| row(c).and_then(|row| row.number)))),
            false => {
                let narrow = |row: Row| row.number.map(|number| i32::try_from(number).unwrap());
                Arc::new(Int32Array::from_iter(rows.iter().map(|(_, c)| row(c).and_then(narrow))))
            }
        };
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|(key, _)| key.1))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|(key, _)| key.2.as_str()))),
            Arc::new(StringArray::from_iter(rows.iter().map(|(_, c)| row(c).and_then(|row| row.text)))),
            number,
        ];
        if self.added {
            columns.push(Arc::new(Int32Array::from_iter(rows.iter().map(|(_, c)| row(c).and_then(|row| row.added)))));
        }
        columns.push(Arc::new(StringArray::from_iter(rows.iter().map(|(key, _)| key.0.as_deref()))));
        SortedChanges {
            rows: RecordBatch::try_new(self.schema(), columns).unwrap(),
            is_delete: BooleanArray::from_iter(rows.iter().map(|(_, c)| Some(matches!(c, Change::Delete)))),
        }
    }

    pub(super) fn commit(
        &mut self,
        changes: Vec<(ModelKey, Change)>,
        batch_rows: usize,
        truncate: bool,
        fill: Option<RecordBatch>,
    ) -> RewriteOutput {
        self.try_commit(changes, batch_rows, truncate, fill).unwrap()
    }

    pub(super) fn try_commit(
        &mut self,
        changes: Vec<(ModelKey, Change)>,
        batch_rows: usize,
        truncate: bool,
        fill: Option<RecordBatch>,
    ) -> Result<RewriteOutput> {
        self.commits += 1;
        let mut sorted: BTreeMap<(String, i32, String), (ModelKey, Change)> = BTreeMap::new();
        for (key, change) in changes {
            let sub = if self.composite { key.2.clone() } else { String::new() };
            sorted.insert((self.path_of(key.0.as_deref()), key.1, sub), (key, change));
        }
        let rows: Vec<(&ModelKey, &Change)> = sorted.values().map(|(key, change)| (key, change)).collect();
        let batches: Vec<_> = rows.chunks(batch_rows.max(1)).map(|rows| Ok(self.batch(rows))).collect();
        let mut record_key = vec!["id".to_owned()];
        if self.composite {
            record_key.push("sub".to_owned());
        }
        let input = RewriteInput {
            sort_prefix: Vec::new(),
            copies_nothing: false,
            store: Arc::clone(&self.store),
            base: Path::from("lake/t"),
            table: "shop.t".to_owned(),
            record_key,
            partition_columns: if self.partitioned { vec!["part".to_owned()] } else { Vec::new() },
            options: TableOptions {
                target_file_bytes: self.target,
                retained_commits: 3,
                rewrite_threads: 2,
                memory_bytes: 64 << 20,
                writer_name: "test".to_owned(),
            },
            instant: instant(self.commits),
            previous_instant: (self.commits > 1).then(|| instant(self.commits - 1)),
            attempt: "0-0".to_owned(),
            columns: self.schema(),
            previous_columns: self.columns.clone(),
            replaced_columns: Vec::new(),
            fill,
            truncate,
            changes: Box::new(batches.into_iter()),
            ordering: self.ordered.then(|| "number".to_owned()),
            shared: self.shared.clone(),
            live: self.live.clone(),
            avro_schema: "{}".to_owned(),
            field_ids: self.field_ids.clone(),
            regroup: self.regroup.take(),
            index: self.index.clone(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let output = runtime.block_on(rewrite(input))?;
        self.columns = Some(self.schema());
        self.field_ids = Some(output.field_ids.clone());
        for stat in &output.stats {
            self.live.retain(|slice| Some(&slice.file_id) != stat.file_id.as_ref() || slice.partition_path != stat.partition_path);
            let path = stat.path.as_deref().unwrap();
            let name = path.rsplit('/').next().unwrap();
            self.live.push(FileSlice::parse(&stat.partition_path, name, stat.file_size_in_bytes).unwrap());
        }
        for (path, ids) in &output.replaced {
            self.live.retain(|slice| {
                slice.partition_path != *path || !ids.contains(&slice.file_id) || slice.instant == instant(self.commits)
            });
        }
        self.index.retain(&self.live);
        self.apply(sorted, truncate, &output);
        Ok(output)
    }

    /// The model's side of a commit; compares the counts.
    fn apply(&mut self, changes: BTreeMap<(String, i32, String), (ModelKey, Change)>, truncate: bool, output: &RewriteOutput) {
        if truncate {
            self.model.clear();
        }
        let (mut inserted, mut updated, mut deleted) = (0, 0, 0);
        for (place, (key, change)) in changes {
            match change {
                Change::Delete => deleted += u64::from(self.model.remove(&place).is_some()),
                Change::Upsert(mut row) => {
                    if self.ordered && self.model.get(&place).is_some_and(|(_, present)| row.number < present.number) {
                        continue;
                    }
                    row.commit = self.commits;
                    match self.model.insert(place, (key, row)) {
                        Some(_) => updated += 1,
                        None => inserted += 1,
                    }
                }
            }
        }
        assert_eq!((output.inserted, output.updated, output.deleted), (inserted, updated, deleted));
        let sum = |count: fn(&crate::table::WriteStat) -> u64| output.stats.iter().map(count).sum::<u64>();
        assert_eq!((sum(|stat| stat.num_inserts), sum(|stat| stat.num_update_writes)), (inserted, updated));
        assert!(sum(|stat| stat.num_deletes) <= deleted);
    }

    fn read(&self, slice: &FileSlice) -> RecordBatch {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let path = Path::parse(format!("lake/t/{}", slice.path())).unwrap();
        let bytes = runtime.block_on(async { self.store.get(&path).await.unwrap().bytes().await.unwrap() });
        assert_eq!(bytes.len() as u64, slice.file_bytes);
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
        let metadata = Arc::clone(reader.metadata());
        let schema = Arc::clone(reader.schema());
        let batches: Vec<RecordBatch> = reader.build().unwrap().map(|batch| batch.unwrap()).collect();
        let rows = concat_batches(&schema, &batches).unwrap();
        let counted: i64 = metadata.row_groups().iter().map(|row_group| row_group.num_rows()).sum();
        assert_eq!(counted, i64::try_from(rows.num_rows()).unwrap());
        rows
    }

    /// Reads all live files back and compares every cell with the model.
    pub(super) fn check(&self) {
        let mut seen = BTreeSet::new();
        let mut seqnos = BTreeSet::new();
        let mut rows_seen = 0;
        type Key = (i32, String);
        let mut ranges: BTreeMap<&str, Vec<(Key, Key)>> = BTreeMap::new();
        for slice in &self.live {
            let rows = self.read(slice);
            let text = |name: &str| rows.column_by_name(name).unwrap().as_string::<i32>().clone();
            let ids = rows.column_by_name("id").unwrap().as_primitive::<Int32Type>().clone();
            let (subs, texts, parts) = (text("sub"), text("text"), text("part"));
            let numbers = arrow::compute::cast(rows.column_by_name("number").unwrap(), &DataType::Int64).unwrap();
            let numbers = numbers.as_primitive::<Int64Type>().clone();
            let added = rows.column_by_name("added").map(|added| added.as_primitive::<Int32Type>().clone());
            let mut last: Option<(i32, String)> = None;
            for row in 0..rows.num_rows() {
                let sub = if self.composite { subs.value(row).to_owned() } else { String::new() };
                let part = parts.is_valid(row).then(|| parts.value(row).to_owned());
                let place = (slice.partition_path.clone(), ids.value(row), sub.clone());
                let (_, expected) = self.model.get(&place).unwrap_or_else(|| panic!("row {place:?} is not in the model"));
                let found = Row {
                    text: texts.is_valid(row).then(|| texts.value(row).to_owned()),
                    number: numbers.is_valid(row).then(|| numbers.value(row)),
                    added: added.as_ref().and_then(|added| added.is_valid(row).then(|| added.value(row))),
                    commit: expected.commit,
                };
                assert_eq!(found, *expected, "{place:?}");
                assert_eq!(text("_hoodie_commit_time").value(row), instant(expected.commit).as_str());
                let seqno = text("_hoodie_commit_seqno").value(row).to_owned();
                assert!(seqno.starts_with(instant(expected.commit).as_str()) && seqnos.insert(seqno));
                let key = if self.composite { format!("id:{},sub:{}", place.1, empty(&sub)) } else { place.1.to_string() };
                assert_eq!(text("_hoodie_record_key").value(row), key);
                assert_eq!(text("_hoodie_partition_path").value(row), slice.partition_path);
                assert_eq!(self.path_of(part.as_deref()), slice.partition_path);
                assert_eq!(text("_hoodie_file_name").value(row), slice.file_name);
                let here = (ids.value(row), sub);
                assert!(last.as_ref().is_none_or(|last| *last < here), "not sorted");
                if row == 0 {
                    ranges.entry(&slice.partition_path).or_default().push((here.clone(), here.clone()));
                }
                last = Some(here.clone());
                ranges.get_mut(slice.partition_path.as_str()).unwrap().last_mut().unwrap().1 = here;
                assert!(seen.insert(place));
            }
            rows_seen += rows.num_rows();
        }
        assert_eq!(rows_seen, self.model.len());
        for ranges in ranges.values_mut() {
            ranges.sort();
            assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0), "file groups overlap");
        }
    }
}

fn empty(text: &str) -> &str {
    if text.is_empty() { "__empty__" } else { text }
}

fn change() -> impl Strategy<Value = Change> {
    let row = (proptest::option::of("[a-zü]{0,20}"), proptest::option::of(any::<i32>()), proptest::option::of(any::<i32>()));
    let row = row.prop_map(|(text, number, added)| Row { text, number: number.map(i64::from), added, commit: 0 });
    prop_oneof![3 => row.prop_map(Change::Upsert), 1 => Just(Change::Delete)]
}

fn changes() -> impl Strategy<Value = Vec<(ModelKey, Change)>> {
    let part = prop_oneof![Just(None), Just(Some("a".to_owned())), Just(Some("b/c".to_owned()))];
    let key = prop_oneof![0..40_i32, -5..400_i32, any::<i32>()];
    proptest::collection::vec(((part, key, "[ab]{0,2}"), change()), 0..120)
}

#[derive(Debug, Clone)]
enum Act {
    Commit { changes: Vec<(ModelKey, Change)>, batch_rows: usize, truncate: bool },
    AddColumn { fill: Option<i32> },
    Widen,
}

fn act() -> impl Strategy<Value = Act> {
    let commit = (changes(), 1..80_usize, proptest::bool::weighted(0.05));
    prop_oneof![
        8 => commit.prop_map(|(changes, batch_rows, truncate)| Act::Commit { changes, batch_rows, truncate }),
        1 => proptest::option::of(any::<i32>()).prop_map(|fill| Act::AddColumn { fill }),
        1 => Just(Act::Widen),
    ]
}

fn cases() -> u32 {
    std::env::var("BINLAKE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(32)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn any_history_gives_the_models_table(
        partitioned in any::<bool>(),
        composite in any::<bool>(),
        target in prop_oneof![Just(1_u64), Just(6_000), Just(1 << 20)],
        acts in proptest::collection::vec(act(), 1..10),
    ) {
        let mut table = Harness::new(partitioned, composite, target);
        for act in acts {
            match act {
                Act::Commit { changes, batch_rows, truncate } => _ = table.commit(changes, batch_rows, truncate, None),
                Act::AddColumn { fill } if !table.added => {
                    let before = table.columns.clone();
                    table.added = true;
                    let row = fill.map(|value| RecordBatch::try_from_iter([("added", Arc::new(Int32Array::from(vec![value])) as ArrayRef)]).unwrap());
                    if before.is_some() && fill.is_some() {
                        table.model.values_mut().for_each(|(_, row)| row.added = fill);
                    } else {
                        table.model.values_mut().for_each(|(_, row)| row.added = None);
                    }
                    table.commit(Vec::new(), 1, false, row);
                }
                Act::Widen if !table.wide => {
                    table.wide = true;
                    table.commit(Vec::new(), 1, false, None);
                }
                _ => {}
            }
            if !table.added {
                table.model.values_mut().for_each(|(_, row)| row.added = None);
            }
            table.check();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    /// A few changes among many rows: pages are spliced, dictionaries grow.
    #[test]
    fn sparse_changes_give_the_models_table(
        composite in any::<bool>(),
        step in 1..7_i32,
        commits in proptest::collection::vec(proptest::collection::vec((0..3_000_i32, "[ab]{0,1}", change()), 1..12), 1..8),
        words in proptest::bool::ANY,
    ) {
        let mut table = Harness::new(false, composite, 25_000);
        let mut rows = upserts((0..1_000).map(|i| i * step), 1);
        for (key, change) in &mut rows {
            if let (true, Change::Upsert(row)) = (words, change) {
                row.text = (key.1 % 5 > 0).then(|| ["one", "two", "three"][key.1 as usize % 3].to_owned());
                row.number = Some(i64::from(key.1 % 7));
            }
        }
        table.commit(rows, 300, false, None);
        for changes in commits {
            let mut changes: Vec<_> = changes.into_iter().map(|(id, sub, change)| ((None, id, sub), change)).collect();
            for (_, change) in &mut changes {
                if let Change::Upsert(row) = change {
                    row.added = None;
                }
            }
            table.commit(changes, 5, false, None);
            table.check();
        }
    }
}

pub(super) fn upserts(ids: impl Iterator<Item = i32>, number: i64) -> Vec<(ModelKey, Change)> {
    let row = |id: i32| Row { text: Some(format!("text of {id} in {number}")), number: Some(number), added: None, commit: 0 };
    ids.map(|id| ((None, id, "x".to_owned()), Change::Upsert(row(id)))).collect()
}

#[test]
fn appended_keys_touch_the_last_file_group_only() {
    let mut table = Harness::new(false, false, 60_000);
    table.commit(upserts(0..6_000, 1), 700, false, None);
    assert!(table.live.len() > 2);
    let before = table.live.clone();
    let output = table.commit(upserts(6_000..6_100, 2), 7_000, false, None);
    assert_eq!(output.stats.len(), 1);
    assert_eq!(output.stats[0].file_id, before.iter().map(|slice| Some(slice.file_id.clone())).next_back().unwrap());
    table.check();
}

#[test]
fn more_changes_than_a_job_may_hold_go_between_two_rows() {
    let mut table = Harness::new(false, false, 1 << 30);
    table.commit(upserts([0, 5_000_000].into_iter(), 1), 10, false, None);
    let count = i32::try_from(MAX_ROW_GROUP_ROWS * 2 + 77).unwrap();
    table.commit(upserts(10..count, 2), 50_000, false, None);
    table.check();
    let deletes = (5..count).map(|id| ((None, id, "x".to_owned()), Change::Delete)).collect();
    let output = table.commit(deletes, 50_000, false, None);
    assert_eq!(output.deleted, u64::try_from(count - 10).unwrap());
    table.check();
}

#[test]
fn a_group_without_rows_ends_and_deletes_of_nothing_write_nothing() {
    let mut table = Harness::new(true, false, 1 << 20);
    table.commit(upserts(0..10, 1), 10, false, None);
    let nothing = table.commit(vec![((None, 77, String::new()), Change::Delete)], 1, false, None);
    assert!(nothing.stats.is_empty() && nothing.replaced.is_empty());
    let all = (0..10).map(|id| ((None, id, String::new()), Change::Delete)).collect();
    let output = table.commit(all, 3, false, None);
    assert!(output.stats.is_empty());
    assert_eq!(output.replaced.values().map(Vec::len).sum::<usize>(), 1);
    assert!(table.live.is_empty());
    table.commit(upserts(3..5, 2), 10, false, None);
    table.check();
}
