//! One column of one row group, from an array to a Parquet column chunk.
//!
//! Which encoding a column gets is decided for each chunk from a sample of its values: a dictionary where values repeat; else, for integers, dates and
//! timestamps, DELTA_BINARY_PACKED (sorted keys shrink to a bit or two a row, and what is random costs zstd nothing); for record keys and
//! sequence numbers DELTA_BYTE_ARRAY; PLAIN for the rest. All chunks are zstd at level 1.
//!
//! All columns of a row group break their pages at the same rows: the splice of single pages lives on it.

use super::layout::{FileLayout, MetaColumn};
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{ColumnDescPtr, Type};
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::io::Write;
use std::sync::Arc;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

/// Rows of a page at most.
const PAGE_ROWS: usize = if cfg!(test) { 16 } else { 2048 };

/// Bytes of a column's page, about, before it is compressed.
const PAGE_BYTES: usize = 1 << 20;

/// Values that are looked at to choose an encoding.
const SAMPLE: usize = 2048;

/// A column chunk, ready to be appended to a file.
pub(in super::super) enum EncodedColumn {
    /// As the Parquet crate's column writer made it.
    Written(Box<ArrowColumnChunk>),
    /// Raw bytes, and what the footer has to say about them; offsets count from the start of the bytes.
    Raw {
        /// The pages.
        bytes: Bytes,
        /// Their metadata.
        close: Box<ColumnCloseResult>,
    },
}

impl EncodedColumn {
    /// Appends the chunk as the next column of a row group.
    pub(in super::super) fn append_to<W: Write + Send>(
        self,
        row_group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<(), ParquetError> {
        match self {
            Self::Written(chunk) => chunk.append_to_row_group(row_group),
            Self::Raw { bytes, close } => row_group.append_column(&bytes, *close),
        }
    }

    /// The chunk of a column that isn't nested, as raw bytes.
    pub(in super::super) fn into_raw(self) -> Result<RawColumn> {
        match self {
            Self::Written(chunk) => raw(*chunk).map_err(|error| Error::bug("a column chunk can't be kept").caused_by(error)),
            Self::Raw { bytes, close } => Ok(RawColumn { bytes, close }),
        }
    }

    /// What the footer will say about the chunk.
    pub(in super::super) fn close(&self) -> &ColumnCloseResult {
        match self {
            Self::Written(chunk) => chunk.close(),
            Self::Raw { close, .. } => close,
        }
    }
}

/// A chunk as raw bytes, for more than one file.
#[derive(Clone)]
pub(in super::super) struct RawColumn {
    /// The pages.
    pub(in super::super) bytes: Bytes,
    close: Box<ColumnCloseResult>,
}

impl RawColumn {
    /// The chunk as the column `target` of a file, which has the same type.
    pub(in super::super) fn into_column(self, target: &ColumnDescPtr) -> Result<EncodedColumn> {
        let Self { bytes, mut close } = self;
        let old = &close.metadata;
        let mut metadata = ColumnChunkMetaData::builder(target.clone())
            .set_compression_codec(old.compression_codec())
            .set_encodings_mask(*old.encodings_mask())
            .set_total_compressed_size(old.compressed_size())
            .set_total_uncompressed_size(old.uncompressed_size())
            .set_num_values(old.num_values())
            .set_data_page_offset(old.data_page_offset())
            .set_dictionary_page_offset(old.dictionary_page_offset())
            .set_unencoded_byte_array_data_bytes(old.unencoded_byte_array_data_bytes());
        if let Some(histogram) = old.definition_level_histogram() {
            metadata = metadata.set_definition_level_histogram(Some(histogram.clone()));
        }
        if let Some(statistics) = old.statistics() {
            metadata = metadata.set_statistics(statistics.clone());
        }
        if let Some(encodings) = old.page_encoding_stats() {
            metadata = metadata.set_page_encoding_stats(encodings.clone());
        }
        close.metadata = metadata.build().map_err(|error| Error::bug("a column chunk can't be shared").caused_by(error))?;
        Ok(EncodedColumn::Raw { bytes, close })
    }
}

/// A chunk gives its bytes to a file only: to one in memory.
fn raw(chunk: ArrowColumnChunk) -> Result<RawColumn, ParquetError> {
    let close = chunk.close().clone();
    let column = close.metadata.column_descr().self_type_ptr();
    let root = Arc::new(Type::group_type_builder("binlake_record").with_fields(vec![column]).build()?);
    let space = Vec::with_capacity(usize::try_from(close.metadata.compressed_size())? + (64 << 10));
    let mut file = SerializedFileWriter::new(space, root, Arc::new(WriterProperties::default()))?;
    let start = file.bytes_written();
    let mut row_group = file.next_row_group()?;
    chunk.append_to_row_group(&mut row_group)?;
    let row_group = row_group.close()?;
    let end = file.bytes_written();
    let written = row_group.column(0);
    let dictionary = written.dictionary_page_offset().map_or(0, |offset| written.data_page_offset() - offset);
    let close = close.update_dictionary_location(usize::try_from(dictionary)?)?;
    let bytes = Bytes::from(file.into_inner()?).slice(start..end);
    Ok(RawColumn { bytes, close: Box::new(close) })
}

/// Rows of a page where the widest column takes `bytes_a_row`.
pub(in super::super) fn page_rows_for(bytes_a_row: usize) -> usize {
    (PAGE_BYTES / bytes_a_row.max(1)).clamp(1, PAGE_ROWS)
}

/// How a chunk is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Choice {
    dictionary: bool,
    encoding: Encoding,
}

