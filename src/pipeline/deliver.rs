//! Deliveries: source tables as items. Each `[[deliver]]` is read from the stream by an apply loop of its own, beside the lake's, under a
//! reader's name of its own, so the stream keeps what either of them needs; its checkpoint lies with its items.

use super::apply::{Apply, Delivery};
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
use std::sync::Arc;
use tokio::sync::watch;

/// Tells the status what is delivered.
pub(super) fn announce(config: &Config, status: &Status) {
    for delivery in &config.deliver {
        status.delivers(delivery.mapping.source.clone(), delivery_name(delivery));
    }
}

/// The loops of all deliveries. Of several merging processes one delivers.
pub(super) async fn deliver_all(
    config: &Config,
    halves: Halves,
    ground: &Ground,
    opened: &Opened,
    stopped: &watch::Receiver<bool>,
) -> Result<()> {
    let all: &[Delivered] = if halves == Halves::Capture { &[] } else { &config.deliver };
    let loops = all.iter().map(|delivery| {
        let lead = (halves == Halves::Merge).then(|| {
            let stream = config.stream.url.to_string();
            Lead::of_feed(opened.state.clone(), &stream, &name(delivery), config.state.lease_duration)
        });
        keep_running("delivery", stopped.clone(), move || {
            let (lead, stopped) = (lead.clone(), stopped.clone());
            async move {
                match lead {
                    None => Box::pin(deliver(config, ground, delivery, &stopped)).await,
                    Some(lead) => {
                        let lost = || {
                            Error::new(Area::Stream, Kind::Transient, "another process has taken the delivery over")
                                .with("source", &delivery.mapping.source)
                        };
                        let work = deliver(config, ground, delivery, &stopped);
                        Box::pin(lead.work_in_turn(stopped.clone(), work, lost)).await
                    }
                }
            }
        })
    });
    futures::future::try_join_all(loops.map(Box::pin)).await.map(|_| ())
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

/// One run of a delivery, from its checkpoint on.
async fn deliver(config: &Config, ground: &Ground, delivery: &Delivered, stopped: &watch::Receiver<bool>) -> Result<()> {
    let log = reader(config, delivery).await?;
    let rule = TableRule::named(TablePattern::Exact(delivery.mapping.source.clone()));
    let to = Delivery::new(open_items(&delivery.config).await?, delivery.mapping.clone(), delivery_name(delivery));
    let rules = Arc::new(TableRules::new(vec![rule]));
    let apply_config = super::apply::ApplyConfig { rules, ..ground.config.clone() };
    let status = ground.status.shown_as(delivery.mapping.source.clone(), delivery_name(delivery));
    let lake = ground.lake.clone().delivering(Arc::new(to));
    Apply::start(log, lake, apply_config, status, ground.commits_done.clone()).await?.run(stopped.clone()).await
}

async fn reader(config: &Config, delivery: &Delivered) -> Result<Arc<dyn EventLog>> {
    let log = open_stream_to_read(config).await?.ok_or_else(|| {
        Error::new(Area::Stream, Kind::Transient, "there is no stream yet to deliver from").with("source", &delivery.mapping.source)
    })?;
    log.register_reader(&name(delivery))?;
    Ok(log)
}
