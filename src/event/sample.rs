//! Ticket rows and cuts for tests: the same on every run.

use super::*;
use crate::time::Timestamp;
use arrow::array::{ArrayRef, FixedSizeBinaryBuilder, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use std::sync::Arc;

/// `sports.ticket_activity`.
pub(crate) fn tickets() -> Arc<TableSchema> {
    let text = || SourceType::Text { charset: "utf8mb4".into(), max_bytes: 1024 };
    let column = |name: &str, source_type| Column { name: name.into(), source_type, nullable: false };
    Arc::new(TableSchema {
        table: TableId::new("sports", "ticket_activity"),
        columns: vec![
            column("ticketactivity_id", SourceType::Int { unsigned: false }),
            column("sport_type", text()),
            column("start_date", SourceType::DateTime { fsp: 0 }),
            column("location", text()),
            column("seat_level", text()),
            column("seat_location", text()),
            column("ticket_price", SourceType::Int { unsigned: false }),
            column("customer_name", text()),
            column("email_address", text()),
            column("created_at", SourceType::DateTime { fsp: 0 }),
            column("updated_at", SourceType::DateTime { fsp: 0 }),
        ],
        key: vec![0],
    })
}

/// A generator of numbers without any meaning.
pub(crate) fn noise(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % below
    }
}

pub(crate) fn stamps(count: u64, first: u64) -> Arc<Vec<TransactionStamp>> {
    let uuid = uuid::Uuid::from_u128(0x3e11_fa47_71ca_11e1_9e33_c80a_a942_9562);
    let mut noise = noise(first);
    let (mut offset, mut time) = (4 + first * 520, 1_790_000_000_000_000 + first as i64 * 3000);
    let stamp = |i| {
        offset += 500 + noise(60);
        time += noise(6000) as i64;
        TransactionStamp {
            gtid: Some(Gtid::MySql { uuid, tag: String::new(), number: first + i + 1 }),
            coordinates: BinlogCoordinates { file: "binlog.000007".into(), offset },
            source_commit_time: Timestamp::from_micros(time),
            is_snapshot: false,
        }
    };
    Arc::new((0..count).map(stamp).collect())
}

/// Changed tickets: `rows` rows with ids from `first` on, in transactions of `rows_each`.
pub(crate) fn ticket_changes(first: u64, rows: u64, rows_each: u64) -> ChangeBatch {
    const SPORTS: [&str; 6] = ["baseball", "football", "basketball", "hockey", "soccer", "tennis"];
    const CITIES: [&str; 8] = ["New York", "Los Angeles", "Chicago", "Seattle", "Boston", "Dallas", "Denver", "San Francisco"];
    const LEVELS: [&str; 4] = ["Premium", "Standard", "Economy", "VIP"];
    const NAMES: [&str; 10] = ["James", "Mary", "Robert", "Patricia", "John", "Jennifer", "Michael", "Linda", "David", "Elizabeth"];
    let schema = tickets();
    let mut noise = noise(first + 1);
    let mut text: [Vec<String>; 6] = Default::default();
    let (mut ids, mut prices): (Vec<i32>, Vec<i32>) = Default::default();
    let mut times: [Vec<i64>; 3] = Default::default();
    let (mut operations, mut stamp_of) = (Vec::new(), Vec::new());
    let mut changed = FixedSizeBinaryBuilder::new(2);
    for row in 0..rows {
        ids.push((first + row * 16) as i32);
        text[0].push(SPORTS[noise(6) as usize].into());
        text[1].push(CITIES[noise(8) as usize].into());
        text[2].push(LEVELS[noise(4) as usize].into());
        text[3].push(format!("Section {} Row {} Seat {}", noise(40) + 1, noise(30) + 1, noise(25) + 1));
        prices.push(20 + noise(480) as i32);
        let (name, surname) = (NAMES[noise(10) as usize], NAMES[noise(10) as usize]);
        text[4].push(format!("{name} {surname}son"));
        text[5].push(format!("{}.{}{}@example.com", name.to_lowercase(), surname.to_lowercase(), noise(10_000)));
        let created = 1_790_000_000 + row as i64 / 50;
        times[0].push((created + 86_400 * noise(200) as i64) * 1_000_000);
        times[1].push(created * 1_000_000);
        times[2].push((created + noise(3000) as i64) * 1_000_000);
        let operation = [Operation::Create, Operation::Update, Operation::Update, Operation::Delete][noise(4) as usize];
        operations.push(operation.code());
        match operation {
            Operation::Update => changed.append_value([0b0100_0000, 0b0000_0100]).unwrap(),
            _ => changed.append_null(),
        }
        stamp_of.push((row / rows_each) as u32);
    }
    let [sport, city, level, seat, name, mail] = text.map(|column| Arc::new(StringArray::from(column)) as ArrayRef);
    let [start, created, updated] =
        times.map(|column| Arc::new(TimestampMicrosecondArray::from(column).with_timezone("UTC")) as ArrayRef);
    let (ids, prices) = (Arc::new(Int32Array::from(ids)), Arc::new(Int32Array::from(prices)));
    let rows_array =
        RecordBatch::try_new(schema.arrow(), vec![ids, sport, start, city, level, seat, prices, name, mail, created, updated])
            .unwrap();
    ChangeBatch {
        schema,
        rows: rows_array,
        operations: operations.into(),
        stamps: stamp_of.into(),
        transactions: stamps(rows.div_ceil(rows_each), first),
        changed: Some(changed.finish()),
        before: None,
    }
}

/// A cut of one live table.
pub(crate) fn cut(number: u64) -> Cut {
    let mut gtid_set = GtidSet::default();
    gtid_set.add(&Gtid::MySql { uuid: uuid::Uuid::from_u128(7), tag: String::new(), number: number + 1 });
    Cut {
        number: CutNumber(number),
        position: SourcePosition {
            lineage: Lineage("3e11fa47-71ca-11e1-9e33-c80aa9429562".into()),
            coordinates: BinlogCoordinates { file: "binlog.000007".into(), offset: 4 + number * 100 },
            gtid_set: Some(gtid_set),
        },
        source_commit_time: Timestamp::from_micros(1_790_000_000_000_000),
        tables: [(TableId::new("sports", "ticket_activity"), TableState::Live)].into(),
        schemas: std::collections::BTreeMap::new(),
        rules: None,
        complete_until: None,
    }
}
