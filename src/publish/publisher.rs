//! Keeps `<lake>/views.sql`.
//!
//! Only the views of tables that changed are made anew; the file is then replaced as a whole, so that a reader finds the old or the new one. Views
//! made a moment before a commit stay right: the files that they name are kept by the table's retention.
//!
//! Several workers write the file, each for its own tables. So each write begins with what the file says now, and looks a while later whether
//! another one that had read it before has undone it. Then the lake says what the table's view is: it may be another worker's by now.

use super::duckdb_statements;
use crate::error::{Area, Error, Kind, Result};
use crate::table::{FileSlice, Lake, TableView};
use arrow::datatypes::Schema;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// The file's name in the lake.
const FILE: &str = "views.sql";
/// Stands before each table's statements.
const MARK: &str = "-- table: ";
/// For how long another worker that has read the file may take to write it.
const UNDONE_WITHIN: Duration = Duration::from_secs(5);

/// Publishes the lake's tables.
#[derive(Debug)]
pub struct Publisher {
    lake: Lake,
    /// What the file is to say: `database.table` → its statements.
    news: BTreeMap<String, String>,
    /// What was written and may yet be undone, and when.
    unsure: BTreeMap<String, (String, Instant)>,
    /// Tables that are gone.
    gone: BTreeSet<String>,
}

impl Publisher {
    /// Views of tables that others write stay in the lake's file.
    pub fn open(lake: Lake) -> Self {
        Self { lake, news: BTreeMap::new(), unsure: BTreeMap::new(), gone: BTreeSet::new() }
    }

    /// Takes note of what all tables of the lake are made of now: a crash may have come between a commit and its view, and somebody may have
    /// deleted the file. A table that can't be read keeps the view that it had.
    pub async fn refresh(&mut self) -> Result<()> {
        let tables = self.lake.tables().await?;
        let names: BTreeSet<String> = tables.iter().map(|(database, table)| section_name(database, table)).collect();
        self.gone = self.read().await?.into_keys().filter(|name| !names.contains(name)).collect();
        for (database, table) in &tables {
            self.table_as_it_is(database, table).await;
        }
        Ok(())
    }

    async fn table_as_it_is(&mut self, database: &str, table: &str) {
        let base = self.lake.table_path(database, table);
        let view = TableView::open(self.lake.store().clone(), base).await;
        match view.and_then(|view| Ok((view.latest_columns(), view.record_key(), view.slices(None)?))) {
            Ok((columns, key, slices)) if !columns.fields().is_empty() => self.table(database, table, &columns, &key, &slices),
            // no commit yet
            Ok(_) => {}
            Err(error) => tracing::warn!(table = %section_name(database, table), %error, "the table's view stays as it was"),
        }
    }

    /// Takes note of what a table is made of now.
    pub fn table(&mut self, database: &str, table: &str, columns: &Schema, record_key: &[String], slices: &[FileSlice]) {
        let view = duckdb_statements(&self.lake.table_url(database, table), database, table, columns, record_key, slices);
        let name = section_name(database, table);
        self.gone.remove(&name);
        self.unsure.remove(&name);
        self.news.insert(name, view);
    }

    /// Writes what changed since the last time, and once more what another worker has undone. Whether there is nothing left that may yet be undone.
    pub async fn write(&mut self) -> Result<bool> {
        if self.news.is_empty() && self.unsure.is_empty() && self.gone.is_empty() {
            return Ok(true);
        }
        let before = self.read().await?;
        let is_undone = |(name, (view, _)): (&String, &(String, Instant))| (before.get(name) != Some(view)).then(|| name.clone());
        for name in self.unsure.iter().filter_map(is_undone).collect::<Vec<_>>() {
            self.unsure.remove(&name);
            let tables = self.lake.tables().await?;
            if let Some((database, table)) = tables.iter().find(|(database, table)| section_name(database, table) == name) {
                self.table_as_it_is(database, table).await;
            }
        }
        let mut after = before.clone();
        after.retain(|name, _| !self.gone.contains(name));
        after.extend(self.news.clone());
        if after != before {
            self.put(text(self.lake.url(), &after)).await?;
        }
        self.unsure.retain(|_, (_, written)| written.elapsed() < UNDONE_WITHIN);
        let written = std::mem::take(&mut self.news).into_iter().filter(|(name, view)| before.get(name) != Some(view));
        self.unsure.extend(written.map(|(name, view)| (name, (view, Instant::now()))));
        self.gone.clear();
        Ok(self.unsure.is_empty())
    }

