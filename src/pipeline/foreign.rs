//! Tables that are fed by streams of others: one apply loop a stream, beside the one of the source's tables.

mod ahead;
mod retry;

pub use retry::{RETRY_FOLDER, retry_lot, waiting_letters};
pub(in crate::pipeline) use retry::{blank_letters, folder_of, lots_of};

use super::apply::{Apply, Ground, LoopEnd, Turn};
use super::rules::RulesBook;
use super::run::{Halves, Opened};
use super::share::Lead;
use super::status::TableStage;
use super::supervise::keep_running;
use crate::config::{Config, FedTable, FeedFormat};
use crate::error::{Area, Error, Kind, Result};
use crate::event::{Epoch, TableId};
use crate::format::{ChangeTable, ChangeTables, ChildSpecs, DebeziumOptions, Dialect, ForeignFormat, dead_letter_table};
use crate::merge::{Checkpoint, TablePattern, TableRule, TableRules};
use crate::stream::{ForeignLog, LogPosition, RecordStreamUrl};
use crate::table::Lake;
use ahead::letters_ahead;
use retry::LakeRetries;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// The pause before a stream is tried again that can't be read.
const STREAM_PAUSE: Duration = Duration::from_secs(5);

/// One stream and the tables that it feeds.
#[derive(Debug, Clone)]
struct Feed {
    url: RecordStreamUrl,
    tables: Vec<FedTable>,
    /// Whether it could be read in this process.
    has_begun: Arc<AtomicBool>,
}

/// The streams that the configuration names, each with its tables.
fn feeds(config: &Config) -> Vec<Feed> {
    let mut feeds: Vec<Feed> = Vec::new();
    for table in &config.fed {
        match feeds.iter_mut().find(|feed| feed.url == table.stream && feed.tables[0].format == table.format) {
            Some(feed) => feed.tables.push(table.clone()),
            None => feeds.push(Feed { url: table.stream.clone(), tables: vec![table.clone()], has_begun: Arc::default() }),
        }
    }
    feeds
}

impl Feed {
    /// The rules of its tables and of their dead letters.
    fn rules(&self) -> TableRules {
        let letters = self.tables.iter().map(|fed| TableRule {
            source: TablePattern::Exact(dead_letter_table(&fed.table)),
            key: vec!["position".into()],
            ..fed.rule.clone()
        });
        let letters = letters.map(|rule| TableRule {
            partition_by: None,
            ordering: None,
            transform: None,
            history: None,
            children: ChildSpecs::default(),
            ..rule
        });
        TableRules::new(self.tables.iter().map(|fed| fed.rule.clone()).chain(letters).collect())
    }

    /// What its records are; `known` has the shapes that the lake has.
    fn format(&self, known: &BTreeMap<TableId, Checkpoint>) -> Result<ForeignFormat> {
        let first = &self.tables[0];
        let dialect = match first.format {
            FeedFormat::Json => {
                let tables = self.tables.iter().map(|fed| {
                    let known = known.get(&fed.table).map(|checkpoint| &checkpoint.source_schema);
                    fed.plain_table(known).map_err(|what| Error::config(what).with("table", &fed.table))
                });
                return Ok(ForeignFormat::Plain(tables.collect::<Result<_>>()?));
            }
            FeedFormat::DmsJson => Dialect::Dms,
            FeedFormat::DebeziumJson => Dialect::Debezium(Arc::new(DebeziumOptions::default())),
        };
        let tables = self.tables.iter().map(|fed| {
            let is_declared = !fed.columns.is_empty();
            let schema = match is_declared {
                true => Some(fed.declared_shape()),
                false => known.get(&fed.table).map(|checkpoint| checkpoint.source_schema.clone()),
            };
            (fed.table.clone(), ChangeTable { schema: schema.map(Arc::new), is_declared, key: fed.rule.key.clone() })
        });
        Ok(ForeignFormat::Changes(ChangeTables::new(dialect, tables.collect(), first.table.clone())))
    }
}

impl Feed {
    /// The lead of its merge.
    fn lead(&self, config: &Config, opened: &Opened) -> Lead {
        let name = format!("{} {}", self.url, self.tables[0].format);
        Lead::of_feed(opened.state.clone(), &name, opened.lake.url(), config.state.lease_duration)
    }
}

