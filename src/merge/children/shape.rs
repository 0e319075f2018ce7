//! What a child table's columns are: what identifies the parent's row, the element's key, its columns, Binlake's own, and the parent's partition columns.

use crate::error::{Error, Result};
use crate::event::TableId;
use crate::format::{BadValues, ChildSpec, ChildTable, INDEX};
use crate::merge::history::{HistoryShape, SYSTEM_FROM, history_of, is_own_column};
use crate::merge::shape::{COMMIT_TS, LakeShape, POSITION, data};
use crate::table::{TableSpec, sort_key};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::sync::Arc;

const VERSION: u32 = 1;

/// What a child's commits say of whose child it is: where another was declared before, it is written anew. A sample of each version is in `tests/data/state/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildClaim {
    version: u32,
    /// The table in whose rows the lists are.
    pub of: TableId,
    /// The columns with the lists, the parent's first.
    pub lists: Vec<String>,
    /// What was declared of it, and of those that it lies in.
    pub declared: String,
}

impl ChildClaim {
    /// As JSON.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::bug("a child's claim can't be written").caused_by(error))
    }

    /// From JSON; `None`: it is none, or of another version.
    pub fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|claim: &Self| claim.version == VERSION)
    }
}

/// A table in whose rows lists are: a lake's table, or its history.
#[derive(Debug)]
struct Parent<'a> {
    table: TableId,
    lake: &'a LakeShape,
    columns: &'a SchemaRef,
    record_key: Vec<String>,
    sort_prefix: Vec<String>,
    partition_columns: Vec<String>,
    /// What an element's row has of its parent's behind its own columns.
    last: Vec<String>,
    ordering_field: &'static str,
    is_history: bool,
}

impl<'a> Parent<'a> {
    fn table(lake: &'a LakeShape) -> Self {
        let last = [COMMIT_TS, POSITION].into_iter().map(str::to_owned).chain(lake.partition_columns().iter().cloned());
        Self {
            table: lake.source().table.clone(),
            lake,
            columns: lake.columns(),
            record_key: lake.key_names(),
            sort_prefix: Vec::new(),
            partition_columns: lake.partition_columns().to_vec(),
            last: last.collect(),
            ordering_field: COMMIT_TS,
            is_history: false,
        }
    }

    fn history(lake: &'a LakeShape, history: &'a HistoryShape) -> Self {
        let of_table = Self::table(lake);
        let own = history.columns().fields().iter().map(|field| field.name()).filter(|name| is_own_column(name)).cloned();
        let spec = history.spec();
        Self {
            table: history_of(&lake.source().table),
            columns: history.columns(),
            record_key: spec.record_key,
            sort_prefix: spec.sort_prefix,
            partition_columns: spec.partition_columns,
            last: of_table.last.iter().cloned().chain(own).collect(),
            ordering_field: SYSTEM_FROM,
            is_history: true,
            ..of_table
        }
    }
}

/// One child table of a parent, or of a child of its own; or the history of one, which is the child of the parent's history.
#[derive(Debug, Clone)]
pub struct ChildShape {
    table: TableId,
    /// The list in the parent's rows.
    root: Arc<ChildTable>,
    /// Which of its children, and of theirs, it is; empty: itself.
    trail: Vec<usize>,
    columns: SchemaRef,
    key: Vec<String>,
    sort_prefix: Vec<String>,
    /// Names of what the parent's rows are sorted by and told apart: the child's begin with them.
    parent_key: Vec<String>,
    /// The columns that an element's cells make: those of the objects that it lies in, its number, its own.
    cells: SchemaRef,
    partition_columns: Vec<String>,
    ordering_field: &'static str,
    /// The parent's column whose greater value wins.
    ordering: Option<String>,
    is_history: bool,
    claim: ChildClaim,
}