    /// The views in the file.
    async fn read(&self) -> Result<BTreeMap<String, String>> {
        let failed = |error| failed(&self.lake, "read", error);
        match self.lake.store().get(&path(&self.lake)).await {
            Ok(found) => Ok(sections(&String::from_utf8_lossy(&found.bytes().await.map_err(failed)?))),
            Err(object_store::Error::NotFound { .. }) => Ok(BTreeMap::new()),
            Err(error) => Err(failed(error)),
        }
    }

    async fn put(&self, text: String) -> Result<()> {
        let put = self.lake.store().put(&path(&self.lake), PutPayload::from(text)).await;
        put.map(drop).map_err(|error| failed(&self.lake, "written", error))
    }
}

fn text(url: &str, views: &BTreeMap<String, String>) -> String {
    let mut text = format!(
        "-- DuckDB views of the lake {url}: written by binlake after each commit, don't edit.\n\
         --   duckdb -init '{url}/{FILE}'          or, in any DuckDB:   .read '{url}/{FILE}'\n\
         -- Read it again to see later commits; a view that was read stays as it was while its files are kept.\n",
    );
    if url.starts_with("s3://") {
        text.push_str("-- Credentials first:   CREATE SECRET (TYPE s3, PROVIDER credential_chain);\n");
    }
    text.push_str("SET TimeZone = 'UTC';\n");
    for (name, view) in views {
        text.push_str(&format!("\n{MARK}{name}\n{view}"));
    }
    text
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
        let mut first = Publisher::open(lake.clone());
        first.table("shop", "orders", &columns, &[], &[slice("20260101000000000")]);
        first.table("shop", "items", &columns, &[], &[]);
        first.write().await.unwrap();
        let mut second = Publisher::open(lake.clone());
        second.table("shop", "orders", &columns, &[], &[slice("20260101000000001")]);
        second.write().await.unwrap();
        let text = text(&lake).await;
        assert!(text.contains("/lake/shop/orders/a-0_0-0-0_20260101000000001.parquet"), "{text}");
        assert!(!text.contains("20260101000000000"), "{text}");
        assert_eq!(text.matches(MARK).count(), 2);
    }

    /// Two workers, each with its own table: neither brings back what it read of the other's, and what one undoes at the same moment comes back.
    #[tokio::test(start_paused = true)]
    async fn of_two_workers_each_keeps_its_own_tables() {
        let lake = lake();
        let columns = Schema::new(vec![Field::new("id", DataType::Int32, false)]);
        let slice = |number: u8| FileSlice::parse("", &format!("a-0_0-0-0_2026010100000000{number}.parquet"), 1).unwrap();
        let (mut one, mut two) = (Publisher::open(lake.clone()), Publisher::open(lake.clone()));
        one.table("shop", "orders", &columns, &[], &[slice(1)]);
        one.write().await.unwrap();
        two.table("shop", "items", &columns, &[], &[slice(2)]);
        two.write().await.unwrap();
        one.table("shop", "orders", &columns, &[], &[slice(3)]);
        one.write().await.unwrap();
        two.table("shop", "items", &columns, &[], &[slice(4)]);
        let before = text(&lake).await;
        assert!(!two.write().await.unwrap(), "it may be undone");
        let after = text(&lake).await;
        assert!(
            after.contains("/orders/a-0_0-0-0_20260101000000003") && after.contains("/items/a-0_0-0-0_20260101000000004"),
            "{after}"
        );
        // undone by one that had read the file before; the lake doesn't have the table here, so nothing comes back, and nothing is unsure any more
        two.put(before.clone()).await.unwrap();
        assert!(two.write().await.unwrap());
        // and what nobody has undone in time is sure
        two.table("shop", "items", &columns, &[], &[slice(5)]);
        assert!(!two.write().await.unwrap() && !two.write().await.unwrap());
        tokio::time::advance(UNDONE_WITHIN).await;
        assert!(two.write().await.unwrap());
    }

    #[tokio::test]
    async fn nothing_new_writes_nothing() {
        let lake = lake();
        let mut publisher = Publisher::open(lake.clone());
        assert!(publisher.write().await.unwrap());
        assert!(lake.store().head(&Path::from(FILE)).await.is_err());
    }
}
