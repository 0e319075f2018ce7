//! Rules take effect: at a start of the capture, at a cut that names them, and in the book.

use super::{RulesBook, archive};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::event::{CutPoint, CutRules};
use crate::state::{RulesDecision, RulesStatus};
use crate::stream::{EventLog, find_last_cut};
use std::sync::Arc;
use std::time::Duration;

/// How often a decision is tried to be written down before the work goes on; whoever comes to the cut next tries again.
const WRITE_ATTEMPTS: u32 = 5;
/// The pause in between.
const WRITE_PAUSE: Duration = Duration::from_millis(200);

/// The rules with which a capture begins.
#[derive(Debug, Clone)]
pub(in crate::pipeline) struct Target {
    /// Their revision; 0: the file's, where there are no revisions.
    pub(in crate::pipeline) revision: u64,
    /// What they make.
    pub(in crate::pipeline) config: Arc<Config>,
    /// What is in force by the stream, if the revision isn't yet.
    pub(in crate::pipeline) before: Option<Arc<Config>>,
    /// The revision that the stream's last cut names.
    pub(in crate::pipeline) in_stream: Option<u64>,
}

impl RulesBook {
    /// With which rules a capture begins: what is proposed, else what the stream's last cut says.
    pub(in crate::pipeline) async fn target(&self, log: &Arc<dyn EventLog>) -> Result<Target> {
        self.refresh().await?;
        let last = find_last_cut(log.as_ref()).await?;
        let named = last.cut.as_ref().and_then(|(_, cut)| self.of_cut(cut.rules.as_ref()).cloned());
        if let Some(rules) = &named {
            if self.revision(rules.revision).is_none() {
                self.recover().await?;
            }
            // who put it there may not have come to write it down
            let since = Some(rules.since).filter(|since| *since != CutPoint::default());
            let at = last.cut.as_ref().filter(|(point, _)| since == Some(*point));
            self.took_effect(rules.revision, since, at.map(|(_, cut)| cut.position.position_text())).await;
        }
        let in_stream = named.map(|rules| rules.revision);
        let of_beginning = || self.candidates().last().map_or(0, |(first, _)| *first);
        let current = in_stream.unwrap_or_else(of_beginning);
        let config = self.config_of(current)?;
        let Some(proposal) = self.proposal().filter(|proposal| *proposal > current) else {
            return Ok(Target { revision: current, config, before: None, in_stream });
        };
        if let Some(revision) = self.revision(proposal) {
            // a cut that names rules must find them there, whatever becomes of the state store
            archive::keep(self.lake(), &revision).await?;
        }
        match self.config_of(proposal) {
            Ok(proposed) => Ok(Target { revision: proposal, config: proposed, before: Some(config), in_stream }),
            Err(error) => {
                self.refuse(proposal, &error).await;
                Ok(Target { revision: current, config, before: None, in_stream })
            }
        }
    }

    /// Writes down that a revision is in force. The stream says so as well, so a failure costs nothing but a line.
    pub(in crate::pipeline) async fn took_effect(&self, number: u64, since: Option<CutPoint>, position: Option<String>) {
        let decision = RulesDecision::InForce { since, position: position.clone() };
        if self.decide(number, decision).await {
            let cut = since.map_or_else(|| "the beginning".to_owned(), |cut| cut.to_string());
            tracing::info!(revision = number, cut, position = position.unwrap_or_default(), "the rules are in force");
        }
    }

    /// Writes down that a revision can't be used.
    pub(in crate::pipeline) async fn refuse(&self, number: u64, error: &Error) {
        tracing::warn!(revision = number, %error, "the rules that were asked for can't be used; those of before go on");
        self.decide(number, RulesDecision::Refused(error.to_string())).await;
    }

    async fn decide(&self, number: u64, decision: RulesDecision) -> bool {
        let Some(revision) = self.revision(number).filter(|revision| revision.status == RulesStatus::Proposed) else {
            return false;
        };
        let decided = revision.decided(decision);
        let mut was_ours = false;
        for attempt in 1..=WRITE_ATTEMPTS {
            match self.state().decide_rules(&decided).await {
                Ok(is_ours) => {
                    was_ours = is_ours;
                    break;
                }
                Err(error) => tracing::warn!(%error, attempt, "what became of a revision can't be written down"),
            }
            tokio::time::sleep(WRITE_PAUSE).await;
        }
        if self.refresh().await.is_err() {
            // the loops of this process must know all the same
            self.know(decided);
        }
        if was_ours {
            self.keep(number).await;
        }
        was_ours
    }

    /// A loop has come to a cut that names rules: they are in force, whoever put it there.
    pub(in crate::pipeline) async fn met(&self, rules: &CutRules, position: Option<String>) {
        if self.revision(rules.revision).is_none() {
            let found = async {
                self.refresh().await?;
                if self.revision(rules.revision).is_none() { self.recover().await } else { Ok(()) }
            };
            if let Err(error) = found.await {
                tracing::warn!(%error, "the rules can't be read");
            }
        }
        if let Some(revision) = self.revision(rules.revision).filter(|revision| revision.status != RulesStatus::InForce) {
            let since = Some(rules.since).filter(|since| *since != CutPoint::default());
            if revision.status == RulesStatus::Proposed {
                self.took_effect(rules.revision, since, position).await;
            }
        }
    }
}
