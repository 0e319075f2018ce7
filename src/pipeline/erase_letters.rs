//! Dead letters of keys that are erased: which letters are about a key, and how they go.
//!
//! A letter of a row has its key. One of a record that couldn't be read has nothing but the record's bytes: where these are JSON, the fields called as the key's columns
//! say whose it is, or, where there are none, any value; else the key's text, as a word of its own. Files that ask for letters to be tried again have
//! copies, which go as well.

use super::erase::{Erased, STEPS, blocking, commit};
use super::foreign::{blank_letters, lots_of};
use super::table_services::TableServices;
use crate::error::{Error, Result};
use crate::event::{TableId, TableSchema, row_values};
use crate::format::DEAD_LETTERS;
use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::DataType;
use serde_json::Value;
use std::collections::HashSet;
use std::sync::Arc;

/// Keys as letters name them.
#[derive(Debug, Clone, Default)]
pub(super) struct WantedLetters {
    /// The key's columns, as the source calls them; none: they aren't known.
    names: Vec<String>,
    /// For each key the text of each column, as it was asked for and as the lake has it.
    texts: Vec<Vec<String>>,
    /// The keys of letters of rows.
    keys: HashSet<String>,
}

impl WantedLetters {
    /// Of keys as they were asked for (the values of each), and as columns of the table's types; `schema` is the source's shape of the table.
    pub(super) fn new(schema: Option<&TableSchema>, names: &[String], asked: Vec<Vec<String>>, typed: &[ArrayRef]) -> Result<Self> {
        let mut wanted = Self { names: names.to_vec(), texts: asked, keys: HashSet::new() };
        let Some(schema) = schema else { return Ok(wanted) };
        let columns: Vec<_> = schema.key.iter().filter_map(|&i| schema.columns.get(i)).cloned().collect();
        if columns.len() != typed.len() {
            return Ok(wanted);
        }
        wanted.names = columns.iter().map(|column| column.name.clone()).collect();
        let unexpected = |error| Error::bug("keys can't be put together").caused_by(error);
        let rows = RecordBatch::try_from_iter(wanted.names.iter().zip(typed.iter().cloned())).map_err(unexpected)?;
        let schema = TableSchema { table: schema.table.clone(), columns, key: Vec::new() };
        for row in 0..rows.num_rows() {
            let key = row_values(&schema, &rows, row);
            wanted.texts.push(key.values().map(|value| scalar(value).unwrap_or_default()).collect());
            wanted.keys.insert(Value::Object(key).to_string());
        }
        Ok(wanted)
    }

    /// Whether a letter is about one of the keys. `key`: that of a row.
    fn has(&self, key: Option<&str>, raw: &[u8]) -> bool {
        match (key, serde_json::from_slice::<Value>(raw)) {
            (Some(key), _) if !self.keys.is_empty() => self.keys.contains(key),
            // the key's types aren't known
            (Some(key), _) => serde_json::from_str(key).is_ok_and(|key| self.is_of_record(&key)),
            (None, Ok(record)) if record.is_object() || record.is_array() => self.is_of_record(&record),
            (None, _) => self.is_of_bytes(raw),
        }
    }

    fn is_of_record(&self, record: &Value) -> bool {
        if self.names.is_empty() {
            let all = values(record, None);
            return self.texts.iter().any(|texts| texts.iter().all(|text| all.contains(text)));
        }
        let named: Vec<Vec<String>> = self.names.iter().map(|name| values(record, Some(name))).collect();
        let all = if named.iter().any(Vec::is_empty) { values(record, None) } else { Vec::new() };
        let is_one = |texts: &Vec<String>| {
            let mut of_columns = named.iter().map(|named| if named.is_empty() { &all } else { named }).zip(texts);
            texts.len() == named.len() && of_columns.all(|(values, text)| values.contains(text))
        };
        self.texts.iter().any(is_one)
    }

    fn is_of_bytes(&self, raw: &[u8]) -> bool {
        let is_there = |text: &String| has_word(raw, text.as_bytes()) || has_word(raw, in_ascii(text).as_bytes());
        self.texts.iter().any(|texts| texts.iter().all(is_there))
    }
}

/// What a JSON value says that is neither object nor array.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(is) => Some(is.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The scalars below `value`, in fields called `name` alone or (`None`) anywhere.
fn values(value: &Value, name: Option<&str>) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![(value, name.is_none())];
    while let Some((value, is_meant)) = waiting.pop() {
        match value {
            Value::Object(fields) => {
                waiting
                    .extend(fields.iter().map(|(field, value)| (value, name.is_none_or(|name| field.eq_ignore_ascii_case(name)))));
            }
            Value::Array(items) => waiting.extend(items.iter().map(|item| (item, is_meant))),
            scalar_value => found.extend(scalar(scalar_value).filter(|_| is_meant)),
        }
    }
    found
}

