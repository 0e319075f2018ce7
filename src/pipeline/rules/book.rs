//! A process's view of its pipeline's revisions: what is in force where, what is asked for, and the configurations that they make.

use super::behind::in_force;
use super::generation::Generation;
use crate::config::{Config, RulesText};
use crate::error::{Area, Error, Kind, Result};
use crate::event::{CutPoint, CutRules};
use crate::merge::TableRules;
use crate::pipeline::lookups::keep_lookups;
use crate::pipeline::requests::Requests;
use crate::pipeline::run::{Halves, Opened, open_stream_to_read};
use crate::pipeline::share::pipeline_name;
use crate::pipeline::status::Status;
use crate::state::{RulesRevision, RulesStatus, StateStore};
use crate::table::Lake;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// How often the state store is looked at: one small read.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// So many revisions back it is looked: when a table came, which deliveries went.
pub(in crate::pipeline) const MOST_BEFORE: usize = 8;

/// See the module's documentation; clones share it.
#[derive(Debug, Clone)]
pub struct RulesBook {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: StateStore,
    pipeline: String,
    lake: Lake,
    /// As the process's file has it.
    own: Arc<Config>,
    /// Whether this process's file is the pipeline's: a merge beside a capture follows what the capture says.
    is_leading: bool,
    revisions: Mutex<Vec<RulesRevision>>,
    configs: Mutex<BTreeMap<u64, Arc<Config>>>,
    generations: Mutex<BTreeMap<u64, Weak<Generation>>>,
    /// The newest revision that is in force.
    newest: watch::Sender<u64>,
    /// What this process's start has proposed itself.
    own_proposal: Mutex<Option<u64>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RulesBook {
    /// The book of a pipeline whose stream and stores are open.
    pub(in crate::pipeline) async fn open(config: &Arc<Config>, opened: &Opened, halves: Halves) -> Result<Self> {
        let pipeline =
            if config.has_source() { pipeline_name(opened.log.as_ref(), &opened.lake) } else { opened.lake.url().to_owned() };
        let is_leading = halves != Halves::Merge || !config.has_source();
        Self::over(config.clone(), opened.state.clone(), opened.lake.clone(), pipeline, is_leading).await
    }

    /// The book of a pipeline that may run elsewhere.
    ///
    /// # Errors
    /// `Refused` where the pipeline never ran: its service takes the file's rules when it starts.
    pub async fn look_into(config: Arc<Config>) -> Result<Self> {
        config.ensure_rules_apart()?;
        let lake = Lake::create(&config.lake.url)?;
        let pipeline = match open_stream_to_read(&config).await? {
            Some(log) if config.has_source() => pipeline_name(log.as_ref(), &lake),
            None if config.has_source() => return Err(never_ran(&config)),
            _ => lake.url().to_owned(),
        };
        let state = StateStore::open(&config.state).await?;
        let book = Self::over(config, state, lake, pipeline, true).await?;
        if book.revisions().is_empty() {
            return Err(never_ran(&book.inner.own));
        }
        Ok(book)
    }

    async fn over(config: Arc<Config>, state: StateStore, lake: Lake, pipeline: String, is_leading: bool) -> Result<Self> {
        let inner = Inner {
            state,
            pipeline,
            lake,
            own: config,
            is_leading,
            revisions: Mutex::default(),
            configs: Mutex::default(),
            generations: Mutex::default(),
            newest: watch::Sender::new(0),
            own_proposal: Mutex::default(),
        };
        let book = Self { inner: Arc::new(inner) };
        book.refresh().await?;
        book.recover().await?;
        Ok(book)
    }

    /// The configuration of this process's file.
    pub(super) fn own(&self) -> &Arc<Config> {
        &self.inner.own
    }

    pub(super) fn lake(&self) -> &Lake {
        &self.inner.lake
    }

    pub(super) fn state(&self) -> &StateStore {
        &self.inner.state
    }

    pub(super) fn pipeline(&self) -> &str {
        &self.inner.pipeline
    }

    pub(super) fn is_leading(&self) -> bool {
        self.inner.is_leading
    }

    pub(super) fn proposed_by_us(&self, number: u64) {
        *locked(&self.inner.own_proposal) = Some(number);
    }

    /// Whether this process's own start asked for the revision: then its failure is the start's.
    pub(in crate::pipeline) fn is_own_proposal(&self, number: u64) -> bool {
        *locked(&self.inner.own_proposal) == Some(number)
    }

    /// All revisions, as far as they were read.
    pub fn revisions(&self) -> Vec<RulesRevision> {
        locked(&self.inner.revisions).clone()
    }

    /// The newest revision in force; 0: the file's rules count.
    pub fn newest(&self) -> u64 {
        *self.inner.newest.borrow()
    }

    /// Told when a revision is in force.
    pub(in crate::pipeline) fn newest_changes(&self) -> watch::Receiver<u64> {
        self.inner.newest.subscribe()
    }

    /// Reads all revisions.
    ///
    /// # Errors
    /// If the state store can't be read.
    pub async fn refresh(&self) -> Result<()> {
        let revisions = self.inner.state.rules(&self.inner.pipeline).await?;
        let newest = in_force(&revisions).next().map_or(0, |revision| revision.number);
        *locked(&self.inner.revisions) = revisions;
        self.inner.newest.send_if_modified(|known| std::mem::replace(known, newest) != newest);
        Ok(())
    }

    /// A decision that the store has, or doesn't have yet.
    pub(super) fn know(&self, decided: RulesRevision) {
        let mut revisions = locked(&self.inner.revisions);
        revisions.iter_mut().filter(|revision| revision.number == decided.number).for_each(|revision| *revision = decided.clone());
        let newest = in_force(&revisions).next().map_or(0, |revision| revision.number);
        drop(revisions);
        self.inner.newest.send_replace(newest);
    }

    /// Reads them if there is something new.
    async fn look(&self) -> Result<()> {
        let newest = self.inner.state.newest_rules(&self.inner.pipeline).await?;
        let known = locked(&self.inner.revisions).last().map(|revision| (revision.number, revision.status));
        if newest == known || newest.map(|(number, _)| number) < known.map(|(number, _)| number) {
            return Ok(());
        }
        self.refresh().await
    }

    /// Looks at the store for as long as the service runs: has the capture take up what is proposed; without a source it is in force at once.
    pub(in crate::pipeline) async fn watch(self, requests: Requests) {
        // what waited before is seen by the capture when it begins
        let mut told = self.proposal();
        loop {
            let proposal = self.proposal();
            if let Some(number) = proposal.filter(|_| !self.inner.own.has_source()) {
                self.took_effect(number, None, None).await;
            } else if proposal.is_some() && proposal != told {
                requests.ask_for_rules();
                told = proposal;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "the rules can't be looked at");
            }
        }
    }

