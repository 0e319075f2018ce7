//! The Glue Data Catalog: a table's entry is made, or changed where it differs, after a commit that changed columns or partitions.
//!
//! What others put there stays: parameters, descriptions and comments that we have nothing to say about. A change carries the version that it was
//! made from, so that of two writers at once the later looks again. Specification: the Glue API's CreateTable, UpdateTable, GetPartitions,
//! BatchCreatePartition, BatchUpdatePartition and BatchDeletePartition.

use super::catalog_entry::{CatalogColumn, CatalogEntry, INPUT_FORMAT, OUTPUT_FORMAT, SERDE};
use super::config::CatalogConfig;
use crate::cloud::{Calls, Failure, error_of, sdk_config};
use crate::error::{Area, Error, Kind, Result};
use aws_sdk_glue::Client;
use aws_sdk_glue::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_glue::types::{
    BatchUpdatePartitionRequestEntry, Column, DatabaseInput, PartitionInput, PartitionValueList, SerDeInfo, StorageDescriptor,
    Table, TableInput,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Calls of the SDK until it gives up; the caller comes again later.
const ATTEMPTS: u32 = 4;
/// Looks at a table that others change at the same time.
const TRIES: usize = 5;
/// The most partitions that the API takes in one call: made and changed, removed.
const PARTITIONS_A_CALL: usize = 100;
const REMOVALS_A_CALL: usize = 25;
/// Parameters that describe the columns: where we say less than the entry has, the rest is gone.
const OUR_PARAMETERS: &str = "spark.sql.sources.schema.";

/// What a registration did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Registered {
    /// The table's entry is new.
    pub is_created: bool,
    /// It was there, and was changed.
    pub is_updated: bool,
    /// Partitions that are new.
    pub partitions_added: usize,
    /// Partitions that hold no file any more.
    pub partitions_removed: usize,
}

impl Registered {
    /// Whether anything was changed.
    pub fn is_change(&self) -> bool {
        *self != Self::default()
    }
}

/// The catalog of one account and region.
#[derive(Debug)]
pub struct GlueCatalog {
    client: Client,
    account: Option<String>,
    databases: BTreeSet<String>,
    /// What we know to be there.
    known: BTreeMap<(String, String), CatalogEntry>,
}

impl GlueCatalog {
    /// A client; nothing is called yet.
    pub async fn open(config: &CatalogConfig) -> Result<Self> {
        let sdk = sdk_config(&config.url.aws, &Calls::retried(ATTEMPTS)).await?;
        let account = config.url.account().map(str::to_owned);
        Ok(Self { client: Client::new(&sdk), account, databases: BTreeSet::new(), known: BTreeMap::new() })
    }

    /// Whether the catalog answers us.
    pub async fn check(&self) -> Result<()> {
        let call = self.client.get_databases().set_catalog_id(self.account.clone()).max_results(1).send().await;
        call.map(drop).map_err(|error| failed("the catalog can't be read", &error))
    }

    /// Another may have changed the table's entry, or its partitions: they are looked at the next time.
    pub fn forget(&mut self, table: &CatalogEntry) {
        self.known.remove(&(table.database.clone(), table.name.clone()));
    }

    /// Brings the table's entry to what `table` says. Costs no call where it is what we said last.
    ///
    /// # Errors
    /// Another table's entry has the name; the catalog's refusals.
    pub async fn register(&mut self, table: &CatalogEntry) -> Result<Registered> {
        let name = (table.database.clone(), table.name.clone());
        if self.known.get(&name) == Some(table) {
            return Ok(Registered::default());
        }
        // what is half done when it fails is looked at whole the next time
        let known = self.known.remove(&name);
        // large, and rare
        let registered = Box::pin(self.change(table, known.as_ref())).await?;
        self.known.insert(name, table.clone());
        Ok(registered)
    }

