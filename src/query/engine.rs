//! One SQL statement over the lake.

use super::AsOf;
use super::lake_table::{LakeTable, with_meta_columns};
use super::spelling::Spelling;
use crate::error::{Area, Error, Kind, Result};
use crate::table::{FileSlice, Lake, TableView};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::TableReference;
use datafusion::error::DataFusionError;
use datafusion::execution::context::{SQLOptions, SessionConfig, SessionContext};
use datafusion::execution::object_store::ObjectStoreUrl;
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
        // names of tables first, then those of their columns
        for reference in references(&context, &spelling.correct(sql))? {
            let (database, name) = find(&known, &reference)?;
            let table = self.open(database, name, &mut spelling).await?;
            if let Some(schema) = reference.schema() {
                register_schema(&context, schema)?;
            }
            context.register_table(reference, Arc::new(table)).map_err(sql_error)?;
        }
        let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let frame = context.sql_with_options(&spelling.correct(sql), options).await.map_err(sql_error)?;
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
        let columns = if self.options.meta_columns { with_meta_columns(&columns) } else { columns };
        LakeTable::new(columns, &base, &slices, ObjectStoreUrl::parse(STORE).map_err(sql_error)?)
    }

    /// What the table is made of at the moment asked for.
    async fn slices(&self, base: Path) -> Result<(SchemaRef, Vec<FileSlice>)> {
        let view = TableView::load(self.lake.store().clone(), base).await?;
        let Some(as_of) = &self.options.as_of else { return Ok((view.columns(), view.slices(None)?)) };
        match view.instants().first() {
            Some(first) if first.instant <= *as_of.instant() => {}
            first => {
                let remedy = match first {
                    Some(first) => format!("its first is {}", first.instant),
                    None => "it has no commit at all yet".to_owned(),
                };
                return Err(Error::config("the table had no commit then").with("as_of", as_of).remedy(remedy));
            }
        }
        Ok((view.columns_as_of(as_of.instant()).await?, view.slices(Some(as_of.instant()))?))
    }
}

/// The tables that a statement names.
fn references(context: &SessionContext, sql: &str) -> Result<Vec<TableReference>> {
    let state = context.state();
    let dialect = state.config().options().sql_parser.dialect;
    let statement = state.sql_to_statement(sql, &dialect).map_err(sql_error)?;
    state.resolve_table_references(&statement).map_err(sql_error)
}

fn register_schema(context: &SessionContext, name: &str) -> Result<()> {
    let catalog = context.catalog("lake").ok_or_else(|| Error::bug("the query's catalog is missing"))?;
    if catalog.schema(name).is_none() {
        catalog.register_schema(name, Arc::new(datafusion::catalog::MemorySchemaProvider::new())).map_err(sql_error)?;
    }
    Ok(())
}

/// The table that is meant: by `database.table`, or by its name alone where only one has it.
fn find<'a>(known: &'a [(String, String)], reference: &TableReference) -> Result<(&'a str, &'a str)> {
    let matches = |(database, table): &&(String, String)| {
        table == reference.table() && reference.schema().is_none_or(|schema| schema == database)
    };
    let found: Vec<&(String, String)> = known.iter().filter(matches).collect();
    let names = |tables: &[&(String, String)]| {
        tables.iter().map(|(database, table)| format!("{database}.{table}")).collect::<Vec<_>>().join(", ")
    };
    match found.as_slice() {
        [(database, table)] => Ok((database, table)),
        [] => {
            let there: Vec<&(String, String)> = known.iter().take(20).collect();
            let more = if known.len() > there.len() { ", …" } else { "" };
            let remedy = match known {
                [] => "the lake has no table yet".to_owned(),
                _ => format!("the lake has {}{more}", names(&there)),
            };
            Err(Error::config(format!("there is no table `{reference}`")).remedy(remedy))
        }
        several => {
            Err(Error::config(format!("`{reference}` is in several databases")).remedy(format!("write one of {}", names(several))))
        }
    }
}

/// What is wrong with the statement is the caller's (exit code 2), what can't be read is the lake's.
fn sql_error(error: DataFusionError) -> Error {
    const NOT_ANSWERED: &str = "the statement can't be answered";
    let message = first_line(&error.strip_backtrace());
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

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_found_where_only_one_table_has_it() {
        let known: Vec<(String, String)> =
            [("shop", "orders"), ("store", "orders"), ("shop", "items")].map(|(d, t)| (d.to_owned(), t.to_owned())).to_vec();
        let reference = |text: &str| TableReference::from(text);
        assert_eq!(find(&known, &reference("items")).unwrap(), ("shop", "items"));
        assert_eq!(find(&known, &reference("store.orders")).unwrap(), ("store", "orders"));
        let several = find(&known, &reference("orders")).unwrap_err();
        assert_eq!(several.to_string(), "`orders` is in several databases; write one of shop.orders, store.orders");
        let none = find(&known, &reference("shop.tickets")).unwrap_err();
        assert_eq!(none.to_string(), "there is no table `shop.tickets`; the lake has shop.orders, store.orders, shop.items");
        assert_eq!(find(&[], &reference("x")).unwrap_err().advice(), "the lake has no table yet");
    }
}
