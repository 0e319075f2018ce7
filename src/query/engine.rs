//! One SQL statement over the lake.

use super::AsOf;
use super::at_position::{self, AtPosition, Seen, base_of};
use super::find_table::{find, find_table};
use super::history;
use super::kept::{known_until, left_behind_at, not_kept};
use super::lake_table::LakeTable;
use super::views::{Name, Views};
use crate::error::{Area, Error, Kind, Result};
use crate::table::{InstantTime, Lake, TableView};
use crate::time::Timestamp;
use crate::transform::{Spelling, calendar_functions, in_microseconds};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::error::DataFusionError;
use datafusion::execution::context::{SQLOptions, SessionConfig, SessionContext};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::sql::parser::Statement;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The name under which DataFusion knows the lake's object store.
const STORE: &str = "binlake://lake";

/// How a query is answered.
#[derive(Debug, Clone, Default)]
pub struct QueryOptions {
    /// As of when; `None`: now.
    pub as_of: Option<AsOf>,
    /// All tables at one position of the source; `None`: each as of its own last commit.
    pub at_position: Option<AtPosition>,
    /// What was true then, by the tables' histories; `None`: at the time of `as_of`.
    pub valid_at: Option<Timestamp>,
    /// Whether Hudi's own `_hoodie_…` columns are there.
    pub meta_columns: bool,
}

/// Answers SQL over a lake.
#[derive(Debug)]
pub struct Engine {
    lake: Lake,
    options: QueryOptions,
}

impl Engine {
    /// Over `lake`.
    pub fn new(lake: Lake, options: QueryOptions) -> Self {
        Self { lake, options }
    }

    /// The rows that answer `sql`.
    ///
    /// # Errors
    /// `Config` for a statement that can't be answered (exit code 2), the lake's own for what can't be read.
    pub async fn query(&self, sql: &str) -> Result<(SchemaRef, BoxStream<'static, Result<RecordBatch>>)> {
        let views = Views::new(&self.lake).await?;
        let mut spelling = Spelling::default();
        for (database, table) in views.known() {
            spelling.add(database);
            spelling.add(table);
        }
        let context = self.context()?;
        let mut statement = parse(&context, sql)?;
        let mut found = histories(&views, &statement).await?;
        let seen = self.seen(&views, &context, &statement, &found, &spelling).await?;
        for history in found.values_mut() {
            let base = base_of(&views, &(history.database.clone(), history.history.clone()));
            history.system = seen.get(&base).and_then(|seen| seen.system);
        }
        history::replace_functions(&mut statement, &found)?;
        // names of tables first, then those of their columns
        spelling.correct(&mut statement);
        for reference in context.state().resolve_table_references(&statement).map_err(sql_error)? {
            let table = self.provider(&context, &views, &seen, &reference, &mut spelling).await?;
            if let Some(schema) = reference.schema() {
                register_schema(&context, schema)?;
            }
            context.register_table(reference, table).map_err(sql_error)?;
        }
        let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        spelling.correct(&mut statement);
        let plan = context.state().statement_to_plan(statement).await.map_err(sql_error)?;
        options.verify_plan(&plan).map_err(sql_error)?;
        let frame = context.execute_logical_plan(plan).await.map_err(sql_error)?;
        let stream = frame.execute_stream().await.map_err(sql_error)?;
        Ok((stream.schema(), stream.map_err(sql_error).boxed()))
    }

    /// All rows of one table, by its exact name.
    ///
    /// # Errors
    /// The lake's own for what can't be read.
    pub async fn table(&self, database: &str, name: &str) -> Result<(SchemaRef, BoxStream<'static, Result<RecordBatch>>)> {
        let view = Views::new(&self.lake).await?.get(database, name).await?;
        let table = self.open(&view, None, &mut Spelling::default()).await?;
        let frame = self.context()?.read_table(Arc::new(table)).map_err(sql_error)?;
        let stream = frame.execute_stream().await.map_err(sql_error)?;
        Ok((stream.schema(), stream.map_err(sql_error).boxed()))
    }

