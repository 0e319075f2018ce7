//! The rules in force, for commands that only look: from the lake and the stream, so that neither the state store nor a running service is needed.

use super::archive::kept_in;
use super::behind::in_force;
use super::book::text_of;
use crate::config::{Config, shown_differences};
use crate::error::Result;
use crate::pipeline::run::open_stream_to_read;
use crate::pipeline::share::pipeline_name;
use crate::state::RulesRevision;
use crate::stream::find_last_cut;
use crate::table::Lake;

/// By which rules a command goes.
#[derive(Debug, Clone)]
pub struct RulesBeside {
    /// The configuration, with these rules.
    pub config: Config,
    /// Their revision; `None`: no service has written any down, and the file's count.
    pub revision: Option<u64>,
    /// In what the file differs, for people; empty if in nothing.
    pub difference: String,
}

/// The configuration by the revision in force, where there is one: else by the file. `lake` is the configuration's; `None`: there is none that can be opened.
///
/// # Errors
/// If lake or stream are there and can't be read, or the rules can't be used here.
pub async fn rules_in_force(config: Config, lake: Option<&Lake>) -> Result<RulesBeside> {
    // boxed: it holds a stream being opened
    let Some(revision) = Box::pin(newest_in_force(&config, lake)).await? else {
        return Ok(RulesBeside { config, revision: None, difference: String::new() });
    };
    let rules = text_of(&revision)?;
    let differences = config.differences_from(&rules);
    let ruled = if differences.is_empty() {
        config
    } else {
        config.with_rules(&rules).map_err(|error| error.with("revision", revision.number))?
    };
    Ok(RulesBeside { config: ruled, revision: Some(revision.number), difference: shown_differences(&differences) })
}

async fn newest_in_force(config: &Config, lake: Option<&Lake>) -> Result<Option<RulesRevision>> {
    // where rules can't be told from the rest, they can't have been changed
    let (Ok(()), Some(lake)) = (config.ensure_rules_apart(), lake) else { return Ok(None) };
    let mut kept = kept_in(lake).await?;
    if kept.is_empty() {
        return Ok(None);
    }
    if !config.has_source() {
        return Ok(kept.remove(lake.url()).and_then(|revisions| newest(&revisions)));
    }
    match open_stream_to_read(config).await {
        Ok(Some(log)) => {
            let Some(revisions) = kept.remove(&pipeline_name(log.as_ref(), lake)) else { return Ok(None) };
            let last = find_last_cut(log.as_ref()).await?.cut;
            let named = last.as_ref().and_then(|(_, cut)| cut.rules.as_ref()).filter(|rules| rules.lake == lake.url());
            // who put the cut there may not have come to write it down
            let named = named.and_then(|rules| revisions.iter().find(|revision| revision.number == rules.revision).cloned());
            Ok(named.or_else(|| newest(&revisions)))
        }
        // who may read the lake alone: what the only pipeline has written there
        Ok(None) | Err(_) if kept.len() == 1 => Ok(kept.into_values().next().and_then(|revisions| newest(&revisions))),
        Ok(None) => Ok(None),
        Err(error) => Err(error),
    }
}

fn newest(revisions: &[RulesRevision]) -> Option<RulesRevision> {
    in_force(revisions).next().cloned()
}
