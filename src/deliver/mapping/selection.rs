//! Selection rules: whether a table is delivered, and which of its rows.

use super::filter::Filter;
use super::fit::NamedColumn;
use crate::event::TableId;
use serde::Deserialize;

/// Which objects of the source a rule is for. `%` stands for any text, `_` for a character.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Locator {
    schema_name: String,
    /// Rules for schemas have none.
    #[serde(default)]
    table_name: Option<String>,
    #[serde(default)]
    pub(super) column_name: Option<String>,
    /// A column's type at the source, in DMS's words.
    #[serde(default)]
    pub(super) data_type: Option<serde_json::Value>,
}

impl Locator {
    pub(super) fn matches(&self, table: &TableId) -> bool {
        is_like(&self.schema_name, table.database())
            && self.table_name.as_ref().is_none_or(|pattern| is_like(pattern, table.name()))
    }

    pub(super) fn is_exact(&self, table: &TableId) -> bool {
        self.schema_name == table.database() && self.table_name.as_deref() == Some(table.name())
    }
}

/// SQL's LIKE.
pub(super) fn is_like(pattern: &str, text: &str) -> bool {
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
struct SelectionRule {
    object_locator: Locator,
    rule_action: String,
    #[serde(default)]
    filters: Vec<serde_json::Value>,
}

/// What the selection rules say about one table.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// The rules that include it, with their filters.
    included: Vec<(String, Vec<Filter>)>,
    is_excluded: bool,
}

impl Selection {
    /// Takes up a rule; `Err` is what is wrong with it.
    pub(super) fn take(&mut self, name: &str, rule: serde_json::Value, source: &TableId) -> Result<(), String> {
        let rule: SelectionRule =
            serde_json::from_value(rule).map_err(|error| format!("the rule `{name}` can't be read: {error}"))?;
        let is_included = match rule.rule_action.as_str() {
            "include" | "explicit" => true,
            "exclude" => false,
            other => return Err(format!("the rule `{name}` has the action `{other}`; write include, explicit or exclude")),
        };
        if !is_included && !rule.filters.is_empty() {
            return Err(format!("the rule `{name}` excludes by filters; write them the other way round, in a rule that includes"));
        }
        if !rule.object_locator.matches(source) {
            return Ok(());
        }
        if !is_included {
            self.is_excluded = true;
            return Ok(());
        }
        if (rule.rule_action == "explicit" || !rule.filters.is_empty()) && !rule.object_locator.is_exact(source) {
            let what = if rule.filters.is_empty() { "is explicit" } else { "has filters" };
            return Err(format!(
                "the rule `{name}` {what}, and names its table by a wildcard; write out schema-name and table-name"
            ));
        }
        let filters = rule.filters.into_iter().map(Filter::read).collect::<Result<_, _>>();
        self.included.push((name.to_owned(), filters.map_err(|what| format!("the rule `{name}`: {what}"))?));
        Ok(())
    }

    /// The columns that the filters name.
    pub(super) fn named(&self) -> impl Iterator<Item = NamedColumn> {
        let of_rule = |(rule, filters): &(String, Vec<Filter>)| {
            let named = |filter: &Filter| NamedColumn { rule: rule.clone(), column: filter.column.clone(), is_pattern: false };
            filters.iter().map(named).collect::<Vec<_>>()
        };
        self.included.iter().flat_map(of_rule)
    }

    /// The filters that each row must pass.
    pub(super) fn filters(self, source: &TableId) -> Result<Vec<Filter>, String> {
        let mut included = self.included.into_iter();
        let Some((name, filters)) = included.next().filter(|_| !self.is_excluded) else {
            return Err(format!("no selection rule includes {source}, or one excludes it; add one with the action include"));
        };
        for (other, others) in included {
            if others != filters {
                return Err(format!("the rules `{name}` and `{other}` include {source} with different filters; leave one out"));
            }
        }
        Ok(filters)
    }
}
