//! A table as a catalog of Hive's kind describes it: what Athena, Spark and Trino must know before they open its files.
//!
//! Names, types and properties are those that Hudi's own synchronisation writes (hudi-aws, `AWSGlueCatalogSyncClient`, and hudi-sync-common,
//! `SparkDataSourceTableUtils`): Hudi's five columns first, partition columns apart from the others, the whole schema as Spark's JSON
//! among the parameters. Nothing in it changes with a commit that changes neither columns nor partitions.

use crate::error::{Area, Error, Kind, Result};
use crate::table::TableView;
use arrow::datatypes::{DataType, Field, Schema};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Readers' classes for a copy-on-write table of Hudi's, and for the way in which its files' rows become Hive's.
pub(super) const INPUT_FORMAT: &str = "org.apache.hudi.hadoop.HoodieParquetInputFormat";
pub(super) const OUTPUT_FORMAT: &str = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat";
pub(super) const SERDE: &str = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe";

/// Longest value of a table's parameter that all catalogs take: a longer schema is spread over several.
const MOST_VALUE_CHARS: usize = 4000;

/// Longest comments that the catalog takes, in bytes, of a table and of a column; a column's has one line. MySQL takes 2,048 and 1,024 characters.
const MOST_COMMENT_BYTES: usize = 2048;
const MOST_COLUMN_COMMENT_BYTES: usize = 255;

/// A column, as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogColumn {
    /// Lower case.
    pub name: String,
    /// Hive's name of the type.
    pub data_type: String,
    /// The source's comment; may be empty.
    pub comment: String,
}

/// A table, as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogEntry {
    /// The database in the catalog.
    pub database: String,
    /// The table, lower case.
    pub name: String,
    /// Its folder, as `s3://bucket/prefix/database/table`.
    pub location: String,
    /// All but the partition columns.
    pub columns: Vec<CatalogColumn>,
    /// The partition columns.
    pub partition_keys: Vec<CatalogColumn>,
    /// The source's comment on the table; may be empty.
    pub comment: String,
    /// Table parameters.
    pub parameters: BTreeMap<String, String>,
    /// Values of the partition columns → the partition's path below the table.
    pub partitions: BTreeMap<Vec<String>, String>,
}

/// What a table is described from.
#[derive(Debug, Clone, Copy)]
pub struct Described<'a> {
    /// The database in the catalog.
    pub database: &'a str,
    /// The table in the lake.
    pub name: &'a str,
    /// Its folder, as other readers call it.
    pub location: &'a str,
    /// Its columns, without Hudi's own.
    pub columns: &'a Schema,
    /// Which of them it is partitioned by.
    pub partition_columns: &'a [String],
    /// The source's comment on it.
    pub comment: &'a str,
    /// Its comments on columns, by their name.
    pub column_comments: &'a BTreeMap<String, String>,
    /// Parameters besides ours.
    pub parameters: &'a BTreeMap<String, String>,
}

impl CatalogEntry {
    /// Describes a table whose files lie in the partitions `paths`.
    ///
    /// # Errors
    /// Two columns whose names differ in their case alone: no catalog can tell them apart.
    pub fn describe<'a>(described: &Described<'_>, paths: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let Described { database, name, location, columns, partition_columns, comment, column_comments, parameters } = *described;
        let all = TableView::with_meta_columns(columns);
        let mut seen: BTreeMap<String, &str> = BTreeMap::new();
        for field in all.fields() {
            if let Some(other) = seen.insert(field.name().to_lowercase(), field.name()) {
                return Err(Error::new(
                    Area::Lake,
                    Kind::Data,
                    "two columns can't be told apart in the catalog, which knows no capitals",
                )
                .with("table", format!("{database}.{name}"))
                .with("columns", format!("{other}, {}", field.name()))
                .remedy("leave one out, or rename it at the source; readers of the files themselves are not concerned"));
            }
        }
        let is_partition = |field: &Field| partition_columns.contains(field.name());
        let (keys, others): (Vec<&Field>, Vec<&Field>) =
            all.fields().iter().map(AsRef::as_ref).partition(|field| is_partition(field));
        // in the order of the path
        let keys: Vec<&Field> =
            partition_columns.iter().filter_map(|column| keys.iter().find(|field| field.name() == column).copied()).collect();
        let partitions = match keys.is_empty() {
            true => BTreeMap::new(),
            false => paths.into_iter().map(|path| (partition_values(path), path.to_owned())).collect(),
        };
        let mut all_parameters = spark_parameters(&others, &keys, column_comments);
        let catalog_column = |field: &Field| CatalogColumn {
            name: field.name().to_lowercase(),
            data_type: hive_type(field.data_type()),
            comment: column_comments
                .get(field.name())
                .map(|comment| shortened(&comment.replace(|c: char| c.is_control() && c != '\t', " "), MOST_COLUMN_COMMENT_BYTES))
                .unwrap_or_default(),
        };
        all_parameters.insert("EXTERNAL".into(), "TRUE".into());
        // readers must list the folder: there is no metadata table
        all_parameters.insert("hudi.metadata-listing-enabled".into(), "FALSE".into());
        all_parameters.extend(parameters.clone());
        Ok(Self {
            database: database.to_owned(),
            name: name.to_lowercase(),
            location: location.to_owned(),
            columns: others.into_iter().map(catalog_column).collect(),
            partition_keys: keys.into_iter().map(catalog_column).collect(),
            comment: shortened(&comment.replace(|c: char| c.is_control() && !"\t\r\n".contains(c), " "), MOST_COMMENT_BYTES),
            parameters: all_parameters,
            partitions,
        })
    }

    /// What the reader's serde is told.
    pub fn serde_parameters(&self) -> BTreeMap<String, String> {
        [("serialization.format", "1"), ("path", self.location.as_str()), ("hoodie.query.as.ro.table", "false")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    /// The folder of a partition.
    pub fn partition_location(&self, path: &str) -> String {
        format!("{}/{path}", self.location)
    }
}

/// As much of a text as fits.
fn shortened(text: &str, most_bytes: usize) -> String {
    const MORE: &str = "…";
    if text.len() <= most_bytes {
        return text.to_owned();
    }
    let end = (0..=most_bytes - MORE.len()).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}{MORE}", &text[..end])
}