    /// The revision that is asked for and undecided.
    pub(in crate::pipeline) fn proposal(&self) -> Option<u64> {
        locked(&self.inner.revisions).last().filter(|newest| newest.status == RulesStatus::Proposed).map(|newest| newest.number)
    }

    pub(super) fn revision(&self, number: u64) -> Option<RulesRevision> {
        locked(&self.inner.revisions).iter().find(|revision| revision.number == number).cloned()
    }

    /// What a cut says of this pipeline's rules.
    pub(in crate::pipeline) fn of_cut<'a>(&self, rules: Option<&'a CutRules>) -> Option<&'a CutRules> {
        rules.filter(|rules| rules.lake == self.inner.lake.url())
    }

    /// The lake, as cuts name it.
    pub(in crate::pipeline) fn lake_url(&self) -> &str {
        self.inner.lake.url()
    }

    /// The revisions that may count where a loop begins, newest first, each with the cut since which it does. The last counts from the beginning.
    pub(in crate::pipeline) fn candidates(&self) -> Vec<(u64, Option<CutPoint>)> {
        let revisions = locked(&self.inner.revisions);
        let mut found: Vec<_> = Vec::new();
        for revision in in_force(&revisions) {
            found.push((revision.number, revision.since));
            if revision.since.is_none() {
                return found;
            }
        }
        found.push((0, None));
        found
    }

    /// The configuration that a revision makes.
    ///
    /// # Errors
    /// `Config`: what keeps its rules from being used here.
    pub(in crate::pipeline) fn config_of(&self, number: u64) -> Result<Arc<Config>> {
        if let Some(config) = locked(&self.inner.configs).get(&number) {
            return Ok(config.clone());
        }
        let own = &self.inner.own;
        let Some(revision) = self.revision(number) else {
            if number > 0 {
                tracing::warn!(revision = number, "the state store doesn't know the rules that the stream names; the file's count");
            }
            return Ok(own.clone());
        };
        let own_hash = own.rules_text().hash();
        // a merge whose file was never the pipeline's goes by it until rules are changed
        let is_of_its_own = !self.is_leading() && !self.revisions().iter().any(|other| other.hash == own_hash);
        let is_first = self.candidates().last().is_some_and(|(first, _)| *first == number);
        let config = if revision.hash == own_hash || (is_first && is_of_its_own) {
            own.clone()
        } else {
            Arc::new(own.with_rules(&text_of(&revision)?).map_err(|error| error.with("revision", number))?)
        };
        locked(&self.inner.configs).insert(number, config.clone());
        Ok(config)
    }

    /// The configuration of the revision that was in force before this one.
    pub(in crate::pipeline) fn config_before(&self, number: u64) -> Result<Arc<Config>> {
        let before = self.candidates().into_iter().map(|(other, _)| other).find(|other| *other < number);
        self.config_of(before.unwrap_or(0))
    }

    /// The source's tables by a revision and by those before it, as far as they can still be read, newest first, with the cuts since which they count.
    pub(in crate::pipeline) fn tables_before(&self, number: u64) -> Vec<(Option<CutPoint>, Arc<TableRules>)> {
        let known = self.candidates().into_iter().filter(|(other, _)| *other <= number).take(MOST_BEFORE);
        known.map_while(|(other, since)| Some((since, Arc::new(self.config_of(other).ok()?.tables.clone())))).collect()
    }

    /// The same by the newest revision and those before it.
    pub(in crate::pipeline) fn source_rules(&self) -> Vec<Arc<TableRules>> {
        self.tables_before(self.newest()).into_iter().map(|(_, rules)| rules).collect()
    }

    /// A revision at work; loops that go by it share it.
    pub(in crate::pipeline) fn generation(&self, number: u64, status: &Status) -> Result<Arc<Generation>> {
        let config = self.config_of(number)?;
        let mut generations = locked(&self.inner.generations);
        if let Some(known) = generations.get(&number).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let generation = Arc::new(Generation {
            revision: number,
            tables: Arc::new(config.tables.clone()),
            _lookups: keep_lookups(&config, &self.inner.lake, status),
            config,
        });
        generations.insert(number, Arc::downgrade(&generation));
        Ok(generation)
    }
}

/// The rules of a revision.
pub(super) fn text_of(revision: &RulesRevision) -> Result<RulesText> {
    serde_json::from_str(&revision.content).map_err(|error| {
        Error::new(Area::Config, Kind::Corrupt, "a revision of the rules in the state store can't be read")
            .caused_by(error)
            .with("revision", revision.number)
            .remedy("apply the configuration again")
    })
}

fn never_ran(config: &Config) -> Error {
    Error::new(Area::Config, Kind::Refused, "no service has run with this configuration yet, so there are no rules to change")
        .with("stream", &config.stream.url)
        .with("state", &config.state.url)
        .remedy("start `binlake run`: it takes the rules of its file")
}
