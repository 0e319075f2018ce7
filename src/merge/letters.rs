//! Rows that a table's transform can't make, as dead letters.
//!
//! **A row is in the table or among its dead letters, never in both.** The last change of each key decides: where it can't be transformed, its key is
//! deleted from the table and its row becomes a letter; where it can, or is a delete, the key's letter goes. Both take effect in one commit. So a letter is always its
//! key's last change, and to try it again needs no comparison with what came later.

use super::shape::{COMMIT_TS, LakeShape, POSITION, arrow_error, data};
use crate::error::{Error, Result};
use crate::event::{TableId, TableSchema, row_values};
use crate::table::{SortedChanges, TableSpec};
use crate::transform::Failure;
use arrow::array::{ArrayRef, AsArray, BinaryArray, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// What the name of a table of such letters ends with.
pub const ROW_LETTERS_SUFFIX: &str = ".rows";
/// Most letters of one commit: where more rows fail, it isn't the rows that are wrong.
const MOST_OF_A_COMMIT: usize = 100_000;
/// Most letters of a table.
const MOST_OF_A_TABLE: usize = 1_000_000;

/// A row that can't be transformed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowLetter {
    /// The row's key, as a JSON object.
    pub key: String,
    /// The change's transaction.
    pub position: String,
    /// The column that can't be computed.
    pub column: String,
    /// Why, without the value.
    pub reason: String,
    /// When the source committed the change, in microseconds.
    pub source_commit_time: i64,
    /// The source's row, as a JSON object.
    pub raw: String,
}

/// The columns of a table of letters; `key` is the record key.
fn columns() -> &'static SchemaRef {
    static COLUMNS: LazyLock<SchemaRef> = LazyLock::new(|| {
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        Arc::new(Schema::new(vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("position", DataType::Utf8, false),
            Field::new("column", DataType::Utf8, false),
            Field::new("reason", DataType::Utf8, false),
            Field::new("arrived_at", time, false),
            Field::new("raw", DataType::Binary, false),
        ]))
    });
    &COLUMNS
}

/// What a table of letters called `letters` is made as.
pub fn row_letters_spec(letters: &TableId) -> TableSpec {
    TableSpec {
        database: letters.database().to_owned(),
        name: letters.name().to_owned(),
        columns: columns().clone(),
        record_key: vec!["key".to_owned()],
        sort_prefix: Vec::new(),
        ordering_field: "arrived_at".to_owned(),
        partition_columns: Vec::new(),
    }
}

/// The columns by which letters are known: enough for [`LetterSink::knowing`].
pub fn row_letters_key() -> Schema {
    Schema::new(vec![columns().field(0).clone()])
}

impl RowLetter {
    /// Letters as the rows of their table: those that come, and keys whose letters go.
    ///
    /// # Errors
    /// `Bug` if they don't fit their columns.
    pub fn changes(come: &BTreeMap<String, RowLetter>, go: &BTreeSet<String>) -> Result<SortedChanges> {
        let nothing = RowLetter {
            key: String::new(),
            position: String::new(),
            column: String::new(),
            reason: String::new(),
            source_commit_time: 0,
            raw: String::new(),
        };
        let keys: BTreeSet<&String> = come.keys().chain(go).collect();
        let letters: Vec<(&str, &RowLetter, bool)> =
            keys.into_iter().map(|key| (key.as_str(), come.get(key).unwrap_or(&nothing), !come.contains_key(key))).collect();
        let text = |value: &dyn Fn(&RowLetter) -> String| {
            Arc::new(letters.iter().map(|(_, letter, _)| Some(value(letter))).collect::<StringArray>()) as ArrayRef
        };
        let times: TimestampMicrosecondArray = letters.iter().map(|(_, letter, _)| Some(letter.source_commit_time)).collect();
        let columns_of = vec![
            Arc::new(letters.iter().map(|(key, ..)| Some(*key)).collect::<StringArray>()) as ArrayRef,
            text(&|letter| letter.position.clone()),
            text(&|letter| letter.column.clone()),
            text(&|letter| letter.reason.clone()),
            Arc::new(times.with_timezone("UTC")),
            Arc::new(letters.iter().map(|(_, letter, _)| Some(letter.raw.as_bytes())).collect::<BinaryArray>()),
        ];
        Ok(SortedChanges {
            rows: RecordBatch::try_new(columns().clone(), columns_of).map_err(arrow_error)?,
            is_delete: letters.iter().map(|(.., goes)| Some(*goes)).collect(),
        })
    }

