//! The tables that the capture follows: shape, rule and state of each.

use super::builder::LaneRouter;
use super::value_rules::ValueRules;
use crate::error::{Area, Error, Kind, Result};
use crate::event::{KeyRange, SnapshotProgress, SourcePosition, TableId, TableSchema, TableState, TransactionStamp, ValuePolicies};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

/// What the configuration says about capturing one table.
#[derive(Debug, Clone, Default)]
pub struct CaptureRule {
    /// Names of the key's columns; empty: the primary key.
    pub key: Vec<String>,
    /// Columns that the lake partitions by: an update of one is a delete and a create.
    pub partition_columns: Vec<String>,
    /// Whether TINYINT(1) is a boolean in the lake.
    pub tinyint1_is_bool: bool,
    /// What becomes of values that the lake can't hold.
    pub policies: ValuePolicies,
}

/// Says which tables are captured, and how.
pub type SelectTables = Arc<dyn Fn(&TableId) -> Option<CaptureRule> + Send + Sync>;

/// Rows by operation: created, updated, deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowCounts {
    /// Rows inserted.
    pub created: u64,
    /// Rows updated.
    pub updated: u64,
    /// Rows deleted.
    pub deleted: u64,
}

/// One table.
#[derive(Debug)]
pub(crate) struct TrackedTable {
    pub(crate) schema: Arc<TableSchema>,
    pub(crate) rule: CaptureRule,
    pub(crate) state: TableState,
    pub(crate) router: LaneRouter,
    /// For each column: whether an update that changes it moves the row (the key, and what the lake partitions by).
    pub(crate) moves: Vec<bool>,
    pub(super) values: ValueRules,
    pub(crate) counts: RowCounts,
    /// The table's rows have all that lies before this position: its events up to there mean nothing, and may have an older shape.
    covered: Option<SourcePosition>,
}

impl TrackedTable {
    fn new(schema: Arc<TableSchema>, rule: CaptureRule, state: TableState, lanes: u16) -> Self {
        let values = ValueRules::new(rule.policies);
        let router = LaneRouter::new(&schema.table, &schema.key, lanes);
        let moves = moving_columns(&schema, &rule);
        Self { schema, rule, state, router, moves, values, counts: RowCounts::default(), covered: None }
    }

    /// Whether its rows go to the stream.
    pub(crate) fn is_followed(&self) -> bool {
        !matches!(self.state, TableState::Stopped { .. })
    }
}

impl TrackedTable {
    /// Whether the table's rows have a transaction already.
    pub(crate) fn covers(&self, stamp: &TransactionStamp) -> bool {
        let Some(covered) = &self.covered else { return false };
        match (&stamp.gtid, &covered.gtid_set) {
            (Some(gtid), Some(set)) => set.contains(gtid),
            _ => stamp.coordinates < covered.coordinates,
        }
    }
}

fn moving_columns(schema: &TableSchema, rule: &CaptureRule) -> Vec<bool> {
    let partitioned = |name: &str| rule.partition_columns.iter().any(|column| column.eq_ignore_ascii_case(name));
    schema.columns.iter().enumerate().map(|(i, column)| schema.key.contains(&i) || partitioned(&column.name)).collect()
}

/// All tables, by number and by name.
pub struct TrackedTables {
    tables: Vec<TrackedTable>,
    by_name: HashMap<TableId, usize>,
    /// Tables without rows as yet whose making was read: their first row's event is the first there is.
    made: HashSet<TableId>,
    select: SelectTables,
    lanes: u16,
    ignores_case: bool,
}

impl fmt::Debug for TrackedTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrackedTables").field("tables", &self.tables).finish_non_exhaustive()
    }
}

impl TrackedTables {
    /// No table yet. `ignores_case`: the server compares names of tables without regard to case.
    pub fn new(select: SelectTables, lanes: u16, ignores_case: bool) -> Self {
        Self { tables: Vec::new(), by_name: HashMap::new(), made: HashSet::new(), select, lanes, ignores_case }
    }

    /// Adds a table that is captured from the start, or replaces it (after a new snapshot was asked for).
    pub fn put(&mut self, schema: Arc<TableSchema>, state: TableState) -> Result<()> {
        let table = schema.table.clone();
        let rule = (self.select)(&table).ok_or_else(|| Error::bug("a table that no rule selects").with("table", &table))?;
        self.put_with(schema, rule, state);
        Ok(())
    }

    pub(crate) fn put_with(&mut self, schema: Arc<TableSchema>, rule: CaptureRule, state: TableState) -> usize {
        let name = self.name(&schema.table);
        let tracked = TrackedTable::new(schema, rule, state, self.lanes);
        match self.by_name.get(&name).and_then(|number| Some((*number, self.tables.get_mut(*number)?))) {
            Some((number, slot)) => {
                *slot = tracked;
                number
            }
            None => {
                self.tables.push(tracked);
                self.by_name.insert(name, self.tables.len() - 1);
                self.tables.len() - 1
            }
        }
    }

    fn name(&self, table: &TableId) -> TableId {
        if self.ignores_case { TableId::new(table.database().to_lowercase(), table.name().to_lowercase()) } else { table.clone() }
    }

    /// The number of a table that is followed or was stopped.
    pub(crate) fn number(&self, table: &TableId) -> Option<usize> {
        self.by_name.get(&self.name(table)).copied()
    }

    /// The rule for a table that isn't tracked.
    pub(crate) fn rule(&self, table: &TableId) -> Option<CaptureRule> {
        (self.select)(table)
    }

