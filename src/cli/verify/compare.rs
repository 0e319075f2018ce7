//! Comparing two sets of rows by checksums, in bounded memory. Pure.
//!
//! First both sides are folded into [`Sums`]: rows fall into buckets by the hash of their key, and a bucket holds the count and the sum of its rows'
//! hashes, so that the order in which rows come means nothing. Equal sums: equal rows. Else the rows of the differing buckets are read
//! again, as [`Exact`], which knows keys and columns.

use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::collections::{BTreeMap, BTreeSet};
use xxhash_rust::xxh3::xxh3_64;

/// Buckets of [`Sums`].
const BUCKETS: usize = 1 << 16;
/// Buckets that are compared row by row at most: beyond, a table is so different that more keys say nothing more.
const MOST_EXACT: usize = 1 << 11;

/// The number of a bucket.
pub(super) type Bucket = u16;

/// The columns that are compared, and which of them are the key.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// The source's columns with their lake types.
    pub(super) columns: SchemaRef,
    /// Indices of the key's columns.
    pub(super) key: Vec<usize>,
}

impl Shape {
    /// The rows with this shape's columns in their order and types.
    pub(super) fn adapt(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.columns.fields().iter().map(|field| {
            let column = batch.column_by_name(field.name()).ok_or_else(|| Error::bug("a column that was asked for is missing"))?;
            if column.data_type() == field.data_type() {
                return Ok(column.clone());
            }
            cast(column, field.data_type()).map_err(columnar)
        });
        let fields: Vec<_> = self.columns.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let schema = std::sync::Arc::new(arrow::datatypes::Schema::new(fields));
        RecordBatch::try_new(schema, columns.collect::<Result<Vec<ArrayRef>>>()?).map_err(columnar)
    }

    /// Each row's bytes of the key, hashed.
    fn key_hashes(&self, batch: &RecordBatch) -> Result<Vec<u64>> {
        let columns: Vec<ArrayRef> = self.key.iter().map(|&i| batch.column(i).clone()).collect();
        hashes(&columns)
    }
}

/// A hash a row over these columns: of the bytes of `arrow::row`, which are the same for the same values.
fn hashes(columns: &[ArrayRef]) -> Result<Vec<u64>> {
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let converter = RowConverter::new(fields).map_err(columnar)?;
    let rows = converter.convert_columns(columns).map_err(columnar)?;
    Ok(rows.iter().map(|row| xxh3_64(row.as_ref())).collect())
}

fn bucket(key_hash: u64) -> Bucket {
    (key_hash >> 48) as Bucket
}

/// One side's checksums.
#[derive(Debug, Clone)]
pub(super) struct Sums {
    buckets: Vec<(u64, u64)>,
    /// Rows of this side.
    pub(super) rows: u64,
}

impl Sums {
    pub(super) fn new() -> Self {
        Self { buckets: vec![(0, 0); BUCKETS], rows: 0 }
    }

    pub(super) fn add(&mut self, shape: &Shape, batch: &RecordBatch) -> Result<()> {
        let batch = shape.adapt(batch)?;
        for (key, row) in shape.key_hashes(&batch)?.into_iter().zip(hashes(batch.columns())?) {
            let (count, sum) = &mut self.buckets[usize::from(bucket(key))];
            *count += 1;
            *sum = sum.wrapping_add(row);
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// The buckets in which the sides differ; not all of them if there are very many.
    pub(super) fn differing(&self, other: &Sums) -> BTreeSet<Bucket> {
        let differs = |i: &usize| self.buckets[*i] != other.buckets[*i];
        (0..BUCKETS).filter(differs).take(MOST_EXACT).map(|i| i as Bucket).collect()
    }
}

/// One side's rows in some buckets.
#[derive(Debug, Clone, Default)]
pub(super) struct Exact {
    /// The key as text → a hash a column.
    rows: BTreeMap<String, Vec<u64>>,
}

/// How a key differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Difference {
    /// The lake lacks it.
    MissingInLake,
    /// The source lacks it.
    OnlyInLake,
    /// It has other values in these columns.
    Columns(Vec<String>),
    /// The lake has it more than once.
    Twice,
}

impl Exact {
    pub(super) fn add(&mut self, shape: &Shape, batch: &RecordBatch, wanted: &BTreeSet<Bucket>) -> Result<()> {
        let batch = shape.adapt(batch)?;
        let hits = shape.key_hashes(&batch)?.into_iter().enumerate().filter(|(_, key)| wanted.contains(&bucket(*key)));
        let indices: UInt32Array = hits.map(|(i, _)| i as u32).collect();
        if indices.is_empty() {
            return Ok(());
        }
        let batch = take_record_batch(&batch, &indices).map_err(columnar)?;
        let columns = batch.columns().iter().map(|column| hashes(std::slice::from_ref(column))).collect::<Result<Vec<_>>>()?;
        let options = FormatOptions::default().with_null("NULL");
        let mut key = Vec::new();
        for &i in &shape.key {
            let formatter = ArrayFormatter::try_new(batch.column(i), &options).map_err(columnar)?;
            key.push((shape.columns.field(i).name(), shape.columns.field(i).data_type() == &DataType::Utf8, formatter));
        }
        for row in 0..batch.num_rows() {
            let text: Vec<String> = key
                .iter()
                .map(
                    |(name, is_text, value)| {
                        if *is_text { format!("{name}='{}'", value.value(row)) } else { format!("{name}={}", value.value(row)) }
                    },
                )
                .collect();
            let hashes: Vec<u64> = columns.iter().map(|column| column[row]).collect();
            // a key that is there twice: its hashes no longer fit any row
            self.rows.entry(text.join(", ")).and_modify(|known| known.push(1)).or_insert(hashes);
        }
        Ok(())
    }

