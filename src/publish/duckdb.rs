//! A table as a DuckDB view over its current base files.
//!
//! The view lists the files by name: DuckDB has no Hudi reader, and a glob would find old slices as well. It begins with an empty, typed
//! row set, so that the columns have the table's order and types even where older files lack them or have narrower ones.

use crate::merge::{HISTORY_SUFFIX, Questions, is_history};
use crate::table::FileSlice;
use arrow::datatypes::{DataType, Schema};
use std::fmt::Write;

/// `CREATE OR REPLACE VIEW "database"."table" AS …` over `files`, each an absolute path or an s3:// URL. Ends with `;` and a newline.
fn view_statement<'a>(database: &str, table: &str, columns: &Schema, files: impl IntoIterator<Item = &'a str>) -> String {
    let mut sql = format!("CREATE SCHEMA IF NOT EXISTS {};\n", identifier(database));
    let names = list(columns, |name, _| identifier(name));
    let typed = list(columns, |name, data_type| format!("NULL::{} AS {}", duckdb_type(data_type), identifier(name)));
    // writing to a String doesn't fail
    let _ = write!(
        sql,
        "CREATE OR REPLACE VIEW {}.{} AS\nSELECT {names}\nFROM (SELECT {typed} WHERE false",
        identifier(database),
        identifier(table)
    );
    let files: Vec<String> = files.into_iter().map(file).collect();
    if !files.is_empty() {
        let _ = write!(
            sql,
            "\nUNION ALL BY NAME FROM read_parquet([\n  {}\n], hive_partitioning = false, union_by_name = true)",
            files.join(",\n  ")
        );
    }
    sql.push_str(");\n");
    sql
}

/// All that DuckDB needs of a table at `base`, as other readers call its folder: the view over its files, and a history's macros.
pub fn duckdb_statements(
    base: &str,
    database: &str,
    table: &str,
    columns: &Schema,
    record_key: &[String],
    slices: &[FileSlice],
) -> String {
    let files: Vec<String> = slices.iter().map(|slice| format!("{base}/{}", slice.path())).collect();
    let mut sql = view_statement(database, table, columns, files.iter().map(String::as_str));
    if is_history(columns) {
        sql.push_str(&history_macros(database, table, columns, record_key));
    }
    sql
}

/// How the open end of a period is written.
const OPEN_END: &str = "TIMESTAMPTZ '9999-12-31 23:59:59.999999+00'";
/// What is known then is what is known now.
const BEFORE_OPEN_END: &str = "TIMESTAMPTZ '9999-12-31 23:59:59.999998+00'";

/// A time as somebody wrote it, in whatever type: in UTC where it doesn't say otherwise, whatever the session's time zone is.
fn utc_macro(name: &str) -> String {
    let text = "_time::VARCHAR";
    format!(
        "CREATE OR REPLACE MACRO {name}(_time) AS CASE WHEN regexp_matches({text}, ':[0-9.]+ *([Zz]|[+-][0-9:]+)$') \
         THEN ({text})::TIMESTAMPTZ ELSE timezone('UTC', ({text})::TIMESTAMP) END;\n"
    )
}

