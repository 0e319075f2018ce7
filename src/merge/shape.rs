//! What a lake table's columns are: the source's in their order, Binlake's own, then the partition columns.

use super::history::HistoryRule;
use super::partition;
use super::rule::{PartitionBy, Treatment};
use super::transformed::TransformedColumns;
use crate::error::{Area, Error, Kind, Result};
use crate::event::TableSchema;
use crate::table::TableSpec;
use crate::transform::{BoundTransform, Transform};
use arrow::array::{Array, ArrayRef, RecordBatch, UInt64Array, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use std::collections::HashSet;
use std::sync::Arc;

/// The lake column that holds the source's commit time of the transaction that wrote the row; also Hudi's ordering field.
pub const COMMIT_TS: &str = "_commit_ts";
/// The lake column that holds the GTID (or file:offset) of the transaction that wrote the row.
pub const POSITION: &str = "_position";

/// Where a lake column's values come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The source's column with this index.
    Source(usize),
    /// The transaction's commit time.
    CommitTs,
    /// The transaction's position as text.
    Position,
    /// The partition field with this index, computed from its source column.
    Derived(usize),
}

/// A lake table's columns, made from its source's shape and its partition rule.
#[derive(Debug, Clone)]
pub struct LakeShape {
    source: Arc<TableSchema>,
    source_arrow: SchemaRef,
    columns: SchemaRef,
    origins: Vec<Origin>,
    partition_by: Option<PartitionBy>,
    partition_columns: Vec<String>,
    ordering: Option<String>,
    /// The columns that `partition_by` names and the transform computes.
    computed: Vec<String>,
    /// See [`LakeShape::partition_mark`].
    partition_mark: Option<String>,
    /// What the table's transform makes of `columns`; `None`: they are the lake's.
    transformed: Option<Arc<TransformedColumns>>,
    /// How the table's history is kept, where rows that it can't read become dead letters. Beside a transform only where that gives all columns, and what one
    /// of before gave.
    refuses: Option<HistoryRule>,
}

impl LakeShape {
    /// The lake's columns for a source table as its rule has it. Fails as [`LakeShape::new`] does, and if the table's transform can't be bound.
    pub fn treated(source: Arc<TableSchema>, treatment: &Treatment) -> Result<Self> {
        let (by, ordering) = (treatment.partition_by.as_ref(), treatment.ordering.as_deref());
        let everything = treatment.kept.as_ref().map(|_| Transform::everything()).transpose()?;
        let Some(transform) = treatment.transform.as_ref().or(everything.as_ref()) else {
            let shape = Self::new(source, by)?.with_ordering(ordering)?;
            return Ok(Self { refuses: treatment.refuses.clone(), ..shape });
        };
        let table = source.table.clone();
        let at = |error: Error| error.with("table", &table);
        let bound = bound_to(&source, transform).map_err(at)?;
        let computed = computed_partitions(&bound, by).map_err(at)?;
        let mut shape = Self::with_computed(source, by, &computed)?.with_ordering(ordering)?;
        // the texts may hold a secret
        let texts = computed.iter().filter_map(|column| transform.text_of(column.name()));
        let texts: String = texts.map(|text| text + "\n").collect();
        shape.partition_mark = (!computed.is_empty()).then(|| format!("{:016x}", xxhash_rust::xxh3::xxh3_64(texts.as_bytes())));
        shape.transformed = Some(Arc::new(TransformedColumns::new(&shape, bound, treatment.kept.as_deref()).map_err(at)?));
        shape.refuses = treatment.refuses.clone().filter(|_| treatment.transform.is_none());
        Ok(shape)
    }

    /// Whether the table is partitioned.
    pub fn is_partitioned(&self) -> bool {
        !self.partition_columns.is_empty()
    }

    /// What marks the expressions by which the table is partitioned, where it is by computed columns: with others, rows would lie elsewhere.
    pub fn partition_mark(&self) -> Option<&str> {
        self.partition_mark.as_deref()
    }