    /// The keys that differ, and a hash of both sides' rows: equal again while nobody changes them.
    pub(super) fn differences(&self, lake: &Exact, shape: &Shape) -> BTreeMap<String, (Difference, u64)> {
        let mut found = BTreeMap::new();
        for key in self.rows.keys().chain(lake.rows.keys()) {
            let (source, lake) = (self.rows.get(key), lake.rows.get(key));
            let difference = match (source, lake) {
                (Some(source), Some(lake)) if source == lake => continue,
                (_, Some(lake)) if lake.len() > shape.columns.fields().len() => Difference::Twice,
                (Some(source), Some(lake)) => {
                    let differing = source.iter().zip(lake).zip(shape.columns.fields()).filter(|((a, b), _)| a != b);
                    Difference::Columns(differing.map(|(_, field)| field.name().clone()).collect())
                }
                (Some(_), None) => Difference::MissingInLake,
                (None, _) => Difference::OnlyInLake,
            };
            let bytes: Vec<u8> = [source, lake]
                .iter()
                .flat_map(|side| side.iter().flat_map(|hashes| hashes.iter()))
                .flat_map(|hash| hash.to_le_bytes())
                .collect();
            found.insert(key.clone(), (difference, xxh3_64(&bytes)));
        }
        found
    }
}

fn columnar(error: arrow::error::ArrowError) -> Error {
    Error::bug("rows can't be compared").caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int32Array, Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};
    use std::sync::Arc;

    fn shape() -> Shape {
        let fields = vec![Field::new("id", DataType::Int64, false), Field::new("name", DataType::Utf8, true)];
        Shape { columns: Arc::new(Schema::new(fields)), key: vec![0] }
    }

    fn batch(rows: &[(i64, Option<&str>)]) -> RecordBatch {
        let ids = Int64Array::from_iter_values(rows.iter().map(|row| row.0));
        let names: StringArray = rows.iter().map(|row| row.1).collect();
        RecordBatch::try_new(shape().columns, vec![Arc::new(ids), Arc::new(names)]).unwrap()
    }

    fn compare(source: &[(i64, Option<&str>)], lake: &[(i64, Option<&str>)]) -> Vec<String> {
        let (mut a, mut b) = (Sums::new(), Sums::new());
        source.iter().for_each(|row| a.add(&shape(), &batch(&[*row])).unwrap());
        b.add(&shape(), &batch(lake)).unwrap();
        let wanted = a.differing(&b);
        let (mut a, mut b) = (Exact::default(), Exact::default());
        a.add(&shape(), &batch(source), &wanted).unwrap();
        b.add(&shape(), &batch(lake), &wanted).unwrap();
        a.differences(&b, &shape()).into_iter().map(|(key, (difference, _))| format!("{key} {difference:?}")).collect()
    }

    #[test]
    fn each_difference_is_found_whatever_the_order() {
        let rows = [(1, Some("a")), (2, None), (3, Some(""))];
        let turned = [(3, Some("")), (1, Some("a")), (2, None)];
        assert_eq!(compare(&rows, &turned), [""; 0]);
        assert_eq!(compare(&rows, &turned[..2]), ["id=2 MissingInLake"]);
        assert_eq!(compare(&rows[..2], &turned), ["id=3 OnlyInLake"]);
        assert_eq!(compare(&rows, &[(1, Some("a")), (2, Some("")), (3, Some(""))]), ["id=2 Columns([\"name\"])"]);
        assert_eq!(compare(&rows, &[(1, Some("a")), (1, Some("a")), (2, None), (3, Some(""))]), ["id=1 Twice"]);
        assert_eq!(compare(&[], &[]), [""; 0]);
    }

    #[test]
    fn columns_are_found_by_name_and_cast() {
        let narrow = RecordBatch::try_from_iter([
            ("name", Arc::new(StringArray::from(vec!["a"])) as ArrayRef),
            ("more", Arc::new(Int32Array::from(vec![7])) as ArrayRef),
            ("id", Arc::new(Int32Array::from(vec![1])) as ArrayRef),
        ])
        .unwrap();
        let (mut a, mut b) = (Sums::new(), Sums::new());
        a.add(&shape(), &batch(&[(1, Some("a"))])).unwrap();
        b.add(&shape(), &narrow).unwrap();
        assert!(a.differing(&b).is_empty());
    }
}
