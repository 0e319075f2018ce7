//! Where the apply loop begins: with the tables that it has, and what their last commits say.

use super::gone::Gone;
use super::progress::Progress;
use super::requested::Requested;
use super::tables::AppliedTable;
use super::{Applied, Apply, ApplyConfig, Ground, LakeWriter};
use crate::error::Result;
use crate::event::TableId;
use crate::merge::{Checkpoint, Resume};
use crate::pipeline::status::Status;
use crate::stream::{EventLog, find_last_cut};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

impl Apply {
    /// Reads the checkpoints of the tables that the stream or the lake knows. `told` gets each commit.
    pub async fn start(
        log: Arc<dyn EventLog>,
        lake: LakeWriter,
        config: ApplyConfig,
        status: Status,
        told: mpsc::UnboundedSender<Applied>,
    ) -> Result<Self> {
        Self::start_on(
            &Ground { log, lake, config, status, told, edge: None, turn: None, anew_behind: None, is_copy: false },
            &Gone::default(),
        )
        .await
    }

    /// The same; tables that go by other rules are not in the last cut any more, and may need some of what lies before it.
    pub(in crate::pipeline) async fn start_on(ground: &Ground, gone: &Gone) -> Result<Self> {
        let Ground { log, lake, config, .. } = ground;
        let stream_id = log.identity().stream_id.clone();
        let last = find_last_cut(log.as_ref()).await?;
        let known = last.cut.iter().flat_map(|(_, cut)| cut.tables.keys()).filter(|table| config.rules.rule_for(table).is_some());
        let mut tables = BTreeMap::new();
        let mut durable = BTreeMap::new();
        for table in known {
            let checkpoint = lake.checkpoint(table).await?;
            let came = ground.edge.as_ref().and_then(|edge| edge.came(table));
            if let Some(checkpoint) = checkpoint.as_ref().filter(|checkpoint| came.is_none_or(|came| checkpoint.at() >= came)) {
                let resume = if checkpoint.stream_id == stream_id { checkpoint.resume.clone() } else { None };
                durable.insert(table.clone(), resume);
            }
            let kept = ground.kept(table).await?;
            tables.insert(table.clone(), AppliedTable::keeping(table, &config.rules, checkpoint, &stream_id, kept));
        }
        // A new stream, or one that was lost, knows no table yet, but the lake may have it already.
        for table in lake.tables().await? {
            if !tables.contains_key(&table) && config.rules.rule_for(&table).is_some() {
                // one without a commit needs nothing yet, and a history goes with its table
                let Some(checkpoint) = lake.checkpoint(&table).await? else { continue };
                if gone.behind().any(|behind| *behind == table) {
                    durable.insert(table.clone(), checkpoint.resume.clone());
                }
                let kept = ground.kept(&table).await?;
                let applied = AppliedTable::keeping(&table, &config.rules, Some(checkpoint), &stream_id, kept);
                tables.insert(table.clone(), applied);
            }
        }
        Ok(Self::over(ground.clone(), tables, durable))
    }

    /// For a stream that others write: `checkpoints` are those of its tables. Reading goes on from the lowest of this very stream.
    pub(in crate::pipeline) async fn start_foreign(ground: &Ground, checkpoints: BTreeMap<TableId, Checkpoint>) -> Result<Self> {
        let stream_id = ground.log.identity().stream_id.clone();
        let mut tables = BTreeMap::new();
        let mut durable = BTreeMap::new();
        for (table, checkpoint) in checkpoints {
            let is_of_stream = checkpoint.stream_id == stream_id;
            if is_of_stream {
                durable.insert(table.clone(), checkpoint.resume.clone());
            }
            let kept = ground.kept(&table).await?;
            let applied = AppliedTable::keeping(&table, &ground.config.rules, Some(checkpoint), &stream_id, kept);
            tables.insert(table, if is_of_stream { applied } else { applied.on_another_stream() });
        }
        Ok(Self::over(ground.clone(), tables, durable))
    }

    /// With these tables; `durable` says what the stream must be read for.
    pub(super) fn over(
        ground: Ground,
        tables: BTreeMap<TableId, AppliedTable>,
        durable: BTreeMap<TableId, Option<Resume>>,
    ) -> Self {
        let Ground { log, lake, config, status, told, edge, turn, anew_behind, is_copy } = ground;
        Self {
            requested: Requested::of(lake.requests()),
            went_back: false,
            log,
            lake,
            config,
            status,
            told,
            tables,
            progress: Progress::new(durable),
            last_cut: None,
            running: JoinSet::new(),
            to_release: None,
            shared: None,
            awaits: false,
            held: BTreeSet::new(),
            apart: BTreeMap::new(),
            edge,
            new_rules: None,
            turn,
            anew_behind,
            is_copy,
            unread_since: None,
            let_go: watch::Sender::new(false),
        }
    }
}