/// Encodes columns of one layout.
#[derive(Debug, Clone)]
pub(in super::super) struct ColumnEncoder {
    layout: Arc<FileLayout>,
}

impl ColumnEncoder {
    /// For files of `layout`.
    pub(in super::super) fn new(layout: Arc<FileLayout>) -> Self {
        Self { layout }
    }

    /// Encodes one of Hudi's columns.
    pub(in super::super) fn encode_meta(&self, meta: MetaColumn, values: &ArrayRef, page_rows: usize) -> Result<EncodedColumn> {
        let choice = match meta {
            MetaColumn::CommitSeqno | MetaColumn::RecordKey => Choice { dictionary: false, encoding: Encoding::DELTA_BYTE_ARRAY },
            _ => Choice { dictionary: true, encoding: Encoding::PLAIN },
        };
        self.encode_as(meta as usize, meta.name(), values, page_rows, choice)
    }

    /// Encodes the table's column at `index`.
    pub(in super::super) fn encode(&self, index: usize, values: &ArrayRef, page_rows: usize) -> Result<EncodedColumn> {
        let name = self.layout.columns.field(index).name();
        let choice = if self.layout.key.contains(&index) { unrepeated(values.data_type()) } else { choose(values) };
        self.encode_as(index + MetaColumn::ALL.len(), name, values, page_rows, choice)
    }

    /// Single pages without a dictionary for the column at `leaf` (counted with Hudi's columns first): one of each of `arrays`, which have one length.
    pub(in super::super) fn encode_pages(&self, leaf: usize, arrays: &[&ArrayRef], encoding: Encoding) -> Result<Vec<NewPage>> {
        let name = self.layout.parquet.root_schema().get_fields()[leaf].name().to_owned();
        let unexpected = |error: ParquetError| Error::bug("a page can't be encoded").with("column", &name).caused_by(error);
        let rows = arrays.first().map_or(1, |array| array.len());
        let properties = properties(rows, usize::MAX, Choice { dictionary: false, encoding })?;
        let chunk = self.write(leaf, &name, arrays, properties.clone())?;
        let close = chunk.close();
        let (column_index, offset_index) = (close.column_index.clone().map(Arc::new), close.offset_index.clone());
        // a chunk gives its bytes to a file only
        let mut file = SerializedFileWriter::new(Vec::new(), self.layout.only(leaf)?, Arc::new(properties)).map_err(unexpected)?;
        let start = file.bytes_written();
        let mut row_group = file.next_row_group().map_err(unexpected)?;
        chunk.append_to_row_group(&mut row_group).map_err(unexpected)?;
        row_group.close().map_err(unexpected)?;
        file.flush().map_err(|error| unexpected(error.into()))?;
        let bytes = Bytes::copy_from_slice(file.inner());
        let mut at = start;
        let mut pages = Vec::with_capacity(arrays.len());
        for (number, location) in offset_index.iter().flat_map(|index| index.page_locations()).enumerate() {
            let size = usize::try_from(location.compressed_page_size).unwrap_or(0);
            let column_index = column_index.clone();
            pages.push(NewPage { bytes: bytes.slice(at..at + size), rows, column_index, number });
            at += size;
        }
        Ok(pages)
    }

    /// The layout of the files.
    pub(in super::super) fn layout(&self) -> &FileLayout {
        &self.layout
    }

    fn encode_as(&self, leaf: usize, name: &str, values: &ArrayRef, page_rows: usize, choice: Choice) -> Result<EncodedColumn> {
        // bytes end a page only where values are far from the average
        let properties = properties(page_rows, 16 * PAGE_BYTES, choice)?;
        Ok(EncodedColumn::Written(Box::new(self.write(leaf, name, &[values], properties)?)))
    }

    fn write(&self, leaf: usize, name: &str, arrays: &[&ArrayRef], properties: WriterProperties) -> Result<ArrowColumnChunk> {
        let unexpected = |error: ParquetError| Error::bug("a column can't be encoded").with("column", name).caused_by(error);
        let root = self.layout.only(leaf)?;
        let nullable = root.get_fields()[0].is_optional();
        let stored = arrays.first().map_or(DataType::Null, |array| array.data_type().clone());
        let field = Field::new(name, stored, nullable);
        let schema = Arc::new(Schema::new(vec![field.clone()]));
        let file = SerializedFileWriter::new(std::io::sink(), root, Arc::new(properties)).map_err(unexpected)?;
        let mut writers = ArrowRowGroupWriterFactory::new(&file, schema).create_column_writers(0).map_err(unexpected)?;
        let mut writer = writers.pop().ok_or_else(|| Error::bug("a column without a leaf").with("column", name))?;
        for values in arrays {
            for leaf in compute_leaves(&field, values).map_err(unexpected)? {
                writer.write(&leaf).map_err(unexpected)?;
            }
        }
        writer.close().map_err(unexpected)
    }
}

