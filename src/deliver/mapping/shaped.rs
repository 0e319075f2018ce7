//! A mapping bound to a table's columns: items of rows.

use super::expression::{Evaluator, Expression, header_columns};
use super::filter::{Filter, Operand};
use super::target_type::TargetType;
use super::{ItemMapping, kind_of};
use crate::deliver::item::{Attribute, Item, ItemChange, ItemKey};
use crate::deliver::template::{RowValues, scalar, text_of};
use crate::error::{Area, Error, Kind, Result};
use crate::event::{Column, TableSchema, row_values};
use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::DataType;
use std::collections::{BTreeMap, BTreeSet};

/// The attribute that holds all columns of a document.
const DOCUMENT: &str = "_doc";
/// The column in which rows carry the position of their transaction.
const POSITION: &str = "_position";

/// A mapping for rows of one shape.
#[derive(Debug)]
pub struct ShapedMapping<'a> {
    mapping: &'a ItemMapping,
    /// What is read of rows: the source's columns, and what else expressions can read.
    read: TableSchema,
    /// The source's columns that are attributes by themselves: column, attribute, and its type where a rule says it.
    columns: Vec<(&'a Column, String, Option<&'a TargetType>)>,
    filters: Vec<Filter<Operand>>,
    evaluator: Option<Evaluator>,
}

impl<'a> ShapedMapping<'a> {
    pub(super) fn new(mapping: &'a ItemMapping, schema: &'a TableSchema) -> Result<Self> {
        Self::bound(mapping, schema).map_err(|what| {
            let (what, remedy) = what.split_once("; ").map_or((what.as_str(), "correct the table-mapping file"), |both| both);
            Error::new(Area::Lake, Kind::Data, "the table mapping doesn't fit the table's columns")
                .caused_by(std::io::Error::other(what.to_owned()))
                .with("target", &mapping.target)
                .remedy(remedy.to_owned())
        })
    }

    fn bound(mapping: &'a ItemMapping, schema: &'a TableSchema) -> Result<Self, String> {
        let rules = &mapping.transformations;
        let mut columns = Vec::new();
        for column in schema.columns.iter().filter(|column| !mapping.excluded.contains(&column.name)) {
            let Some(name) = rules.column_name(&column.name) else { continue };
            let target_type = rules.column_type(&column.name);
            let is_bytes = matches!(column.source_type.lake_type(), DataType::Binary);
            if is_bytes && target_type.is_some_and(|target_type| *target_type != TargetType::Bytes) {
                return Err(format!("the column `{}` has bytes, which can't be of another type", column.name));
            }
            columns.push((column, name, target_type));
        }
        let mut names = BTreeSet::new();
        for name in columns.iter().map(|(_, name, _)| name).chain(rules.added.iter().map(|added| &added.name)) {
            if !names.insert(name) {
                return Err(format!("two columns become the attribute `{name}`; rename one"));
            }
        }
        let of_type = |filter: &Filter| {
            let found =
                schema.index_of(&filter.column).ok_or_else(|| format!("there is no column `{}` to filter by", filter.column))?;
            filter.of_type(&schema.columns[found].source_type).map_err(|what| format!("the filter on `{}`: {what}", filter.column))
        };
        let filters = mapping.filters.iter().map(of_type).collect::<Result<_, String>>()?;
        let expressions: Vec<&Expression> = rules.added.iter().filter_map(|added| added.expression.as_ref()).collect();
        let evaluator = if expressions.is_empty() { None } else { Some(Evaluator::new(&expressions, schema)?) };
        let mut read = schema.clone();
        if evaluator.is_some() {
            read.columns.extend(header_columns());
        }
        Ok(Self { mapping, read, columns, filters, evaluator })
    }

    /// What rows' changes are for the items. NULL is left out of items; a row that doesn't pass the filters has none.
    ///
    /// # Errors
    /// `Data` for a value that isn't of its attribute's type, and for a key that is NULL or empty.
    pub fn changes(&self, rows: &RecordBatch, is_delete: &BooleanArray) -> Result<Vec<ItemChange>> {
        let position = rows.column_by_name(POSITION).and_then(|column| column.as_string_opt::<i32>());
        let values = (0..rows.num_rows()).map(|row| (row_values(&self.read, rows, row), is_delete.value(row)));
        self.changes_of(values.collect(), |row| position.filter(|all| all.is_valid(row)).map(|all| all.value(row).to_owned()))
    }

