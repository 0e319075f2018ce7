//! A table of plain JSON records: its columns, and each record's row.

use super::child_spec::ChildSpec;
use super::children::{ChildTable, Element};
use super::infer::{Fields, Leaves, Reserved};
use super::{BadValues, PlainColumn, PlainType};
use crate::event::{Column, SourceType, TableId, TableSchema};
use crate::format::cell::Cell;
use serde_json::{Map, Value};
use std::sync::Arc;

/// A table of plain JSON records.
#[derive(Debug, Clone)]
pub struct PlainTable {
    table: TableId,
    /// `None` while the type of a column of the key isn't known.
    schema: Option<Arc<TableSchema>>,
    key: Vec<String>,
    declared: Vec<PlainColumn>,
    /// All columns in the lake's order; of a declared one its number.
    columns: Vec<(PlainColumn, Option<usize>)>,
    is_inferred: bool,
    bad_values: BadValues,
    /// Names that its columns can't have.
    reserved: Reserved,
    /// Tables of the elements of its lists.
    children: Vec<ChildTable>,
}

/// What a record says.
#[derive(Debug)]
pub(super) struct ReadRow {
    pub(super) row: Vec<Cell<'static>>,
    /// The elements of its lists, in the order of the children.
    pub(super) children: Vec<Vec<Element>>,
    /// How many values became NULL.
    pub(super) nulls: u64,
}

/// A record that can't be a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable(pub String);

impl PlainTable {
    /// A table with these columns; `key` names some of them.
    ///
    /// # Errors
    /// What is wrong, for the configuration's reader.
    pub fn new(table: TableId, columns: Vec<PlainColumn>, key: &[String], bad_values: BadValues) -> Result<Self, String> {
        let made = Self::inferring(table, columns, key, bad_values, None)?;
        match made.missing_key() {
            None => Ok(Self { is_inferred: false, ..made }),
            Some(name) => Err(format!("the key of {} has the column `{name}`, which `columns` doesn't declare", made.table)),
        }
    }

    /// A table that has other columns besides: those of `known`, and those of which the records have values.
    ///
    /// # Errors
    /// What is wrong, for the configuration's reader.
    pub fn inferring(
        table: TableId,
        declared: Vec<PlainColumn>,
        key: &[String],
        bad_values: BadValues,
        known: Option<&TableSchema>,
    ) -> Result<Self, String> {
        if key.is_empty() {
            return Err(format!("the table {table} needs `key`: the columns that say which row a record is about"));
        }
        let known = known.map(|known| known.columns.as_slice()).unwrap_or_default();
        Ok(Self::made(table, declared, key, bad_values, known, true, Reserved::default()))
    }

    /// The table of elements of a list; its key may be empty.
    pub(super) fn of_elements(
        table: TableId,
        spec: &ChildSpec,
        bad_values: BadValues,
        known: &[Column],
        reserved: Reserved,
    ) -> Self {
        let known = if spec.is_inferred { known } else { &[] };
        Self::made(table, spec.columns.clone(), &spec.key, bad_values, known, spec.is_inferred, reserved)
    }

    fn made(
        table: TableId,
        declared: Vec<PlainColumn>,
        key: &[String],
        bad_values: BadValues,
        known: &[Column],
        is_inferred: bool,
        reserved: Reserved,
    ) -> Self {
        let named = |name: &String| {
            let found = declared.iter().find(|column| column.name == *name || column.path.join(".") == *name);
            found.map_or_else(|| reserved.free(name.clone()), |column| column.name.clone())
        };
        let key = key.iter().map(named).collect();
        let (schema, columns, children) = (None, Vec::new(), Vec::new());
        let mut made = Self { table, schema, key, declared, columns, is_inferred, bad_values, reserved, children };
        // the lake's order stays
        for column in known {
            let declared = made.declared.iter().position(|declared| declared.name == column.name);
            made.columns.push(match declared {
                Some(number) => (made.declared[number].clone(), Some(number)),
                None => (inferred(&column.name, PlainType::of(column.source_type.clone())), None),
            });
        }
        for (number, column) in made.declared.iter().enumerate() {
            if !made.columns.iter().any(|(known, _)| known.name == column.name) {
                made.columns.push((column.clone(), Some(number)));
            }
        }
        made.settle();
        made
    }

