//! Splitting a table into chunks by the order of its key, one chunk at a time, so that what remains is always small to write down.
//!
//! A dense integer key is cut by arithmetic; any other key by walking its index: "the key that lies n rows after this one". Bounds are SQL literals in
//! the column's own character set and collation, so the server compares them in exactly the index's order.

use super::catalog::{CatalogTable, SplitColumn};
use super::snapshot_session::Session;
use super::sql::{quote, quote_table};
use crate::error::{Area, Error, Kind, Result};
use crate::event::{KeyRange, SourceType};
use std::fmt::Write;

/// An integer key counts as dense if at least one value in this many is a row.
const SPARSEST_DENSITY: u128 = 5;

/// Splits one table.
#[derive(Debug)]
pub(super) struct Splitter {
    chunk_rows: u64,
    /// Smallest and largest key, and the width of a chunk; read at the first split.
    dense: Option<Option<DenseKey>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DenseKey {
    first: i128,
    last: i128,
    width: i128,
}

impl Splitter {
    /// A splitter into chunks of about `chunk_rows`.
    pub(super) fn new(chunk_rows: u64) -> Self {
        Self { chunk_rows: chunk_rows.max(1), dense: None }
    }

    /// Takes the first chunk off `range`: the chunk, and what remains.
    pub(super) async fn split(
        &mut self,
        session: &mut Session,
        table: &CatalogTable,
        range: KeyRange,
    ) -> Result<(KeyRange, Option<KeyRange>)> {
        if !range.unsplit || table.split_key.is_empty() {
            return Ok((KeyRange { unsplit: false, ..range }, None));
        }
        if range.columns.is_empty() && self.dense.is_none() {
            self.dense = Some(self.find_dense_key(session, table).await?);
        }
        if let Some(Some(dense)) = self.dense {
            return Ok(dense.cut(table, range));
        }
        match self.walk(session, table, &range).await? {
            Some(key) => Ok(cut_at(table, range, key)),
            None => Ok((KeyRange { unsplit: false, ..range }, None)),
        }
    }

    async fn find_dense_key(&self, session: &mut Session, table: &CatalogTable) -> Result<Option<DenseKey>> {
        let [column] = table.split_key.as_slice() else { return Ok(None) };
        if !is_integer(&column.source_type) {
            return Ok(None);
        }
        let name = quote(&column.name);
        let sql = format!("SELECT MIN({name}), MAX({name}) FROM {}", quote_table(&table.schema.table));
        let row = session.first_row(&sql).await?.unwrap_or_default();
        let bound = |index: usize| std::str::from_utf8(row.get(index)?.as_ref()?).ok()?.parse::<i128>().ok();
        let (Some(first), Some(last)) = (bound(0), bound(1)) else { return Ok(None) };
        Ok(DenseKey::new(first, last, table.estimated_rows, self.chunk_rows))
    }

    /// The key that ends the chunk which begins `range`; `None`: the range has no more rows than a chunk.
    async fn walk(&self, session: &mut Session, table: &CatalogTable, range: &KeyRange) -> Result<Option<Vec<String>>> {
        let columns = table.split_key.iter().map(|column| quote(&column.name)).collect::<Vec<_>>().join(", ");
        let condition = condition(range).map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
        let sql = format!(
            "SELECT {columns} FROM {}{condition} ORDER BY {columns} LIMIT {}, 1",
            quote_table(&table.schema.table),
            self.chunk_rows - 1
        );
        let Some(values) = session.first_row(&sql).await? else { return Ok(None) };
        let literals = table.split_key.iter().zip(&values).map(|(column, value)| literal(column, value.as_deref()?));
        literals.collect::<Option<Vec<_>>>().map(Some).ok_or_else(|| {
            Error::new(Area::Source, Kind::Data, "a key's value can't be written as a literal").with("table", &table.schema.table)
        })
    }
}

impl DenseKey {
    fn new(first: i128, last: i128, rows: u64, chunk_rows: u64) -> Option<Self> {
        let span = u128::try_from(last.checked_sub(first)?.checked_add(1)?).ok()?;
        let rows = u128::from(rows).max(1);
        if span > rows.checked_mul(SPARSEST_DENSITY)? && span > u128::from(chunk_rows) {
            return None;
        }
        let width = (u128::from(chunk_rows) * span / rows.min(span)).max(u128::from(chunk_rows));
        Some(Self { first, last, width: i128::try_from(width).ok()? })
    }

