//! A table-mapping file of AWS DMS, read as it is: which table, and how its rows become items.
//!
//! Of its rules count `selection` (include, exclude, with `%` and `_` as wildcards) and `object-mapping` (`map-record-to-record`,
//! `map-record-to-document`). Rules of other kinds change rows in ways that aren't done here, so they are refused, not passed over.

use super::item::{AttributeKind, Item, ItemChange, ItemKey, KeyKinds};
use super::template::{RowValues, Template, scalar, text_of};
use crate::error::{Area, Error, Kind, Result};
use crate::event::{SourceType, TableId, TableSchema};
use arrow::datatypes::DataType;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The attribute that holds all columns of a document.
const DOCUMENT: &str = "_doc";

#[derive(Deserialize)]
struct MappingFile {
    rules: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Locator {
    schema_name: String,
    table_name: String,
}

impl Locator {
    fn matches(&self, table: &TableId) -> bool {
        is_like(&self.schema_name, table.database()) && is_like(&self.table_name, table.name())
    }
}

/// SQL's LIKE.
fn is_like(pattern: &str, text: &str) -> bool {
    let mut regex = String::from("^");
    for c in pattern.chars() {
        match c {
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            other => regex.push_str(&regex::escape(&other.to_string())),
        }
    }
    regex.push('$');
    // `_` stands in many tables' names: what is written out is meant as well
    pattern == text || regex::Regex::new(&regex).is_ok_and(|regex| regex.is_match(text))
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Selection {
    object_locator: Locator,
    rule_action: String,
    #[serde(default)]
    filters: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ObjectMapping {
    object_locator: Locator,
    rule_action: String,
    target_table_name: String,
    mapping_parameters: Parameters,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Parameters {
    partition_key_name: String,
    sort_key_name: Option<String>,
    #[serde(default)]
    exclude_columns: Vec<String>,
    #[serde(default)]
    attribute_mappings: Vec<AttributeMapping>,
    /// Whether changes are mapped as well: they always are.
    #[serde(default)]
    apply_during_cdc: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct AttributeMapping {
    target_attribute_name: String,
    attribute_type: Option<String>,
    attribute_sub_type: Option<String>,
    value: Value,
}

/// How the rows of one table become items of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemMapping {
    /// The source table.
    pub source: TableId,
    /// The table of the items.
    pub target: String,
    partition: String,
    sort: Option<String>,
    excluded: BTreeSet<String>,
    attributes: BTreeMap<String, Template>,
    is_document: bool,
}

impl ItemMapping {
    /// Reads the file `path`, which has the rules for `source`.
    ///
    /// # Errors
    /// `Config`.
    pub fn read_text(path: &Path, source: &TableId) -> Result<String> {
        std::fs::read_to_string(path).map_err(|error| {
            let error = Error::config("the table mapping can't be read").caused_by(error);
            error.with("mapping", path.display()).with("source", source).remedy("correct `mapping`")
        })
    }

    /// Takes the rules for `source` from the text of the file `path`.
    ///
    /// # Errors
    /// `Config`, with the rule.
    pub fn of_text(text: &str, path: &Path, source: &TableId) -> Result<Self> {
        Self::parse(text, source).map_err(|what| {
            let (what, remedy) = match what.split_once("; ") {
                Some((what, remedy)) => (what.to_owned(), remedy.to_owned()),
                None => (what, "correct the table-mapping file".to_owned()),
            };
            Error::config(what).with("mapping", path.display()).with("source", source).remedy(remedy)
        })
    }

    /// The same of its text; `Err` is what is wrong, and what to do.
    pub(super) fn parse(text: &str, source: &TableId) -> Result<Self, String> {
        let file: MappingFile = serde_json::from_str(text).map_err(|error| format!("the table mapping can't be read: {error}"))?;
        let (mut included, mut excluded, mut found) = (false, false, None);
        for rule in file.rules {
            let name = ["rule-name", "rule-id"].iter().find_map(|key| rule.get(key)).map(text_of).unwrap_or_default();
            let wrong = |error: serde_json::Error| format!("the rule `{name}` can't be read: {error}");
            match rule.get("rule-type").and_then(Value::as_str).unwrap_or_default() {
                "selection" => {
                    let selection: Selection = serde_json::from_value(rule.clone()).map_err(wrong)?;
                    if !selection.object_locator.matches(source) {
                        continue;
                    }
                    if !selection.filters.is_empty() {
                        return Err(format!("the rule `{name}` has filters; remove them: all rows are delivered"));
                    }
                    match selection.rule_action.as_str() {
                        "include" | "explicit" => included = true,
                        "exclude" => excluded = true,
                        other => return Err(format!("the rule `{name}` has the action `{other}`; write include or exclude")),
                    }
                }
                "object-mapping" => {
                    let mapping: ObjectMapping = serde_json::from_value(rule.clone()).map_err(wrong)?;
                    if mapping.object_locator.matches(source) {
                        if found.is_some() {
                            return Err(format!("the rule `{name}` is the second that maps {source}; leave one out"));
                        }
                        found = Some(Self::of(source, mapping).map_err(|what| format!("the rule `{name}`: {what}"))?);
                    }
                }
                other => {
                    return Err(format!(
                        "the rule `{name}` is of the kind `{other}`, which deliveries don't have; remove it, and use attribute-mappings"
                    ));
                }
            }
        }
        if excluded || !included {
            return Err(format!("no selection rule includes {source}; add one with the action include"));
        }
        found.ok_or_else(|| format!("no object-mapping rule is for {source}; add one"))
    }

    fn of(source: &TableId, rule: ObjectMapping) -> Result<Self, String> {
        let is_document = match rule.rule_action.as_str() {
            "map-record-to-record" => false,
            "map-record-to-document" => true,
            other => {
                return Err(format!("there is no action `{other}`; write map-record-to-record or map-record-to-document"));
            }
        };
        let Parameters { partition_key_name, sort_key_name, exclude_columns, attribute_mappings, apply_during_cdc } =
            rule.mapping_parameters;
        if apply_during_cdc.is_some_and(|value| text_of(&value) == "false") {
            return Err("`apply-during-cdc` is false, but changes are mapped as the snapshot is; remove it".into());
        }
        let mut attributes = BTreeMap::new();
        for mapping in attribute_mappings {
            let name = mapping.target_attribute_name;
            let template = template(mapping.attribute_type.as_deref(), mapping.attribute_sub_type.as_deref(), &mapping.value)
                .map_err(|what| format!("the attribute `{name}`: {what}"))?;
            attributes.insert(name, template);
        }
        let mapping = Self {
            source: source.clone(),
            target: rule.target_table_name,
            partition: partition_key_name,
            sort: sort_key_name.filter(|name| !name.is_empty()),
            excluded: exclude_columns.into_iter().collect(),
            attributes,
            is_document,
        };
        for name in [Some(&mapping.partition), mapping.sort.as_ref()].into_iter().flatten() {
            if !mapping.attributes.contains_key(name) && (is_document || mapping.excluded.contains(name)) {
                return Err(format!("nothing gives the key's attribute `{name}`; add it to attribute-mappings"));
            }
        }
        if mapping.key_columns().is_empty() {
            return Err("the key's attributes read no column; write \"${column}\" as their value".into());
        }
        Ok(mapping)
    }

    fn key_names(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.partition).chain(&self.sort)
    }

    /// The source's columns that say which item a row is.
    pub fn key_columns(&self) -> BTreeSet<String> {
        let of = |name: &String| match self.attributes.get(name) {
            Some(template) => template.columns().into_iter().map(str::to_owned).collect(),
            None => vec![name.clone()],
        };
        self.key_names().flat_map(of).collect()
    }

    /// The attributes of the key, for a source of this shape.
    pub fn key_kinds(&self, schema: &TableSchema) -> KeyKinds {
        let of = |name: &String| {
            let kind = match self.attributes.get(name) {
                Some(Template::Scalar(kind, _)) => *kind,
                _ => schema.index_of(name).map_or(AttributeKind::Text, |i| kind_of(&schema.columns[i].source_type)),
            };
            (name.clone(), kind)
        };
        KeyKinds { partition: of(&self.partition), sort: self.sort.as_ref().map(of) }
    }

    /// What a row's change is for the items. `values` has the row's columns; NULL is left out of items.
    ///
    /// # Errors
    /// `Data` for a value that isn't of its attribute's type, and for a key that is NULL or empty.
    pub fn change(&self, schema: &TableSchema, values: &RowValues, is_delete: bool) -> Result<ItemChange> {
        let mut attributes = BTreeMap::new();
        let wrong = |name: &str, why: &'static str| {
            Error::new(Area::Lake, Kind::Data, "a row can't be an item")
                .caused_by(std::io::Error::other(why))
                .with("attribute", name)
                .with("target", &self.target)
                .remedy("correct the value at the source or the table mapping, then run `binlake backfill --table`")
        };
        let mut of_columns = BTreeMap::new();
        for column in schema.columns.iter().filter(|column| !self.excluded.contains(&column.name)) {
            let Some(value) = values.get(&column.name).filter(|value| !value.is_null()) else { continue };
            let value = scalar(kind_of(&column.source_type), text_of(value)).map_err(|why| wrong(&column.name, why))?;
            of_columns.insert(column.name.clone(), value);
        }
        if self.is_document {
            attributes.insert(DOCUMENT.to_owned(), super::item::Attribute::Map(of_columns));
        } else {
            attributes.append(&mut of_columns);
        }
        for (name, template) in &self.attributes {
            if let Some(value) = template.of(values).map_err(|why| wrong(name, why))? {
                attributes.insert(name.clone(), value);
            }
        }
        let key = |name: &String| {
            let value = attributes.get(name).cloned().ok_or_else(|| wrong(name, "the key is NULL"))?;
            if value.bytes() == 0 { Err(wrong(name, "the key is empty")) } else { Ok(value) }
        };
        let key = ItemKey { partition: key(&self.partition)?, sort: self.sort.as_ref().map(key).transpose()? };
        Ok(if is_delete { ItemChange::Delete(key) } else { ItemChange::Put(Item { key, attributes }) })
    }
}

fn template(kind: Option<&str>, sub_kind: Option<&str>, value: &Value) -> Result<Template, String> {
    match (kind.unwrap_or("scalar"), sub_kind.unwrap_or("string")) {
        ("document", "dynamodb-map" | "dynamodb-list") => Template::document(value),
        ("document", other) => Err(format!("there is no document of the kind `{other}`; write dynamodb-map or dynamodb-list")),
        ("scalar", sub_kind) => {
            let kind = match sub_kind {
                "string" => AttributeKind::Text,
                "number" => AttributeKind::Number,
                "boolean" => AttributeKind::Boolean,
                "binary" => AttributeKind::Bytes,
                other => return Err(format!("there is no scalar of the kind `{other}`; write string, number, boolean or binary")),
            };
            Template::scalar(kind, &text_of(value))
        }
        (other, _) => Err(format!("there is no attribute-type `{other}`; write scalar or document")),
    }
}

/// What a column becomes where no mapping says otherwise.
fn kind_of(source_type: &SourceType) -> AttributeKind {
    match source_type.lake_type() {
        DataType::Int32 | DataType::Int64 | DataType::Decimal128(..) | DataType::Float32 | DataType::Float64 => {
            AttributeKind::Number
        }
        DataType::Boolean => AttributeKind::Boolean,
        DataType::Binary => AttributeKind::Bytes,
        _ => AttributeKind::Text,
    }
}
