//! Tables that join each other (`url = "table:…"`) in a ring.

use crate::event::TableId;
use std::collections::BTreeSet;

/// Whether `from` joins `to`, or joins a table that does, and so on; `joins` says which tables one joins.
pub fn leads_to(from: &TableId, to: &TableId, joins: impl Fn(&TableId) -> Vec<TableId>) -> bool {
    let mut seen = BTreeSet::from([from.clone()]);
    let mut open = vec![from.clone()];
    while let Some(table) = open.pop() {
        for other in joins(&table) {
            if other == *to {
                return true;
            }
            if seen.insert(other.clone()) {
                open.push(other);
            }
        }
    }
    false
}
