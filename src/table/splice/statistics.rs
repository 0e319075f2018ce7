//! Least and greatest values of pages, and of the chunks that are put together from them.

use super::dictionary::{Dictionary, NULL};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{max, max_binary_view, min, min_binary_view};
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use parquet::basic::{BoundaryOrder, Type};
use parquet::data_type::{ByteArray, FixedLenByteArray};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnIndexBuilder;
use parquet::file::page_index::column_index::{ColumnIndexMetaData, PrimitiveColumnIndex};
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::schema::types::ColumnDescPtr;

/// Longer values may have been cut in a page index.
const CUT_BYTES: usize = 64;

/// What is known of one page's values.
#[derive(Debug, Clone, Default)]
pub(super) struct PageStatistics {
    /// Least and greatest value as Parquet has them in statistics; `None` if all are NULL.
    pub(super) bounds: Option<(Vec<u8>, Vec<u8>)>,
    /// NULLs.
    pub(super) nulls: i64,
}

/// The statistics of a page in a column index.
pub(super) fn of_page(index: &ColumnIndexMetaData, page: usize) -> Option<PageStatistics> {
    let bounds = match index {
        ColumnIndexMetaData::NONE | ColumnIndexMetaData::INT96(_) => return None,
        ColumnIndexMetaData::BOOLEAN(index) => bounds_of(index, page, |value| vec![u8::from(*value)]),
        ColumnIndexMetaData::INT32(index) => bounds_of(index, page, |value| value.to_le_bytes().to_vec()),
        ColumnIndexMetaData::INT64(index) => bounds_of(index, page, |value| value.to_le_bytes().to_vec()),
        ColumnIndexMetaData::FLOAT(index) => bounds_of(index, page, |value| value.to_le_bytes().to_vec()),
        ColumnIndexMetaData::DOUBLE(index) => bounds_of(index, page, |value| value.to_le_bytes().to_vec()),
        ColumnIndexMetaData::BYTE_ARRAY(index) | ColumnIndexMetaData::FIXED_LEN_BYTE_ARRAY(index) => {
            index.min_value(page).zip(index.max_value(page)).map(|(min, max)| (min.to_vec(), max.to_vec()))
        }
    };
    let nulls = index.null_count(page)?;
    (bounds.is_some() || index.is_null_page(page)).then_some(PageStatistics { bounds, nulls })
}

fn bounds_of<T>(index: &PrimitiveColumnIndex<T>, page: usize, bytes: impl Fn(&T) -> Vec<u8>) -> Option<(Vec<u8>, Vec<u8>)> {
    Some((bytes(index.min_value(page)?), bytes(index.max_value(page)?)))
}

/// The statistics of the values of a page that is encoded with a dictionary; `None` for types that never are.
pub(super) fn of_values(values: &ArrayRef, width: Option<usize>) -> Option<PageStatistics> {
    let nulls = i64::try_from(values.null_count()).ok()?;
    let bytes = |low: Vec<u8>, high: Vec<u8>| Some((low, high));
    let bounds = if values.null_count() == values.len() {
        None
    } else {
        match values.data_type() {
            DataType::BinaryView => {
                let values = values.as_binary_view();
                bytes(min_binary_view(values)?.to_vec(), max_binary_view(values)?.to_vec())
            }
            DataType::Int32 => {
                let values = values.as_primitive::<Int32Type>();
                bytes(min(values)?.to_le_bytes().to_vec(), max(values)?.to_le_bytes().to_vec())
            }
            DataType::Date32 => {
                let values = values.as_primitive::<Date32Type>();
                bytes(min(values)?.to_le_bytes().to_vec(), max(values)?.to_le_bytes().to_vec())
            }
            DataType::Int64 => {
                let values = values.as_primitive::<Int64Type>();
                bytes(min(values)?.to_le_bytes().to_vec(), max(values)?.to_le_bytes().to_vec())
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                let values = values.as_primitive::<TimestampMicrosecondType>();
                bytes(min(values)?.to_le_bytes().to_vec(), max(values)?.to_le_bytes().to_vec())
            }
            DataType::Decimal128(_, _) => {
                let values = values.as_primitive::<Decimal128Type>();
                let end = |value: i128| value.to_be_bytes()[16 - width.unwrap_or(16)..].to_vec();
                bytes(end(min(values)?), end(max(values)?))
            }
            _ => return None,
        }
    };
    Some(PageStatistics { bounds, nulls })
}

/// The order of a dictionary's values: finds the bounds of a page from indices alone.
pub(super) struct Ranks {
    rank: Vec<u32>,
    by_rank: Vec<u32>,
}

