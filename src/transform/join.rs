//! A left join with a lookup: each row finds at most one item, and the rows keep their order.

use super::bind::is_of;
use super::engine::Fault;
use super::fault::Failing;
use crate::error::{Area, Error, Kind, Result};
use crate::lookup::{Content, Duplicates, Lookup, Missing};
use crate::metrics as names;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use datafusion::common::DFSchema;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::physical_expr::PhysicalExpr;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

/// What is said of rows whose lookup holds them back.
pub const ROWS_WAIT: &str = "rows wait for items that their lookup lacks";

/// A join, compiled.
#[derive(Debug)]
pub(super) struct Join {
    pub(super) lookup: Arc<Lookup>,
    /// What the rows are joined by, over the columns so far; and the same of the items.
    pub(super) left: Vec<Arc<dyn PhysicalExpr>>,
    right: Vec<Arc<dyn PhysicalExpr>>,
    types: Vec<DataType>,
    /// The lookup's columns that it is joined by, where its items are got by them.
    names: Vec<String>,
    /// The lookup's columns.
    columns: SchemaRef,
    /// The index of the content that was seen last.
    last: Mutex<Option<Arc<Index>>>,
}

/// Where each join key's item is.
#[derive(Debug)]
pub(super) struct Index {
    content: Arc<Content>,
    rows: RecordBatch,
    /// By the encoded key.
    items: HashMap<Box<[u8]>, u32>,
}

impl Index {
    pub(super) fn content(&self) -> &Content {
        &self.content
    }

    /// Each row's item, and the rows that have a key and no item.
    fn places(&self, keys: &JoinKeys) -> (Vec<Option<u32>>, Vec<usize>) {
        let mut misses = Vec::new();
        let mut found: Vec<Option<u32>> = Vec::with_capacity(keys.rows.num_rows());
        for i in 0..keys.rows.num_rows() {
            let key = keys.get(i);
            let item = key.as_ref().and_then(|key| self.items.get(key).copied());
            if key.is_some() && item.is_none() {
                misses.push(i);
            }
            found.push(item);
        }
        (found, misses)
    }
}

/// Rows with a lookup's columns.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) rows: RecordBatch,
    /// Rows without an item, where that makes dead letters; rising.
    pub(super) missing: Vec<Failing>,
}

type Compile<'a> = dyn Fn(&Expr, &DFSchema) -> Result<Arc<dyn PhysicalExpr>, Fault> + 'a;

impl Join {
    pub(super) fn new(
        lookup: Arc<Lookup>,
        left: &DFSchema,
        right: &DFSchema,
        on: &[Expr],
        compile: &Compile<'_>,
    ) -> Result<Self, Fault> {
        let wrong = || {
            Fault::new(format!("the lookup `{}` is not joined by equal columns", lookup.name()))
                .remedy("write ON t.column = lookup.column, more of these with AND")
        };
        let (mut ours, mut theirs, mut types) = (Vec::new(), Vec::new(), Vec::new());
        let mut names = Vec::new();
        for condition in on {
            let Expr::BinaryExpr(BinaryExpr { left: a, op: Operator::Eq, right: b }) = condition else { return Err(wrong()) };
            let is_theirs = |expr: &Expr| !expr.column_refs().is_empty() && is_of(expr, right);
            let (our, their) = match (is_theirs(a), is_theirs(b)) {
                (false, true) if is_of(a, left) => (a, b),
                (true, false) if is_of(b, left) => (b, a),
                _ => return Err(wrong()),
            };
            match their.as_ref() {
                Expr::Column(column) => names.push(column.name.clone()),
                _ if lookup.is_got() => {
                    return Err(Fault::new(format!(
                        "the key of the lookup `{}` has another type than the row's column",
                        lookup.name()
                    ))
                    .remedy("declare the lookup's column with the type of the table's"));
                }
                _ => {}
            }
            let our = compile(our, left)?;
            types.push(our.data_type(left.as_arrow()).map_err(|error| Fault::of_engine(&error))?);
            ours.push(our);
            theirs.push(compile(their, right)?);
        }
        if ours.is_empty() {
            return Err(wrong());
        }
        let columns = Arc::new(right.as_arrow().clone());
        Ok(Self { lookup, left: ours, right: theirs, types, names, columns, last: Mutex::new(None) })
    }