    /// The same of rows' values by column, whose positions can be asked for.
    pub(in crate::deliver) fn changes_of(
        &self,
        mut rows: Vec<(RowValues, bool)>,
        position: impl Fn(usize) -> Option<String>,
    ) -> Result<Vec<ItemChange>> {
        for (values, is_delete) in &mut rows {
            *is_delete |= !self.filters.iter().all(|filter| filter.passes(values.get(&filter.column)));
        }
        let mut added = Vec::new();
        if let Some(evaluator) = &self.evaluator {
            let there = rows.iter().filter(|(_, is_delete)| !is_delete).map(|(values, _)| values);
            added = evaluator.of(there).map_err(|why| {
                let names: Vec<&str> = self.mapping.transformations.added.iter().map(|added| added.name.as_str()).collect();
                self.wrong(&names.join(","), why)
            })?;
        }
        let mut added = added.into_iter();
        let mut changes = Vec::with_capacity(rows.len());
        for (row, (mut values, is_delete)) in rows.into_iter().enumerate() {
            let change = if is_delete {
                self.key_if_any(&values).map(|key| key.map(ItemChange::Delete))
            } else {
                self.item(&mut values, added.next().unwrap_or_default()).map(Some)
            };
            changes.extend(change.map_err(|error| {
                let key = self
                    .mapping
                    .key_columns()
                    .into_iter()
                    .filter_map(|name| Some(format!("{name}:{}", text_of(values.get(&name)?))));
                let error = error.with("key", key.collect::<Vec<_>>().join(","));
                match position(row) {
                    Some(position) => error.with("position", position),
                    None => error,
                }
            })?);
        }
        Ok(changes)
    }

    fn wrong(&self, name: &str, why: &'static str) -> Error {
        Error::new(Area::Lake, Kind::Data, "a row can't be an item")
            .caused_by(std::io::Error::other(why))
            .with("attribute", name)
            .with("target", &self.mapping.target)
            .remedy("correct the value at the source or the table mapping, then run `binlake backfill --table`")
    }

    fn of_column(&self, column: &Column, target_type: Option<&TargetType>, values: &RowValues) -> Result<Option<Attribute>> {
        let Some(value) = values.get(&column.name).filter(|value| !value.is_null()) else { return Ok(None) };
        let text = text_of(value);
        let value = match target_type {
            Some(target_type) => target_type.of(&text),
            None => scalar(kind_of(&column.source_type), text),
        };
        value.map(Some).map_err(|why| self.wrong(&column.name, why))
    }

    /// The attributes that the key is made of, and no more: of a row that is deleted only its key is known.
    fn key_attributes(&self, values: &RowValues) -> Result<BTreeMap<String, Attribute>> {
        let mut attributes = BTreeMap::new();
        for name in self.mapping.key_names() {
            let value = match self.mapping.attributes.get(name) {
                Some(template) => template.of(values).map_err(|why| self.wrong(name, why))?,
                None => match self.columns.iter().find(|(_, called, _)| called == name) {
                    Some((column, _, target_type)) => self.of_column(column, *target_type, values)?,
                    None => None,
                },
            };
            attributes.extend(value.map(|value| (name.clone(), value)));
        }
        Ok(attributes)
    }

    fn key(&self, attributes: &BTreeMap<String, Attribute>) -> Result<ItemKey> {
        let of = |name: &String| {
            let value = attributes.get(name).cloned().ok_or_else(|| self.wrong(name, "the key is NULL"))?;
            if value.bytes() == 0 { Err(self.wrong(name, "the key is empty")) } else { Ok(value) }
        };
        Ok(ItemKey { partition: of(&self.mapping.partition)?, sort: self.mapping.sort.as_ref().map(of).transpose()? })
    }

    /// The same of a row that goes; `None`: it has none, so it has no item.
    fn key_if_any(&self, values: &RowValues) -> Result<Option<ItemKey>> {
        let attributes = self.key_attributes(values)?;
        let has_one = self.mapping.key_names().all(|name| attributes.get(name).is_some_and(|value| value.bytes() > 0));
        has_one.then(|| self.key(&attributes)).transpose()
    }

    fn item(&self, values: &mut RowValues, computed: Vec<Option<String>>) -> Result<ItemChange> {
        let mut of_columns = BTreeMap::new();
        for (column, name, target_type) in &self.columns {
            let value = self.of_column(column, *target_type, values)?;
            of_columns.extend(value.map(|value| (name.clone(), value)));
        }
        let added = self.mapping.transformations.added.iter().filter(|added| added.expression.is_some());
        for (added, text) in added.zip(computed) {
            let Some(text) = text else { continue };
            let value = added.target_type.of(&text).map_err(|why| self.wrong(&added.name, why))?;
            of_columns.insert(added.name.clone(), value);
            // templates read it as they read columns
            values.entry(added.name.clone()).or_insert(text.into());
        }
        let mut attributes =
            if self.mapping.is_document { BTreeMap::from([(DOCUMENT.to_owned(), Attribute::Map(of_columns))]) } else { of_columns };
        for (name, template) in &self.mapping.attributes {
            if let Some(value) = template.of(values).map_err(|why| self.wrong(name, why))? {
                attributes.insert(name.clone(), value);
            }
        }
        Ok(ItemChange::Put(Item { key: self.key(&attributes)?, attributes }))
    }
}
