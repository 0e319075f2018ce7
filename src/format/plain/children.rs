//! A list of objects as a table of its own: its elements' columns, and what makes an element's row.
//!
//! An element is read as a record is: by a [`PlainTable`] without a key of its own, or with one. Its row has the keys of all that it lies in before its own
//! columns: `merge` puts those there. What tells elements of one list apart is their `key`, or their number, from 0.

use super::child_spec::ChildSpec;
use super::infer::Reserved;
use super::{BadValues, PlainColumn, PlainTable, Unreadable};
use crate::event::{Column, SourceType, TableId};
use crate::format::cell::Cell;
use serde_json::{Map, Value};
use std::collections::HashSet;

/// The column that has an element's number, where it has no key.
pub const INDEX: &str = "_index";

/// A child of a table: one row for each element of a list column.
#[derive(Debug, Clone)]
pub struct ChildTable {
    column: String,
    elements: PlainTable,
    is_indexed: bool,
    bad_values: BadValues,
    /// Names of the columns that identify the object that the list lies in.
    inherited: Vec<String>,
}

/// An element of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Element {
    /// Its number in the list, from 0.
    pub index: i64,
    /// Its row, in the order of [`ChildTable::columns`].
    pub row: Vec<Cell<'static>>,
    /// The elements of its own lists, in the order of [`ChildTable::children`].
    pub children: Vec<Vec<Element>>,
}

impl ChildTable {
    /// The child that `spec` declares of `parent`; `inherited` names the columns that identify the object that the list lies in, `known` is the shape of
    /// the table that has the list, as far as it is known, `bad_values` what the parent says of them.
    ///
    /// # Errors
    /// What is wrong, for the configuration's reader.
    pub fn new(
        spec: &ChildSpec,
        parent: &TableId,
        inherited: &[String],
        bad_values: BadValues,
        known: Option<&[Column]>,
    ) -> Result<Self, String> {
        let table = spec.table(parent);
        if table.database() != parent.database() {
            return Err(format!(
                "{table} is in another database than {parent}, whose child it is; write name = \"{}.{}\"",
                parent.database(),
                table.name()
            ));
        }
        let is_indexed = spec.key.is_empty();
        let mut reserved = inherited.to_vec();
        if is_indexed {
            reserved.push(INDEX.to_owned());
        }
        if let Some(taken) = spec.columns.iter().find(|column| reserved.iter().any(|name| name.eq_ignore_ascii_case(&column.name)))
        {
            let (name, path) = (&taken.name, taken.path.join("."));
            return Err(format!(
                "{table} has `{name}` twice: it identifies the parent, too; write {}_{name} = {{ type = …, path = \"{path}\" }}",
                spec.column
            ));
        }
        let known: Vec<Column> = match known.and_then(|columns| columns.iter().find(|column| column.name == spec.column)) {
            Some(Column { source_type: SourceType::Objects { columns }, .. }) => columns.clone(),
            _ => Vec::new(),
        };
        let bad_values = spec.bad_values.unwrap_or(bad_values);
        let reserved = Reserved { names: reserved, prefix: spec.column.clone() };
        let mut elements = PlainTable::of_elements(table.clone(), spec, bad_values, &known, reserved);
        let own = if is_indexed { vec![format!("_{}{INDEX}", spec.column)] } else { elements.key().to_vec() };
        let below = [inherited, &own].concat();
        elements.add_children(&spec.children, &below, bad_values, Some(&known))?;
        Ok(Self { column: spec.column.clone(), elements, is_indexed, bad_values, inherited: inherited.to_vec() })
    }

    /// Which table it is.
    pub fn table(&self) -> &TableId {
        self.elements.table()
    }

    /// The parent's column that has the list.
    pub fn column(&self) -> &str {
        &self.column
    }

    /// Names of the columns that identify the object that the list lies in.
    pub fn inherited(&self) -> &[String] {
        &self.inherited
    }

    /// The elements' own columns, as far as they are known.
    pub fn columns(&self) -> Vec<Column> {
        self.elements.known_columns()
    }

    /// Whether elements are told apart by their number, [`INDEX`].
    pub fn is_indexed(&self) -> bool {
        self.is_indexed
    }

    /// Names of the columns that tell elements apart; empty: [`INDEX`].
    pub fn key(&self) -> &[String] {
        self.elements.key()
    }

    /// What tells an element apart, of its row.
    pub fn key_cells<'a>(&self, row: &'a [Cell<'static>]) -> impl Iterator<Item = &'a Cell<'static>> + use<'a> {
        self.elements.key_cells(row)
    }

    /// The children of its elements.
    pub fn children(&self) -> &[ChildTable] {
        self.elements.children()
    }

    /// The list's type in the parent's shape: with the columns of its elements where those are inferred.
    pub(super) fn list_type(&self, declared: &SourceType) -> SourceType {
        match self.elements.carried_columns() {
            columns if columns.is_empty() => declared.clone(),
            columns => SourceType::Objects { columns },
        }
    }

    /// Takes note of the fields of elements that come next; gives the columns that were inferred, by table.
    pub(super) fn learn<'a>(&mut self, lists: impl Iterator<Item = &'a Value>) -> Vec<(TableId, Vec<PlainColumn>)> {
        let elements: Vec<&Map<String, Value>> = lists.filter_map(Value::as_array).flatten().filter_map(Value::as_object).collect();
        self.elements.learn(&elements)
    }

    /// The elements of a list, and how many values became NULL.
    ///
    /// # Errors
    /// What can't be read, without its value.
    pub fn elements(&self, list: Option<&Value>) -> Result<(Vec<Element>, u64), String> {
        let items = match list {
            None | Some(Value::Null) => return Ok((Vec::new(), 0)),
            Some(Value::Array(items)) => items,
            Some(_) if self.bad_values == BadValues::Null => return Ok((Vec::new(), 1)),
            Some(_) => return Err(format!("`{}` is no list", self.column)),
        };
        let (mut elements, mut nulls) = (Vec::with_capacity(items.len()), 0);
        let mut keys = HashSet::new();
        for (index, item) in items.iter().enumerate() {
            let wrong = |what: &str| format!("element {index} of `{}`: {what}", self.column);
            let fields: &Map<String, Value> = item.as_object().ok_or_else(|| wrong("it is no object"))?;
            let read = self.elements.read(fields).map_err(|Unreadable(what)| wrong(&what))?;
            if !self.is_indexed && !keys.insert(format!("{:?}", self.key_cells(&read.row).collect::<Vec<_>>())) {
                return Err(wrong("an element before it has the same key"));
            }
            nulls += read.nulls;
            elements.push(Element { index: i64::try_from(index).unwrap_or(i64::MAX), row: read.row, children: read.children });
        }
        Ok((elements, nulls))
    }
}