impl ChildShape {
    /// The children that `specs` declare of a table, and theirs, parents first; then the histories of those that have one, if the table has.
    ///
    /// # Errors
    /// `Data` if the table lacks a list's column, or a child's columns can't be a table's.
    pub fn all(specs: &[ChildSpec], lake: &LakeShape, history: Option<&HistoryShape>) -> Result<Vec<Self>> {
        let mut shapes = Vec::new();
        Self::add_all(specs, &Parent::table(lake), &mut shapes)?;
        if let Some(history) = history.filter(|_| specs.iter().any(ChildSpec::keeps_histories)) {
            Self::add_all(specs, &Parent::history(lake, history), &mut shapes)?;
        }
        Ok(shapes)
    }

    fn add_all(specs: &[ChildSpec], parent: &Parent<'_>, shapes: &mut Vec<Self>) -> Result<()> {
        let (lake, table) = (parent.lake, &parent.lake.source().table);
        let inherited: Vec<String> = lake.key_names().iter().chain(lake.partition_columns()).cloned().collect();
        for spec in specs {
            let list = lake.columns().field_with_name(&spec.column).map(|field| field.data_type().clone());
            if !matches!(list, Ok(DataType::Utf8)) {
                let what = match list {
                    Ok(_) => "`children` names a column that has no JSON",
                    Err(_) => "`children` names a column that the table lacks",
                };
                return Err(data(what)
                    .with("table", table)
                    .with("column", &spec.column)
                    .remedy("correct `children` in the table's [[table]], or add the column to the SELECT of its transform"));
            }
            let known = Some(lake.source().columns.as_slice());
            // what is sent to the dead letters never comes here
            let child = ChildTable::new(spec, table, &inherited, BadValues::DeadLetter, known)
                .map_err(|what| data(what).with("table", table).remedy("correct `children` in the table's [[table]]"))?;
            let root = Arc::new(child);
            add(shapes, parent, spec, &root, &root, &mut Trail::default())?;
        }
        Ok(())
    }

    fn new(parent: &Parent<'_>, spec: &ChildSpec, root: &Arc<ChildTable>, child: &ChildTable, trail: &Trail) -> Result<Self> {
        let of_parent = |name: &String| {
            let field = parent.columns.field_with_name(name);
            Ok(field.map_err(|error| Error::bug("a table lacks a column of its own").caused_by(error))?.clone())
        };
        let mut cells = trail.keys.clone();
        let mut key = [parent.record_key.clone(), trail.keys.iter().map(|field| field.name().clone()).collect()].concat();
        if child.is_indexed() {
            cells.push(Field::new(INDEX, DataType::Int64, false));
            key.push(INDEX.to_owned());
        }
        key.extend(child.key().iter().cloned());
        for column in child.columns() {
            let (name, is_key) = (&column.name, child.key().contains(&column.name));
            let data_type = column.source_type.lake_type();
            if is_key && matches!(data_type, DataType::Float32 | DataType::Float64 | DataType::List(_)) {
                return Err(data("an element's key is of a type that can't be one")
                    .with("table", child.table())
                    .with("column", name)
                    .remedy(
                        "declare the column's type in the child's `columns`, or leave its `key` out for the elements' numbers",
                    ));
            }
            cells.push(Field::new(name, data_type, !is_key));
        }
        let first = parent.record_key.iter().filter(|name| !parent.last.contains(name));
        let mut fields: Vec<Field> = first.map(of_parent).collect::<Result<_>>()?;
        fields.extend(cells.iter().cloned());
        for name in &parent.last {
            fields.push(of_parent(name)?);
        }
        let mut seen = HashSet::new();
        if let Some(twice) = fields.iter().find(|field| !seen.insert(field.name().to_lowercase())) {
            return Err(data("two columns of the child table have one name (case aside)")
                .with("table", child.table())
                .with("column", twice.name())
                .remedy(
                    "declare the element's field in `columns` of the child under another name: name = { type = …, path = … }",
                ));
        }
        let lists = trail.lists.iter().map(String::as_str).chain([child.column()]).map(str::to_owned).collect();
        let declared = trail.declared.iter().cloned().chain([spec.declared()]).collect::<Vec<_>>().join(" > ");
        Ok(Self {
            table: if parent.is_history { history_of(child.table()) } else { child.table().clone() },
            root: Arc::clone(root),
            trail: trail.numbers.clone(),
            columns: Arc::new(Schema::new(fields)),
            key,
            sort_prefix: parent.sort_prefix.clone(),
            parent_key: sort_key(&parent.sort_prefix, &parent.record_key),
            cells: Arc::new(Schema::new(cells)),
            partition_columns: parent.partition_columns.clone(),
            ordering_field: parent.ordering_field,
            ordering: parent.lake.ordering().filter(|_| !parent.is_history).map(str::to_owned),
            is_history: parent.is_history,
            claim: ChildClaim { version: VERSION, of: parent.table.clone(), lists, declared },
        })
    }

