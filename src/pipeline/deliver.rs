//! Deliveries: source tables as items. Each `[[deliver]]` is read from the stream by an apply loop of its own, beside the lake's, under a
//! reader's name of its own, so the stream keeps what either of them needs; its checkpoint lies with its items.

use super::apply::{Apply, Delivery, LoopEnd};
use super::rules::{Generation, MOST_BEFORE, Passed, RulesBook};
use super::run::{Halves, Opened, open_stream_to_read};
use super::share::Lead;
use super::status::Status;
use super::supervise::keep_running;
use crate::config::{Config, Delivered};
use crate::deliver::open_items;
use crate::error::{Area, Error, Kind, Result};
use crate::event::{CutPoint, TableId};
use crate::merge::{Checkpoint, TablePattern, TableRule, TableRules};
use crate::pipeline::apply::{Gone, Ground};
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
    // those that went and have ended
    let mut over = BTreeSet::new();
    let mut loops = FuturesUnordered::new();
    loop {
        newest.borrow_and_update();
        let config = book.config_of(book.newest())?;
        announce(&config, &ground.status);
        let mut names: Vec<String> = config.deliver.iter().map(name).collect();
        over.retain(|name| !names.contains(name));
        match unfinished(book).await {
            Ok(unfinished) => names.extend(unfinished.into_iter().filter(|name| !over.contains(name))),
            Err(error) => tracing::warn!(%error, "it can't be looked which deliveries have ended; the next start looks again"),
        }
        for name in names.into_iter().filter(|_| !*stopped.borrow()) {
            if known.insert(name.clone()) {
                // boxed: it holds a loop's whole state
                loops.push(Box::pin(keep_delivering(name, halves, ground, book, opened, stopped)));
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
                over.insert(ended);
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

/// Delivers by the rules that count where the delivery stands, and by those that follow, as long as they have it. One that they don't have is delivered up to the
/// cut at which it went; then the stream needn't keep anything for it.
async fn deliver(ground: &Ground, book: &RulesBook, name: &str, passed: &Passed, stopped: &watch::Receiver<bool>) -> Result<()> {
    loop {
        let gone = gone_since(book, name)?;
        let ran = async {
            match begin(ground, book, name, passed, gone).await? {
                Some((apply, _generation)) => apply.run(stopped.clone()).await.map(Some),
                None => Ok(None),
            }
        };
        let ended = match Box::pin(ran).await {
            Err(error) if gone.is_some() && matches!(error.kind(), Kind::Config | Kind::Corrupt | Kind::Refused) => {
                tracing::warn!(delivery = name, %error, "what the delivery that went lacks can't be delivered any more");
                None
            }
            ran => ran?,
        };
        match ended {
            Some(LoopEnd::Rules(new)) => new.pass(book, passed, true).await,
            Some(LoopEnd::Done | LoopEnd::Turned(_) | LoopEnd::WentBack) => return Ok(()),
            None => {
                if let Some(at) = gone {
                    ground.log.forget_reader(name)?;
                    book.note_ended(&noted(name), at).await;
                }
                return Ok(());
            }
        }
    }
}

fn find<'a>(config: &'a Config, name: &str) -> Option<&'a Delivered> {
    config.deliver.iter().find(|delivery| self::name(delivery) == name)
}

/// The cut at which the delivery went; `None`: the rules in force have it, or no rules ever had it.
fn gone_since(book: &RulesBook, name: &str) -> Result<Option<CutPoint>> {
    let mut gone = None;
    for (number, since) in book.candidates() {
        if find(&*book.config_of(number)?, name).is_some() {
            return Ok(gone);
        }
        gone = since;
    }
    Ok(None)
}

/// Deliveries that the rules in force don't have, and that may lack some of what lies before the cuts at which they went.
async fn unfinished(book: &RulesBook) -> Result<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    for (number, _) in book.candidates().into_iter().take(MOST_BEFORE) {
        // what can't be read any more can't be delivered
        let Ok(config) = book.config_of(number) else { break };
        for name in config.deliver.iter().map(name) {
            let Some(at) = gone_since(book, &name)? else { continue };
            if !found.contains(&name) && !book.has_ended(&noted(&name), at).await? {
                found.push(name);
            }
        }
    }
    Ok(found)
}

/// What the book calls a delivery that has ended.
fn noted(name: &str) -> String {
    format!("delivery {name}")
}

/// Begins by the newest rules that count where the delivery's checkpoint stands; one that came with other rules begins at the cut at which it came. `None`: it went,
/// and has all up to the cut at which it did.
async fn begin(
    ground: &Ground,
    book: &RulesBook,
    name: &str,
    passed: &Passed,
    gone: Option<CutPoint>,
) -> Result<Option<(Apply, Arc<Generation>)>> {
    if let Some(at) = gone
        && (passed.has_all(at) || book.has_ended(&noted(name), at).await?)
    {
        return Ok(None);
    }
    let mut first = None;
    for (number, since) in book.candidates() {
        if find(&*book.config_of(number)?, name).is_none() {
            match gone.filter(|_| first.is_none()) {
                Some(_) => continue,
                None => break,
            }
        }
        let generation = book.generation(number, &ground.status)?;
        let Some(delivery) = find(&generation.config, name) else { break };
        if let Some(at) = gone.filter(|_| first.is_none()) {
            let last = delivered_checkpoint(delivery).await?;
            if last.is_some_and(|last| last.at() >= at) {
                return Ok(None);
            }
        }
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
    Apply::start_on(&Ground { log, lake, config, status, ..ground.clone() }, &Gone::default()).await
}

async fn reader(config: &Config, delivery: &Delivered) -> Result<Arc<dyn EventLog>> {
    let log = open_stream_to_read(config).await?.ok_or_else(|| {
        Error::new(Area::Stream, Kind::Transient, "there is no stream yet to deliver from").with("source", &delivery.mapping.source)
    })?;
    log.register_reader(&name(delivery))?;
    Ok(log)
}
