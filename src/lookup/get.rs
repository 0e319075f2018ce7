//! Items got by their key, for tables that are too large to be read whole: what was asked for is kept for a while, also that an item isn't there.
//!
//! An answer counts only if it is an answer: keys that DynamoDB left unprocessed are asked for again, and if it goes on refusing, the commit that asks
//! is tried again later. So a throttled item is never taken for one that is missing.

use super::content::Item;
use super::key_text::{attribute, canonical};
use super::read::ItemValue;
use crate::cloud::{AwsUrl, Calls, Failure, error_of, sdk_config};
use crate::error::{Area, Error, Kind, Result};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, ScalarAttributeType};
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::Instant;

/// Keys a call of BatchGetItem takes.
const MOST_KEYS: usize = 100;
/// How often the SDK tries a call, and how often we ask for what was left unprocessed.
const ATTEMPTS: u32 = 8;
/// The pause before that grows from this …
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// … to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The values of a table's key, as text (binary in base64), in the order of its attributes.
pub type LookupKey = Vec<String>;

/// What is known of keys that were asked for.
#[derive(Debug)]
struct Known {
    until: Instant,
    /// `None`: there is no such item.
    item: Option<Item>,
}

/// Gets items of one table.
#[derive(Debug)]
pub(super) struct Getter {
    client: Client,
    table: String,
    key: Vec<(String, ScalarAttributeType)>,
    runtime: Handle,
    kept: Mutex<HashMap<LookupKey, Known>>,
    most_kept: usize,
    keep_for: Duration,
}

impl Getter {
    /// For the table of `url`; its key is asked for.
    pub(super) async fn open(url: &AwsUrl, most_kept: usize, keep_for: Duration) -> Result<Self> {
        let client = Client::new(&sdk_config(url, &Calls::retried(ATTEMPTS)).await?);
        let described = client.describe_table().table_name(&url.name).send().await;
        let described = described.map_err(|error| error_of(Area::Lake, "a lookup's table can't be looked at", &error))?;
        let table = described.table.ok_or_else(|| Error::bug("DynamoDB describes no table"))?;
        let kind = |name: &str| {
            let definition = table.attribute_definitions().iter().find(|definition| definition.attribute_name() == name);
            definition.map_or(ScalarAttributeType::S, |definition| definition.attribute_type().clone())
        };
        let names = table.key_schema().iter().map(|element| element.attribute_name().to_owned());
        let key = names.map(|name| (name.clone(), kind(&name))).collect();
        Ok(Self { client, table: url.name.clone(), key, runtime: Handle::current(), kept: Mutex::default(), most_kept, keep_for })
    }

    /// The names of the key's attributes.
    pub(super) fn key(&self) -> impl Iterator<Item = &str> {
        self.key.iter().map(|(name, _)| name.as_str())
    }

    /// The items that there are of these keys. Blocks: not for the runtime's own threads.
    pub(super) fn get(&self, keys: &[LookupKey]) -> Result<Vec<Item>> {
        let now = Instant::now();
        let mut found = Vec::new();
        // several spellings may be one key, which a call must not name twice
        let keys: HashSet<LookupKey> = keys.iter().filter_map(|key| self.canonical(key)).collect();
        let mut unknown = Vec::new();
        {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            for key in keys {
                match kept.get(&key).filter(|known| known.until > now) {
                    Some(known) => found.extend(known.item.clone()),
                    None => unknown.push(key),
                }
            }
        }
        for keys in unknown.chunks(MOST_KEYS) {
            let mut items = self.runtime.block_on(self.fetch(keys))?;
            let until = Instant::now() + self.keep_for;
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            self.make_room(&mut kept, keys.len());
            for key in keys {
                let item = items.remove(key);
                found.extend(item.clone());
                kept.insert(key.clone(), Known { until, item });
            }
        }
        Ok(found)
    }

    /// `None`: no item has such a key.
    fn canonical(&self, key: &LookupKey) -> Option<LookupKey> {
        self.key.iter().zip(key).enumerate().map(|(place, ((_, kind), text))| canonical(kind, place, text)).collect()
    }

    /// Forgets what is too old, and if that isn't enough, what will be first.
    fn make_room(&self, kept: &mut HashMap<LookupKey, Known>, wanted: usize) {
        if kept.len() + wanted <= self.most_kept {
            return;
        }
        let mut ends: Vec<Instant> = kept.values().map(|known| known.until).collect();
        ends.sort_unstable();
        let oldest = ends.get(ends.len() / 2).copied().unwrap_or_else(Instant::now).max(Instant::now());
        kept.retain(|_, known| known.until > oldest);
    }

    async fn fetch(&self, keys: &[LookupKey]) -> Result<HashMap<LookupKey, Item>> {
        let mut asked = KeysAndAttributes::builder().consistent_read(true);
        for key in keys {
            asked =
                asked.keys(self.key.iter().zip(key).map(|((name, kind), text)| (name.clone(), attribute(kind, text))).collect());
        }
        let asked = asked.build().map_err(|error| Error::bug("a call of DynamoDB can't be described").caused_by(error))?;
        let mut asked = Some(HashMap::from([(self.table.clone(), asked)]));
        let mut items = HashMap::new();
        let mut pause = FIRST_PAUSE;
        for _ in 0..ATTEMPTS {
            let answer = self.client.batch_get_item().set_request_items(asked.take()).send().await;
            let answer = answer.map_err(|error| match Failure::of(&error) {
                Failure::Throttled => throttled().with("table", &self.table),
                _ => error_of(Area::Lake, "a lookup's items can't be got", &error).with("table", &self.table),
            })?;
            for item in answer.responses.iter().flat_map(HashMap::values).flatten() {
                let key = self.key.iter().map(|(name, _)| item.get(name).map(text_of).unwrap_or_default()).collect();
                if let Some(key) = self.canonical(&key) {
                    items.insert(key, super::read::item_of(item));
                }
            }
            match answer.unprocessed_keys.filter(|left| !left.is_empty()) {
                None => return Ok(items),
                left => asked = left,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Err(throttled().with("table", &self.table))
    }
}

fn throttled() -> Error {
    Error::new(Area::Lake, Kind::Transient, "a lookup's table is throttled")
        .remedy("it is asked again; if it stays, raise the table's read capacity, or read it whole (`mode = \"scan\"`)")
}

/// A key's attribute: numbers with their digits, binary in base64.
fn text_of(value: &AttributeValue) -> String {
    let json = value.to_json();
    json.as_str().map_or_else(|| json.to_string(), str::to_owned)
}
