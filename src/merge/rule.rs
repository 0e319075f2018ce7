//! `[[table]]`: which source tables are replicated, and how.

use super::history::{HISTORY_SUFFIX, HistoryRule};
use crate::event::{InvalidText, TableId, ValuePolicies, ZeroDates};
use crate::format::ChildSpecs;
use crate::transform::Transform;
use arrow::datatypes::SchemaRef;
use globset::{GlobBuilder, GlobMatcher};
use regex::Regex;
use serde::{Deserialize, Deserializer};
use std::fmt;

/// One `[[table]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableRule {
    /// The tables that it is for: `shop.orders`, `shop.*` or `/^shop_\d+\.orders$/`.
    pub source: TablePattern,
    /// Tables that it is not for, though `source` matches.
    #[serde(default)]
    pub exclude: Vec<TablePattern>,
    /// Names of the record key's columns; empty: the table's primary key.
    #[serde(default)]
    pub key: Vec<String>,
    /// How the lake table is partitioned; `None`: not at all.
    #[serde(default)]
    pub partition_by: Option<PartitionBy>,
    /// What becomes of dates that don't exist: `0000-00-00`, `2024-00-15`.
    #[serde(default)]
    pub zero_dates: ZeroDates,
    /// What becomes of text that is invalid in its column's character set.
    #[serde(default)]
    pub invalid_text: InvalidText,
    /// What TINYINT(1) is in the lake.
    #[serde(default)]
    pub tinyint1: TinyInt1,
    /// A row loses against one whose value in this column is greater, whichever came later; `None`: the later one wins.
    #[serde(default)]
    pub ordering: Option<String>,
    /// The `SELECT` whose columns the lake table has; `None`: the source's own.
    #[serde(default)]
    pub transform: Option<Transform>,
    /// How the table's history is kept; `None`: there is none.
    #[serde(default, deserialize_with = "HistoryRule::deserialize_optional")]
    pub history: Option<HistoryRule>,
    /// Lists of objects in the table's rows that become tables of their own.
    #[serde(default)]
    pub children: ChildSpecs,
}

/// How a table's rows become those of its lake table.
#[derive(Debug, Clone, Default)]
pub struct Treatment {
    /// See [`TableRule::partition_by`].
    pub partition_by: Option<PartitionBy>,
    /// See [`TableRule::ordering`].
    pub ordering: Option<String>,
    /// See [`TableRule::transform`].
    pub transform: Option<Transform>,
    /// Whether a history needs all changes.
    pub keeps_all: bool,
    /// See [`TableRule::history`]: where rows that it can't read become dead letters.
    pub refuses: Option<HistoryRule>,
    /// The columns that the lake's table has: where a transform of before gave one that is given no more, it stays, and is NULL in rows from now on.
    pub kept: Option<SchemaRef>,
}

impl Treatment {
    /// Whether rows may become dead letters.
    pub fn has_dead_letters(&self) -> bool {
        self.refuses.is_some() || self.transform.as_ref().is_some_and(Transform::has_dead_letters)
    }
}

impl TableRule {
    /// The rule that says no more than which tables it is for.
    pub fn named(source: TablePattern) -> Self {
        Self {
            source,
            exclude: Vec::new(),
            key: Vec::new(),
            partition_by: None,
            zero_dates: ZeroDates::default(),
            invalid_text: InvalidText::default(),
            tinyint1: TinyInt1::default(),
            ordering: None,
            history: None,
            children: ChildSpecs::default(),
            transform: None,
        }
    }

    /// What it says about the way from the source's rows to the lake's.
    pub fn treatment(&self) -> Treatment {
        Treatment {
            partition_by: self.partition_by.clone(),
            ordering: self.ordering.clone(),
            transform: self.transform.clone(),
            keeps_all: self.history.is_some(),
            refuses: self.history.as_ref().and_then(HistoryRule::refusing).cloned(),
            kept: None,
        }
    }

    /// The source's columns of which it is computed where a row lies: a change of one of them may move the row.
    pub fn moving_columns(&self) -> Vec<String> {
        let fields = self.partition_by.iter().flat_map(|by| &by.fields);
        fields
            .flat_map(|field| match &self.transform {
                Some(transform) => transform.sources_of(&field.column),
                None => vec![field.column.clone()],
            })
            .collect()
    }

    /// What it says about values.
    pub fn policies(&self) -> ValuePolicies {
        ValuePolicies { zero_dates: self.zero_dates, invalid_text: self.invalid_text }
    }
}

/// What TINYINT(1) is in the lake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TinyInt1 {
    /// A number.
    #[default]
    Int,
    /// A boolean: 0 is false, anything else true.
    Bool,
}