    /// How the statement's tables are seen, where that isn't each as of its own last commit.
    async fn seen(
        &self,
        views: &Views,
        context: &SessionContext,
        statement: &Statement,
        found: &BTreeMap<String, history::Found>,
        spelling: &Spelling,
    ) -> Result<BTreeMap<Name, Seen>> {
        let mut seen = BTreeMap::new();
        if self.options.as_of.is_some() || (self.options.valid_at.is_some() && self.options.at_position.is_none()) {
            return Ok(seen);
        }
        let mut statement = statement.clone();
        history::replace_functions(&mut statement, found)?;
        spelling.correct(&mut statement);
        let mut named = BTreeSet::new();
        for reference in context.state().resolve_table_references(&statement).map_err(sql_error)? {
            named.insert(match reference.schema() {
                Some(history::RAW) => find_table(views.known(), reference.table())?,
                schema => find(views.known(), schema, reference.table())?,
            });
        }
        let bases: BTreeSet<Name> = named.iter().map(|name| base_of(views, name)).collect();
        if let Some(position) = &self.options.at_position {
            return at_position::resolve(self, views, &bases, position).await;
        }
        // a table and its history, asked together
        for (database, name) in bases.intersection(&named) {
            let history = history::history_name(name);
            if !named.contains(&(database.clone(), history.clone())) {
                continue;
            }
            let (table, history) = (views.get(database, name).await?, views.get(database, &history).await?);
            if let Some((instant, history)) = at_position::in_step(&table, &history).await? {
                let one = Seen { instant: Some(instant), system: None, history: Some(history) };
                seen.insert((database.clone(), name.clone()), one);
            }
        }
        Ok(seen)
    }

    /// What a name in a statement means.
    async fn provider(
        &self,
        context: &SessionContext,
        views: &Views,
        seen: &BTreeMap<Name, Seen>,
        reference: &TableReference,
        spelling: &mut Spelling,
    ) -> Result<Arc<dyn TableProvider>> {
        let is_raw = reference.schema() == Some(history::RAW);
        let (database, name) = match is_raw {
            true => find_table(views.known(), reference.table())?,
            false => find(views.known(), reference.schema(), reference.table())?,
        };
        let view = views.get(&database, &name).await?;
        let seen = seen.get(&base_of(views, &(database.clone(), name.clone())));
        let is_history = name == history::history_name(&name);
        if is_raw {
            return self.whole(&view, seen.and_then(|seen| seen.history.as_ref()));
        }
        if self.options.at_position.is_some() {
            let seen = seen.cloned().unwrap_or_default();
            let is_left =
                seen.instant.as_ref().is_some_and(|instant| view.earliest_queryable().is_none_or(|first| instant >= first));
            if is_left && !is_history && self.options.valid_at.is_none() {
                return Ok(Arc::new(self.open(&view, seen.instant.as_ref(), spelling).await?));
            }
            let Some(system) = seen.system else { return Err(no_history(&database, &name)) };
            let asked = history::Asked { system: Some(system), valid: self.options.valid_at };
            return self.by_history(context, views, (&database, &name), asked, spelling).await;
        }
        if self.options.as_of.is_none() && self.options.valid_at.is_none() {
            let instant = seen.and_then(|seen| if is_history { seen.history.as_ref() } else { seen.instant.as_ref() });
            return Ok(Arc::new(self.open(&view, instant, spelling).await?));
        }
        if !views.has(&database, &history::history_name(&name)) {
            if self.options.valid_at.is_some() {
                return Err(no_history(&database, &name));
            }
            return Ok(Arc::new(self.open_as_of(&view, spelling).await?));
        }
        let of_history = views.get(&database, &history::history_name(&name)).await?;
        let until = until(views, &database, &history::history_name(&name)).await?;
        let system = match &self.options.as_of {
            None => match until {
                Some(until) => return Err(not_kept(&database, &history::history_name(&name), until)),
                None => None,
            },
            Some(as_of) if !is_history && self.options.valid_at.is_none() && as_of.is_commit_of(&view) => {
                return Ok(Arc::new(self.open_as_of(&view, spelling).await?));
            }
            Some(as_of) => match history::system_time(as_of, &view, &of_history).await? {
                Some(time) if until.is_none_or(|until| time <= until) => Some(time),
                // where it is over, the table's own commits know
                Some(_) if self.options.valid_at.is_none() && !is_history => {
                    return Ok(Arc::new(self.open_as_of(&view, spelling).await?));
                }
                Some(_) => return Err(not_kept(&database, &history::history_name(&name), until.unwrap_or_default())),
                // before the history began, the table's own commits may still know
                None if self.options.valid_at.is_none() => return Ok(Arc::new(self.open_as_of(&view, spelling).await?)),
                None => {
                    let start = history::start_of(&of_history).unwrap_or_default();
                    return Err(history::before_start(&database, &name, start));
                }
            },
        };
        let asked = history::Asked { system, valid: self.options.valid_at };
        self.by_history(context, views, (&database, &name), asked, spelling).await
    }

