//! A column chunk with one value in all its rows, made in a few dozen bytes whatever the number of rows.

use super::encode::EncodedColumn;
use crate::error::{Error, Result};
use bytes::Bytes;
use parquet::basic::{Compression, Encoding, EncodingMask};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder};
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

/// A chunk of an optional string column: `rows` times `value`, as a dictionary of one entry and one run, uncompressed.
pub(in super::super) fn constant_chunk(column: &ColumnDescPtr, value: &str, rows: usize) -> Result<EncodedColumn> {
    encode(column, value, rows).map_err(|error| Error::bug("a constant column can't be encoded").caused_by(error))
}

fn encode(column: &ColumnDescPtr, value: &str, rows: usize) -> Result<EncodedColumn, ParquetError> {
    let count = u32::try_from(rows)?;
    let mut dictionary = Vec::with_capacity(value.len() + 4);
    dictionary.extend_from_slice(&u32::try_from(value.len())?.to_le_bytes());
    dictionary.extend_from_slice(value.as_bytes());

    // definition levels: their length, then one run of 1; indices: the bit width, then one run of 0
    let mut data = vec![0; 4];
    append_run(rows, 1, &mut data);
    let levels = u32::try_from(data.len() - 4)?;
    data[..4].copy_from_slice(&levels.to_le_bytes());
    data.push(1);
    append_run(rows, 0, &mut data);

    let mut sink = TrackedWrite::new(Vec::new());
    let (header_and_dictionary, header_and_data, uncompressed) = {
        let mut pages = SerializedPageWriter::new(&mut sink);
        let uncompressed = dictionary.len();
        let page = Page::DictionaryPage { buf: dictionary.into(), num_values: 1, encoding: Encoding::PLAIN, is_sorted: false };
        let first = pages.write_page(CompressedPage::new(page, uncompressed))?;
        let uncompressed = data.len();
        let page = Page::DataPage {
            buf: data.into(),
            num_values: count,
            encoding: Encoding::RLE_DICTIONARY,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        let second = pages.write_page(CompressedPage::new(page, uncompressed))?;
        (first.bytes_written, second.bytes_written, first.uncompressed_size + second.uncompressed_size)
    };
    let bytes = Bytes::from(sink.into_inner()?);

    let bound = ByteArray::from(value);
    let statistics = ValueStatistics::new(Some(bound.clone()), Some(bound), None, Some(0), false);
    let metadata = ColumnChunkMetaData::builder(column.clone())
        .set_compression(Compression::UNCOMPRESSED)
        .set_encodings_mask(EncodingMask::new_from_encodings([Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY].iter()))
        .set_total_compressed_size(i64::try_from(bytes.len())?)
        .set_total_uncompressed_size(i64::try_from(uncompressed)?)
        .set_num_values(i64::from(count))
        .set_dictionary_page_offset(Some(0))
        .set_data_page_offset(i64::try_from(header_and_dictionary)?)
        .set_statistics(Statistics::ByteArray(statistics))
        .build()?;

    let mut column_index = ColumnIndexBuilder::new(column.physical_type());
    column_index.append(false, value.as_bytes().to_vec(), value.as_bytes().to_vec(), 0);
    column_index.set_boundary_order(parquet::basic::BoundaryOrder::ASCENDING);
    let mut offset_index = OffsetIndexBuilder::new();
    offset_index.append_row_count(i64::from(count));
    offset_index.append_offset_and_size(i64::try_from(header_and_dictionary)?, i32::try_from(header_and_data)?);
    let close = ColumnCloseResult {
        bytes_written: bytes.len() as u64,
        rows_written: rows as u64,
        metadata,
        bloom_filter: None,
        column_index: Some(column_index.build()?),
        offset_index: Some(offset_index.build()),
    };
    Ok(EncodedColumn::Raw { bytes, close: Box::new(close) })
}

/// Appends a run of the RLE/bit-packing hybrid: `count` times `value`, which fits one byte.
fn append_run(count: usize, value: u8, out: &mut Vec<u8>) {
    let mut header = count << 1;
    while header >= 0x80 {
        out.push(0x80 | u8::try_from(header & 0x7f).unwrap_or(0));
        header >>= 7;
    }
    out.push(u8::try_from(header).unwrap_or(0));
    out.push(value);
}