/// Which tables a rule means.
#[derive(Debug, Clone)]
pub enum TablePattern {
    /// One table.
    Exact(TableId),
    /// `shop.*`, `*.orders`, `shop.order_?`: `*` stops at the dot.
    Glob(GlobMatcher),
    /// `/regex/`, over `database.table`.
    Regex(Regex),
}

impl TablePattern {
    /// Whether `table` is meant.
    pub fn matches(&self, table: &TableId) -> bool {
        match self {
            TablePattern::Exact(exact) => exact == table,
            TablePattern::Glob(glob) => glob.is_match(format!("{}/{}", table.database(), table.name())),
            TablePattern::Regex(regex) => regex.is_match(&table.to_string()),
        }
    }
}

impl fmt::Display for TablePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TablePattern::Exact(table) => write!(f, "{table}"),
            TablePattern::Glob(glob) => f.write_str(&glob.glob().glob().replacen('/', ".", 1)),
            TablePattern::Regex(regex) => write!(f, "/{regex}/"),
        }
    }
}

impl std::str::FromStr for TablePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(inner) = text.strip_prefix('/') {
            let inner =
                inner.strip_suffix('/').ok_or_else(|| format!("`{text}` is a regular expression without a / at its end"))?;
            return Regex::new(inner).map(TablePattern::Regex).map_err(|error| {
                let last = error.to_string().lines().last().unwrap_or_default().replace("error: ", "");
                format!("`{text}` is not a regular expression: {last}")
            });
        }
        let table: TableId = text.parse()?;
        if !text.contains(['*', '?', '[', '{']) {
            return Ok(TablePattern::Exact(table));
        }
        GlobBuilder::new(&format!("{}/{}", table.database(), table.name()))
            .literal_separator(true)
            .build()
            .map(|glob| TablePattern::Glob(glob.compile_matcher()))
            .map_err(|error| format!("`{text}` is not a pattern: {}", error.kind().to_string().replace("; ", ", ")))
    }
}

impl<'de> Deserialize<'de> for TablePattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How a lake table is partitioned: by the values of these, hive style, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionBy {
    /// At least one.
    pub fields: Vec<PartitionField>,
}

/// A column, or a function of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionField {
    /// The source's column.
    pub column: String,
    /// The function; `None`: the column's own value.
    pub function: Option<PartitionFunction>,
}

/// A function of a date or time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionFunction {
    /// `2026`.
    Year,
    /// `2026-11`.
    Month,
    /// `2026-11-21`.
    Day,
    /// `2026-11-21-14`.
    Hour,
}

impl PartitionFunction {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            PartitionFunction::Year => "year",
            PartitionFunction::Month => "month",
            PartitionFunction::Day => "day",
            PartitionFunction::Hour => "hour",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Year, Self::Month, Self::Day, Self::Hour].into_iter().find(|f| f.name().eq_ignore_ascii_case(name))
    }
}

impl PartitionField {
    /// The partition column's name in the lake: the column's own, or `<column>_<function>`.
    pub fn lake_column(&self) -> String {
        match self.function {
            Some(function) => format!("{}_{}", self.column, function.name()),
            None => self.column.clone(),
        }
    }
}

impl std::str::FromStr for PartitionBy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fields = text.split(',').map(|part| partition_field(part.trim())).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { fields })
    }
}

fn partition_field(text: &str) -> Result<PartitionField, String> {
    const FORM: &str = "write a column, or year(…), month(…), day(…) or hour(…) of one";
    let column = |name: &str| {
        let name = name.trim().trim_matches('`');
        if name.is_empty() || name.contains(['(', ')', ' ']) {
            return Err(format!("`{text}` can't be partitioned by; {FORM}"));
        }
        Ok(name.to_owned())
    };
    let Some((function, rest)) = text.split_once('(') else {
        return Ok(PartitionField { column: column(text)?, function: None });
    };
    let Some(known) = PartitionFunction::from_name(function.trim()) else {
        return Err(format!("there is no partition function `{}`; {FORM}", function.trim()));
    };
    let inner = rest.trim_end().strip_suffix(')').ok_or_else(|| format!("`{text}` lacks its closing bracket"))?;
    Ok(PartitionField { column: column(inner)?, function: Some(known) })
}

impl<'de> Deserialize<'de> for PartitionBy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// All `[[table]]` rules. A rule that names a table exactly wins; else the first whose pattern matches.
#[derive(Debug, Clone, Default)]
pub struct TableRules {
    rules: Vec<TableRule>,
}