    /// A table, or a history, as the history says.
    async fn by_history(
        &self,
        context: &SessionContext,
        views: &Views,
        (database, name): (&str, &str),
        asked: history::Asked,
        spelling: &mut Spelling,
    ) -> Result<Arc<dyn TableProvider>> {
        let (table, history) = (views.get(database, name).await?, history::history_name(name));
        if !views.has(database, &history) {
            return Err(no_history(database, name));
        }
        let of = views.get(database, &history).await?;
        let sql = if *name == history {
            asked.versions(database, &history, &of)
        } else {
            asked.rows(database, &history, &of, &table.latest_columns())
        };
        table.latest_columns().fields().iter().for_each(|field| spelling.add(field.name()));
        self.register_history(context, views, database, &history, None).await?;
        Ok(context.sql(&sql).await.map_err(sql_error)?.into_view())
    }

    /// Makes a history known under the name that its questions have for it.
    pub(super) async fn register_history(
        &self,
        context: &SessionContext,
        views: &Views,
        database: &str,
        history: &str,
        instant: Option<&InstantTime>,
    ) -> Result<()> {
        let raw = TableReference::partial(history::RAW, format!("{database}.{history}"));
        register_schema(context, history::RAW)?;
        let whole = self.whole(&*views.get(database, history).await?, instant)?;
        context.register_table(raw, whole).map_err(sql_error)?;
        Ok(())
    }

