//! Which rules count behind a cut: pure.

use crate::event::{CutPoint, TableId};
use crate::state::{RulesRevision, RulesStatus};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The revisions that took effect, newest first.
pub(super) fn in_force(revisions: &[RulesRevision]) -> impl DoubleEndedIterator<Item = &RulesRevision> {
    revisions.iter().rev().filter(|revision| revision.status == RulesStatus::InForce)
}

/// Named cuts that a loop has behind it: what it still reads of before them is for tables that had no commit there, and these go by the later rules.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct Passed(Mutex<Places>);

#[derive(Debug, Default)]
struct Places {
    /// All that the loop has.
    all: Option<CutPoint>,
    /// Where tables come and go, each of them.
    tables: BTreeMap<TableId, CutPoint>,
}

impl Passed {
    /// The loop has passed a cut with all its tables.
    pub(in crate::pipeline) fn all(&self, cut: CutPoint) {
        let mut places = self.lock();
        places.all = places.all.max(Some(cut));
    }

    /// The loop has passed a cut with these tables, and others may come to it that haven't.
    pub(in crate::pipeline) fn tables(&self, tables: impl IntoIterator<Item = TableId>, cut: CutPoint) {
        let mut places = self.lock();
        for table in tables {
            let place = places.tables.entry(table).or_default();
            *place = cut.max(*place);
        }
    }

    /// Whether a table has the cut behind it.
    pub(in crate::pipeline) fn has(&self, table: &TableId, cut: CutPoint) -> bool {
        let places = self.lock();
        places.all >= Some(cut) || places.tables.get(table).is_some_and(|place| *place >= cut)
    }

    /// Whether all tables have it behind them, also those that nobody knows yet.
    pub(in crate::pipeline) fn has_all(&self, cut: CutPoint) -> bool {
        self.lock().all >= Some(cut)
    }

    /// A table went back, and has none of them behind it.
    pub(in crate::pipeline) fn forget(&self) {
        *self.lock() = Places::default();
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::RulesDecision;

    #[test]
    fn tables_pass_alone_or_all_at_once() {
        let (a, b): (TableId, TableId) = ("s.a".parse().unwrap(), "s.b".parse().unwrap());
        let cut = |text: &str| text.parse::<CutPoint>().unwrap();
        let passed = Passed::default();
        passed.tables([a.clone()], cut("1/9"));
        passed.tables([a.clone()], cut("1/7"));
        assert!(passed.has(&a, cut("1/8")) && !passed.has(&a, cut("2/1")) && !passed.has(&b, cut("1/1")));
        passed.all(cut("1/8"));
        assert!(passed.has(&b, cut("1/8")) && !passed.has_all(cut("1/9")) && passed.has(&a, cut("1/9")));
    }

    #[test]
    fn what_was_refused_never_counts() {
        let revision = |number, decision| RulesRevision::proposal("p", number, "", "").decided(decision);
        let since = |text: &str| RulesDecision::InForce { since: Some(text.parse().unwrap()), position: None };
        let all = [
            revision(1, RulesDecision::InForce { since: None, position: None }),
            revision(2, since("1/5")),
            revision(3, RulesDecision::Refused(String::new())),
            revision(4, since("2/6")),
            RulesRevision::proposal("p", 5, "", ""),
        ];
        assert_eq!(in_force(&all).map(|revision| revision.number).collect::<Vec<_>>(), [4, 2, 1]);
    }
}
