//! The fold against the worked example, and against an oracle that stores every assertion and answers by scanning.

use super::versions::{Closed, Late, OPEN_END, Version, Versions};
use proptest::prelude::*;

/// What was asserted about one key.
#[derive(Debug, Clone, Copy)]
enum Assertion {
    Put { row: u32, from: i64, to: i64 },
    Delete { from: i64 },
}

/// Every version that ever was, open ones with the open end.
fn all(versions: &Versions<u32>) -> Vec<(u32, i64, i64, i64, i64)> {
    let closed = versions.closed.iter().map(|Closed { version, system_to }| (version, *system_to));
    let current = versions.current.iter().map(|version| (version, OPEN_END));
    let all = closed.chain(current);
    all.map(|(version, end)| (version.row, version.valid_from, version.valid_to, version.system_from, end)).collect()
}

fn fold(stored: &[Version<u32>], late: Late, history: &[(i64, Assertion)]) -> Versions<u32> {
    let mut versions = Versions::new(late);
    versions.begin(stored.iter().copied());
    for (at, assertion) in history {
        match *assertion {
            Assertion::Put { row, from, to } => versions.put(row, from, to, *at, |a, b| a == b),
            Assertion::Delete { from } => versions.delete(from, *at),
        }
    }
    versions
}

/// The oracle: which row was true at `valid`, as was known at `system`. It has no versions: it goes through the assertions, each of which is true for a
/// set of instants that it works out by asking itself about the moment before.
fn oracle(late: Late, history: &[(i64, Assertion)], instants: i64, system: i64) -> Vec<Option<u32>> {
    let mut known: Vec<Option<(u32, usize)>> = vec![None; usize::try_from(instants).unwrap()];
    // the beginnings of what is known: instants at which another assertion, or none, begins to hold
    let begins = |known: &[Option<(u32, usize)>], v: usize| known[v].is_some() && (v == 0 || known[v - 1] != known[v]);
    for (number, (_, assertion)) in history.iter().enumerate().take_while(|(_, (at, _))| *at <= system) {
        match *assertion {
            Assertion::Delete { from } => (usize::try_from(from).unwrap()..known.len()).for_each(|v| known[v] = None),
            Assertion::Put { row, from, to } => {
                let from = usize::try_from(from).unwrap();
                let mut end = usize::try_from(to.min(instants)).unwrap();
                if late == Late::UntilNext {
                    end = (from + 1..end).find(|v| begins(&known, *v)).unwrap_or(end);
                }
                // a fact that is known throughout makes no version
                let first = known.get(from).copied().flatten();
                if first.is_some_and(|(before, of)| before == row && (from..end).all(|v| known[v] == Some((before, of)))) {
                    continue;
                }
                // the rest behind it is a version of its own: the oracle counts pieces as the definition does
                if let Some(rest) = known.get(end).copied().flatten()
                    && end > from
                    && known[end - 1] == Some(rest)
                {
                    let piece = Some((rest.0, number + history.len()));
                    (end..known.len())
                        .take_while(|v| known[*v] == Some(rest))
                        .collect::<Vec<_>>()
                        .into_iter()
                        .for_each(|v| known[v] = piece);
                }
                (from..end).for_each(|v| known[v] = Some((row, number)));
            }
        }
    }
    known.into_iter().map(|known| known.map(|(row, _)| row)).collect()
}

fn answer(versions: &[(u32, i64, i64, i64, i64)], valid: i64, system: i64) -> Vec<u32> {
    let holds = |&&(_, from, to, known, until): &&(u32, i64, i64, i64, i64)| {
        from <= valid && valid < to && known <= system && system < until
    };
    versions.iter().filter(holds).map(|version| version.0).collect()
}

fn day(text: &str) -> i64 {
    crate::time::Timestamp::parse(&format!("2026-{text}")).unwrap().as_micros()
}

#[test]
fn the_worked_example() {
    let put = |price, from| Assertion::Put { row: price, from: day(from), to: OPEN_END };
    let history = [
        (day("01-10"), put(10, "01-01")),
        (day("02-01"), put(12, "03-01")),
        (day("02-15"), put(11, "02-01")),
        (day("04-01"), Assertion::Delete { from: day("04-01") }),
        (day("05-01"), put(15, "05-01")),
    ];
    let versions = fold(&[], Late::UntilNext, &history);
    let mut found = all(&versions);
    found.sort_by_key(|version| (version.3, version.1));
    let d = |text: &str| if text == "∞" { OPEN_END } else { day(text) };
    let expected: Vec<_> = [
        (10, "01-01", "∞", "01-10", "02-01"),
        (10, "01-01", "03-01", "02-01", "02-15"),
        (12, "03-01", "∞", "02-01", "04-01"),
        (10, "01-01", "02-01", "02-15", "∞"),
        (11, "02-01", "03-01", "02-15", "∞"),
        (12, "03-01", "04-01", "04-01", "∞"),
        (15, "05-01", "∞", "05-01", "∞"),
    ]
    .iter()
    .map(|(price, from, to, known, until)| (*price, d(from), d(to), d(known), d(until)))
    .collect();
    assert_eq!(found, expected);
    assert_eq!(answer(&found, day("02-10"), day("02-10")), [10]);
    assert_eq!(answer(&found, day("02-10"), day("06-01")), [11]);
    assert_eq!(answer(&found, day("04-15"), day("03-20")), [12]);
    assert!(answer(&found, day("04-15"), day("06-01")).is_empty());
}

