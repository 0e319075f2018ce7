//! Each format's way there and back, over every type of the lake.

use super::*;
use crate::event::sample::{cut, noise, stamps, ticket_changes};
use crate::event::{
    BinlogCoordinates, ChangeBatch, ChunkContent, ChunkHeader, ChunkPayload, Column, CutPoint, Epoch, Lane, Operation, Section,
    SourceType, TableId, TableSchema, TransactionStamp,
};
use crate::stream::{LaneWriter, Tenure};
use crate::time::Timestamp;
use arrow::array::{Array, FixedSizeBinaryBuilder, RecordBatch};
use bytes::Bytes;
use proptest::prelude::*;

fn formats() -> Vec<RecordFormat> {
    let debezium = |schemas| {
        Dialect::Debezium(Arc::new(DebeziumOptions { schemas, transaction_metadata: schemas, ..DebeziumOptions::default() }))
    };
    let dialects = [Dialect::Dms, debezium(false), debezium(true)];
    let both = |dialect: Dialect| [false, true].map(|is_aggregated| RecordFormat { dialect: dialect.clone(), is_aggregated });
    dialects.into_iter().flat_map(both).collect()
}

fn types() -> Vec<SourceType> {
    use SourceType as T;
    let signs = [false, true];
    let mut all = vec![T::Bool, T::Float, T::Double, T::Geometry, T::Json, T::Date, T::Year, T::Vector];
    all.extend(signs.map(|unsigned| T::TinyInt { unsigned }));
    all.extend(signs.map(|unsigned| T::SmallInt { unsigned }));
    all.extend(signs.map(|unsigned| T::MediumInt { unsigned }));
    all.extend(signs.map(|unsigned| T::Int { unsigned }));
    all.extend(signs.map(|unsigned| T::BigInt { unsigned }));
    all.extend([(1, 0), (10, 2), (38, 38), (38, 0), (39, 0), (65, 30)].map(|(precision, scale)| T::Decimal { precision, scale }));
    all.extend([1, 2, 12, 64].map(|bits| T::Bit { bits }));
    all.push(T::Text { charset: "utf8mb4".into(), max_bytes: 40 });
    all.extend([0, 6].map(|fixed_bytes| T::Binary { fixed_bytes }));
    let members = vec!["a".to_owned(), "it's".to_owned(), String::new()];
    all.push(T::Enum { members: members.clone() });
    all.push(T::Set { members });
    for fsp in 0..7 {
        all.extend([T::DateTime { fsp }, T::Timestamp { fsp }, T::Time { fsp }]);
    }
    all
}

