//! The writer: row groups, in order, to base files.

use super::super::base_file::{
    FileLayout, FileUpload, KEY_RANGES, KeyRanges, MetaColumn, UploadBuffer, constant_chunk, parquet_error,
};
use super::super::file_group::{FileKeys, Key, KeyIndex, file_path};
use super::super::{FileId, FileSlice, InstantTime, RuntimeStats, WriteStat};
use super::RewriteOutput;
use super::job::{EncodedRowGroup, JobOutput};
use super::pool::Ordered;
use crate::error::{Error, Result};
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;
use tokio::runtime::Handle;

/// What the writer does between jobs.
#[derive(Debug)]
pub(super) enum Step {
    /// The row groups from here on belong together: one file group, or several whose rows are being sorted into new ones.
    Begin(Group),
    /// All row groups of the group have come.
    End,
    /// These slices end, with all their rows.
    Replace(Vec<FileSlice>),
    /// The planner failed.
    Abandon,
}

/// Where row groups go.
#[derive(Debug)]
pub(super) struct Group {
    /// The partition's path.
    pub(super) partition_path: Arc<str>,
    /// The slices that are rewritten; their file groups go on with the new files, in order, and end where there are fewer.
    pub(super) old: Vec<FileSlice>,
    /// The size from which a file is closed and the next begun.
    pub(super) cut_bytes: u64,
    /// Whether the files are needed even if no row has changed.
    pub(super) must_write: bool,
}

/// What the writer has to know.
pub(super) struct Writer {
    pub(super) runtime: Handle,
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) base: Path,
    pub(super) table: String,
    pub(super) layout: Arc<FileLayout>,
    pub(super) instant: InstantTime,
    pub(super) previous_instant: Option<InstantTime>,
    pub(super) attempt: String,
    pub(super) avro_schema: String,
    pub(super) index: KeyIndex,
    pub(super) output: RewriteOutput,
    pub(super) files: u32,
}

/// A group under way.
struct OpenGroup {
    group: Group,
    old: VecDeque<FileSlice>,
    file: Option<OpenFile>,
    /// Finished files of the group.
    finished: usize,
    /// Counts that no file has taken yet.
    inserted: u64,
    updated: u64,
    deleted: u64,
}

/// A file under way.
struct OpenFile {
    slice: FileSlice,
    prev: Option<InstantTime>,
    writer: SerializedFileWriter<UploadBuffer>,
    upload: FileUpload,
    rows: u64,
    inserted: u64,
    updated: u64,
    deleted: u64,
    ranges: Vec<RecordBatch>,
    keys: (Key, Key),
    /// Least and greatest record key as text; `None` if a row group's is not known exactly.
    record_keys: Option<(Vec<u8>, Vec<u8>)>,
    started: Instant,
}

impl Writer {
    /// Receives until the end.
    pub(super) fn run(mut self, steps: Receiver<Ordered>) -> Result<RewriteOutput> {
        let mut open: Option<OpenGroup> = None;
        for step in steps {
            match step {
                Ordered::Step(Step::Begin(mut group)) => {
                    let old = VecDeque::from(std::mem::take(&mut group.old));
                    open = Some(OpenGroup { group, old, file: None, finished: 0, inserted: 0, updated: 0, deleted: 0 });
                }
                Ordered::Step(Step::End) => {
                    if let Some(group) = open.take() {
                        self.end(group)?;
                    }
                }
                Ordered::Step(Step::Replace(slices)) => {
                    for slice in slices {
                        self.replace(slice);
                    }
                }
                Ordered::Step(Step::Abandon) => {
                    if let Some(file) = open.and_then(|group| group.file) {
                        file.upload.abort();
                    }
                    return Err(Error::bug("the rewrite was abandoned"));
                }
                Ordered::Job(output, rest_bytes) => {
                    let output = output.recv().map_err(|_| Error::bug("a rewrite job panicked")).flatten();
                    let done = match (&mut open, output) {
                        (Some(group), Ok(output)) => self.append(group, output, rest_bytes),
                        (None, Ok(_)) => Err(Error::bug("row groups without a file group")),
                        (_, Err(error)) => Err(error),
                    };
                    if let Err(error) = done {
                        if let Some(file) = open.and_then(|group| group.file) {
                            file.upload.abort();
                        }
                        return Err(error);
                    }
                }
            }
        }
        Ok(self.output)
    }

