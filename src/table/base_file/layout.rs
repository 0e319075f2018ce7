//! Which columns a base file has, in which Parquet types, under which field ids.

use super::super::record_key::RecordKeyForm;
use super::super::sort_key;
use crate::error::{Area, Error, Kind, Result};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use parquet::basic::{ConvertedType, LogicalType, Repetition, TimeUnit as ParquetUnit, Type as Physical};
use parquet::file::metadata::SortingColumn;
use parquet::schema::types::{ColumnDescPtr, SchemaDescriptor, Type, TypePtr};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The version of [`FieldIds`] as it is stored.
const FIELD_IDS_VERSION: u32 = 1;

/// Hudi's own columns, in their order at the front of each file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum MetaColumn {
    /// Instant of the commit that last changed the row.
    CommitTime,
    /// `<instant>_<number of the job>_<number of the row in it>`.
    CommitSeqno,
    /// See [`super::super::record_key`].
    RecordKey,
    /// The partition's path.
    PartitionPath,
    /// Name of the file that holds the row.
    FileName,
}

impl MetaColumn {
    /// All, in their order.
    pub(in super::super) const ALL: [Self; 5] =
        [Self::CommitTime, Self::CommitSeqno, Self::RecordKey, Self::PartitionPath, Self::FileName];

    /// The column's name.
    pub(in super::super) const fn name(self) -> &'static str {
        match self {
            Self::CommitTime => "_hoodie_commit_time",
            Self::CommitSeqno => "_hoodie_commit_seqno",
            Self::RecordKey => "_hoodie_record_key",
            Self::PartitionPath => "_hoodie_partition_path",
            Self::FileName => "_hoodie_file_name",
        }
    }
}

/// Parquet field ids: given to a column when it is first written, and never to another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct FieldIds {
    version: u32,
    ids: BTreeMap<String, i32>,
    /// No id below this is free, whether a column has it or not; 0: none of a former column is known.
    #[serde(default, skip_serializing_if = "is_zero")]
    next: i32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

impl FieldIds {
    /// The text that [`assign_field_ids`] reads.
    pub(in super::super) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    fn of(&self, name: &str) -> Option<i32> {
        self.ids.get(name).copied()
    }
}

/// The ids of `columns` (and, for a list, of its element under `name.element`): those of `stored`, and the next free numbers for new ones
/// and for those of `replaced`, which aren't the columns of before.
pub(in super::super) fn assign_field_ids(stored: Option<&str>, columns: &Schema, replaced: &[String]) -> Result<FieldIds> {
    let mut known = match stored {
        None => FieldIds { version: FIELD_IDS_VERSION, ids: BTreeMap::new(), next: 0 },
        Some(text) => serde_json::from_str::<FieldIds>(text)
            .ok()
            .filter(|known| known.version == FIELD_IDS_VERSION)
            .ok_or_else(|| Error::new(Area::Lake, Kind::Corrupt, "the field ids in the last commit can't be read"))?,
    };
    let mut names: Vec<String> = MetaColumn::ALL.iter().map(|meta| meta.name().to_owned()).collect();
    for field in columns.fields() {
        names.push(field.name().clone());
        if matches!(field.data_type(), DataType::List(_)) {
            names.push(format!("{}.element", field.name()));
        }
    }
    let mut next = known.next.max(known.ids.values().max().copied().unwrap_or(0) + 1);
    for name in replaced {
        known.ids.remove(name);
        known.ids.remove(&format!("{name}.element"));
    }
    let keeps_count = known.next > 0 || !replaced.is_empty();
    for name in names {
        known.ids.entry(name).or_insert_with(|| {
            next += 1;
            next - 1
        });
    }
    known.next = if keeps_count { next } else { 0 };
    Ok(known)
}

/// The columns of a table's base files.
#[derive(Debug, Clone)]
pub(in super::super) struct FileLayout {
    /// The table's columns, without Hudi's; all nullable but the key.
    pub(in super::super) columns: SchemaRef,
    /// Indices into `columns` of what rows are sorted by and told apart: the sort prefix, then the record key.
    pub(in super::super) key: Vec<usize>,
    /// Names of these columns.
    pub(in super::super) key_names: Vec<String>,
    /// Names of the record key's columns, as they follow each other in its text.
    pub(in super::super) record_key: Vec<String>,
    /// How the record key is written.
    pub(in super::super) key_form: RecordKeyForm,
    /// The Parquet schema: Hudi's columns, then `columns`.
    pub(in super::super) parquet: Arc<SchemaDescriptor>,
}