impl Feed {
    /// Does `work` again and again while the stream can't be read: that is its own tables' affair, and the others go on.
    async fn beside_others<F: Future<Output = Result<()>>>(
        &self,
        ground: &Ground,
        stopped: &watch::Receiver<bool>,
        work: impl Fn() -> F,
    ) -> Result<()> {
        let mut said = None;
        loop {
            let error = match work().await {
                Err(error) if self.is_of_the_stream(&error) => error.with("stream", &self.url),
                ended => return ended,
            };
            let reason = error.to_string();
            if said.as_ref() != Some(&reason) {
                tracing::error!(%error, "a stream's tables are stopped; the others go on, and it is tried again");
            }
            for fed in &self.tables {
                ground.status.table(&fed.table, TableStage::Stopped { reason: reason.clone() });
            }
            said = Some(reason);
            let (mut stopped, mut turn) = (stopped.clone(), ground.turn.clone());
            tokio::select! {
                () = tokio::time::sleep(STREAM_PAUSE) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
                () = is_to_turn(&mut turn) => return Ok(()),
            }
        }
    }

    /// Whether an error says that what others write can't be read: that they broke it, or that it could be read before.
    fn is_of_the_stream(&self, error: &Error) -> bool {
        let could_be_read = self.has_begun.load(Ordering::Relaxed);
        match (error.area(), error.kind()) {
            (Area::Stream, Kind::Corrupt) => true,
            (Area::Stream, Kind::Refused) => could_be_read,
            _ => false,
        }
    }
}

/// Resolves when other rules are to count.
async fn is_to_turn(turn: &mut Option<Turn>) {
    let is_wished = match turn {
        Some(Turn(wish)) => wish.wait_for(|wish| *wish).await.is_ok(),
        None => false,
    };
    if !is_wished {
        std::future::pending::<()>().await;
    }
}

/// Runs a stream's apply loop, from the lake's checkpoints on; anew where a table went back.
async fn apply_feed(ground: &Ground, lake: &Lake, feed: &Feed, stopped: &watch::Receiver<bool>) -> Result<()> {
    loop {
        match Box::pin(apply_feed_once(ground, lake, feed, stopped)).await? {
            LoopEnd::WentBack => {}
            LoopEnd::Turned(position) => {
                let position = position.unwrap_or_default();
                tracing::info!(stream = %feed.url, position, "the stream is read on from here by other rules");
                return Ok(());
            }
            LoopEnd::Done | LoopEnd::Rules(_) => return Ok(()),
        }
    }
}

async fn apply_feed_once(ground: &Ground, lake: &Lake, feed: &Feed, stopped: &watch::Receiver<bool>) -> Result<LoopEnd> {
    let source = feed.url.open().await?;
    let stream_id = source.stream_id();
    let mut checkpoints = BTreeMap::new();
    for fed in &feed.tables {
        for table in [fed.table.clone(), dead_letter_table(&fed.table)] {
            if let Some(checkpoint) = ground.lake.checkpoint(&table).await? {
                checkpoints.insert(table, checkpoint);
            }
        }
    }
    let mut letters = BTreeMap::new();
    for fed in &feed.tables {
        letters.insert(fed.table.clone(), letters_ahead(lake, &fed.table, &checkpoints).await?);
    }
    let of_stream = checkpoints.values().filter(|checkpoint| checkpoint.stream_id == stream_id);
    let last_epoch: Option<Epoch> = of_stream.map(|checkpoint| checkpoint.epoch).max();
    let tables: Vec<TableId> = feed.tables.iter().map(|fed| fed.table.clone()).collect();
    if let Some(edge) = &ground.edge {
        for table in &tables {
            let last = checkpoints.get(table).filter(|checkpoint| checkpoint.stream_id == stream_id);
            edge.note_fed(table, last.map(Checkpoint::position_text)).await;
        }
    }
    let retries = Arc::new(LakeRetries::new(lake.clone(), tables, ground.edge.clone()));
    let known = checkpoints.keys().cloned().collect();
    let resumed = checkpoints.values().filter(|checkpoint| checkpoint.stream_id == stream_id);
    let resumed: Vec<LogPosition> =
        resumed.filter_map(|checkpoint| checkpoint.resume.clone()).map(|resume| LogPosition(resume.log_position)).collect();
    let log = ForeignLog::new(source, feed.format(&checkpoints)?, Some(retries), known, last_epoch).with_letters(letters);
    // reading begins where the table needs it that is furthest behind, and knows nothing of what lies ahead
    for position in &resumed {
        log.ensure_unchanged(position).await?;
    }
    let config = super::apply::ApplyConfig { rules: Arc::new(feed.rules()), ..ground.config.clone() };
    let ground = Ground { log: Arc::new(log), config, ..ground.clone() };
    let apply = Apply::start_foreign(&ground, checkpoints).await?;
    feed.has_begun.store(true, Ordering::Relaxed);
    apply.run(stopped.clone()).await
}

