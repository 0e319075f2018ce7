//! Asking for other rules: planned against what is in force, written down, taken up by the service, and what became of it.

use super::RulesBook;
use super::behind::in_force;
use super::book::text_of;
use super::check::{check, ensure_first_fits};
use crate::config::{BaseValues, Config, Difference, Needs, ensure_same_base, shown_differences};
use crate::error::{Area, Error, Kind, Result};
use crate::event::CutRules;
use crate::pipeline::share::host;
use crate::state::{RulesDecision, RulesRevision, RulesStatus};
use crate::stream::{EventLog, find_last_cut};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often it is looked whether a proposal has taken effect.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// The note of what the service began with.
const SERVICE: &str = "service";

/// Rules that could be proposed.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The revision in force that they differ from.
    pub against: u64,
    /// In what.
    pub differences: Vec<Difference>,
    config: Arc<Config>,
    /// The revision that they are, where they were in force before.
    of: Option<u64>,
}

impl Plan {
    /// The differences for people.
    pub fn shown(&self) -> String {
        shown_differences(&self.differences)
    }

    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        self.differences.is_empty()
    }
}

/// What became of a proposal.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It is in force.
    InForce(RulesRevision),
    /// It can't be used.
    Refused(RulesRevision),
    /// No service has taken it up yet.
    Waiting,
}

impl RulesBook {
    /// Checks the rules of a file against what is in force.
    ///
    /// # Errors
    /// `Config`: what keeps them from being used while the service runs; those of the source if it can't be asked.
    pub async fn plan_of_file(&self) -> Result<Plan> {
        if let Some(running) = self.state().rules_note(self.pipeline(), SERVICE).await? {
            let running: BaseValues = serde_json::from_str(&running).unwrap_or_default();
            ensure_same_base(&self.own().base_values(), &running, false)
                .map_err(|error| error.with("file", self.own().file.display()))?;
        }
        self.plan(self.own().clone(), None, true).await
    }

    /// The same of the rules in `text`.
    ///
    /// # Errors
    /// As [`RulesBook::plan_of_file`].
    pub async fn plan_of_text(&self, text: &str) -> Result<Plan> {
        let config = self.own().with_rules_in(text)?;
        config.ensure_rules_apart()?;
        self.refresh().await?;
        self.plan(Arc::new(config), None, true).await
    }

    /// The same of an earlier revision; `None`: of the one in force before the present one.
    ///
    /// # Errors
    /// As [`RulesBook::plan_of_file`]; `Config` where there is no such revision.
    pub async fn plan_of_revision(&self, number: Option<u64>) -> Result<Plan> {
        self.refresh().await?;
        let revisions = self.revisions();
        let found = match number {
            Some(number) => revisions.iter().find(|revision| revision.number == number),
            None => in_force(&revisions).nth(1),
        };
        let Some(found) = found else {
            return Err(match number {
                Some(number) => Error::config("there is no such revision of the rules")
                    .with("revision", number)
                    .remedy("`binlake rules` lists them"),
                None => Error::config("there is no revision before the one in force").remedy("`binlake rules` lists them"),
            });
        };
        let config = self.own().with_rules(&text_of(found)?)?;
        self.plan(Arc::new(config), Some(found.number), true).await
    }

    async fn plan(&self, config: Arc<Config>, of: Option<u64>, strictly: bool) -> Result<Plan> {
        let against = self.newest();
        let before = self.config_of(against)?;
        let differences = before.rules_text().differences(config.rules_text());
        if !differences.is_empty() {
            check(&before, &config, self.lake(), strictly).await?;
        }
        Ok(Plan { against, differences, config, of })
    }

