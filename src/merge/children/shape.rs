//! What a child table's columns are: what identifies the parent's row, the element's key, its columns, Binlake's own, and the parent's partition columns.

use crate::error::{Error, Result};
use crate::event::TableId;
use crate::format::{BadValues, ChildSpec, ChildTable, INDEX};
use crate::merge::shape::{COMMIT_TS, LakeShape, POSITION, data};
use crate::table::TableSpec;
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

/// One child table of a parent, or of a child of its own.
#[derive(Debug, Clone)]
pub struct ChildShape {
    table: TableId,
    /// The list in the parent's rows.
    root: Arc<ChildTable>,
    /// Which of its children, and of theirs, it is; empty: itself.
    trail: Vec<usize>,
    columns: SchemaRef,
    key: Vec<String>,
    /// Names of the parent's key.
    parent_key: Vec<String>,
    /// The columns that an element's cells make: those of the objects that it lies in, its number, its own.
    cells: SchemaRef,
    partition_columns: Vec<String>,
    ordering: Option<String>,
    claim: ChildClaim,
}

impl ChildShape {
    /// The children that `specs` declare of a table, and theirs, parents first.
    ///
    /// # Errors
    /// `Data` if the table lacks a list's column, or a child's columns can't be a table's.
    pub fn all(specs: &[ChildSpec], parent: &LakeShape) -> Result<Vec<Self>> {
        let table = &parent.source().table;
        let inherited: Vec<String> = parent.key_names().iter().chain(parent.partition_columns()).cloned().collect();
        let mut shapes = Vec::new();
        for spec in specs {
            let list = parent.columns().field_with_name(&spec.column).map(|field| field.data_type().clone());
            if !matches!(list, Ok(DataType::Utf8)) {
                let what = if list.is_ok() {
                    "`children` names a column that has no JSON"
                } else {
                    "`children` names a column that the table lacks"
                };
                return Err(data(what)
                    .with("table", table)
                    .with("column", &spec.column)
                    .remedy("correct `children` in the table's [[table]], or add the column to the SELECT of its transform"));
            }
            let known = Some(parent.source().columns.as_slice());
            // what is sent to the dead letters never comes here
            let child = ChildTable::new(spec, table, &inherited, BadValues::DeadLetter, known)
                .map_err(|what| data(what).with("table", table).remedy("correct `children` in the table's [[table]]"))?;
            let root = Arc::new(child);
            add(&mut shapes, parent, spec, &root, &root, &mut Trail::default())?;
        }
        Ok(shapes)
    }

    fn new(parent: &LakeShape, spec: &ChildSpec, root: &Arc<ChildTable>, child: &ChildTable, trail: &Trail) -> Result<Self> {
        let (source, lake) = (&parent.source().table, parent.columns());
        let parent_key = parent.key_names();
        let is_partition = |name: &String| parent.partition_columns().contains(name);
        let of_parent = |name: &str| {
            let field =
                lake.field_with_name(name).map_err(|error| Error::bug("a table lacks a column of its own").caused_by(error))?;
            Ok(field.clone())
        };
        let mut cells = trail.keys.clone();
        let mut key = [parent_key.clone(), trail.keys.iter().map(|field| field.name().clone()).collect()].concat();
        if child.is_indexed() {
            cells.push(Field::new(INDEX, DataType::Int64, false));
            key.push(INDEX.to_owned());
        }
        key.extend(child.key().iter().cloned());
        let own = child.columns();
        cells.extend(
            own.iter().map(|column| Field::new(&column.name, column.source_type.lake_type(), !child.key().contains(&column.name))),
        );
        let before = parent_key.iter().filter(|name| !is_partition(name)).map(|name| of_parent(name));
        let mut fields: Vec<Field> = before.collect::<Result<_>>()?;
        fields.extend(cells.iter().cloned());
        for name in [COMMIT_TS, POSITION].into_iter().chain(parent.partition_columns().iter().map(String::as_str)) {
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
            table: child.table().clone(),
            root: Arc::clone(root),
            trail: trail.numbers.clone(),
            columns: Arc::new(Schema::new(fields)),
            key,
            parent_key,
            cells: Arc::new(Schema::new(cells)),
            partition_columns: parent.partition_columns().to_vec(),
            ordering: parent.ordering().map(str::to_owned),
            claim: ChildClaim { version: VERSION, of: source.clone(), lists, declared },
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
            sort_prefix: Vec::new(),
            ordering_field: COMMIT_TS.to_owned(),
            partition_columns: self.partition_columns.clone(),
        }
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
    parent: &LakeShape,
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
    shapes.push(ChildShape::new(parent, spec, root, child, trail)?);
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
