//! Tables that go together: one that joins another (`url = "table:…"`) sees it as of each cut only where one loop applies both.

use super::NamedTables;
use crate::event::TableId;
use crate::pipeline::lookups::joined_tables;

/// For each of these tables the number of the first one that it goes with, its own if that is itself.
pub(super) fn heads(named: &NamedTables, tables: &[&TableId]) -> Vec<usize> {
    let all = named.rules();
    let mut heads: Vec<usize> = (0..tables.len()).collect();
    for (number, table) in tables.iter().enumerate() {
        let of_rules = all.iter().filter_map(|rules| rules.rule_for(table)?.transform.as_ref());
        for (_, other) in of_rules.flat_map(joined_tables) {
            let Some(other) = tables.iter().position(|table| **table == other) else { continue };
            let (one, two) = (heads[number], heads[other]);
            heads.iter_mut().filter(|head| **head == one || **head == two).for_each(|head| *head = one.min(two));
        }
    }
    heads
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lookup::{Lookup, LookupConfig};
    use crate::merge::{TableRule, TableRules};
    use crate::transform::Transform;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    #[test]
    fn tables_go_with_those_that_they_join() {
        let lookup = |name: &str, more: &str| {
            let config: LookupConfig = toml::from_str(&format!("url = 'table:s.{name}'\n{more}")).unwrap();
            (name.to_owned(), Arc::new(Lookup::new(name, config)))
        };
        let lookups = BTreeMap::from([lookup("a", ""), lookup("c", ""), lookup("e", "missing = 'hold'"), lookup("z", "")]);
        let rule = |table: &str, joined: Option<&str>| {
            let mut rule: TableRule = toml::from_str(&format!("source = 's.{table}'")).unwrap();
            rule.transform = joined.map(|joined| {
                let sql = format!("SELECT t.*, j.v AS w FROM input t LEFT JOIN {joined} j ON t.v = j.v");
                let mut transform: Transform = sql.parse().unwrap();
                transform.attach(&lookups).unwrap();
                transform
            });
            rule
        };
        let named = NamedTables::new(Vec::new());
        let tables: Vec<TableId> = "abcdefg".chars().map(|c| TableId::new("s", c.to_string())).collect();
        let heads_of = || heads(&named, &tables.iter().collect::<Vec<_>>());
        assert_eq!(heads_of(), [0, 1, 2, 3, 4, 5, 6], "no rules");
        // of rows that are held back nobody knows at which cut their items come; what nobody replicates has no lease
        let rules = vec![rule("d", Some("c")), rule("b", Some("a")), rule("f", Some("e")), rule("g", Some("z"))];
        named.set(vec![Arc::new(TableRules::new(rules))]);
        assert_eq!(heads_of(), [0, 0, 2, 2, 4, 5, 6]);
        // in a chain, and in a ring
        let rules = vec![rule("c", Some("a")), rule("a", Some("c")), rule("g", Some("c")), rule("b", None)];
        named.set(vec![Arc::new(TableRules::new(rules))]);
        assert_eq!(heads_of(), [0, 1, 0, 3, 4, 5, 0]);
    }
}
