//! A column chunk put together from pages: raw ones and new ones.

use super::super::base_file::EncodedColumn;
use super::statistics::{PageStatistics, column_index, of_chunk};
use bytes::{Bytes, BytesMut};
use parquet::basic::{CompressionCodec, Encoding, EncodingMask};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, OffsetIndexBuilder};
use parquet::schema::types::ColumnDescPtr;

/// A data page with its header.
#[derive(Debug, Clone)]
pub(super) struct PageBytes {
    /// Header and data.
    pub(super) bytes: Bytes,
    /// Rows.
    pub(super) rows: usize,
    /// The size before compression, header included.
    pub(super) uncompressed: usize,
    /// What is known of its values.
    pub(super) statistics: Option<PageStatistics>,
}

/// A chunk's pages in their order.
pub(super) struct ChunkParts {
    /// The dictionary's page, and its size before compression.
    pub(super) dictionary: Option<(Bytes, usize)>,
    /// The data pages.
    pub(super) pages: Vec<PageBytes>,
    /// All encodings that occur.
    pub(super) encodings: Vec<Encoding>,
    /// The codec of all pages.
    pub(super) codec: CompressionCodec,
    /// Whether the pages' values are known to ascend.
    pub(super) ascending: bool,
}

impl ChunkParts {
    /// The chunk, as the column `target` of a new file.
    pub(super) fn assemble(self, target: &ColumnDescPtr) -> Result<EncodedColumn, ParquetError> {
        let rows: usize = self.pages.iter().map(|page| page.rows).sum();
        let dictionary_bytes = self.dictionary.as_ref().map_or(0, |(bytes, _)| bytes.len());
        let mut bytes = BytesMut::with_capacity(dictionary_bytes + self.pages.iter().map(|page| page.bytes.len()).sum::<usize>());
        let mut uncompressed = 0;
        if let Some((page, size)) = &self.dictionary {
            bytes.extend_from_slice(page);
            uncompressed += size;
        }
        let mut offsets = OffsetIndexBuilder::new();
        for page in &self.pages {
            offsets.append_row_count(i64::try_from(page.rows)?);
            offsets.append_offset_and_size(i64::try_from(bytes.len())?, i32::try_from(page.bytes.len())?);
            bytes.extend_from_slice(&page.bytes);
            uncompressed += page.uncompressed;
        }
        let mut encodings = EncodingMask::new_from_encodings(self.encodings.iter());
        encodings.insert(Encoding::RLE);
        let mut metadata = ColumnChunkMetaData::builder(target.clone())
            .set_compression_codec(self.codec)
            .set_encodings_mask(encodings)
            .set_total_compressed_size(i64::try_from(bytes.len())?)
            .set_total_uncompressed_size(i64::try_from(uncompressed)?)
            .set_num_values(i64::try_from(rows)?)
            .set_dictionary_page_offset(self.dictionary.is_some().then_some(0))
            .set_data_page_offset(i64::try_from(dictionary_bytes)?);
        let statistics: Option<Vec<PageStatistics>> = self.pages.iter().map(|page| page.statistics.clone()).collect();
        if let Some(statistics) = statistics.as_ref().and_then(|pages| of_chunk(target, pages)) {
            metadata = metadata.set_statistics(statistics);
        }
        let column_index = statistics.map(|pages| column_index(target, &pages, self.ascending)).transpose()?;
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: rows as u64,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index,
            offset_index: Some(offsets.build()),
        };
        Ok(EncodedColumn::Raw { bytes: bytes.freeze(), close: Box::new(close) })
    }
}

/// The size before compression of a page with its header. A page header (Thrift, compact) starts with the page's type and its two sizes.
pub(super) fn uncompressed_bytes(page: &[u8]) -> Result<usize, ParquetError> {
    let damaged = || ParquetError::General("a page header is damaged".to_owned());
    let mut at = 0;
    let mut fields = [0_u64; 3];
    for field in &mut fields {
        // the next field, a 32-bit integer
        if page.get(at) != Some(&0x15) {
            return Err(damaged());
        }
        at += 1;
        let mut shift = 0;
        loop {
            let byte = *page.get(at).ok_or_else(damaged)?;
            at += 1;
            *field |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
            if shift > 28 {
                return Err(damaged());
            }
        }
        // zigzag of a number that is never negative
        *field >>= 1;
    }
    let compressed = usize::try_from(fields[2])?;
    let header = page.len().checked_sub(compressed).ok_or_else(damaged)?;
    Ok(header + usize::try_from(fields[1])?)
}
