//! The Kinesis producer library's aggregated records: many records in one, told from others by a magic number and a checksum.
//!
//! Source: amazon-kinesis-producer, `aggregation-format.md`: four magic bytes, a protocol buffers message, the MD5 of that message. What lacks one of them is a
//! plain record, for every reader.

use bytes::Bytes;
use md5::{Digest, Md5};
use prost::Message;

const MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];
const CHECKSUM_BYTES: usize = 16;

#[derive(Clone, PartialEq, Message)]
struct AggregatedRecord {
    #[prost(string, repeated, tag = "1")]
    partition_key_table: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    explicit_hash_key_table: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    records: Vec<Record>,
}

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(uint64, required, tag = "1")]
    partition_key_index: u64,
    #[prost(uint64, optional, tag = "2")]
    explicit_hash_key_index: Option<u64>,
    #[prost(bytes = "bytes", required, tag = "3")]
    data: Bytes,
    #[prost(message, repeated, tag = "4")]
    tags: Vec<Tag>,
}

#[derive(Clone, PartialEq, Message)]
struct Tag {
    #[prost(string, required, tag = "1")]
    key: String,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

/// A record inside of an aggregated one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// Its partition key.
    pub partition_key: String,
    /// Its explicit hash key; `None`: the hash of the partition key.
    pub explicit_hash_key: Option<String>,
    /// What its producer wrote.
    pub bytes: Bytes,
}

/// One aggregated record of all of `records`. KCL drops records whose hash key isn't of the shard they are read from, so all should have the same explicit one.
pub fn aggregate(records: &[UserRecord]) -> Bytes {
    let mut message = AggregatedRecord::default();
    let mut keys = std::collections::HashMap::new();
    for record in records {
        let partition_key_index = *keys.entry(record.partition_key.as_str()).or_insert_with(|| {
            message.partition_key_table.push(record.partition_key.clone());
            message.partition_key_table.len() as u64 - 1
        });
        let explicit_hash_key_index = record.explicit_hash_key.as_ref().map(|key| {
            let known = message.explicit_hash_key_table.iter().position(|known| known == key);
            known.unwrap_or_else(|| {
                message.explicit_hash_key_table.push(key.clone());
                message.explicit_hash_key_table.len() - 1
            }) as u64
        });
        message.records.push(Record { partition_key_index, explicit_hash_key_index, data: record.bytes.clone(), tags: Vec::new() });
    }
    let mut bytes = Vec::with_capacity(MAGIC.len() + message.encoded_len() + CHECKSUM_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&message.encode_to_vec());
    let checksum = Md5::digest(&bytes[MAGIC.len()..]);
    bytes.extend_from_slice(&checksum);
    bytes.into()
}

/// Whether `record` begins as an aggregated one does.
pub fn is_aggregated(record: &[u8]) -> bool {
    record.starts_with(&MAGIC)
}

/// The records inside of `record`; `None` if it is a plain record: another beginning, a wrong checksum, no message.
pub fn deaggregate(record: &Bytes) -> Option<Vec<UserRecord>> {
    let end = record.len().checked_sub(CHECKSUM_BYTES).filter(|end| *end > MAGIC.len() && is_aggregated(record))?;
    let message = record.slice(MAGIC.len()..end);
    if Md5::digest(&message).as_slice() != &record[end..] {
        return None;
    }
    let message = AggregatedRecord::decode(message).ok()?;
    let at = |table: &[String], index: u64| table.get(usize::try_from(index).ok()?).cloned();
    message
        .records
        .into_iter()
        .map(|record| {
            Some(UserRecord {
                partition_key: at(&message.partition_key_table, record.partition_key_index)?,
                explicit_hash_key: match record.explicit_hash_key_index {
                    Some(index) => Some(at(&message.explicit_hash_key_table, index)?),
                    None => None,
                },
                bytes: record.data,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<UserRecord> {
        let record = |key: &str, hash: Option<&str>, text: &'static str| UserRecord {
            partition_key: key.into(),
            explicit_hash_key: hash.map(str::to_owned),
            bytes: Bytes::from_static(text.as_bytes()),
        };
        vec![record("a", Some("17"), "one"), record("b", None, ""), record("a", Some("17"), "größe"), record("c", Some("4"), "x")]
    }

    #[test]
    fn records_come_back_and_damage_makes_a_plain_record() {
        let bytes = aggregate(&records());
        assert_eq!(deaggregate(&bytes).unwrap(), records());
        assert_eq!(deaggregate(&aggregate(&[])).unwrap_or_default(), []);
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 0x20;
            assert_eq!(deaggregate(&damaged.into()), None, "byte {at}");
            assert_eq!(deaggregate(&bytes.slice(..at)), None, "{at} bytes");
        }
    }

    /// Made by `aws_kinesis_agg` 1.2.3: records "one", "two", "three" with keys a, b, a and explicit hash keys 1, 2, 1.
    #[test]
    fn a_record_of_the_python_library_is_read() {
        let sample = include_bytes!("../../tests/data/format/kpl-aws_kinesis_agg-1.2.3.bin");
        let read = deaggregate(&Bytes::from_static(sample)).unwrap();
        let texts: Vec<_> = read.iter().map(|r| (r.partition_key.as_str(), r.explicit_hash_key.as_deref(), &r.bytes[..])).collect();
        assert_eq!(texts, [("a", Some("1"), &b"one"[..]), ("b", Some("2"), b"two"), ("a", Some("1"), b"three")]);
    }
}