/// The values in a partition's path, `sport=baseball/day=2024-01-05`, without Hive's escapes.
fn partition_values(path: &str) -> Vec<String> {
    path.split('/').map(|part| unescape(part.split_once('=').map_or(part, |(_, value)| value))).collect()
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match hex {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Hive's name of the type that a column's values have in the files.
fn hive_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "boolean".into(),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => "int".into(),
        DataType::Int64 => "bigint".into(),
        DataType::Float32 => "float".into(),
        DataType::Float64 => "double".into(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        DataType::Date32 => "date".into(),
        DataType::Timestamp(..) => "timestamp".into(),
        DataType::Binary | DataType::LargeBinary | DataType::FixedSizeBinary(_) => "binary".into(),
        DataType::List(item) | DataType::LargeList(item) => format!("array<{}>", hive_type(item.data_type())),
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|field| format!("{}:{}", field.name().to_lowercase(), hive_type(field.data_type())));
            format!("struct<{}>", fields.collect::<Vec<_>>().join(","))
        }
        _ => "string".into(),
    }
}

/// Spark's name of the type, as its JSON has it.
fn spark_type(data_type: &DataType) -> Value {
    match data_type {
        DataType::Int8 | DataType::Int16 | DataType::Int32 => json!("integer"),
        DataType::Int64 => json!("long"),
        DataType::List(item) | DataType::LargeList(item) => {
            json!({"type": "array", "elementType": spark_type(item.data_type()), "containsNull": item.is_nullable()})
        }
        DataType::Struct(fields) => spark_struct(fields.iter().map(AsRef::as_ref), &BTreeMap::new()),
        other => json!(hive_type(other)),
    }
}

fn spark_struct<'a>(fields: impl Iterator<Item = &'a Field>, comments: &BTreeMap<String, String>) -> Value {
    let fields: Vec<Value> = fields
        .map(|field| {
            let metadata = comments.get(field.name()).map_or_else(|| json!({}), |comment| json!({"comment": comment}));
            json!({"name": field.name(), "type": spark_type(field.data_type()), "nullable": field.is_nullable(), "metadata": metadata})
        })
        .collect();
    json!({"type": "struct", "fields": fields})
}