    /// The keys of the letters in rows of their table.
    ///
    /// # Errors
    /// `Bug` if they have none.
    pub fn keys(rows: &RecordBatch) -> Result<Vec<String>> {
        let keys = rows.column_by_name("key").ok_or_else(|| Error::bug("a table of dead letters lacks its key"))?;
        let keys = cast(keys, &DataType::Utf8).map_err(arrow_error)?;
        Ok(keys.as_string::<i32>().iter().flatten().map(str::to_owned).collect())
    }

    /// Rows of a source's table, without those that have letters with these keys.
    ///
    /// # Errors
    /// `Bug` if the rows aren't of the table.
    pub fn without(keys: &BTreeSet<String>, schema: &TableSchema, rows: &RecordBatch) -> Result<RecordBatch> {
        let key = key_schema(schema);
        let others: BooleanArray = (0..rows.num_rows()).map(|row| Some(!keys.contains(&text_of(&key, rows, row)))).collect();
        filter_record_batch(rows, &others).map_err(arrow_error)
    }

    /// The letters in rows of their table.
    ///
    /// # Errors
    /// `Bug` if a column isn't there.
    pub fn read(rows: &RecordBatch) -> Result<Vec<Self>> {
        let column = |name: &str, data_type: &DataType| {
            let column = rows.column_by_name(name).ok_or_else(|| Error::bug("a table of dead letters lacks a column"))?;
            cast(column, data_type).map_err(arrow_error)
        };
        let text = |name: &str| column(name, &DataType::Utf8);
        let (key, position, of, reason) = (text("key")?, text("position")?, text("column")?, text("reason")?);
        let raw = column("raw", &DataType::Binary)?;
        let times = column("arrived_at", columns().field(4).data_type())?;
        let value = |column: &ArrayRef, row: usize| column.as_string::<i32>().value(row).to_owned();
        let letter = |row: usize| RowLetter {
            key: value(&key, row),
            position: value(&position, row),
            column: value(&of, row),
            reason: value(&reason, row),
            source_commit_time: times.as_primitive::<TimestampMicrosecondType>().value(row),
            raw: String::from_utf8_lossy(raw.as_binary::<i32>().value(row)).into_owned(),
        };
        Ok((0..rows.num_rows()).map(letter).collect())
    }
}

/// What the rows of one commit mean for the table's letters, noted while they are transformed.
#[derive(Debug, Clone, Default)]
pub struct LetterSink {
    /// The keys of the letters that there are, as hashes: a stranger among them costs a delete that deletes nothing.
    known: Arc<HashSet<u64>>,
    found: Arc<Mutex<Found>>,
    /// Whether nothing is noted: the table's own sink is told of it.
    is_deaf: bool,
}

/// Letters that come, and keys whose letters go.
#[derive(Debug, Default)]
struct Found {
    come: BTreeMap<String, RowLetter>,
    go: BTreeSet<String>,
}

