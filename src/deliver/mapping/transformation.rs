//! Transformation rules: what a table and its columns are called in the items, which there are, and of which type.
//!
//! They name columns as the source does, whatever other rules call them, and count in the order of the file.

use super::expression::Expression;
use super::fit::NamedColumn;
use super::selection::{Locator, is_like};
use super::target_type::TargetType;
use crate::deliver::template::text_of;
use crate::event::TableId;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct TransformationRule {
    rule_target: String,
    rule_action: String,
    object_locator: Locator,
    value: Option<Value>,
    old_value: Option<Value>,
    expression: Option<String>,
    data_type: Option<Value>,
    primary_key_def: Option<KeyDefinition>,
}

#[derive(Deserialize)]
struct KeyDefinition {
    columns: Vec<String>,
}

/// What becomes of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Naming {
    Rename(String),
    Lowercase,
    Uppercase,
    AddPrefix(String),
    RemovePrefix(String),
    ReplacePrefix(String, String),
    AddSuffix(String),
    RemoveSuffix(String),
    ReplaceSuffix(String, String),
}

impl Naming {
    fn of(&self, name: &str) -> String {
        match self {
            Self::Rename(to) => to.clone(),
            Self::Lowercase => name.to_lowercase(),
            Self::Uppercase => name.to_uppercase(),
            Self::AddPrefix(prefix) => format!("{prefix}{name}"),
            Self::RemovePrefix(prefix) => name.strip_prefix(prefix.as_str()).unwrap_or(name).to_owned(),
            Self::ReplacePrefix(old, new) => match name.strip_prefix(old.as_str()) {
                Some(rest) => format!("{new}{rest}"),
                None => name.to_owned(),
            },
            Self::AddSuffix(suffix) => format!("{name}{suffix}"),
            Self::RemoveSuffix(suffix) => name.strip_suffix(suffix.as_str()).unwrap_or(name).to_owned(),
            Self::ReplaceSuffix(old, new) => match name.strip_suffix(old.as_str()) {
                Some(rest) => format!("{rest}{new}"),
                None => name.to_owned(),
            },
        }
    }
}

/// What becomes of columns.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ColumnAction {
    Name(Naming),
    Remove,
    Include,
    ChangeType(TargetType),
}

/// A column that items have and the source hasn't.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AddedColumn {
    pub(super) name: String,
    /// `None`: it is NULL.
    pub(super) expression: Option<Expression>,
    pub(super) target_type: TargetType,
}

/// What the transformation rules say about one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Transformations {
    table: Vec<Naming>,
    /// By the pattern of the columns' names.
    columns: Vec<(String, ColumnAction)>,
    pub(super) added: Vec<AddedColumn>,
    /// The key's columns at the source, where a rule says them.
    pub(super) key: Option<Vec<String>>,
    /// The columns that the rules name.
    pub(super) named: Vec<NamedColumn>,
}

impl Transformations {
    /// Takes up a rule; `Err` is what is wrong with it, and what to do.
    pub(super) fn take(&mut self, name: &str, rule: Value, source: &TableId) -> Result<(), String> {
        let rule: TransformationRule = serde_json::from_value(rule).map_err(|error| format!("it can't be read: {error}"))?;
        if !rule.object_locator.matches(source) {
            return Ok(());
        }
        let action = rule.rule_action.as_str();
        let named = |column: &str, is_pattern| NamedColumn { rule: name.to_owned(), column: column.to_owned(), is_pattern };
        if rule.object_locator.data_type.is_some() {
            return Err("its object-locator has a data-type; name the columns by column-name".to_owned());
        }
        match rule.rule_target.as_str() {
            // items have tables and attributes, and nothing around them: there is nothing that a rule could change
            "schema" | "table-tablespace" | "index-tablespace" => Ok(()),
            "table" if action == "define-primary-key" => {
                let key = rule.primary_key_def.ok_or("define-primary-key lacks its primary-key-def")?;
                self.named.extend(key.columns.iter().map(|column| named(column, false)));
                self.key = Some(key.columns);
                Ok(())
            }
            "table" => {
                let naming = naming(&rule)?.ok_or_else(|| unknown(action, "table"))?;
                self.table.push(naming);
                Ok(())
            }
            "column" if action == "add-column" => {
                let added = rule.value.as_ref().map(text_of).ok_or("add-column lacks its value, the new column's name")?;
                let expression = rule.expression.as_deref().map(Expression::read).transpose()?;
                self.named.extend(expression.iter().flat_map(Expression::columns).map(|column| named(column, false)));
                let target_type = rule.data_type.as_ref().map(TargetType::read).transpose()?.unwrap_or_default();
                self.added.push(AddedColumn { name: added, expression, target_type });
                Ok(())
            }
            "column" if rule.expression.is_some() => {
                Err(format!("the action {action} has no expression here; add a column with it, and remove the other"))
            }
            "column" => {
                let pattern = rule.object_locator.column_name.clone();
                let pattern = pattern.ok_or("its object-locator lacks the column-name; add it")?;
                let action = match action {
                    "remove-column" => ColumnAction::Remove,
                    "include-column" => ColumnAction::Include,
                    "change-data-type" => {
                        let wanted = rule.data_type.as_ref().ok_or("change-data-type lacks its data-type; add it")?;
                        ColumnAction::ChangeType(TargetType::read(wanted)?)
                    }
                    _ => ColumnAction::Name(naming(&rule)?.ok_or_else(|| unknown(action, "column"))?),
                };
                if rule.object_locator.is_exact(source) && !pattern.contains('%') {
                    self.named.push(named(&pattern, true));
                }
                self.columns.push((pattern, action));
                Ok(())
            }
            other => Err(format!("there is no rule-target `{other}`; write schema, table or column")),
        }
    }

