//! The planner: walks changes and file groups in the order of (partition path, key) and makes jobs.

use super::super::base_file::{BaseFile, ColumnEncoder, FileLayout, MAX_ROW_GROUP_BYTES, MAX_ROW_GROUP_ROWS, memory_type};
use super::super::file_group::{KeyCodec, Unit, file_path, row_group_keys, units};
use super::super::splice::CopyMap;
use super::super::{FileSlice, TableOptions};
use super::ahead::Ahead;
use super::cursor::{ChangeCursor, ChangePiece, Limit};
use super::job::{Fetch, Job, JobContext, OldRows};
use super::ordering::RowOrdering;
use super::output::{Group, Step, Writer};
use super::pool::{Dispatcher, pipeline};
use super::restore;
use super::{RewriteInput, RewriteOutput};
use crate::error::{Area, Error, Kind, Result};
use arrow::array::{Array, ArrayRef};
use arrow::compute::cast;
use arrow::row::Rows;
use object_store::ObjectStore;
use object_store::path::Path;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What is known of the rest of a group where rows come that no old file counted.
const UNKNOWN: u64 = u64::MAX;

/// Plans, works and writes.
pub(super) fn run(input: RewriteInput, layout: FileLayout, runtime: tokio::runtime::Handle) -> Result<RewriteOutput> {
    let layout = Arc::new(layout);
    let codec = Arc::new(KeyCodec::new(&layout)?);
    let fill = fill_values(&input, &layout)?;
    let rewrite_all = !fill.is_empty() || widens(&input, &layout);
    let context = JobContext {
        encoder: ColumnEncoder::new(Arc::clone(&layout)),
        layout: Arc::clone(&layout),
        codec: Arc::clone(&codec),
        instant: input.instant.clone(),
        fill,
        ordering: match &input.ordering {
            Some(name) => Some(RowOrdering::new(name, &layout.columns, &input.table)?),
            None => None,
        },
        shared: input.shared.filter(|_| !input.copies_nothing),
        runtime: runtime.clone(),
    };
    let writer = Writer {
        runtime,
        store: Arc::clone(&input.store),
        base: input.base.clone(),
        table: input.table,
        layout: Arc::clone(&layout),
        instant: input.instant,
        previous_instant: input.previous_instant,
        attempt: input.attempt,
        avro_schema: input.avro_schema,
        index: input.index.clone(),
        output: RewriteOutput::default(),
        files: 0,
    };
    let threads = input.options.rewrite_threads.max(1);
    let memory = usize::try_from(input.options.memory_bytes).unwrap_or(usize::MAX);
    // a job under way holds about twice its rows: as they came, and encoded
    let ahead = (memory / (2 * MAX_ROW_GROUP_BYTES)).clamp(1, threads + 2);
    let limit = Limit { rows: MAX_ROW_GROUP_ROWS, bytes: (memory / (2 * (threads + 2))).clamp(1 << 20, MAX_ROW_GROUP_BYTES) };
    let mut live: BTreeMap<String, Vec<FileSlice>> = BTreeMap::new();
    for slice in input.live {
        live.entry(slice.partition_path.clone()).or_default().push(slice);
    }
    let changes = Ahead::new(input.changes, context.runtime.clone())?;
    let mut changes = ChangeCursor::new(Box::new(changes), Arc::clone(&layout), codec, input.partition_columns);
    let mut planner = Planner {
        context: &context,
        store: input.store,
        base: input.base,
        options: input.options,
        index: input.index,
        rewrite_all,
        copies_nothing: input.copies_nothing,
        limit,
        jobs: 0,
    };
    let (truncate, regroup) = (input.truncate, input.regroup);
    let plan = |dispatcher: &Dispatcher| {
        if truncate {
            let slices = std::mem::take(&mut live).into_values().flatten().collect();
            dispatcher.step(Step::Replace(slices))?;
        }
        match regroup {
            Some(regroup) => planner.regroup(dispatcher, regroup, live, &mut changes),
            None => planner.partitions(dispatcher, live, &mut changes),
        }
    };
    pipeline(&context, threads, ahead, plan, |steps| writer.run(steps))
}

/// The values that old rows get in new columns, in memory types.
fn fill_values(input: &RewriteInput, layout: &FileLayout) -> Result<HashMap<String, ArrayRef>> {
    let mut values = HashMap::new();
    let Some(fill) = &input.fill else { return Ok(values) };
    for field in layout.columns.fields() {
        let is_new = input.previous_columns.as_ref().is_none_or(|previous| previous.index_of(field.name()).is_err());
        match fill.column_by_name(field.name()) {
            Some(value) if is_new && value.len() == 1 && value.is_valid(0) => {
                let unexpected = |error| {
                    Error::bug("a fill value has another type than its column").with("column", field.name()).caused_by(error)
                };
                values.insert(field.name().clone(), cast(value, &memory_type(field.data_type())).map_err(unexpected)?);
            }
            _ => {}
        }
    }
    Ok(values)
}

