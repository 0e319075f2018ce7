//! One SQL statement over the lake.

use super::AsOf;
use super::find_table::find;
use super::lake_table::LakeTable;
use crate::error::{Area, Error, Kind, Result};
use crate::table::{FileSlice, Lake, TableView};
use crate::transform::Spelling;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::execution::context::{SQLOptions, SessionConfig, SessionContext};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::sql::parser::Statement;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use std::sync::Arc;

/// The name under which DataFusion knows the lake's object store.
const STORE: &str = "binlake://lake";

/// How a query is answered.
#[derive(Debug, Clone, Default)]
pub struct QueryOptions {
    /// As of when; `None`: now.
    pub as_of: Option<AsOf>,
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
        // names of tables first, then those of their columns
        spelling.correct(&mut statement);
        for reference in context.state().resolve_table_references(&statement).map_err(sql_error)? {
            let (database, name) = find(&known, reference.schema(), reference.table())?;
            let table = self.open(&database, &name, &mut spelling).await?;
            if let Some(schema) = reference.schema() {
                register_schema(&context, schema)?;
            }
            context.register_table(reference, Arc::new(table)).map_err(sql_error)?;
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
