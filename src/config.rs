//! `binlake.toml`: composes the rooms' own configuration and says where in the file a value is wrong.
//!
//! Reading takes four steps: parse TOML with the place of each value; refuse keys that only a later version knows; expand `${VAR}` and
//! `${file:/path}` in every string; give the values to the rooms' structs, which check them. An error names the file, the line and the key.
//! Paths in the file are relative to the file's own folder, so that every command finds the same lake from any working directory.

mod delivered;
mod document;
mod expand;
mod lake_names;
mod rings;
mod rules;
mod rules_text;
mod shown;
mod table_section;
mod tree;

pub use delivered::Delivered;
pub use rules::{BaseValues, ensure_same_base};
pub use rules_text::RulesText;
pub use shown::{in_terminal_lines, shown_differences};
pub use table_section::{FedTable, FeedFormat};
pub use tree::Difference;

use crate::admin::AdminConfig;
use crate::deliver::DeliverConfig;
use crate::error::{Error, Result};
use crate::event::TableId;
use crate::lookup::{Lookup, LookupConfig, LookupUrl};
use crate::merge::{ChildShape, LakeShape, TableRule, TableRules};
use crate::publish::CatalogConfig;
use crate::source::SourceConfig;
use crate::state::{ScaleRule, StateConfig, StateUrl};
use crate::stream::{RecordStreamUrl, StreamConfig, StreamUrl};
use crate::table::{LakeConfig, LakeUrl};
use crate::transform::Transform;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use table_section::TableEntry;

/// The file that is read where no other is named.
pub const DEFAULT_FILE: &str = "binlake.toml";

/// All of `binlake.toml`.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that it was read from.
    pub file: PathBuf,
    /// `[source]`; without tables of a source it may be missing, and then stands for nothing.
    pub source: SourceConfig,
    /// `[stream]`.
    pub stream: StreamConfig,
    /// `[lake]`.
    pub lake: LakeConfig,
    /// `[state]`.
    pub state: StateConfig,
    /// `[admin]`.
    pub admin: AdminConfig,
    /// `[catalog]`, where tables are registered for other engines.
    pub catalog: Option<CatalogConfig>,
    /// `[[table]]` of the source.
    pub tables: TableRules,
    /// `[[table]]` with `stream`: fed by streams that others write.
    pub fed: Vec<FedTable>,
    /// `[lookup.NAME]`.
    pub lookups: BTreeMap<String, Arc<Lookup>>,
    /// `[[deliver]]`.
    pub deliver: Vec<Delivered>,
    /// `[[scale]]`.
    pub scale: Vec<ScaleRule>,
    /// The sections that can be changed while the service runs, as text, …
    rules: RulesText,
    /// … and the others.
    base: String,
    /// What it was read for.
    needs: Needs,
}

/// The file's sections, as serde sees them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sections {
    source: Option<SourceConfig>,
    #[serde(default)]
    stream: StreamConfig,
    #[serde(default)]
    lake: LakeConfig,
    #[serde(default)]
    state: StateConfig,
    #[serde(default)]
    admin: AdminConfig,
    catalog: Option<CatalogConfig>,
    #[serde(default)]
    table: Vec<TableEntry>,
    #[serde(default)]
    lookup: BTreeMap<String, LookupConfig>,
    #[serde(default)]
    deliver: Vec<DeliverConfig>,
    #[serde(default)]
    scale: Vec<ScaleRule>,
}

/// What a command needs of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// All of it.
    All,
    /// The lake alone: a `${VAR}` outside of `[lake]` may be unset, so that one can query without the source's password.
    Lake,
}

