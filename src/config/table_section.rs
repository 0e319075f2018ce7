//! One `[[table]]` as the file has it: of the source, or fed by a stream that others write.

use crate::event::{Column, InvalidText, TableId, TableSchema, ZeroDates};
use crate::format::{BadValues, ChildSpec, ChildSpecs, DeclaredColumns, PlainColumn, PlainTable, declare_lists};
use crate::merge::{HistoryRule, OnInvalid, PartitionBy, PartitionField, TablePattern, TableRule, TinyInt1};
use crate::stream::RecordStreamUrl;
use crate::transform::{OnError, Transform};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use std::fmt;

/// A table that is fed by a stream that others write.
#[derive(Debug, Clone)]
pub struct FedTable {
    /// The stream.
    pub stream: RecordStreamUrl,
    /// What its records are.
    pub format: FeedFormat,
    /// The table in the lake; for change records, the table that they name.
    pub table: TableId,
    /// The columns, where they are declared.
    pub columns: Vec<PlainColumn>,
    /// Whether fields of plain records that aren't declared become columns.
    pub is_inferred: bool,
    /// What becomes of values of another type than declared.
    pub bad_values: BadValues,
    /// How it is merged.
    pub rule: TableRule,
}

impl FedTable {
    /// The shape that `columns` declare.
    pub fn declared_shape(&self) -> TableSchema {
        let column = |column: &PlainColumn| Column {
            name: column.name.clone(),
            source_type: column.kind.source_type().clone(),
            nullable: true,
        };
        let key = self.rule.key.iter().filter_map(|name| self.columns.iter().position(|column| column.name == *name));
        TableSchema { table: self.table.clone(), columns: self.columns.iter().map(column).collect(), key: key.collect() }
    }

    /// The table of its records, if these are plain; `known` is its shape in the lake.
    ///
    /// # Errors
    /// What is wrong with its declaration.
    pub fn plain_table(&self, known: Option<&TableSchema>) -> Result<PlainTable, String> {
        let (table, columns, key) = (self.table.clone(), self.columns.clone(), &self.rule.key);
        let made = match self.is_inferred {
            true => PlainTable::inferring(table, columns, key, self.bad_values, known)?,
            false => PlainTable::new(table, columns, key, self.bad_values)?,
        };
        let partition_by = self.rule.partition_by.iter().flat_map(|by| &by.fields);
        let partition_columns: Vec<String> = partition_by.map(PartitionField::lake_column).collect();
        made.with_children(&self.rule.children.0, &partition_columns, known)
    }
}

/// What the records of a stream that others write are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeedFormat {
    /// Plain JSON: each record is a row.
    Json,
    /// AWS DMS's change records.
    DmsJson,
    /// Debezium's change records.
    DebeziumJson,
}

impl fmt::Display for FeedFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::DmsJson => "dms-json",
            Self::DebeziumJson => "debezium-json",
        })
    }
}

/// Either.
#[derive(Debug, Clone)]
pub(super) enum TableEntry {
    Source(Box<TableRule>),
    Fed(Box<FedTable>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TableSection {
    source: Option<TablePattern>,
    #[serde(default)]
    exclude: Vec<TablePattern>,
    #[serde(default)]
    key: Vec<String>,
    partition_by: Option<PartitionBy>,
    #[serde(default)]
    zero_dates: ZeroDates,
    #[serde(default)]
    invalid_text: InvalidText,
    #[serde(default)]
    tinyint1: TinyInt1,
    stream: Option<RecordStreamUrl>,
    name: Option<TableId>,
    format: Option<FeedFormat>,
    columns: Option<DeclaredColumns>,
    infer: Option<bool>,
    ordering: Option<String>,
    #[serde(default, deserialize_with = "HistoryRule::deserialize_optional")]
    history: Option<HistoryRule>,
    bad_values: Option<BadValues>,
    transform: Option<Transform>,
    #[serde(default)]
    children: ChildSpecs,
    on_error: Option<OnError>,
}

impl<'de> Deserialize<'de> for TableEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let section = TableSection::deserialize(deserializer)?;
        let section = section.with_on_error().map_err(D::Error::custom)?;
        let entry = if section.stream.is_some() {
            section.fed().map(|fed| Self::Fed(Box::new(fed)))
        } else {
            section.of_source().map(|rule| Self::Source(Box::new(rule)))
        };
        entry.map_err(D::Error::custom)
    }
}

impl TableSection {
    /// What becomes of rows that can't be transformed is the transform's own business.
    fn with_on_error(mut self) -> Result<Self, String> {
        let Some(on_error) = self.on_error else { return Ok(self) };
        let transform = self
            .transform
            .take()
            .ok_or("`on_error` says what becomes of rows that `transform` can't make; remove it, or add transform = …")?;
        self.transform = Some(transform.with_on_error(on_error));
        Ok(self)
    }

    fn rule(self, source: TablePattern) -> TableRule {
        TableRule {
            source,
            exclude: self.exclude,
            key: self.key,
            partition_by: self.partition_by,
            zero_dates: self.zero_dates,
            invalid_text: self.invalid_text,
            tinyint1: self.tinyint1,
            ordering: self.ordering,
            transform: self.transform,
            history: self.history,
            children: self.children,
        }
    }

    /// Rows that their history can't read become dead letters where nothing else makes dead letters of them.
    fn ensure_one_reason(&self) -> Result<(), String> {
        let refuses = |history: &HistoryRule| history.on_invalid_valid_time == OnInvalid::DeadLetter;
        match self.transform.is_some() && self.history.as_ref().is_some_and(refuses) {
            true => Err("`on_invalid_valid_time = \"dead_letter\"` isn't for tables with a `transform`; let its SELECT fail for such rows, with on_error = \"dead_letter\"".into()),
            false => Ok(()),
        }
    }

