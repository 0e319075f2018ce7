//! `[table.children.…]`: lists of objects that become tables of their own, as the configuration has them.

use super::{BadValues, ColumnSpec, PlainColumn, PlainType};
use crate::event::{SourceType, TableId};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;
use toml::Spanned;

/// A list of objects that becomes a table of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildSpec {
    /// The fields that lead to the list.
    pub path: Vec<String>,
    /// The parent's column that has the list, as JSON text.
    pub column: String,
    /// The child's name; `None`: its parent's, `_` and the column.
    pub name: Option<TableId>,
    /// The columns that are declared: paths in an element.
    pub columns: Vec<PlainColumn>,
    /// Whether fields of elements that aren't declared become columns.
    pub is_inferred: bool,
    /// The columns that tell a list's elements apart; empty: their numbers in it.
    pub key: Vec<String>,
    /// What becomes of values of another type; `None`: what the parent's says.
    pub bad_values: Option<BadValues>,
    /// Whether it has a history, as its parent has.
    pub history: bool,
    /// Lists in the elements that become tables of their own.
    pub children: Vec<ChildSpec>,
}

impl ChildSpec {
    /// The child of `parent`.
    pub fn table(&self, parent: &TableId) -> TableId {
        let default = || TableId::new(parent.database(), format!("{}_{}", parent.name(), self.column));
        self.name.clone().unwrap_or_else(default)
    }

    /// The child of `parent`, and those of its own.
    pub fn all_tables(&self, parent: &TableId) -> Vec<TableId> {
        let own = self.table(parent);
        let inner: Vec<TableId> = self.children.iter().flat_map(|child| child.all_tables(&own)).collect();
        std::iter::once(own).chain(inner).collect()
    }

    /// What is declared of its rows, as text that stays the same while they do.
    pub fn declared(&self) -> String {
        let column = |column: &PlainColumn| {
            let null = if column.bad_values == Some(BadValues::Null) { " null" } else { "" };
            format!("{}={} {}{null}", column.name, column.path.join("."), column.kind.declared())
        };
        let columns: Vec<String> = self.columns.iter().map(column).collect();
        let null = if self.bad_values == Some(BadValues::Null) { " null" } else { "" };
        let more = if self.is_inferred { " …" } else { "" };
        let key = if self.key.is_empty() { "number".to_owned() } else { self.key.join(",") };
        format!("{}: {}{more}; by {key}{null}", self.column, columns.join(", "))
    }

    /// Whether it, or a child of its own, has a history.
    pub fn keeps_histories(&self) -> bool {
        self.history || self.children.iter().any(Self::keeps_histories)
    }

    /// Whether it, or a child of its own, infers columns.
    pub fn infers(&self) -> bool {
        self.is_inferred || self.children.iter().any(Self::infers)
    }

    /// Whether it, or a child of its own, is named.
    pub fn is_named(&self) -> bool {
        self.name.is_some() || self.children.iter().any(Self::is_named)
    }

    /// Whether it, or a child of its own, sends what it can't read to the dead letters.
    pub fn sends_letters(&self) -> bool {
        self.bad_values == Some(BadValues::DeadLetter) || self.children.iter().any(Self::sends_letters)
    }
}

