//! ④ What rows are joined with: small tables of other systems, kept in memory and read again when they change.
//!
//! A [`Lookup`] is one `[lookup.NAME]`: where its items are, what types they have, and its [`Content`] as it was read last. Content is read whole
//! and put in the place of the one before at once, so a micro-batch sees one content from its first row to its last, and the next one the newest.
//! What can't be read leaves the content of before in use, older by the minute, which the metrics and the status show: an item that can't be read
//! is never taken for one that isn't there.

mod config;
mod content;
mod get;
mod items;
mod keep;
mod key_text;
mod read;
mod ring;
mod typed;

pub use config::{Duplicates, LookupConfig, LookupUrl, Missing, Mode, OnChange};
pub use content::{Content, Item};
pub use get::LookupKey;
pub use items::ItemColumns;
pub use keep::keep_fresh;
pub use read::{ItemValue, Items};
pub use ring::leads_to;
pub use typed::lake_type;

use crate::error::{Area, Error, Kind, Result};
use crate::event::TableId;
use crate::metrics as names;
use crate::time::Timestamp;
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use get::Getter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Notify;

/// One lookup: its configuration, and its items as they were read last.
#[derive(Debug)]
pub struct Lookup {
    name: String,
    config: LookupConfig,
    content: RwLock<Option<Arc<Content>>>,
    hits: AtomicU64,
    misses: AtomicU64,
    failure: RwLock<Option<String>>,
    read_at: RwLock<Option<Timestamp>>,
    /// With `mode = "get"`, once it is open.
    getter: OnceLock<Getter>,
    /// Of a table: the items as of one of its commits.
    at_commit: Mutex<Option<(String, Arc<Content>)>>,
    /// Told when there is something new to read.
    has_news: Notify,
}

/// How a lookup does, for the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupHealth {
    /// Its name.
    pub name: String,
    /// Where its items are.
    pub url: String,
    /// Items in it; `None`: it has not been read yet.
    pub items: Option<usize>,
    /// When it was read last.
    pub read_at: Option<Timestamp>,
    /// Rows that found their item, since the start.
    pub hits: u64,
    /// Rows that didn't.
    pub misses: u64,
    /// Why it could not be read the last time.
    pub failure: Option<String>,
}

impl Lookup {
    /// A lookup that has not been read yet.
    pub fn new(name: impl Into<String>, config: LookupConfig) -> Self {
        Self {
            name: name.into(),
            config,
            content: RwLock::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            failure: RwLock::default(),
            read_at: RwLock::default(),
            getter: OnceLock::new(),
            at_commit: Mutex::default(),
            has_news: Notify::new(),
        }
    }

    /// A table has a commit: where this lookup's items are its rows, and rows are joined with them anew, they are read now.
    pub fn table_changed(&self, table: &TableId) {
        if self.config.on_change == OnChange::Reapply && self.config.url == LookupUrl::Table(table.clone()) {
            self.has_news.notify_one();
        }
    }

