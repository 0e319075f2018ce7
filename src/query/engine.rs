//! One SQL statement over the lake.

use super::AsOf;
use super::find_table::{find, find_table};
use super::history;
use super::lake_table::LakeTable;
use crate::error::{Area, Error, Kind, Result};
use crate::table::{FileSlice, Lake, TableView};
use crate::time::Timestamp;
use crate::transform::Spelling;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::error::DataFusionError;
use datafusion::execution::context::{SQLOptions, SessionConfig, SessionContext};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::sql::parser::Statement;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The name under which DataFusion knows the lake's object store.
const STORE: &str = "binlake://lake";

/// How a query is answered.
#[derive(Debug, Clone, Default)]
pub struct QueryOptions {
    /// As of when; `None`: now.
    pub as_of: Option<AsOf>,
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
        let known = self.lake.tables().await?;
        let mut spelling = Spelling::default();
        for (database, table) in &known {
            spelling.add(database);
            spelling.add(table);
        }
        let context = self.context()?;
        let mut statement = parse(&context, sql)?;
        self.ask_histories(&known, &mut statement).await?;
        // names of tables first, then those of their columns
        spelling.correct(&mut statement);
        for reference in context.state().resolve_table_references(&statement).map_err(sql_error)? {
            let table = self.provider(&context, &known, &reference, &mut spelling).await?;
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
        let table = self.open(database, name, &mut Spelling::default()).await?;
        let frame = self.context()?.read_table(Arc::new(table)).map_err(sql_error)?;
        let stream = frame.execute_stream().await.map_err(sql_error)?;
        Ok((stream.schema(), stream.map_err(sql_error).boxed()))
    }

    /// Replaces the table functions of a statement.
    async fn ask_histories(&self, known: &[(String, String)], statement: &mut Statement) -> Result<()> {
        let mut found = BTreeMap::new();
        for asked in history::asked_tables(statement) {
            let (database, name) = find_table(known, &asked)?;
            let name = history::history_name(&name);
            if !known.contains(&(database.clone(), name.clone())) {
                return Err(no_history(&database, &asked));
            }
            let view = self.view(&database, &name).await?;
            found.insert(asked, history::Found { database, history: name, columns: view.latest_columns() });
        }
        history::replace_functions(statement, &found)
    }

    /// What a name in a statement means.
    async fn provider(
        &self,
        context: &SessionContext,
        known: &[(String, String)],
        reference: &TableReference,
        spelling: &mut Spelling,
    ) -> Result<Arc<dyn TableProvider>> {
        if reference.schema() == Some(history::RAW) {
            let (database, name) = find_table(known, reference.table())?;
            return self.whole(&database, &name).await;
        }
        let (database, name) = find(known, reference.schema(), reference.table())?;
        if self.options.as_of.is_none() && self.options.valid_at.is_none() {
            return Ok(Arc::new(self.open(&database, &name, spelling).await?));
        }
        let history = history::history_name(&name);
        let has_history = known.contains(&(database.clone(), history.clone()));
        if !has_history {
            if self.options.valid_at.is_some() {
                return Err(no_history(&database, &name));
            }
            return Ok(Arc::new(self.open(&database, &name, spelling).await?));
        }
        let (table, of_history) = (self.view(&database, &name).await?, self.view(&database, &history).await?);
        let system = match &self.options.as_of {
            None => None,
            Some(as_of) => match history::system_time(as_of, &table, &of_history).await? {
                Some(time) => Some(time),
                // before the history began, the table's own commits may still know
                None if self.options.valid_at.is_none() => return Ok(Arc::new(self.open(&database, &name, spelling).await?)),
                None => {
                    let start = history::start_of(&of_history).map(|start| start.to_string()).unwrap_or_default();
                    return Err(Error::config("the table's history doesn't go back so far")
                        .with("table", format!("{database}.{name}"))
                        .with("history_start", start)
                        .remedy("ask as of a later time"));
                }
            },
        };
        let asked = history::Asked { system, valid: self.options.valid_at };
        let columns = of_history.latest_columns();
        let sql = if name == history {
            asked.versions(&database, &history, &columns)
        } else {
            asked.rows(&database, &history, &columns, &table.latest_columns())
        };
        table.latest_columns().fields().iter().for_each(|field| spelling.add(field.name()));
        let raw = TableReference::partial(history::RAW, format!("{database}.{history}"));
        register_schema(context, history::RAW)?;
        let whole = self.whole(&database, &history).await?;
        context.register_table(raw, whole).map_err(sql_error)?;
        Ok(context.sql(&sql).await.map_err(sql_error)?.into_view())
    }

    async fn view(&self, database: &str, name: &str) -> Result<TableView> {
        let base = self.lake.table_path(database, name);
        let view = TableView::open(self.lake.store().clone(), base).await;
        view.map_err(|error| error.with("table", format!("{database}.{name}")))
    }

    /// A table as its last commit left it.
    async fn whole(&self, database: &str, name: &str) -> Result<Arc<dyn TableProvider>> {
        let view = self.view(database, name).await?;
        let base = self.lake.table_path(database, name);
        let table =
            LakeTable::new(view.latest_columns(), &base, &view.slices(None)?, ObjectStoreUrl::parse(STORE).map_err(sql_error)?)?;
        Ok(Arc::new(table))
    }

    fn context(&self) -> Result<SessionContext> {
        let config = SessionConfig::new()
            .with_default_catalog_and_schema("lake", "default")
            .set_bool("datafusion.execution.parquet.pushdown_filters", true);
        let context = SessionContext::new_with_config(config);
        let url = ObjectStoreUrl::parse(STORE).map_err(sql_error)?;
        context.register_object_store(url.as_ref(), self.lake.store().clone());
        Ok(context)
    }

    async fn open(&self, database: &str, name: &str, spelling: &mut Spelling) -> Result<LakeTable> {
        let base = self.lake.table_path(database, name);
        let at = |error: Error| error.with("table", format!("{database}.{name}"));
        let (columns, slices) = self.slices(base.clone()).await.map_err(at)?;
        for field in columns.fields() {
            spelling.add(field.name());
        }
        let columns = if self.options.meta_columns { TableView::with_meta_columns(&columns) } else { columns };
        LakeTable::new(columns, &base, &slices, ObjectStoreUrl::parse(STORE).map_err(sql_error)?)
    }

    /// What the table is made of at the moment asked for.
    async fn slices(&self, base: Path) -> Result<(SchemaRef, Vec<FileSlice>)> {
        let view = TableView::open(self.lake.store().clone(), base).await?;
        let as_of = match &self.options.as_of {
            Some(as_of) => Some(as_of.resolve(&view).await?),
            None => None,
        };
        let slices = view.slices(as_of.as_ref())?;
        Ok((view.columns(as_of.as_ref()).await?, slices))
    }
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
