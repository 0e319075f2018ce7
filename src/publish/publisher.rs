//! Keeps `<lake>/views.sql`.
//!
//! Only the views of tables that changed are made anew; the file is then replaced as a whole, so that a reader finds the old or the new one. Views
//! made a moment before a commit stay right: the files that they name are kept by the table's retention.

use super::duckdb_statements;
use crate::error::{Area, Error, Kind, Result};
use crate::table::{FileSlice, Lake, TableView};
use arrow::datatypes::Schema;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use std::collections::BTreeMap;

/// The file's name in the lake.
const FILE: &str = "views.sql";
/// Stands before each table's statements.
const MARK: &str = "-- table: ";

/// Publishes the lake's tables.
#[derive(Debug)]
pub struct Publisher {
    lake: Lake,
    /// `database.table` → its statements.
    views: BTreeMap<String, String>,
    is_changed: bool,
}

impl Publisher {
    /// Takes up where the file in the lake stands: views of tables that others write stay in it.
    pub async fn open(lake: Lake) -> Result<Self> {
        let text = match lake.store().get(&path(&lake)).await {
            Ok(found) => found.bytes().await.map_err(|error| failed(&lake, "read", error))?,
            Err(object_store::Error::NotFound { .. }) => bytes::Bytes::new(),
            Err(error) => return Err(failed(&lake, "read", error)),
        };
        let views = sections(&String::from_utf8_lossy(&text));
        Ok(Self { lake, views, is_changed: false })
    }

    /// Takes note of what all tables of the lake are made of now: a crash may have come between a commit and its view, and somebody may have
    /// deleted the file. A table that can't be read keeps the view that it had.
    pub async fn refresh(&mut self) -> Result<()> {
        let tables = self.lake.tables().await?;
        let before = self.views.len();
        self.views.retain(|name, _| tables.iter().any(|(database, table)| *name == section_name(database, table)));
        self.is_changed |= self.views.len() != before;
        for (database, table) in &tables {
            let base = self.lake.table_path(database, table);
            let view = TableView::open(self.lake.store().clone(), base).await;
            match view.and_then(|view| Ok((view.latest_columns(), view.record_key(), view.slices(None)?))) {
                Ok((columns, key, slices)) if !columns.fields().is_empty() => self.table(database, table, &columns, &key, &slices),
                // no commit yet
                Ok(_) => {}
                Err(error) => tracing::warn!(table = %section_name(database, table), %error, "the table's view stays as it was"),
            }
        }
        Ok(())
    }

    /// Takes note of what a table is made of now.
    pub fn table(&mut self, database: &str, table: &str, columns: &Schema, record_key: &[String], slices: &[FileSlice]) {
        let view = duckdb_statements(&self.lake.table_url(database, table), database, table, columns, record_key, slices);
        let name = section_name(database, table);
        if self.views.get(&name) != Some(&view) {
            self.views.insert(name, view);
            self.is_changed = true;
        }
    }

    /// Writes what changed since the last time.
    pub async fn write(&mut self) -> Result<()> {
        if !self.is_changed {
            return Ok(());
        }
        let text = self.text();
        self.lake
            .store()
            .put(&path(&self.lake), PutPayload::from(text))
            .await
            .map_err(|error| failed(&self.lake, "written", error))?;
        self.is_changed = false;
        Ok(())
    }

    fn text(&self) -> String {
        let mut text = format!(
            "-- DuckDB views of the lake {url}: written by binlake after each commit, don't edit.\n\
             --   duckdb -init '{url}/{FILE}'          or, in any DuckDB:   .read '{url}/{FILE}'\n\
             -- Read it again to see later commits; a view that was read stays as it was while its files are kept.\n",
            url = self.lake.url()
        );
        if self.lake.url().starts_with("s3://") {
            text.push_str("-- Credentials first:   CREATE SECRET (TYPE s3, PROVIDER credential_chain);\n");
        }
        text.push_str("SET TimeZone = 'UTC';\n");
        for (name, view) in &self.views {
            text.push_str(&format!("\n{MARK}{name}\n{view}"));
        }
        text
    }
}

fn section_name(database: &str, table: &str) -> String {
    format!("{database}.{table}").replace(['\n', '\r'], " ")
}

/// The statements of each table in a file's text.
fn sections(text: &str) -> BTreeMap<String, String> {
    let mut views = BTreeMap::new();
    for section in text.split(&format!("\n{MARK}")).skip(1) {
        if let Some((name, view)) = section.split_once('\n') {
            views.insert(name.to_owned(), format!("{}\n", view.trim_end_matches('\n')));
        }
    }
    views
}

fn path(lake: &Lake) -> Path {
    Path::from_iter(lake.root().parts().chain([FILE.into()]))
}

fn failed(lake: &Lake, what: &str, error: object_store::Error) -> Error {
    let kind = if matches!(error, object_store::Error::PermissionDenied { .. }) { Kind::Refused } else { Kind::Transient };
    Error::new(Area::Lake, kind, format!("the views can't be {what}"))
        .caused_by(error)
        .with("path", format!("{}/{FILE}", lake.url()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType, Field};
    use object_store::memory::InMemory;
    use std::sync::Arc;

    fn lake() -> Lake {
        Lake::over(Arc::new(InMemory::new()), Path::default(), "/lake")
    }

    async fn text(lake: &Lake) -> String {
        let bytes = lake.store().get(&Path::from(FILE)).await.unwrap().bytes().await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn changed_tables_are_replaced_and_others_views_stay() {
        let lake = lake();
        let columns = Schema::new(vec![Field::new("id", DataType::Int32, false)]);
        let slice = |time: &str| FileSlice::parse("", &format!("a-0_0-0-0_{time}.parquet"), 1).unwrap();
        let mut first = Publisher::open(lake.clone()).await.unwrap();
        first.table("shop", "orders", &columns, &[], &[slice("20260101000000000")]);
        first.table("shop", "items", &columns, &[], &[]);
        first.write().await.unwrap();
        let mut second = Publisher::open(lake.clone()).await.unwrap();
        second.table("shop", "orders", &columns, &[], &[slice("20260101000000001")]);
        second.write().await.unwrap();
        let text = text(&lake).await;
        assert!(text.contains("/lake/shop/orders/a-0_0-0-0_20260101000000001.parquet"), "{text}");
        assert!(!text.contains("20260101000000000"), "{text}");
        assert_eq!(text.matches(MARK).count(), 2);
        assert_eq!(text, second.text());
    }

    #[tokio::test]
    async fn nothing_new_writes_nothing() {
        let lake = lake();
        let mut publisher = Publisher::open(lake.clone()).await.unwrap();
        publisher.write().await.unwrap();
        assert!(lake.store().head(&Path::from(FILE)).await.is_err());
    }
}
