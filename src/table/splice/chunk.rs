//! Whole column chunks as raw bytes.

use super::super::base_file::{BaseFile, EncodedColumn, FileLayout, RowGroupBytes, parquet_error};
use crate::error::Result;
use bytes::Bytes;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ColumnChunkMetaDataBuilder};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::page_index::offset_index::OffsetIndexMetaData;
use parquet::schema::types::ColumnDescPtr;

/// For each column of a layout, the column of an old file that holds the same bytes; `None` where the file lacks it.
#[derive(Debug, Clone)]
pub(in super::super) struct CopyMap(Vec<Option<usize>>);

impl CopyMap {
    /// `None` if the file is another writer's, or some column is stored differently: then it can't be copied.
    pub(in super::super) fn new(file: &BaseFile, layout: &FileLayout) -> Option<Self> {
        file.ranges.as_ref()?;
        file.metadata.offset_index()?;
        let old = file.metadata.file_metadata().schema_descr();
        let mut map = Vec::with_capacity(layout.parquet.num_columns());
        for column in layout.parquet.columns() {
            let root = column.path().parts().first()?;
            let found = file.column(root);
            if let Some(index) = found {
                // one leaf a column: no nested types but lists of one level
                if old.num_columns() <= index || !same_bytes(&old.column(index), column) {
                    return None;
                }
            }
            map.push(found);
        }
        Some(Self(map))
    }

    /// The old file's column for the layout's column `leaf`.
    pub(in super::super) fn source(&self, leaf: usize) -> Option<usize> {
        self.0.get(leaf).copied().flatten()
    }
}

fn same_bytes(old: &ColumnDescPtr, new: &ColumnDescPtr) -> bool {
    old.path().parts().first() == new.path().parts().first()
        && old.physical_type() == new.physical_type()
        && old.type_length() == new.type_length()
        && old.type_scale() == new.type_scale()
        && old.type_precision() == new.type_precision()
        && old.logical_type_ref() == new.logical_type_ref()
        && old.max_def_level() == new.max_def_level()
        && old.max_rep_level() == new.max_rep_level()
}

/// The chunk of the file's column `source` as it is, for the column `target` of a new file.
pub(in super::super) fn copy_chunk(
    file: &BaseFile,
    bytes: &RowGroupBytes,
    row_group: usize,
    source: usize,
    target: &ColumnDescPtr,
) -> Result<EncodedColumn> {
    let old = file.metadata.row_group(row_group).column(source);
    let rows = file.row_group_rows(row_group);
    copy(file, bytes, row_group, source, old, target, rows).map_err(|error| parquet_error(error, &file.path))
}

fn copy(
    file: &BaseFile,
    bytes: &RowGroupBytes,
    row_group: usize,
    source: usize,
    old: &ColumnChunkMetaData,
    target: &ColumnDescPtr,
    rows: usize,
) -> Result<EncodedColumn, ParquetError> {
    let start = chunk_start(old);
    let raw = bytes.slice(u64::try_from(start)?, usize::try_from(old.compressed_size())?)?;
    let metadata = described(old, target)
        .set_dictionary_page_offset(old.dictionary_page_offset().map(|offset| offset - start))
        .set_data_page_offset(old.data_page_offset() - start)
        .set_total_compressed_size(old.compressed_size())
        .set_total_uncompressed_size(old.uncompressed_size())
        .set_num_values(old.num_values());
    let metadata = match old.statistics() {
        Some(statistics) => metadata.set_statistics(statistics.clone()),
        None => metadata,
    };
    let close = ColumnCloseResult {
        bytes_written: raw.len() as u64,
        rows_written: rows as u64,
        metadata: metadata.build()?,
        bloom_filter: None,
        column_index: column_index(file, row_group, source).cloned(),
        offset_index: offset_index(file, row_group, source).map(|index| shifted(index, start)),
    };
    Ok(EncodedColumn::Raw { bytes: raw, close: Box::new(close) })
}

/// The bytes of the file's column `source` in a row group, fetched as `bytes`.
pub(in super::super) fn chunk_bytes(file: &BaseFile, bytes: &RowGroupBytes, row_group: usize, source: usize) -> Result<Bytes> {
    let chunk = file.metadata.row_group(row_group).column(source);
    let slice = || bytes.slice(u64::try_from(chunk_start(chunk))?, usize::try_from(chunk.compressed_size())?);
    slice().map_err(|error: ParquetError| parquet_error(error, &file.path))
}

/// Where a chunk's bytes start in its file.
pub(super) fn chunk_start(chunk: &ColumnChunkMetaData) -> i64 {
    chunk.dictionary_page_offset().map_or(chunk.data_page_offset(), |offset| offset.min(chunk.data_page_offset()))
}

/// What stays true of a chunk whatever its pages: codec and encodings.
pub(super) fn described(old: &ColumnChunkMetaData, target: &ColumnDescPtr) -> ColumnChunkMetaDataBuilder {
    ColumnChunkMetaData::builder(target.clone())
        .set_compression_codec(old.compression_codec())
        .set_encodings_mask(*old.encodings_mask())
}

/// The column index of a chunk, if its file has one.
pub(super) fn column_index(file: &BaseFile, row_group: usize, column: usize) -> Option<&ColumnIndexMetaData> {
    let index = file.metadata.column_index()?.get(row_group)?.get(column)?;
    (!matches!(index, ColumnIndexMetaData::NONE)).then_some(index)
}

/// The offset index of a chunk, if its file has one.
pub(super) fn offset_index(file: &BaseFile, row_group: usize, column: usize) -> Option<&OffsetIndexMetaData> {
    file.metadata.offset_index()?.get(row_group)?.get(column)
}

fn shifted(index: &OffsetIndexMetaData, start: i64) -> OffsetIndexMetaData {
    let mut index = index.clone();
    for page in &mut index.page_locations {
        page.offset -= start;
    }
    index
}
