//! Where a run of the capture begins: from the last cut, from the lake's checkpoints, or with snapshots.

use super::link::check_position;
use super::ruled::{copied, enter};
use super::{BackfillRequest, Context, Follower, Link, Pace, Snapshots};
use crate::error::{Area, Error, Kind, Result};
use crate::event::{Epoch, Section, SnapshotProgress, SourcePosition, TableId, TableSchema, TableState, TransactionStamp};
use crate::merge::{CHECKPOINT_KEY, Checkpoint, TableRules, TinyInt1};
use crate::pipeline::rules::{Target, ensure_mappings_fit, unfit};
use crate::source::{
    BinlogReader, CaptureRule, Cascade, Catalog, CatalogTable, DumpSettings, LaneBuffers, OnGap, SelectTables, ServerInfo,
    Snapshot, SnapshotPlan, TablePlan, TrackedTables, Wanted, check_server, connect, connection_options, load_catalog,
    no_such_table, read_cascades, refuse_on_failure,
};
use crate::stream::{TakenOver, take_over};
use crate::table::{Lake, Table};
use crate::time::Timestamp;
use futures::{StreamExt, TryStreamExt};
use mysql_async::{Conn, Opts};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How long the lock at a snapshot's start is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Tables that are looked for in the lake at once.
const LOOKS_AT_ONCE: usize = 16;
/// Rows of the audit in which it is looked for a table's commits.
const AUDITED_ROWS: usize = 20_000;

/// A capture that is ready to run.
pub(super) struct Started {
    pub(super) follower: Follower,
    /// The producer's.
    pub(super) epoch: Epoch,
    pub(super) snapshots: Option<Snapshots>,
    /// The tables that a backfill was asked for.
    pub(super) requested: Vec<TableId>,
    /// Whether all tables are read anew.
    pub(super) is_anew: bool,
}

/// Where the source was left.
#[derive(Debug, Default)]
struct Left {
    position: Option<SourcePosition>,
    source_commit_time: Timestamp,
    tables: BTreeMap<TableId, (TableSchema, TableState)>,
    /// Tables that the lake has further than `position`.
    covered: BTreeMap<TableId, SourcePosition>,
}