    /// Asks for what was planned; gives the revision's number.
    ///
    /// # Errors
    /// `Conflict` if another proposal waits, or something else took effect since the plan was made.
    pub async fn propose(&self, plan: &Plan, author: &str, origin: &str) -> Result<u64> {
        self.refresh().await?;
        if let Some(waiting) = self.proposal() {
            return Err(conflict("another revision waits to take effect", waiting)
                .remedy("wait until `binlake rules` shows that it is decided: the service takes it up"));
        }
        if self.newest() != plan.against {
            return Err(conflict("other rules took effect meanwhile", self.newest()).remedy("do it again"));
        }
        let origin = plan.of.map_or_else(|| origin.to_owned(), |of| format!("revision {of}"));
        let revision = self.revision_of(&plan.config, plan.shown(), author, &origin)?;
        let number = self.add(revision).await?;
        self.keep(number).await;
        Ok(number)
    }

    fn revision_of(&self, config: &Config, difference: String, author: &str, origin: &str) -> Result<RulesRevision> {
        let text = config.rules_text();
        let content = serde_json::to_string(text).map_err(|error| Error::bug("rules can't be written").caused_by(error))?;
        let number = self.revisions().last().map_or(1, |last| last.number + 1);
        let proposal = RulesRevision::proposal(self.pipeline(), number, author, origin);
        Ok(RulesRevision { content, hash: text.hash(), difference, ..proposal })
    }

    async fn add(&self, revision: RulesRevision) -> Result<u64> {
        let number = revision.number;
        if !self.state().add_rules(&revision).await? {
            return Err(conflict("another has proposed rules at the same moment", number).remedy("do it again"));
        }
        self.refresh().await?;
        Ok(number)
    }

    /// Waits for what becomes of a revision, so long at most.
    ///
    /// # Errors
    /// If the state store can't be read.
    pub async fn outcome(&self, number: u64, patience: Duration) -> Result<Outcome> {
        let until = Instant::now() + patience;
        loop {
            self.refresh().await?;
            let found = self.revisions().into_iter().find(|revision| revision.number == number);
            match found {
                Some(revision) if revision.status == RulesStatus::InForce => return Ok(Outcome::InForce(revision)),
                Some(revision) if revision.status == RulesStatus::Refused => return Ok(Outcome::Refused(revision)),
                _ if Instant::now() >= until => return Ok(Outcome::Waiting),
                _ => tokio::time::sleep(LOOK_INTERVAL).await,
            }
        }
    }

    /// Notes that a file's rules were asked for: they aren't new to the next start with it.
    ///
    /// # Errors
    /// If the state store can't be written.
    pub async fn note_file(&self) -> Result<()> {
        let name = file_note(&self.own().file);
        self.state().note_rules(self.pipeline(), &name, &self.own().rules_text().hash()).await
    }

    /// A service begins: the first writes down its file's rules; later ones propose them if the file was edited since. Else the last revision counts.
    pub(in crate::pipeline) async fn begin(&self, log: &Arc<dyn EventLog>) -> Result<()> {
        if !self.is_leading() {
            self.say_what_counts();
            return Ok(());
        }
        self.decide_what_counts(log).await?;
        self.keep_all().await
    }

    async fn decide_what_counts(&self, log: &Arc<dyn EventLog>) -> Result<()> {
        let own = self.own().clone();
        let base = serde_json::to_string(&own.base_values()).unwrap_or_default();
        self.state().note_rules(self.pipeline(), SERVICE, &base).await?;
        let origin = origin_of(&own.file);
        let revisions = self.revisions();
        let Some(newest) = revisions.iter().rev().find(|revision| revision.status != RulesStatus::Refused) else {
            return self.begin_history(log, &origin).await;
        };
        let hash = own.rules_text().hash();
        let seen = self.state().rules_note(self.pipeline(), &file_note(&own.file)).await?;
        let was_seen = seen.as_ref().map_or_else(|| revisions.iter().any(|known| known.hash == hash), |seen| *seen == hash);
        if newest.hash == hash || was_seen {
            self.note_file().await?;
            self.say_what_counts();
            return Ok(());
        }
        if is_outdated(&own) {
            tracing::info!("the file is another now than when this process read it: the rules in force count");
            self.say_what_counts();
            return Ok(());
        }
        let plan = match self.plan(own.clone(), None, false).await {
            // the source is away: the capture asks it when it is back
            Err(error) if error.is_transient() => {
                let before = self.config_of(self.newest())?;
                let differences = before.rules_text().differences(own.rules_text());
                Plan { against: self.newest(), differences, config: own.clone(), of: None }
            }
            // what was in force can't be used here any more: only the file can
            Err(error) if self.config_of(self.newest()).is_err() => {
                tracing::warn!(%error, "the rules in force can't be used any more; the file's follow");
                Plan { against: self.newest(), differences: Vec::new(), config: own.clone(), of: None }
            }
            planned => planned?,
        };
        if let Some(waiting) = self.proposal() {
            self.refuse(waiting, &Error::config("the file was edited before it took effect")).await;
        }
        let revision = self.revision_of(&plan.config, plan.shown(), &user(), &origin)?;
        let number = self.add(revision).await?;
        self.proposed_by_us(number);
        self.note_file().await?;
        tracing::info!(revision = number, "the file was edited since the last start: its rules are proposed");
        Ok(())
    }