impl FileLayout {
    /// The layout of files with `columns`.
    pub(in super::super) fn new(
        columns: &Schema,
        sort_prefix: &[String],
        record_key: &[String],
        partition_columns: usize,
        ids: &FieldIds,
    ) -> Result<Self> {
        let key_names = sort_key(sort_prefix, record_key);
        let key = key_names
            .iter()
            .map(|name| {
                columns.index_of(name).map_err(|_| Error::config("a record key column is not in the table").with("column", name))
            })
            .collect::<Result<Vec<_>>>()?;
        let fields: Vec<FieldRef> = columns
            .fields()
            .iter()
            .enumerate()
            .map(|(i, field)| Arc::new(Field::new(field.name(), field.data_type().clone(), !key.contains(&i))))
            .collect();
        let mut types = Vec::with_capacity(fields.len() + 5);
        for meta in MetaColumn::ALL {
            types.push(parquet_type(&Field::new(meta.name(), DataType::Utf8, true), ids)?);
        }
        for field in &fields {
            types.push(parquet_type(field, ids)?);
        }
        let root = Type::group_type_builder("binlake_record").with_fields(types).build().map_err(unexpected)?;
        Ok(Self {
            columns: Arc::new(Schema::new(fields)),
            key_form: RecordKeyForm::of(record_key.len(), partition_columns),
            record_key: record_key.to_vec(),
            key_names,
            key,
            parquet: Arc::new(SchemaDescriptor::new(Arc::new(root))),
        })
    }

    /// The Parquet column of one of Hudi's columns.
    pub(in super::super) fn meta(&self, meta: MetaColumn) -> ColumnDescPtr {
        self.parquet.column(meta as usize)
    }

    /// The root type with only the column at `index` (counted with Hudi's columns first), so that it can be encoded alone.
    pub(in super::super) fn only(&self, index: usize) -> Result<TypePtr> {
        let field = self.parquet.root_schema().get_fields()[index].clone();
        Ok(Arc::new(Type::group_type_builder("binlake_record").with_fields(vec![field]).build().map_err(unexpected)?))
    }

    /// How the rows of a file are sorted.
    pub(in super::super) fn sorting(&self) -> Vec<SortingColumn> {
        let index = |i: usize| i32::try_from(i + MetaColumn::ALL.len()).unwrap_or(0);
        self.key.iter().map(|i| SortingColumn { column_idx: index(*i), descending: false, nulls_first: true }).collect()
    }
}

/// The type in which a column is held while it is merged: strings as views, so that unchanged values are never copied, and of bytes,
/// so that they are not checked to be UTF-8 at each step.
pub(in super::super) fn memory_type(stored: &DataType) -> DataType {
    match stored {
        DataType::Utf8 | DataType::Utf8View | DataType::Binary => DataType::BinaryView,
        other => other.clone(),
    }
}

fn unexpected(error: parquet::errors::ParquetError) -> Error {
    Error::bug("a Parquet schema can't be built").caused_by(error)
}

