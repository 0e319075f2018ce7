//! A configuration with other rules than those of its file, and what two sets of rules differ in.

use super::rules_text::{Parts, RULES, RulesText};
use super::tree::{self, Difference, Tree};
use super::{Config, Needs};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// What the text of a proposal says outside of the rules.
pub type BaseValues = BTreeMap<String, String>;

impl RulesText {
    /// The rules in a configuration's text; `mappings`: the files of its deliveries.
    pub(super) fn of(text: &str, mappings: Vec<String>) -> Self {
        Self { toml: Parts::of(text).rules, mappings }
    }

    /// Names the content: white space, comments and the order of what has none don't count.
    pub fn hash(&self) -> String {
        let sections = self.sections().iter().map(|(name, tree)| format!("{name} = {}\n", tree.canonical())).collect::<String>();
        tree::hash(&sections)
    }

    /// What `now` has that these don't, and the other way round.
    pub fn differences(&self, now: &RulesText) -> Vec<Difference> {
        tree::differences(&self.sections(), &now.sections())
    }

    /// Each section under its name.
    fn sections(&self) -> Vec<(String, Tree)> {
        let root = Tree::parse(&self.toml).unwrap_or(Tree::Table(Vec::new()));
        let mut named: Vec<(String, Tree)> = Vec::new();
        let mut push = |name: String, tree: Tree| {
            // two sections of one name are told apart by their places
            let count = named.iter().filter(|(other, _)| *other == name || other.starts_with(&format!("{name} #"))).count();
            named.push((if count == 0 { name } else { format!("{name} #{}", count + 1) }, tree));
        };
        let list = |kind: &str| match root.get(kind) {
            Some(Tree::List(items)) => items.clone(),
            _ => Vec::new(),
        };
        let text = |tree: &Tree, key: &str| tree.get(key).and_then(Tree::text).unwrap_or_default();
        for table in list("table") {
            let name = Some(text(&table, "name")).filter(|name| !name.is_empty()).unwrap_or_else(|| text(&table, "source"));
            push(format!("table {name}"), table);
        }
        if let Some(Tree::Table(lookups)) = root.get("lookup") {
            let mut lookups = lookups.clone();
            lookups.sort_by(|a, b| a.0.cmp(&b.0));
            lookups.into_iter().for_each(|(name, lookup)| push(format!("lookup {name}"), lookup));
        }
        for (i, delivery) in list("deliver").into_iter().enumerate() {
            let name = format!("deliver {} to {}", text(&delivery, "source"), text(&delivery, "to"));
            let mapping = self.mappings.get(i).map(|mapping| ("mapping_file".to_owned(), tree::of_json(mapping)));
            let delivery = match delivery {
                Tree::Table(entries) => Tree::Table(entries.into_iter().chain(mapping).collect()),
                other => other,
            };
            push(name, delivery);
        }
        named
    }
}

impl Config {
    /// The rules, as text.
    pub fn rules_text(&self) -> &RulesText {
        &self.rules
    }

    /// What other rules have that these don't, and the other way round. Who only reads the lake needn't have the mapping files, and doesn't compare them.
    pub fn differences_from(&self, rules: &RulesText) -> Vec<Difference> {
        let compared = |rules: &RulesText| match self.needs {
            Needs::All => rules.clone(),
            Needs::Lake => RulesText { mappings: Vec::new(), ..rules.clone() },
        };
        compared(&self.rules).differences(&compared(rules))
    }

    /// The same service with other rules.
    ///
    /// # Errors
    /// `Config`: what keeps these rules from being used here.
    pub fn with_rules(&self, rules: &RulesText) -> Result<Self> {
        let text = Parts { base: self.base.clone(), rules: rules.toml.clone() }.joined();
        let variable = |name: &str| std::env::var(name).ok();
        Self::parse_with(&self.file, &text, self.needs, &variable, Some(&rules.mappings))
    }

    /// The same service with the rules in `text`, which may be those sections alone or a whole configuration; mapping files are read.
    ///
    /// # Errors
    /// `Config`: what keeps these rules from being used here, or other sections that differ.
    pub fn with_rules_in(&self, text: &str) -> Result<Self> {
        let parts = Parts::of(text);
        if Tree::parse(text).is_some() {
            ensure_same_base(&base_values(&parts.base), &base_values(&self.base), true)?;
        }
        let joined = Parts { base: self.base.clone(), rules: parts.rules }.joined();
        Self::parse_with(&self.file, &joined, Needs::All, &|name| std::env::var(name).ok(), None)
    }

    /// What the other sections say: hashes, as they may hold secrets.
    pub fn base_values(&self) -> BaseValues {
        base_values(&self.base)
    }

    /// Rules must stand in sections of their own to be told from the rest.
    ///
    /// # Errors
    /// `Config`: they don't.
    pub fn ensure_rules_apart(&self) -> Result<()> {
        let root = Tree::parse(&self.base);
        match RULES.iter().find(|key| root.as_ref().is_some_and(|root| root.get(key).is_some())) {
            None => Ok(()),
            Some(key) => Err(Error::config("rules stand outside of sections of their own")
                .with("key", key)
                .with("file", self.file.display())
                .remedy("write them as [[table]], [lookup.NAME] and [[deliver]]")),
        }
    }
}

