//! Reading one chunk: rows stream from the server into the lanes' builders, and out as batches.

use super::builder::{BatchBuilder, LaneRouter};
use super::snapshot::{ReceiverGone, Shared, SnapshotEvent, TablePlan, changed_shape};
use super::snapshot_session::{Session, WireType};
use super::snapshot_split::condition;
use super::snapshot_value::{FieldReader, read_row};
use super::snapshot_work::Job;
use super::sql::{quote, quote_table};
use super::value::Value;
use super::value_rules::ValueRules;
use crate::error::Result;
use crate::event::{KeyRange, Lane, Operation, SourceType, TableSchema};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

/// Reads the chunk's rows and sends them; returns how many there were.
pub(super) async fn read_chunk(shared: &Shared, session: &mut Session, job: &Job) -> Result<Result<u64, ReceiverGone>> {
    let plan = &shared.plan.tables[job.table];
    let types = session.stream(&select(plan, &job.range, job.filter.as_deref())).await?;
    let mut chunk = ChunkReader::new(shared, plan, &types)?;
    let mut count = 0;
    while let Some(packet) = session.next_row().await? {
        count += 1;
        if let Some(event) = chunk.push(&packet)?
            && let Err(gone) = shared.send(event).await
        {
            return Ok(Err(gone));
        }
    }
    for event in chunk.finish() {
        if let Err(gone) = shared.send(event?).await {
            return Ok(Err(gone));
        }
    }
    Ok(Ok(count))
}

/// The statement that reads a range.
fn select(plan: &TablePlan, range: &KeyRange, filter: Option<&str>) -> String {
    let schema = &plan.table.schema;
    let columns: Vec<String> = schema
        .columns
        .iter()
        .map(|column| match &column.source_type {
            // the server's catalog has ? for characters beyond the basic plane: such members are read as text
            SourceType::Enum { members } | SourceType::Set { members } if members.iter().any(|member| member.contains('?')) => {
                format!("CONVERT({} USING utf8mb4)", quote(&column.name))
            }
            // others as their number, which is what the binlog carries
            SourceType::Enum { .. } | SourceType::Set { .. } => format!("CAST({} AS UNSIGNED)", quote(&column.name)),
            _ => quote(&column.name),
        })
        .collect();
    let conditions: Vec<String> = condition(range).into_iter().chain(filter.map(|filter| format!("({filter})"))).collect();
    let conditions = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    format!("SELECT {} FROM {}{conditions}", columns.join(", "), quote_table(&schema.table))
}

/// The rows of one chunk on their way into the lanes.
struct ChunkReader<'a> {
    shared: &'a Shared,
    schema: Arc<TableSchema>,
    fields: Vec<FieldReader<'a>>,
    rules: ValueRules,
    router: LaneRouter,
    /// One a lane, made when its first row comes.
    builders: BTreeMap<Lane, BatchBuilder>,
}

impl<'a> ChunkReader<'a> {
    fn new(shared: &'a Shared, plan: &'a TablePlan, types: &[WireType]) -> Result<Self> {
        let columns = &plan.table.schema.columns;
        let fields: Option<Vec<FieldReader<'a>>> =
            columns.iter().zip(types).map(|(column, wire_type)| FieldReader::new(column, *wire_type)).collect();
        let fields =
            fields.filter(|fields| fields.len() == columns.len()).ok_or_else(|| changed_shape(&plan.table.schema.table))?;
        let schema = Arc::new(plan.table.schema.clone());
        let router = LaneRouter::new(&schema.table, &schema.key, shared.plan.lanes);
        Ok(Self { shared, schema, fields, rules: ValueRules::new(plan.policies), router, builders: BTreeMap::new() })
    }

    /// Appends a row; a batch that is full by it comes back.
    fn push(&mut self, packet: &Bytes) -> Result<Option<SnapshotEvent>> {
        let mut values: Vec<Value<'_>> = Vec::with_capacity(self.fields.len());
        read_row(packet, &self.fields, &mut self.rules, &mut values).map_err(|(index, error)| {
            let column = self.schema.columns.get(index).map_or("?", |column| column.name.as_str());
            error.with("table", &self.schema.table).with("column", column)
        })?;
        let lane = self.router.lane(&values).map_err(|error| error.with("table", &self.schema.table))?;
        let builder = match self.builders.entry(lane) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(BatchBuilder::new(Arc::clone(&self.schema))?),
        };
        builder.push(&values, Operation::Read, 0, None)?;
        if builder.bytes() < self.shared.plan.batch_bytes {
            return Ok(None);
        }
        Ok(Some(SnapshotEvent::Rows { lane, batch: builder.finish(Arc::clone(&self.shared.stamps))? }))
    }

    /// What is left in the builders.
    fn finish(mut self) -> impl Iterator<Item = Result<SnapshotEvent>> {
        self.rules.report(&self.schema.table);
        let stamps = Arc::clone(&self.shared.stamps);
        let builders = self.builders.into_iter().filter(|(_, builder)| !builder.is_empty());
        builders.map(move |(lane, mut builder)| Ok(SnapshotEvent::Rows { lane, batch: builder.finish(Arc::clone(&stamps))? }))
    }
}

impl std::fmt::Debug for ChunkReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkReader").field("table", &self.schema.table).finish_non_exhaustive()
    }
}
