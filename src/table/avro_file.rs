//! The Avro files of the timeline: object container files with one record, no compression, and the schema that Hudi 0.15 writes, byte for byte.
//!
//! Records are JSON on our side: [`encode`] takes what the record has and fills in the rest from the schema's defaults.
//! Specification: Avro 1.11, "Object Container Files" and "Binary Encoding".

use crate::error::{Area, Error, Kind, Result};
use apache_avro::types::Value as Avro;
use apache_avro::{Reader, Schema};
use serde_json::Value as Json;
use std::collections::HashMap;
use std::sync::LazyLock;

/// A schema of Hudi's, with the text that its files carry.
#[derive(Debug)]
pub(super) struct AvroSchema {
    /// In one line, keys in Hudi's order.
    pub(super) text: String,
    schema: Schema,
    names: HashMap<String, Schema>,
}

macro_rules! schemas {
    ($($(#[$doc:meta])* $name:ident = $file:literal;)*) => {
        $($(#[$doc])*
        pub(super) static $name: LazyLock<AvroSchema> = LazyLock::new(|| AvroSchema::parse(include_str!(concat!("avsc/", $file))));)*
    };
}

schemas! {
    /// `.clean.requested` and `.clean.inflight`.
    CLEANER_PLAN = "HoodieCleanerPlan.avsc";
    /// `.clean`.
    CLEAN_METADATA = "HoodieCleanMetadata.avsc";
    /// `.rollback.requested`.
    ROLLBACK_PLAN = "HoodieRollbackPlan.avsc";
    /// `.rollback`.
    ROLLBACK_METADATA = "HoodieRollbackMetadata.avsc";
    /// `.restore`.
    #[cfg(test)]
    RESTORE_METADATA = "HoodieRestoreMetadata.avsc";
    /// `.savepoint`.
    SAVEPOINT_METADATA = "HoodieSavepointMetadata.avsc";
    /// `.replacecommit.requested`.
    REQUESTED_REPLACE = "HoodieRequestedReplaceMetadata.avsc";
    /// A record of the archived timeline.
    ARCHIVED_ENTRY = "HoodieArchivedMetaEntry.avsc";
}

impl AvroSchema {
    fn parse(text: &str) -> Self {
        #[expect(clippy::expect_used, reason = "the texts are part of the program, and each is parsed by a test")]
        let json: Json = serde_json::from_str(text).expect("a schema of the program is JSON");
        #[expect(clippy::expect_used, reason = "the texts are part of the program, and each is parsed by a test")]
        let schema = Schema::parse(&json).expect("a schema of the program is Avro");
        let mut names = HashMap::new();
        collect_names(&schema, &mut names);
        Self { text: json.to_string(), schema, names }
    }

    /// The record's bytes alone, without a container.
    pub(super) fn encode_datum(&self, record: &Json) -> Result<Vec<u8>> {
        let value = self.value(&self.schema, record)?;
        apache_avro::to_avro_datum(&self.schema, value)
            .map_err(|error| Error::bug("a timeline record can't be written as Avro").caused_by(error))
    }

    /// A container file with this one record. `sync` is the file's sync marker: any 16 bytes.
    pub(super) fn encode(&self, record: &Json, sync: [u8; 16]) -> Result<Vec<u8>> {
        let datum = self.encode_datum(record)?;
        let mut file = b"Obj\x01".to_vec();
        put_long(&mut file, 1);
        put_bytes(&mut file, b"avro.schema");
        put_bytes(&mut file, self.text.as_bytes());
        put_long(&mut file, 0);
        file.extend_from_slice(&sync);
        put_long(&mut file, 1);
        put_bytes(&mut file, &datum);
        file.extend_from_slice(&sync);
        Ok(file)
    }

    /// JSON as a value of `schema`; what a record lacks is its field's default.
    fn value(&self, schema: &Schema, json: &Json) -> Result<Avro> {
        let mismatch = || Error::bug(format!("a timeline record has no {schema:?} where its schema wants one"));
        Ok(match schema {
            Schema::Ref { name } => self.value(self.names.get(&name.fullname(None)).ok_or_else(mismatch)?, json)?,
            Schema::Union(union) => {
                let wanted = union.variants().iter().position(|variant| matches!(variant, Schema::Null) == json.is_null());
                let index = wanted.ok_or_else(mismatch)?;
                let variant = union.variants().get(index).ok_or_else(mismatch)?;
                Avro::Union(u32::try_from(index).unwrap_or(0), Box::new(self.value(variant, json)?))
            }
            Schema::Null => Avro::Null,
            Schema::Boolean => Avro::Boolean(json.as_bool().ok_or_else(mismatch)?),
            Schema::Int => Avro::Int(json.as_i64().and_then(|number| i32::try_from(number).ok()).ok_or_else(mismatch)?),
            Schema::Long => Avro::Long(json.as_i64().ok_or_else(mismatch)?),
            Schema::Double => Avro::Double(json.as_f64().ok_or_else(mismatch)?),
            Schema::String => Avro::String(json.as_str().ok_or_else(mismatch)?.to_owned()),
            Schema::Array(array) => {
                let items = json.as_array().ok_or_else(mismatch)?;
                Avro::Array(items.iter().map(|item| self.value(&array.items, item)).collect::<Result<_>>()?)
            }
            Schema::Map(map) => {
                let entries = json.as_object().ok_or_else(mismatch)?.iter();
                let entries = entries.map(|(key, value)| Ok((key.clone(), self.value(&map.types, value)?)));
                Avro::Map(entries.collect::<Result<_>>()?)
            }
            Schema::Record(record) => {
                let fields = record.fields.iter().map(|field| {
                    let value = json.get(&field.name).or(field.default.as_ref()).unwrap_or(&Json::Null);
                    Ok((field.name.clone(), self.value(&field.schema, value)?))
                });
                Avro::Record(fields.collect::<Result<_>>()?)
            }
            _ => return Err(mismatch()),
        })
    }
}

/// The one record of a container file, by the schema that it carries, as JSON.
pub(super) fn decode(bytes: &[u8], path: &str) -> Result<Json> {
    let corrupt = |what: &'static str| Error::new(Area::Lake, Kind::Corrupt, what).with("path", path);
    let damaged = |error: apache_avro::Error| corrupt("a file of the timeline is damaged").caused_by(error);
    let record = Reader::new(bytes).map_err(damaged)?.next().ok_or_else(|| corrupt("a file of the timeline is empty"))?;
    Json::try_from(record.map_err(damaged)?).map_err(damaged)
}

fn collect_names(schema: &Schema, names: &mut HashMap<String, Schema>) {
    match schema {
        Schema::Record(record) if names.insert(record.name.fullname(None), schema.clone()).is_none() => {
            record.fields.iter().for_each(|field| collect_names(&field.schema, names));
        }
        Schema::Union(union) => union.variants().iter().for_each(|variant| collect_names(variant, names)),
        Schema::Array(array) => collect_names(&array.items, names),
        Schema::Map(map) => collect_names(&map.types, names),
        _ => {}
    }
}

fn put_long(out: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push(u8::try_from(rest & 0x7f).unwrap_or(0) | 0x80);
        rest >>= 7;
    }
    out.push(u8::try_from(rest).unwrap_or(0));
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_long(out, i64::try_from(bytes.len()).unwrap_or(i64::MAX));
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A file of a table that Spark wrote.
    fn sample(name: &str) -> Vec<u8> {
        let path = format!("{}/tests/data/hudi/timeline/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    #[test]
    fn our_files_are_sparks_byte_for_byte() {
        let files: [(&str, &AvroSchema); 5] = [
            ("20261121141621562.clean", &CLEAN_METADATA),
            ("20261121141621562.clean.requested", &CLEANER_PLAN),
            ("20261121141621562.clean.inflight", &CLEANER_PLAN),
            ("20261121142007689.replacecommit.requested", &REQUESTED_REPLACE),
            ("20261121142002836.rollback.requested", &ROLLBACK_PLAN),
        ];
        for (name, schema) in files {
            let sparks = sample(name);
            let sync: [u8; 16] = sparks[sparks.len() - 16..].try_into().unwrap();
            let record = decode(&sparks, name).unwrap();
            assert_eq!(schema.encode(&record, sync).unwrap(), sparks, "{name}");
        }
    }

    #[test]
    fn maps_of_several_entries_differ_in_order_alone() {
        let files: [(&str, &AvroSchema); 3] = [
            ("20261121142002836.rollback", &ROLLBACK_METADATA),
            ("20261121141926990.savepoint", &SAVEPOINT_METADATA),
            ("20261121142435181.restore", &RESTORE_METADATA),
        ];
        for (name, schema) in files {
            let sparks = sample(name);
            let sync: [u8; 16] = sparks[sparks.len() - 16..].try_into().unwrap();
            let record = decode(&sparks, name).unwrap();
            let ours = schema.encode(&record, sync).unwrap();
            let head = 4 + 1 + 12 + 2 + schema.text.len() + 1 + 16;
            assert_eq!((ours.len(), &ours[..head]), (sparks.len(), &sparks[..head]), "{name}");
            assert_eq!(decode(&ours, name).unwrap(), record, "{name}");
        }
    }

    #[test]
    fn what_a_record_lacks_is_its_default() {
        let record = json!({"startCleanTime": "1", "timeTakenInMillis": 1, "totalFilesDeleted": 0, "earliestCommitToRetain": "",
            "partitionMetadata": {}});
        let back = decode(&CLEAN_METADATA.encode(&record, [7; 16]).unwrap(), "x").unwrap();
        assert_eq!(back["version"], 1);
        assert_eq!(back["lastCompletedCommitTimestamp"], "");
        assert_eq!(back["extraMetadata"], Json::Null);
    }

    #[test]
    fn every_schema_parses_and_damage_is_an_error() {
        for schema in [&*SAVEPOINT_METADATA, &*RESTORE_METADATA, &*ARCHIVED_ENTRY] {
            assert!(schema.text.starts_with(r#"{"type":"record","name":"Hoodie"#));
        }
        let whole = REQUESTED_REPLACE.encode(&json!({}), [1; 16]).unwrap();
        for length in 0..whole.len() {
            assert_eq!(decode(&whole[..length], "x").unwrap_err().kind(), Kind::Corrupt, "{length}");
        }
    }
}