    /// The rows that answer a question of our own.
    pub(super) async fn rows(&self, context: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>> {
        context.sql(sql).await.map_err(sql_error)?.collect().await.map_err(sql_error)
    }

    /// A history with all its columns, as its last commit left it, or this one.
    fn whole(&self, view: &TableView, instant: Option<&InstantTime>) -> Result<Arc<dyn TableProvider>> {
        let store = ObjectStoreUrl::parse(STORE).map_err(sql_error)?;
        Ok(Arc::new(LakeTable::new(view.latest_columns(), view.location().1, &view.slices(instant)?, store)?))
    }

    pub(super) fn context(&self) -> Result<SessionContext> {
        let config = SessionConfig::new()
            .with_default_catalog_and_schema("lake", "default")
            .set_bool("datafusion.execution.parquet.pushdown_filters", true);
        let builder = SessionStateBuilder::new().with_config(config).with_default_features();
        let context = SessionContext::new_with_state(in_microseconds(builder));
        let url = ObjectStoreUrl::parse(STORE).map_err(sql_error)?;
        context.register_object_store(url.as_ref(), self.lake.store().clone());
        calendar_functions().for_each(|function| context.register_udf(function));
        Ok(context)
    }

    /// A table as its last commit left it, or this one.
    async fn open(&self, view: &TableView, instant: Option<&InstantTime>, spelling: &mut Spelling) -> Result<LakeTable> {
        let at = |error: Error| error.with("table", format!("{}.{}", view.database(), view.name()));
        let columns = view.columns(instant).await.map_err(at)?;
        for field in columns.fields() {
            spelling.add(field.name());
        }
        let columns = if self.options.meta_columns { TableView::with_meta_columns(&columns) } else { columns };
        let slices = view.slices(instant).map_err(at)?;
        LakeTable::new(columns, view.location().1, &slices, ObjectStoreUrl::parse(STORE).map_err(sql_error)?)
    }

    /// The same at the moment that `--as-of` means.
    async fn open_as_of(&self, view: &TableView, spelling: &mut Spelling) -> Result<LakeTable> {
        let at = |error: Error| error.with("table", format!("{}.{}", view.database(), view.name()));
        let instant = match &self.options.as_of {
            Some(as_of) => Some(as_of.resolve(view).await.map_err(at)?),
            None => None,
        };
        self.open(view, instant.as_ref(), spelling).await
    }
}

/// The histories that a statement's functions ask, by the names that they have there.
async fn histories(views: &Views, statement: &Statement) -> Result<BTreeMap<String, history::Found>> {
    let mut found = BTreeMap::new();
    for asked in history::asked_tables(statement) {
        let (database, name) = find_table(views.known(), &asked)?;
        let name = history::history_name(&name);
        if !views.has(&database, &name) {
            return Err(no_history(&database, &asked));
        }
        let view = views.get(&database, &name).await?;
        let until = until(views, &database, &name).await?;
        found.insert(asked, history::Found { database, history: name, view, system: None, until });
    }
    Ok(found)
}

/// The last moment of which a history knows; `None`: it follows its table.
async fn until(views: &Views, database: &str, history: &str) -> Result<Option<Timestamp>> {
    let (database, base) = base_of(views, &(database.to_owned(), history.to_owned()));
    if base == history {
        return Ok(None);
    }
    let (table, history) = (views.get(&database, &base).await?, views.get(&database, history).await?);
    Ok(left_behind_at(&table, &history).await?.map(|last| known_until(&last)))
}

fn parse(context: &SessionContext, sql: &str) -> Result<Statement> {
    let state = context.state();
    let dialect = state.config().options().sql_parser.dialect;
    state.sql_to_statement(sql, &dialect).map_err(sql_error)
}

fn no_history(database: &str, table: &str) -> Error {
    Error::config("the table has no history")
        .with("table", format!("{database}.{}", table.strip_prefix(&format!("{database}.")).unwrap_or(table)))
        .remedy("set `history = true` in its [[table]]; --as-of alone shows a table as of its retained commits")
}

fn register_schema(context: &SessionContext, name: &str) -> Result<()> {
    let catalog = context.catalog("lake").ok_or_else(|| Error::bug("the query's catalog is missing"))?;
    if catalog.schema(name).is_none() {
        catalog.register_schema(name, Arc::new(datafusion::catalog::MemorySchemaProvider::new())).map_err(sql_error)?;
    }
    Ok(())
}

/// What is wrong with the statement is the caller's (exit code 2), what can't be read is the lake's.
fn sql_error(error: DataFusionError) -> Error {
    const NOT_ANSWERED: &str = "the statement can't be answered";
    let message = plain(&error.strip_backtrace());
    let lake = |kind| Error::new(Area::Lake, kind, "a file of the lake can't be read").caused_by(message.clone());
    match error.find_root() {
        DataFusionError::ObjectStore(inner) => match inner.as_ref() {
            object_store::Error::NotFound { .. } => lake(Kind::Conflict)
                .remedy("run the query again; raise lake.retained_commits if queries take longer than the commits are kept"),
            _ => lake(Kind::Transient),
        },
        DataFusionError::IoError(_) => lake(Kind::Refused),
        DataFusionError::ParquetError(_) => lake(Kind::Corrupt),
        DataFusionError::ResourcesExhausted(_) => Error::config("the query needs more memory than there is").caused_by(message),
        DataFusionError::Internal(_) => Error::bug("the query engine failed").caused_by(message),
        _ => Error::config(NOT_ANSWERED).caused_by(message).remedy("correct the SQL; `binlake tables` lists what there is"),
    }
}

/// DataFusion's message in one line, without the names of its own types.
fn plain(message: &str) -> String {
    let line = message.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let line = ["SQL error: ", "Schema error: ", "Error during planning: ", "Execution error: "]
        .iter()
        .fold(line.as_str(), |line, prefix| line.strip_prefix(prefix).unwrap_or(line));
    let line = match line.strip_prefix("ParserError(\"").or_else(|| line.strip_prefix("TokenizerError(\"")) {
        Some(inner) => inner.trim_end_matches("\")"),
        None => line,
    };
    line.trim_end_matches('.').to_owned()
}