/// Any value of a type, its edges often.
fn value(source_type: &SourceType, random: &mut impl FnMut(u64) -> u64) -> Cell<'static> {
    use SourceType as T;
    const NAMES: [&str; 6] = ["", "größe 🦀", "\u{0}\"\\\n\t", "null", "0x41", "12"];
    let edge = |random: &mut dyn FnMut(u64) -> u64, low: i64, high: i64| match random(4) {
        0 => low,
        1 => high,
        _ => low.wrapping_add((random(u64::MAX >> 12) as i64).rem_euclid(high.saturating_sub(low).max(1))),
    };
    let step = |micros: i64, fsp: u8| micros.div_euclid(10_i64.pow(6 - u32::from(fsp))) * 10_i64.pow(6 - u32::from(fsp));
    let digits =
        |random: &mut dyn FnMut(u64) -> u64, count: u8| (0..count).map(|_| char::from(b'0' + random(10) as u8)).collect::<String>();
    let int = |value: i64| Cell::Int(value);
    match source_type {
        T::Bool | T::Bit { bits: 1 } => Cell::Bool(random(2) == 1),
        T::TinyInt { .. } => int(edge(random, -128, 255)),
        T::SmallInt { .. } => int(edge(random, -32_768, 65_535)),
        T::MediumInt { .. } | T::Int { unsigned: false } => int(edge(random, i32::MIN.into(), i32::MAX.into())),
        T::Year => int(edge(random, 0, 2155)),
        T::Int { unsigned: true } => int(edge(random, 0, u32::MAX.into())),
        T::BigInt { unsigned: false } => int(if random(2) == 0 { i64::MIN } else { edge(random, -1, i64::MAX - 1) }),
        T::BigInt { unsigned: true } => Cell::Decimal(if random(2) == 0 { u64::MAX.into() } else { random(u64::MAX >> 8).into() }),
        T::Decimal { precision, scale } => {
            let digits = digits(random, *precision);
            let negative = random(2) == 1 && digits.bytes().any(|digit| digit != b'0');
            let unscaled = if negative { format!("-{digits}") } else { digits };
            if *precision <= 38 {
                Cell::Decimal(unscaled.parse().unwrap())
            } else {
                Cell::Text(number::decimal_at(&format!("{unscaled}e-{scale}"), *scale).unwrap().into())
            }
        }
        T::Float => Cell::Float([0.0, -0.0, f32::MAX, f32::MIN_POSITIVE, 0.1, 16_777_217.0, -1.5e-30][random(7) as usize]),
        T::Double => Cell::Double([0.0, -0.0, f64::MAX, 5e-324, 0.1, 9_007_199_254_740_993.0, -1.5e-300][random(7) as usize]),
        T::Bit { bits } => Cell::Bytes((0..bits.div_ceil(8)).map(|_| random(256) as u8).collect::<Vec<_>>().into()),
        T::Binary { .. } | T::Geometry => Cell::Bytes((0..random(30)).map(|_| random(256) as u8).collect::<Vec<_>>().into()),
        T::Text { .. } | T::Enum { .. } | T::Set { .. } | T::Json | T::Objects { .. } => {
            Cell::Text(NAMES[random(6) as usize].into())
        }
        T::Date => Cell::Date(edge(random, -719_162, 2_932_896) as i32),
        T::DateTime { fsp } => Cell::Micros(step(edge(random, -62_135_596_800_000_000, 253_402_300_799_999_999), *fsp)),
        T::Timestamp { fsp } => Cell::Micros(step(edge(random, 1_000_000, 2_147_483_647_999_999), *fsp)),
        T::Time { fsp } => {
            Cell::Text(clock::time_text(step(edge(random, -3_020_399_000_000, 3_020_399_000_000), *fsp), *fsp).into())
        }
        T::List { item } => Cell::List((0..random(4)).map(|_| value(item, random)).collect()),
        T::Vector => Cell::Vector((0..random(4)).map(|_| [0.1, -2.0, 3e10, -0.0][random(4) as usize]).collect()),
    }
}

fn all_types() -> Arc<TableSchema> {
    let column = |(i, source_type): (usize, SourceType)| Column { name: format!("c{i}"), source_type, nullable: true };
    let mut columns: Vec<Column> = types().into_iter().enumerate().map(column).collect();
    columns.insert(0, Column { name: "id".into(), source_type: SourceType::Int { unsigned: false }, nullable: false });
    Arc::new(TableSchema { table: TableId::new("shop", "all.types"), columns, key: vec![0] })
}

/// Rows of all types, as a capture makes them: updates know what changed, and have their before images.
fn any_rows(seed: u64, rows: usize) -> ChangeBatch {
    let schema = all_types();
    let mut random = noise(seed);
    let (mut now, mut before) = (CellColumns::new(schema.arrow()), CellColumns::new(schema.arrow()));
    let mut changed = FixedSizeBinaryBuilder::new(schema.columns.len().div_ceil(8) as i32);
    let (mut operations, mut stamp_of) = (Vec::new(), Vec::new());
    for row in 0..rows {
        let mut image = |id: i64| -> Vec<Cell<'static>> {
            let columns = schema.columns.iter().skip(1);
            let cells = columns.map(|column| if random(5) == 0 { Cell::Null } else { value(&column.source_type, &mut random) });
            std::iter::once(Cell::Int(id)).chain(cells.collect::<Vec<_>>()).collect()
        };
        let (old, new) = (image(row as i64), image(row as i64));
        let operation = [Operation::Create, Operation::Update, Operation::Delete][row % 3];
        if operation == Operation::Update {
            changed.append_value(sections::changed_bits(&old, &new)).unwrap();
            before.push(old);
        } else {
            changed.append_null();
        }
        now.push(new);
        operations.push(operation.code());
        stamp_of.push((row / 2) as u32);
    }
    let has_updates = rows > 1;
    ChangeBatch {
        schema,
        rows: now.finish().unwrap(),
        operations: operations.into(),
        stamps: stamp_of.into(),
        transactions: stamps(rows.div_ceil(2) as u64, seed % 1000),
        changed: has_updates.then(|| changed.finish()),
        before: Some(before.finish().unwrap()),
    }
}