    async fn change(&mut self, table: &CatalogEntry, known: Option<&CatalogEntry>) -> Result<Registered> {
        self.ensure_database(&table.database).await?;
        let mut registered = Registered::default();
        let mut tries_left = TRIES;
        loop {
            let met = match self.find(table).await? {
                None => self.create(table).await.map(|is_created| registered.is_created = is_created),
                Some(found) => self.update(table, &found).await.map(|is_updated| registered.is_updated = is_updated),
            };
            match met {
                // another was faster: what it made is looked at
                Err(error) if error.kind() == Kind::Conflict && tries_left > 1 => tries_left -= 1,
                Err(error) => return Err(error.with("table", format!("{}.{}", table.database, table.name))),
                Ok(()) => break,
            }
        }
        if !table.partition_keys.is_empty() {
            // whoever dropped the entry has dropped its partitions
            let known = known.filter(|_| !registered.is_created);
            let partitions = self.ensure_partitions(table, known, registered.is_updated);
            (registered.partitions_added, registered.partitions_removed) = partitions.await?;
        }
        Ok(registered)
    }

    async fn ensure_database(&mut self, database: &str) -> Result<()> {
        if self.databases.contains(database) {
            return Ok(());
        }
        let input =
            DatabaseInput::builder().name(database).description("Tables that binlake writes").build().map_err(incomplete)?;
        let get = self.client.get_database().set_catalog_id(self.account.clone()).name(database).send().await;
        match get {
            Ok(_) => {}
            Err(error) if Failure::of(&error) == Failure::Missing => {
                let made = self.client.create_database().set_catalog_id(self.account.clone()).database_input(input).send().await;
                match made {
                    Err(error) if Failure::of(&error) != Failure::Busy => {
                        return Err(failed("the catalog's database can't be made", &error).with("database", database));
                    }
                    _ => tracing::info!(database, "the catalog has a new database"),
                }
            }
            Err(error) => return Err(failed("the catalog's database can't be read", &error).with("database", database)),
        }
        self.databases.insert(database.to_owned());
        Ok(())
    }

    async fn find(&self, table: &CatalogEntry) -> Result<Option<Table>> {
        let call = self.client.get_table().set_catalog_id(self.account.clone()).database_name(&table.database).name(&table.name);
        match call.send().await {
            Ok(found) => Ok(found.table),
            Err(error) if Failure::of(&error) == Failure::Missing => Ok(None),
            Err(error) => Err(failed("the catalog's table can't be read", &error)),
        }
    }

    async fn create(&self, table: &CatalogEntry) -> Result<bool> {
        let input = TableInput::builder()
            .name(&table.name)
            .set_description(described(table, None))
            .table_type("EXTERNAL_TABLE")
            .storage_descriptor(storage(table, None, &table.location)?)
            .set_partition_keys(Some(columns(&table.partition_keys, &[])?))
            .set_parameters(Some(table.parameters.clone().into_iter().collect()))
            .build()
            .map_err(incomplete)?;
        let call =
            self.client.create_table().set_catalog_id(self.account.clone()).database_name(&table.database).table_input(input);
        call.send().await.map(|_| true).map_err(|error| failed("the catalog's table can't be made", &error))
    }

    /// Whether there was something to change.
    async fn update(&self, table: &CatalogEntry, found: &Table) -> Result<bool> {
        ensure_ours(table, found)?;
        let found_storage = found.storage_descriptor();
        let storage = storage(table, found_storage, &table.location)?;
        let keys = columns(&table.partition_keys, found.partition_keys())?;
        let mut parameters: HashMap<String, String> = found.parameters().cloned().unwrap_or_default();
        parameters.retain(|key, _| !key.starts_with(OUR_PARAMETERS));
        parameters.extend(table.parameters.clone());
        let description = described(table, found.description());
        let is_described = found.description() == description.as_deref();
        if is_described
            && found_storage == Some(&storage)
            && found.partition_keys() == keys
            && found.parameters() == Some(&parameters)
        {
            return Ok(false);
        }
        let input = TableInput::builder()
            .name(&table.name)
            .set_description(description)
            .set_owner(found.owner().map(str::to_owned))
            .retention(found.retention())
            .set_last_access_time(found.last_access_time().copied())
            .table_type("EXTERNAL_TABLE")
            .storage_descriptor(storage)
            .set_partition_keys(Some(keys))
            .set_parameters(Some(parameters))
            .build()
            .map_err(incomplete)?;
        let call =
            self.client.update_table().set_catalog_id(self.account.clone()).database_name(&table.database).table_input(input);
        // old versions of entries are limited in number, and nobody asks for them
        let call = call.set_version_id(found.version_id().map(str::to_owned)).skip_archive(true);
        call.send().await.map(|_| true).map_err(|error| failed("the catalog's table can't be changed", &error))
    }

