//! The bytes of the archived timeline (layout version 1): Hudi log files of Avro blocks with `HoodieArchivedMetaEntry` records. Pure.
//!
//! A block: `#HUDI#`, its length behind this number (i64), log version 1 (i32), block type 3 = Avro data (i32), headers (i32 count; each i32 key,
//! i32 length, bytes; key 2 is the schema), content length (i64), content (i32 version 3, i32 records; each i32 length and Avro), footers (i32 count: 0),
//! and the block's length with the magic (i64). All big endian. From Hudi's `HoodieLogFormatWriter` and `HoodieAvroDataBlock`.

use crate::error::Result;
use crate::table::avro_file::{ARCHIVED_ENTRY, AvroSchema};
use serde_json::Value;

const MAGIC: &[u8; 6] = b"#HUDI#";
const LOG_VERSION: i32 = 1;
const AVRO_DATA_BLOCK: i32 = 3;
const SCHEMA_HEADER: i32 = 2;
const CONTENT_VERSION: i32 = 3;

/// One block with these records.
pub(in crate::table) fn block(records: &[Value]) -> Result<Vec<u8>> {
    let schema: &AvroSchema = &ARCHIVED_ENTRY;
    let mut content = Vec::new();
    put_i32(&mut content, CONTENT_VERSION);
    put_i32(&mut content, length(records.len()));
    for record in records {
        let datum = schema.encode_datum(record)?;
        put_i32(&mut content, length(datum.len()));
        content.extend_from_slice(&datum);
    }
    let mut rest = Vec::with_capacity(content.len() + schema.text.len() + 64);
    put_i32(&mut rest, LOG_VERSION);
    put_i32(&mut rest, AVRO_DATA_BLOCK);
    put_i32(&mut rest, 1);
    put_i32(&mut rest, SCHEMA_HEADER);
    put_i32(&mut rest, length(schema.text.len()));
    rest.extend_from_slice(schema.text.as_bytes());
    put_i64(&mut rest, content.len());
    rest.extend_from_slice(&content);
    put_i32(&mut rest, 0);

    let total = rest.len() + 8;
    let mut block = Vec::with_capacity(total + MAGIC.len() + 8);
    block.extend_from_slice(MAGIC);
    put_i64(&mut block, total);
    block.extend_from_slice(&rest);
    put_i64(&mut block, total + MAGIC.len());
    Ok(block)
}

fn length(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

fn put_i32(out: &mut Vec<u8>, number: i32) {
    out.extend_from_slice(&number.to_be_bytes());
}

fn put_i64(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(&i64::try_from(number).unwrap_or(i64::MAX).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use apache_avro::{Schema, from_avro_datum};

    /// The records of a log file, and the bytes of each block.
    fn read(mut bytes: &[u8]) -> Vec<(Vec<Value>, Vec<u8>)> {
        let mut blocks = Vec::new();
        while !bytes.is_empty() {
            assert_eq!(&bytes[..6], MAGIC);
            let number = |at: usize| usize::try_from(i32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())).unwrap();
            let total = usize::try_from(i64::from_be_bytes(bytes[6..14].try_into().unwrap())).unwrap();
            let schema_length = number(30);
            let schema = std::str::from_utf8(&bytes[34..34 + schema_length]).unwrap();
            assert_eq!(schema, ARCHIVED_ENTRY.text, "the schema is Hudi's, byte for byte");
            let schema = Schema::parse_str(schema).unwrap();
            let content = 34 + schema_length + 8;
            let mut at = content + 8;
            let mut records = Vec::new();
            for _ in 0..number(content + 4) {
                let datum = &bytes[at + 4..at + 4 + number(at)];
                records.push(from_avro_datum(&schema, &mut &datum[..], None).unwrap().try_into().unwrap());
                at += 4 + datum.len();
            }
            blocks.push((records, bytes[..14 + total].to_vec()));
            bytes = &bytes[14 + total..];
        }
        blocks
    }

    #[test]
    fn a_log_that_hudi_wrote_is_written_again_but_for_the_order_in_maps() {
        let path = format!("{}/tests/data/hudi/timeline/.commits_.archive.1_1-0-1", env!("CARGO_MANIFEST_DIR"));
        let hudis = std::fs::read(path).unwrap();
        let blocks = read(&hudis);
        assert_eq!(blocks.len(), 1);
        assert_eq!(blocks[0].0.len(), 6);
        let ours = block(&blocks[0].0).unwrap();
        let head = 34 + ARCHIVED_ENTRY.text.len() + 16;
        assert!(ours.len() == hudis.len() && ours[..head] == hudis[..head] && ours[ours.len() - 12..] == hudis[hudis.len() - 12..]);
        assert!(read(&ours)[0].0 == blocks[0].0);
    }

    #[test]
    fn blocks_follow_one_another() {
        let record = |time: &str| serde_json::json!({"commitTime": time, "actionType": "commit", "actionState": "COMPLETED"});
        let mut log = block(&[record("1"), record("2")]).unwrap();
        log.extend(block(&[record("3")]).unwrap());
        let blocks = read(&log);
        let times: Vec<&Value> = blocks.iter().flat_map(|(records, _)| records).map(|record| &record["commitTime"]).collect();
        assert_eq!(times, ["1", "2", "3"]);
    }
}
