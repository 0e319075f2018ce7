//! Files of other writers, and damaged ones.

use super::Regroup;
use super::model_tests::{Change, Harness, ModelKey, Row, instant, upserts};
use crate::error::Kind;
use crate::table::FileSlice;
use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::ArrowWriter;
use std::sync::Arc;

impl Harness {
    /// A file as another writer leaves it: nothing of ours in the footer, rows in any order.
    fn foreign(&mut self, file_id: &str, ids: &[i32]) {
        self.commits += 1;
        let name = format!("{file_id}_1-2-3_{}.parquet", instant(self.commits));
        let text =
            |value: &dyn Fn(i32) -> String| Arc::new(StringArray::from_iter_values(ids.iter().map(|id| value(*id)))) as ArrayRef;
        let commit = self.commits;
        let rows = RecordBatch::try_from_iter([
            ("_hoodie_commit_time", text(&|_| instant(commit).to_string())),
            ("_hoodie_commit_seqno", text(&|id| format!("{}_9_{id}", instant(commit)))),
            ("_hoodie_record_key", text(&|id| id.to_string())),
            ("_hoodie_partition_path", text(&|_| String::new())),
            ("_hoodie_file_name", text(&|_| name.clone())),
            ("id", Arc::new(Int32Array::from(ids.to_vec())) as ArrayRef),
            ("sub", text(&|_| "x".to_owned())),
            ("text", text(&|id| format!("foreign {id}"))),
            ("number", Arc::new(Int32Array::from(ids.to_vec())) as ArrayRef),
            ("part", Arc::new(StringArray::from(vec![None::<&str>; ids.len()])) as ArrayRef),
        ])
        .unwrap();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), None).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
        let slice = FileSlice::parse("", &name, bytes.len() as u64).unwrap();
        self.put(&slice, bytes);
        self.live.retain(|old| old.file_id != slice.file_id);
        self.live.push(slice);
        for id in ids {
            let row = Row { text: Some(format!("foreign {id}")), number: Some(i64::from(*id)), added: None, commit };
            self.model.insert((String::new(), *id, String::new()), ((None, *id, "x".to_owned()), row));
        }
        self.columns = Some(self.schema());
    }

    fn put(&self, slice: &FileSlice, bytes: Vec<u8>) {
        let path = Path::parse(format!("lake/t/{}", slice.path())).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.store.put(&path, bytes.into())).unwrap();
    }

    fn bytes(&self, slice: &FileSlice) -> Vec<u8> {
        let path = Path::parse(format!("lake/t/{}", slice.path())).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { self.store.get(&path).await.unwrap().bytes().await.unwrap().to_vec() })
    }
}

fn delete(id: i32) -> (ModelKey, Change) {
    ((None, id, "x".to_owned()), Change::Delete)
}

#[test]
fn overlapping_and_unsorted_files_of_another_writer_are_restored() {
    let mut table = Harness::new(false, false, 1 << 20);
    table.commit(upserts((0..500).map(|i| i * 2), 1), 100, false, None);
    table.commit(upserts((2_000..2_100).map(|i| i * 2), 1), 100, false, None);
    let mut ids: Vec<i32> = (0..400).map(|i| i * 5 % 997 * 2 + 1).collect();
    table.foreign("aaaaaaaa-0", &ids);
    let mut changes = upserts([3, 4, 5_000].into_iter(), 3);
    changes.push(delete(ids[7]));
    changes.push(delete(6));
    table.commit(changes, 2, false, None);
    // sorted and disjoint now: `check` looks at both
    table.check();
    ids.reverse();
    table.commit(upserts(ids.into_iter().step_by(50), 4), 10, false, None);
    table.check();
}