    /// A column by which the table is partitioned, or of which that is computed, for rows of the source.
    pub(super) fn partition_source(&self, name: &str, source: &[ArrayRef]) -> Result<ArrayRef> {
        match (self.is_computed(name), self.transform(), self.source.index_of(name)) {
            (true, Some(transform), _) => transform.of_row(name, source),
            (false, _, Some(column)) => Ok(source[column].clone()),
            _ => Err(Error::bug("a partition column is missing").with("column", name)),
        }
    }

    /// Whether a column by which the table is partitioned is a computed one.
    pub(super) fn is_computed(&self, name: &str) -> bool {
        self.computed.iter().any(|computed| computed == name)
    }

    /// Whether the table's rows are what a transform makes of the source's.
    pub fn is_transformed(&self) -> bool {
        self.transformed.is_some()
    }

    /// How the table's history is kept, where rows that it can't read become dead letters.
    pub(super) fn refuses(&self) -> Option<&HistoryRule> {
        self.refuses.as_ref()
    }

    /// Whether rows that can't be transformed, or that the history can't read, become dead letters.
    pub fn has_dead_letters(&self) -> bool {
        self.refuses.is_some() || self.transformed.as_ref().is_some_and(|transformed| transformed.bound().has_dead_letters())
    }

    /// The lake's columns for a source table. Fails (`Data`) on a table without a key, on a partition column that doesn't exist or
    /// has no such function, and on columns that differ only in case or are called as Binlake's own.
    pub fn new(source: Arc<TableSchema>, partition_by: Option<&PartitionBy>) -> Result<Self> {
        Self::with_computed(source, partition_by, &[])
    }

    /// The same; `computed` are columns by which it is partitioned and that its transform computes.
    fn with_computed(source: Arc<TableSchema>, partition_by: Option<&PartitionBy>, computed: &[Field]) -> Result<Self> {
        let at = |error: Error| error.with("table", &source.table);
        if source.key.is_empty() {
            return Err(at(
                data("the table has no key").remedy("declare `key = [\"column\"]` in its [[table]], or add a primary key")
            ));
        }
        let source_arrow = source.arrow();
        let mut fields: Vec<Field> = Vec::new();
        let mut origins = Vec::new();
        let mut partition_fields = Vec::new();
        for (i, field) in partition_by.iter().flat_map(|by| &by.fields).enumerate() {
            if let Some(computed) = computed.iter().find(|computed| *computed.name() == field.column) {
                let data_type = partition::lake_type(field, computed.data_type()).map_err(at)?;
                partition_fields.push((Field::new(field.lake_column(), data_type, true), Origin::Derived(i)));
                continue;
            }
            let column = source.index_of(&field.column).ok_or_else(|| {
                at(data("`partition_by` names a column that the table lacks").with("column", &field.column))
                    .remedy("correct `partition_by` in the table's [[table]]")
            })?;
            let data_type = partition::lake_type(field, source_arrow.field(column).data_type()).map_err(at)?;
            let origin = if field.function.is_some() { Origin::Derived(i) } else { Origin::Source(column) };
            partition_fields.push((Field::new(field.lake_column(), data_type, true), origin));
        }
        let moved = |i: usize| partition_fields.iter().any(|(_, origin)| *origin == Origin::Source(i));
        for (i, field) in source_arrow.fields().iter().enumerate().filter(|(i, _)| !moved(*i)) {
            fields.push(field.as_ref().clone());
            origins.push(Origin::Source(i));
        }
        fields.push(Field::new(COMMIT_TS, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true));
        origins.push(Origin::CommitTs);
        fields.push(Field::new(POSITION, DataType::Utf8, true));
        origins.push(Origin::Position);
        let partition_columns = partition_fields.iter().map(|(field, _)| field.name().clone()).collect();
        for (mut field, origin) in partition_fields {
            if let Origin::Source(i) = origin {
                field = field.with_nullable(source_arrow.field(i).is_nullable());
            }
            fields.push(field);
            origins.push(origin);
        }
        let mut seen = HashSet::new();
        if let Some(twice) = fields.iter().find(|field| !seen.insert(field.name().to_lowercase())) {
            return Err(at(data("two columns of the lake table have one name (case aside)").with("column", twice.name()))
                .remedy("rename the column at the source, or leave the table out"));
        }
        let columns = Arc::new(Schema::new(fields));
        Ok(Self {
            source_arrow,
            columns,
            origins,
            partition_by: partition_by.cloned(),
            partition_columns,
            ordering: None,
            computed: computed.iter().map(|column| column.name().clone()).collect(),
            partition_mark: None,
            transformed: None,
            refuses: None,
            source,
        })
    }

