//! The catalog's description of a table as SQL, for those who register tables themselves.

use super::catalog_entry::{CatalogColumn, CatalogEntry, INPUT_FORMAT, OUTPUT_FORMAT, SERDE};
use std::fmt::Write;

/// Partitions that one statement adds.
const PARTITIONS_A_STATEMENT: usize = 100;

/// For Athena: CREATE EXTERNAL TABLE with what Glue's entry says, and the partitions. Each statement ends with `;` and a newline (Athena takes one
/// at a time).
pub fn athena_statements(table: &CatalogEntry) -> String {
    let name = format!("{}.{}", hive_name(&table.database), hive_name(&table.name));
    let mut sql = format!("CREATE DATABASE IF NOT EXISTS {};\n", hive_name(&table.database));
    // writing to a String doesn't fail
    let _ = write!(sql, "CREATE EXTERNAL TABLE IF NOT EXISTS {name} (\n{}\n)\n", columns(&table.columns));
    if !table.comment.is_empty() {
        let _ = writeln!(sql, "COMMENT {}", literal(&table.comment));
    }
    if !table.partition_keys.is_empty() {
        let _ = write!(sql, "PARTITIONED BY (\n{}\n)\n", columns(&table.partition_keys));
    }
    let serde = table.serde_parameters();
    let _ = write!(
        sql,
        "ROW FORMAT SERDE {}\nWITH SERDEPROPERTIES (\n{}\n)\nSTORED AS INPUTFORMAT {}\nOUTPUTFORMAT {}\nLOCATION {}\nTBLPROPERTIES (\n{}\n);\n",
        literal(SERDE),
        properties(serde.iter()),
        literal(INPUT_FORMAT),
        literal(OUTPUT_FORMAT),
        literal(&table.location),
        // Athena takes none of Spark's long ones, and needs none; EXTERNAL is said above
        properties(table.parameters.iter().filter(|(key, _)| !key.starts_with("spark.") && *key != "EXTERNAL")),
    );
    let partitions: Vec<_> = table.partitions.iter().collect();
    for some in partitions.chunks(PARTITIONS_A_STATEMENT) {
        let _ = write!(sql, "ALTER TABLE {name} ADD IF NOT EXISTS");
        for (values, path) in some {
            let keys = table.partition_keys.iter().zip(*values);
            let keys: Vec<String> = keys.map(|(key, value)| format!("{} = {}", hive_name(&key.name), literal(value))).collect();
            let location = literal(&table.partition_location(path));
            let _ = write!(sql, "\n  PARTITION ({}) LOCATION {location}", keys.join(", "));
        }
        sql.push_str(";\n");
    }
    sql
}

/// For Spark with Hudi: the table's own files say all the rest.
pub fn spark_statements(table: &CatalogEntry) -> String {
    format!(
        "CREATE DATABASE IF NOT EXISTS {database};\nCREATE TABLE IF NOT EXISTS {database}.{name} USING hudi LOCATION {location};\n",
        database = hive_name(&table.database),
        name = hive_name(&table.name),
        location = literal(&table.location),
    )
}

fn columns(columns: &[CatalogColumn]) -> String {
    let column = |column: &CatalogColumn| {
        let comment = match column.comment.as_str() {
            "" => String::new(),
            comment => format!(" COMMENT {}", literal(comment)),
        };
        format!("  {} {}{comment}", hive_name(&column.name), column.data_type)
    };
    columns.iter().map(column).collect::<Vec<_>>().join(",\n")
}

fn properties<'a>(properties: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    properties.map(|(key, value)| format!("  {} = {}", literal(key), literal(value))).collect::<Vec<_>>().join(",\n")
}

/// A name in Hive's quotes.
fn hive_name(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A string literal, as Hive and Spark read it.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::super::catalog_entry::tests::tickets;
    use super::*;

    #[test]
    fn for_athena() {
        insta::assert_snapshot!(athena_statements(&tickets()));
    }

    #[test]
    fn for_spark() {
        insta::assert_snapshot!(spark_statements(&tickets()));
    }
}