/// As JSON that is ASCII alone writes it.
fn in_ascii(text: &str) -> String {
    let mut out = String::new();
    let mut units = [0_u16; 2];
    for c in text.chars() {
        match c {
            c if c.is_ascii() => out.push(c),
            c => c.encode_utf16(&mut units).iter().for_each(|unit| out += &format!("\\u{unit:04x}")),
        }
    }
    out
}

/// Whether `word` is in `bytes`, neither as a part of a longer word nor of a longer number.
fn has_word(bytes: &[u8], word: &[u8]) -> bool {
    if word.is_empty() {
        return false;
    }
    let is_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80);
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    let is_number = word.iter().all(u8::is_ascii_digit);
    (0..bytes.len().saturating_sub(word.len() - 1)).any(|start| {
        let end = start + word.len();
        let before = |count: usize| start.checked_sub(count).and_then(|at| bytes.get(at));
        // -42, 4.42 and 42.4 are not 42
        let is_part = is_number
            && (before(1) == Some(&b'-')
                || (before(1) == Some(&b'.') && is_digit(before(2)))
                || (bytes.get(end) == Some(&b'.') && is_digit(bytes.get(end + 1))));
        bytes[start..end].eq_ignore_ascii_case(word) && !is_word(before(1)) && !is_word(bytes.get(end)) && !is_part
    })
}

/// The rows of a table of dead letters that are about the keys.
fn chosen(rows: &RecordBatch, wanted: &WantedLetters) -> Result<RecordBatch> {
    let unexpected = |error| Error::bug("rows can't be chosen").caused_by(error);
    let column = |name: &str, data_type: &DataType| {
        rows.column_by_name(name).map(|column| cast(column, data_type).map_err(unexpected)).transpose()
    };
    let (keys, raw) = (column("key", &DataType::Utf8)?, column("raw", &DataType::Binary)?);
    let Some(raw) = raw else { return Ok(rows.slice(0, 0)) };
    let key = |row: usize| keys.as_ref().map(|keys| keys.as_string::<i32>().value(row));
    let meant = |row: usize| Some(wanted.has(key(row), raw.as_binary::<i32>().value(row)));
    let meant: BooleanArray = (0..rows.num_rows()).map(meant).collect();
    filter_record_batch(rows, &meant).map_err(unexpected)
}

impl TableServices {
    /// The tables of a table's dead letters: of records that can't be read, of rows that can't be made.
    pub(super) async fn letters_of(&self, table: &TableId) -> Result<Vec<TableId>> {
        let found = self.lake().dead_letter_tables().await?.into_iter();
        let is_of = |name: &str| name == table.name() || name.strip_prefix(table.name()).is_some_and(|rest| rest.starts_with('.'));
        let found = found.filter(|(database, name)| database == table.database() && is_of(name));
        Ok(found.map(|(database, name)| TableId::new(format!("{DEAD_LETTERS}{database}"), name)).collect())
    }

    /// Erases from the dead letters of a table that was never committed: there is nothing else of it.
    pub(super) async fn erase_letters_alone(
        &self,
        table: &TableId,
        asked: &[Vec<String>],
        names: &[String],
        on_step: impl Fn(),
    ) -> Result<Erased> {
        let mut erased = Erased::default();
        let wanted = Arc::new(WantedLetters::new(None, names, asked.to_vec(), &[])?);
        let all = self.letters_of(table).await?;
        on_step();
        for letters in &all {
            self.erase_letters(letters, &wanted, &mut erased).await?;
            erased.note_place(&self.open_to_erase(letters).await?)?;
        }
        (1..STEPS).for_each(|_| on_step());
        Ok(erased)
    }

