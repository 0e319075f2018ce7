//! Streams that are split and merged while they are read, and positions taken at any moment.

use super::*;
use crate::event::sample::noise;
use crate::stream::LogPosition;

fn id(number: usize) -> ShardId {
    ShardId(format!("shardId-{number:012}"))
}

fn shard(number: usize, parents: &[usize], is_closed: bool) -> ListedShard {
    ListedShard { id: id(number), parents: parents.iter().map(|parent| id(*parent)).collect(), is_closed }
}

fn active(tree: &ShardTree) -> Vec<String> {
    tree.active().map(|(shard, _)| shard.0.trim_start_matches("shardId-").trim_start_matches('0').to_owned()).collect()
}

fn new(listed: Vec<ListedShard>, position: &StreamPosition) -> ShardTree {
    ShardTree::new(listed, position, Timestamp::from_micros(1_000_000)).unwrap()
}

#[test]
fn children_come_after_all_their_parents() {
    // 1 was split into 3 and 4; 2 and 3 were merged into 5
    let listed =
        || vec![shard(1, &[], true), shard(2, &[], true), shard(3, &[1], true), shard(4, &[1], false), shard(5, &[2, 3], false)];
    let mut tree = new(listed(), &StreamPosition::Oldest);
    assert_eq!(active(&tree), ["1", "2"]);
    tree.ended(&id(1), listed());
    assert_eq!(active(&tree), ["2", "3", "4"]);
    tree.ended(&id(3), listed());
    assert_eq!(active(&tree), ["2", "4"]);
    tree.advance(&id(4), "44".into());
    assert_eq!(tree.position().to_string(), "k1 2:T,3:E,4:44");
    tree.ended(&id(2), listed());
    assert_eq!(tree.position().to_string(), "k1 4:44,5:T");
    // who goes on from a position reads the same
    let mut tree = new(listed(), &StreamPosition::try_from(&LogPosition("k1 2:T,3:E,4:44".into())).unwrap());
    assert_eq!(active(&tree), ["2", "4"]);
    tree.ended(&id(2), listed());
    assert_eq!(active(&tree), ["4", "5"]);
}

#[test]
fn latest_and_a_time() {
    let listed = || vec![shard(1, &[], true), shard(2, &[1], false), shard(3, &[1], false)];
    let tree = new(listed(), &StreamPosition::Latest);
    assert_eq!(tree.position().to_string(), "k1 2:@1000,3:@1000");
    let mut tree = new(listed(), &StreamPosition::At(Timestamp::from_micros(5_000)));
    assert_eq!(tree.position().to_string(), "k1 1:@5");
    tree.ended(&id(1), listed());
    assert_eq!(tree.position().to_string(), "k1 2:@5,3:@5");
}

#[test]
fn a_shard_that_is_gone_is_lost_unless_it_was_read() {
    let listed = || vec![shard(2, &[1], false), shard(3, &[1], false)];
    let position = |text: &str| StreamPosition::try_from(&LogPosition(text.into())).unwrap();
    let error = ShardTree::new(listed(), &position("k1 1:44"), Timestamp::default()).unwrap_err();
    assert!(error.kind() == Kind::Corrupt && error.to_string().contains("binlake backfill"), "{error}");
    assert_eq!(active(&new(listed(), &position("k1 1:E"))), ["2", "3"]);
    // parents that the stream has forgotten hold nobody up
    assert_eq!(active(&new(listed(), &StreamPosition::Oldest)), ["2", "3"]);
}

#[test]
fn whatever_is_split_and_merged_each_shard_is_read_once_after_its_parents() {
    for seed in 0..300 {
        let mut noise = noise(seed);
        let mut shards: Vec<ListedShard> = (0..1 + noise(3) as usize).map(|number| shard(number, &[], false)).collect();
        let mut tree = new(shards.clone(), &StreamPosition::Oldest);
        let mut read: BTreeSet<ShardId> = BTreeSet::new();
        let mut steps = 0;
        while steps < 60 || shards.iter().any(|shard| shard.is_closed && !read.contains(&shard.id)) {
            steps += 1;
            let open: Vec<usize> = (0..shards.len()).filter(|at| !shards[*at].is_closed).collect();
            let next = shards.len();
            match noise(4) {
                0 if steps < 60 => {
                    let parent = open[noise(open.len() as u64) as usize];
                    shards[parent].is_closed = true;
                    shards.extend([shard(next, &[parent], false), shard(next + 1, &[parent], false)]);
                }
                1 if steps < 60 && open.len() > 1 => {
                    let at = noise(open.len() as u64 - 1) as usize;
                    shards[open[at]].is_closed = true;
                    shards[open[at + 1]].is_closed = true;
                    shards.push(shard(next, &[open[at], open[at + 1]], false));
                }
                2 => {
                    let position = LogPosition::from(&tree.position());
                    tree = new(shards.clone(), &StreamPosition::try_from(&position).unwrap());
                }
                _ => {
                    let active: Vec<ShardId> = tree.active().map(|(shard, _)| shard.clone()).collect();
                    assert!(active.iter().all(|shard| !read.contains(shard)), "seed {seed}: a shard is read twice");
                    let Some(chosen) = active.get(noise(active.len().max(1) as u64) as usize) else { continue };
                    let of = shards.iter().find(|shard| shard.id == *chosen).unwrap();
                    assert!(of.parents.iter().all(|parent| read.contains(parent)), "seed {seed}: a child before its parent");
                    if of.is_closed {
                        read.insert(chosen.clone());
                        tree.ended(chosen, shards.clone());
                    }
                }
            }
        }
    }
}
