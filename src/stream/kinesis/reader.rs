//! Reading a stream: all its shards, each by a task of its own, parents before children.

use super::client::StreamClient;
use super::fan_out::FanOut;
use super::position::{ShardId, StreamPosition};
use super::shard::{Said, ShardTask, StreamRecord};
use super::shards::{ListedShard, ShardTree};
use super::url::KinesisUrl;
use crate::error::{Error, Result};
use crate::metrics::KINESIS_SHARDS;
use crate::time::Timestamp;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Batches (of up to 10 MiB) that are under way at once, over all shards.
const MOST_BATCHES: usize = 8;
/// How long `next` waits for something new.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the children of an ended shard are looked for.
const LISTING_INTERVAL: Duration = Duration::from_millis(300);

/// Reads all shards of a stream. Records of one hash key come in the order in which they were put, also when the stream is resharded.
#[derive(Debug)]
pub struct StreamReader {
    client: Arc<StreamClient>,
    fan_out: Option<Arc<FanOut>>,
    poll_interval: Duration,
    settles_at: Instant,
    tree: ShardTree,
    tasks: HashMap<ShardId, AbortHandle>,
    /// Shards that have ended and whose children aren't listed yet.
    ended: Vec<ShardId>,
    next_listing: Instant,
    /// Shards that have said that they have no more.
    quiet: HashSet<ShardId>,
    /// Whether it was said that nothing is new.
    told_quiet: bool,
    batches: Arc<Semaphore>,
    sender: mpsc::Sender<(ShardId, Said)>,
    receiver: mpsc::Receiver<(ShardId, Said)>,
}

impl StreamReader {
    /// Begins to read.
    ///
    /// # Errors
    /// `Corrupt` where the position names shards that the stream no longer has; those of listing the shards.
    pub(crate) async fn open(
        client: Arc<StreamClient>,
        fan_out: Option<Arc<FanOut>>,
        url: &KinesisUrl,
        position: &StreamPosition,
    ) -> Result<Self> {
        let now = Timestamp::now();
        let listed = list(&client).await?;
        let tree = ShardTree::new(listed, position, now)?;
        let (sender, receiver) = mpsc::channel(1);
        let now = Instant::now();
        let mut reader = Self {
            client,
            fan_out,
            poll_interval: url.poll_interval,
            settles_at: now + url.settles_after,
            tree,
            tasks: HashMap::new(),
            ended: Vec::new(),
            next_listing: now,
            quiet: HashSet::new(),
            told_quiet: false,
            batches: Arc::new(Semaphore::new(MOST_BATCHES)),
            sender,
            receiver,
        };
        reader.start_tasks();
        Ok(reader)
    }

    /// Reads those shards that are to be read.
    fn start_tasks(&mut self) {
        for (shard, place) in self.tree.active() {
            if self.tasks.contains_key(shard) {
                continue;
            }
            let task = ShardTask {
                client: self.client.clone(),
                shard: shard.clone(),
                place: place.clone(),
                continues_after: None,
                poll_interval: self.poll_interval,
                batches: self.batches.clone(),
                said: self.sender.clone(),
                fan_out: self.fan_out.clone(),
                settles_at: self.settles_at,
            };
            self.tasks.insert(shard.clone(), tokio::spawn(task.run()).abort_handle());
        }
        metrics::gauge!(KINESIS_SHARDS).set(self.tasks.len() as f64);
    }

    /// The next records; waits until there are some. Cancel safe. An empty answer means: nothing new at the moment. The first one after
    /// records, and the first of all, comes as soon as all shards have said so; later ones after a second.
    ///
    /// # Errors
    /// `Transient` where a shard couldn't be read for a minute; `Refused` where the stream is gone; `Corrupt` where records are lost.
    pub async fn next(&mut self) -> Result<Vec<StreamRecord>> {
        loop {
            let is_quiet = self.ended.is_empty() && self.tasks.keys().all(|shard| self.is_quiet(shard));
            if is_quiet && !std::mem::replace(&mut self.told_quiet, true) {
                return Ok(Vec::new());
            }
            let deadline = if is_quiet { Some(Instant::now() + PATIENCE) } else { None };
            let listing = (!self.ended.is_empty()).then_some(self.next_listing);
            let (shard, said) = tokio::select! {
                said = self.receiver.recv() => said.ok_or_else(|| Error::bug("a stream's reader has no sender"))?,
                () = until(deadline) => return Ok(Vec::new()),
                () = until(listing) => {
                    self.begin_children().await?;
                    continue;
                }
            };
            match said {
                Said::Records { records, is_all } => {
                    if is_all {
                        self.quiet.insert(shard.clone());
                    } else {
                        self.quiet.remove(&shard);
                    }
                    self.told_quiet = false;
                    if let Some(last) = records.last() {
                        self.tree.advance(&shard, last.sequence_number.clone());
                    }
                    return Ok(records);
                }
                Said::CaughtUp => drop(self.quiet.insert(shard)),
                Said::Ended => {
                    self.tasks.remove(&shard);
                    self.ended.push(shard);
                    self.next_listing = Instant::now();
                }
                Said::Failed(error) => return Err(error),
            }
        }
    }

    /// Whether a shard has nothing new. A closed one has: it ends, and then its children are read.
    fn is_quiet(&self, shard: &ShardId) -> bool {
        self.quiet.contains(shard) && !self.tree.is_closed(shard)
    }

    /// Looks for the children of ended shards. Cancel safe: what was not done is done by the next call.
    async fn begin_children(&mut self) -> Result<()> {
        self.next_listing = Instant::now() + LISTING_INTERVAL;
        let listed = list(&self.client).await?;
        for shard in std::mem::take(&mut self.ended) {
            self.tree.ended(&shard, listed.clone());
            if self.tree.has_children(&shard) {
                tracing::info!(shard = shard.0, "a shard was read to its end; its children go on");
            } else {
                self.ended.push(shard);
            }
        }
        self.start_tasks();
        Ok(())
    }

    /// A position such that reading from it gives all records that `next` has not yet given out.
    pub fn position(&self) -> StreamPosition {
        self.tree.position()
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        self.tasks.values().for_each(AbortHandle::abort);
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// All shards, closed ones among them.
async fn list(client: &StreamClient) -> Result<Vec<ListedShard>> {
    let mut listed = Vec::new();
    let mut token: Option<String> = None;
    let mut trouble = super::shard::Trouble::default();
    loop {
        let call = client.sdk().list_shards();
        // a token names the stream itself
        let call = match &token {
            Some(token) => call.next_token(token),
            None => call.stream_name(client.name()),
        };
        let output = match call.send().await {
            Ok(output) => output,
            Err(error) => {
                let failure = crate::cloud::Failure::of(&error);
                if failure == crate::cloud::Failure::Credentials {
                    client.renew().await;
                }
                if failure == crate::cloud::Failure::Missing {
                    return Err(client.gone());
                }
                trouble.wait_after(client.said("the stream's shards can't be listed", &error)).await?;
                continue;
            }
        };
        for shard in output.shards() {
            let parents = [shard.parent_shard_id(), shard.adjacent_parent_shard_id()];
            listed.push(ListedShard {
                id: ShardId(shard.shard_id.clone()),
                parents: parents.into_iter().flatten().map(|parent| ShardId(parent.to_owned())).collect(),
                is_closed: shard.sequence_number_range().is_some_and(|range| range.ending_sequence_number().is_some()),
            });
        }
        token = output.next_token;
        if token.is_none() {
            return Ok(listed);
        }
    }
}