    fn cut(&self, table: &CatalogTable, range: KeyRange) -> (KeyRange, Option<KeyRange>) {
        let before = range.after.as_ref().and_then(|after| after.first()?.parse().ok()).unwrap_or(self.first - 1);
        match before.checked_add(self.width) {
            Some(end) if end < self.last => cut_at(table, range, vec![end.to_string()]),
            _ => (KeyRange { unsplit: false, ..range }, None),
        }
    }
}

/// Splits `range` after `key`.
fn cut_at(table: &CatalogTable, range: KeyRange, key: Vec<String>) -> (KeyRange, Option<KeyRange>) {
    let columns: Vec<String> = table.split_key.iter().map(|column| column.name.clone()).collect();
    let chunk = KeyRange { columns: columns.clone(), after: range.after, through: Some(key.clone()), unsplit: false };
    (chunk, Some(KeyRange { columns, after: Some(key), through: range.through, unsplit: true }))
}

/// The SQL condition of the rows in `range`; `None`: all of the table.
pub(super) fn condition(range: &KeyRange) -> Option<String> {
    let after = range.after.as_deref().map(|bound| compare(&range.columns, bound, '>', ">"));
    let through = range.through.as_deref().map(|bound| compare(&range.columns, bound, '<', "<="));
    match (after, through) {
        (None, None) => None,
        (Some(one), None) | (None, Some(one)) => Some(one),
        (Some(after), Some(through)) => Some(format!("{after} AND {through}")),
    }
}

/// `(a, b) > (x, y)`, written out so that the server's optimizer sees a range of the index.
fn compare(columns: &[String], bound: &[String], strict: char, last: &str) -> String {
    let names: Vec<String> = columns.iter().map(|column| quote(column)).collect();
    let pairs: Vec<(&String, &String)> = names.iter().zip(bound).collect();
    let alternatives: Vec<String> = (0..pairs.len())
        .map(|depth| {
            let mut term = String::new();
            for (name, value) in &pairs[..depth] {
                // writing to a String can't fail
                let _ = write!(term, "{name} = {value} AND ");
            }
            let (name, value) = pairs[depth];
            let operator = if depth + 1 == pairs.len() { last.to_owned() } else { strict.to_string() };
            let _ = write!(term, "{name} {operator} {value}");
            if depth == 0 { term } else { format!("({term})") }
        })
        .collect();
    format!("({})", alternatives.join(" OR "))
}

fn is_integer(source_type: &SourceType) -> bool {
    matches!(
        source_type,
        SourceType::TinyInt { .. }
            | SourceType::SmallInt { .. }
            | SourceType::MediumInt { .. }
            | SourceType::Int { .. }
            | SourceType::BigInt { .. }
    )
}

/// A key's value, as the text protocol has it, as an SQL literal that compares in the column's own collation.
fn literal(column: &SplitColumn, value: &[u8]) -> Option<String> {
    let only = |allowed: &[u8]| {
        let text = std::str::from_utf8(value).ok()?;
        value.iter().all(|byte| byte.is_ascii_digit() || allowed.contains(byte)).then_some(text)
    };
    Some(match &column.source_type {
        SourceType::Bit { .. } => value.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)).to_string(),
        SourceType::Binary { .. } => hex(value),
        SourceType::Text { charset, .. } => format!("_{charset} {} COLLATE {}", hex(value), column.collation.as_deref()?),
        SourceType::Date | SourceType::DateTime { .. } | SourceType::Timestamp { .. } | SourceType::Time { .. } => {
            format!("'{}'", only(b"-:. ")?)
        }
        _ => only(b"-.")?.to_owned(),
    })
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2 + 3);
    text.push_str("x'");
    for byte in bytes {
        // writing to a String can't fail
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\'');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Column, TableId, TableSchema};

    fn table(estimated_rows: u64) -> CatalogTable {
        let source_type = SourceType::BigInt { unsigned: true };
        let columns = vec![Column { name: "id".into(), source_type: source_type.clone(), nullable: false }];
        CatalogTable {
            schema: TableSchema { table: TableId::new("d", "t"), columns, key: vec![0] },
            engine: "InnoDB".into(),
            estimated_rows,
            mean_row_bytes: 100,
            split_key: vec![SplitColumn { name: "id".into(), source_type, collation: None }],
            wanted: Default::default(),
        }
    }

    fn all_chunks(dense: DenseKey) -> Vec<(Option<String>, Option<String>)> {
        let (mut rest, mut chunks) = (Some(KeyRange::whole()), Vec::new());
        while let Some(range) = rest {
            let (chunk, next) = dense.cut(&table(0), range);
            assert!(!chunk.unsplit);
            let first = |bound: Option<Vec<String>>| bound.map(|mut bound| bound.remove(0));
            chunks.push((first(chunk.after), first(chunk.through)));
            rest = next;
        }
        chunks
    }

    #[test]
    fn a_dense_integer_key_is_cut_by_arithmetic_and_open_at_both_ends() {
        let text = |number: &str| Some(number.to_owned());
        let dense = DenseKey::new(1, 1000, 1000, 400).unwrap();
        assert_eq!(all_chunks(dense), [(None, text("400")), (text("400"), text("800")), (text("800"), None)]);
        let dense = DenseKey::new(-10, 9, 10, 5).unwrap();
        assert_eq!(all_chunks(dense), [(None, text("-1")), (text("-1"), None)], "half of the keys are rows: twice the width");
        let top = i128::from(u64::MAX);
        let dense = DenseKey::new(top - 9, top, 10, 5).unwrap();
        assert_eq!(all_chunks(dense), [(None, text("18446744073709551610")), (text("18446744073709551610"), None)]);
        assert_eq!(DenseKey::new(1, i128::from(u64::MAX), 1_000_000, 100_000), None, "sparse keys are walked");
        assert!(DenseKey::new(5, 90_000, 1, 100_000).is_some(), "fewer possible keys than a chunk has rows");
    }

    #[test]
    fn ranges_of_composite_keys_are_written_out() {
        let range = KeyRange {
            columns: vec!["a".into(), "b".into()],
            after: Some(vec!["1".into(), "x'00'".into()]),
            through: Some(vec!["2".into(), "x'ff'".into()]),
            unsplit: false,
        };
        assert_eq!(
            condition(&range).unwrap(),
            "(`a` > 1 OR (`a` = 1 AND `b` > x'00')) AND (`a` < 2 OR (`a` = 2 AND `b` <= x'ff'))"
        );
        assert_eq!(condition(&KeyRange::whole()), None);
    }

    #[test]
    fn literals_keep_character_set_and_collation() {
        let of = |source_type: SourceType, value: &[u8]| {
            literal(&SplitColumn { name: "k".into(), source_type, collation: Some("gbk_chinese_ci".into()) }, value)
        };
        let text = SourceType::Text { charset: "gbk".into(), max_bytes: 40 };
        assert_eq!(of(text, b"\xc4'").unwrap(), "_gbk x'c427' COLLATE gbk_chinese_ci");
        assert_eq!(of(SourceType::Bit { bits: 64 }, &[0xff; 8]).unwrap(), u64::MAX.to_string());
        assert_eq!(of(SourceType::Decimal { precision: 65, scale: 30 }, b"-1.50").unwrap(), "-1.50");
        assert_eq!(of(SourceType::Int { unsigned: false }, b"1; DROP"), None);
        assert_eq!(of(SourceType::Time { fsp: 6 }, b"-838:59:59.000005").unwrap(), "'-838:59:59.000005'");
        assert_eq!(of(SourceType::Binary { fixed_bytes: 2 }, b"\x00'").unwrap(), "x'0027'");
    }
}
