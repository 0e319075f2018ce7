//! Made ticket data, the same rows at each run: ids in order, the other columns from a small generator of random numbers.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panic")]
#![allow(unreachable_pub, reason = "a module of several benchmarks")]

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringBuilder, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use std::fmt::Write;
use std::sync::Arc;

const SPORTS: [&str; 5] = ["baseball", "football", "nba", "soccer", "hockey"];
const LEVELS: [&str; 4] = ["Lower", "Upper", "Club", "Standing"];
const FIRST: [&str; 8] = ["Anna", "Bob", "Carla", "David", "Elena", "Frank", "Grace", "Henry"];
const LAST: [&str; 6] = ["Smith", "Jones", "Miller", "Garcia", "Brown", "Lee"];

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len() as u64) as usize]
    }
}

/// The columns of a ticket in the lake.
pub fn columns() -> SchemaRef {
    let text = |name| Field::new(name, DataType::Utf8, true);
    let time = |name| Field::new(name, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true);
    Arc::new(Schema::new(vec![
        Field::new("ticketactivity_id", DataType::Int32, false),
        text("sport_type"),
        text("start_date"),
        text("location"),
        text("seat_level"),
        text("seat_location"),
        Field::new("ticket_price", DataType::Int32, true),
        text("customer_name"),
        text("email_address"),
        time("created_at"),
        time("updated_at"),
        time("_commit_ts"),
        text("_position"),
    ]))
}

/// The tickets `ids` in their revision `revision`: a ticket is the same whatever others are made with it.
pub fn tickets(ids: &[i32], revision: i64) -> RecordBatch {
    let rows = ids.len();
    let mut texts: Vec<StringBuilder> = (0..8).map(|_| StringBuilder::with_capacity(rows, rows * 16)).collect();
    let mut prices = Vec::with_capacity(rows);
    let mut created = Vec::with_capacity(rows);
    let mut word = String::new();
    for id in ids {
        let random = &mut Random((revision as u64) << 32 | *id as u64);
        let mut put = |column: usize, word: &mut String| {
            texts[column].append_value(&word);
            word.clear();
        };
        let (first, last) = (random.of(&FIRST), random.of(&LAST));
        word.push_str(random.of(&SPORTS));
        put(0, &mut word);
        _ = write!(word, "2024-0{}-{}", 1 + random.below(8), 10 + random.below(18));
        put(1, &mut word);
        _ = write!(word, "Stadium {}", 1 + random.below(299));
        put(2, &mut word);
        word.push_str(random.of(&LEVELS));
        put(3, &mut word);
        _ = write!(word, "Sec {} Row {}", 1 + random.below(399), 1 + random.below(39));
        put(4, &mut word);
        _ = write!(word, "{first} {last}");
        put(5, &mut word);
        _ = write!(word, "{}.{}{}@example.com", first.to_lowercase(), last.to_lowercase(), random.below(99_999));
        put(6, &mut word);
        // a thousand rows a transaction
        _ = write!(word, "3e11fa47-71ca-11e1-9e33-c80aa9429562:{}", 1 + revision * 1_000_000 + i64::from(*id) / 1000);
        put(7, &mut word);
        prices.push(20 + random.below(880) as i32);
        created.push(1_704_067_200_000_000 + random.below(86_400_000_000) as i64);
    }
    let updated: Vec<i64> = vec![1_704_153_600_000_000 + revision * 3_600_000_000; rows];
    let committed: Vec<i64> =
        ids.iter().map(|id| 1_704_153_600_000_000 + revision * 3_600_000_000 + i64::from(id / 1000) * 1_000).collect();
    let time = |values: Vec<i64>| Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")) as ArrayRef;
    let mut texts = texts.into_iter().map(|mut text| Arc::new(text.finish()) as ArrayRef);
    let mut next = || texts.next().expect("eight text columns");
    let (sport, date, location, level, seat, name, mail, position) =
        (next(), next(), next(), next(), next(), next(), next(), next());
    let columns_now: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(ids.to_vec())),
        sport,
        date,
        location,
        level,
        seat,
        Arc::new(Int32Array::from(prices)),
        name,
        mail,
        time(created),
        time(updated),
        time(committed),
        position,
    ];
    RecordBatch::try_new(columns(), columns_now).expect("columns of one length")
}
