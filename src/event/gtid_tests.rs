use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
const B: &str = "4f22fa47-71ca-11e1-9e33-c80aa9429562";

fn set(text: &str) -> GtidSet {
    text.parse().unwrap()
}

#[test]
fn mysql_text_and_back() {
    assert_eq!(
        set(&format!("{}:1-3:11:47-49:Tag_1:1-3:5,\n{B}:4-5:1-3", A.to_uppercase())).to_string(),
        format!("{A}:1-3:11:47-49:tag_1:1-3:5,{B}:1-5")
    );
    assert_eq!(set(""), GtidSet::default());
    assert_eq!(set(&format!("{A}:5-3")), GtidSet::default(), "an empty interval is allowed, and empty");
    for wrong in ["x:1", &format!("{A}:0"), &format!("{A}:1-"), &format!("{A}:18446744073709551616"), "0-1", "0-1-2-3"] {
        assert!(wrong.parse::<GtidSet>().is_err(), "{wrong}");
    }
}

#[test]
fn records_count_by_shard() {
    let record = |shard: &str, number| Gtid::Record { shard: shard.into(), number };
    let mut set = GtidSet::default();
    [record("a,b#%.jsonl", 3), record("c:1", 7), record("a,b#%.jsonl", 2)].iter().for_each(|gtid| set.add(gtid));
    assert_eq!(set.to_string().parse::<GtidSet>().unwrap(), set);
    assert!(set.contains(&record("c:1", 7)) && !set.contains(&record("c:1", 8)) && !set.contains(&record("d", 1)));
    let mut more = set.clone();
    more.add(&record("c:1", 8));
    assert!(set.is_subset(&more) && !more.is_subset(&set));
    assert_eq!(more.subtract(&set).to_string(), "c:1#8");
    assert_eq!(record("a,b#%.jsonl", 3).to_string().parse(), Ok(record("a,b#%.jsonl", 3)));
    assert!("x#0".parse::<Gtid>().is_err() && "x#y".parse::<GtidSet>().is_err());
}

#[test]
fn a_tag_is_another_sequence() {
    let tagged: Gtid = format!("{A}:backup:7").parse().unwrap();
    let plain: Gtid = format!("{A}:7").parse().unwrap();
    let mut set = GtidSet::default();
    set.add(&tagged);
    assert!(set.contains(&tagged) && !set.contains(&plain));
    assert_eq!(tagged.to_string(), format!("{A}:backup:7"));
}

#[test]
fn mariadb_counts_a_domain_across_servers() {
    let mut ours = set("0-2-105,3-1-7");
    let gtid = |text: &str| text.parse::<Gtid>().unwrap();
    assert!(ours.contains(&gtid("0-1-90")), "an earlier primary of the domain");
    assert!(!ours.contains(&gtid("0-2-106")) && !ours.contains(&gtid("1-2-1")));
    ours.add(&gtid("0-1-110"));
    assert_eq!(ours.to_string(), "0-1-110,0-2-105,3-1-7");
    assert_eq!(ours.mariadb_position(), [gtid("0-1-110"), gtid("3-1-7")]);
    assert!(set("0-2-100").is_subset(&ours) && !set("4-1-1").is_subset(&ours));
}

fn model() -> impl Strategy<Value = BTreeSet<u64>> {
    prop::collection::btree_set(1_u64..40, 0..25)
}

fn built(model: &BTreeSet<u64>) -> GtidSet {
    let uuid = Uuid::parse_str(A).unwrap();
    let mut set = GtidSet::default();
    model.iter().rev().for_each(|number| set.add(&Gtid::MySql { uuid, tag: String::new(), number: *number }));
    set
}

proptest! {
    #[test]
    fn sets_behave_as_sets_of_numbers(a in model(), b in model()) {
        let (x, y) = (built(&a), built(&b));
        let mut both = x.clone();
        both.union(&y);
        prop_assert_eq!(&both, &built(&a.union(&b).copied().collect()));
        prop_assert_eq!(&x.subtract(&y), &built(&a.difference(&b).copied().collect()));
        prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
        prop_assert_eq!(&x.to_string().parse::<GtidSet>().unwrap(), &x);
        for number in 1..40 {
            let gtid = Gtid::MySql { uuid: Uuid::parse_str(A).unwrap(), tag: String::new(), number };
            prop_assert_eq!(x.contains(&gtid), a.contains(&number));
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[0-9a-f:,_x -]{0,60}") {
        let _ = text.parse::<GtidSet>();
        let _ = text.parse::<Gtid>();
    }
}