    /// The pause before the items are looked at again: at most so long.
    pub(super) async fn rest(&self, pause: Duration) {
        let _ = tokio::time::timeout(pause, self.has_news.notified()).await;
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its configuration.
    pub fn config(&self) -> &LookupConfig {
        &self.config
    }

    /// Its columns: the declared ones, else those of the content; `None`: not known yet.
    pub fn columns(&self) -> Option<SchemaRef> {
        match self.content() {
            Some(content) => Some(content.rows().schema()),
            None => self.config.declared(),
        }
    }

    /// Whether rows can be joined with it: it was read, or its items can be got.
    pub fn is_ready(&self) -> bool {
        match self.config.mode {
            Mode::Scan => self.content().is_some(),
            Mode::Get => self.getter.get().is_some(),
        }
    }

    /// Whether its items are got key by key.
    pub fn is_got(&self) -> bool {
        self.config.mode == Mode::Get
    }

    /// Makes ready what gets items.
    pub(super) async fn open_getter(&self) -> Result<()> {
        if let (LookupUrl::DynamoDb(url), None) = (&self.config.url, self.getter.get()) {
            let getter = Getter::open(url, self.config.cache_items, self.config.refresh).await?;
            let _ = self.getter.set(getter);
        }
        *self.read_at.write().unwrap_or_else(PoisonError::into_inner) = Some(Timestamp::now());
        *self.failure.write().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    /// The items that there are for these values of the columns `names`. Blocks: not for the runtime's own threads.
    ///
    /// # Errors
    /// `Transient` if they can't be got now, `Data` if `names` isn't the table's key or an item doesn't fit its columns.
    pub fn get(&self, names: &[&str], keys: &[LookupKey]) -> Result<Arc<Content>> {
        let getter = self
            .getter
            .get()
            .ok_or_else(|| Error::new(Area::Lake, Kind::Transient, "a lookup is not open yet").with("lookup", &self.name))?;
        let places: Option<Vec<usize>> = getter.key().map(|name| names.iter().position(|other| *other == name)).collect();
        let places = places.filter(|places| places.len() == names.len()).ok_or_else(|| {
            Error::new(Area::Lake, Kind::Data, "a lookup whose items are got one by one is joined by its key")
                .with("lookup", &self.name)
                .with("key", getter.key().collect::<Vec<_>>().join(","))
                .remedy("join it ON all columns of its key, or read it whole (`mode = \"scan\"`)")
        })?;
        let keys: Vec<LookupKey> = keys.iter().map(|key| places.iter().map(|&i| key[i].clone()).collect()).collect();
        let items = getter.get(&keys).map_err(|error| error.with("lookup", &self.name))?;
        self.content_of(&items).map(Arc::new)
    }

    /// Of a table: the items as of the commit `version`, if they are kept.
    pub fn content_at(&self, version: &str) -> Option<Arc<Content>> {
        let kept = self.at_commit.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|(known, _)| known == version).map(|(_, content)| content.clone())
    }

    /// Of a table: takes the items as of the commit `version`, and keeps them.
    pub fn keep_at(&self, version: &str, content: Content, read_at: Timestamp) -> Arc<Content> {
        // who asks without naming a commit is never given older items
        let content = self.replace(content, read_at);
        let mut kept = self.at_commit.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some((version.to_owned(), content.clone()));
        content
    }

    /// Of a table: something else than its changes was done to it, and its last commit is called as the one before.
    pub fn forget_commit(&self) {
        *self.at_commit.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What was read last.
    pub fn content(&self) -> Option<Arc<Content>> {
        self.content.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes what was read at `read_at`.
    pub fn replace(&self, content: Content, read_at: Timestamp) -> Arc<Content> {
        *self.failure.write().unwrap_or_else(PoisonError::into_inner) = None;
        *self.read_at.write().unwrap_or_else(PoisonError::into_inner) = Some(read_at);
        metrics::gauge!(names::LOOKUP_READ_TIME, "lookup" => self.name.clone()).set(read_at.as_micros() as f64 / 1e6);
        let mut kept = self.content.write().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            // what was made of the same items stays useful
            Some(kept) if kept.rows() == content.rows() => kept.clone(),
            _ => kept.insert(Arc::new(content)).clone(),
        }
    }

    /// What was read last is known to be what is there now.
    pub fn is_fresh(&self) {
        let now = Timestamp::now();
        *self.read_at.write().unwrap_or_else(PoisonError::into_inner) = Some(now);
        metrics::gauge!(names::LOOKUP_READ_TIME, "lookup" => self.name.clone()).set(now.as_micros() as f64 / 1e6);
    }

    /// Notes why it could not be read.
    pub fn failed(&self, why: String) {
        *self.failure.write().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    /// What becomes of two items with one join key.
    pub fn duplicates(&self) -> Duplicates {
        self.config.duplicates
    }

    /// What becomes of a row without an item.
    pub fn missing(&self) -> Missing {
        self.config.missing
    }

    /// What becomes of rows that were joined with an item that changes.
    pub fn on_change(&self) -> OnChange {
        self.config.on_change
    }

    /// Notes rows that found their item, and rows that didn't.
    pub fn count(&self, hits: u64, misses: u64) {
        self.hits.fetch_add(hits, Ordering::Relaxed);
        self.misses.fetch_add(misses, Ordering::Relaxed);
    }

    /// How it does.
    pub fn health(&self) -> LookupHealth {
        let content = self.content();
        LookupHealth {
            name: self.name.clone(),
            url: self.config.url.to_string(),
            items: content.as_ref().map(|content| content.rows().num_rows()),
            read_at: *self.read_at.read().unwrap_or_else(PoisonError::into_inner),
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            failure: self.failure.read().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Content made of items, with the columns that the lookup has.
    ///
    /// # Errors
    /// `Data` if a value doesn't fit its column.
    pub fn content_of(&self, items: &[Item]) -> Result<Content> {
        let pinned = self.content().and_then(|content| content.kinds().cloned());
        let columns = match (&self.config.columns, pinned) {
            (Some(declared), _) => ItemColumns::declared(declared.clone()),
            (None, Some(pinned)) => pinned.with_more(items),
            (None, None) => ItemColumns::inferred(items),
        };
        columns.content(&self.name, items)
    }

    /// No items, in the declared columns.
    ///
    /// # Errors
    /// `Data` if a declared column can't be one.
    pub fn without_items(&self) -> Result<Content> {
        let columns = self.config.declared().unwrap_or_else(|| Arc::new(Schema::empty()));
        Ok(Content::new(RecordBatch::new_empty(columns), None))
    }

    /// The same of rows that come with types.
    ///
    /// # Errors
    /// `Data` if a column doesn't have its declared type.
    pub fn content_of_rows(&self, rows: &RecordBatch) -> Result<Content> {
        typed::typed(&self.name, self.config.columns.as_deref(), rows)
    }
}
