//! Two tables of one commit that share column chunks: each holds what its own changes say, whether they are the other's or not.

use super::SharedColumns;
use super::model_tests::{Change, Harness, ModelKey, Row};
use proptest::prelude::*;
use std::sync::Arc;

/// Commits on both, one after the other; says how many chunks were made once.
fn commit(pair: &mut [Harness; 2], changes: [Vec<(ModelKey, Change)>; 2], batch_rows: [usize; 2]) -> u64 {
    let shared = Arc::new(SharedColumns::new(1 << 20));
    for ((table, changes), batch_rows) in pair.iter_mut().zip(changes).zip(batch_rows) {
        table.shared = Some(shared.clone());
        table.commit(changes, batch_rows, false, None);
        table.check();
    }
    shared.taken()
}

fn put(id: i32, number: i64) -> (ModelKey, Change) {
    let row = Row { text: (number % 3 > 0).then(|| format!("text {}", number % 7)), number: Some(number), added: None, commit: 0 };
    ((None, id, "s".to_owned()), Change::Upsert(row))
}

#[test]
fn what_is_the_same_is_made_once() {
    let mut pair = [Harness::new(false, false, 1 << 20), Harness::new(false, false, 1 << 20)];
    // of the columns id, sub, text, number, part and two of Hudi's, in each of two row groups
    let load = || (0..300).map(|id| put(id, i64::from(id) * 5)).collect::<Vec<_>>();
    assert!(commit(&mut pair, [load(), load()], [100, 70]) >= 14);
    let updates = || (0..300).step_by(11).map(|id| put(id, i64::from(id) * 5 + 1)).collect::<Vec<_>>();
    assert!(commit(&mut pair, [updates(), updates()], [100, 1]) >= 14);
    // an odd row in one of them: the columns that it changes are made for each
    let odd = || updates().into_iter().chain([put(5, 1_000)]).collect::<Vec<_>>();
    assert!(commit(&mut pair, [updates(), odd()], [100, 100]) >= 7);
}

#[test]
fn what_comes_late_in_one_of_them_and_not_at_all_in_the_other_parts_nothing() {
    // as a history's open versions, which a late change leaves as they are
    let mut pair = [Harness::new(false, false, 1 << 20), Harness::new(false, false, 1 << 20)];
    pair[0].ordered = true;
    let load = || (0..300).map(|id| put(id, 5_000 + i64::from(id))).collect::<Vec<_>>();
    assert!(commit(&mut pair, [load(), load()], [100, 70]) >= 14);
    let updates = || (0..300).step_by(11).map(|id| put(id, 6_000 + i64::from(id))).collect::<Vec<_>>();
    let late =
        || updates().into_iter().chain((3..300).step_by(10).filter(|id| id % 11 > 0).map(|id| put(id, 7))).collect::<Vec<_>>();
    for _ in 0..2 {
        assert!(commit(&mut pair, [late(), updates()], [100, 30]) >= 14);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_table_is_what_its_own_changes_make_of_it(
        commits in prop::collection::vec(prop::collection::vec((0..260_i32, 0..30_i64, any::<bool>(), 0..12_u8), 1..160), 1..5),
        composite in any::<bool>(),
    ) {
        let mut pair = [Harness::new(false, composite, 3 << 10), Harness::new(false, composite, 4 << 10)];
        for changes in commits {
            let mut of = [Vec::new(), Vec::new()];
            for (id, number, is_delete, differs) in changes {
                let delete = ((None, id, "s".to_owned()), Change::Delete);
                let both = if is_delete { delete } else { put(id, number) };
                of[0].push(both.clone());
                // now and then the other table has another row, or none
                match differs {
                    0 => of[1].push(put(id, number + 1)),
                    1 => {}
                    _ => of[1].push(both),
                }
            }
            commit(&mut pair, of, [64, 17]);
        }
    }
}
