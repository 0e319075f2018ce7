//! Dead letters of rows that can't be transformed: where they lie, how they are asked to be tried again, and their rows as changes again.
//!
//! They are a table of their own, `_dead_letter/<database>/<table>.rows`. Who wants them tried again puts a file into its folder `_retry/`, with their positions;
//! the service that has the table does it within seconds, in one commit on the table and on its letters, and deletes the file. A file that is read twice, after a
//! crash, finds its letters gone, or does the same again.

use super::foreign::folder_of;
use crate::error::{Area, Error, Kind, Result};
use crate::event::{BinlogCoordinates, ChangeBatch, Operation, TableId, TableSchema, TransactionStamp};
use crate::format::{Cell, CellColumns, DEAD_LETTERS};
use crate::merge::{ROW_LETTERS_SUFFIX, RowLetter, letter_cell};
use crate::table::Lake;
use crate::time::Timestamp;
use arrow::array::{UInt8Array, UInt32Array};
use arrow::datatypes::{Field, Schema};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The table of the rows of `table` that can't be transformed.
pub fn row_letters_of(table: &TableId) -> TableId {
    TableId::new(format!("{DEAD_LETTERS}{}", table.database()), format!("{}{ROW_LETTERS_SUFFIX}", table.name()))
}

fn folder(lake: &Lake, table: &TableId) -> Path {
    folder_of(lake, &row_letters_of(table))
}

fn refused(error: object_store::Error, path: &Path) -> Error {
    Error::new(Area::Lake, Kind::Transient, "dead letters that are to be tried again can't be reached")
        .caused_by(error)
        .with("path", path)
}

/// Asks the service to try the dead letters of `table` at these positions again.
///
/// # Errors
/// If the lake can't be written.
pub async fn ask_row_retry(lake: &Lake, table: &TableId, positions: &BTreeSet<String>) -> Result<()> {
    let text = serde_json::to_string(positions).map_err(|error| Error::bug("positions can't be written").caused_by(error))?;
    let name = format!("{:020}-{}.json", Timestamp::now().as_micros(), uuid::Uuid::new_v4());
    let path = Path::from_iter(folder(lake, table).parts().chain([name.as_str().into()]));
    lake.store().put(&path, text.into()).await.map_err(|error| refused(error, &path))?;
    Ok(())
}

/// What is asked for: each file with its positions.
pub(super) async fn asked_row_retries(lake: &Lake, table: &TableId) -> Result<Vec<(Path, BTreeSet<String>)>> {
    let folder = folder(lake, table);
    let listed = lake.store().list_with_delimiter(Some(&folder)).await.map_err(|error| refused(error, &folder))?;
    let mut asked = Vec::new();
    for object in listed.objects {
        let path = object.location;
        let bytes = lake.store().get(&path).await.map_err(|error| refused(error, &path))?;
        let bytes = bytes.bytes().await.map_err(|error| refused(error, &path))?;
        match serde_json::from_slice(&bytes) {
            Ok(positions) => asked.push((path, positions)),
            Err(error) => tracing::warn!(%path, %error, "this doesn't say which dead letters are to be tried again"),
        }
    }
    Ok(asked)
}

/// What was asked for is done.
pub(super) async fn done_row_retries(lake: &Lake, asked: &[(Path, BTreeSet<String>)]) {
    for (path, _) in asked {
        // found again, it says the same again
        if let Err(error) = lake.store().delete(path).await {
            tracing::warn!(%path, %error, "a file that was read can't be deleted");
        }
    }
}

fn row(schema: &TableSchema, letter: &RowLetter) -> Result<Vec<Cell<'static>>, String> {
    let values: Map<String, Value> = serde_json::from_str(&letter.raw).map_err(|error| error.to_string())?;
    let cell = |column: &crate::event::Column| {
        letter_cell(&column.source_type, values.get(&column.name)).map_err(|why| format!("`{}`: {why}", column.name))
    };
    schema.columns.iter().map(cell).collect()
}

fn stamp(letter: &RowLetter) -> TransactionStamp {
    let gtid = letter.position.parse().ok();
    let (file, offset) = letter.position.rsplit_once(':').unwrap_or((&letter.position, "0"));
    TransactionStamp {
        coordinates: BinlogCoordinates { file: file.into(), offset: offset.parse().unwrap_or(0) },
        gtid,
        source_commit_time: Timestamp::from_micros(letter.source_commit_time),
        is_snapshot: false,
    }
}

