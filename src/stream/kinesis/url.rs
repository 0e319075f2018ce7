//! `kinesis://tickets-cdc?region=eu-west-1&endpoint=http://127.0.0.1:4568&create=4&consumer=efo&settle=5s&poll=200ms`.

use crate::cloud::AwsUrl;
use crate::setting::parse_duration;
use std::time::Duration;

/// Amazon lets all consumers of a shard read five times a second together.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Who reads for so long stays.
const SETTLES_AFTER: Duration = Duration::from_secs(5);
/// The name of the enhanced fan-out consumer where the URL has none.
const CONSUMER: &str = "binlake";

/// A Kinesis stream, and how it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KinesisUrl {
    /// Name, region, endpoint, profile.
    pub aws: AwsUrl,
    /// `create=4`, `create=on-demand`: the stream is made if there is none.
    pub create: Option<Shards>,
    /// `consumer=efo`, `consumer=efo:name`: enhanced fan-out, with a consumer of this name; else records are polled.
    pub fan_out: Option<String>,
    /// `poll=200ms`: the least time between two reads of a shard.
    pub poll_interval: Duration,
    /// `settle=5s`: with a fan-out, a reader polls for so long before it subscribes.
    pub settles_after: Duration,
}

/// How a stream is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shards {
    /// With so many shards.
    Provisioned(u32),
    /// With as many as it needs.
    OnDemand,
}

impl KinesisUrl {
    /// Reads the URL.
    ///
    /// # Errors
    /// What is wrong with it, and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut aws = AwsUrl::parse(text, "kinesis")?;
        let create = match aws.options.remove("create").as_deref() {
            None => None,
            Some("on-demand") => Some(Shards::OnDemand),
            Some(count) => match count.parse() {
                Ok(count @ 1..=100_000) => Some(Shards::Provisioned(count)),
                _ => return Err(format!("`create={count}` is no number of shards; write create=4 or create=on-demand")),
            },
        };
        let fan_out = match aws.options.remove("consumer").as_deref() {
            None | Some("polling") => None,
            Some("efo") => Some(CONSUMER.to_owned()),
            Some(other) => match other.strip_prefix("efo:").filter(|name| !name.is_empty()) {
                Some(name) => Some(name.to_owned()),
                None => {
                    return Err(format!(
                        "there is no consumer `{other}`; write consumer=efo, consumer=efo:name or consumer=polling"
                    ));
                }
            },
        };
        let poll_interval = match aws.options.remove("poll") {
            None => POLL_INTERVAL,
            Some(text) => parse_duration(&text)?,
        };
        let settles_after = match aws.options.remove("settle") {
            None => SETTLES_AFTER,
            Some(text) => parse_duration(&text)?,
        };
        aws.no_other_options(&["create", "consumer", "poll", "settle"])?;
        Ok(Self { aws, create, fan_out, poll_interval, settles_after })
    }
}

impl std::fmt::Display for KinesisUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.aws.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_options() {
        let url = KinesisUrl::parse("kinesis://s?region=r&create=4&consumer=efo&poll=50ms&settle=0s").unwrap();
        assert_eq!((url.create, url.fan_out.as_deref()), (Some(Shards::Provisioned(4)), Some("binlake")));
        assert_eq!((url.poll_interval, url.settles_after), (Duration::from_millis(50), Duration::ZERO));
        assert_eq!(url.to_string(), "kinesis://s?region=r");
        let url = KinesisUrl::parse("kinesis://s?create=on-demand&consumer=efo:mine").unwrap();
        assert_eq!((url.create, url.fan_out.as_deref()), (Some(Shards::OnDemand), Some("mine")));
        for wrong in ["kinesis://s?create=0", "kinesis://s?consumer=x", "kinesis://s?poll=5", "kinesis://s?shards=4"] {
            assert!(KinesisUrl::parse(wrong).is_err(), "{wrong}");
        }
    }
}