#[test]
fn clustering_joins_ours_with_another_writers_and_sorts_them() {
    let mut table = Harness::new(false, false, 1 << 20);
    table.commit(upserts((0..500).map(|i| i * 2), 1), 100, false, None);
    table.foreign("aaaaaaaa-0", &(0..400).map(|i| i * 5 % 997 * 2 + 1).collect::<Vec<_>>());
    table.foreign("cccccccc-0", &[9_002, 9_000, 9_001]);
    table.foreign("dddddddd-0", &(10_000..10_300).collect::<Vec<_>>());
    table.foreign("eeeeeeee-0", &(11_000..11_300).collect::<Vec<_>>());
    table.regroup = Some(Regroup::SmallFiles);
    let output = table.commit(Vec::new(), 1, false, None);
    assert_eq!((table.live.len(), output.stats.len(), output.replaced[""].len()), (1, 1, 5));
    table.check();
    table.commit(upserts([3, 9_001, 10_500, 12_000].into_iter(), 3), 2, false, None);
    assert_eq!(table.live.len(), 1);
    table.check();
}

#[test]
fn a_file_that_another_writer_appended_to_is_sorted_at_the_first_touch() {
    let mut table = Harness::new(false, false, 1 << 20);
    table.foreign("bbbbbbbb-0", &[5, 9, 12, 7, 1, 20]);
    let output = table.commit(upserts([8].into_iter(), 2), 1, false, None);
    assert_eq!(output.stats[0].file_id.as_ref().map(|id| id.as_str()), Some("bbbbbbbb-0"));
    table.check();
}

#[test]
fn a_sorted_file_of_another_writer_and_one_of_ours_that_it_replaces() {
    let mut table = Harness::new(false, false, 1 << 20);
    table.commit(upserts(0..50, 1), 100, false, None);
    let id = table.live[0].file_id.clone();
    table.foreign(id.as_str(), &(0..50).collect::<Vec<_>>());
    table.commit(upserts(10..12, 2), 100, false, None);
    table.check();
    table.commit(upserts(11..13, 2), 100, false, None);
    table.check();
}

#[test]
fn a_damaged_file_is_corrupt_and_named() {
    let whole = {
        let mut table = Harness::new(false, false, 1 << 20);
        table.commit(upserts(0..150, 1), 100, false, None);
        table
    };
    let slice = whole.live[0].clone();
    let bytes = whole.bytes(&slice);
    let footer = bytes.len() - 8 - u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().unwrap()) as usize;
    type Damage = Box<dyn Fn(&mut Vec<u8>)>;
    let damages: [(&str, Damage); 4] = [
        ("cut off", Box::new(|bytes| bytes.truncate(bytes.len() / 2))),
        ("empty", Box::new(Vec::clear)),
        ("footer", Box::new(move |bytes| bytes[footer..footer + 60].fill(0xff))),
        ("pages", Box::new(move |bytes| bytes[4..footer / 2].fill(0xff))),
    ];
    for (name, damage) in damages {
        let mut damaged = bytes.clone();
        damage(&mut damaged);
        let mut table = Harness::new(false, false, 1 << 20);
        table.commit(upserts(0..150, 1), 100, false, None);
        let slice = table.live[0].clone();
        if name != "cut off" {
            table.live[0].file_bytes = damaged.len() as u64;
        }
        table.put(&slice, damaged);
        // the range of keys must not come from memory
        table.index = super::KeyIndex::default();
        let error = table.try_commit(upserts(10..12, 2), 10, false, None).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{name}: {error}");
        assert!(error.to_string().contains(&slice.file_name), "{name}: {error}");
    }
}

#[test]
fn a_byte_that_changed_is_either_copied_or_corrupt_never_a_bug() {
    let mut state = 1_u64;
    for _ in 0..150 {
        let mut table = Harness::new(false, false, 1 << 20);
        table.commit(upserts(0..150, 1), 100, false, None);
        let slice = table.live[0].clone();
        let mut bytes = table.bytes(&slice);
        let footer = bytes.len() - 8 - u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().unwrap()) as usize;
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = 4 + (state >> 33) as usize % (footer - 4);
        bytes[at] ^= 1 << (state >> 30 & 7);
        table.put(&slice, bytes);
        if let Err(error) = table.try_commit(upserts([3, 70, 200].into_iter(), 2), 10, false, None) {
            assert_eq!(error.kind(), Kind::Corrupt, "{at}: {error}");
            assert!(error.to_string().contains(&slice.file_name), "{at}: {error}");
        }
    }
}