/// Connects, takes an epoch, and finds out what is to be read; `anew`: all tables, whatever was read before. `target` are the rules of `context`.
pub(super) async fn start(context: &Context, backfill: Option<&BackfillRequest>, anew: bool, target: &Target) -> Result<Started> {
    let config = &context.config;
    let options = connection_options(config.source.url.expose())?;
    let mut conn = connect(&options, config.source.connect_timeout).await?;
    let info = ServerInfo::read(&mut conn).await?;
    refuse_on_failure(&check_server(&info))?;
    let rules = Arc::new(config.captured());
    let mut catalog = load_catalog(&mut conn, |table| wanted(&rules, table)).await?;
    for Cascade { table, constraint, rules } in read_cascades(&mut conn, &info, &catalog).await? {
        tracing::warn!(%table, constraint, rules, "rows that this foreign key changes are not in the server's binlog: the lake keeps them as they were");
    }
    let stream_id = context.log.identity().stream_id.clone();
    let take_epoch = async |seen| context.state.take_epoch(&stream_id, seen).await;
    let TakenOver { mut producer, cut } = take_over(context.log.clone(), take_epoch).await?;
    let epoch = producer.epoch();
    let mut left = match &cut {
        Some((_, cut)) => Left {
            position: Some(cut.position.clone()),
            source_commit_time: cut.source_commit_time,
            tables: cut
                .tables
                .iter()
                .filter_map(|(id, state)| Some((id.clone(), (cut.schemas.get(id)?.clone(), state.clone()))))
                .collect(),
            covered: BTreeMap::new(),
        },
        None => from_lake(&context.lake, &rules, &catalog).await?,
    };
    if left.source_commit_time == Timestamp::default() {
        // nothing was read yet: what the snapshot reads is as of now
        left.source_commit_time = Timestamp::now();
    }
    left.tables.retain(|table, _| rules.rule_for(table).is_some());
    ensure_mappings_fit(config, target.before.as_deref(), &catalog, left.position.is_none())?;
    refuse_shapes(&mut catalog, &rules, target)?;
    let requested = requested(backfill, &left, &mut catalog)?;
    refuse(&mut catalog, &left, &rules)?;
    let is_anew = anew || must_begin_anew(context, &mut conn, &info, &left).await?;
    let mut anew = if is_anew { catalog.tables.keys().cloned().collect() } else { requested.clone() };
    // the connection is not used again: a failed good-bye means nothing
    let _ = conn.disconnect().await;
    adopt_server(&mut left, &info);
    let named = enter(context, &mut producer, cut.as_ref(), target).await?;
    anew.extend(copied(context, cut.as_ref(), target, left.tables.keys()));
    anew.extend(lost(context, &left).await?);

    let lanes = context.log.identity().lanes;
    let settings = DumpSettings {
        server_id: config.source.server_id.unwrap_or_else(DumpSettings::random_server_id),
        connect_timeout: config.source.connect_timeout,
        read_timeout: config.source.read_timeout,
        heartbeat_interval: config.source.heartbeat_interval,
    };
    let chunk_bytes = usize::try_from(config.stream.chunk_size.0).unwrap_or(1 << 20);
    let mut buffers = LaneBuffers::new(lanes, chunk_bytes).with_before_images(context.log.format().is_some());
    let mut tables = TrackedTables::new(select(&rules), lanes, info.ignores_case_of_names());
    let plans = plan(&left, &mut catalog, &rules, &anew, backfill);
    let known = known(&context.lake, &left, &plans).await?;
    stop_unreadable(&mut left, &plans);
    begin_anew(&mut left, &plans);
    for (schema, state) in std::mem::take(&mut left.tables).into_values() {
        tables.put(Arc::new(schema), state)?;
    }
    for (table, position) in std::mem::take(&mut left.covered) {
        tables.cover(&table, position)?;
    }
    for (table, error) in &catalog.refused {
        let schema = TableSchema { table: table.clone(), columns: Vec::new(), key: Vec::new() };
        let position = left.position.clone().unwrap_or_else(|| nowhere(&info));
        tracing::error!(%table, %error, "the table isn't replicated");
        tables.put(Arc::new(schema), TableState::Stopped { position, reason: error.to_string() })?;
    }
    let mut snapshots = None;
    if !plans.is_empty() {
        let new: Vec<(Arc<TableSchema>, bool)> = (plans.iter().filter(|plan| plan.progress.is_none()))
            .map(|plan| (Arc::new(plan.table.schema.clone()), known.contains(&plan.table.schema.table)))
            .collect();
        let schemas: BTreeMap<TableId, Arc<TableSchema>> =
            plans.iter().map(|plan| (plan.table.schema.table.clone(), Arc::new(plan.table.schema.clone()))).collect();
        let plan = SnapshotPlan {
            tables: plans,
            lanes,
            connections: config.source.snapshot_connections,
            chunk_rows: config.source.snapshot_chunk_rows,
            batch_bytes: chunk_bytes,
            connect_timeout: config.source.connect_timeout,
            lock_wait_timeout: LOCK_WAIT,
        };
        let snapshot = Snapshot::open(options.clone(), info.clone(), plan).await?;
        if left.position.is_none() {
            refuse_newcomers(&options, config.source.connect_timeout, &rules, &tables, &schemas, &catalog.refused).await?;
        }
        let position = left.position.get_or_insert_with(|| snapshot.low_watermark().clone()).clone();
        let stamp = TransactionStamp {
            gtid: None,
            coordinates: position.coordinates.clone(),
            source_commit_time: left.source_commit_time,
            is_snapshot: true,
        };
        for (table, progress) in snapshot.progress() {
            if let Some(schema) = schemas.get(table) {
                tables.put(Arc::clone(schema), TableState::Snapshot(progress.clone()))?;
                // what lies before is in the rows that are read
                tables.cover(table, progress.low_watermark.clone())?;
            }
        }
        for (schema, was_known) in new {
            if was_known {
                let section = Section::Truncate { table: schema.table.clone(), stamp: stamp.clone() };
                buffers.push_section(&section)?;
            }
            // an empty table has a shape as well
            buffers.push_section(&Section::NewShape { schema, fill: None, stamp: stamp.clone() })?;
        }
        snapshots = Some(Snapshots::start(snapshot));
    }
    let Some(position) = left.position else {
        return Err(Error::config("no table is replicated")
            .remedy("correct `source` in the [[table]] sections, or grant SELECT on the tables"));
    };
    let reader = BinlogReader::new(tables, position, left.source_commit_time);
    let link = Link { options, settings };
    tracing::info!(%epoch, position = %reader.position().coordinates, tables = reader.tables().states().len(), "the capture begins");
    let follower = Follower::new(reader, buffers, producer, link, context.status.clone(), Pace::of(&config.stream));
    let follower = follower.ruled_by(named);
    Ok(Started { follower, epoch, snapshots, requested, is_anew })
}

