use super::*;
use crate::format::{BadValues, ChangeTable, ColumnSpec, DebeziumOptions, Dialect};
use arrow::array::{Array, AsArray};

fn record(text: &str) -> ForeignRecord {
    ForeignRecord {
        shard: "a.jsonl".into(),
        offset: 0,
        arrived_at: Timestamp::from_micros(1_790_000_000_000_000),
        key: None,
        bytes: Bytes::copy_from_slice(text.as_bytes()),
    }
}

/// Each row as `table operation column=value …`.
fn lines(batch: &ForeignBatch) -> Vec<String> {
    let mut lines = Vec::new();
    for section in &batch.sections {
        match section {
            Section::Rows(rows) => {
                for row in 0..rows.len() {
                    let cells = rows.row_json(row);
                    let cells = cells.iter().filter(|(name, value)| !value.is_null() && *name != "arrived_at" && *name != "raw");
                    let cells: Vec<String> = cells.map(|(name, value)| format!("{name}={value}")).collect();
                    let operation = char::from(rows.operations.value(row));
                    lines.push(format!("{} {operation} {}", rows.schema.table, cells.join(" ")));
                }
            }
            Section::Truncate { table, .. } => lines.push(format!("{table} truncate")),
            Section::NewShape { schema, .. } => lines.push(format!("{} shape of {}", schema.table, schema.columns.len())),
        }
    }
    lines
}

fn changes(dialect: Dialect, tables: &[(&str, ChangeTable)]) -> ForeignDecoder {
    let tables = tables.iter().map(|(table, known)| (table.parse().unwrap(), known.clone())).collect();
    let format = ForeignFormat::Changes(ChangeTables::new(dialect, tables, TableId::new("_", "unnamed")));
    ForeignDecoder::new(format, BTreeMap::new())
}

