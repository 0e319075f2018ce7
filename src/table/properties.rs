//! `.hoodie/hoodie.properties`: what a table is, in Java's properties format. Specification: `java.util.Properties.load` and `.store`;
//! the keys are those of Hudi's `HoodieTableConfig`.

use super::TableSpec;
use crate::error::{Area, Error, Kind, Result};
use crate::time::Timestamp;
use std::fmt::Write;

/// Where it lies, below the table.
pub(super) const PROPERTIES_FILE: &str = ".hoodie/hoodie.properties";

/// What Spark's writer says about its metadata table; absent or empty where there is none.
const METADATA_PREFIX: &str = "hoodie.table.metadata.partitions";

/// Our own: see `TableSpec::sort_prefix`.
const SORT_PREFIX: &str = "binlake.table.sort.prefix";

/// A table's properties, in the order of the file; unknown ones are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableProperties {
    entries: Vec<(String, String)>,
}

impl TableProperties {
    /// The properties of a new table.
    pub(super) fn of(spec: &TableSpec) -> Self {
        let hive_style = !spec.partition_columns.is_empty();
        let checksum = crc32fast::hash(format!("{}.{}", spec.database, spec.name).as_bytes());
        let entries = [
            ("hoodie.table.type", "COPY_ON_WRITE".to_owned()),
            ("hoodie.table.precombine.field", spec.ordering_field.clone()),
            ("hoodie.table.partition.fields", spec.partition_columns.join(",")),
            ("hoodie.table.cdc.enabled", "false".to_owned()),
            ("hoodie.archivelog.folder", "archived".to_owned()),
            ("hoodie.timeline.layout.version", "1".to_owned()),
            ("hoodie.table.checksum", checksum.to_string()),
            ("hoodie.datasource.write.drop.partition.columns", "false".to_owned()),
            ("hoodie.table.timeline.timezone", "UTC".to_owned()),
            ("hoodie.table.recordkey.fields", spec.record_key.join(",")),
            ("hoodie.table.name", spec.name.clone()),
            ("hoodie.partition.metafile.use.base.format", "false".to_owned()),
            ("hoodie.datasource.write.hive_style_partitioning", hive_style.to_string()),
            ("hoodie.populate.meta.fields", "true".to_owned()),
            ("hoodie.table.keygenerator.class", key_generator(spec.record_key.len(), spec.partition_columns.len())),
            ("hoodie.table.base.file.format", "PARQUET".to_owned()),
            ("hoodie.database.name", spec.database.clone()),
            // partition values are escaped as Hive escapes them: see `partition_path`
            ("hoodie.datasource.write.partitionpath.urlencode", hive_style.to_string()),
            ("hoodie.table.version", "6".to_owned()),
        ];
        let mut entries: Vec<(String, String)> = entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        if !spec.sort_prefix.is_empty() {
            entries.push((SORT_PREFIX.to_owned(), spec.sort_prefix.join(",")));
        }
        Self { entries }
    }

    /// Reads the file's text.
    pub(super) fn parse(text: &str) -> Self {
        let mut entries: Vec<(String, String)> = Vec::new();
        for line in logical_lines(text) {
            let (key, value) = split_line(&line);
            match entries.iter_mut().find(|(known, _)| *known == key) {
                Some(entry) => entry.1 = value,
                None => entries.push((key, value)),
            }
        }
        Self { entries }
    }

    /// The file's text.
    pub(super) fn render(&self, now: Timestamp) -> String {
        let mut text = String::new();
        _ = writeln!(text, "#Properties saved on {now}");
        if let Some(date) = java_date(now) {
            _ = writeln!(text, "#{date}");
        }
        for (key, value) in &self.entries {
            _ = writeln!(text, "{}={}", escape(key, true), escape(value, false));
        }
        text
    }

    /// The value of a key; `None` where it is absent or empty.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.entries.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A comma-separated value.
    pub(super) fn list(&self, key: &str) -> Vec<String> {
        self.get(key).map(|list| list.split(',').map(|name| name.trim().to_owned()).collect()).unwrap_or_default()
    }

    /// Whether a writer keeps a metadata table, which our commits would leave stale.
    pub(super) fn has_metadata_table(&self) -> bool {
        self.entries.iter().any(|(key, value)| key.starts_with(METADATA_PREFIX) && !value.is_empty())
    }