/// Where the binlog is read from the snapshot's point on, a table that was made after the catalog was read and before the point is in neither.
///
/// This is the catalog's third look of a fresh start, and none of them does for another: the first plans the snapshot; [`Snapshot::open`] looks, behind the point,
/// whether the planned tables still are what the plan says, at each start that reads any; and here, where no position is known yet, all tables that the rules mean
/// are looked at.
async fn refuse_newcomers(
    options: &Opts,
    timeout: Duration,
    rules: &TableRules,
    tables: &TrackedTables,
    planned: &BTreeMap<TableId, Arc<TableSchema>>,
    refused: &[(TableId, Error)],
) -> Result<()> {
    let mut conn = connect(options, timeout).await?;
    let now = load_catalog(&mut conn, |table| wanted(rules, table)).await?;
    // the connection is not used again: a failed good-bye means nothing
    let _ = conn.disconnect().await;
    let is_known = |table: &TableId| {
        planned.contains_key(table) || tables.number(table).is_some() || refused.iter().any(|(refused, _)| refused == table)
    };
    match now.tables.keys().find(|table| !is_known(table)) {
        None => Ok(()),
        Some(table) => {
            Err(Error::new(Area::Source, Kind::Transient, "a table was made while the snapshot began").with("table", table))
        }
    }
}

pub(in crate::pipeline) fn wanted(rules: &TableRules, table: &TableId) -> Option<Wanted> {
    rules.rule_for(table).map(|rule| Wanted { key: rule.key.clone(), tinyint1_is_bool: rule.tinyint1 == TinyInt1::Bool })
}

fn select(rules: &Arc<TableRules>) -> SelectTables {
    let rules = Arc::clone(rules);
    Arc::new(move |table| {
        let rule = rules.rule_for(table)?;
        Some(CaptureRule {
            key: rule.key.clone(),
            partition_columns: rule.moving_columns(),
            tinyint1_is_bool: rule.tinyint1 == TinyInt1::Bool,
            policies: rule.policies(),
        })
    })
}

/// Whether the server no longer has the binlog that is needed, and the configuration asks for new snapshots then.
async fn must_begin_anew(context: &Context, conn: &mut Conn, info: &ServerInfo, left: &Left) -> Result<bool> {
    let (OnGap::Resnapshot, Some(position)) = (context.config.source.on_gap, &left.position) else { return Ok(false) };
    match check_position(conn, info, position).await {
        Err(error) if super::is_gap(&error) => {
            tracing::warn!(%error, "all tables are read anew, as `on_gap` asks");
            Ok(true)
        }
        other => other.map(|()| false),
    }
}

/// Without a cut: the lake's checkpoints. The lowest position counts; a table that is further skips what it has.
async fn from_lake(lake: &Lake, rules: &TableRules, catalog: &Catalog) -> Result<Left> {
    let mut left = Left::default();
    for table in catalog.tables.keys().filter(|table| rules.rule_for(table).is_some()) {
        let base = lake.table_path(table.database(), table.name());
        if !Table::exists(lake.store(), &base).await? {
            continue;
        }
        let view = Table::settled_view(lake.store().clone(), base).await?;
        let Some(checkpoint) = view.extra_metadata(CHECKPOINT_KEY).map(Checkpoint::from_json).transpose()? else { continue };
        let is_lower = left.position.as_ref().is_none_or(|lowest| lowest.has_passed(&checkpoint.position));
        if is_lower {
            left.position = Some(checkpoint.position.clone());
            left.source_commit_time = checkpoint.source_commit_time;
        }
        left.covered.insert(table.clone(), checkpoint.position);
        left.tables.insert(table.clone(), (checkpoint.source_schema, TableState::Live));
    }
    Ok(left)
}