fn hash(key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

impl LetterSink {
    /// For a table that has letters with these keys.
    pub fn knowing<'a>(keys: impl Iterator<Item = &'a str>) -> Self {
        Self { known: Arc::new(keys.map(hash).collect()), ..Self::default() }
    }

    /// One that forgets what it is told: for who sees all changes of a key, of which the last one decides.
    pub(super) fn deaf() -> Self {
        Self { is_deaf: true, ..Self::default() }
    }

    /// The same for the next commit, with what this one has done.
    #[must_use]
    pub fn after(&self, come: &BTreeMap<String, RowLetter>, go: &BTreeSet<String>) -> Self {
        let mut known = self.known.as_ref().clone();
        go.iter().for_each(|key| {
            known.remove(&hash(key));
        });
        known.extend(come.keys().map(|key| hash(key)));
        Self { known: Arc::new(known), ..Self::default() }
    }

    /// Letters that the table has.
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// A commit begins, or is tried again.
    pub fn clear(&self) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Found::default();
    }

    /// What was noted: letters that come, and keys whose letters go.
    pub fn take(&self) -> (BTreeMap<String, RowLetter>, BTreeSet<String>) {
        let Found { come, mut go } = std::mem::take(&mut *self.found.lock().unwrap_or_else(PoisonError::into_inner));
        // a row that moves to another partition is deleted in one, and fails in the other
        go.retain(|key| !come.contains_key(key));
        (come, go)
    }

    /// Takes note of sorted rows before their transform, of which these failed.
    pub(super) fn note(&self, shape: &LakeShape, rows: &RecordBatch, failed: &[Failure]) -> Result<()> {
        if self.is_deaf || (failed.is_empty() && self.known.is_empty()) {
            return Ok(());
        }
        let schema = shape.source();
        let key = key_schema(schema);
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = failed.iter().peekable();
        for row in 0..rows.num_rows() {
            let failure = next.next_if(|failure| failure.row == row);
            if failure.is_none() && self.known.is_empty() {
                continue;
            }
            let text = text_of(&key, rows, row);
            match failure {
                Some(failure) => {
                    let letter = letter(schema, rows, failure, text);
                    found.come.insert(letter.key.clone(), letter);
                }
                None if self.known.contains(&hash(&text)) => {
                    found.go.insert(text);
                }
                None => {}
            }
        }
        let (come, all) = (found.come.len(), found.come.len() + self.known.len());
        if come > MOST_OF_A_COMMIT || all > MOST_OF_A_TABLE {
            return Err(data("too many rows can't be transformed: it isn't the rows that are wrong")
                .with("dead_letters", all)
                .with("table", &schema.table)
                .remedy("correct the table's `transform`, or `binlake dead-letter retry` those that there are; then run `binlake backfill --table`"));
        }
        Ok(())
    }
}

/// The key of a row, as letters have it.
pub(super) fn key_text(schema: &TableSchema, rows: &RecordBatch, row: usize) -> String {
    text_of(&key_schema(schema), rows, row)
}

fn text_of(key: &TableSchema, rows: &RecordBatch, row: usize) -> String {
    serde_json::Value::Object(row_values(key, rows, row)).to_string()
}

/// The shape of the key alone.
fn key_schema(schema: &TableSchema) -> TableSchema {
    let columns = schema.key.iter().filter_map(|&i| schema.columns.get(i)).cloned().collect();
    TableSchema { table: schema.table.clone(), columns, key: Vec::new() }
}

fn letter(schema: &TableSchema, rows: &RecordBatch, failure: &Failure, key: String) -> RowLetter {
    let position = rows.column_by_name(POSITION).and_then(|column| column.as_string_opt::<i32>());
    let times = rows.column_by_name(COMMIT_TS).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    RowLetter {
        key,
        position: position.map(|positions| positions.value(failure.row).to_owned()).unwrap_or_default(),
        column: failure.column.clone(),
        reason: format!("`{}`: {}", failure.column, failure.reason),
        source_commit_time: times.map_or(0, |times| times.value(failure.row)),
        raw: serde_json::Value::Object(row_values(schema, rows, failure.row)).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(key: &str, raw: &str) -> (String, RowLetter) {
        let letter = RowLetter {
            key: key.into(),
            position: "gtid:1".into(),
            column: "n".into(),
            reason: "`n`: division by zero".into(),
            source_commit_time: 7,
            raw: raw.into(),
        };
        (key.into(), letter)
    }

    #[test]
    fn letters_are_read_as_they_were_written() {
        let come = BTreeMap::from([letter("{\"id\":2}", "{\"id\":2,\"n\":0}"), letter("{\"id\":1}", "{}")]);
        let go = BTreeSet::from(["{\"id\":10}".to_owned()]);
        let changes = RowLetter::changes(&come, &go).unwrap();
        assert_eq!(changes.is_delete, BooleanArray::from(vec![true, false, false]), "sorted by key, as text");
        let read = RowLetter::read(&changes.rows).unwrap();
        assert_eq!([&read[1], &read[2]], [&come["{\"id\":1}"], &come["{\"id\":2}"]]);
        assert_eq!(read[0].key, "{\"id\":10}");
    }

    #[test]
    fn what_is_known_follows_what_was_done() {
        let sink = LetterSink::knowing(["a", "b"].into_iter());
        let next = sink.after(&BTreeMap::from([letter("c", "")]), &BTreeSet::from(["a".to_owned()]));
        assert_eq!(next.count(), 2);
        assert!(next.known.contains(&hash("b")) && next.known.contains(&hash("c")));
    }
}