    /// The same with children. `partition_columns` are the lake table's, `known` is its shape as far as it is known.
    ///
    /// # Errors
    /// What is wrong, for the configuration's reader.
    pub fn with_children(
        mut self,
        children: &[ChildSpec],
        partition_columns: &[String],
        known: Option<&TableSchema>,
    ) -> Result<Self, String> {
        let inherited = [&self.key, partition_columns].concat();
        let bad_values = self.bad_values;
        self.add_children(children, &inherited, bad_values, known.map(|known| known.columns.as_slice()))?;
        Ok(self)
    }

    pub(super) fn add_children(
        &mut self,
        children: &[ChildSpec],
        inherited: &[String],
        bad_values: BadValues,
        known: Option<&[Column]>,
    ) -> Result<(), String> {
        let made = children.iter().map(|spec| ChildTable::new(spec, &self.table, inherited, bad_values, known));
        self.children = made.collect::<Result<_, _>>()?;
        self.settle();
        Ok(())
    }

    fn missing_key(&self) -> Option<&String> {
        self.key.iter().find(|name| !self.columns.iter().any(|(column, _)| column.name == **name))
    }

    /// The shape of the columns that are known now.
    fn settle(&mut self) {
        let key = self.key_indices();
        self.schema = key.map(|key| Arc::new(TableSchema { table: self.table.clone(), columns: self.known_columns(), key }));
    }

    /// Where the key is; `None` while a column of it isn't known.
    fn key_indices(&self) -> Option<Vec<usize>> {
        let at = |name: &String| self.columns.iter().position(|(column, _)| column.name == *name);
        self.key.iter().map(at).collect()
    }

    /// The columns that are known now, in the lake's order.
    pub(super) fn known_columns(&self) -> Vec<Column> {
        let column = |column: &PlainColumn| {
            let declared = column.kind.source_type();
            let child = self.children.iter().find(|child| child.column() == column.name);
            let source_type = child.map_or_else(|| declared.clone(), |child| child.list_type(declared));
            Column { name: column.name.clone(), source_type, nullable: true }
        };
        self.columns.iter().map(|(known, _)| column(known)).collect()
    }

    /// The columns that aren't known from the declaration alone.
    pub(super) fn carried_columns(&self) -> Vec<Column> {
        let is_carried = |column: &Column| self.is_inferred || matches!(column.source_type, SourceType::Objects { .. });
        self.known_columns().into_iter().filter(is_carried).collect()
    }

    /// Names of the key's columns.
    pub(super) fn key(&self) -> &[String] {
        &self.key
    }

