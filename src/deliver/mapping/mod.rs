//! A table-mapping file of AWS DMS, read as it is: which table, which of its rows, and how they become items.
//!
//! Of its rules count `selection` ([`selection`], with source filters: [`filter`]), `transformation` ([`transformation`]) and `object-mapping` (`map-record-to-record`,
//! `map-record-to-document`). `table-settings` say how DMS reads tables, and have nothing to say here. Rules of other kinds, and actions that can't be
//! done as they are meant, are refused, not passed over.

mod expression;
mod filter;
mod fit;
mod known;
mod selection;
mod shaped;
mod target_type;
mod transformation;

pub use shaped::ShapedMapping;

use super::item::{AttributeKind, KeyKinds};
use super::template::{Template, text_of};
use crate::error::{Error, Result};
use crate::event::{SourceType, TableId, TableSchema};
use arrow::datatypes::DataType;
use filter::Filter;
use fit::NamedColumn;
use known::{ensure_file_known, ensure_known};
use selection::{Locator, Selection};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use transformation::Transformations;

#[derive(Deserialize)]
struct MappingFile {
    rules: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ObjectMapping {
    object_locator: Locator,
    rule_action: String,
    /// Without it: what transformation rules call the table.
    target_table_name: Option<String>,
    #[serde(default)]
    mapping_parameters: Parameters,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
struct Parameters {
    /// Without it: the key that a transformation rule defines.
    partition_key_name: Option<String>,
    sort_key_name: Option<String>,
    #[serde(default)]
    exclude_columns: Vec<String>,
    #[serde(default)]
    attribute_mappings: Vec<AttributeMapping>,
    /// Whether changes are mapped as well: they always are.
    #[serde(default)]
    apply_during_cdc: Option<Value>,
    #[serde(default)]
    condition_expression: Option<Value>,
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
    /// What a row must pass to be an item.
    filters: Vec<Filter>,
    transformations: Transformations,
    /// What the rule is called that maps the table.
    rule: String,
    /// The columns that rules name.
    named: Vec<NamedColumn>,
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
        let unread = |error: serde_json::Error| format!("the table mapping can't be read: {error}");
        // as some editors begin a file
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let file: Value = serde_json::from_str(text).map_err(unread)?;
        ensure_file_known(&file)?;
        let file: MappingFile = serde_json::from_value(file).map_err(unread)?;
        let (mut selection, mut transformations, mut found) = (Selection::default(), Transformations::default(), None);
        for rule in file.rules {
            let name = ["rule-name", "rule-id"].iter().find_map(|key| rule.get(key)).map(text_of).unwrap_or_default();
            let at = |what: String| format!("the rule `{name}`: {what}");
            ensure_known(&rule).map_err(at)?;
            match rule.get("rule-type").and_then(Value::as_str).unwrap_or_default() {
                "selection" => selection.take(&name, rule.clone(), source)?,
                "transformation" => transformations.take(&name, rule.clone(), source).map_err(at)?,
                "object-mapping" => {
                    let mapping: ObjectMapping = serde_json::from_value(rule.clone())
                        .map_err(|error| format!("the rule `{name}` can't be read: {error}"))?;
                    if mapping.object_locator.matches(source) {
                        if found.is_some() {
                            return Err(format!("the rule `{name}` is the second that maps {source}; leave one out"));
                        }
                        found = Some((name.clone(), mapping));
                    }
                }
                "table-settings" => {}
                other => {
                    return Err(format!("the rule `{name}` is of the kind `{other}`, which deliveries don't have; remove it"));
                }
            }
        }
        let named: Vec<NamedColumn> = selection.named().chain(transformations.named.clone()).collect();
        let filters = selection.filters(source)?;
        let (name, mapping) = found.ok_or_else(|| format!("no object-mapping rule is for {source}; add one"))?;
        let mapping = Self::of(source, &name, mapping, filters, transformations);
        let mapping = mapping.map_err(|what| format!("the rule `{name}`: {what}"))?;
        Ok(Self { named: named.into_iter().chain(mapping.named).collect(), ..mapping })
    }

    fn of(
        source: &TableId,
        name: &str,
        rule: ObjectMapping,
        filters: Vec<Filter>,
        transformations: Transformations,
    ) -> Result<Self, String> {
        let is_document = match rule.rule_action.as_str() {
            "map-record-to-record" => false,
            "map-record-to-document" => true,
            other => {
                return Err(format!("there is no action `{other}`; write map-record-to-record or map-record-to-document"));
            }
        };
        let parameters = rule.mapping_parameters;
        if parameters.apply_during_cdc.is_some_and(|value| text_of(&value) == "false") {
            return Err("`apply-during-cdc` is false, but changes are mapped as the snapshot is; remove it".into());
        }
        if parameters.condition_expression.is_some() {
            return Err("it has a condition-expression, but all writes are conditional on the delivery's owner; remove it".into());
        }
        let mut attributes = BTreeMap::new();
        let named_here = |column: &str| NamedColumn { rule: name.to_owned(), column: column.to_owned(), is_pattern: false };
        let mut named = Vec::new();
        if rule.object_locator.is_exact(source) {
            named.extend(parameters.exclude_columns.iter().map(|column| named_here(column)));
        }
        for mapping in parameters.attribute_mappings {
            let name = mapping.target_attribute_name;
            let template = template(mapping.attribute_type.as_deref(), mapping.attribute_sub_type.as_deref(), &mapping.value)
                .map_err(|what| format!("the attribute `{name}`: {what}"))?;
            named.extend(template.columns().into_iter().map(named_here));
            if attributes.insert(name.clone(), template).is_some() {
                return Err(format!("two attribute-mappings make the attribute `{name}`; leave one out"));
            }
        }
        let sort = parameters.sort_key_name.filter(|name| !name.is_empty());
        let (partition, sort) = match (parameters.partition_key_name, &transformations.key) {
            (Some(partition), _) => (partition, sort),
            (None, Some(key)) if (1..=2).contains(&key.len()) => {
                let called = |name: &String| transformations.column_name(name).ok_or_else(|| nothing_gives(name));
                (called(&key[0])?, key.get(1).map(called).transpose()?)
            }
            (None, Some(_)) => return Err("an item's key has one or two attributes; say which by partition-key-name".into()),
            (None, None) => return Err("it lacks the partition-key-name; add it".into()),
        };
        let mapping = Self {
            source: source.clone(),
            target: rule.target_table_name.unwrap_or_else(|| transformations.table_name(source.name())),
            partition,
            sort,
            excluded: parameters.exclude_columns.into_iter().collect(),
            attributes,
            is_document,
            filters,
            transformations,
            rule: name.to_owned(),
            named,
        };
        mapping.check_key()?;
        Ok(mapping)
    }

    fn check_key(&self) -> Result<(), String> {
        for name in self.key_names() {
            let added = |column: &&str| self.transformations.added.iter().any(|added| added.name == **column);
            match self.attributes.get(name) {
                Some(template) => {
                    if let Some(column) = template.columns().into_iter().find(|column| added(column)) {
                        return Err(format!(
                            "the key's attribute `{name}` reads `{column}`, which a rule adds; make the key of the source's columns"
                        ));
                    }
                }
                None if self.transformations.added.iter().any(|added| added.name == *name) => {
                    return Err(format!(
                        "the key's attribute `{name}` is a column that a rule adds; make the key of the source's columns"
                    ));
                }
                None => {
                    let column = self.transformations.column_called(name).ok_or_else(|| nothing_gives(name))?;
                    if self.is_document || self.excluded.contains(column) {
                        return Err(nothing_gives(name));
                    }
                }
            }
        }
        let of_items = self.key_columns();
        if of_items.is_empty() {
            return Err("the key's attributes read no column; write \"${column}\" as their value".into());
        }
        match &self.transformations.key {
            Some(key) if key.iter().cloned().collect::<BTreeSet<_>>() != of_items => Err(format!(
                "the items' key is made of {}, but define-primary-key says {}; make them the same",
                of_items.into_iter().collect::<Vec<_>>().join(","),
                key.join(",")
            )),
            _ => Ok(()),
        }
    }

    /// An attribute of the key that can't be one, as it is neither text nor a number nor bytes.
    pub fn unusable_key(&self, schema: &TableSchema) -> Option<&String> {
        let is_plain = |name: &String| match self.attributes.get(name) {
            Some(Template::Scalar(kind, _)) => *kind != AttributeKind::Boolean,
            Some(_) => false,
            None => self.kind_of_attribute(name, schema) != Some(AttributeKind::Boolean),
        };
        self.key_names().find(|name| !is_plain(name))
    }

    /// What an attribute is, for a source of this shape; `None`: a document, or nothing makes it.
    fn kind_of_attribute(&self, name: &str, schema: &TableSchema) -> Option<AttributeKind> {
        if let Some(template) = self.attributes.get(name) {
            return match template {
                Template::Scalar(kind, _) => Some(*kind),
                Template::Map(_) | Template::List(_) => None,
            };
        }
        if let Some(added) = self.transformations.added.iter().find(|added| added.name == name) {
            return Some(added.target_type.kind());
        }
        let called = |column: &&crate::event::Column| self.transformations.column_name(&column.name).as_deref() == Some(name);
        let column = schema.columns.iter().filter(|column| !self.excluded.contains(&column.name)).find(called)?;
        let changed = self.transformations.column_type(&column.name).map(target_type::TargetType::kind);
        Some(changed.unwrap_or_else(|| kind_of(&column.source_type)))
    }

    fn key_names(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.partition).chain(&self.sort)
    }

    /// The source's columns that say which item a row is.
    pub fn key_columns(&self) -> BTreeSet<String> {
        let of = |name: &String| match self.attributes.get(name) {
            Some(template) => template.columns().into_iter().map(str::to_owned).collect(),
            None => vec![self.transformations.column_called(name).unwrap_or(name).to_owned()],
        };
        self.key_names().flat_map(of).collect()
    }

    /// The attributes of the key, for a source of this shape.
    pub fn key_kinds(&self, schema: &TableSchema) -> KeyKinds {
        let of = |name: &String| (name.clone(), self.kind_of_attribute(name, schema).unwrap_or(AttributeKind::Text));
        KeyKinds { partition: of(&self.partition), sort: self.sort.as_ref().map(of) }
    }

    /// The mapping for rows of a table of this shape.
    ///
    /// # Errors
    /// `Data` if its rules don't fit the table's columns.
    pub fn shaped<'a>(&'a self, schema: &'a TableSchema) -> Result<ShapedMapping<'a>> {
        ShapedMapping::new(self, schema)
    }
}

fn nothing_gives(name: &str) -> String {
    format!("nothing gives the key's attribute `{name}`; add it to attribute-mappings")
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

#[cfg(test)]
mod tests;