/// Declares the lists of `children` among `columns` where they aren't yet: as `json`.
///
/// # Errors
/// If one is declared as what can't hold a list of objects.
pub fn declare_lists(columns: &mut Vec<PlainColumn>, children: &[ChildSpec]) -> Result<(), String> {
    for child in children {
        match columns.iter().find(|column| column.name == child.column) {
            Some(known) if !matches!(known.kind.source_type(), SourceType::Json | SourceType::Text { .. }) => {
                return Err(format!(
                    "`columns` declares `{}`, which has children, as {}; write json, or leave it out of `columns`",
                    child.column, known.kind
                ));
            }
            Some(_) => {}
            None => columns.push(PlainColumn {
                path: child.path.clone(),
                name: child.column.clone(),
                kind: PlainType::of(SourceType::Json),
                bad_values: None,
            }),
        }
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    column: Option<String>,
    name: Option<TableId>,
    columns: Option<DeclaredColumns>,
    infer: Option<bool>,
    #[serde(default)]
    key: Vec<String>,
    bad_values: Option<BadValues>,
    #[serde(default)]
    history: bool,
    #[serde(default)]
    children: ChildSpecs,
}

impl Section {
    fn spec(self, path: &str) -> Result<ChildSpec, String> {
        let mut columns = self.columns.map(|columns| columns.0).unwrap_or_default();
        let is_inferred = self.infer.unwrap_or(columns.is_empty());
        if columns.is_empty() && !is_inferred {
            return Err("missing field `columns`".into());
        }
        declare_lists(&mut columns, &self.children.0)?;
        let key: Vec<String> = self.key.iter().map(|key| key.replace('.', "_")).collect();
        for name in &key {
            match columns.iter().find(|column| column.name == *name) {
                None if !is_inferred => return Err(format!("`columns` doesn't declare the key `{name}`; add it")),
                Some(column) if is_no_key(column.kind.source_type()) => {
                    return Err(format!(
                        "`{name}` is {}, which can't be a key; leave `key` out for the elements' numbers",
                        column.kind
                    ));
                }
                _ => {}
            }
        }
        Ok(ChildSpec {
            column: self.column.unwrap_or_else(|| path.replace('.', "_")),
            path: path.split('.').map(str::to_owned).collect(),
            name: self.name,
            columns,
            is_inferred,
            key,
            bad_values: self.bad_values,
            history: self.history,
            children: self.children.0,
        })
    }
}

fn is_no_key(source_type: &SourceType) -> bool {
    matches!(source_type, SourceType::Float | SourceType::Double | SourceType::List { .. })
}

/// `children`, by the path of their list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChildSpecs(pub Vec<ChildSpec>);

impl ChildSpecs {
    /// Gives `bad_values` to all that don't say theirs, and whose parents don't.
    pub fn settle(&mut self, bad_values: BadValues) {
        for child in &mut self.0 {
            let own = *child.bad_values.get_or_insert(bad_values);
            let mut inner = Self(std::mem::take(&mut child.children));
            inner.settle(own);
            child.children = inner.0;
        }
    }

    /// A checksum of all that is declared; `None`: there are no children.
    pub fn checksum(&self) -> Option<u32> {
        fn declare(children: &[ChildSpec], text: &mut String) {
            for child in children {
                let name = child.name.as_ref().map(TableId::to_string).unwrap_or_default();
                text.push_str(&format!("{name} {} {} (", child.history, child.declared()));
                declare(&child.children, text);
                text.push(')');
            }
        }
        let mut text = String::new();
        declare(&self.0, &mut text);
        (!text.is_empty()).then(|| crc32fast::hash(text.as_bytes()))
    }
}

impl<'de> Deserialize<'de> for ChildSpecs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let sections = BTreeMap::<String, Section>::deserialize(deserializer)?;
        let specs = sections.into_iter().map(|(path, section)| section.spec(&path).map_err(D::Error::custom));
        specs.collect::<Result<_, _>>().map(Self)
    }
}

/// `columns`, in the order of the file.
#[derive(Debug)]
pub struct DeclaredColumns(pub Vec<PlainColumn>);

impl<'de> Deserialize<'de> for DeclaredColumns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = DeclaredColumns;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("columns with their types")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DeclaredColumns, A::Error> {
                let mut columns: Vec<(Spanned<String>, ColumnSpec)> = Vec::new();
                while let Some(column) = map.next_entry()? {
                    columns.push(column);
                }
                columns.sort_by_key(|(name, _)| name.span().start);
                let columns = columns.into_iter().map(|(name, spec)| spec.column(&name.into_inner()));
                Ok(DeclaredColumns(columns.collect()))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}
