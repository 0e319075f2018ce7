//! `[[deliver]]`.

use crate::cloud::AwsUrl;
use crate::event::TableId;
use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;

/// `[[deliver]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliverConfig {
    /// The source table.
    pub source: TableId,
    /// Where its items go.
    pub to: DeliverUrl,
    /// The DMS table-mapping file.
    pub mapping: PathBuf,
    /// The attribute by which DynamoDB lets items expire; `None`: they don't.
    #[serde(default)]
    pub ttl_attribute: Option<String>,
}

/// Where items go.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum DeliverUrl {
    /// `dynamodb://?region=…`: tables as the mapping names them. The URL's own table, `binlake-deliveries` where none is named, has the deliveries' checkpoints.
    DynamoDb(AwsUrl),
    /// `sqlite:./data/items.db`.
    Sqlite(PathBuf),
}

/// The table of the checkpoints.
const CONTROL_TABLE: &str = "binlake-deliveries";

impl TryFrom<String> for DeliverUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix("dynamodb://") {
            let named = if rest.is_empty() || rest.starts_with('?') { format!("dynamodb://{CONTROL_TABLE}{rest}") } else { text };
            let url = AwsUrl::parse(&named, "dynamodb")?;
            url.no_other_options(&[])?;
            return Ok(Self::DynamoDb(url));
        }
        match text.strip_prefix("sqlite:") {
            Some(path) if !path.is_empty() => Ok(Self::Sqlite(path.into())),
            _ => Err(format!("`{text}` is no place for items; write dynamodb://?region=… or sqlite:./data/items.db")),
        }
    }
}

impl fmt::Display for DeliverUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DynamoDb(url) => url.fmt(f),
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}
