//! A table's base files at one instant, as a table of DataFusion.

use crate::error::{Error, Result};
use crate::table::FileSlice;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::project_schema;
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use object_store::ObjectMeta;
use object_store::path::Path;
use std::sync::Arc;

/// One table at one instant. Files that were written before a column was added give NULL there, narrower ones are cast.
#[derive(Debug)]
pub(super) struct LakeTable {
    columns: SchemaRef,
    files: Vec<PartitionedFile>,
    store: ObjectStoreUrl,
}

impl LakeTable {
    /// A table below `base` in the object store registered as `store`.
    pub(super) fn new(columns: SchemaRef, base: &Path, slices: &[FileSlice], store: ObjectStoreUrl) -> Result<Self> {
        let files = slices.iter().map(|slice| file(base, slice)).collect::<Result<Vec<_>>>()?;
        Ok(Self { columns, files, store })
    }

    /// The files in as many groups as there are threads, about equal in bytes, so that neighbours in the key's order stay together.
    fn file_groups(&self, threads: usize) -> Vec<FileGroup> {
        let total: u64 = self.files.iter().map(|file| file.object_meta.size).sum();
        let share = total / threads.max(1) as u64 + 1;
        let mut groups: Vec<Vec<PartitionedFile>> = Vec::new();
        let mut bytes = 0;
        for file in &self.files {
            if groups.is_empty() || bytes >= share {
                groups.push(Vec::new());
                bytes = 0;
            }
            bytes += file.object_meta.size;
            if let Some(group) = groups.last_mut() {
                group.push(file.clone());
            }
        }
        groups.into_iter().map(FileGroup::new).collect()
    }
}

fn file(base: &Path, slice: &FileSlice) -> Result<PartitionedFile> {
    let text = if base.as_ref().is_empty() { slice.path() } else { format!("{base}/{}", slice.path()) };
    // as it is stored: a partition's path is encoded already
    let location =
        Path::parse(&text).map_err(|error| Error::bug("a slice's path can't be read back").caused_by(error).with("path", text))?;
    Ok(PartitionedFile::new_from_meta(ObjectMeta {
        location,
        last_modified: DateTime::<Utc>::UNIX_EPOCH,
        size: slice.file_bytes,
        e_tag: None,
        version: None,
    }))
}

#[async_trait]
impl TableProvider for LakeTable {
    fn schema(&self) -> SchemaRef {
        self.columns.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> datafusion::error::Result<Vec<TableProviderFilterPushDown>> {
        // DataFusion gives the filters to the Parquet source when it makes the physical plan, and keeps them above it
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        if self.files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(project_schema(&self.columns, projection)?)));
        }
        let source = ParquetSource::new(self.columns.clone())
            .with_table_parquet_options(state.default_table_options().parquet)
            .with_metadata_size_hint(64 << 10);
        let config = FileScanConfigBuilder::new(self.store.clone(), Arc::new(source))
            .with_file_groups(self.file_groups(state.config().target_partitions()))
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}