/// The letters' rows as changes of a table of this shape; those that can't be read are left out, with a line in the log.
pub(super) fn changes_of_letters(schema: &Arc<TableSchema>, letters: &[RowLetter]) -> Result<ChangeBatch> {
    let fields = schema.arrow().fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<Field>>();
    let mut rows = CellColumns::new(Arc::new(Schema::new(fields)));
    let mut transactions = Vec::new();
    for letter in letters {
        match row(schema, letter) {
            Ok(row) => {
                rows.push(row);
                transactions.push(stamp(letter));
            }
            Err(why) => {
                tracing::warn!(table = %schema.table, position = letter.position, why, "a dead letter's row can't be read again");
            }
        }
    }
    let count = u32::try_from(transactions.len()).map_err(|_| Error::bug("too many letters"))?;
    Ok(ChangeBatch {
        schema: schema.clone(),
        rows: rows.finish()?,
        operations: UInt8Array::from(vec![Operation::Create.code(); transactions.len()]),
        stamps: UInt32Array::from_iter_values(0..count),
        transactions: Arc::new(transactions),
        changed: None,
        before: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Column, SourceType, row_values};
    use arrow::array::*;

    /// What a letter keeps of a row is the row.
    #[test]
    fn a_row_of_each_type_comes_back_from_its_letter() {
        let micros = 1_790_000_000_123_456_i64;
        let time = || Arc::new(TimestampMicrosecondArray::from(vec![micros]).with_timezone("UTC")) as ArrayRef;
        let decimal = |value: i128, precision, scale| {
            Arc::new(Decimal128Array::from(vec![value]).with_precision_and_scale(precision, scale).unwrap()) as ArrayRef
        };
        let mut vector = ListBuilder::new(Float32Builder::new());
        vector.values().append_slice(&[0.1, -2.5]);
        vector.append(true);
        let columns: Vec<(SourceType, ArrayRef)> = vec![
            (SourceType::Bool, Arc::new(BooleanArray::from(vec![true]))),
            (SourceType::TinyInt { unsigned: false }, Arc::new(Int32Array::from(vec![-128]))),
            (SourceType::Int { unsigned: true }, Arc::new(Int64Array::from(vec![4_294_967_295]))),
            (SourceType::BigInt { unsigned: false }, Arc::new(Int64Array::from(vec![i64::MIN]))),
            (SourceType::BigInt { unsigned: true }, decimal(18_446_744_073_709_551_615, 20, 0)),
            (SourceType::Decimal { precision: 30, scale: 9 }, decimal(-12_345_678_901_234_567_890_123_456_789, 30, 9)),
            (SourceType::Float, Arc::new(Float32Array::from(vec![0.1]))),
            (SourceType::Double, Arc::new(Float64Array::from(vec![-0.1e-300]))),
            (SourceType::Json, Arc::new(StringArray::from(vec!["{\"a\": [1.10, \"x\"]}"]))),
            (SourceType::Time { fsp: 3 }, Arc::new(StringArray::from(vec!["-838:59:59.000"]))),
            (SourceType::Text { charset: "utf8mb4".into(), max_bytes: 10 }, Arc::new(StringArray::from(vec!["5 ü \"\n"]))),
            (SourceType::Geometry, Arc::new(BinaryArray::from_vec(vec![b"\x00\xff\x01"]))),
            (SourceType::Date, Arc::new(Date32Array::from(vec![-1]))),
            (SourceType::DateTime { fsp: 6 }, time()),
            (SourceType::Timestamp { fsp: 6 }, time()),
            (SourceType::Year, Arc::new(Int32Array::from(vec![None]))),
            (SourceType::Vector, Arc::new(vector.finish())),
        ];
        let (types, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        let column = |(i, source_type)| Column { name: format!("c{i}"), source_type, nullable: true };
        let columns = types.into_iter().enumerate().map(column).collect();
        let schema = Arc::new(TableSchema { table: TableId::new("a", "b"), columns, key: vec![1] });
        let rows = RecordBatch::try_new(schema.arrow(), arrays).unwrap();
        let letter = RowLetter {
            key: "{\"c1\":-128}".into(),
            position: "3e11fa47-71ca-11e1-9e33-c80aa9429562:77".into(),
            column: "x".into(),
            reason: String::new(),
            source_commit_time: 5,
            raw: Value::Object(row_values(&schema, &rows, 0)).to_string(),
        };
        let batch = changes_of_letters(&schema, std::slice::from_ref(&letter)).unwrap();
        assert_eq!(batch.rows.columns(), rows.columns());
        let stamp = &batch.transactions[0];
        assert_eq!((stamp.position_text(), stamp.source_commit_time.as_micros()), (letter.position.clone(), 5));
        for position in ["binlog.000007:157", "a.jsonl#3", "0-1-77"] {
            assert_eq!(super::stamp(&RowLetter { position: position.into(), ..letter.clone() }).position_text(), position);
        }
    }
}