    /// The same without a metadata table.
    pub(super) fn without_metadata_table(&self) -> Self {
        Self { entries: self.entries.iter().filter(|(key, _)| !key.starts_with(METADATA_PREFIX)).cloned().collect() }
    }

    /// The table's name.
    pub(super) fn name(&self) -> &str {
        self.get("hoodie.table.name").unwrap_or("")
    }

    /// Names of the record key's columns.
    pub(super) fn record_key(&self) -> Vec<String> {
        self.list("hoodie.table.recordkey.fields")
    }

    /// Names of the columns by which rows are sorted before the record key.
    pub(super) fn sort_prefix(&self) -> Vec<String> {
        self.list(SORT_PREFIX)
    }

    /// Takes another record key, with what else follows from it; says whether it is another one.
    pub(super) fn set_record_key(&mut self, key: &str) -> bool {
        if self.record_key() == key.split(',').collect::<Vec<_>>() {
            return false;
        }
        self.set("hoodie.table.recordkey.fields", key.to_owned());
        let generator = key_generator(self.record_key().len(), self.partition_columns().len());
        self.set("hoodie.table.keygenerator.class", generator);
        true
    }

    fn set(&mut self, key: &str, value: String) {
        match self.entries.iter_mut().find(|(known, _)| known == key) {
            Some(entry) => entry.1 = value,
            None => self.entries.push((key.to_owned(), value)),
        }
    }

    /// Names of the partition columns.
    pub(super) fn partition_columns(&self) -> Vec<String> {
        self.list("hoodie.table.partition.fields")
    }

    /// Refuses what this program can't read: another table version, merge-on-read, other base files.
    pub(super) fn ensure_readable(&self) -> Result<()> {
        let expected = [
            (
                "hoodie.table.version",
                "6",
                "only Hudi's table version 6 (Hudi 0.14, 0.15) can be used; upgrade or downgrade the table with Hudi's own tools",
            ),
            ("hoodie.table.type", "COPY_ON_WRITE", "only copy-on-write tables can be used; make the table anew"),
            ("hoodie.timeline.layout.version", "1", "upgrade the table with Hudi's own tools"),
            ("hoodie.table.base.file.format", "PARQUET", "only tables of Parquet files can be used; make the table anew"),
        ];
        if self.entries.is_empty() {
            return Err(Error::new(Area::Lake, Kind::Corrupt, "the table's properties are empty").with("path", PROPERTIES_FILE));
        }
        for (key, wanted, remedy) in expected {
            let found = self.get(key).unwrap_or("");
            let is_default = found.is_empty() && key == "hoodie.table.base.file.format";
            if !is_default && !found.eq_ignore_ascii_case(wanted) {
                return Err(refusal("the table can't be read", key, found, wanted).remedy(remedy));
            }
        }
        Ok(())
    }

    /// Refuses to write a table of this description with the key and partitioning of `spec`.
    pub(super) fn ensure_writable(&self, spec: &TableSpec) -> Result<()> {
        self.ensure_readable()?;
        let remedy = "set `key` and `partition_by` to what the table has, or load the table anew under another name";
        let (key, partition) = (self.record_key(), self.partition_columns());
        if key != spec.record_key {
            return Err(refusal(
                "the table has another record key",
                "hoodie.table.recordkey.fields",
                key.join(","),
                spec.record_key.join(","),
            )
            .remedy(remedy));
        }
        if partition != spec.partition_columns {
            let (found, wanted) = (partition.join(","), spec.partition_columns.join(","));
            return Err(
                refusal("the table is partitioned otherwise", "hoodie.table.partition.fields", found, wanted).remedy(remedy)
            );
        }
        let needed = [
            ("hoodie.populate.meta.fields", "true", false),
            ("hoodie.datasource.write.drop.partition.columns", "false", false),
            ("hoodie.datasource.write.hive_style_partitioning", "true", true),
        ];
        for (key, wanted, only_partitioned) in needed {
            let found = self.get(key).unwrap_or(if only_partitioned { "false" } else { wanted });
            if found != wanted && (!only_partitioned || !partition.is_empty()) {
                return Err(
                    refusal("the table can't be written", key, found, wanted).remedy("load the table anew under another name")
                );
            }
        }
        Ok(())
    }
}