    /// A table is made: all of its rows will be in the binlog.
    pub(crate) fn made(&mut self, table: &TableId) {
        if self.number(table).is_none() && self.rule(table).is_some() {
            self.made.insert(self.name(table));
        }
    }

    /// A table of this name is no longer the one that was made.
    pub(crate) fn unmade(&mut self, table: &TableId) {
        self.made.remove(&self.name(table));
    }

    /// Where a table stands whose first event is read at `position`: it has rows of before, unless its making was read, too.
    pub(crate) fn first_state(&mut self, table: &TableId, position: &SourcePosition) -> TableState {
        if self.made.remove(&self.name(table)) {
            return TableState::Live;
        }
        tracing::info!(%table, position = %position.coordinates, "a table that was made before is read by a snapshot");
        TableState::Snapshot(SnapshotProgress {
            low_watermark: position.clone(),
            high_watermark: position.clone(),
            remaining_chunks: vec![KeyRange::whole()],
            filter: None,
            rows_read: 0,
            estimated_rows: 0,
        })
    }

    /// Whether a table's rows are still to be read by a snapshot.
    pub fn has_unread(&self) -> bool {
        let is_unread =
            |state: &TableState| matches!(state, TableState::Snapshot(progress) if !progress.remaining_chunks.is_empty());
        self.tables.iter().any(|tracked| is_unread(&tracked.state))
    }

    pub(crate) fn get(&self, number: usize) -> Result<&TrackedTable> {
        self.tables.get(number).ok_or_else(|| Error::bug("a table number that there isn't"))
    }

    pub(crate) fn get_mut(&mut self, number: usize) -> Result<&mut TrackedTable> {
        self.tables.get_mut(number).ok_or_else(|| Error::bug("a table number that there isn't"))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &TrackedTable)> {
        self.tables.iter().enumerate()
    }

    /// Gives a table a new shape.
    pub(crate) fn reshape(&mut self, number: usize, schema: Arc<TableSchema>) -> Result<()> {
        let lanes = self.lanes;
        let tracked = self.get_mut(number)?;
        tracked.router = LaneRouter::new(&schema.table, &schema.key, lanes);
        tracked.moves = moving_columns(&schema, &tracked.rule);
        tracked.schema = schema;
        Ok(())
    }

    /// Stops a table: nothing of it behind `position` counts any more.
    pub(crate) fn stop(&mut self, number: usize, position: &SourcePosition, error: &Error) -> Result<()> {
        let tracked = self.get_mut(number)?;
        if tracked.is_followed() {
            let reason = error.to_string();
            tracing::error!(table = %tracked.schema.table, position = %position.coordinates, %reason, "the table is stopped");
            tracked.state = TableState::Stopped { position: position.clone(), reason };
        }
        Ok(())
    }

    /// Sets a table's state.
    pub fn set_state(&mut self, table: &TableId, state: TableState) -> Result<()> {
        let number =
            self.number(table).ok_or_else(|| Error::bug("the state of a table that isn't captured").with("table", table))?;
        self.get_mut(number)?.state = state;
        Ok(())
    }

    /// A table's rows have all that lies before `position`.
    pub fn cover(&mut self, table: &TableId, position: SourcePosition) -> Result<()> {
        let number =
            self.number(table).ok_or_else(|| Error::bug("a position of a table that isn't captured").with("table", table))?;
        self.get_mut(number)?.covered = Some(position);
        Ok(())
    }

    /// Where each table stands.
    pub fn states(&self) -> BTreeMap<TableId, TableState> {
        self.tables.iter().map(|tracked| (tracked.schema.table.clone(), tracked.state.clone())).collect()
    }

    /// Each table's shape.
    pub fn schemas(&self) -> BTreeMap<TableId, TableSchema> {
        self.tables.iter().map(|tracked| (tracked.schema.table.clone(), (*tracked.schema).clone())).collect()
    }

    /// Rows since the last call, and what the values' rules counted goes to the metrics.
    pub fn take_counts(&mut self) -> Vec<(TableId, RowCounts)> {
        let mut counts = Vec::new();
        for tracked in &mut self.tables {
            tracked.values.report(&tracked.schema.table);
            let taken = std::mem::take(&mut tracked.counts);
            if taken != RowCounts::default() {
                counts.push((tracked.schema.table.clone(), taken));
            }
        }
        counts
    }
}

/// An error that stops one table.
pub(crate) fn stops_table(what: &'static str) -> Error {
    Error::new(Area::Source, Kind::Data, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{BinlogCoordinates, Lineage};

    #[test]
    fn only_a_table_whose_making_was_read_has_all_its_rows_in_the_binlog() {
        let select: SelectTables = Arc::new(|table| (table.database() == "d").then(CaptureRule::default));
        let mut tables = TrackedTables::new(select, 1, true);
        let coordinates = BinlogCoordinates { file: "b.000001".into(), offset: 4 };
        let position = SourcePosition { lineage: Lineage("a".into()), coordinates, gtid_set: None };
        let [made, remade, dropped, other] =
            ["d.made", "d.remade", "d.dropped", "e.other"].map(|name| name.parse::<TableId>().unwrap());
        for table in [&made, &remade, &dropped, &other] {
            tables.made(table);
        }
        tables.unmade(&"d.REMADE".parse().unwrap());
        tables.unmade(&dropped);
        tables.made(&remade);
        let mut is_live = |table: &TableId| tables.first_state(table, &position) == TableState::Live;
        assert!(is_live(&made) && is_live(&remade));
        assert!(!is_live(&made), "the next of this name is another table");
        assert!(!is_live(&dropped) && !is_live(&other));
    }
}