/// A snapshot's rows.
fn snapshot_rows() -> ChangeBatch {
    let mut batch = ticket_changes(5, 4, 1);
    let stamp = TransactionStamp {
        gtid: None,
        coordinates: BinlogCoordinates { file: "binlog.000003".into(), offset: 4 },
        source_commit_time: Timestamp::from_micros(1_790_000_000_000_001),
        is_snapshot: true,
    };
    batch.operations = vec![Operation::Read.code(); 4].into();
    batch.stamps = vec![0; 4].into();
    batch.transactions = Arc::new(vec![stamp]);
    batch.changed = None;
    batch
}

fn contents(seed: u64) -> Vec<ChunkContent> {
    let rows = any_rows(seed, 9);
    let mut wider = TableSchema::clone(&rows.schema);
    wider.columns.push(Column {
        name: "note".into(),
        source_type: SourceType::Decimal { precision: 10, scale: 2 },
        nullable: false,
    });
    let fill: Arc<dyn Array> = Arc::new(arrow::array::Decimal128Array::from(vec![-105]).with_precision_and_scale(10, 2).unwrap());
    let fill = RecordBatch::try_from_iter([("note", fill)]).unwrap();
    let stamp = stamps(1, 9)[0].clone();
    let snapshot_stamp = snapshot_rows().transactions[0].clone();
    vec![
        ChunkContent { sections: vec![Section::Rows(snapshot_rows()), Section::Rows(rows)], cut: None },
        ChunkContent {
            sections: vec![
                Section::Truncate { table: TableId::new("a", "b.c"), stamp: stamp.clone() },
                Section::Truncate { table: TableId::new("a", "b.c"), stamp: snapshot_stamp },
                Section::NewShape { schema: Arc::new(wider.clone()), fill: Some(fill), stamp: stamp.clone() },
                Section::NewShape { schema: Arc::new(wider), fill: None, stamp },
                Section::Rows(any_rows(seed + 1, 5)),
            ],
            cut: Some(Arc::new(cut(1))),
        },
        ChunkContent { sections: vec![], cut: Some(Arc::new(cut(2))) },
    ]
}

fn tenure() -> Tenure {
    Tenure { epoch: Epoch(3), producer: 77, resumed_from: None }
}

/// The contents' records in a format.
fn records(format: &RecordFormat, lane: u16, contents: &[ChunkContent]) -> Vec<Bytes> {
    records_of(64 << 10, format, lane, contents)
}

fn records_of(most_bytes: usize, format: &RecordFormat, lane: u16, contents: &[ChunkContent]) -> Vec<Bytes> {
    let mut writer = LaneWriter::new(Lane(lane), tenure(), most_bytes).in_format(Some(format), 4);
    let opening = tenure().opening_in(Lane(lane), Some(format)).unwrap();
    let chunks = contents.iter().flat_map(|content| writer.encode(content).unwrap());
    std::iter::once(opening).chain(chunks).map(|record| record.bytes).collect()
}

fn assemble(format: &RecordFormat, records: &[Bytes]) -> Vec<Bytes> {
    let mut assembly = RecordAssembly::new(format.clone());
    records.iter().flat_map(|record| assembly.accept(record).unwrap()).map(|(_, bytes)| bytes).collect()
}