fn refusal(what: &'static str, key: &str, found: impl Into<String>, wanted: impl Into<String>) -> Error {
    let quoted = |text: String| if text.is_empty() { "(none)".to_owned() } else { text };
    Error::new(Area::Lake, Kind::Refused, what)
        .with("property", key)
        .with("found", quoted(found.into()))
        .with("wanted", quoted(wanted.into()))
}

/// Hudi's class that makes record keys and partition paths.
fn key_generator(key_columns: usize, partition_columns: usize) -> String {
    let class = match (key_columns, partition_columns) {
        (_, 0) => "NonpartitionedKeyGenerator",
        (1, 1) => "SimpleKeyGenerator",
        _ => "ComplexKeyGenerator",
    };
    format!("org.apache.hudi.keygen.{class}")
}

/// `Sat Nov 21 14:12:30 UTC 2026`.
pub(super) fn java_date(time: Timestamp) -> Option<String> {
    time.to_datetime().map(|time| time.format("%a %b %d %H:%M:%S UTC %Y").to_string())
}

/// Lines that say something: comments and blank lines are gone, lines that end in a backslash are joined with the next.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut continues = false;
    for line in text.lines() {
        let line = line.trim_start_matches([' ', '\t', '\u{c}']);
        if !continues && (line.is_empty() || line.starts_with(['#', '!'])) {
            continue;
        }
        let backslashes = line.len() - line.trim_end_matches('\\').len();
        let ends_open = backslashes % 2 == 1;
        let kept = if ends_open { line.get(..line.len() - 1).unwrap_or("") } else { line };
        match lines.last_mut().filter(|_| continues) {
            Some(last) => last.push_str(kept),
            None => lines.push(kept.to_owned()),
        }
        continues = ends_open;
    }
    lines
}

/// The key ends at the first unescaped `=`, `:` or blank.
fn split_line(line: &str) -> (String, String) {
    let mut escaped = false;
    for (at, character) in line.char_indices() {
        if !escaped && matches!(character, '=' | ':' | ' ' | '\t') {
            let (key, rest) = line.split_at(at);
            let rest = rest.trim_start_matches([' ', '\t']);
            let value = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start_matches([' ', '\t']);
            return (unescape(key), unescape(value));
        }
        escaped = character == '\\' && !escaped;
    }
    (unescape(line), String::new())
}

fn unescape(text: &str) -> String {
    let mut utf16 = Vec::with_capacity(text.len());
    let mut rest = text.chars();
    let push = |character: char, utf16: &mut Vec<u16>| utf16.extend_from_slice(character.encode_utf16(&mut [0; 2]));
    while let Some(character) = rest.next() {
        if character != '\\' {
            push(character, &mut utf16);
            continue;
        }
        match rest.next() {
            Some('t') => utf16.push(u16::from(b'\t')),
            Some('n') => utf16.push(u16::from(b'\n')),
            Some('r') => utf16.push(u16::from(b'\r')),
            Some('f') => utf16.push(0x0c),
            Some('u') => {
                let digits: String = rest.by_ref().take(4).collect();
                utf16.push(u16::from_str_radix(&digits, 16).unwrap_or(0xfffd));
            }
            Some(other) => push(other, &mut utf16),
            None => {}
        }
    }
    String::from_utf16_lossy(&utf16)
}