    /// What the table is called.
    pub(super) fn table_name(&self, name: &str) -> String {
        self.table.iter().fold(name.to_owned(), |name, naming| naming.of(&name))
    }

    fn of<'a>(&'a self, column: &'a str) -> impl Iterator<Item = &'a ColumnAction> {
        self.columns.iter().filter(move |(pattern, _)| is_like(pattern, column)).map(|(_, action)| action)
    }

    /// What a column of the source is called; `None`: items don't have it.
    pub(super) fn column_name(&self, column: &str) -> Option<String> {
        let is_listed = |action: &ColumnAction| matches!(action, ColumnAction::Include);
        let is_left_out = self.columns.iter().any(|(_, action)| is_listed(action)) && !self.of(column).any(is_listed);
        if is_left_out || self.of(column).any(|action| matches!(action, ColumnAction::Remove)) {
            return None;
        }
        let named = self.of(column).filter_map(|action| match action {
            ColumnAction::Name(naming) => Some(naming),
            _ => None,
        });
        Some(named.fold(column.to_owned(), |name, naming| naming.of(&name)))
    }

    /// The type that a column of the source is given, if that is another.
    pub(super) fn column_type(&self, column: &str) -> Option<&TargetType> {
        let matching = self.columns.iter().filter(|(pattern, _)| is_like(pattern, column));
        matching.fold(None, |before, (_, action)| match action {
            ColumnAction::ChangeType(to) => Some(to),
            _ => before,
        })
    }

    /// The column of the source that is called `name` in the items, as far as that can be told without knowing its columns.
    pub(super) fn column_called<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let named = self.columns.iter().map(|(pattern, _)| pattern.as_str()).filter(|pattern| !pattern.contains('%'));
        named.chain([name]).find(|column| self.column_name(column).as_deref() == Some(name))
    }
}

fn naming(rule: &TransformationRule) -> Result<Option<Naming>, String> {
    let action = rule.rule_action.as_str();
    let value = || rule.value.as_ref().map(text_of).ok_or_else(|| format!("{action} lacks its value; add it"));
    let old = || rule.old_value.as_ref().map(text_of).ok_or_else(|| format!("{action} lacks its old-value; add it"));
    Ok(Some(match action {
        "rename" => Naming::Rename(value()?),
        "convert-lowercase" => Naming::Lowercase,
        "convert-uppercase" => Naming::Uppercase,
        "add-prefix" => Naming::AddPrefix(value()?),
        "remove-prefix" => Naming::RemovePrefix(value()?),
        "replace-prefix" => Naming::ReplacePrefix(old()?, value()?),
        "add-suffix" => Naming::AddSuffix(value()?),
        "remove-suffix" => Naming::RemoveSuffix(value()?),
        "replace-suffix" => Naming::ReplaceSuffix(old()?, value()?),
        _ => return Ok(None),
    }))
}

fn unknown(action: &str, target: &str) -> String {
    let why = match action {
        "add-before-image-columns" => "items are what rows are, not what they were",
        action if action.starts_with("data-masking") => "mask the column at the source, or leave it out with remove-column",
        _ => "see docs/deliveries.md for those that there are",
    };
    format!("deliveries don't have the action `{action}` for a {target}; {why}")
}