/// With these Spark knows the names with their capitals, and the types that Hive has no name for.
fn spark_parameters(columns: &[&Field], keys: &[&Field], comments: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    // a partition column comes last
    let schema = spark_struct(columns.iter().chain(keys).copied(), comments).to_string();
    let parts: Vec<String> =
        schema.chars().collect::<Vec<_>>().chunks(MOST_VALUE_CHARS).map(|part| part.iter().collect()).collect();
    let mut parameters = BTreeMap::from([
        ("spark.sql.sources.provider".to_owned(), "hudi".to_owned()),
        ("spark.sql.sources.schema.numParts".to_owned(), parts.len().to_string()),
    ]);
    let numbered = |key: &str, number: usize| format!("spark.sql.sources.schema.{key}.{number}");
    parameters.extend(parts.into_iter().enumerate().map(|(number, part)| (numbered("part", number), part)));
    if !keys.is_empty() {
        parameters.insert("spark.sql.sources.schema.numPartCols".into(), keys.len().to_string());
        parameters.extend(keys.iter().enumerate().map(|(number, field)| (numbered("partCol", number), field.name().clone())));
    }
    parameters
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use arrow::datatypes::TimeUnit;
    use std::sync::Arc;

    /// Tickets, partitioned by sport and month, with what is odd about names and types.
    pub(crate) fn tickets() -> CatalogEntry {
        let columns = Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("Price", DataType::Decimal128(12, 2), true),
            Field::new("sport", DataType::Utf8, true),
            Field::new("v", DataType::List(Arc::new(Field::new("item", DataType::Float32, true))), true),
            Field::new("_commit_ts", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
            Field::new("start_month", DataType::Utf8, true),
        ]);
        let described = Described {
            database: "lake_shop",
            name: "Tickets",
            location: "s3://bucket/lake/shop/Tickets",
            columns: &columns,
            partition_columns: &["sport".to_owned(), "start_month".to_owned()],
            comment: "all that's sold",
            column_comments: &BTreeMap::from([("Price".to_owned(), "what the customer's paid".to_owned())]),
            parameters: &BTreeMap::from([("owner".to_owned(), "it's us".to_owned())]),
        };
        CatalogEntry::describe(&described, ["sport=a%2Fb/start_month=2026-01", "sport=ü/start_month=__HIVE_DEFAULT_PARTITION__"])
            .unwrap()
    }

    /// A table of these columns and nothing else.
    fn describe(columns: &Schema) -> Result<CatalogEntry> {
        let none = BTreeMap::new();
        let described = Described {
            database: "d",
            name: "t",
            location: "s3://b/d/t",
            columns,
            partition_columns: &[],
            comment: "",
            column_comments: &none,
            parameters: &none,
        };
        CatalogEntry::describe(&described, [""])
    }

    #[test]
    fn a_partitioned_table() {
        insta::assert_debug_snapshot!(tickets());
    }

    #[test]
    fn a_wide_schema_is_spread_over_parameters() {
        let columns = Schema::new((0..200).map(|i| Field::new(format!("column_{i}"), DataType::Int32, true)).collect::<Vec<_>>());
        let table = describe(&columns).unwrap();
        let parts: usize = table.parameters["spark.sql.sources.schema.numParts"].parse().unwrap();
        let part = |number| table.parameters[&format!("spark.sql.sources.schema.part.{number}")].as_str();
        assert!(parts > 3 && (0..parts).all(|number| part(number).len() <= MOST_VALUE_CHARS));
        let schema: Value = serde_json::from_str(&(0..parts).map(part).collect::<String>()).unwrap();
        assert_eq!(schema["fields"].as_array().unwrap().len(), 205);
        assert!(table.partitions.is_empty() && table.partition_keys.is_empty());
    }

    #[test]
    fn comments_are_as_long_as_the_catalog_takes_them() {
        let columns = Schema::new(vec![Field::new("a", DataType::Int32, true), Field::new("b", DataType::Int32, true)]);
        let none = BTreeMap::new();
        let long = "ü".repeat(1024);
        let comments = BTreeMap::from([("a".to_owned(), "two\nlines".to_owned()), ("b".to_owned(), long.clone())]);
        let described = Described {
            database: "d",
            name: "t",
            location: "s3://b/d/t",
            columns: &columns,
            partition_columns: &[],
            comment: &format!("two\nlines\0 {long}x"),
            column_comments: &comments,
            parameters: &none,
        };
        let table = CatalogEntry::describe(&described, [""]).unwrap();
        let of = |name: &str| table.columns.iter().find(|column| column.name == name).unwrap().comment.clone();
        assert_eq!((of("a").as_str(), of("b").len()), ("two lines", 255));
        assert!(of("b").ends_with("ü…") && table.comment.starts_with("two\nlines  ü"), "{}", table.comment);
        assert!(table.comment.len() <= MOST_COMMENT_BYTES && table.comment.ends_with("ü…"));
        // Spark has them whole
        assert!(table.parameters["spark.sql.sources.schema.part.0"].contains("two\\nlines"));
    }

    #[test]
    fn names_that_differ_in_capitals_alone() {
        let columns = Schema::new(vec![Field::new("a", DataType::Int32, true), Field::new("A", DataType::Int32, true)]);
        let error = describe(&columns).unwrap_err();
        assert!(error.to_string().contains("a, A"), "{error}");
    }
}