    /// Adds and removes partitions, and brings those that are there to the table's columns.
    async fn ensure_partitions(
        &self,
        table: &CatalogEntry,
        known: Option<&CatalogEntry>,
        is_updated: bool,
    ) -> Result<(usize, usize)> {
        let there: BTreeMap<Vec<String>, bool> = match known {
            Some(known) => known.partitions.keys().map(|values| (values.clone(), is_updated)).collect(),
            None => self.partitions(table).await?,
        };
        let (stay, new): (Vec<_>, Vec<_>) = table.partitions.iter().partition(|(values, _)| there.contains_key(*values));
        for some in new.chunks(PARTITIONS_A_CALL) {
            let inputs = some.iter().map(|(values, path)| partition(table, values, path)).collect::<Result<_>>()?;
            let call = self.client.batch_create_partition().set_catalog_id(self.account.clone());
            let call =
                call.database_name(&table.database).table_name(&table.name).set_partition_input_list(Some(inputs)).send().await;
            let answer = call.map_err(|error| failed("the catalog's partitions can't be made", &error))?;
            let errors = answer.errors().iter().map(|error| (error.partition_values(), error.error_detail()));
            ensure_none(table, errors, "made", Failure::Busy)?;
        }
        let outdated: Vec<_> = stay.into_iter().filter(|(values, _)| there.get(*values) == Some(&true)).collect();
        for some in outdated.chunks(PARTITIONS_A_CALL) {
            let entry = |(values, path): &(&Vec<String>, &String)| {
                let entry = BatchUpdatePartitionRequestEntry::builder().set_partition_value_list(Some((*values).clone()));
                entry.partition_input(partition(table, values, path)?).build().map_err(incomplete)
            };
            let entries = some.iter().map(entry).collect::<Result<_>>()?;
            let call = self.client.batch_update_partition().set_catalog_id(self.account.clone());
            let call = call.database_name(&table.database).table_name(&table.name).set_entries(Some(entries)).send().await;
            let answer = call.map_err(|error| failed("the catalog's partitions can't be changed", &error))?;
            let errors = answer.errors().iter().map(|error| (error.partition_value_list(), error.error_detail()));
            ensure_none(table, errors, "changed", Failure::Missing)?;
        }
        let gone: Vec<&Vec<String>> = there.keys().filter(|values| !table.partitions.contains_key(*values)).collect();
        for some in gone.chunks(REMOVALS_A_CALL) {
            let values = |values: &&Vec<String>| PartitionValueList::builder().set_values(Some((*values).clone())).build();
            let lists = some.iter().map(values).collect::<Result<_, _>>().map_err(incomplete)?;
            let call = self.client.batch_delete_partition().set_catalog_id(self.account.clone());
            let call =
                call.database_name(&table.database).table_name(&table.name).set_partitions_to_delete(Some(lists)).send().await;
            let answer = call.map_err(|error| failed("the catalog's partitions can't be removed", &error))?;
            let errors = answer.errors().iter().map(|error| (error.partition_values(), error.error_detail()));
            ensure_none(table, errors, "removed", Failure::Missing)?;
        }
        Ok((new.len(), gone.len()))
    }

    /// The partitions that the catalog has, each with whether it must be brought to the table's columns.
    async fn partitions(&self, table: &CatalogEntry) -> Result<BTreeMap<Vec<String>, bool>> {
        let call = self.client.get_partitions().set_catalog_id(self.account.clone());
        let mut pages = call.database_name(&table.database).table_name(&table.name).into_paginator().send();
        let mut found = BTreeMap::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed("the catalog's partitions can't be read", &error))?;
            for partition in page.partitions() {
                let values = partition.values().to_vec();
                let there = partition.storage_descriptor();
                let wanted = table.partitions.get(&values).map(|path| storage(table, there, &table.partition_location(path)));
                found.insert(values, wanted.transpose()?.as_ref() != there);
            }
        }
        Ok(found)
    }
}