/// The server's own databases: never replicated, whatever a pattern says.
const SYSTEM_DATABASES: [&str; 4] = ["mysql", "sys", "information_schema", "performance_schema"];

impl TableRules {
    /// From the rules in the order of the configuration.
    pub fn new(rules: Vec<TableRule>) -> Self {
        Self { rules }
    }

    /// The rule for `table`; `None`: it isn't replicated.
    pub fn rule_for(&self, table: &TableId) -> Option<&TableRule> {
        if SYSTEM_DATABASES.iter().any(|system| table.database().eq_ignore_ascii_case(system)) {
            return None;
        }
        let exact = self.rules.iter().find(|rule| matches!(&rule.source, TablePattern::Exact(name) if name == table));
        exact.or_else(|| {
            self.rules.iter().find(|rule| rule.source.matches(table) && !rule.exclude.iter().any(|not| not.matches(table)))
        })
    }

    /// The same, to be changed.
    pub fn rules_mut(&mut self) -> &mut [TableRule] {
        &mut self.rules
    }

    /// The table whose history has the name of `table`, where there is one.
    pub fn history_owner(&self, table: &TableId) -> Option<TableId> {
        let owner = TableId::new(table.database(), table.name().strip_suffix(HISTORY_SUFFIX)?);
        self.rule_for(&owner).filter(|rule| rule.history.is_some()).map(|_| owner)
    }

    /// The table one of whose children has the name of `table`, where there is one.
    pub fn child_owner(&self, table: &TableId) -> Option<TableId> {
        let named = |rule: &TableRule, owner: &TableId| {
            rule.children.0.iter().flat_map(|child| child.all_tables(owner)).any(|child| child == *table)
        };
        let exact = self.exact_tables().find(|owner| self.rule_for(owner).is_some_and(|rule| named(rule, owner)));
        // of a pattern's tables the children are named after them
        let nameless = TableId::new(table.database(), "");
        let endings = self.rules.iter().flat_map(|rule| &rule.children.0).flat_map(|child| child.all_tables(&nameless));
        let mut owners =
            endings.filter_map(|ending| Some(TableId::new(table.database(), table.name().strip_suffix(ending.name())?)));
        let owned = |owner: &TableId| !owner.name().is_empty() && self.rule_for(owner).is_some_and(|rule| named(rule, owner));
        exact.cloned().or_else(|| owners.find(owned))
    }

    /// The rules, in the order of the configuration.
    pub fn rules(&self) -> &[TableRule] {
        &self.rules
    }

    /// The tables that are named exactly: each must exist at the source.
    pub fn exact_tables(&self) -> impl Iterator<Item = &TableId> {
        self.rules.iter().filter_map(|rule| match &rule.source {
            TablePattern::Exact(table) => Some(table),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> TableRules {
        #[derive(Deserialize)]
        struct File {
            table: Vec<TableRule>,
        }
        TableRules::new(toml::from_str::<File>(text).unwrap().table)
    }

    fn found(rules: &TableRules, table: &str) -> Option<String> {
        rules.rule_for(&table.parse().unwrap()).map(|rule| rule.source.to_string())
    }

    #[test]
    fn an_exact_name_wins_else_the_first_match() {
        let rules = rules(
            "[[table]]\nsource = 'shop.*'\nexclude = ['shop.tmp_*']\n[[table]]\nsource = '/^s.*\\.orders$/'\n\
             [[table]]\nsource = 'shop.orders'\nkey = ['id']\n",
        );
        assert_eq!(found(&rules, "shop.orders"), Some("shop.orders".into()));
        assert_eq!(found(&rules, "shop.items"), Some("shop.*".into()));
        assert_eq!(found(&rules, "shop.tmp_x"), None);
        assert_eq!(found(&rules, "store.orders"), Some("/^s.*\\.orders$/".into()));
        assert_eq!(found(&rules, "other.items"), None);
        assert_eq!(rules.exact_tables().count(), 1);
    }

    #[test]
    fn the_servers_own_databases_never_match() {
        let rules = rules("[[table]]\nsource = '*.*'\n");
        assert_eq!(found(&rules, "mysql.user"), None);
        assert_eq!(found(&rules, "a.b"), Some("*.*".into()));
    }

    #[test]
    fn partition_expressions() {
        let by: PartitionBy = "country, Year(start_date)".parse().unwrap();
        let names: Vec<String> = by.fields.iter().map(PartitionField::lake_column).collect();
        assert_eq!(names, ["country", "start_date_year"]);
        for wrong in ["", "week(d)", "year(d", "year()", "a b", "year(month(d))"] {
            assert!(wrong.parse::<PartitionBy>().is_err(), "{wrong}");
        }
    }
}