    /// The child's name.
    pub fn table(&self) -> &TableId {
        &self.table
    }

    /// Its columns in the order of its files.
    pub fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// Names of its record key's columns: the parent's, those of the objects between, its own.
    pub fn key_names(&self) -> &[String] {
        &self.key
    }

    /// Whose child its commits say it is.
    pub fn claim(&self) -> &ChildClaim {
        &self.claim
    }

    /// What it is made as.
    pub fn spec(&self) -> TableSpec {
        TableSpec {
            database: self.table.database().to_owned(),
            name: self.table.name().to_owned(),
            columns: self.columns.clone(),
            record_key: self.key.clone(),
            sort_prefix: self.sort_prefix.clone(),
            ordering_field: self.ordering_field.to_owned(),
            partition_columns: self.partition_columns.clone(),
        }
    }

    /// Whether it is the history of a child: its parent is the table's history.
    pub fn is_history(&self) -> bool {
        self.is_history
    }

    /// What its rows are sorted by in a partition.
    pub(super) fn sort_key(&self) -> Vec<String> {
        sort_key(&self.sort_prefix, &self.key)
    }

    pub(super) fn root(&self) -> &ChildTable {
        &self.root
    }

    pub(super) fn trail(&self) -> &[usize] {
        &self.trail
    }

    pub(super) fn cells(&self) -> &SchemaRef {
        &self.cells
    }

    pub(super) fn parent_key(&self) -> &[String] {
        &self.parent_key
    }

    pub(super) fn partition_columns(&self) -> &[String] {
        &self.partition_columns
    }

    /// The parent's column whose greater value wins.
    pub(super) fn ordering(&self) -> Option<&str> {
        self.ordering.as_deref()
    }
}

/// The way from the parent's list to a child.
#[derive(Debug, Default)]
struct Trail {
    numbers: Vec<usize>,
    lists: Vec<String>,
    declared: Vec<String>,
    /// What identifies the objects on it.
    keys: Vec<Field>,
}

fn add(
    shapes: &mut Vec<ChildShape>,
    parent: &Parent<'_>,
    spec: &ChildSpec,
    root: &Arc<ChildTable>,
    child: &ChildTable,
    trail: &mut Trail,
) -> Result<()> {
    let own = child.columns();
    // of what tells elements apart none had a value yet: there is no element
    if child.key().iter().any(|name| !own.iter().any(|column| column.name == *name)) {
        return Ok(());
    }
    if !parent.is_history || spec.history {
        shapes.push(ChildShape::new(parent, spec, root, child, trail)?);
    }
    let before = trail.keys.len();
    // named as the children below know it
    if child.is_indexed() {
        trail.keys.push(Field::new(format!("_{}{INDEX}", child.column()), DataType::Int64, false));
    }
    let of_key = child.key().iter().filter_map(|name| own.iter().find(|column| column.name == *name));
    trail.keys.extend(of_key.map(|column| Field::new(&column.name, column.source_type.lake_type(), false)));
    trail.lists.push(child.column().to_owned());
    trail.declared.push(spec.declared());
    for (number, (spec, inner)) in spec.children.iter().zip(child.children()).enumerate() {
        trail.numbers.push(number);
        add(shapes, parent, spec, root, inner, trail)?;
        trail.numbers.pop();
    }
    trail.lists.pop();
    trail.declared.pop();
    trail.keys.truncate(before);
    Ok(())
}