    /// The same; a row loses against one whose value in the column `ordering` is greater.
    ///
    /// # Errors
    /// `Data` if there is no such column.
    pub fn with_ordering(mut self, ordering: Option<&str>) -> Result<Self> {
        if let Some(name) = ordering.filter(|name| self.source.index_of(name).is_none()) {
            return Err(data("`ordering` names a column that the table lacks")
                .with("column", name)
                .with("table", &self.source.table));
        }
        self.ordering = ordering.map(str::to_owned);
        Ok(self)
    }

    /// The column whose greater value wins.
    pub fn ordering(&self) -> Option<&str> {
        self.ordering.as_deref()
    }

    /// The source's shape.
    pub fn source(&self) -> &Arc<TableSchema> {
        &self.source
    }

    /// The lake's columns in the order of its files.
    pub fn columns(&self) -> &SchemaRef {
        self.transformed.as_ref().map_or(&self.columns, |transformed| transformed.columns())
    }

    /// The columns of sorted rows before the table's transform.
    pub(super) fn carried(&self) -> &SchemaRef {
        &self.columns
    }

    /// The table's transform, bound to this shape.
    pub fn transform(&self) -> Option<&BoundTransform> {
        self.transformed.as_ref().map(|transformed| transformed.bound())
    }

    /// What the table's transform makes of them.
    pub(super) fn transformed(&self) -> Option<&Arc<TransformedColumns>> {
        self.transformed.as_ref()
    }

    /// What the lake table is made as.
    pub fn spec(&self) -> TableSpec {
        TableSpec {
            database: self.source.table.database().to_owned(),
            name: self.source.table.name().to_owned(),
            columns: self.columns().clone(),
            record_key: self.key_names(),
            sort_prefix: Vec::new(),
            ordering_field: self.ordering.clone().unwrap_or_else(|| COMMIT_TS.to_owned()),
            partition_columns: self.partition_columns.clone(),
        }
    }

    /// The record key's columns.
    pub fn key_names(&self) -> Vec<String> {
        self.source.key.iter().filter_map(|&i| self.source.columns.get(i)).map(|column| column.name.clone()).collect()
    }

    pub(super) fn partition_by(&self) -> Option<&PartitionBy> {
        self.partition_by.as_ref()
    }

    pub(super) fn partition_columns(&self) -> &[String] {
        &self.partition_columns
    }

    pub(super) fn source_arrow(&self) -> &SchemaRef {
        &self.source_arrow
    }

    pub(super) fn origins(&self) -> &[Origin] {
        &self.origins
    }
}

