//! The stream alone: `cargo bench --bench stream [-- --rows N]`.
//!
//! Encodes made ticket changes (three quarters updates of price and time, the rest inserts) to chunks, decodes them, and appends them to a log in a
//! folder under `target/`. Prints rows a second of one core, bytes a row, and what the disk takes.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panic")]

#[path = "tickets.rs"]
#[allow(dead_code)]
mod tickets;

use arrow::array::{ArrayRef, FixedSizeBinaryBuilder, RecordBatch, TimestampMicrosecondArray};
use binlake::event::{
    BinlogCoordinates, ChangeBatch, ChunkPayload, Column, Epoch, Gtid, Lane, Operation, Section, SourceType, TableId, TableSchema,
    TransactionStamp,
};
use binlake::stream::{Consumer, EmbeddedLog, EmbeddedOptions, EventLog, LaneEvent, LaneProtocol, LaneRecord, StartAt, take_over};
use binlake::time::Timestamp;
use std::sync::Arc;
use std::time::Instant;
use tickets::Random;

fn schema() -> Arc<TableSchema> {
    let text = || SourceType::Text { charset: "utf8mb4".into(), max_bytes: 1024 };
    let time = || SourceType::DateTime { fsp: 0 };
    let int = || SourceType::Int { unsigned: false };
    let types: [(&str, SourceType); 11] = [
        ("ticketactivity_id", int()),
        ("sport_type", text()),
        ("start_date", time()),
        ("location", text()),
        ("seat_level", text()),
        ("seat_location", text()),
        ("ticket_price", int()),
        ("customer_name", text()),
        ("email_address", text()),
        ("created_at", time()),
        ("updated_at", time()),
    ];
    let columns = types.into_iter().map(|(name, source_type)| Column { name: name.into(), source_type, nullable: false }).collect();
    Arc::new(TableSchema { table: TableId::new("sports", "ticket_activity"), columns, key: vec![0] })
}

/// One lane's rows, of 16 lanes: `rows` rows in transactions that have `rows_each` rows on this lane.
fn changes(schema: &Arc<TableSchema>, first: u64, rows: u64, rows_each: u64) -> ChangeBatch {
    let mut random = Random(first);
    let ids: Vec<i32> = (0..rows).map(|row| (first + row * 16 + random.below(16)) as i32).collect();
    let made = tickets::tickets(&ids, 1);
    let now = 1_790_000_000 + first as i64 / 5000;
    let dates = ids.iter().map(|id| (1_800_000_000 + i64::from(id % 200) * 86_400) * 1_000_000).collect::<Vec<_>>();
    let updated = (0..rows).map(|row| (now + row as i64 / 400) * 1_000_000).collect::<Vec<_>>();
    let created = ids.iter().map(|id| (1_780_000_000 + i64::from(*id) / 10) * 1_000_000).collect::<Vec<_>>();
    let time = |values: Vec<i64>| Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")) as ArrayRef;
    let mut columns = made.columns()[..9].to_vec();
    columns[2] = time(dates);
    columns.extend([time(created), time(updated)]);
    // the order of the table: location and seats as made
    let mut changed = FixedSizeBinaryBuilder::new(2);
    let mut operations = Vec::new();
    for _ in 0..rows {
        if random.below(4) > 0 {
            changed.append_value([0b0100_0000, 0b0000_0100]).expect("two bytes");
            operations.push(Operation::Update.code());
        } else {
            changed.append_null();
            operations.push(Operation::Create.code());
        }
    }
    let uuid = uuid::Uuid::from_u128(0x3e11_fa47_71ca_11e1_9e33_c80a_a942_9562);
    let (mut offset, mut micros) = (first * 30, now * 1_000_000);
    let transactions = (0..rows.div_ceil(rows_each)).map(|i| {
        offset += 300 * 16 + random.below(3000);
        micros += random.below(100) as i64;
        TransactionStamp {
            gtid: Some(Gtid::MySql { uuid, tag: String::new(), number: first + i * 16 + random.below(8) }),
            coordinates: BinlogCoordinates { file: "binlog.000042".into(), offset },
            source_commit_time: Timestamp::from_micros(micros),
            is_snapshot: false,
        }
    });
    ChangeBatch {
        schema: schema.clone(),
        rows: RecordBatch::try_new(schema.arrow(), columns).expect("the table's columns"),
        operations: operations.into(),
        stamps: (0..rows).map(|row| (row / rows_each) as u32).collect::<Vec<_>>().into(),
        transactions: Arc::new(transactions.collect()),
        changed: Some(changed.finish()),
        before: None,
    }
}

/// Seconds that this thread has been on a processor: other work on the machine doesn't count.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).expect("nanoseconds") / 1e9
}

