//! From items to columns: declared, or inferred from the items of the first reading.

use super::content::{Content, Item};
use crate::error::{Area, Error, Kind, Result};
use crate::format::{Cell, CellColumns, PlainColumn, PlainType, narrowest};
use arrow::datatypes::{Field, Schema, SchemaRef};
use std::collections::HashSet;
use std::sync::Arc;

/// The columns that a lookup's items become.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemColumns(Arc<[PlainColumn]>);

impl ItemColumns {
    /// As the configuration declares them.
    pub fn declared(columns: Vec<PlainColumn>) -> Self {
        Self(columns.into())
    }

    /// As the items show them: each attribute of any item, with the narrowest type that holds all of its values with every digit.
    pub fn inferred(items: &[Item]) -> Self {
        let mut names: Vec<&String> = Vec::new();
        let mut seen = HashSet::new();
        names.extend(items.iter().flat_map(Item::keys).filter(|name| seen.insert(*name)));
        let columns = names.into_iter().map(|name| PlainColumn {
            path: vec![name.clone()],
            name: name.clone(),
            kind: PlainType::of(narrowest(items.iter().filter_map(|item| item.get(name)))),
            bad_values: None,
        });
        Self(columns.collect())
    }

    /// The same, and behind them the attributes that only these items have.
    #[must_use]
    pub fn with_more(&self, items: &[Item]) -> Self {
        let seen = Self::inferred(items);
        let is_new = |column: &&PlainColumn| !self.0.iter().any(|known| known.name == column.name);
        Self(self.0.iter().chain(seen.0.iter().filter(is_new)).cloned().collect())
    }

    /// What an item goes by: the first column that it has a value for. Where columns are declared, that is the one that was written first.
    fn key_of(&self, item: &Item) -> String {
        let first =
            self.0.iter().find_map(|column| Some((column.path.join("."), column.value(item).filter(|value| !value.is_null())?)));
        first.map(|(name, value)| format!("{name}:{}", value.as_str().map_or(value.to_string(), str::to_owned))).unwrap_or_default()
    }

    /// As Arrow has them.
    pub fn schema(&self) -> SchemaRef {
        let fields = self.0.iter().map(|column| Field::new(&column.name, column.kind.source_type().lake_type(), true));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// The items in these columns; an attribute that an item lacks is NULL.
    ///
    /// # Errors
    /// `Data` for a value that doesn't fit its column: names lookup, item and attribute.
    pub fn content(self, lookup: &str, items: &[Item]) -> Result<Content> {
        let mut rows = CellColumns::new(self.schema());
        for item in items {
            let mut row = Vec::with_capacity(self.0.len());
            for column in self.0.iter() {
                let cell = column.value(item).map_or(Ok(Cell::Null), |value| column.kind.cell(value));
                row.push(cell.map_err(|why| {
                    Error::new(Area::Lake, Kind::Data, "an item's attribute doesn't have its column's type")
                        .caused_by(std::io::Error::other(why))
                        .with("lookup", lookup)
                        .with("item", self.key_of(item))
                        .with("attribute", column.path.join("."))
                        .with("type", column.kind.source_type().lake_type())
                        .remedy("correct the item, or declare the column with another type in [lookup] columns")
                })?);
            }
            rows.push(row);
        }
        Ok(Content::new(rows.finish()?, Some(self)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str) -> Vec<Item> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_type_is_inferred_that_keeps_every_digit() {
        let items = items(
            r#"[{"a": 1, "b": 1.5, "c": 12345678901234567890123456789012345678, "d": 0.1234567890123456789, "e": true, "f": [1], "g": null},
                {"a": null, "b": 9007199254740993, "c": 2, "e": "yes", "h": 1}, {"a": 9007199254740993}]"#,
        );
        let content = ItemColumns::inferred(&items).content("l", &items).unwrap();
        let shown = arrow::util::pretty::pretty_format_batches(&[content.rows().clone()]).unwrap().to_string();
        let schema = content.rows().schema();
        let types: Vec<String> = schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
        let expected = ["a Int64", "b Utf8", "c Decimal128(38, 0)", "d Utf8", "e Utf8", "f Utf8", "g Utf8", "h Int64"];
        assert_eq!(types, expected);
        for digits in ["9007199254740993", "12345678901234567890123456789012345678", "0.1234567890123456789"] {
            assert!(shown.contains(digits), "{shown}");
        }
    }

    #[test]
    fn an_item_goes_by_the_column_that_was_declared_first() {
        let declared: crate::lookup::LookupConfig =
            toml::from_str("url = 'file:a.json'\ncolumns = { code = 'string', a = 'int' }").unwrap();
        let columns = ItemColumns::declared(declared.columns.unwrap());
        let error = columns.content("l", &items(r#"[{"a": "x", "code": "IN"}]"#)).unwrap_err().to_string();
        assert!(error.contains("item=code:IN attribute=a type=Int32"), "{error}");
    }
}