fn assert_same(ours: &[Section], theirs: &[Section]) {
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        match (ours, theirs) {
            (Section::Rows(a), Section::Rows(b)) => {
                assert_eq!(a.schema, b.schema);
                for (i, column) in a.schema.columns.iter().enumerate() {
                    for row in 0..a.len() {
                        let (x, y) = (a.rows.column(i).slice(row, 1), b.rows.column(i).slice(row, 1));
                        assert_eq!(x.to_data(), y.to_data(), "{column:?} row {row}");
                    }
                }
                assert_eq!(a.operations, b.operations);
                assert_eq!(a.changed, b.changed);
                for row in 0..a.len() {
                    let stamp = |batch: &ChangeBatch| batch.transactions[batch.stamps.value(row) as usize].clone();
                    assert_eq!(stamp(a), stamp(b));
                }
            }
            (Section::Truncate { table: a, stamp: s }, Section::Truncate { table: b, stamp: t }) => assert_eq!((a, s), (b, t)),
            (Section::NewShape { schema: a, fill: f, stamp: s }, Section::NewShape { schema: b, fill: g, stamp: t }) => {
                assert_eq!((a, s), (b, t));
                assert_eq!(f.as_ref().map(|fill| fill.columns()), g.as_ref().map(|fill| fill.columns()));
            }
            other => panic!("another kind: {other:?}"),
        }
    }
}

fn check_round_trip(seed: u64) {
    let contents = contents(seed);
    for format in formats() {
        for lane in [0, 3] {
            let chunks = assemble(&format, &records(&format, lane, &contents));
            assert_eq!(chunks.len(), 1 + contents.len());
            assert!(ChunkHeader::read(&chunks[0]).unwrap().0.opens_epoch);
            for (number, (chunk, content)) in (1..).zip(chunks[1..].iter().zip(&contents)) {
                let (header, payload) = ChunkHeader::read(chunk).unwrap();
                assert_eq!((header.lane, header.epoch, header.index.0), (Lane(lane), Epoch(3), number));
                assert_eq!((header.opens_epoch, header.ends_with_cut), (false, content.cut.is_some()));
                let decoded = ChunkPayload::decode(&payload, header.control_bytes).unwrap();
                assert_same(&content.sections, &decoded.sections);
                let cut = content.cut.as_deref().filter(|_| lane == 0);
                assert_eq!(decoded.cut.as_deref(), cut);
            }
        }
    }
}