/// Tables that the lake had, and no longer has though it has others: somebody removed their folders. What the stream still has of them would be a part.
async fn lost(context: &Context, left: &Left) -> Result<Vec<TableId>> {
    let of_lake = left.tables.iter().filter(|(table, _)| context.config.tables.rule_for(table).is_some());
    let looked = of_lake.map(|(table, (_, state))| async move {
        let base = context.lake.table_path(table.database(), table.name());
        Ok::<_, Error>((table, *state == TableState::Live, Table::exists(context.lake.store(), &base).await?))
    });
    let looked: Vec<_> = futures::stream::iter(looked).buffered(LOOKS_AT_ONCE).try_collect().await?;
    let mut lost: Vec<TableId> =
        looked.iter().filter(|(_, is_live, is_there)| *is_live && !is_there).map(|(table, ..)| (*table).clone()).collect();
    // of a lake that has none, the stream is read from its beginning
    if lost.is_empty() || !looked.iter().any(|(.., is_there)| *is_there) {
        return Ok(Vec::new());
    }
    // one that is only just whole has no commit yet
    let rows = context.state.runs(&context.log.identity().stream_id, AUDITED_ROWS).await?;
    lost.retain(|table| rows.iter().any(|row| row.commits > 0 && row.table == table.to_string()));
    for table in &lost {
        tracing::warn!(%table, "the lake no longer has the table: it is copied anew");
    }
    Ok(lost)
}

/// Tables that a rule names must be there; others that can't be replicated are refused one by one.
fn refuse(catalog: &mut Catalog, left: &Left, rules: &TableRules) -> Result<()> {
    let exact: BTreeSet<&TableId> = rules.exact_tables().collect();
    for table in &exact {
        if let Some(at) = catalog.refused.iter().position(|(refused, _)| refused == *table) {
            let (_, error) = catalog.refused.swap_remove(at);
            // a table that was replicated is stopped by the event that changed it
            if !left.tables.contains_key(*table) {
                return Err(error);
            }
        } else if !catalog.tables.contains_key(*table) && !left.tables.contains_key(*table) {
            return Err(no_such_table(table));
        }
    }
    catalog.refused.retain(|(table, _)| !left.tables.contains_key(table));
    Ok(())
}

/// A table that can't become a lake table as its rule has it (a partition column that it lacks) is refused before a row of it is read. Where the rules
/// are new, it's they that are refused.
fn refuse_shapes(catalog: &mut Catalog, rules: &TableRules, target: &Target) -> Result<()> {
    let was_unfit = target.before.as_ref().map(|before| unfit(catalog, &before.captured()));
    for (id, error) in unfit(catalog, rules) {
        if was_unfit.as_ref().is_some_and(|was| !was.iter().any(|(table, _)| *table == id)) {
            return Err(error);
        }
        catalog.tables.remove(&id);
        catalog.refused.push((id, error));
    }
    Ok(())
}

fn requested(backfill: Option<&BackfillRequest>, left: &Left, catalog: &mut Catalog) -> Result<Vec<TableId>> {
    let Some(backfill) = backfill else { return Ok(Vec::new()) };
    if backfill.tables.is_empty() {
        return Ok(catalog.tables.keys().cloned().collect());
    }
    for table in &backfill.tables {
        if let Some(at) = catalog.refused.iter().position(|(refused, _)| refused == table) {
            return Err(catalog.refused.swap_remove(at).1);
        }
        if !catalog.tables.contains_key(table) {
            return Err(match left.tables.contains_key(table) {
                true => no_such_table(table),
                false => Error::config("the table is in no rule, or doesn't exist")
                    .with("table", table)
                    .remedy("add a [[table]] section for it"),
            });
        }
    }
    Ok(backfill.tables.clone())
}

