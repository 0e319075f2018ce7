//! The cut at which other rules take effect, and what they need of the source besides.

use super::Context;
use crate::error::{Area, Error, Kind, Result};
use crate::event::{Cut, CutPoint, CutRules, TableId};
use crate::pipeline::rules::{Target, copied_anew};
use crate::stream::Producer;
use std::sync::Arc;

/// Goes over to the rules of `target`, where the stream's last cut isn't of these: a copy of that cut that names them is put on all lanes, before anything else
/// of this epoch. Returns when it is durable, with what later cuts say.
pub(super) async fn enter(
    context: &Context,
    producer: &mut Producer,
    last: Option<&(CutPoint, Arc<Cut>)>,
    target: &Target,
) -> Result<Option<CutRules>> {
    let named = last.and_then(|(_, cut)| context.book.of_cut(cut.rules.as_ref()));
    if named.map(|rules| rules.revision) != target.in_stream {
        return Err(Error::new(Area::Stream, Kind::Transient, "other rules took effect while the capture began"));
    }
    if target.before.is_none() {
        return Ok(named.cloned());
    }
    let lake = context.book.lake_url().to_owned();
    let Some((_, last)) = last else {
        // nothing is on the stream that could be of other rules
        context.book.took_effect(target.revision, None, None).await;
        return Ok(Some(CutRules { revision: target.revision, since: CutPoint::default(), lake }));
    };
    let since = CutPoint { epoch: producer.epoch(), number: producer.next_cut() };
    let rules = CutRules { revision: target.revision, since, lake };
    let cut = Cut { number: since.number, rules: Some(rules.clone()), ..last.as_ref().clone() };
    let position = cut.position.position_text();
    producer.cut(Vec::new(), cut).await?;
    producer.flush().await?;
    context.book.took_effect(target.revision, Some(since), Some(position)).await;
    Ok(Some(rules))
}

/// Of the tables that are captured already, those that must be copied once more for the sake of these rules; also by the capture that goes on for one that
/// was killed right behind the named cut.
pub(super) fn copied<'a>(
    context: &Context,
    last: Option<&(CutPoint, Arc<Cut>)>,
    target: &Target,
    tables: impl Iterator<Item = &'a TableId>,
) -> Vec<TableId> {
    let is_just_named = || {
        let (point, cut) = last?;
        let rules = context.book.of_cut(cut.rules.as_ref())?;
        (rules.since == *point).then(|| context.book.config_before(rules.revision).ok()).flatten()
    };
    let Some(before) = target.before.clone().or_else(is_just_named) else { return Vec::new() };
    tables.filter(|table| copied_anew(&before, &context.config, table)).cloned().collect()
}