/// The loops of all streams, by the rules in force, and by those that follow: each loop ends at its last cut, and begins there anew.
pub(super) async fn apply_feeds_ruled(
    halves: Halves,
    ground: &Ground,
    book: &RulesBook,
    opened: &Opened,
    stopped: &watch::Receiver<bool>,
) -> Result<()> {
    let mut newest = book.newest_changes();
    let mut stop = stopped.clone();
    loop {
        newest.borrow_and_update();
        let generation = book.generation(book.newest(), &ground.status)?;
        let (turn, turned) = watch::channel(false);
        // who stands by waits until this process stops, or other rules come
        let (end_waiting, standing_by) = watch::channel(*stopped.borrow());
        let ground = Ground { turn: Some(Turn(turned)), ..ground.by(&generation, book) };
        let mut feeds = Box::pin(apply_feeds(&generation.config, halves, &ground, opened, stopped, &standing_by));
        let is_idle = halves == Halves::Capture || generation.config.fed.is_empty();
        tokio::select! {
            ended = &mut feeds, if !is_idle => return ended,
            // they all end at their last cuts, and are told to stop by the same wish
            changed = newest.changed() => {
                changed.map_err(|_| Error::bug("nobody looks at the rules"))?;
                turn.send_replace(true);
                end_waiting.send_replace(true);
                feeds.await?;
            }
            _ = stop.wait_for(|stop| *stop) => {
                end_waiting.send_replace(true);
                return if is_idle { Ok(()) } else { feeds.await };
            }
        }
        if *stopped.borrow() {
            return Ok(());
        }
    }
}

/// The loops of all streams that others write. Of several merging processes one reads a stream.
pub(super) async fn apply_feeds(
    config: &Config,
    halves: Halves,
    ground: &Ground,
    opened: &Opened,
    stopped: &watch::Receiver<bool>,
    standing_by: &watch::Receiver<bool>,
) -> Result<()> {
    let feeds = if halves == Halves::Capture { Vec::new() } else { feeds(config) };
    // where there is nothing else, the process ends with what is wrong
    let has_others = config.has_source() || feeds.len() > 1;
    let loops = feeds.iter().map(|feed| {
        let lead = (halves == Halves::Merge).then(|| feed.lead(config, opened));
        let work = move || {
            let (lead, waits) = (lead.clone(), standing_by.clone());
            async move {
                match lead {
                    None => Box::pin(apply_feed(ground, &opened.lake, feed, stopped)).await,
                    Some(lead) => Box::pin(apply_in_turn(ground, &opened.lake, feed, &lead, stopped, waits)).await,
                }
            }
        };
        keep_running("merge of a stream", stopped.clone(), move || {
            let work = work.clone();
            async move { if has_others { feed.beside_others(ground, stopped, work).await } else { work().await } }
        })
    });
    futures::future::try_join_all(loops.map(Box::pin)).await.map(|_| ())
}

/// Applies while the lead is ours: takes the tables from whoever had it before, and gives way to whoever takes them.
async fn apply_in_turn(
    ground: &Ground,
    lake: &Lake,
    feed: &Feed,
    lead: &Lead,
    stopped: &watch::Receiver<bool>,
    standing_by: watch::Receiver<bool>,
) -> Result<()> {
    let ground = Ground { lake: ground.lake.clone().shared(), ..ground.clone() };
    let taken = || Error::new(Area::Stream, Kind::Transient, "another process has taken the stream over").with("stream", &feed.url);
    let outcome = Box::pin(lead.work_in_turn(standing_by, apply_feed(&ground, lake, feed, stopped), taken)).await;
    // it may notice by the table first
    outcome.map_err(|error| match (error.area(), error.kind()) {
        (Area::Lake, Kind::Conflict) => taken().caused_by(error),
        _ => error,
    })
}
