//! Reading base files: footers, and row groups as raw bytes from which columns are decoded one by one.

use super::footer::{KEY_RANGES, KeyRanges};
use super::layout::memory_type;
use crate::error::{Area, Error, Kind, Result};
use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array, new_empty_array, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, concat, take};
use arrow::datatypes::{DataType, Field, Schema};
use bytes::{Buf, Bytes};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
    RowSelectionPolicy,
};
use parquet::basic::{ConvertedType, Type as Physical};
use parquet::errors::ParquetError;
use parquet::file::metadata::{FileMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataBuilder, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length};
use parquet::schema::types::{SchemaDescriptor, Type};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Bytes at a file's end that are fetched first: footers and page indexes are in there, mostly.
const FOOTER_GUESS: u64 = 256 << 10;

/// An error of the object store at `path`.
pub(in super::super) fn store_error(error: object_store::Error, path: &Path) -> Error {
    use object_store::Error as Store;
    let (kind, what) = match &error {
        Store::NotFound { .. } => (Kind::Corrupt, "a file of the table is missing"),
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => (Kind::Refused, "the lake refuses access"),
        Store::Generic { source, .. } if is_full(source.as_ref()) => (Kind::Refused, "the lake's disk is full"),
        _ => (Kind::Transient, "the lake can't be reached"),
    };
    Error::new(Area::Lake, kind, what).with("path", path).caused_by(error)
}

/// Whether a full disk or a read-only file system is at the bottom of an error.
fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
            return matches!(io.kind(), StorageFull | ReadOnlyFilesystem | QuotaExceeded | PermissionDenied);
        }
        cause = error.source();
    }
    false
}

/// Bytes of a file; a file that is too short for them is damaged.
async fn get_range(store: &Arc<dyn ObjectStore>, path: &Path, range: Range<u64>) -> Result<Bytes> {
    let (end, wanted) = (range.end, range.end.saturating_sub(range.start));
    if wanted == 0 {
        return Err(parquet_error(ParquetError::EOF("the file is empty".to_owned()), path));
    }
    let got = store.get_range(path, range).await;
    let short = match &got {
        Ok(bytes) => bytes.len() as u64 != wanted,
        Err(object_store::Error::NotFound { .. }) => false,
        Err(_) => store.head(path).await.is_ok_and(|found| found.size < end),
    };
    if short {
        return Err(parquet_error(ParquetError::EOF(format!("the file is shorter than {end} bytes")), path));
    }
    got.map_err(|error| store_error(error, path))
}

/// A base file whose bytes make no sense.
pub(in super::super) fn parquet_error(error: impl Into<ParquetError>, path: &Path) -> Error {
    Error::new(Area::Lake, Kind::Corrupt, "a base file is damaged").with("path", path).caused_by(error.into()).remedy("restore the file from a copy; without one stop the service, remove the table's folder, and start it: the table is copied anew, its history begins anew")
}

/// What decodes a file's columns to their memory types: strings are taken for plain bytes.
fn reader_metadata(metadata: &ParquetMetaData) -> Result<ArrowReaderMetadata, ParquetError> {
    let file = metadata.file_metadata();
    let mut fields = Vec::new();
    for field in file.schema().get_fields() {
        let text = field.is_primitive() && field.get_physical_type() == Physical::BYTE_ARRAY;
        fields.push(if text && field.get_basic_info().converted_type() != ConvertedType::DECIMAL {
            let repetition = field.get_basic_info().repetition();
            Arc::new(Type::primitive_type_builder(field.name(), Physical::BYTE_ARRAY).with_repetition(repetition).build()?)
        } else {
            Arc::clone(field)
        });
    }
    let schema = Arc::new(Type::group_type_builder(file.schema().name()).with_fields(fields).build()?);
    let (created_by, orders) = (file.created_by().map(str::to_owned), file.column_orders().cloned());
    let file =
        FileMetaData::new(file.version(), file.num_rows(), created_by, None, Arc::new(SchemaDescriptor::new(schema)), orders);
    let bare = ParquetMetaDataBuilder::new(file).set_row_groups(metadata.row_groups().to_vec());
    let bare = Arc::new(bare.set_offset_index(metadata.offset_index().cloned()).build());
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let inferred = ArrowReaderMetadata::try_new(Arc::clone(&bare), options)?;
    let in_memory = |field: &Arc<Field>| field.as_ref().clone().with_data_type(memory_type(field.data_type()));
    let schema = Schema::new(inferred.schema().fields().iter().map(in_memory).collect::<Vec<_>>());
    ArrowReaderMetadata::try_new(bare, ArrowReaderOptions::new().with_schema(Arc::new(schema)))
}