    /// The first revision of a pipeline. Where the stream has had others, the store was lost: the numbers go on above them.
    async fn begin_history(&self, log: &Arc<dyn EventLog>, origin: &str) -> Result<()> {
        let mut first = self.revision_of(self.own(), String::new(), &user(), origin)?;
        let last = if self.own().has_source() { find_last_cut(log.as_ref()).await?.cut } else { None };
        match last.as_ref().and_then(|(_, cut)| self.of_cut(cut.rules.as_ref())) {
            Some(CutRules { revision, .. }) => {
                first.number = first.number.max(revision + 1);
                tracing::warn!(
                    revision = first.number,
                    "the state store has lost the rules that the stream names: the file's are proposed"
                );
            }
            None if self.revisions().is_empty() => {
                if let Some(before) = self.of_lost_stream(&file_note(&self.own().file)).await? {
                    tracing::warn!(
                        revision = before.number,
                        "the stream is another than before: the rules that were in force there count, not the file's"
                    );
                    (first.origin, first.difference) = (format!("revision {} of the stream before", before.number), String::new());
                    (first.content, first.hash) = (before.content, before.hash);
                }
                first = first.decided(RulesDecision::InForce { since: None, position: None });
                // the capture asks the same; rules that it refuses never counted
                ensure_first_fits(self.own()).await?;
            }
            None => {}
        }
        // another may begin at the same moment
        if !self.state().add_rules(&first).await? {
            tracing::info!("another process has written down the pipeline's rules");
        }
        self.refresh().await?;
        self.note_file().await
    }

    fn say_what_counts(&self) {
        let newest = self.newest();
        let Ok(config) = self.config_of(newest) else { return };
        if newest > 1 || config.rules_text().hash() != self.own().rules_text().hash() {
            let own_hash = self.own().rules_text().hash();
            let waiting = self.proposal().and_then(|number| self.revision(number));
            let file = if config.rules_text().hash() == own_hash {
                "the same"
            } else if waiting.is_some_and(|waiting| waiting.hash == own_hash) {
                "those that are proposed: they count from a cut soon to come"
            } else {
                "others: they don't count; `binlake apply` makes them count"
            };
            tracing::info!(revision = newest, file, "the rules of the last revision count");
        }
    }
}

/// Whether the file is no longer what this process read, which may have been long ago: a capture that stood by. What was edited since was applied, or waits for
/// the next start with it.
fn is_outdated(own: &Config) -> bool {
    let now = Config::load(Some(&own.file), Needs::All);
    now.is_ok_and(|now| now.rules_text().hash() != own.rules_text().hash())
}

fn conflict(what: &'static str, revision: u64) -> Error {
    Error::new(Area::Config, Kind::Conflict, what).with("revision", revision)
}

fn absolute(file: &Path) -> PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}

fn file_note(file: &Path) -> String {
    format!("file:{}", absolute(file).display())
}

/// Where a file's rules come from, for people.
pub fn origin_of(file: &Path) -> String {
    format!("file {}", absolute(file).display())
}

/// Who works here: user@host.
pub fn user() -> String {
    let name = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    format!("{}@{}", name.unwrap_or_else(|| "unknown".to_owned()), host())
}