/// Messages as DMS sends them from a PostgreSQL table (shortened).
#[test]
fn messages_of_dms_become_rows() {
    let control = |operation: &str, control: &str| {
        format!(
            r#"{{"control": {control}, "metadata": {{"operation": "{operation}", "record-type": "control", "schema-name": "public", "table-name": "foo", "timestamp": "2024-07-29T00:30:47.266581Z", "partition-key-type": "task-id"}}}}"#
        )
    };
    let data = |operation: &str, rest: &str| {
        format!(
            r#"{{{rest}, "metadata": {{"operation": "{operation}", "record-type": "data", "schema-name": "public", "table-name": "foo", "timestamp": "2024-07-29T00:57:35.691762Z", "commit-timestamp": "2024-07-29T00:57:35Z", "transaction-id": 1139, "transaction-record-id": 1, "stream-position": "00000002/7C007178.3.00000002/7C007178"}}}}"#
        )
    };
    let columns = r#"{"table-def": {"columns": {"age": {"nullable": true, "type": "INT32"}, "id": {"nullable": false, "type": "INT32"}, "name": {"nullable": true, "type": "STRING"}}, "primary-key": ["id"]}}"#;
    let records = [
        data("load", r#""data": {"age": 30, "id": 41, "name": "too early"}"#),
        control("drop-table", "{}"),
        control("create-table", columns),
        data("load", r#""data": {"age": 30, "id": 42, "name": "John"}"#),
        data("insert", r#""data": {"age": 31, "id": 46, "name": "Jane"}"#),
        data("update", r#""before-image": {}, "data": {"age": 33, "id": 42, "name": "John"}"#),
        data("update", r#""before-image": {"id": 46}, "data": {"age": 31, "id": 45, "name": "Jane"}"#),
        data("delete", r#""data": {"age": null, "id": 45, "name": null}"#),
        data("insert", r#""data": {"age": "x", "id": 47}"#),
        data("insert", r#""data": {"age": 1}"#),
        "not JSON".into(),
        r#"{"control": {"table-def": {"columns": {}}}, "metadata": {"operation": "create-table", "record-type": "control", "schema-name": "", "table-name": "awsdms_apply_exceptions"}}"#.into(),
    ];
    let mut decoder = changes(Dialect::Dms, &[("public.foo", ChangeTable::default())]);
    let batch = decoder.decode(&records.map(|text| record(&text))).unwrap();
    assert_eq!(
        lines(&batch),
        [
            "public.foo shape of 3",
            "public.foo c age=30 id=42 name=\"John\"",
            "public.foo c age=31 id=46 name=\"Jane\"",
            "public.foo u age=33 id=42 name=\"John\"",
            "public.foo d age=31 id=46 name=\"Jane\"",
            "public.foo u age=31 id=45 name=\"Jane\"",
            "public.foo d id=45",
            "_dead_letter/_.unnamed c position=\"a.jsonl#11\" reason=\"it is not JSON: expected ident at line 1 column 2\"",
            "_dead_letter/public.foo c position=\"a.jsonl#1\" reason=\"the table's columns aren't known\"",
            "_dead_letter/public.foo c position=\"a.jsonl#9\" reason=\"it is no int column=age\"",
            "_dead_letter/public.foo c position=\"a.jsonl#10\" reason=\"its key is missing\"",
        ]
        .map(|line| if line.contains("aren't known") {
            line.replace("known\"", "known; declare `columns` in its [[table]]\"")
        } else {
            line.to_owned()
        })
    );
    assert_eq!(batch.dead_letters[&TableId::new("public", "foo")], 3);
    assert_eq!(decoder.read_so_far().to_string(), "a.jsonl#12");
}

#[test]
fn events_of_debezium_become_rows_where_columns_are_declared() {
    let column = |name: &str, source_type, nullable| Column { name: name.into(), source_type, nullable };
    let schema = TableSchema {
        table: TableId::new("shop", "types"),
        columns: vec![
            column("id", SourceType::Int { unsigned: false }, false),
            column("dec10", SourceType::Decimal { precision: 10, scale: 2 }, true),
            column("ts3", SourceType::Timestamp { fsp: 3 }, true),
        ],
        key: vec![0],
    };
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/debezium/events.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let records: Vec<ForeignRecord> = text.split('\n').skip(2).step_by(3).map(record).collect();
    let known = ChangeTable { schema: Some(Arc::new(schema)), is_declared: true, key: Vec::new() };
    let mut decoder = changes(Dialect::Debezium(Arc::new(DebeziumOptions::default())), &[("shop.types", known)]);
    let batch = decoder.decode(&records).unwrap();
    assert!(batch.dead_letters.is_empty(), "{:?}", batch.dead_letters);
    let lines = lines(&batch);
    assert_eq!(lines.len(), 11);
    assert_eq!(lines[0], "shop.types c id=1 dec10=-12345678.90 ts3=\"2026-11-21T10:11:12.340000Z\"");
    assert_eq!(lines[2], "shop.types u id=1 dec10=0.01 ts3=\"2026-11-21T10:11:12.000000Z\"");
    assert_eq!(lines[3..5], ["shop.types d id=2", "shop.types c id=3"]);
}

#[test]
fn a_dead_letter_that_can_be_read_later_goes() {
    let plain = |kind: &str| {
        let columns: BTreeMap<String, ColumnSpec> = toml::from_str(&format!("id = 'string'\nn = '{kind}'\n")).unwrap();
        let columns = columns.into_iter().map(|(key, spec)| spec.column(&key)).collect();
        let table = PlainTable::new("mydev.t".parse().unwrap(), columns, &["id".to_owned()], BadValues::DeadLetter).unwrap();
        ForeignFormat::Plain(vec![table])
    };
    let mut decoder = ForeignDecoder::new(plain("int"), BTreeMap::new());
    // a mark of byte order, as editors put it at a file's start, is no part of a record
    let batch = decoder.decode(&[record("\u{feff}{\"id\": 1, \"n\": 2}"), record(r#"{"id": 7, "n": "x"}"#)]).unwrap();
    assert_eq!(
        lines(&batch),
        [
            "mydev.t c id=\"1\" n=2",
            "_dead_letter/mydev.t c position=\"a.jsonl#2\" reason=\"the value of `n` can't be read: it is no int\""
        ]
    );
    let Section::Rows(letters) = &batch.sections[1] else { panic!("no rows") };
    assert_eq!(letters.rows.column_by_name("raw").unwrap().as_binary::<i32>().value(0), br#"{"id": 7, "n": "x"}"#);
    assert_eq!(letters.rows.column_by_name("raw").unwrap().null_count(), 0);
    let again = [("a.jsonl#2".to_owned(), ForeignRecord { shard: "retry/1".into(), ..record(r#"{"id": 7, "n": "x"}"#) })];
    let of = "mydev.t".parse().unwrap();
    let still = decoder.retry(&of, &again).unwrap();
    assert_eq!(lines(&still).len(), 2, "{:?}", lines(&still));
    assert!(lines(&still)[1].contains("reason=\"the value"));
    let mut corrected = ForeignDecoder::new(plain("string"), decoder.counts().clone());
    let read = corrected.retry(&of, &again).unwrap();
    assert_eq!(lines(&read), ["mydev.t c id=\"7\" n=\"x\"", "_dead_letter/mydev.t d position=\"a.jsonl#2\" reason=\"\""]);
    assert_eq!(corrected.read_so_far().to_string(), "a.jsonl#2,retry/1#2");
    // read again by other rules, what is a letter already becomes no row beside it
    let known = BTreeMap::from([(of.clone(), BTreeSet::from(["a.jsonl#2".to_owned()]))]);
    let mut later = ForeignDecoder::new(plain("string"), BTreeMap::new()).with_letters(known);
    let batch = later.decode(&[record(r#"{"id": 1, "n": 2}"#), record(r#"{"id": 7, "n": "x"}"#)]).unwrap();
    assert_eq!(lines(&batch), ["mydev.t c id=\"1\" n=\"2\""]);
    assert_eq!(lines(&later.retry(&of, &again).unwrap()), lines(&read));
}

/// An event of a row with its schema beside it; `more` are the fields behind `id`.
fn with_schema(operation: &str, more: &[(&str, &str)], before: &str, after: &str) -> String {
    let fields: String = more.iter().map(|(name, kind)| format!(r#", {{"field": "{name}", "optional": true, {kind}}}"#)).collect();
    let row = format!(
        r#"{{"type": "struct", "field": "after", "fields": [{{"field": "id", "type": "int32", "optional": false}}{fields}]}}"#
    );
    format!(
        r#"{{"schema": {{"type": "struct", "fields": [{row}]}}, "payload": {{"op": "{operation}", "before": {before}, "after": {after}, "source": {{"db": "shop", "table": "orders", "ts_ms": 1000, "snapshot": "false"}}}}}}"#
    )
}

#[test]
fn the_schema_beside_debeziums_events_says_columns_and_types() {
    let dialect = || Dialect::Debezium(Arc::new(DebeziumOptions::default()));
    const DATE: (&str, &str) = ("day", r#""type": "int32", "name": "io.debezium.time.Date""#);
    let price = (
        "price",
        r#""type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "2", "connect.decimal.precision": "10"}"#,
    );
    let text = ("day", r#""type": "string""#);
    let keyed = |text: String| ForeignRecord { key: Some(r#"{"id": 1}"#.into()), ..record(&text) };
    let records = [
        keyed(with_schema("c", &[DATE], "null", r#"{"id": 1, "day": 15020}"#)),
        record(r#"{"status": "BEGIN", "id": "x:1", "ts_ms": 5}"#),
        // a column comes, then a record in the older shape: nothing goes
        keyed(with_schema("c", &[DATE, price], "null", r#"{"id": 2, "day": null, "price": "AJY="}"#)),
        keyed(with_schema("u", &[DATE], r#"{"id": 1}"#, r#"{"id": 5, "day": 1}"#)),
        record(""),
        // another type that isn't wider
        keyed(with_schema("c", &[text], "null", r#"{"id": 3, "day": "x"}"#)),
        record(r#"{"id": "n", "type": "STARTED", "aggregate_type": "Initial Snapshot", "additional_data": {}, "timestamp": 5}"#),
        keyed(with_schema("d", &[DATE], r#"{"id": 2, "day": null}"#, "null")),
        record(&with_schema("c", &[], "null", r#"{"id": 9}"#).replace("orders", "others")),
    ];
    let mut decoder = changes(dialect(), &[("shop.orders", ChangeTable::default())]);
    let batch = decoder.decode(&records).unwrap();
    let letter = "_dead_letter/shop.orders c position=\"a.jsonl#6\" reason=\"the column `day` has another type now; declare `columns` in its [[table]]\"";
    assert_eq!(
        lines(&batch),
        [
            "shop.orders shape of 2",
            "shop.orders c id=1 day=\"2011-02-15\"",
            "shop.orders shape of 3",
            "shop.orders c id=2 price=1.50",
            "shop.orders d id=1 day=\"1970-01-02\"",
            "shop.orders u id=5 day=\"1970-01-02\"",
            "shop.orders d id=2",
            letter,
        ]
    );
    assert_eq!(decoder.shapes()[&"shop.orders".parse().unwrap()].key, [0]);
    // without a key in the stream the configuration names it; who reads on knows the shape
    let mut without = changes(dialect(), &[("shop.orders", ChangeTable::default())]);
    let refused = without.decode(&[ForeignRecord { key: None, ..records[0].clone() }]).unwrap();
    assert!(lines(&refused)[0].contains("the table has no key; declare `key`"), "{:?}", lines(&refused));
    let named = ChangeTable { key: vec!["id".into()], ..ChangeTable::default() };
    let read = changes(dialect(), &[("shop.orders", named)]).decode(&[ForeignRecord { key: None, ..records[0].clone() }]).unwrap();
    assert_eq!(lines(&read).len(), 2, "{:?}", lines(&read));
    let known = ChangeTable { schema: Some(decoder.shapes()[&"shop.orders".parse().unwrap()].clone()), ..ChangeTable::default() };
    let read = changes(dialect(), &[("shop.orders", known)]).decode(&records[..1]).unwrap();
    assert_eq!(lines(&read), ["shop.orders c id=1 day=\"2011-02-15\""]);
}

#[test]
fn schema_changes_of_debezium_say_columns_and_types() {
    let change = |kind: &str, columns: &str| {
        record(&format!(
            r#"{{"source": {{"db": "shop", "table": "orders", "ts_ms": 1000}}, "ts_ms": 5, "databaseName": "shop", "ddl": "…", "tableChanges": [{{"type": "{kind}", "id": "\"shop\".\"orders\"", "table": {{"primaryKeyColumnNames": ["id"], "columns": [{columns}]}}}}]}}"#
        ))
    };
    let row = |after: &str| {
        record(&format!(
            r#"{{"op": "c", "before": null, "after": {after}, "source": {{"db": "shop", "table": "orders", "ts_ms": 1000}}}}"#
        ))
    };
    const ID: &str = r#"{"name": "id", "typeName": "BIGINT UNSIGNED", "optional": false}"#;
    let at = |fsp: u8| format!(r#"{ID}, {{"name": "at", "typeName": "DATETIME", "length": {fsp}}}"#);
    let records = [
        change("CREATE", &at(3)),
        row(r#"{"id": -1, "at": 1500}"#),
        // what a value means has changed, though not its type in the lake
        change("ALTER", &at(6)),
        row(r#"{"id": 1, "at": 1500}"#),
        change("ALTER", &format!(r#"{ID}, {{"name": "shape", "typeName": "HYPERCUBE"}}"#)),
        change("DROP", ID),
    ];
    let mut decoder = changes(Dialect::Debezium(Arc::new(DebeziumOptions::default())), &[("shop.orders", ChangeTable::default())]);
    assert_eq!(
        lines(&decoder.decode(&records).unwrap()),
        [
            "shop.orders shape of 2",
            "shop.orders c id=18446744073709551615 at=\"1970-01-01T00:00:01.500000\"",
            "shop.orders shape of 2",
            "shop.orders c id=1 at=\"1970-01-01T00:00:00.001500\"",
            "shop.orders truncate",
        ]
    );
}