    /// Deletes the dead letters that are wanted, and what was put aside of them to be tried again, and counts them.
    pub(super) async fn erase_letters(&self, letters: &TableId, wanted: &Arc<WantedLetters>, erased: &mut Erased) -> Result<()> {
        let mut table = self.open_to_erase(letters).await?;
        let reader = table.row_reader(&table.columns())?;
        let of_rows = wanted.clone();
        let found = blocking(move || {
            let mut found = Vec::new();
            for partition in reader.partitions() {
                for rows in reader.clone().stream(&partition)? {
                    found.push(chosen(&rows?, &of_rows)?);
                }
            }
            Ok(found)
        })
        .await?;
        let count: u64 = found.iter().map(|rows| rows.num_rows() as u64).sum();
        if count > 0 {
            let note = format!("{count} dead letters");
            commit(&mut table, &mut [], found, Vec::new(), &note).await?;
            for _ in 0..2 {
                commit(&mut table, &mut [], Vec::new(), Vec::new(), &note).await?;
            }
            erased.letters += count;
            erased.files += table.clean(1).await? as u64;
        }
        for lot in lots_of(self.lake(), letters).await? {
            blank_letters(self.lake(), &lot, |raw| wanted.has(None, raw)).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Column, SourceType};
    use arrow::array::{Int32Array, StringArray};

    fn wanted(names: &[&str], asked: &[&[&str]]) -> WantedLetters {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let asked = asked.iter().map(|key| key.iter().map(|text| (*text).to_owned()).collect()).collect();
        WantedLetters::new(None, &names, asked, &[]).unwrap()
    }

    #[test]
    fn a_letter_of_a_row_is_known_by_its_key() {
        let int = SourceType::Int { unsigned: false };
        let text = SourceType::Text { charset: "utf8mb4".into(), max_bytes: 40 };
        let column = |name: &str, source_type| Column { name: name.into(), source_type, nullable: false };
        let columns = vec![column("seat", int), column("other", text.clone()), column("hall", text)];
        let schema = TableSchema { table: TableId::new("a", "b"), columns, key: vec![2, 0] };
        let typed: Vec<ArrayRef> = vec![Arc::new(StringArray::from(vec!["A"])), Arc::new(Int32Array::from(vec![17]))];
        // the lake's names, and a number as somebody may write it
        let asked = vec![vec!["A".to_owned(), "017".to_owned()]];
        let wanted = WantedLetters::new(Some(&schema), &["x".to_owned(), "y".to_owned()], asked, &typed).unwrap();
        assert!(wanted.has(Some(r#"{"hall":"A","seat":17}"#), b"{}"));
        assert!(!wanted.has(Some(r#"{"hall":"B","seat":17}"#), br#"{"hall":"A","seat":17}"#), "another's, whatever its row says");
        assert!(
            wanted.has(None, br#"{"seat": 17, "hall": "A", "n": "x"}"#) && wanted.has(None, br#"{"seat": "017", "hall": "A"}"#)
        );
        assert!(!wanted.has(None, br#"{"seat": 18, "hall": "A", "n": 17}"#));
        assert!(wanted.has(None, br#"{"seat": 17, "hall": "A", "n": "#) && !wanted.has(None, br#"{"seat": 17, "hall": "AB""#));
    }

    #[test]
    fn where_the_key_is_unknown_any_value_may_be_it() {
        let wanted = wanted(&[], &[&["42"], &["A", "17"]]);
        assert!(wanted.has(None, br#"{"id": 42}"#) && wanted.has(None, br#"{"x": {"hall": "A"}, "seat": 17}"#));
        assert!(!wanted.has(None, br#"{"hall": "A", "seat": 18}"#) && !wanted.has(None, br#"{"id": 420}"#));
        assert!(wanted.has(None, b"id=42;") && wanted.has(Some(r#"{"id":42}"#), b"") && !wanted.has(Some(r#"{"id":43}"#), b"42"));
    }

    #[test]
    fn a_record_says_whose_it_is() {
        let wanted = wanted(&["id"], &[&["42"], &["Zoë@b.de"]]);
        for of_them in [
            r#"{"id": 42, "n": "x"}"#,
            r#"{"ID": "42"}"#,
            r#"{"payload": {"before": {"id": 1}, "after": {"id": 42}}}"#,
            // no field is called so
            r#"{"number": 42}"#,
            r#"[7, "Zo\u00eb@b.de"]"#,
            // no JSON
            r#"{"id": 42, "n": "#,
            r#"id=42;x"#,
            r#"{"id": "Zo\u00EB@b.de"#,
            "Zoë@b.de",
        ] {
            assert!(wanted.has(None, of_them.as_bytes()), "{of_them}");
        }
        for of_others in [
            r#"{"id": 1, "n": 42}"#,
            r#"{"id": 420}"#,
            r#"{"number": 42.5}"#,
            r#"{"id": 142, "#,
            r#"{"id": -42, "#,
            r#"{"id": 42.5, "#,
            r#"{"id": 4.42, "#,
            "nothing",
            "",
        ] {
            assert!(!wanted.has(None, of_others.as_bytes()), "{of_others}");
        }
    }
}
