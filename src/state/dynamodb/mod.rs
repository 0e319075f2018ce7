//! The state store in DynamoDB: for several machines.
//!
//! Two tables, made if they aren't there, paid by request: the one that is named (hash key `leaseKey`: leases in the layout of the Kinesis Client
//! Library, epochs beside them, told apart by `entityType`), and `<name>-runs` for the audit (hash key `pipeline`, range key `run`, which
//! begins with the run's start; items go after `expiresAt`), with the revisions of the rules beside it.

mod item;
mod leases;
mod rules;
mod runs;
mod tables;

use crate::cloud::{AwsUrl, Calls, Failure, error_of, sdk_config};
use crate::error::{Area, Error, Kind, Result};
use crate::event::Epoch;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use item::{ENTITY_TYPE, EPOCH, LEASE_KEY, number, text};
use std::sync::Arc;

/// How often the SDK tries a call.
const ATTEMPTS: u32 = 5;
/// How often an epoch is tried for while others take theirs.
const EPOCH_TRIES: usize = 50;
const EPOCH_VALUE: &str = "epoch";

/// A store in two tables of DynamoDB.
#[derive(Debug, Clone)]
pub(super) struct DynamoStore {
    client: Client,
    table: Arc<str>,
    runs_table: Arc<str>,
}

impl DynamoStore {
    pub(super) async fn open(url: &AwsUrl) -> Result<Self> {
        let config = sdk_config(url, &Calls::retried(ATTEMPTS)).await?;
        Self::over(Client::new(&config), &url.name).await.map_err(|error| error.with("state", url))
    }

    pub(super) async fn over(client: Client, table: &str) -> Result<Self> {
        let store = Self { client, table: table.into(), runs_table: format!("{table}-runs").into() };
        store.ensure_tables().await?;
        Ok(store)
    }

    pub(super) async fn known_epoch(&self, stream_id: &str) -> Result<Option<Epoch>> {
        let read =
            self.client.get_item().table_name(&*self.table).key(LEASE_KEY, text(&epoch_key(stream_id))).consistent_read(true);
        let read = read.send().await.map_err(|error| self.failed("an epoch can't be read", &error))?;
        let Some(item) = read.item else { return Ok(None) };
        let epoch = item.get(EPOCH_VALUE).and_then(|value| value.as_n().ok()).and_then(|digits| digits.parse().ok());
        epoch.map(|epoch| Some(Epoch(epoch))).ok_or_else(|| {
            Error::new(Area::Config, Kind::Corrupt, "an epoch in the state store can't be read")
                .with("table", &self.table)
                .with("key", epoch_key(stream_id))
                .remedy("delete the item: the stream says which epochs there were")
        })
    }

    pub(super) async fn take_epoch(&self, stream_id: &str, seen: Option<Epoch>) -> Result<Epoch> {
        for _ in 0..EPOCH_TRIES {
            let known = self.known_epoch(stream_id).await?;
            let next = Epoch(known.max(seen).unwrap_or_default().0 + 1);
            let put = self
                .client
                .put_item()
                .table_name(&*self.table)
                .item(LEASE_KEY, text(&epoch_key(stream_id)))
                .item(ENTITY_TYPE, text(EPOCH))
                .item(EPOCH_VALUE, number(next.0));
            let put = match known {
                None => put.condition_expression("attribute_not_exists(leaseKey)"),
                Some(known) => put.condition_expression("epoch = :known").expression_attribute_values(":known", number(known.0)),
            };
            // a lost answer costs an epoch, never gives one twice: another attempt of the same finds it taken, and goes on to the next
            if self.happened("an epoch can't be taken", put.send().await)? {
                return Ok(next);
            }
        }
        Err(Error::new(Area::Config, Kind::Transient, "too many others take epochs").with("table", &self.table))
    }

    /// Whether a conditional write happened: `false` if its condition wasn't met.
    fn happened<T, E, R>(&self, what: &'static str, answer: std::result::Result<T, SdkError<E, R>>) -> Result<bool>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        match answer {
            Ok(_) => Ok(true),
            Err(error) if Failure::of(&error) == Failure::Condition => Ok(false),
            Err(error) => Err(self.failed(what, &error)),
        }
    }

    fn failed<E, R>(&self, what: &'static str, error: &SdkError<E, R>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        match Failure::of(error) {
            Failure::Missing => refused(what, error)
                .remedy("the table was deleted: start binlake again, which makes it anew; only the audit is lost"),
            Failure::Throttled => error_of(Area::Config, what, error)
                .remedy("it is tried again; if it stays, raise the table's capacity or bill it on demand (PAY_PER_REQUEST)"),
            _ => error_of(Area::Config, what, error),
        }
        .with("table", &self.table)
    }
}

/// A refusal whose remedy we know better than the general one.
fn refused<E, R>(what: &'static str, error: &SdkError<E, R>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    let said = error
        .as_service_error()
        .map(|service| format!("{}: {}", service.code().unwrap_or("no code"), service.message().unwrap_or("no message")));
    Error::new(Area::Config, Kind::Refused, what).caused_by(std::io::Error::other(said.unwrap_or_else(|| error.to_string())))
}

fn epoch_key(stream_id: &str) -> String {
    format!("{stream_id}/epoch")
}
