//! `[lookup.NAME]`.

use crate::cloud::AwsUrl;
use crate::event::TableId;
use crate::format::{ColumnSpec, PlainColumn};
use crate::setting::duration;
use arrow::datatypes::SchemaRef;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;

use super::items::ItemColumns;

/// `[lookup.NAME]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LookupConfig {
    /// Where its items are.
    pub url: LookupUrl,
    /// The columns, where they are declared; else they are inferred from the items.
    #[serde(default, deserialize_with = "columns_in_order")]
    pub columns: Option<Vec<PlainColumn>>,
    /// How often the items are read again.
    #[serde(default = "a_minute", deserialize_with = "duration")]
    pub refresh: Duration,
    /// Whether a table of DynamoDB is read whole, or asked for each key.
    #[serde(default)]
    pub mode: Mode,
    /// With `mode = "get"`, how many answers are kept, for `refresh` each.
    #[serde(default = "many")]
    pub cache_items: usize,
    /// What becomes of a row without an item.
    #[serde(default)]
    pub missing: Missing,
    /// What becomes of two items with one join key.
    #[serde(default)]
    pub duplicates: Duplicates,
    /// What becomes of rows that were joined with an item that changes.
    #[serde(default)]
    pub on_change: OnChange,
}

fn a_minute() -> Duration {
    Duration::from_secs(60)
}

fn many() -> usize {
    100_000
}

impl LookupConfig {
    /// A lookup at `url`, with everything else as it is where nothing is said.
    pub fn of(url: LookupUrl) -> Self {
        Self {
            url,
            columns: None,
            refresh: a_minute(),
            mode: Mode::default(),
            cache_items: many(),
            missing: Missing::default(),
            duplicates: Duplicates::default(),
            on_change: OnChange::default(),
        }
    }

    /// What no single value shows; `Err` is what is wrong, and what to do.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        if self.mode == Mode::Scan {
            return Ok(());
        }
        if self.on_change == OnChange::Reapply {
            return Err((
                "of items that are got one by one nobody knows when they change",
                "set `mode = \"scan\"`, or leave `on_change` out",
            ));
        }
        if !matches!(self.url, LookupUrl::DynamoDb(_)) {
            return Err(("only items of DynamoDB can be got one by one", "leave `mode` out"));
        }
        if self.columns.is_none() {
            return Err(("a lookup whose items are got one by one has no columns", "declare them: columns = { … }"));
        }
        Ok(())
    }

    /// The declared columns, as Arrow has them.
    pub fn declared(&self) -> Option<SchemaRef> {
        self.columns.as_ref().map(|columns| ItemColumns::declared(columns.clone()).schema())
    }
}

/// Where a lookup's items are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LookupUrl {
    /// `file:country.csv`: CSV with a header, JSON (a list of objects, or one object a line), or Parquet, by the file's ending.
    File(PathBuf),
    /// `sqlite:./data/items.db#table`: the items that `[[deliver]]` writes there.
    Sqlite(PathBuf, String),
    /// `dynamodb://table?region=…`.
    DynamoDb(AwsUrl),
    /// `table:shop.country`: a table that this pipeline replicates.
    Table(TableId),
}

/// What the URLs may be.
const FORMS: &str = "write file:country.csv, sqlite:./data/items.db#table, dynamodb://table?region=… or table:database.table";
/// The endings of files that can be read.
const ENDINGS: [&str; 5] = ["csv", "json", "jsonl", "ndjson", "parquet"];

impl TryFrom<String> for LookupUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no lookup's URL; {FORMS}");
        let (scheme, rest) = text.split_once(':').ok_or_else(wrong)?;
        match scheme {
            "file" if !rest.is_empty() => {
                let path = PathBuf::from(rest.strip_prefix("//").unwrap_or(rest));
                let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_lowercase();
                match ENDINGS.contains(&ending.as_str()) {
                    true => Ok(Self::File(path)),
                    false => Err(format!("a lookup's file ends with .{}; rename `{rest}`", ENDINGS.join(", ."))),
                }
            }
            "sqlite" => match rest.split_once('#') {
                Some((path, table)) if !path.is_empty() && !table.is_empty() => Ok(Self::Sqlite(path.into(), table.to_owned())),
                _ => Err(wrong()),
            },
            "dynamodb" => {
                let url = AwsUrl::parse(&text, "dynamodb")?;
                url.no_other_options(&[])?;
                Ok(Self::DynamoDb(url))
            }
            "table" => rest.parse().map(Self::Table),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for LookupUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Sqlite(path, table) => write!(f, "sqlite:{}#{table}", path.display()),
            Self::DynamoDb(url) => url.fmt(f),
            Self::Table(table) => write!(f, "table:{table}"),
        }
    }
}

/// How a table of DynamoDB is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Whole, each `refresh`.
    #[default]
    Scan,
    /// Key by key, as rows need it; answers are kept for `refresh`.
    Get,
}

/// What becomes of a row that has no item in a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// The lookup's columns are NULL.
    #[default]
    Null,
    /// The table waits until the item is there.
    Hold,
    /// The row goes to the dead-letter area, and is not in the table.
    DeadLetter,
}

/// What becomes of two items with one join key: a row is never multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duplicates {
    /// The tables that join it stop.
    #[default]
    Error,
    /// The first counts, in the order of the file or table.
    First,
    /// The last counts.
    Last,
}

/// What becomes of rows that were joined with an item that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnChange {
    /// They keep what they have: the new item counts for later rows.
    #[default]
    Keep,
    /// They are joined anew, and change.
    Reapply,
}

/// The declared columns, in the order of the file.
fn columns_in_order<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<PlainColumn>>, D::Error> {
    struct InOrder;
    impl<'de> Visitor<'de> for InOrder {
        type Value = Vec<PlainColumn>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("columns with their types")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut columns: Vec<(Spanned<String>, ColumnSpec)> = Vec::new();
            while let Some(column) = map.next_entry()? {
                columns.push(column);
            }
            columns.sort_by_key(|(name, _)| name.span().start);
            Ok(columns.into_iter().map(|(name, spec)| spec.column(&name.into_inner())).collect())
        }
    }
    deserializer.deserialize_map(InOrder).map(Some)
}