/// A table's transform for this shape of the source's: it reads the source's columns, and Binlake's own.
fn bound_to(source: &TableSchema, transform: &Transform) -> Result<BoundTransform> {
    let own = [
        Field::new(COMMIT_TS, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new(POSITION, DataType::Utf8, true),
    ];
    let fields = source.arrow().fields().iter().cloned().chain(own.into_iter().map(Arc::new)).collect::<Vec<Arc<Field>>>();
    let key = source.key.iter().filter_map(|&i| source.columns.get(i)).map(|column| column.name.clone()).collect::<Vec<_>>();
    transform.bind(&Arc::new(Schema::new(fields)), &key, &[COMMIT_TS, POSITION])
}

/// The columns that `partition_by` names and the transform computes.
fn computed_partitions(bound: &BoundTransform, by: Option<&PartitionBy>) -> Result<Vec<Field>> {
    let mut computed: Vec<Field> = Vec::new();
    for field in by.iter().flat_map(|by| &by.fields) {
        let Some(output) = bound.columns().find(|output| *output.field.name() == field.column && output.passes.is_none()) else {
            continue;
        };
        if !output.is_of_row {
            return Err(data("`partition_by` names a column that isn't computed of the source's row alone")
                .with("column", &field.column)
                .remedy("partition by a column without lookups and without _commit_ts: where a row was before must be known"));
        }
        if computed.iter().all(|known| known.name() != output.field.name()) {
            computed.push(output.field.clone());
        }
    }
    Ok(computed)
}

/// `rows` with the columns of `wanted`, by name: cast where the type is wider now, and where a column is new, with `fill`'s value or NULL.
pub(super) fn adapt(rows: &RecordBatch, wanted: &SchemaRef, fill: Option<&RecordBatch>) -> Result<Vec<ArrayRef>> {
    wanted.fields().iter().map(|field| adapt_column(rows, field, fill).map_err(|e| e.with("column", field.name()))).collect()
}

fn adapt_column(rows: &RecordBatch, field: &Field, fill: Option<&RecordBatch>) -> Result<ArrayRef> {
    if let Some(column) = rows.column_by_name(field.name()) {
        return cast_to(column, field.data_type());
    }
    match fill.and_then(|fill| fill.column_by_name(field.name())) {
        Some(value) => {
            let first = UInt64Array::from(vec![0; rows.num_rows()]);
            cast_to(&take(value, &first, None).map_err(arrow_error)?, field.data_type())
        }
        None => Ok(new_null_array(field.data_type(), rows.num_rows())),
    }
}

fn cast_to(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    if column.data_type() == data_type {
        return Ok(column.clone());
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, data_type, &strict).map_err(|error| {
        data("a value doesn't fit the column's new type").caused_by(error).remedy("run `binlake backfill --table` for the table")
    })
}

/// A `Data` error of the lake.
pub(super) fn data(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Area::Lake, Kind::Data, what)
}

/// What Arrow refuses here is a fault of ours: the types were checked before.
pub(super) fn arrow_error(error: arrow::error::ArrowError) -> Error {
    Error::bug("a columnar operation failed").caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Column, SourceType};

    fn column(name: &str, source_type: SourceType) -> Column {
        Column { name: name.into(), source_type, nullable: true }
    }

    fn schema(columns: Vec<Column>) -> Arc<TableSchema> {
        Arc::new(TableSchema { table: "s.t".parse().unwrap(), columns, key: vec![0] })
    }

    #[test]
    fn own_columns_follow_the_sources_and_partition_columns_are_last() {
        let source = schema(vec![
            column("id", SourceType::Int { unsigned: false }),
            column("country", SourceType::Int { unsigned: false }),
            column("at", SourceType::DateTime { fsp: 0 }),
        ]);
        let by: PartitionBy = "country, year(at)".parse().unwrap();
        let shape = LakeShape::new(source.clone(), Some(&by)).unwrap();
        let names: Vec<_> = shape.columns().fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names, ["id", "at", "_commit_ts", "_position", "country", "at_year"]);
        assert_eq!(shape.spec().partition_columns, ["country", "at_year"]);
        let plain = LakeShape::new(source, None).unwrap();
        assert_eq!(plain.columns().fields().len(), 5);
    }

    #[test]
    fn what_cannot_be_a_lake_table_is_refused() {
        let twice = schema(vec![column("id", SourceType::Year), column("ID", SourceType::Year)]);
        assert!(LakeShape::new(twice, None).unwrap_err().to_string().contains("column=ID"));
        let own = schema(vec![column("id", SourceType::Year), column("_position", SourceType::Year)]);
        assert!(LakeShape::new(own, None).is_err());
        let by: PartitionBy = "year(name)".parse().unwrap();
        let text = SourceType::Text { charset: "utf8mb4".into(), max_bytes: 10 };
        let wrong = LakeShape::new(schema(vec![column("id", SourceType::Year), column("name", text)]), Some(&by)).unwrap_err();
        assert_eq!(wrong.kind(), Kind::Data);
    }
}