/// A page made alone.
pub(in super::super) struct NewPage {
    /// Its header and data.
    pub(in super::super) bytes: Bytes,
    /// Its rows.
    pub(in super::super) rows: usize,
    /// Least and greatest values of the pages that were made with it.
    pub(in super::super) column_index: Option<Arc<ColumnIndexMetaData>>,
    /// Its number among them.
    pub(in super::super) number: usize,
}

/// How column chunks are written, all but the columns' own encodings.
fn properties(page_rows: usize, page_bytes: usize, choice: Choice) -> Result<WriterProperties> {
    let level = ZstdLevel::try_new(1).map_err(|error| Error::bug("zstd has no level 1").caused_by(error))?;
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::Page)
        // the row count alone ends a page, so that pages end at the same rows in all columns
        .set_data_page_row_count_limit(page_rows)
        .set_write_batch_size(page_rows)
        .set_data_page_size_limit(page_bytes)
        .set_dictionary_page_size_limit(2 * PAGE_BYTES)
        .set_dictionary_enabled(choice.dictionary)
        .set_encoding(choice.encoding)
        .build())
}

/// The encoding of a column whose values don't repeat.
fn unrepeated(stored: &DataType) -> Choice {
    let encoding = match stored {
        DataType::Int32 | DataType::Int64 | DataType::Date32 | DataType::Timestamp(_, _) => Encoding::DELTA_BINARY_PACKED,
        _ => Encoding::PLAIN,
    };
    Choice { dictionary: false, encoding }
}

/// Chooses from a sample: short runs from all over the column.
fn choose(values: &ArrayRef) -> Choice {
    let plain = unrepeated(values.data_type());
    let repeats = match values.data_type() {
        DataType::Utf8 => repeats(values.len(), 0.6, |row| xxh3_64(values.as_string::<i32>().value(row).as_bytes())),
        DataType::Utf8View => repeats(values.len(), 0.6, |row| xxh3_64(values.as_string_view().value(row).as_bytes())),
        DataType::Binary => repeats(values.len(), 0.6, |row| xxh3_64(values.as_binary::<i32>().value(row))),
        DataType::BinaryView => repeats(values.len(), 0.6, |row| xxh3_64(values.as_binary_view().value(row))),
        DataType::Boolean | DataType::List(_) => false,
        stored => match stored.primitive_width() {
            None => false,
            Some(width) => {
                let data = values.to_data();
                let bytes = data.buffers()[0].as_slice();
                let offset = data.offset();
                repeats(values.len(), 0.2, |row| xxh3_64(&bytes[(offset + row) * width..(offset + row + 1) * width]))
            }
        },
    };
    if repeats { Choice { dictionary: true, encoding: plain.encoding } } else { plain }
}

/// Whether at most `share` of a sample's values differ.
fn repeats(rows: usize, share: f64, hash: impl Fn(usize) -> u64) -> bool {
    const RUN: usize = 16;
    let mut seen: HashSet<u64, BuildHasherDefault<Hashed>> = HashSet::default();
    let mut looked = 0;
    if rows <= SAMPLE {
        seen.extend((0..rows).map(&hash));
        looked = rows;
    } else {
        for run in 0..SAMPLE / RUN {
            let start = run * (rows - RUN) / (SAMPLE / RUN);
            seen.extend((start..start + RUN).map(&hash));
            looked += RUN;
        }
    }
    #[allow(clippy::cast_precision_loss)]
    let differ = seen.len() as f64 <= share * looked as f64;
    differ
}

/// Takes a hash for a hash.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        let mut hasher = Xxh3Default::new();
        hasher.write(bytes);
        self.0 = hasher.finish();
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int32Array, StringArray};

    #[test]
    fn a_dictionary_where_values_repeat() {
        let few: ArrayRef = Arc::new(StringArray::from_iter_values((0..50_000).map(|i| format!("sport {}", i % 7))));
        let many: ArrayRef = Arc::new(StringArray::from_iter_values((0..50_000).map(|i| format!("mail {i}"))));
        assert!(choose(&few).dictionary);
        assert!(!choose(&many).dictionary);
        let key: ArrayRef = Arc::new(Int32Array::from_iter_values(0..50_000));
        assert_eq!(choose(&key), Choice { dictionary: false, encoding: Encoding::DELTA_BINARY_PACKED });
        let none: ArrayRef = Arc::new(Int32Array::from(vec![None; 100]));
        assert!(choose(&none).dictionary);
    }
}
