//! The queue against a server that refuses, loses answers and moves lines between shards, at random.

use super::*;

fn record(line: u32, number: u64, bytes: usize) -> PutRecord {
    let mut data = number.to_le_bytes().to_vec();
    data.resize(bytes.max(8), 0);
    PutRecord { line, partition_key: line.to_string().into(), explicit_hash_key: None, data: data.into() }
}

fn number(record: &PutRecord) -> u64 {
    u64::from_le_bytes(record.data[..8].try_into().unwrap())
}

fn call(queue: &mut PutQueue, now: Instant) -> Vec<Entry> {
    match queue.next(now) {
        Next::Call(call) => call,
        other => panic!("{other:?}"),
    }
}

fn all(call: Vec<Entry>, fate: &Fate) -> Vec<(Entry, Fate)> {
    call.into_iter().map(|entry| (entry, fate.clone())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_call_has_one_record_of_each_line() {
    let now = Instant::now();
    let mut queue = PutQueue::new(1);
    for number in 0..3 {
        for line in 0..4 {
            queue.push(record(line, number, 100), now);
        }
    }
    let first = call(&mut queue, now);
    assert_eq!(
        first.iter().map(|entry| (entry.record.line, number(&entry.record))).collect::<Vec<_>>(),
        [(0, 0), (1, 0), (2, 0), (3, 0)]
    );
    assert!(matches!(queue.next(now), Next::Idle), "each line has one under way");
    let shard = Fate::Accepted("s".into());
    assert_eq!(queue.answered(all(first, &shard), now).len(), 4);
    assert!(call(&mut queue, now).iter().all(|entry| number(&entry.record) == 1));
}

#[tokio::test(start_paused = true)]
async fn a_call_has_at_most_500_records_and_5_mib() {
    let now = Instant::now();
    let mut queue = PutQueue::new(1);
    for line in 0..700 {
        queue.push(record(line, 0, 10), now);
    }
    assert_eq!((call(&mut queue, now).len(), call(&mut queue, now + LINGER).len()), (500, 200));
    let mut queue = PutQueue::new(1);
    for line in 0..7 {
        queue.push(record(line, 0, 1 << 20), now);
    }
    assert_eq!((call(&mut queue, now).len(), call(&mut queue, now).len()), (4, 3));
    queue.push(record(9, 0, 9 << 20), now);
    assert_eq!(call(&mut queue, now).len(), 1, "a large record goes alone");
}

#[tokio::test(start_paused = true)]
async fn lines_that_were_filled_together_go_together() {
    let now = Instant::now();
    let mut queue = PutQueue::new(1);
    for line in 0..2 {
        queue.push(record(line, 0, 10), now);
    }
    let first = call(&mut queue, now);
    queue.answered(all(first, &Fate::Accepted("s".into())), now);
    queue.push(record(0, 1, 10), now);
    assert!(matches!(queue.next(now), Next::Wait(until) if until == now + LINGER), "the other line may have something, too");
    queue.push(record(1, 1, 10), now);
    assert_eq!(call(&mut queue, now).len(), 2);
    queue.push(record(5, 1, 10), now);
    assert_eq!(call(&mut queue, now + LINGER).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_throttles_holds_up_only_its_own_lines() {
    let now = Instant::now();
    let mut queue = PutQueue::new(1);
    for line in 0..4 {
        queue.push(record(line, 0, 10), now);
    }
    let first = call(&mut queue, now);
    let halves = |call: Vec<Entry>| -> Vec<(Entry, Fate)> {
        let shard = |line: u32| Fate::Accepted(if line < 2 { "hot".into() } else { "cool".into() });
        call.into_iter().map(|entry| (shard(entry.record.line), entry)).map(|(fate, entry)| (entry, fate)).collect()
    };
    let answers = halves(first);
    queue.answered(answers, now);
    for line in 0..4 {
        queue.push(record(line, 1, 10), now);
    }
    let second = call(&mut queue, now);
    let answers = second.into_iter().map(|entry| {
        let fate = if entry.record.line < 2 { Fate::Throttled } else { Fate::Accepted("cool".into()) };
        (entry, fate)
    });
    let answers = answers.collect();
    assert_eq!(queue.answered(answers, now).len(), 2);
    for line in 2..4 {
        queue.push(record(line, 2, 10), now);
    }
    let third = call(&mut queue, now + LINGER);
    assert!(third.iter().all(|entry| entry.record.line >= 2), "{third:?}");
    let Next::Wait(until) = queue.next(now + LINGER) else { panic!("the throttled ones wait") };
    assert!(call(&mut queue, until).iter().all(|entry| entry.record.line < 2 && number(&entry.record) == 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_takes_what_stands_behind_it_along() {
    let now = Instant::now();
    let mut queue = PutQueue::new(1);
    for number in 0..3 {
        queue.push(record(0, number, 10), now);
    }
    queue.push(record(1, 0, 10), now);
    let mut under_way = call(&mut queue, now);
    under_way.retain(|entry| entry.record.line == 0);
    assert_eq!(queue.give_up(under_way).len(), 3);
    assert!(matches!(queue.next(now), Next::Idle));
}

/// Whatever the server does, each line's records are on the stream in their order, all of them, and a repeat never comes after a later one.
#[tokio::test(start_paused = true)]
async fn the_order_of_a_line_holds_whatever_the_server_does() {
    for seed in 1..200 {
        let mut noise = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed);
        let mut below = move |most: u64| (jitter(&mut noise) * most as f64) as u64;
        let mut now = Instant::now();
        let mut queue = PutQueue::new(seed);
        let mut stream: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        let (mut pushed, mut done) = (BTreeMap::<u32, u64>::new(), 0);
        let mut under_way: Vec<Vec<Entry>> = Vec::new();
        let total = 300;
        let mut left = total;
        while done < total {
            now += Duration::from_millis(below(3));
            if left > 0 && below(2) == 0 {
                let line = below(9) as u32;
                let number = pushed.entry(line).or_default();
                queue.push(record(line, *number, 10 + below(30_000) as usize), now);
                *number += 1;
                left -= 1;
            }
            match queue.next(now) {
                Next::Call(call) => {
                    let mut lines: Vec<u32> = call.iter().map(|entry| entry.record.line).collect();
                    lines.dedup();
                    assert_eq!(lines.len(), call.len(), "two of a line in one call");
                    under_way.push(call);
                }
                Next::Wait(until) if under_way.is_empty() && left == 0 => now = until,
                _ => {}
            }
            if !under_way.is_empty() && below(3) == 0 {
                let call = under_way.swap_remove(below(under_way.len() as u64) as usize);
                let is_lost = below(6) == 0;
                let answers = call.into_iter().map(|entry| {
                    let shard: Arc<str> = format!("shard {}", u64::from(entry.record.line) % 3 + below(2) * 3).into();
                    let fate = if below(4) == 0 { Fate::Throttled } else { Fate::Accepted(shard) };
                    if matches!(fate, Fate::Accepted(_)) {
                        stream.entry(entry.record.line).or_default().push(number(&entry.record));
                    }
                    (entry, if is_lost { Fate::Unknown } else { fate })
                });
                let answers = answers.collect();
                done += queue.answered(answers, now).len();
            }
        }
        for (line, mut numbers) in stream {
            assert!(numbers.is_sorted(), "seed {seed}, line {line}: {numbers:?}");
            numbers.dedup();
            assert_eq!(numbers, (0..pushed[&line]).collect::<Vec<_>>(), "seed {seed}, line {line}");
        }
    }
}