    /// The key's cells of a row.
    pub(super) fn key_cells<'a>(&self, row: &'a [Cell<'static>]) -> impl Iterator<Item = &'a Cell<'static>> + use<'a> {
        self.key_indices().unwrap_or_default().into_iter().filter_map(|index| row.get(index))
    }

    /// Tables of the elements of its lists.
    pub(super) fn children(&self) -> &[ChildTable] {
        &self.children
    }

    /// Which table it is.
    pub fn table(&self) -> &TableId {
        &self.table
    }

    /// Its shape, as far as it is known; `None` while a column of its key isn't.
    pub fn schema(&self) -> Option<&Arc<TableSchema>> {
        self.schema.as_ref()
    }

    /// Takes note of the fields of records that come next; gives the columns that were inferred of them, by table: its own, and its children's.
    pub fn learn(&mut self, records: &[&Map<String, Value>]) -> Vec<(TableId, Vec<PlainColumn>)> {
        let mut learned = Vec::new();
        if self.is_inferred {
            let new = self.infer(records);
            learned.extend((!new.is_empty()).then(|| (self.table.clone(), new)));
        }
        for child in &mut self.children {
            let list = self.columns.iter().find(|(column, _)| column.name == child.column());
            let lists = records.iter().filter_map(|record| list?.0.value(record));
            learned.extend(child.learn(lists));
        }
        if !learned.is_empty() {
            self.settle();
        }
        learned
    }

    fn infer(&mut self, records: &[&Map<String, Value>]) -> Vec<PlainColumn> {
        let names = self.columns.iter().map(|(column, _)| column.name.as_str());
        let mut fields = Fields::new(names);
        for record in records {
            // what is no row says nothing about rows
            if let Ok(leaves) = Leaves::of(record, &self.declared, &self.reserved)
                && self.key.iter().all(|name| self.is_given(record, &leaves, name))
            {
                fields.take(&leaves);
            }
        }
        let new: Vec<PlainColumn> =
            fields.columns().into_iter().map(|(name, source_type)| inferred(&name, PlainType::of(source_type))).collect();
        self.columns.extend(new.iter().map(|column| (column.clone(), None)));
        new
    }

    fn is_given(&self, record: &Map<String, Value>, leaves: &Leaves<'_>, name: &str) -> bool {
        let declared = self.declared.iter().find(|column| column.name == name);
        let value = declared.map_or_else(|| leaves.get(name), |column| column.value(record));
        value.is_some_and(|value| !value.is_null())
    }

    /// A record's row, and how many of its values became NULL.
    ///
    /// # Errors
    /// Why the record is none.
    pub fn row(&self, fields: &Map<String, Value>) -> Result<(Vec<Cell<'static>>, u64), Unreadable> {
        self.read(fields).map(|read| (read.row, read.nulls))
    }

    /// A record's row, and the elements of its lists.
    pub(super) fn read(&self, fields: &Map<String, Value>) -> Result<ReadRow, Unreadable> {
        let leaves = match self.is_inferred {
            true => Some(Leaves::of(fields, &self.declared, &self.reserved).map_err(Unreadable)?),
            false => None,
        };
        let mut nulls = 0;
        let mut row = Vec::with_capacity(self.columns.len());
        for (column, declared) in &self.columns {
            let is_key = self.key.contains(&column.name);
            let value = match declared {
                Some(_) => column.value(fields),
                None => leaves.as_ref().and_then(|leaves| leaves.get(&column.name)),
            };
            let cell = match value.map(|value| column.kind.cell(value)) {
                None => Cell::Null,
                Some(Ok(cell)) => cell,
                Some(Err(_)) if !is_key && column.bad_values.unwrap_or(self.bad_values) == BadValues::Null => {
                    nulls += 1;
                    Cell::Null
                }
                Some(Err(what)) => {
                    return Err(Unreadable(format!("the value of `{}` can't be read: {what}", column.path.join("."))));
                }
            };
            if is_key && cell == Cell::Null {
                return Err(Unreadable(format!("the key `{}` is missing", column.path.join("."))));
            }
            row.push(cell);
        }
        if let Some(name) = self.missing_key() {
            return Err(Unreadable(format!("the key `{name}` is missing")));
        }
        let is_known = |name: &String| self.columns.iter().any(|(column, _)| column.name == *name);
        if let Some(unknown) = leaves.iter().flat_map(Leaves::names).find(|name| !is_known(name)) {
            return Err(Unreadable(self.why_no_column(unknown)));
        }
        let mut children = Vec::with_capacity(self.children.len());
        for child in &self.children {
            let list = self.columns.iter().find(|(column, _)| column.name == child.column());
            let (elements, bad) = child.elements(list.and_then(|(list, _)| list.value(fields))).map_err(Unreadable)?;
            nulls += bad;
            children.push(elements);
        }
        Ok(ReadRow { row, children, nulls })
    }

    /// Why a field has no column though all have that can be inferred.
    fn why_no_column(&self, field: &str) -> String {
        match self.columns.iter().find(|(column, _)| column.name.eq_ignore_ascii_case(field)) {
            Some((known, _)) => {
                format!("the field `{field}` differs from the column `{}` in its case alone; declare it in `columns`", known.name)
            }
            None => format!("the field `{field}` can't be a column of its own; declare it in `columns`"),
        }
    }
}

fn inferred(name: &str, kind: PlainType) -> PlainColumn {
    PlainColumn { path: vec![name.to_owned()], name: name.to_owned(), kind, bad_values: None }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