/// Hudi's Parquet type of a column: as `AvroSchemaConverter` makes it, decimals as the shortest fixed-length array.
fn parquet_type(field: &Field, ids: &FieldIds) -> Result<TypePtr> {
    let name = field.name();
    let repetition = if field.is_nullable() { Repetition::OPTIONAL } else { Repetition::REQUIRED };
    let primitive = |physical| Type::primitive_type_builder(name, physical).with_repetition(repetition).with_id(ids.of(name));
    let built = match field.data_type() {
        DataType::Boolean => primitive(Physical::BOOLEAN).build(),
        DataType::Int32 => primitive(Physical::INT32).build(),
        DataType::Int64 => primitive(Physical::INT64).build(),
        DataType::Float32 => primitive(Physical::FLOAT).build(),
        DataType::Float64 => primitive(Physical::DOUBLE).build(),
        DataType::Date32 => primitive(Physical::INT32).with_logical_type(Some(LogicalType::Date)).build(),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            primitive(Physical::INT64).with_logical_type(Some(LogicalType::timestamp(true, ParquetUnit::MICROS))).build()
        }
        DataType::Decimal128(precision, scale) => primitive(Physical::FIXED_LEN_BYTE_ARRAY)
            .with_length(decimal_bytes(*precision))
            .with_logical_type(Some(LogicalType::decimal(i32::from(*scale), i32::from(*precision))))
            .with_precision(i32::from(*precision))
            .with_scale(i32::from(*scale))
            .build(),
        DataType::Utf8 => primitive(Physical::BYTE_ARRAY).with_logical_type(Some(LogicalType::String)).build(),
        DataType::Binary => primitive(Physical::BYTE_ARRAY).build(),
        DataType::List(element) => {
            let own_id = ids.of(name);
            let id = ids.of(&format!("{name}.element"));
            let ids = id.map(|id| ("element".to_owned(), id)).into_iter().collect();
            let ids = FieldIds { version: FIELD_IDS_VERSION, ids, next: 0 };
            let element = parquet_type(&Field::new("element", element.data_type().clone(), true), &ids)?;
            let list = Type::group_type_builder("list").with_repetition(Repetition::REPEATED).with_fields(vec![element]).build();
            Type::group_type_builder(name)
                .with_repetition(repetition)
                .with_logical_type(Some(LogicalType::List))
                .with_converted_type(ConvertedType::LIST)
                .with_fields(vec![Arc::new(list.map_err(unexpected)?)])
                .with_id(own_id)
                .build()
        }
        other => {
            return Err(Error::new(Area::Lake, Kind::Refused, "the lake has no such column type")
                .with("column", name)
                .with("type", other));
        }
    };
    Ok(Arc::new(built.map_err(unexpected)?))
}

/// The least number of bytes that hold any decimal of `precision` digits.
fn decimal_bytes(precision: u8) -> i32 {
    let largest = 10_i128.checked_pow(u32::from(precision)).map_or(i128::MAX, |power| power - 1);
    (1..16).find(|bytes| largest < 1_i128 << (8 * bytes - 1)).unwrap_or(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Schema {
        Schema::new(vec![
            Field::new("id", DataType::Int32, false),
            Field::new("price", DataType::Decimal128(9, 2), true),
            Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        ])
    }

    #[test]
    fn decimals_have_the_size_that_hudi_gives_them() {
        let sizes: Vec<i32> = [1, 2, 3, 9, 10, 12, 18, 19, 20, 38].into_iter().map(decimal_bytes).collect();
        assert_eq!(sizes, [1, 1, 2, 4, 5, 6, 8, 9, 9, 16]);
        let ids = assign_field_ids(None, &columns(), &[]).unwrap();
        let layout = FileLayout::new(&columns(), &[], &["id".to_owned()], 0, &ids).unwrap();
        let price = layout.parquet.column(6);
        assert_eq!((price.physical_type(), price.type_length()), (Physical::FIXED_LEN_BYTE_ARRAY, 4));
    }

    #[test]
    fn a_column_keeps_its_field_id_whatever_comes_before_it() {
        let first = assign_field_ids(None, &columns(), &[]).unwrap();
        let mut fields: Vec<FieldRef> = columns().fields().iter().cloned().collect();
        fields.insert(1, Arc::new(Field::new("new", DataType::Utf8, true)));
        let second = assign_field_ids(Some(&first.to_json()), &Schema::new(fields), &[]).unwrap();
        assert_eq!(first.of("price"), second.of("price"));
        assert_eq!(second.of("new"), Some(9));
        assert_eq!(second.of("_hoodie_commit_time"), Some(1));
        // dropped, and made again: another column
        let third = assign_field_ids(Some(&second.to_json()), &columns(), &["new".to_owned(), "price".to_owned()]).unwrap();
        assert_eq!((third.of("new"), third.of("price")), (None, Some(10)));
        let fourth = assign_field_ids(Some(&third.to_json()), &Schema::new(vec![Field::new("new", DataType::Utf8, true)]), &[]);
        assert_eq!(fourth.unwrap().of("new"), Some(11));
        assert!(assign_field_ids(Some("{"), &columns(), &[]).is_err());
    }
}