    fn append(&mut self, group: &mut OpenGroup, output: JobOutput, rest_bytes: u64) -> Result<()> {
        group.inserted += output.inserted;
        group.updated += output.updated;
        group.deleted += output.deleted;
        for row_group in output.row_groups {
            // a file is not cut where only a crumb would be left for the next
            if let Some(file) = group.file.take_if(|file| {
                file.writer.bytes_written() as u64 >= group.group.cut_bytes && rest_bytes > group.group.cut_bytes / 4
            }) {
                self.finish(file)?;
                group.finished += 1;
            }
            let mut file = match group.file.take() {
                Some(file) => file,
                None => self.open(group, &row_group)?,
            };
            file.inserted += std::mem::take(&mut group.inserted);
            file.updated += std::mem::take(&mut group.updated);
            file.deleted += std::mem::take(&mut group.deleted);
            let appended = self.append_row_group(&mut file, row_group);
            group.file = Some(file);
            appended?;
        }
        Ok(())
    }

    fn open(&mut self, group: &mut OpenGroup, first: &EncodedRowGroup) -> Result<OpenFile> {
        let (file_id, prev) = match group.old.pop_front() {
            Some(old) => (old.file_id, Some(old.instant)),
            None => {
                let path = &group.group.partition_path;
                (FileId::derive(&self.table, path, self.previous_instant.as_ref(), &first.keys.0), None)
            }
        };
        let token = format!("{}-{}", self.files, self.attempt);
        self.files += 1;
        let slice = FileSlice {
            partition_path: group.group.partition_path.as_ref().to_owned(),
            file_name: FileSlice::name(&file_id, &token, &self.instant),
            file_id,
            instant: self.instant.clone(),
            file_bytes: 0,
        };
        let path = file_path(&self.base, &slice);
        let properties = WriterProperties::builder()
            // parquet-mr reads it by a pattern, to know whose statistics it can trust
            .set_created_by(concat!("binlake version ", env!("CARGO_PKG_VERSION"), " (build parquet-rs)").to_owned())
            .set_sorting_columns(Some(self.layout.sorting()))
            .build();
        let root = self.layout.parquet.root_schema_ptr();
        let writer = SerializedFileWriter::new(UploadBuffer::default(), root, Arc::new(properties))
            .map_err(|error| parquet_error(error, &path))?;
        Ok(OpenFile {
            prev,
            writer,
            upload: FileUpload::new(self.runtime.clone(), Arc::clone(&self.store), path),
            slice,
            rows: 0,
            inserted: 0,
            updated: 0,
            deleted: 0,
            ranges: Vec::new(),
            keys: first.keys.clone(),
            record_keys: Some((Vec::new(), Vec::new())),
            started: Instant::now(),
        })
    }