    /// A child's history goes with its table's, and its times can be read.
    fn ensure_histories(&self) -> Result<(), String> {
        self.history.as_ref().map_or(Ok(()), HistoryRule::ensure_format)?;
        match self.children.0.iter().find(|child| self.history.is_none() && child.keeps_histories()) {
            Some(child) => Err(format!(
                "`children.{}` has a history, and its table has none; write history = true for the table, or remove it there",
                child.path.join(".")
            )),
            None => Ok(()),
        }
    }

    fn of_source(mut self) -> Result<TableRule, String> {
        let later = [
            (self.name.is_some(), "name"),
            (self.format.is_some(), "format"),
            (self.columns.is_some(), "columns"),
            (self.infer.is_some(), "infer"),
            (self.ordering.is_some(), "ordering"),
            (self.bad_values.is_some(), "bad_values"),
        ];
        if let Some((_, key)) = later.iter().find(|(is_there, _)| *is_there) {
            return Err(format!("`{key}` is for tables with `stream`; remove it, or add stream = …"));
        }
        self.ensure_one_reason()?;
        let source = self.source.take().ok_or("missing field `source`")?;
        ensure_told(&self.children.0)?;
        self.ensure_histories()?;
        if !matches!(source, TablePattern::Exact(_)) && self.children.0.iter().any(ChildSpec::is_named) {
            return Err("`name` of a child is for one table, and `source` is a pattern; leave it out for <table>_<column>".into());
        }
        Ok(self.rule(source))
    }

    fn fed(mut self) -> Result<FedTable, String> {
        self.ensure_one_reason()?;
        let stream = self.stream.take().ok_or("missing field `stream`")?;
        let format = self.format.take().unwrap_or(FeedFormat::Json);
        let table = match (self.name.take(), self.source.take()) {
            (Some(_), Some(_)) => return Err("a table with `stream` has `name` or `source`, not both; remove one".into()),
            (Some(name), None) => name,
            (None, Some(TablePattern::Exact(table))) if format != FeedFormat::Json => table,
            (None, Some(_)) => return Err("a table with `stream` is named exactly; write name = \"database.table\"".into()),
            (None, None) => return Err("missing field `name`".into()),
        };
        let mut columns = self.columns.take().map(|DeclaredColumns(columns)| columns).unwrap_or_default();
        if format != FeedFormat::Json && self.infer.is_some() {
            return Err("`infer` is for format = \"json\": change records say their columns; remove it".into());
        }
        let is_inferred = format == FeedFormat::Json && self.infer.unwrap_or(columns.is_empty());
        if format == FeedFormat::Json && columns.is_empty() && !is_inferred {
            return Err("missing field `columns`".into());
        }
        self.ensure_histories()?;
        let bad_values = self.bad_values.unwrap_or_default();
        if format == FeedFormat::Json {
            declare_lists(&mut columns, &self.children.0)?;
            self.children.settle(bad_values);
        } else {
            ensure_told(&self.children.0)?;
        }
        // a key may be named by its path
        for key in &mut self.key {
            *key = key.replace('.', "_");
        }
        let knows = |name: &str| columns.iter().any(|column| column.name == name);
        if let Some(missing) = self.key.iter().find(|name| !columns.is_empty() && !is_inferred && !knows(name)) {
            return Err(format!("`columns` doesn't declare the key `{missing}`; add it"));
        }
        if self.key.is_empty() && (is_inferred || !columns.is_empty()) {
            return Err("missing field `key`".into());
        }
        if let Some(ordering) = &mut self.ordering {
            *ordering = ordering.replace('.', "_");
            if !knows(ordering) {
                return Err(format!("`columns` doesn't declare the ordering `{ordering}`; add it"));
            }
        }
        if let Some(by) = self
            .partition_by
            .iter()
            .flat_map(|by| &by.fields)
            .find(|by| format == FeedFormat::Json && !self.key.contains(&by.column))
        {
            return Err(format!(
                "`partition_by` names `{}`, which is not in the key; plain records don't say where a row was before, so add it to `key`",
                by.column
            ));
        }
        if let (Some(history), Some(ordering)) = (&mut self.history, &self.ordering) {
            for column in [&mut history.valid_time, &mut history.valid_to, &mut history.soft_delete].into_iter().flatten() {
                *column = column.replace('.', "_");
            }
            if history.valid_time.as_ref() != Some(ordering) {
                return Err(format!(
                    "`history` beside `ordering` takes the same column as valid time; write history = {{ valid_time = \"{ordering}\" }}"
                ));
            }
        }
        let rule = self.rule(TablePattern::Exact(table.clone()));
        let fed = FedTable { stream, format, table, columns, is_inferred, bad_values, rule };
        if format == FeedFormat::Json {
            fed.plain_table(None)?;
        }
        Ok(fed)
    }
}

/// Children of tables whose records or rows have their columns from elsewhere: nothing is known of the elements, and nobody reads them before the merge.
fn ensure_told(children: &[ChildSpec]) -> Result<(), String> {
    if let Some(child) = children.iter().find(|child| child.infers()) {
        let path = child.path.join(".");
        return Err(format!("`children.{path}` needs `columns`: only format = \"json\" infers those of elements; add them"));
    }
    if let Some(child) = children.iter().find(|child| child.sends_letters()) {
        let path = child.path.join(".");
        return Err(format!(
            "`bad_values` of `children.{path}` can't be dead_letter but with format = \"json\"; write \"null\", or leave it out: the table then stops"
        ));
    }
    Ok(())
}