#[test]
fn a_late_fact_to_the_end_overwrites_the_known_future() {
    let history = [
        (10, Assertion::Put { row: 1, from: 5, to: OPEN_END }),
        (11, Assertion::Put { row: 2, from: 8, to: OPEN_END }),
        (12, Assertion::Put { row: 3, from: 6, to: OPEN_END }),
    ];
    let current: Vec<_> =
        fold(&[], Late::ToEnd, &history).current.iter().map(|v| (v.row, v.valid_from, v.valid_to, v.system_from)).collect();
    assert_eq!(current, [(1, 5, 6, 12), (3, 6, OPEN_END, 12)]);
}

#[test]
fn one_transaction_leaves_no_empty_period() {
    let put = |row, from| (10, Assertion::Put { row, from, to: OPEN_END });
    let versions = fold(&[], Late::UntilNext, &[put(1, 10), put(2, 10), (10, Assertion::Delete { from: 10 }), put(3, 10)]);
    assert!(versions.closed.is_empty());
    assert_eq!(all(&versions), [(3, 10, OPEN_END, 10, OPEN_END)]);
}

#[test]
fn what_was_known_anyway_makes_no_version() {
    let put = |at, row, from| (at, Assertion::Put { row, from, to: OPEN_END });
    assert_eq!(all(&fold(&[], Late::UntilNext, &[put(10, 1, 10), put(20, 1, 20)])).len(), 1);
    // the same row elsewhere on the axis is something new
    assert_eq!(all(&fold(&[], Late::UntilNext, &[put(10, 1, 10), put(20, 1, 5)])).len(), 2);
}

/// Valid times in the histories.
const INSTANTS: i64 = 12;

/// Transactions of one to three statements, few rows and few instants: so they meet all the time.
fn histories() -> impl Strategy<Value = Vec<(i64, Assertion)>> {
    let put = (0..4_u32, 0..INSTANTS, 1..INSTANTS, any::<bool>()).prop_map(|(row, from, length, is_open)| Assertion::Put {
        row,
        from,
        to: if is_open { OPEN_END } else { (from + length).min(INSTANTS) },
    });
    let delete = (0..INSTANTS).prop_map(|from| Assertion::Delete { from });
    let statement = prop_oneof![4 => put, 1 => delete];
    prop::collection::vec(prop::collection::vec(statement, 1..4), 1..9).prop_map(|transactions| {
        let numbered = transactions.into_iter().zip(1..);
        numbered.flat_map(|(statements, at)| statements.into_iter().map(move |statement| (at, statement))).collect()
    })
}

fn cases() -> u32 {
    std::env::var("HISTORY_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_answers_as_the_oracle(history in histories(), is_until_next: bool, cut in 0..24_usize) {
        let late = if is_until_next { Late::UntilNext } else { Late::ToEnd };
        let whole = fold(&[], late, &history);
        let versions = all(&whole);
        let last = history.last().unwrap().0;
        for system in 0..=last + 1 {
            // the last instant stands for all that come after
            let expected = oracle(late, &history, INSTANTS + 1, system);
            for valid in 0..INSTANTS {
                // at most one: V1
                let found = answer(&versions, valid, system);
                prop_assert_eq!(found, Vec::from_iter(expected[usize::try_from(valid).unwrap()]), "valid {} system {}", valid, system);
            }
        }
        for (_, from, to, known, until) in &versions {
            prop_assert!(from < to && known < until, "a period is empty");
        }
        prop_assert!(whole.current.windows(2).all(|pair| pair[0].valid_to <= pair[1].valid_from));
        // the same in two commits, cut between transactions: what the first closed stays as it is (V2), and all is the same in the end
        let cut = history.iter().position(|(at, _)| *at > history[cut.min(history.len() - 1)].0).unwrap_or(history.len());
        let first = fold(&[], late, &history[..cut]);
        let stored: Vec<_> = first.current.iter().zip(0..).map(|(version, i)| Version { stored: Some(i), ..*version }).collect();
        let second = fold(&stored, late, &history[cut..]);
        let mut pieces: Vec<_> = first.closed.iter().chain(&second.closed).map(|closed| (closed.version.row, closed.version.valid_from, closed.version.valid_to, closed.version.system_from, closed.system_to)).collect();
        pieces.extend(second.current.iter().map(|v| (v.row, v.valid_from, v.valid_to, v.system_from, OPEN_END)));
        let mut expected = versions;
        pieces.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(pieces, expected);
        // a version that was stored and is still current is untouched
        prop_assert!(second.current.iter().all(|version| version.stored.is_none_or(|i| stored[i as usize] == *version)));
    }
}