    fn append_row_group(&self, file: &mut OpenFile, row_group: EncodedRowGroup) -> Result<()> {
        let EncodedRowGroup { columns, rows, range, keys } = row_group;
        let path = constant_chunk(&self.layout.meta(MetaColumn::PartitionPath), &file.slice.partition_path, rows)?;
        let name = constant_chunk(&self.layout.meta(MetaColumn::FileName), &file.slice.file_name, rows)?;
        let mut columns = columns.into_iter();
        let kept: Vec<_> = columns.by_ref().take(3).collect();
        let record_keys = kept.last().and_then(|column| {
            let statistics = column.close().metadata.statistics()?;
            let exact = statistics.min_is_exact() && statistics.max_is_exact();
            exact.then(|| Some((statistics.min_bytes_opt()?.to_vec(), statistics.max_bytes_opt()?.to_vec())))?
        });
        file.record_keys = match (file.record_keys.take(), record_keys) {
            (Some(_), Some(found)) if file.rows == 0 => Some(found),
            (Some((min, max)), Some(found)) => Some((min.min(found.0), max.max(found.1))),
            _ => None,
        };
        let unexpected = |error: ParquetError| Error::bug("a row group can't be written").caused_by(error);
        let mut writer = file.writer.next_row_group().map_err(unexpected)?;
        for column in kept.into_iter().chain([path, name]).chain(columns) {
            column.append_to(&mut writer).map_err(unexpected)?;
        }
        writer.close().map_err(unexpected)?;
        file.rows += rows as u64;
        file.ranges.push(range);
        file.keys.1 = keys.1;
        file.upload.hand_over(file.writer.inner_mut())
    }

    fn finish(&mut self, file: OpenFile) -> Result<()> {
        let OpenFile { mut slice, prev, mut writer, upload, ranges, keys, record_keys, .. } = file;
        let unexpected = |error: ParquetError| Error::bug("a base file can't be finished").caused_by(error);
        let ranges = concat_batches(&ranges[0].schema(), &ranges)
            .map_err(|error| Error::bug("key ranges can't be joined").caused_by(error))?;
        writer.append_key_value_metadata(KeyValue::new("parquet.avro.schema".to_owned(), self.avro_schema.clone()));
        if let Some((min, max)) = record_keys {
            for (name, bound) in [("hoodie_min_record_key", min), ("hoodie_max_record_key", max)] {
                if let Ok(bound) = String::from_utf8(bound) {
                    writer.append_key_value_metadata(KeyValue::new(name.to_owned(), bound));
                }
            }
        }
        writer.append_key_value_metadata(KeyValue::new(KEY_RANGES.to_owned(), KeyRanges(ranges).to_text()?));
        let buffer = writer.into_inner().map_err(unexpected)?;
        slice.file_bytes = buffer.written();
        upload.finish(buffer)?;
        let took = u64::try_from(file.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let times = match prev {
            Some(_) => RuntimeStats { total_upsert_time: took, ..RuntimeStats::default() },
            None => RuntimeStats { total_create_time: took, ..RuntimeStats::default() },
        };
        self.output.inserted += file.inserted;
        self.output.updated += file.updated;
        self.output.deleted += file.deleted;
        self.index.learn(slice.path(), FileKeys { range: Some(keys), sorted: true });
        self.output.stats.push(WriteStat {
            path: Some(slice.path()),
            file_id: Some(slice.file_id),
            prev_commit: prev,
            num_writes: file.rows,
            num_deletes: file.deleted,
            num_update_writes: file.updated,
            num_inserts: file.inserted,
            total_write_bytes: slice.file_bytes,
            file_size_in_bytes: slice.file_bytes,
            partition_path: slice.partition_path,
            runtime_stats: Some(times),
            ..WriteStat::default()
        });
        Ok(())
    }

    fn end(&mut self, group: OpenGroup) -> Result<()> {
        let OpenGroup { group, old, file, finished, inserted, updated, deleted } = group;
        if let Some(mut file) = file {
            file.inserted += inserted;
            file.updated += updated;
            file.deleted += deleted;
            let unchanged = file.inserted + file.updated + file.deleted == 0;
            if finished == 0 && unchanged && !group.must_write && file.prev.is_some() {
                // deletes of rows that aren't there
                file.upload.abort();
                return Ok(());
            }
            self.finish(file)?;
        } else {
            self.output.inserted += inserted;
            self.output.updated += updated;
            self.output.deleted += deleted;
        }
        for slice in old {
            self.replace(slice);
        }
        Ok(())
    }

    fn replace(&mut self, slice: FileSlice) {
        self.output.replaced.entry(slice.partition_path).or_default().push(slice.file_id);
    }
}