/// One base file, its footer read.
#[derive(Debug)]
pub(in super::super) struct BaseFile {
    /// Where it is.
    pub(in super::super) path: Path,
    /// Its size.
    pub(in super::super) bytes: u64,
    /// Its footer, with the page index.
    pub(in super::super) metadata: Arc<ParquetMetaData>,
    /// What our own footers say about keys; `None` for another writer's file.
    pub(in super::super) ranges: Option<KeyRanges>,
    reader: ArrowReaderMetadata,
}

/// The bytes of one row group in memory, at their place in the file.
#[derive(Debug, Clone)]
pub(in super::super) struct RowGroupBytes {
    /// Where in the file `bytes` start.
    pub(in super::super) start: u64,
    /// The bytes.
    pub(in super::super) bytes: Bytes,
}

impl RowGroupBytes {
    /// The bytes of the file from `start`, `length` of them.
    pub(in super::super) fn slice(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let from = start.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        match from.and_then(|from| Some((from, from.checked_add(length)?))) {
            Some((from, to)) if to <= self.bytes.len() => Ok(self.bytes.slice(from..to)),
            _ => Err(ParquetError::EOF(format!("bytes {start}+{length} lie outside of the row group"))),
        }
    }
}

impl Length for RowGroupBytes {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for RowGroupBytes {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let length = usize::try_from(self.len().saturating_sub(start)).unwrap_or(usize::MAX);
        Ok(self.slice(start, length)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.slice(start, length)
    }
}

impl BaseFile {
    /// Reads the footer of the file at `path`, which has `bytes` bytes.
    pub(in super::super) async fn open(store: &Arc<dyn ObjectStore>, path: Path, bytes: u64) -> Result<Self> {
        let damaged = |error: ParquetError| parquet_error(error, &path);
        let mut wanted = FOOTER_GUESS;
        let mut parser = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional);
        let metadata = loop {
            let from = bytes.saturating_sub(wanted);
            let tail = get_range(store, &path, from..bytes).await?;
            match parser.try_parse_sized(&tail, bytes) {
                Ok(()) => break parser.finish().map_err(damaged)?,
                Err(ParquetError::NeedMoreData(needed)) if needed as u64 > wanted => {
                    wanted = needed as u64;
                    parser = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional);
                }
                Err(error) => return Err(damaged(error)),
            }
        };
        let metadata = Arc::new(metadata);
        let reader = reader_metadata(&metadata).map_err(damaged)?;
        let texts = metadata.file_metadata().key_value_metadata();
        let text = texts.and_then(|texts| texts.iter().find(|text| text.key == KEY_RANGES)?.value.as_deref());
        let ranges = text.and_then(|text| KeyRanges::parse(text, metadata.num_row_groups()));
        Ok(Self { path, bytes, ranges, reader, metadata })
    }

    /// Rows of a row group.
    pub(in super::super) fn row_group_rows(&self, row_group: usize) -> usize {
        usize::try_from(self.metadata.row_group(row_group).num_rows()).unwrap_or(0)
    }

    /// Where a row group lies in the file.
    pub(in super::super) fn row_group_range(&self, row_group: usize) -> Result<Range<u64>> {
        let damaged = || parquet_error(ParquetError::General("a column chunk lies outside of the file".to_owned()), &self.path);
        let mut range = Range { start: u64::MAX, end: 0 };
        for column in self.metadata.row_group(row_group).columns() {
            let start = column.dictionary_page_offset().unwrap_or(i64::MAX).min(column.data_page_offset());
            let start = u64::try_from(start).map_err(|_| damaged())?;
            let length = u64::try_from(column.compressed_size()).map_err(|_| damaged())?;
            let end = start.checked_add(length).filter(|end| *end <= self.bytes).ok_or_else(damaged)?;
            range = range.start.min(start)..range.end.max(end);
        }
        if range.start > range.end { Err(damaged()) } else { Ok(range) }
    }

    /// Fetches a row group.
    pub(in super::super) async fn fetch(&self, store: &Arc<dyn ObjectStore>, row_group: usize) -> Result<RowGroupBytes> {
        let range = self.row_group_range(row_group)?;
        let start = range.start;
        let bytes = get_range(store, &self.path, range).await?;
        Ok(RowGroupBytes { start, bytes })
    }

    /// The index of the column called `name` among the file's columns.
    pub(in super::super) fn column(&self, name: &str) -> Option<usize> {
        self.metadata.file_metadata().schema().get_fields().iter().position(|field| field.name() == name)
    }

    /// Names of the file's columns.
    pub(in super::super) fn column_names(&self) -> impl Iterator<Item = &str> {
        self.metadata.file_metadata().schema().get_fields().iter().map(|field| field.name())
    }

    /// Decodes one column of a row group to the memory form of `wanted`; `None` if the file has no such column.
    pub(in super::super) fn read_column(
        &self,
        bytes: &RowGroupBytes,
        row_group: usize,
        name: &str,
        wanted: &DataType,
    ) -> Result<Option<ArrayRef>> {
        if self.column(name).is_none() {
            return Ok(None);
        }
        let rows = self.row_group_rows(row_group);
        let mut arrays = Vec::new();
        for batch in self.batches(bytes, row_group, &[name], rows.max(1))? {
            let batch = batch.map_err(|error| parquet_error(error, &self.path))?;
            arrays.push(self.cast(batch.column(0), name, &memory_type(wanted))?);
        }
        let array = match arrays.len() {
            0 => new_empty_array(&memory_type(wanted)),
            1 => arrays.remove(0),
            _ => concat(&arrays.iter().map(|array| array.as_ref()).collect::<Vec<_>>())
                .map_err(|error| parquet_error(error, &self.path))?,
        };
        if array.len() != rows {
            return Err(parquet_error(ParquetError::EOF("a column ends early".to_owned()), &self.path).with("column", name));
        }
        Ok(Some(array))
    }

    /// Decodes the rows `ranges` of one column of a row group, which the file must have, to the memory form of `wanted`: only the pages
    /// that hold them are decoded.
    pub(in super::super) fn read_rows(
        &self,
        bytes: &RowGroupBytes,
        row_group: usize,
        name: &str,
        wanted: &DataType,
        ranges: &[Range<usize>],
    ) -> Result<ArrayRef> {
        let damaged = |error: ParquetError| parquet_error(error, &self.path).with("column", name);
        let rows: usize = ranges.iter().map(ExactSizeIterator::len).sum();
        let selection = RowSelection::from_consecutive_ranges(ranges.iter().cloned(), self.row_group_rows(row_group));
        let roots = self.column(name);
        let mut reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes.clone(), self.reader.clone())
            .with_projection(ProjectionMask::roots(self.metadata.file_metadata().schema_descr(), roots))
            .with_row_groups(vec![row_group])
            .with_row_selection(selection)
            .with_row_selection_policy(RowSelectionPolicy::Selectors)
            .with_batch_size(rows.max(1))
            .build()
            .map_err(damaged)?;
        let Some(batch) = reader.next() else { return Err(damaged(ParquetError::EOF("a column has no rows".to_owned()))) };
        let batch = batch.map_err(|error| damaged(error.into()))?;
        if batch.num_rows() != rows {
            return Err(damaged(ParquetError::EOF("a column ends early".to_owned())));
        }
        self.cast(batch.column(0), name, &memory_type(wanted))
    }

    /// Decodes columns of a row group in batches; columns that the file lacks are left out.
    pub(in super::super) fn batches(
        &self,
        bytes: &RowGroupBytes,
        row_group: usize,
        names: &[&str],
        batch_rows: usize,
    ) -> Result<ParquetRecordBatchReader> {
        let roots = names.iter().filter_map(|name| self.column(name));
        let mask = ProjectionMask::roots(self.metadata.file_metadata().schema_descr(), roots);
        ParquetRecordBatchReaderBuilder::new_with_metadata(bytes.clone(), self.reader.clone())
            .with_projection(mask)
            .with_row_groups(vec![row_group])
            .with_batch_size(batch_rows)
            .build()
            .map_err(|error| parquet_error(error, &self.path))
    }

    /// A column of a batch of this file as the type `wanted`.
    pub(in super::super) fn cast(&self, array: &ArrayRef, name: &str, wanted: &DataType) -> Result<ArrayRef> {
        if array.data_type() == wanted {
            return Ok(Arc::clone(array));
        }
        let options = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(array, wanted, &options).map_err(|error| {
            Error::new(Area::Lake, Kind::Refused, "a base file's column can't be widened to the table's type")
                .with("path", &self.path)
                .with("column", name)
                .caused_by(error)
        })
    }

    /// The columns of `schema` in a batch of this file, each in its memory type; what the file lacks is its value in `fill`, else NULL.
    pub(in super::super) fn conform(
        &self,
        batch: &RecordBatch,
        schema: &Arc<Schema>,
        fill: &HashMap<String, ArrayRef>,
    ) -> Result<RecordBatch> {
        let unexpected = |error| parquet_error(ParquetError::from(error), &self.path);
        let mut columns = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            columns.push(match (batch.column_by_name(field.name()), fill.get(field.name())) {
                (Some(column), _) => self.cast(column, field.name(), field.data_type())?,
                (None, Some(value)) => take(value, &UInt32Array::from(vec![0; batch.num_rows()]), None).map_err(unexpected)?,
                (None, None) => new_null_array(field.data_type(), batch.num_rows()),
            });
        }
        RecordBatch::try_new(Arc::clone(schema), columns).map_err(unexpected)
    }
}