fn rate(what: &str, rows: u64, seconds: f64, bytes: usize) {
    println!(
        "{what:44} {:>8.2} M rows/s {:>8.1} MB/s {:>7.2} bytes/row",
        rows as f64 / seconds / 1e6,
        bytes as f64 / seconds / 1e6,
        bytes as f64 / rows as f64
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1)?.parse::<u64>().ok());
    let total = value("--rows").unwrap_or(2_000_000);
    let schema = schema();
    for (chunk_rows, rows_each) in [(32_768, 60), (32_768, 1), (4096, 60), (300, 1), (62, 1), (40, 1)] {
        println!("chunks of {chunk_rows} rows, {rows_each} rows of a transaction on a lane");
        let distinct = (total / chunk_rows).clamp(1, 16);
        let batches: Vec<_> =
            (0..distinct).map(|i| vec![Section::Rows(changes(&schema, i * 1_000_000, chunk_rows, rows_each))]).collect();
        let rounds = (total / chunk_rows / distinct).max(1);
        let rows = rounds * distinct * chunk_rows;
        let plain: usize = batches.iter().map(|sections| plain_bytes(sections)).sum();
        let started = cpu_seconds();
        let mut bytes = 0;
        let mut payloads = Vec::new();
        for _ in 0..rounds {
            payloads = batches.iter().map(|sections| ChunkPayload::encode(sections, None).expect("encodes")).collect();
            bytes += payloads.iter().map(|payload| payload.bytes.len()).sum::<usize>();
        }
        rate("  encode", rows, cpu_seconds() - started, bytes);
        println!("  in memory {:.1} bytes/row", plain as f64 / (distinct * chunk_rows) as f64);
        let started = cpu_seconds();
        for _ in 0..rounds {
            for payload in &payloads {
                let content = ChunkPayload::decode(&payload.bytes, 0).expect("decodes");
                assert_eq!(content.sections.len(), 1);
            }
        }
        rate("  decode", rows, cpu_seconds() - started, bytes);
        if value("--explore").is_some() {
            explore(&payloads, distinct * chunk_rows);
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(log(&schema, total));
}

fn plain_bytes(sections: &[Section]) -> usize {
    sections.iter().map(|section| if let Section::Rows(rows) = section { rows.rows.get_array_memory_size() } else { 0 }).sum()
}

fn explore(payloads: &[ChunkPayload], rows: u64) {
    let bodies: Vec<_> = payloads.iter().map(|payload| zstd::bulk::decompress(&payload.bytes, 1 << 30).expect("unpacks")).collect();
    for level in [-7, -5, -3, -1, 1, 2, 3, 4, 6] {
        let mut compressor = zstd::bulk::Compressor::new(level).expect("a level");
        let started = cpu_seconds();
        let packed: usize = bodies.iter().map(|body| compressor.compress(body).expect("packs").len()).sum();
        rate(&format!("    zstd {level}"), rows, cpu_seconds() - started, packed);
    }
}

async fn log(schema: &Arc<TableSchema>, total: u64) {
    let folder = std::path::Path::new("target/bench-stream");
    _ = std::fs::remove_dir_all(folder);
    let log = Arc::new(EmbeddedLog::open(folder, 16, EmbeddedOptions::default()).expect("a log"));
    println!("a log in {}", folder.display());
    for record_bytes in [100, 10_000, 500_000] {
        let (started, mut tasks) = (Instant::now(), tokio::task::JoinSet::new());
        let each = (200_000_000 / record_bytes / 16).min(500);
        for lane in 0..16 {
            let log = log.clone();
            tasks.spawn(async move {
                let bytes = bytes::Bytes::from(vec![7; record_bytes]);
                for _ in 0..each {
                    log.append(vec![LaneRecord { lane: Lane(lane), bytes: bytes.clone(), partition_key: None }])
                        .await
                        .expect("appends");
                }
            });
        }
        tasks.join_all().await;
        let seconds = started.elapsed().as_secs_f64();
        let records = (each * 16) as f64;
        println!(
            "  append on 16 lanes, {record_bytes:>6} bytes each {:>9.0} records/s {:>8.1} MB/s",
            records / seconds,
            records * record_bytes as f64 / seconds / 1e6
        );
    }
    drop(log);
    _ = std::fs::remove_dir_all(folder);
    let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(folder, 16, EmbeddedOptions::default()).expect("a log"));
    let batches: Vec<_> = (0..16).map(|i| Section::Rows(changes(schema, i * 1_000_000, 16_384, 60))).collect();
    let started = Instant::now();
    let mut producer = take_over(log.clone(), async |_| Ok(Epoch(1))).await.expect("a producer").producer;
    let rounds = (total / 16 / 16_384).max(1);
    for _ in 0..rounds {
        for (lane, section) in (0..).zip(&batches) {
            producer.send(Lane(lane), vec![section.clone()]).await.expect("sends");
        }
    }
    producer.flush().await.expect("flushes");
    rate("  producer: encode and append, all cores", rounds * 16 * 16_384, started.elapsed().as_secs_f64(), 0);
    let started = Instant::now();
    let mut consumer = Consumer::open(log.as_ref(), None, LaneProtocol::new(16, StartAt::Beginning)).await.expect("reads");
    let mut rows = 0;
    while let Some(event) = consumer.next_if_any().await.expect("reads") {
        if let LaneEvent::Sections { sections, .. } = event {
            rows +=
                sections.iter().map(|section| if let Section::Rows(rows) = section { rows.len() as u64 } else { 0 }).sum::<u64>();
        }
    }
    rate("  consumer: read and decode", rows, started.elapsed().as_secs_f64(), 0);
    _ = std::fs::remove_dir_all(folder);
}