/// What can't be changed while the service runs must be as it was when the service began; `partial`: what `wanted` doesn't say stays.
///
/// # Errors
/// `Config`, with the key.
pub fn ensure_same_base(wanted: &BaseValues, running: &BaseValues, partial: bool) -> Result<()> {
    let changed = wanted.iter().find(|(key, value)| running.get(*key) != Some(value)).map(|(key, _)| key);
    let gone = running.keys().find(|key| !wanted.contains_key(*key) && !partial);
    match changed.or(gone) {
        None => Ok(()),
        Some(key) => Err(Error::config("only tables, lookups and deliveries can be changed while the service runs")
            .with("key", key)
            .remedy("undo that change, or stop the service and start it with the changed file")),
    }
}

fn base_values(base: &str) -> BaseValues {
    fn flat(path: String, tree: &Tree, found: &mut BaseValues) {
        match tree {
            Tree::Table(entries) => {
                entries.iter().for_each(|(key, value)| {
                    flat(if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, value, found);
                });
            }
            // a password isn't part of what is hashed
            other => {
                let text = other.canonical();
                let shown = match (text.find("://"), text.rfind('@')) {
                    (Some(start), Some(end)) if start < end => format!("{}{}", &text[..start], &text[end..]),
                    _ => text,
                };
                found.insert(path, tree::hash(&shown));
            }
        }
    }
    let mut found = BaseValues::new();
    if let Some(tree) = Tree::parse(base) {
        flat(String::new(), &tree, &mut found);
    }
    // processes of one pipeline on one machine have an address each
    found.remove("admin.listen");
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(toml: &str) -> RulesText {
        RulesText { toml: toml.into(), mappings: vec![r#"{"a": {"b": [1, 2]}}"#.into()] }
    }

    #[test]
    fn differences_have_their_keys_and_values() {
        let before = text(
            "[[table]]\nsource = 's.a'\nkey = ['id']\n[[table]]\nsource = 's.b'\n[lookup.c]\nurl = 'file:x'\n[lookup.c.columns]\ncode = 'text'\n\
             [[deliver]]\nsource = 's.a'\nto = 'sqlite:x'\n",
        );
        let mut now = text(
            "# other\n[[table]]\nsource   = 's.a'\nkey = ['id', 'x']\n[[table]]\nname = 's.n'\nstream = 'file:y'\n[lookup.c]\nurl = 'file:x'\n\
             [lookup.c.columns]\ncode = 'int'\n[[deliver]]\nsource = 's.a'\nto = 'sqlite:x'\n",
        );
        now.mappings = vec![r#"{"a": {"b": [1, 3]}}"#.into()];
        let shown: Vec<String> =
            (before.differences(&now).iter()).map(|d| format!("{} {}: {:?} -> {:?}", d.section, d.key, d.before, d.now)).collect();
        insta::assert_snapshot!(shown.join("\n"), @r##"
        table s.b : Some("") -> None
        table s.a key: Some("[\"id\"]") -> Some("[\"id\", \"x\"]")
        table s.n : None -> Some("")
        table s.n name: None -> Some("\"s.n\"")
        table s.n stream: None -> Some("\"file:y\"")
        lookup c columns.code: Some("\"text\"") -> Some("\"int\"")
        deliver s.a to sqlite:x mapping_file.a.b: Some("[1, 2]") -> Some("[1, 3]")
        "##);
        assert_ne!(before.hash(), now.hash());
        let spaced =
            RulesText { toml: before.toml.replace(" = ", "=").replace("[[deliver]]", "\n# so\n[[deliver]]"), ..before.clone() };
        assert_eq!((before.hash(), before.differences(&spaced)), (spaced.hash(), Vec::new()));
    }

    #[test]
    fn the_order_of_columns_and_of_tables_counts() {
        let one = text("[[table]]\nname='a.b'\ncolumns={x='int',y='int'}\n[[table]]\nsource='c.d'\n");
        let other = text("[[table]]\nname='a.b'\ncolumns={y='int',x='int'}\n[[table]]\nsource='c.d'\n");
        assert_eq!(one.differences(&other)[0].key, "order of keys");
        let swapped = text("[[table]]\nsource='c.d'\n[[table]]\nname='a.b'\ncolumns={x='int',y='int'}\n");
        assert_eq!(one.differences(&swapped)[0].section, "order of sections");
        assert!(one.hash() != other.hash() && one.hash() != swapped.hash());
    }

    #[test]
    fn what_needs_a_restart_is_named() {
        let values = |base: &str| base_values(base);
        let running = values("[source]\nurl = 'mysql://u:one@h'\n[lake]\nurl = 'file:x'\n");
        // another password is no change, and no hash of it is kept
        ensure_same_base(&values("[source]\nurl = 'mysql://u:two@h'\n[lake]\nurl = 'file:x'\n"), &running, false).unwrap();
        let error = ensure_same_base(&values("[lake]\nurl = 'file:y'\n"), &running, true).unwrap_err();
        assert!(error.to_string().contains("key=lake.url") && error.exit_code() == 2, "{error}");
        assert!(ensure_same_base(&values("[lake]\nurl = 'file:x'\n"), &running, false).is_err());
        ensure_same_base(&values("[lake]\nurl = 'file:x'\n"), &running, true).unwrap();
        let own_address = "[source]\nurl = 'mysql://u:two@h'\n[lake]\nurl = 'file:x'\n[admin]\nlisten = '127.0.0.1:1'\n";
        ensure_same_base(&values(own_address), &running, false).unwrap();
    }
}