fn escape(text: &str, is_key: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, character) in text.chars().enumerate() {
        match character {
            ' ' if is_key || at == 0 => out.push_str("\\ "),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\u{c}' => out.push_str("\\f"),
            '\\' | '=' | ':' | '#' | '!' => {
                out.push('\\');
                out.push(character);
            }
            ' '..='~' => out.push(character),
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    _ = write!(out, "\\u{unit:04X}");
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Schema;
    use std::sync::Arc;

    fn spec(key: &[&str], partition: &[&str]) -> TableSpec {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        TableSpec {
            database: String::new(),
            name: "np".to_owned(),
            columns: Arc::new(Schema::empty()),
            record_key: names(key),
            sort_prefix: Vec::new(),
            ordering_field: "created_at".to_owned(),
            partition_columns: names(partition),
        }
    }

    /// What Spark wrote for `np` (`hudi-v6.md`), but for the zone.
    const SPARKS: &str = "hoodie.table.type=COPY_ON_WRITE
hoodie.table.precombine.field=created_at
hoodie.table.partition.fields=
hoodie.table.cdc.enabled=false
hoodie.archivelog.folder=archived
hoodie.timeline.layout.version=1
hoodie.table.checksum=1726580205
hoodie.datasource.write.drop.partition.columns=false
hoodie.table.timeline.timezone=UTC
hoodie.table.recordkey.fields=id
hoodie.table.name=np
hoodie.partition.metafile.use.base.format=false
hoodie.datasource.write.hive_style_partitioning=false
hoodie.populate.meta.fields=true
hoodie.table.keygenerator.class=org.apache.hudi.keygen.NonpartitionedKeyGenerator
hoodie.table.base.file.format=PARQUET
hoodie.database.name=
hoodie.datasource.write.partitionpath.urlencode=false
hoodie.table.version=6
";

    #[test]
    fn a_new_table_has_the_properties_that_spark_writes() {
        let now = Timestamp::parse("2026-11-21T14:12:30.721211Z").unwrap();
        let text = TableProperties::of(&spec(&["id"], &[])).render(now);
        let head = "#Properties saved on 2026-11-21T14:12:30.721211Z\n#Sat Nov 21 14:12:30 UTC 2026\n";
        assert_eq!(text, format!("{head}{SPARKS}"));
        assert_eq!(TableProperties::parse(&text), TableProperties::of(&spec(&["id"], &[])));
    }

    #[test]
    fn key_generators_and_hive_style() {
        for (key, partition, class) in [
            (&["a", "b"][..], &[][..], "NonpartitionedKeyGenerator"),
            (&["a"], &["p"], "SimpleKeyGenerator"),
            (&["a", "b"], &["p"], "ComplexKeyGenerator"),
            (&["a"], &["p", "q"], "ComplexKeyGenerator"),
        ] {
            let properties = TableProperties::of(&spec(key, partition));
            assert_eq!(properties.get("hoodie.table.keygenerator.class"), Some(format!("org.apache.hudi.keygen.{class}").as_str()));
            assert_eq!(properties.get("hoodie.datasource.write.hive_style_partitioning") == Some("true"), !partition.is_empty());
        }
    }

    #[test]
    fn another_key_may_need_another_generator() {
        let mut properties = TableProperties::of(&spec(&["a"], &["p"]));
        assert!(!properties.set_record_key("a"));
        assert!(properties.set_record_key("a,b"));
        assert_eq!(properties, TableProperties::of(&spec(&["a", "b"], &["p"])));
    }

    #[test]
    fn escapes_as_java_does() {
        let text = "a\\:b = x\\=y\\\\ \\u00fc\\n\n! comment\nlong=one \\\n   two\nempty\nspark={\"type\"\\:\"record\"}\n";
        let properties = TableProperties::parse(text);
        assert_eq!(properties.get("a:b"), Some("x=y\\ ü\n"));
        assert_eq!(properties.get("long"), Some("one two"));
        assert_eq!(properties.get("empty"), None);
        assert_eq!(properties.get("spark"), Some("{\"type\":\"record\"}"));
        assert_eq!(TableProperties::parse(&properties.render(Timestamp::from_micros(0))), properties);
    }

    #[test]
    fn the_metadata_table_can_be_dropped() {
        let text = format!("{SPARKS}hoodie.table.metadata.partitions=files\nhoodie.table.metadata.partitions.inflight=\n");
        let properties = TableProperties::parse(&text);
        assert!(properties.has_metadata_table());
        assert_eq!(properties.without_metadata_table(), TableProperties::parse(SPARKS));
        assert!(!TableProperties::parse(&format!("{SPARKS}hoodie.table.metadata.partitions=\n")).has_metadata_table());
    }

    #[test]
    fn other_tables_are_refused() {
        let properties = TableProperties::of(&spec(&["id"], &["p"]));
        properties.ensure_writable(&spec(&["id"], &["p"])).unwrap();
        let other_key = properties.ensure_writable(&spec(&["id", "b"], &["p"])).unwrap_err();
        assert!(other_key.to_string().contains("found=id wanted=id,b"), "{other_key}");
        properties.ensure_writable(&spec(&["id"], &[])).unwrap_err();
        for (from, to) in [("version=6", "version=8"), ("COPY_ON_WRITE", "MERGE_ON_READ"), ("layout.version=1", "layout.version=2")]
        {
            let error = TableProperties::parse(&SPARKS.replace(from, to)).ensure_readable().unwrap_err();
            assert_eq!(error.kind(), Kind::Refused, "{error}");
        }
    }
}
