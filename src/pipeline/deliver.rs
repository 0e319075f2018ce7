//! Deliveries: source tables as items. Each `[[deliver]]` is read from the stream by an apply loop of its own, beside the lake's, under a
//! reader's name of its own, so the stream keeps what either of them needs; its checkpoint lies with its items.

use super::apply::{Apply, Delivery};
use super::run::{Halves, Opened, open_stream_to_read};
use super::share::Lead;
use super::supervise::keep_running;
use crate::config::{Config, Delivered};
use crate::deliver::open_items;
use crate::error::{Area, Error, Kind, Result};
use crate::event::TableId;
use crate::merge::{TablePattern, TableRule, TableRules};
use crate::pipeline::apply::Ground;
use crate::stream::EventLog;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

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

/// What the delivery's reader is called.
fn name(delivery: &Delivered) -> String {
    format!("{} to {}", delivery.mapping.source, delivery.config.to)
}

/// One run of a delivery, from its checkpoint on.
async fn deliver(config: &Config, ground: &Ground, delivery: &Delivered, stopped: &watch::Receiver<bool>) -> Result<()> {
    let log = reader(config, delivery).await?;
    let mapping = delivery.mapping.clone();
    // as /status and the metrics call it
    let place = delivery.config.to.to_string();
    let shown = TableId::new(place.split(':').next().unwrap_or("items"), &mapping.target);
    let rule = TableRule::named(TablePattern::Exact(mapping.source.clone()));
    let to = Arc::new(Delivery::new(open_items(&delivery.config).await?, mapping));
    let rules = Arc::new(TableRules::new(vec![rule]));
    let apply_config = super::apply::ApplyConfig { rules, ..ground.config.clone() };
    let status = ground.status.shown_as(delivery.mapping.source.clone(), shown);
    // nothing is published of a delivery
    let (commits_done, _) = mpsc::unbounded_channel();
    let lake = ground.lake.clone().delivering(to);
    Apply::start(log, lake, apply_config, status, commits_done).await?.run(stopped.clone()).await
}

async fn reader(config: &Config, delivery: &Delivered) -> Result<Arc<dyn EventLog>> {
    let log = open_stream_to_read(config).await?.ok_or_else(|| {
        Error::new(Area::Stream, Kind::Transient, "there is no stream yet to deliver from").with("source", &delivery.mapping.source)
    })?;
    log.register_reader(&name(delivery))?;
    Ok(log)
}