impl Ranks {
    /// `None` for types whose order is another one.
    pub(super) fn new(dictionary: &Dictionary, stored: Type, bytes: bool) -> Option<Self> {
        let mut by_rank: Vec<u32> = (0..u32::try_from(dictionary.len()).ok()?).collect();
        let value = |index: &u32| dictionary.value(*index).unwrap_or_default();
        match stored {
            Type::BYTE_ARRAY if bytes => by_rank.sort_unstable_by(|a, b| value(a).cmp(value(b))),
            Type::INT32 => by_rank.sort_unstable_by_key(|index| value(index).try_into().ok().map(i32::from_le_bytes)),
            Type::INT64 => by_rank.sort_unstable_by_key(|index| value(index).try_into().ok().map(i64::from_le_bytes)),
            Type::FIXED_LEN_BYTE_ARRAY => by_rank.sort_unstable_by_key(|index| signed(value(index))),
            _ => return None,
        }
        let mut rank = vec![0; by_rank.len()];
        for (place, index) in by_rank.iter().enumerate() {
            rank[*index as usize] = u32::try_from(place).ok()?;
        }
        Some(Self { rank, by_rank })
    }

    /// The statistics of a page; `None` if an index is out of bounds.
    pub(super) fn of(&self, dictionary: &Dictionary, indices: &[u32]) -> Option<PageStatistics> {
        let (mut least, mut most, mut nulls) = (u32::MAX, 0, 0);
        for index in indices {
            if *index == NULL {
                nulls += 1;
            } else {
                let rank = *self.rank.get(*index as usize)?;
                least = least.min(rank);
                most = most.max(rank);
            }
        }
        let value = |rank: u32| dictionary.value(*self.by_rank.get(rank as usize)?).map(<[u8]>::to_vec);
        let bounds = if least == u32::MAX { None } else { Some((value(least)?, value(most)?)) };
        Some(PageStatistics { bounds, nulls })
    }
}

/// The column index of a chunk with these pages.
pub(super) fn column_index(
    column: &ColumnDescPtr,
    pages: &[PageStatistics],
    ascending: bool,
) -> Result<ColumnIndexMetaData, ParquetError> {
    let mut index = ColumnIndexBuilder::new(column.physical_type());
    for page in pages {
        match &page.bounds {
            Some((min, max)) => index.append(false, min.clone(), max.clone(), page.nulls),
            None => index.append(true, Vec::new(), Vec::new(), page.nulls),
        }
    }
    index.set_boundary_order(if ascending { BoundaryOrder::ASCENDING } else { BoundaryOrder::UNORDERED });
    index.build()
}

/// The statistics of a chunk with these pages.
pub(super) fn of_chunk(column: &ColumnDescPtr, pages: &[PageStatistics]) -> Option<Statistics> {
    let nulls = u64::try_from(pages.iter().map(|page| page.nulls).sum::<i64>()).ok();
    let bounds = || pages.iter().filter_map(|page| page.bounds.as_ref());
    macro_rules! numbers {
        ($variant:ident, $type:ty, $less:expr) => {{
            let read = |bytes: &[u8]| bytes.try_into().ok().map(<$type>::from_le_bytes);
            let least = bounds().filter_map(|(min, _)| read(min)).min_by($less);
            let most = bounds().filter_map(|(_, max)| read(max)).max_by($less);
            Statistics::$variant(ValueStatistics::new(least, most, None, nulls, false))
        }};
    }
    Some(match column.physical_type() {
        Type::BOOLEAN => {
            let least = bounds().map(|(min, _)| min.first() == Some(&1)).min();
            let most = bounds().map(|(_, max)| max.first() == Some(&1)).max();
            Statistics::Boolean(ValueStatistics::new(least, most, None, nulls, false))
        }
        Type::INT32 => numbers!(Int32, i32, i32::cmp),
        Type::INT64 => numbers!(Int64, i64, i64::cmp),
        Type::FLOAT => numbers!(Float, f32, f32::total_cmp),
        Type::DOUBLE => numbers!(Double, f64, f64::total_cmp),
        Type::BYTE_ARRAY => {
            let least = bounds().map(|(min, _)| min).min().cloned();
            let most = bounds().map(|(_, max)| max).max().cloned();
            let exact = |bound: &Option<Vec<u8>>| bound.as_ref().is_some_and(|bound| bound.len() < CUT_BYTES);
            let (min_exact, max_exact) = (exact(&least), exact(&most));
            let values = ValueStatistics::new(least.map(ByteArray::from), most.map(ByteArray::from), None, nulls, false);
            Statistics::ByteArray(values.with_min_is_exact(min_exact).with_max_is_exact(max_exact))
        }
        Type::FIXED_LEN_BYTE_ARRAY => {
            // decimals: big-endian two's complement
            let least = bounds().map(|(min, _)| min).min_by_key(|bytes| signed(bytes)).cloned();
            let most = bounds().map(|(_, max)| max).max_by_key(|bytes| signed(bytes)).cloned();
            let value = |bytes: Option<Vec<u8>>| bytes.map(|bytes| FixedLenByteArray::from(ByteArray::from(bytes)));
            Statistics::FixedLenByteArray(ValueStatistics::new(value(least), value(most), None, nulls, false))
        }
        Type::INT96 => return None,
    })
}

fn signed(bytes: &[u8]) -> i128 {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    bytes.iter().fold(if negative { -1 } else { 0 }, |value, byte| value << 8 | i128::from(*byte))
}