    /// What the lookup has now, or what is `given`, and where; `None`: its items are got as they are needed.
    ///
    /// # Errors
    /// `Transient` if it has not been read yet; `Data` if a join key is there twice and the lookup doesn't say which counts.
    pub(super) fn index(&self, given: Option<&Arc<Content>>) -> Result<Option<Arc<Index>>> {
        if self.lookup.is_got() {
            return Ok(None);
        }
        let content = given.cloned().or_else(|| self.lookup.content()).ok_or_else(|| {
            Error::new(Area::Lake, Kind::Transient, "a lookup has not been read yet").with("lookup", self.lookup.name())
        })?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = last.as_ref().filter(|index| Arc::ptr_eq(&index.content, &content)) {
            return Ok(Some(index.clone()));
        }
        let index = Arc::new(self.index_of(content)?);
        *last = Some(index.clone());
        Ok(Some(index))
    }

    fn index_of(&self, content: Arc<Content>) -> Result<Index> {
        let rows = self.conform(&content)?;
        let keys = self.keys(&self.right, &rows)?;
        let mut items = HashMap::with_capacity(rows.num_rows());
        for i in 0..rows.num_rows() {
            let Some(key) = keys.get(i) else { continue };
            let item = u32::try_from(i).map_err(|_| Error::bug("a lookup has too many items"))?;
            match (items.entry(key), self.lookup.duplicates()) {
                (Entry::Vacant(place), _) => {
                    place.insert(item);
                }
                (Entry::Occupied(mut place), Duplicates::Last) => {
                    place.insert(item);
                }
                (Entry::Occupied(_), Duplicates::First) => {}
                (Entry::Occupied(_), Duplicates::Error) => {
                    return Err(Error::new(
                        Area::Lake,
                        Kind::Data,
                        "two items of a lookup have one join key: rows would be multiplied",
                    )
                    .with("lookup", self.lookup.name())
                    .with("item", content.item_key(i))
                    .remedy("remove one and restart the service, or set `duplicates = \"first\"` or \"last\" for the lookup by `binlake apply`"));
                }
            }
        }
        Ok(Index { content, rows, items })
    }

    /// Appends the lookup's columns to `rows`.
    ///
    /// # Errors
    /// `Transient` if an item is missing and the lookup holds rows back until it is there.
    pub(super) fn append(&self, rows: &RecordBatch, index: Option<&Arc<Index>>, wide: &SchemaRef) -> Result<Joined> {
        let keys = self.keys(&self.left, rows)?;
        let index = match index {
            Some(index) => index.clone(),
            None => Arc::new(self.index_of(self.got(&keys)?)?),
        };
        let (found, mut misses) = index.places(&keys);
        let hits = found.iter().flatten().count();
        metrics::counter!(names::LOOKUP_HITS, "lookup" => self.lookup.name().to_owned()).increment(hits as u64);
        metrics::counter!(names::LOOKUP_MISSES, "lookup" => self.lookup.name().to_owned()).increment(misses.len() as u64);
        self.lookup.count(hits as u64, misses.len() as u64);
        if !misses.is_empty() && self.lookup.missing() == Missing::Hold {
            return Err(Error::new(Area::Lake, Kind::Transient, ROWS_WAIT)
                .with("lookup", self.lookup.name())
                .with("rows", misses.len())
                .remedy("add the items, or set `missing = \"null\"` for the lookup"));
        }
        if self.lookup.missing() != Missing::DeadLetter {
            misses.clear();
        }
        let why = || format!("the lookup `{}` has no item for it", self.lookup.name());
        let missing = misses.into_iter().map(|row| Failing { row, reason: why() }).collect();
        Ok(Joined { rows: self.widened(rows, &index, found, wide)?, missing })
    }

    /// The same for rows that the table has already: nothing is counted, and no row is held back. Also gives the rows without an item, where these are to keep
    /// what they have.
    pub(super) fn again(&self, rows: &RecordBatch, index: &Index, wide: &SchemaRef) -> Result<(RecordBatch, Vec<usize>)> {
        let (found, misses) = index.places(&self.keys(&self.left, rows)?);
        let kept = if self.lookup.missing() == Missing::Null { Vec::new() } else { misses };
        Ok((self.widened(rows, index, found, wide)?, kept))
    }

