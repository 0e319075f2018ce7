//! `[catalog]`: where the tables are registered for other engines.

use crate::cloud::AwsUrl;
use serde::Deserialize;
use std::collections::BTreeMap;

/// What stands for the database's name in `database`.
const DATABASE: &str = "{database}";

/// `[catalog]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogConfig {
    /// Which catalog: `glue://?region=eu-west-1`, or `glue://123456789012?region=…` for another account's.
    pub url: GlueUrl,
    /// The database's name there; `{database}` is the lake's. Lower-cased, as Glue's names are.
    #[serde(default = "same_database")]
    pub database: DatabaseName,
    /// Table parameters besides ours, as `athena_enable_native_hudi_connector_implementation = "true"`.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
}

/// A database's name in the catalog, made from the lake's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct DatabaseName(String);

fn same_database() -> DatabaseName {
    DatabaseName(DATABASE.to_owned())
}

impl DatabaseName {
    /// The name for a database of the lake.
    pub fn of(&self, database: &str) -> String {
        self.0.replace(DATABASE, database).to_lowercase()
    }
}

impl TryFrom<String> for DatabaseName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if !text.contains(DATABASE) {
            return Err(format!("`{text}` is one name for all databases; write {DATABASE} in it, as in \"lake_{DATABASE}\""));
        }
        Ok(Self(text))
    }
}

/// An account's Glue Data Catalog.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct GlueUrl {
    /// Region, endpoint, profile; `name` is the account.
    pub(super) aws: AwsUrl,
}

impl GlueUrl {
    /// The account whose catalog it is; `None`: the caller's own.
    pub(super) fn account(&self) -> Option<&str> {
        Some(self.aws.name.as_str()).filter(|account| !account.is_empty())
    }
}

impl std::fmt::Display for GlueUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.aws.fmt(f)
    }
}

impl TryFrom<String> for GlueUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let aws = AwsUrl::parse_of_account(&text, "glue")?;
        aws.no_other_options(&[])?;
        Ok(Self { aws })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_names() {
        let own = GlueUrl::try_from("glue://?region=eu-west-1".to_owned()).unwrap();
        assert_eq!((own.account(), own.to_string().as_str()), (None, "glue://?region=eu-west-1"));
        assert_eq!(GlueUrl::try_from("glue://123456789012".to_owned()).unwrap().account(), Some("123456789012"));
        for wrong in ["glue:", "glue://a/b", "glue://?regoin=x", "hive://x"] {
            assert!(GlueUrl::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
        assert_eq!(DatabaseName::try_from("lake_{database}".to_owned()).unwrap().of("Shop"), "lake_shop");
        assert!(DatabaseName::try_from("lake".to_owned()).unwrap_err().contains("{database}"));
    }
}
