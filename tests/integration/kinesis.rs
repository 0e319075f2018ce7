//! The log on Kinesis, against a faithful stand-in (kinesis-local), and with faults that it doesn't have by a proxy of our own.

mod fan_out;
pub(crate) mod faults;
mod generate;
mod kcl;
mod large;
mod order;
pub(crate) mod proxy;
pub(crate) mod push;
pub(crate) mod reshard;
mod stand_in;
mod whole;

pub(crate) use stand_in::StandIn;

use crate::event_log_suite::{LANES, Subject, all};
use async_trait::async_trait;
use binlake::error::Kind;
use binlake::stream::kinesis::KinesisUrl;
use binlake::stream::{EventLog, KinesisLog};
use std::sync::Arc;

/// Logs with some shards each, over the stand-in or over a proxy before it.
pub(crate) struct OnKinesis {
    pub(crate) endpoint: String,
    pub(crate) shards: u32,
    /// More of the URL.
    pub(crate) options: &'static str,
    url: Option<KinesisUrl>,
}

impl OnKinesis {
    pub(crate) fn new(endpoint: String, shards: u32) -> Self {
        Self { endpoint, shards, options: "", url: None }
    }

    pub(crate) fn fresh_url(&self) -> KinesisUrl {
        let name = uuid::Uuid::new_v4();
        let (endpoint, shards, options) = (&self.endpoint, self.shards, self.options);
        KinesisUrl::parse(&format!("kinesis://t{name}?endpoint={endpoint}&create={shards}&poll=5ms{options}")).unwrap()
    }
}

#[async_trait]
impl Subject for OnKinesis {
    async fn fresh(&mut self) -> Arc<dyn EventLog> {
        let url = self.url.insert(self.fresh_url());
        Arc::new(KinesisLog::open(url, LANES).await.unwrap())
    }

    async fn reopen(&mut self, log: Arc<dyn EventLog>) -> Arc<dyn EventLog> {
        drop(log);
        Arc::new(KinesisLog::open(self.url.as_ref().unwrap(), LANES).await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_on_kinesis() {
    all(&mut OnKinesis::new(StandIn::shared().endpoint(), 3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_there_and_one_with_other_lanes() {
    let subject = OnKinesis::new(StandIn::shared().endpoint(), 1);
    let missing = KinesisUrl::parse(&format!("kinesis://missing?endpoint={}", subject.endpoint)).unwrap();
    assert!(KinesisLog::open_to_read(&missing, LANES).await.unwrap().is_none());
    let error = KinesisLog::open(&missing, LANES).await.unwrap_err();
    assert_eq!((error.kind(), error.exit_code()), (Kind::Refused, 4));
    assert!(error.to_string().contains("create=4"), "{error}");
    let url = subject.fresh_url();
    KinesisLog::open(&url, LANES).await.unwrap();
    let error = KinesisLog::open(&url, LANES + 1).await.unwrap_err();
    assert_eq!((error.kind(), error.exit_code()), (Kind::Config, 2));
    let read = KinesisLog::open_to_read(&url, LANES + 1).await.unwrap().unwrap();
    assert_eq!(read.identity().lanes, LANES, "the stream itself says it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_deleted_is_said_to_be_gone() {
    let stand_in = StandIn::shared();
    let mut subject = OnKinesis::new(stand_in.endpoint(), 1);
    let log = subject.fresh().await;
    let mut reader = log.read(None).await.unwrap();
    assert!(reader.next().await.unwrap().is_empty());
    stand_in.client().await.delete_stream().stream_name(&subject.url.as_ref().unwrap().aws.name).send().await.unwrap();
    let record = binlake::stream::LaneRecord { lane: binlake::event::Lane(0), bytes: "x".into(), partition_key: None };
    let error = log.append(vec![record]).await.unwrap_err();
    assert_eq!((error.kind(), error.exit_code()), (Kind::Refused, 4), "{error}");
    let error = loop {
        match reader.next().await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.exit_code(), 4, "{error}");
}
