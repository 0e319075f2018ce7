//! Deliveries: source tables as items. Each `[[deliver]]` is read from the stream by an apply loop of its own, beside the lake's, under a
//! reader's name of its own, so the stream keeps what either of them needs; its checkpoint lies with its items.

use super::apply::{Apply, Delivery, LoopEnd};
use super::rules::{Generation, Passed, RulesBook};
use super::run::{Halves, Opened, open_stream_to_read};
use super::share::Lead;
use super::status::Status;
use super::supervise::keep_running;
use crate::config::{Config, Delivered};
use crate::deliver::open_items;
use crate::error::{Area, Error, Kind, Result};
use crate::event::TableId;
use crate::merge::{Checkpoint, TablePattern, TableRule, TableRules};
use crate::pipeline::apply::Ground;
use crate::stream::EventLog;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::watch;

/// Tells the status what is delivered.
pub(super) fn announce(config: &Config, status: &Status) {
    for delivery in &config.deliver {
        status.delivers(delivery.mapping.source.clone(), delivery_name(delivery));
    }
}

/// The loops of all deliveries, those that come with later rules among them. Of several merging processes one delivers.
pub(super) async fn deliver_all(
    halves: Halves,
    ground: &Ground,
    book: &RulesBook,
    opened: &Opened,
    stopped: &watch::Receiver<bool>,
) -> Result<()> {
    if halves == Halves::Capture {
        return Ok(());
    }
    let mut newest = book.newest_changes();
    let mut stop = stopped.clone();
    let mut known = BTreeSet::new();
    let mut loops = FuturesUnordered::new();
    loop {
        newest.borrow_and_update();
        let config = book.config_of(book.newest())?;
        announce(&config, &ground.status);
        for delivery in config.deliver.iter().filter(|_| !*stopped.borrow()) {
            if known.insert(name(delivery)) {
                // boxed: it holds a loop's whole state
                loops.push(Box::pin(keep_delivering(name(delivery), halves, ground, book, opened, stopped)));
            }
        }
        let is_stopping = *stopped.borrow();
        if is_stopping && loops.is_empty() {
            return Ok(());
        }
        tokio::select! {
            changed = newest.changed() => changed.map_err(|_| Error::bug("nobody looks at the rules"))?,
            _ = stop.wait_for(|stop| *stop), if !is_stopping => {}
            // it may come back with other rules
            Some(ended) = loops.next() => {
                let ended: String = ended?;
                known.remove(&ended);
            }
        }
    }
}

/// Runs the loop of one delivery until it is told to stop, or no rules in force have it; gives its name back.
async fn keep_delivering(
    name: String,
    halves: Halves,
    ground: &Ground,
    book: &RulesBook,
    opened: &Opened,
    stopped: &watch::Receiver<bool>,
) -> Result<String> {
    let config = book.config_of(book.newest())?;
    let lead = (halves == Halves::Merge).then(|| {
        let stream = config.stream.url.to_string();
        Lead::of_feed(opened.state.clone(), &stream, &name, config.state.lease_duration)
    });
    let passed = Passed::default();
    keep_running("delivery", stopped.clone(), || {
        let (lead, stopped, name, passed) = (lead.clone(), stopped.clone(), &name, &passed);
        async move {
            let work = deliver(ground, book, name, passed, &stopped);
            match lead {
                None => Box::pin(work).await,
                Some(lead) => {
                    let lost = || {
                        Error::new(Area::Stream, Kind::Transient, "another process has taken the delivery over")
                            .with("delivery", name)
                    };
                    Box::pin(lead.work_in_turn(stopped.clone(), work, lost)).await
                }
            }
        }
    })
    .await?;
    Ok(name)
}

/// What `/status`, the audit and the lists call a delivery: `dynamodb.TARGET`, `sqlite.TARGET`.
pub fn delivery_name(delivery: &Delivered) -> TableId {
    let place = delivery.config.to.to_string();
    TableId::new(place.split(':').next().unwrap_or("items"), &delivery.mapping.target)
}

/// How far a delivery is; `None`: it has not come to its first checkpoint.
///
/// # Errors
/// If the items' store can't be reached.
pub async fn delivered_checkpoint(delivery: &Delivered) -> Result<Option<Checkpoint>> {
    let json = open_items(&delivery.config).await?.checkpoint(&delivery.mapping.target).await?;
    json.as_deref().map(Checkpoint::from_json).transpose()
}

/// What the delivery's reader is called.
fn name(delivery: &Delivered) -> String {
    format!("{} to {}", delivery.mapping.source, delivery.config.to)
}

/// Delivers by the rules that count where the delivery stands, and by those that follow, as long as they have it.
async fn deliver(ground: &Ground, book: &RulesBook, name: &str, passed: &Passed, stopped: &watch::Receiver<bool>) -> Result<()> {
    loop {
        let Some((apply, _generation)) = begin(ground, book, name, passed).await? else { return Ok(()) };
        match apply.run(stopped.clone()).await? {
            LoopEnd::Rules(new) => new.pass(book, passed, true).await,
            LoopEnd::Done | LoopEnd::Turned(_) => return Ok(()),
        }
    }
}

/// Begins by the newest rules that count where the delivery's checkpoint stands; one that came with other rules begins at the cut at which it came.
async fn begin(ground: &Ground, book: &RulesBook, name: &str, passed: &Passed) -> Result<Option<(Apply, Arc<Generation>)>> {
    let mut first = None;
    for (number, since) in book.candidates() {
        let generation = book.generation(number, &ground.status)?;
        let Some(delivery) = generation.config.deliver.iter().find(|delivery| self::name(delivery) == name) else { break };
        let apply = start(&generation.config, &ground.by(&generation, book), delivery).await?;
        if !since.is_some_and(|since| apply.begins_before(since, passed)) {
            return Ok(Some((apply, generation)));
        }
        first = Some((apply, generation, since));
    }
    Ok(first.map(|(mut apply, generation, since)| {
        if let Some(since) = since {
            apply.begin_behind(since);
        }
        (apply, generation)
    }))
}

/// The apply loop of a delivery, from its checkpoint on.
async fn start(config: &Config, ground: &Ground, delivery: &Delivered) -> Result<Apply> {
    let log = reader(config, delivery).await?;
    let rule = TableRule::named(TablePattern::Exact(delivery.mapping.source.clone()));
    let to = Delivery::new(open_items(&delivery.config).await?, delivery.mapping.clone(), delivery_name(delivery));
    let config = super::apply::ApplyConfig { rules: Arc::new(TableRules::new(vec![rule])), ..ground.config.clone() };
    let status = ground.status.shown_as(delivery.mapping.source.clone(), delivery_name(delivery));
    let lake = ground.lake.clone().delivering(Arc::new(to));
    Apply::start_on(&Ground { log, lake, config, status, ..ground.clone() }).await
}

async fn reader(config: &Config, delivery: &Delivered) -> Result<Arc<dyn EventLog>> {
    let log = open_stream_to_read(config).await?.ok_or_else(|| {
        Error::new(Area::Stream, Kind::Transient, "there is no stream yet to deliver from").with("source", &delivery.mapping.source)
    })?;
    log.register_reader(&name(delivery))?;
    Ok(log)
}