impl Config {
    /// Reads `file`; `None`: `./binlake.toml`.
    pub fn load(file: Option<&Path>, needs: Needs) -> Result<Self> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let text = std::fs::read_to_string(path).map_err(|error| {
            let remedy = match file {
                None => "write one (the README shows four lines that do), or name yours with -c FILE",
                Some(_) => "name an existing file with -c FILE",
            };
            Error::config("the configuration can't be read").caused_by(error).with("file", path.display()).remedy(remedy)
        })?;
        Self::parse(path, &text, needs, &|name| std::env::var(name).ok())
    }

    /// What is said of a table that a stream of others feeds; `None`: it is none.
    pub fn fed_table(&self, table: &TableId) -> Option<&FedTable> {
        self.fed.iter().find(|fed| fed.table == *table)
    }

    /// The rule of a table, be it of the source or fed.
    pub fn rule_of(&self, table: &TableId) -> Option<&TableRule> {
        self.fed_table(table).map(|fed| &fed.rule).or_else(|| self.tables.rule_for(table))
    }

    /// The columns of a table's key, as far as the rules say.
    pub fn key_of(&self, table: &TableId) -> &[String] {
        self.rule_of(table).map(|rule| rule.key.as_slice()).unwrap_or_default()
    }

    /// Reads the text of the file `path`; `variable` gives the value of an environment variable.
    pub fn parse(path: &Path, text: &str, needs: Needs, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        Self::parse_with(path, text, needs, variable, None)
    }

    /// The same; `mappings` are the texts of the deliveries' mapping files, where these aren't to be read.
    fn parse_with(
        path: &Path,
        text: &str,
        needs: Needs,
        variable: &dyn Fn(&str) -> Option<String>,
        mappings: Option<&[String]>,
    ) -> Result<Self> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let document = document::Document::parse(path, text)?;
        let sections: Sections = document.expand(folder, needs, variable)?.read()?;
        let (mut tables, mut fed) = (Vec::new(), Vec::new());
        for entry in sections.table {
            match entry {
                TableEntry::Source(rule) => tables.push(*rule),
                TableEntry::Fed(table) => fed.push(*table),
            }
        }
        let source = match sections.source {
            Some(source) => source,
            None if tables.is_empty() && sections.deliver.is_empty() && !fed.is_empty() => SourceConfig::none()?,
            None => {
                return Err(Error::config("`source` is missing")
                    .with("key", "source")
                    .with("file", path.display())
                    .remedy("add [source] with url = …, and source = … to each [[table]]"));
            }
        };
        let read = |(i, one)| Delivered::read(one, folder, mappings.and_then(|mappings: &[String]| mappings.get(i)));
        let deliver: Vec<Delivered> = match needs {
            Needs::All => sections.deliver.into_iter().enumerate().map(read).collect::<Result<_>>()?,
            // who only reads the lake needn't have the mappings
            Needs::Lake => sections.deliver.into_iter().enumerate().filter_map(|one| read(one).ok()).collect(),
        };
        let mut config = Self {
            rules: RulesText::of(text, deliver.iter().map(|one| one.mapping_text.clone()).collect()),
            base: rules_text::Parts::of(text).base,
            needs,
            file: path.to_owned(),
            source,
            stream: sections.stream,
            lake: sections.lake,
            state: sections.state,
            admin: sections.admin,
            catalog: sections.catalog,
            tables: TableRules::new(tables),
            fed,
            lookups: lookups(sections.lookup, folder),
            deliver,
            scale: sections.scale,
        };
        config.resolve_paths(folder);
        config.attach_lookups().map_err(|error| error.with("key", "table.transform").with("file", path.display()))?;
        if needs == Needs::All {
            config.check_deliveries().map_err(|error| error.with("file", path.display()))?;
        }
        config.check(path)?;
        Ok(config)
    }

    /// Whether there are tables of a source: without, nothing is captured, and `[source]` and `[stream]` stand for nothing.
    pub fn has_source(&self) -> bool {
        !self.tables.rules().is_empty() || !self.deliver.is_empty()
    }

    /// The error of a command that is about a source's tables, where there are none.
    ///
    /// # Errors
    /// `Config`: all tables are fed by streams.
    pub fn ensure_source(&self, what: &'static str, remedy: &'static str) -> Result<()> {
        if self.has_source() {
            return Ok(());
        }
        Err(Error::config(what).with("file", self.file.display()).remedy(remedy))
    }

    fn resolve_paths(&mut self, folder: &Path) {
        let resolve = |path: &mut PathBuf| *path = clean(&folder.join(&*path));
        self.source.resolve_paths(folder);
        if let StreamUrl::File(stream) = &mut self.stream.url {
            resolve(stream);
        }
        for fed in &mut self.fed {
            if let RecordStreamUrl::JsonLines(lines) = &mut fed.stream {
                resolve(lines);
            }
        }
        if let StateUrl::Sqlite(state) = &mut self.state.url {
            resolve(state);
        }
        if let LakeUrl::File(lake) = &mut self.lake.url {
            resolve(lake);
        }
        resolve(&mut self.lake.spill_dir);
    }

    /// Gives the transforms the lookups that they join, and checks them as far as their tables' columns are known.
    fn attach_lookups(&mut self) -> Result<()> {
        let rules = self.tables.rules_mut().iter_mut().chain(self.fed.iter_mut().map(|fed| &mut fed.rule));
        for transform in rules.filter_map(|rule| rule.transform.as_mut()) {
            transform.attach(&self.lookups)?;
        }
        for fed in self.fed.iter().filter(|fed| !fed.columns.is_empty() && !fed.is_inferred) {
            let mut treatment = fed.rule.treatment();
            treatment.transform = treatment.transform.filter(Transform::is_known);
            let shape = LakeShape::treated(Arc::new(fed.declared_shape()), &treatment).map_err(Error::into_config)?;
            let is_known = fed.rule.transform.is_none() || treatment.transform.is_some();
            if is_known {
                ChildShape::all(&fed.rule.children.0, &shape, None).map_err(Error::into_config)?;
            }
            if let Some(history) = fed.rule.history.as_ref().filter(|_| is_known) {
                history.ensure_fits(&shape).map_err(Error::into_config)?;
            }
        }
        Ok(())
    }

    /// What no single value of a lookup shows.
    fn check_lookups(&self) -> Result<()> {
        for (name, lookup) in &self.lookups {
            if let Err((what, remedy)) = lookup.config().check() {
                return Err(Error::config(what)
                    .with("key", format!("lookup.{name}"))
                    .with("file", self.file.display())
                    .remedy(remedy));
            }
        }
        Ok(())
    }

    /// What no single value shows.
    fn check(&self, path: &Path) -> Result<()> {
        self.check_lookups()?;
        self.check_rings()?;
        self.check_lake_names()?;
        let wrong = |what: &'static str, key: &'static str, remedy: &'static str| {
            Err(Error::config(what).with("key", key).with("file", path.display()).remedy(remedy))
        };
        if self.tables.rules().is_empty() && self.fed.is_empty() && self.deliver.is_empty() {
            return wrong(
                "there is no [[table]] section, so nothing would be replicated",
                "table",
                "add [[table]] with source = \"database.*\"",
            );
        }
        if self.stream.lanes == 0 || self.stream.lanes > 1024 {
            return wrong("a stream has 1 to 1024 lanes", "stream.lanes", "leave it out for 16");
        }
        if self.stream.claim_check && matches!(self.stream.url, StreamUrl::File(_)) {
            return wrong(
                "claim checks are for streams that limit a record's size",
                "stream.claim_check",
                "leave it out: a stream in a folder takes large chunks",
            );
        }
        if self.stream.chunk_size.0 < 1024 {
            return wrong("a chunk has at least 1 KiB", "stream.chunk_size", "leave it out for 1MiB");
        }
        if self.source.snapshot_connections == 0 || self.source.snapshot_chunk_rows == 0 {
            return wrong(
                "a snapshot needs a connection and chunks of a row at least",
                "source.snapshot_connections",
                "leave it out for 4",
            );
        }
        if self.source.heartbeat_interval.is_zero() || self.source.heartbeat_interval >= self.source.read_timeout {
            return wrong(
                "heartbeats must come more often than a silent connection counts as dead",
                "source.heartbeat_interval",
                "set it well below source.read_timeout",
            );
        }
        if self.stream.cut_interval.is_zero() {
            return wrong("cuts need some time between them", "stream.cut_interval", "leave it out for 1s");
        }
        if self.scale.iter().any(|rule| rule.shards.is_none() && rule.workers.is_none()) {
            return wrong("a [[scale]] section asks for nothing", "scale", "add shards = … or workers = …");
        }
        if self.scale.iter().any(|rule| rule.shards == Some(0) || rule.workers == Some(0)) {
            return wrong("there is no less than one shard or worker", "scale", "write 1 or more");
        }
        if self.scale.iter().any(|rule| rule.shards.is_some()) && matches!(self.stream.url, StreamUrl::File(_)) {
            return wrong("a file: stream has no shards", "scale", "leave shards out of [[scale]]");
        }
        if self.state.lease_duration < std::time::Duration::from_secs(1) {
            return wrong("a lease lasts a second at least", "state.lease_duration", "leave it out for 10s");
        }
        if self.lake.commit_interval().is_zero() {
            return wrong("commits need some time between them", "lake.commit_interval", "write \"1s\" or more");
        }
        if self.catalog.is_some() && matches!(self.lake.url, LakeUrl::File(_)) {
            return wrong(
                "Glue's catalog has tables on S3, and the lake is a folder",
                "catalog",
                "remove [catalog], or use a lake on S3",
            );
        }
        if self.lake.target_file_size.0 < 1 << 20 {
            return wrong("base files have at least 1 MiB", "lake.target_file_size", "leave it out for 64MiB");
        }
        if self.lake.memory.0 < 16 << 20 {
            return wrong("the merge needs at least 16 MiB", "lake.memory", "leave it out for 256MiB");
        }
        Ok(())
    }
}

/// The lookups, with the paths of their files relative to the configuration's folder.
fn lookups(sections: BTreeMap<String, LookupConfig>, folder: &Path) -> BTreeMap<String, Arc<Lookup>> {
    let lookup = |(name, mut config): (String, LookupConfig)| {
        if let LookupUrl::File(path) | LookupUrl::Sqlite(path, _) = &mut config.url {
            *path = clean(&folder.join(&*path));
        }
        (name.clone(), Arc::new(Lookup::new(name, config)))
    };
    sections.into_iter().map(lookup).collect()
}

/// `a/./b` → `a/b`; leaves `..` alone, which may pass a symbolic link.
fn clean(path: &Path) -> PathBuf {
    let short: PathBuf = path.components().filter(|part| !matches!(part, std::path::Component::CurDir)).collect();
    if short.as_os_str().is_empty() { ".".into() } else { short }
}

#[cfg(test)]
#[path = "config/documented_tests.rs"]
mod documented_tests;
#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