/// An entry that describes another folder, or other partitions, is somebody else's.
fn ensure_ours(table: &CatalogEntry, found: &Table) -> Result<()> {
    let location = found.storage_descriptor().and_then(StorageDescriptor::location).unwrap_or_default();
    let keys: Vec<&str> = found.partition_keys().iter().map(Column::name).collect();
    let wanted: Vec<&str> = table.partition_keys.iter().map(|key| key.name.as_str()).collect();
    let refused = |what: &'static str, found: String, wanted: String| {
        let error = Error::new(Area::Lake, Kind::Refused, what).with("found", found).with("wanted", wanted);
        Err(error.remedy("drop the table in the catalog, or give catalog.database a name of its own, as \"lake_{database}\""))
    };
    if location.trim_end_matches('/') != table.location {
        return refused("the catalog has another table of this name", location.to_owned(), table.location.clone());
    }
    if keys != wanted {
        return refused("the catalog's table has other partitions", keys.join(","), wanted.join(","));
    }
    Ok(())
}

/// What the entry says of the files; what `found` has besides stays.
fn storage(table: &CatalogEntry, found: Option<&StorageDescriptor>, location: &str) -> Result<StorageDescriptor> {
    let found_columns = found.map(StorageDescriptor::columns).unwrap_or_default();
    let mut storage = found.cloned().unwrap_or_else(|| StorageDescriptor::builder().build());
    let mut serde = storage.serde_info.unwrap_or_else(|| SerDeInfo::builder().build());
    serde.serialization_library = Some(SERDE.to_owned());
    serde.parameters.get_or_insert_default().extend(table.serde_parameters());
    storage.serde_info = Some(serde);
    storage.columns = Some(columns(&table.columns, found_columns)?);
    storage.location = Some(location.to_owned());
    storage.input_format = Some(INPUT_FORMAT.to_owned());
    storage.output_format = Some(OUTPUT_FORMAT.to_owned());
    Ok(storage)
}

fn partition(table: &CatalogEntry, values: &[String], path: &str) -> Result<PartitionInput> {
    let storage = storage(table, None, &table.partition_location(path))?;
    Ok(PartitionInput::builder().set_values(Some(values.to_vec())).storage_descriptor(storage).build())
}

/// The table's description: a person's, else the source's comment.
fn described(table: &CatalogEntry, found: Option<&str>) -> Option<String> {
    found.into_iter().chain([table.comment.as_str()]).find(|text| !text.is_empty()).map(str::to_owned)
}

/// The API's columns; a comment that somebody wrote there stays where the source has none.
fn columns(columns: &[CatalogColumn], found: &[Column]) -> Result<Vec<Column>> {
    let theirs: BTreeMap<&str, &str> = found.iter().filter_map(|column| Some((column.name(), column.comment()?))).collect();
    columns
        .iter()
        .map(|column| {
            let comment = match column.comment.as_str() {
                "" => theirs.get(column.name.as_str()).copied().unwrap_or_default(),
                ours => ours,
            };
            Column::builder().name(&column.name).r#type(&column.data_type).comment(comment).build().map_err(incomplete)
        })
        .collect()
}

/// The answer lists partitions for which the call failed; `harmless` is what another's doing at the same time looks like.
fn ensure_none<'a>(
    table: &CatalogEntry,
    errors: impl Iterator<Item = (&'a [String], Option<&'a aws_sdk_glue::types::ErrorDetail>)>,
    what: &'static str,
    harmless: Failure,
) -> Result<()> {
    for (values, detail) in errors {
        let code = detail.and_then(|detail| detail.error_code()).unwrap_or_default();
        if Failure::of_code(code) != harmless {
            let said = detail.and_then(|detail| detail.error_message()).unwrap_or("the service says no more");
            return Err(Error::new(Area::Lake, Kind::Transient, format!("a partition in the catalog can't be {what}"))
                .caused_by(std::io::Error::other(format!("{code}: {said}")))
                .with("table", format!("{}.{}", table.database, table.name))
                .with("partition", values.join("/")));
        }
    }
    Ok(())
}

fn incomplete(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::bug("a call to the catalog lacks a value").caused_by(error)
}

fn failed<E, R>(what: &'static str, error: &SdkError<E, R>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    let said = error_of(Area::Lake, what, error);
    // made by another at the same time: as a version that isn't the newest any more
    if Failure::of(error) == Failure::Busy { Error::new(Area::Lake, Kind::Conflict, what).caused_by(said) } else { said }
}