    fn widened(&self, rows: &RecordBatch, index: &Index, found: Vec<Option<u32>>, wide: &SchemaRef) -> Result<RecordBatch> {
        let found = UInt32Array::from(found);
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        for column in index.rows.columns() {
            columns.push(take(column, &found, None).map_err(engine_bug)?);
        }
        let count = columns.len();
        let schema = Arc::new(wide.project(&(0..count).collect::<Vec<_>>()).map_err(engine_bug)?);
        let schema = Arc::new(nullable(&schema));
        RecordBatch::try_new(schema, columns).map_err(engine_bug)
    }

    /// The rows whose join key can't be computed.
    pub(super) fn failing(&self, rows: &RecordBatch) -> Vec<Failing> {
        let mut all: Vec<Failing> =
            self.left.iter().zip(&self.types).flat_map(|(expr, data_type)| Failing::of(expr, rows, data_type)).collect();
        all.sort_by_key(|failing| failing.row);
        all.dedup_by_key(|failing| failing.row);
        all
    }

    /// The lookup's columns that it is joined by, as a dead letter names them.
    pub(super) fn column(&self) -> String {
        format!("{}.{}", self.lookup.name(), self.names.join(","))
    }

    /// The items in the columns that were bound: the lookup may have got others since.
    fn conform(&self, content: &Content) -> Result<RecordBatch> {
        let rows = content.rows();
        let columns = self.columns.fields().iter().map(|field| match rows.column_by_name(field.name()) {
            Some(column) => cast(column, field.data_type()).map_err(engine_bug),
            None => Ok(new_null_array(field.data_type(), rows.num_rows())),
        });
        RecordBatch::try_new(self.columns.clone(), columns.collect::<Result<_>>()?).map_err(engine_bug)
    }

    /// The items for these keys.
    fn got(&self, keys: &JoinKeys) -> Result<Arc<Content>> {
        let mut wanted: HashMap<Box<[u8]>, Vec<String>> = HashMap::new();
        for i in 0..keys.rows.num_rows() {
            let Some(key) = keys.get(i) else { continue };
            if let Entry::Vacant(place) = wanted.entry(key) {
                let text = |array: &ArrayRef| match array.as_binary_opt::<i32>() {
                    Some(bytes) => Ok(STANDARD.encode(bytes.value(i))),
                    None => array_value_to_string(array, i).map_err(engine_bug),
                };
                place.insert(keys.arrays.iter().map(text).collect::<Result<_>>()?);
            }
        }
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        self.lookup.get(&names, &wanted.into_values().collect::<Vec<_>>())
    }

    fn keys(&self, exprs: &[Arc<dyn PhysicalExpr>], rows: &RecordBatch) -> Result<JoinKeys> {
        let mut arrays = Vec::with_capacity(exprs.len());
        for (expr, data_type) in exprs.iter().zip(&self.types) {
            let value = expr.evaluate(rows).and_then(|value| value.into_array(rows.num_rows()));
            let array = value.map_err(|_| {
                Error::new(Area::Lake, Kind::Data, "a value can't be compared with the lookup's join key")
                    .with("lookup", self.lookup.name())
                    .remedy("write the comparison with TRY_CAST, or declare the lookup's column with the type of the table's")
            })?;
            arrays.push(if array.data_type() == data_type { array } else { cast(&array, data_type).map_err(engine_bug)? });
        }
        let fields = self.types.iter().map(|data_type| SortField::new(data_type.clone())).collect();
        let converter = RowConverter::new(fields).map_err(engine_bug)?;
        let rows = converter.convert_columns(&arrays).map_err(engine_bug)?;
        Ok(JoinKeys { arrays, rows })
    }
}

/// What rows are joined by. NULL is equal to nothing.
struct JoinKeys {
    arrays: Vec<ArrayRef>,
    rows: arrow::row::Rows,
}

impl JoinKeys {
    fn get(&self, i: usize) -> Option<Box<[u8]>> {
        let is_whole = self.arrays.iter().all(|array| array.is_valid(i));
        is_whole.then(|| self.rows.row(i).as_ref().into())
    }
}

fn nullable(schema: &arrow::datatypes::Schema) -> arrow::datatypes::Schema {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    arrow::datatypes::Schema::new(fields.collect::<Vec<_>>())
}

pub(super) fn engine_bug(error: arrow::error::ArrowError) -> Error {
    Error::bug("a columnar operation of a transform failed").caused_by(error)
}