/// Macros for the questions to the history `history`: `<table>_as_of(system, valid)` (NULL: what is known now; at any time), `<table>_as_of_system(…)`,
/// `<table>_as_of_valid(…)`, `<table>_history_of(key …)`, `<table>_changes(first, last)` and `<table>_diff(valid, first, last)`; and a view of what is true now,
/// `<table>_now`. Each ends with `;` and a newline.
fn history_macros(database: &str, history: &str, columns: &Schema, record_key: &[String]) -> String {
    let (table, schema) = (history.strip_suffix(HISTORY_SUFFIX).unwrap_or(history), identifier(database));
    let questions = Questions::new(format!("{schema}.{}", identifier(history)), columns, record_key);
    let keys: Vec<String> = (1..=questions.key().len()).map(|number| format!("_key{number}")).collect();
    let utc = format!("{schema}.\"_binlake_utc\"");
    let time = |parameter: &str| format!("{utc}({parameter})");
    let (system, valid, first, last) = (time("_system"), time("_valid"), time("_first"), time("_last"));
    let known = format!("coalesce({system}, {BEFORE_OPEN_END})");
    let macros = [
        ("as_of", "_system, _valid", questions.as_of_any(&known, &valid)),
        ("as_of_system", "_system", questions.as_of(Some(&system), None, OPEN_END)),
        ("as_of_valid", "_valid", questions.as_of(None, Some(&valid), OPEN_END)),
        ("history_of", &keys.join(", "), questions.history(&keys)),
        ("changes", "_first, _last", questions.changes(&first, &last)),
        ("diff", "_valid, _first, _last", questions.diff(&valid, &first, &last)),
    ];
    let named = |suffix: &str| format!("{schema}.{}", identifier(&format!("{table}_{suffix}")));
    let now = questions.as_of(Some("now()"), Some("now()"), OPEN_END);
    let mut sql = format!("{}CREATE OR REPLACE VIEW {} AS\n{now};\n", utc_macro(&utc), named("now"));
    for (suffix, parameters, question) in macros {
        // writing to a String doesn't fail
        let _ = writeln!(sql, "CREATE OR REPLACE MACRO {}({parameters}) AS TABLE\n{question};", named(suffix));
    }
    sql
}

fn list(columns: &Schema, item: impl Fn(&str, &DataType) -> String) -> String {
    columns.fields().iter().map(|field| item(field.name(), field.data_type())).collect::<Vec<_>>().join(", ")
}

/// A quoted identifier.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A quoted file name, in which DuckDB finds no pattern.
fn file(path: &str) -> String {
    let mut literal = String::with_capacity(path.len() + 2);
    literal.push('\'');
    for c in path.chars() {
        match c {
            '\'' => literal.push_str("''"),
            '*' | '?' | '[' => {
                literal.push('[');
                literal.push(c);
                literal.push(']');
            }
            c => literal.push(c),
        }
    }
    literal.push('\'');
    literal
}

fn duckdb_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INTEGER".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::Float32 => "FLOAT".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision},{scale})"),
        DataType::Date32 => "DATE".into(),
        DataType::Timestamp(_, Some(_)) => "TIMESTAMPTZ".into(),
        DataType::Timestamp(_, None) => "TIMESTAMP".into(),
        DataType::Binary | DataType::LargeBinary | DataType::FixedSizeBinary(_) => "BLOB".into(),
        DataType::List(item) | DataType::LargeList(item) => format!("{}[]", duckdb_type(item.data_type())),
        _ => "VARCHAR".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{Field, TimeUnit};
    use std::sync::Arc;

    #[test]
    fn a_view_over_files() {
        let columns = Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("odd \"name\"", DataType::Decimal128(12, 2), true),
            Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
            Field::new("v", DataType::List(Arc::new(Field::new("item", DataType::Float32, true))), true),
        ]);
        let files = ["/lake/it's/[t]/a_0-0-0_20261121141230755.parquet", "s3://b/k*.parquet"];
        insta::assert_snapshot!(view_statement("shop", "or\"ders", &columns, files));
    }

    #[test]
    fn macros_of_a_history() {
        let rows = Schema::new(vec![Field::new("id", DataType::Int32, false), Field::new("v", DataType::Utf8, true)]);
        let table = "shop.prices".parse().unwrap();
        let shape = crate::merge::HistoryShape::new(&table, &rows, &["id".to_owned()], None).unwrap();
        insta::assert_snapshot!(history_macros("shop", "prices_history", shape.columns(), &shape.record_key()));
    }

    #[test]
    fn a_view_of_an_empty_table() {
        let columns = Schema::new(vec![Field::new("id", DataType::Int32, false)]);
        insta::assert_snapshot!(view_statement("shop", "empty", &columns, []));
    }
}