/// Lists, which no source of ours has, and others' records may.
#[test]
fn lists_come_back_in_every_format() {
    let mut random = noise(11);
    let items = [SourceType::Bool, SourceType::Date, SourceType::Decimal { precision: 10, scale: 2 }, SourceType::Double];
    let text = SourceType::Text { charset: "utf8mb4".into(), max_bytes: 0 };
    for item in items.into_iter().chain([text, SourceType::Timestamp { fsp: 6 }, SourceType::BigInt { unsigned: false }]) {
        let source_type = SourceType::List { item: Box::new(item) };
        let column = Column { name: "c".into(), source_type: source_type.clone(), nullable: true };
        let schema = TableSchema { table: TableId::new("a", "b"), columns: vec![column.clone()], key: Vec::new() };
        let mut cells = vec![Cell::Null, Cell::List(vec![]), Cell::List(vec![Cell::Null])];
        cells.extend((0..20).map(|_| value(&source_type, &mut random)));
        let mut columns = CellColumns::new(schema.arrow());
        for cell in &cells {
            assert_eq!(dms::value::decode(&column, &dms::value::encode(&column, cell)).as_ref(), Ok(cell));
            assert_eq!(debezium::value::decode(&column, &debezium::value::encode(&column, cell)).as_ref(), Ok(cell));
            columns.push(vec![cell.clone()]);
        }
        let batch = columns.finish().unwrap();
        let read: Vec<Cell<'_>> = (0..cells.len()).flat_map(|row| row_of(&batch, row)).collect();
        assert_eq!(read, cells);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn every_type_comes_back_in_every_format(seed in 0_u64..1_000_000) {
        check_round_trip(seed);
    }
}

#[test]
fn repeats_are_dropped_and_a_gap_is_damage() {
    let contents = contents(1);
    for format in formats() {
        let records = records(&format, 0, &contents);
        let chunks = assemble(&format, &records);
        // a record may come again at any time, and so may all of them
        let mut repeated: Vec<Bytes> = records.iter().flat_map(|record| [record.clone(), record.clone()]).collect();
        repeated.extend(records.clone());
        assert_eq!(assemble(&format, &repeated), chunks);
        // and what is missing is noticed, if it said anything
        for left_out in 0..records.len() {
            let mut assembly = RecordAssembly::new(format.clone());
            let kept = records.iter().enumerate().filter(|(i, _)| *i != left_out);
            let outcome: Result<Vec<_>, _> = kept.map(|(_, record)| assembly.accept(record)).collect();
            let said = outcome.map(|chunks| chunks.into_iter().flatten().map(|(_, bytes)| bytes).collect::<Vec<_>>());
            let is_mute = left_out < records.len()
                && assemble(&format, &records[left_out..=left_out]).is_empty()
                && !has_mark(&format, &records[left_out]);
            match said {
                Ok(said) if is_mute => assert_eq!(said, chunks),
                // the last records of all may not have come yet, and the first may have been before the start
                Ok(said) => assert!(said != chunks || left_out == 0, "record {left_out} of {format:?}"),
                Err(_) => assert!(!is_mute),
            }
        }
    }
}

#[test]
fn keys_of_a_chunk_may_come_in_any_order() {
    let contents = contents(6);
    for format in formats().into_iter().filter(|format| !format.is_aggregated) {
        let records = records(&format, 0, &contents);
        let chunks = assemble(&format, &records);
        let is_own = |record: &Bytes| record.starts_with(b"{\"binlake\":{");
        // whole chunks backwards, each with its own record at its end
        let mut backwards: Vec<Bytes> = Vec::new();
        let mut chunk: Vec<Bytes> = Vec::new();
        for record in records {
            if is_own(&record) {
                backwards.extend(std::mem::take(&mut chunk).into_iter().rev());
                backwards.push(record);
            } else {
                chunk.push(record);
            }
        }
        assert!(chunk.is_empty());
        assert_eq!(assemble(&format, &backwards), chunks);
    }
}

fn has_mark(format: &RecordFormat, record: &Bytes) -> bool {
    let all = deaggregate(record).map_or_else(|| vec![record.clone()], |all| all.into_iter().map(|user| user.bytes).collect());
    let marks = all.iter().filter(|bytes| !bytes.is_empty()).map(|bytes| RecordAssembly::new(format.clone()).mark(bytes).unwrap());
    marks.flatten().count() > 0
}

#[test]
fn an_older_producers_unfinished_chunk_is_void() {
    let format = &formats()[0];
    let contents = contents(2);
    let old = records(format, 1, &contents);
    let tenure = Tenure { epoch: Epoch(4), producer: 5, resumed_from: Some(CutPoint { epoch: Epoch(3), number: cut(1).number }) };
    let mut writer = LaneWriter::new(Lane(1), tenure, 64 << 10).in_format(Some(format), 4);
    let new: Vec<Bytes> = writer.encode(&contents[2]).unwrap().map(|record| record.bytes).collect();
    let mut assembly = RecordAssembly::new(format.clone());
    let late = old.len() - 2;
    let order = old[..3].iter().chain(&new).chain(&old[3..late]);
    let chunks: Vec<_> = order.flat_map(|record| assembly.accept(record).unwrap()).collect();
    assert_eq!(chunks.len(), 2);
    assert_eq!(ChunkHeader::read(&chunks[1].1).unwrap().0.epoch, Epoch(4));
    assert_eq!(assembly.first_unfinished_batch(), None);
}

#[test]
fn reading_from_the_middle_of_a_chunk_gives_its_end() {
    let format = &formats()[0];
    let contents = contents(3);
    let records = records(format, 0, &contents);
    let chunks = assemble(format, &records[3..]);
    assert_eq!(chunks.len(), 3);
    let (header, _) = ChunkHeader::read(&chunks[0]).unwrap();
    assert!(!header.is_first_part());
    assert!(ChunkHeader::read(&chunks[1]).unwrap().0.is_first_part());
}

/// The contents with a row that is larger than a record may be, in each of their places.
fn with_large_rows(seed: u64) -> Vec<ChunkContent> {
    let column = |name: &str, source_type| Column { name: name.into(), source_type, nullable: true };
    let text = SourceType::Text { charset: "utf8mb4".into(), max_bytes: 0 };
    let columns = vec![column("id", SourceType::Int { unsigned: false }), column("text", text)];
    let schema = Arc::new(TableSchema { table: TableId::new("shop", "notes"), columns, key: vec![0] });
    let mut rows = CellColumns::new(schema.arrow());
    for id in 0..4_i64 {
        let large = "größe \"quoted\" \n".repeat(if id == 2 { 1 } else { 4000 });
        rows.push(vec![Cell::Int(id), Cell::Text(large.into())]);
    }
    let batch = ChangeBatch {
        schema,
        rows: rows.finish().unwrap(),
        operations: vec![b'c', b'c', b'c', b'd'].into(),
        stamps: vec![0; 4].into(),
        transactions: stamps(1, seed),
        changed: None,
        before: None,
    };
    let mut contents = contents(seed);
    contents[0].sections.insert(0, Section::Rows(batch.clone()));
    contents[1].sections.push(Section::Rows(batch));
    contents
}

#[test]
fn rows_larger_than_a_record_go_over_several_and_come_back() {
    const MOST: usize = 30 << 10;
    let contents = with_large_rows(6);
    for format in formats() {
        let records = records_of(MOST, &format, 0, &contents);
        assert!(records.iter().all(|record| record.len() <= MOST), "{:?}", records.iter().map(Bytes::len).max());
        let chunks = assemble(&format, &records);
        for (chunk, content) in chunks[1..].iter().zip(&contents) {
            let (header, payload) = ChunkHeader::read(chunk).unwrap();
            assert_same(&content.sections, &ChunkPayload::decode(&payload, header.control_bytes).unwrap().sections);
        }
        let repeated: Vec<Bytes> = records.iter().flat_map(|record| [record.clone(), record.clone()]).collect();
        assert_eq!(assemble(&format, &repeated), chunks);
        // reading may begin at any record, in the middle of a large one, too
        for from in 1..records.len() {
            let later = assemble(&format, &records[from..]);
            let same = later.iter().rev().zip(chunks.iter().rev()).take_while(|(a, b)| a == b).count();
            assert!(later.len() - same <= 1, "from {from}: only a chunk that was begun may be another");
            let begun = later.len() > same && !ChunkHeader::read(&later[0]).unwrap().0.is_first_part();
            assert!(begun || later.len() == same, "from {from}");
        }
        // a part that is missing is noticed
        for left_out in 1..records.len() {
            if !records[left_out].starts_with(b"{\"binlake\":{\"part\"") {
                continue;
            }
            let mut assembly = RecordAssembly::new(format.clone());
            let kept = records.iter().enumerate().filter(|(i, _)| *i != left_out);
            assert!(kept.map(|(_, record)| assembly.accept(record)).collect::<Result<Vec<_>, _>>().is_err(), "record {left_out}");
        }
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let mut random = noise(5);
    for format in formats() {
        let records = records(&format, 0, &contents(4));
        for record in records {
            let mut damaged = record.to_vec();
            for _ in 0..3 {
                if !damaged.is_empty() {
                    let at = random(damaged.len() as u64) as usize;
                    damaged[at] ^= 1 << random(8);
                }
            }
            let _ = RecordAssembly::new(format.clone()).accept(&damaged.into());
        }
    }
}

/// What version 1 of the marks and of a chunk's own record wrote stays readable.
#[test]
fn samples_are_read() {
    for (name, format) in [("dms-v1.jsonl", &formats()[0]), ("debezium-v1.jsonl", &formats()[2])] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/format").join(name);
        let contents = contents(7);
        if std::env::var_os("BINLAKE_WRITE_FORMAT_SAMPLES").is_some() {
            let lines: Vec<Bytes> = records(format, 0, &contents);
            std::fs::write(&path, lines.join(&b"\n"[..])).unwrap();
        }
        let text = std::fs::read(&path).unwrap();
        let lines: Vec<Bytes> = text.split(|byte| *byte == b'\n').map(Bytes::copy_from_slice).collect();
        let chunks = assemble(format, &lines);
        let (header, payload) = ChunkHeader::read(&chunks[1]).unwrap();
        assert_same(&contents[0].sections, &ChunkPayload::decode(&payload, header.control_bytes).unwrap().sections);
        assert_eq!(chunks.len(), 4);
    }
}