/// Whether a column has another type than at the last commit: then every live file gets it.
fn widens(input: &RewriteInput, layout: &FileLayout) -> bool {
    input.previous_columns.as_ref().is_some_and(|previous| {
        let differs = |name: &str, stored| previous.field_with_name(name).is_ok_and(|before| before.data_type() != stored);
        layout.columns.fields().iter().any(|field| differs(field.name(), field.data_type()))
    })
}

pub(super) struct Planner<'a> {
    pub(super) context: &'a JobContext,
    pub(super) store: Arc<dyn ObjectStore>,
    base: Path,
    options: TableOptions,
    index: super::super::file_group::KeyIndex,
    rewrite_all: bool,
    copies_nothing: bool,
    pub(super) limit: Limit,
    jobs: u32,
}

impl Planner<'_> {
    fn partitions(
        &mut self,
        dispatcher: &Dispatcher,
        mut live: BTreeMap<String, Vec<FileSlice>>,
        changes: &mut ChangeCursor,
    ) -> Result<()> {
        loop {
            let changed = changes.partition()?;
            let untouched = live.first_key_value().map(|(path, _)| path.as_str()).filter(|_| self.rewrite_all);
            let path: Arc<str> = match (changed, untouched) {
                (None, None) => return Ok(()),
                (Some(changed), Some(untouched)) if untouched < &*changed => untouched.into(),
                (None, Some(untouched)) => untouched.into(),
                (Some(changed), _) => changed,
            };
            let slices = live.remove(&*path).unwrap_or_default();
            self.partition(dispatcher, &path, slices, changes)?;
        }
    }

    fn partition(
        &mut self,
        dispatcher: &Dispatcher,
        path: &Arc<str>,
        slices: Vec<FileSlice>,
        changes: &mut ChangeCursor,
    ) -> Result<()> {
        let (units, empty) = self.units(slices)?;
        if !empty.is_empty() {
            dispatcher.step(Step::Replace(empty))?;
        }
        if units.is_empty() {
            self.begin(dispatcher, path, Vec::new(), self.options.target_file_bytes, true)?;
            self.fresh(dispatcher, path, None, changes)?;
            return dispatcher.step(Step::End);
        }
        let bounds: Vec<Option<Box<[u8]>>> = units.iter().skip(1).map(|unit| Some(unit.min.clone())).chain([None]).collect();
        for (unit, bound) in units.into_iter().zip(bounds) {
            if self.rewrite_all || changes.has(path, bound.as_deref())? {
                self.unit(dispatcher, path, unit, bound.as_deref(), changes)?;
            }
        }
        Ok(())
    }

    /// A partition's files in the order of their keys, and those without rows.
    pub(super) fn units(&self, slices: Vec<FileSlice>) -> Result<(Vec<Unit>, Vec<FileSlice>)> {
        let keys = self.index.of(&self.store, &self.base, &self.context.layout, &self.context.codec, &slices);
        let keys = self.context.runtime.block_on(keys)?;
        Ok(units(slices, keys))
    }

    fn unit(
        &mut self,
        dispatcher: &Dispatcher,
        path: &Arc<str>,
        unit: Unit,
        bound: Option<&[u8]>,
        changes: &mut ChangeCursor,
    ) -> Result<()> {
        let Unit { slices, restore, .. } = unit;
        let (files, cut) = (self.open(&slices)?, self.cut_bytes(&slices));
        self.begin(dispatcher, path, slices, cut, restore || self.rewrite_all)?;
        self.rows(dispatcher, path, &files, restore, bound, changes)?;
        dispatcher.step(Step::End)
    }

    pub(super) fn open(&self, slices: &[FileSlice]) -> Result<Vec<Arc<BaseFile>>> {
        let files = slices.iter().map(|slice| {
            let open = BaseFile::open(&self.store, file_path(&self.base, slice), slice.file_bytes);
            let file = Arc::new(self.context.runtime.block_on(open)?);
            self.check_columns(&file)?;
            Ok(file)
        });
        files.collect()
    }

    /// The size from which on the next of the files is begun that hold the rows of `slices`: what has outgrown its size is cut into even parts; what has not is
    /// cut only where new rows make it half as large again.
    pub(super) fn cut_bytes(&self, slices: &[FileSlice]) -> u64 {
        let target = self.target_bytes();
        let bytes: u64 = slices.iter().map(|slice| slice.file_bytes).sum();
        if bytes > target { bytes / bytes.div_ceil(target) } else { target + target / 2 }
    }

    pub(super) fn target_bytes(&self) -> u64 {
        self.options.target_file_bytes.max(1)
    }

    /// The rows of a unit's files, with their changes.
    pub(super) fn rows(
        &mut self,
        dispatcher: &Dispatcher,
        path: &Arc<str>,
        files: &[Arc<BaseFile>],
        restore: bool,
        bound: Option<&[u8]>,
        changes: &mut ChangeCursor,
    ) -> Result<()> {
        let row_groups = match files {
            [file] if !restore => row_group_keys(file, &self.context.codec, &self.context.layout)?,
            _ => None,
        };
        match (row_groups, files) {
            (Some(keys), [file]) => self.file(dispatcher, path, file, &keys, bound, changes),
            _ => restore::restore(self, dispatcher, path, files, bound, changes),
        }
    }

    /// Rows in columns that the table doesn't have would be lost.
    fn check_columns(&self, file: &BaseFile) -> Result<()> {
        let unknown =
            file.column_names().find(|name| !name.starts_with("_hoodie_") && self.context.layout.columns.index_of(name).is_err());
        match unknown {
            None => Ok(()),
            Some(name) => Err(Error::new(Area::Lake, Kind::Refused, "a base file has a column that the table lacks")
                .with("path", &file.path)
                .with("column", name)
                .remedy("another writer added it: add the column at the source, or roll back that writer's commit")),
        }
    }

    /// A sorted file of ours: row group by row group.
    fn file(
        &mut self,
        dispatcher: &Dispatcher,
        path: &Arc<str>,
        file: &Arc<BaseFile>,
        keys: &Rows,
        bound: Option<&[u8]>,
        changes: &mut ChangeCursor,
    ) -> Result<()> {
        let copy = if self.copies_nothing { None } else { CopyMap::new(file, &self.context.layout).map(Arc::new) };
        let count = file.metadata.num_row_groups();
        let sizes = file.metadata.row_groups().iter().map(|group| u64::try_from(group.compressed_size()).unwrap_or(0));
        let mut rest: u64 = sizes.clone().sum();
        for (row_group, size) in (0..count).zip(sizes) {
            let next = (row_group + 1 < count).then(|| keys.row(2 * row_group + 2));
            let end = next.as_ref().map(|row| row.data()).or(bound);
            // first the changes up to the last key, then those behind it, which may fill the row group up
            let last = keys.row(2 * row_group + 1).data();
            let mut after_last = last.to_vec();
            after_last.push(0);
            let mut pieces = changes.take(path, Some(&after_last), self.limit)?;
            if changes.has(path, Some(&after_last))? {
                let bytes = self.context.runtime.block_on(file.fetch(&self.store, row_group))?;
                restore::piecewise(self, dispatcher, path, file, row_group, &bytes, pieces, end, changes)?;
                rest -= size;
                continue;
            }
            let room = MAX_ROW_GROUP_ROWS.saturating_sub(file.row_group_rows(row_group));
            if room > 0 {
                pieces.extend(changes.take(path, end, Limit { rows: room, ..self.limit })?);
            }
            let more = changes.has(path, end)?;
            let old =
                OldRows::RowGroup { file: Arc::clone(file), row_group, fetch: self.fetch(file, row_group), copy: copy.clone() };
            self.dispatch(dispatcher, old, pieces, if more { UNKNOWN } else { rest })?;
            if more {
                self.fresh(dispatcher, path, end, changes)?;
            }
            rest -= size;
        }
        Ok(())
    }

    /// Changes where there are no old rows.
    pub(super) fn fresh(
        &mut self,
        dispatcher: &Dispatcher,
        path: &Arc<str>,
        bound: Option<&[u8]>,
        changes: &mut ChangeCursor,
    ) -> Result<()> {
        while changes.has(path, bound)? {
            let pieces = changes.take(path, bound, self.limit)?;
            self.dispatch(dispatcher, OldRows::None, pieces, UNKNOWN)?;
        }
        Ok(())
    }

    /// Sends a job; `rest` is what is known to come in its group, in bytes, itself included.
    pub(super) fn dispatch(&mut self, dispatcher: &Dispatcher, old: OldRows, changes: Vec<ChangePiece>, rest: u64) -> Result<()> {
        let number = self.jobs;
        self.jobs += 1;
        dispatcher.job(Job { number, old, changes }, rest)
    }

    pub(super) fn begin(
        &self,
        dispatcher: &Dispatcher,
        path: &Arc<str>,
        old: Vec<FileSlice>,
        cut_bytes: u64,
        must_write: bool,
    ) -> Result<()> {
        dispatcher.step(Step::Begin(Group { partition_path: Arc::clone(path), old, cut_bytes, must_write }))
    }

    fn fetch(&self, file: &Arc<BaseFile>, row_group: usize) -> Fetch {
        let (store, file) = (Arc::clone(&self.store), Arc::clone(file));
        self.context.runtime.spawn(async move { file.fetch(&store, row_group).await })
    }
}