/// With GTIDs another server can take over: its coordinates count from now on.
fn adopt_server(left: &mut Left, info: &ServerInfo) {
    if let Some(position) = &mut left.position
        && position.lineage != info.lineage
        && position.gtid_set.is_some()
    {
        tracing::info!(server = info.lineage.0, before = position.lineage.0, "another server took over");
        *position = SourcePosition { gtid_set: position.gtid_set.take(), ..nowhere(info) };
    }
}

/// Where all that is followed is read by new snapshots, nothing of the binlog before them is needed: it may be gone, or another server's.
fn begin_anew(left: &mut Left, plans: &[TablePlan]) {
    let is_new = |table: &TableId| plans.iter().any(|plan| plan.progress.is_none() && plan.table.schema.table == *table);
    if left.tables.iter().all(|(table, (_, state))| is_new(table) || matches!(state, TableState::Stopped { .. })) {
        left.position = None;
    }
}

/// A table whose snapshot can't go on: it was dropped meanwhile, or this user may not see it.
fn stop_unreadable(left: &mut Left, plans: &[TablePlan]) {
    for (table, (_, state)) in &mut left.tables {
        let is_planned = || plans.iter().any(|plan| plan.table.schema.table == *table);
        if let TableState::Snapshot(progress) = state
            && !progress.remaining_chunks.is_empty()
            && !is_planned()
        {
            let error = no_such_table(table);
            tracing::error!(%table, %error, "the table is stopped: it can't be read");
            *state = TableState::Stopped { position: progress.low_watermark.clone(), reason: error.to_string() };
        }
    }
}

/// The tables whose rows of before must go: those that were followed, and those that the lake has from an earlier time.
async fn known(lake: &Lake, left: &Left, plans: &[TablePlan]) -> Result<BTreeSet<TableId>> {
    let mut known: BTreeSet<TableId> = left.tables.keys().cloned().collect();
    for table in plans.iter().map(|plan| &plan.table.schema.table) {
        if !known.contains(table) && Table::exists(lake.store(), &lake.table_path(table.database(), table.name())).await? {
            known.insert(table.clone());
        }
    }
    Ok(known)
}

fn nowhere(info: &ServerInfo) -> SourcePosition {
    SourcePosition {
        lineage: info.lineage.clone(),
        coordinates: crate::event::BinlogCoordinates { file: "".into(), offset: 4 },
        gtid_set: None,
    }
}

/// What is to be read by a snapshot: new tables, interrupted ones, and those that a backfill asks for.
fn plan(
    left: &Left,
    catalog: &mut Catalog,
    rules: &TableRules,
    requested: &[TableId],
    backfill: Option<&BackfillRequest>,
) -> Vec<TablePlan> {
    let filter = backfill.and_then(|backfill| backfill.filter.clone());
    let of_server = |progress: &SnapshotProgress| {
        left.position.as_ref().is_none_or(|position| position.lineage == progress.low_watermark.lineage)
    };
    let tables: Vec<CatalogTable> = std::mem::take(&mut catalog.tables).into_values().collect();
    tables
        .into_iter()
        .filter_map(|table| {
            let id = &table.schema.table;
            let is_requested = requested.contains(id);
            let progress = match left.tables.get(id) {
                None => None,
                // interrupted: it goes on, unless the table was changed meanwhile, or another server took over, whose binlog says nothing of the rows read before
                Some((schema, TableState::Snapshot(progress))) if *schema == table.schema && of_server(progress) => {
                    Some(progress.clone())
                }
                Some((_, TableState::Snapshot(_))) => {
                    tracing::info!(table = %id, "its snapshot begins anew");
                    None
                }
                Some((_, TableState::Live | TableState::Stopped { .. })) if is_requested => None,
                Some(_) => return None,
            };
            let policies = rules.rule_for(id).map(|rule| rule.policies()).unwrap_or_default();
            let filter = if is_requested { filter.clone() } else { None };
            Some(TablePlan { table, policies, progress, filter })
        })
        .collect()
}
