//! The values of a configuration's sections in the order in which they stand there, and what two of them differ in.

use sha2::{Digest, Sha256};
use std::fmt::Write;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// A value and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tree {
    /// As TOML writes it.
    Leaf(String),
    List(Vec<Tree>),
    Table(Vec<(String, Tree)>),
}

/// How a value differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// `table shop.orders`, `lookup countries`, `deliver shop.orders to sqlite:…`.
    pub section: String,
    /// The key's path in the section; empty: the section itself came or went.
    pub key: String,
    /// The value before; `None`: there was none.
    pub before: Option<String>,
    /// The value now; `None`: there is none any more.
    pub now: Option<String>,
}

impl Tree {
    /// Reads TOML; `None`: it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(of_table(DeTable::parse(text).ok()?.get_ref()))
    }

    pub(super) fn get(&self, key: &str) -> Option<&Tree> {
        match self {
            Tree::Table(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// In one way for each content: what a hash is made of.
    pub(super) fn canonical(&self) -> String {
        match self {
            Tree::Leaf(text) => text.clone(),
            Tree::List(items) => format!("[{}]", items.iter().map(Tree::canonical).collect::<Vec<_>>().join(", ")),
            Tree::Table(entries) => {
                let entries = entries.iter().map(|(key, value)| format!("{key} = {}", value.canonical()));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// All leaves and lists, by their paths.
    fn flat<'a>(&'a self, path: String, found: &mut Vec<(String, &'a Tree)>) {
        match self {
            Tree::Table(entries) => {
                for (key, value) in entries {
                    value.flat(if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, found);
                }
            }
            other => found.push((path, other)),
        }
    }

    /// The text of a string leaf.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Tree::Leaf(text) => serde_json::from_str(text).ok(),
            _ => None,
        }
    }
}

/// The first digits of the content's SHA-256.
pub(super) fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(8).fold(String::new(), |mut digits, byte| {
        // writing to a String doesn't fail
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

/// What each section has that the other doesn't; sections are known by their names.
pub(super) fn differences(before: &[(String, Tree)], now: &[(String, Tree)]) -> Vec<Difference> {
    let mut found = Vec::new();
    let find =
        |sections: &[(String, Tree)], name: &str| sections.iter().find(|(other, _)| other == name).map(|(_, tree)| tree.clone());
    for (name, _) in before.iter().filter(|(name, _)| find(now, name).is_none()) {
        found.push(Difference { section: name.clone(), key: String::new(), before: Some(String::new()), now: None });
    }
    for (name, tree) in now {
        let Some(old) = find(before, name) else {
            found.push(Difference { section: name.clone(), key: String::new(), before: None, now: Some(String::new()) });
            found.extend(values(name, &Tree::Table(Vec::new()), tree));
            continue;
        };
        found.extend(values(name, &old, tree));
    }
    let order = |sections: &[(String, Tree)], other: &[(String, Tree)]| -> Vec<String> {
        sections.iter().map(|(name, _)| name.clone()).filter(|name| find(other, name).is_some()).collect()
    };
    let (old_order, new_order) = (order(before, now), order(now, before));
    if old_order != new_order {
        let (before, now) = (Some(old_order.join(", ")), Some(new_order.join(", ")));
        found.push(Difference { section: "order of sections".into(), key: "order".into(), before, now });
    }
    found
}

fn values(section: &str, before: &Tree, now: &Tree) -> Vec<Difference> {
    let (mut old, mut new) = (Vec::new(), Vec::new());
    before.flat(String::new(), &mut old);
    now.flat(String::new(), &mut new);
    let difference = |key: &str, before: Option<&Tree>, now: Option<&Tree>| Difference {
        section: section.to_owned(),
        key: key.to_owned(),
        before: before.map(Tree::canonical),
        now: now.map(Tree::canonical),
    };
    let mut found: Vec<Difference> = Vec::new();
    for (key, value) in &new {
        match old.iter().find(|(other, _)| other == key) {
            Some((_, was)) if was == value => {}
            was => found.push(difference(key, was.map(|(_, was)| *was), Some(value))),
        }
    }
    for (key, was) in old.iter().filter(|(key, _)| !new.iter().any(|(other, _)| other == key)) {
        found.push(difference(key, Some(was), None));
    }
    if found.is_empty() && before != now {
        // the same values in another order: that of columns counts
        let keys = |values: &[(String, &Tree)]| values.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>().join(", ");
        let (before, now) = (Some(keys(&old)), Some(keys(&new)));
        if before != now {
            found.push(Difference { section: section.to_owned(), key: "order of keys".into(), before, now });
        }
    }
    found
}

fn of_table(table: &DeTable<'_>) -> Tree {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    Tree::Table(entries.into_iter().map(|(key, value)| (key.get_ref().to_string(), of_value(value))).collect())
}

fn of_array(array: &DeArray<'_>) -> Tree {
    Tree::List(array.iter().map(of_value).collect())
}

fn of_value(value: &Spanned<DeValue<'_>>) -> Tree {
    match value.get_ref() {
        DeValue::String(text) => Tree::Leaf(quoted(text)),
        DeValue::Integer(number) => Tree::Leaf(number.to_string()),
        DeValue::Float(number) => Tree::Leaf(number.to_string()),
        DeValue::Boolean(yes) => Tree::Leaf(yes.to_string()),
        DeValue::Datetime(time) => Tree::Leaf(time.to_string()),
        DeValue::Array(array) => of_array(array),
        DeValue::Table(table) => of_table(table),
    }
}

/// A string as JSON writes it, which TOML reads as well.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// JSON as a tree; what isn't JSON is one string.
pub(super) fn of_json(text: &str) -> Tree {
    fn of(value: serde_json::Value) -> Tree {
        match value {
            serde_json::Value::Array(items) => Tree::List(items.into_iter().map(of).collect()),
            serde_json::Value::Object(entries) => Tree::Table(entries.into_iter().map(|(key, value)| (key, of(value))).collect()),
            other => Tree::Leaf(other.to_string()),
        }
    }
    serde_json::from_str(text).map_or_else(|_| Tree::Leaf(quoted(text)), of)
}
