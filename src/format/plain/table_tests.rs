use super::super::ColumnSpec;
use super::*;

fn table(columns: &str, key: &str, bad_values: BadValues) -> PlainTable {
    let columns: std::collections::BTreeMap<String, ColumnSpec> = toml::from_str(columns).unwrap();
    let columns = columns.into_iter().map(|(key, spec)| spec.column(&key)).collect();
    PlainTable::new("mydev.t".parse().unwrap(), columns, &[key.to_owned()], bad_values).unwrap()
}

fn row(table: &PlainTable, record: &str) -> Result<Vec<Cell<'static>>, String> {
    table.row(&fields(record)).map(|(row, _)| row).map_err(|Unreadable(why)| why)
}

fn fields(record: &str) -> Map<String, Value> {
    serde_json::from_str(record).unwrap()
}

fn text(text: &str) -> Cell<'static> {
    Cell::Text(text.to_owned().into())
}

#[test]
fn a_number_where_text_is_declared_keeps_its_digits() {
    let table = table("uuid = 'string'\n", "uuid", BadValues::DeadLetter);
    for digits in ["12345678901234567890123", "1.10", "1e+5", "-0"] {
        let digits_are = row(&table, &format!("{{\"uuid\": {digits}}}")).unwrap();
        assert_eq!(digits_are, [text(digits)], "{digits}");
    }
    assert_eq!(row(&table, "{\"uuid\": true}").unwrap(), [text("true")]);
    assert_eq!(row(&table, "{\"uuid\": [1, \"x\"]}").unwrap(), [text("[1,\"x\"]")]);
}

#[test]
fn nested_fields_by_path_and_values_of_each_type() {
    let columns = "'a.b' = 'int'\n'a.list' = 'json'\nid = 'bigint'\nd = { type = 'date', format = 'M/d/yy' }\nn = 'decimal(10,2)'\n\
                   t = 'timestamp'\nok = 'boolean'\nx = { type = 'double', path = 'deep.er.x' }\nraw = 'binary'\n";
    let table = table(columns, "id", BadValues::DeadLetter);
    let record = r#"{"id": "7", "a": {"b": 5, "list": [1, {"c": 2.50}]}, "d": "2/15/11", "n": 1.5, "t": "2026-11-21T10:11:12Z",
                     "ok": "true", "deep.er": {"x": 1}, "deep": {"er": {"x": 0.5}}, "raw": "AP8=", "other": 1}"#;
    let names: Vec<&str> = table.schema().unwrap().columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["a_b", "a_list", "d", "id", "n", "ok", "raw", "t", "x"]);
    let cells = row(&table, record).unwrap();
    assert_eq!(cells[0], Cell::Int(5));
    assert_eq!(cells[1], text(r#"[1,{"c":2.50}]"#));
    assert_eq!(cells[2], Cell::Date(15_020));
    assert_eq!((&cells[3], &cells[4], &cells[5]), (&Cell::Int(7), &Cell::Decimal(150), &Cell::Bool(true)));
    assert_eq!(cells[6], Cell::Bytes(vec![0, 255].into()));
    assert_eq!(cells[8], Cell::Double(0.5));
}

#[test]
fn what_cannot_be_read_says_why_or_is_null() {
    let columns = "id = 'int'\nt = 'timestamp'\n";
    let strict = table(columns, "id", BadValues::DeadLetter);
    assert!(
        row(&strict, r#"{"id": 1, "t": "2026-14-01 00:00:00"}"#).unwrap_err().contains("`t` can't be read: it is no timestamp")
    );
    assert!(row(&strict, r#"{"id": 1, "t": 12}"#).unwrap_err().contains("a number"));
    let number = table("id = 'int'\nx = 'double'\ny = 'float'\n", "id", BadValues::DeadLetter);
    assert!(row(&number, r#"{"id": 1, "x": 1e400}"#).unwrap_err().contains("`x` can't be read: it is too large for a double"));
    assert!(row(&number, r#"{"id": 1, "y": "1e39"}"#).unwrap_err().contains("`y` can't be read: it is too large for a float"));
    assert!(row(&number, r#"{"id": 1, "x": "Infinity", "y": 1e38}"#).is_ok());
    assert!(row(&strict, r#"{"t": null}"#).unwrap_err().contains("the key `id` is missing"));
    let lenient = table(columns, "id", BadValues::Null);
    let (cells, nulls) = lenient.row(&fields(r#"{"id": 1, "t": "2026-14-01 00:00:00"}"#)).unwrap();
    assert_eq!((cells, nulls), (vec![Cell::Int(1), Cell::Null], 1));
    assert!(row(&lenient, r#"{"id": "x"}"#).is_err(), "a key is never NULL");
}

#[test]
fn wrong_declarations_are_said() {
    for (text, pattern) in
        [("varchar", None), ("decimal(40,2)", None), ("decimal(3,4)", None), ("int", Some("M/d/yy")), ("date", Some("Q"))]
    {
        assert!(PlainType::parse(text, pattern).is_err(), "{text}");
    }
    let column =
        toml::from_str::<std::collections::BTreeMap<String, ColumnSpec>>("id = 'int'").unwrap().remove("id").unwrap().column("id");
    assert!(PlainTable::new("a.b".parse().unwrap(), vec![column.clone()], &[], BadValues::Null).is_err());
    assert!(PlainTable::new("a.b".parse().unwrap(), vec![column], &["x".into()], BadValues::Null).is_err());
}

/// Learns from the records, then gives the rows, or why there is none.
fn read(table: &mut PlainTable, records: &[&str]) -> (Vec<String>, Vec<Result<Vec<Cell<'static>>, String>>) {
    let records: Vec<Map<String, Value>> = records.iter().map(|record| fields(record)).collect();
    let learned = table.learn(&records.iter().collect::<Vec<_>>());
    let new =
        learned.into_iter().flat_map(|(_, columns)| columns).map(|column| format!("{} {}", column.name, column.kind)).collect();
    let rows = records.iter().map(|record| table.row(record).map(|(row, _)| row).map_err(|Unreadable(why)| why)).collect();
    (new, rows)
}

fn inferring(columns: &str, known: Option<&TableSchema>) -> PlainTable {
    let columns: std::collections::BTreeMap<String, ColumnSpec> = toml::from_str(columns).unwrap();
    let columns = columns.into_iter().map(|(key, spec)| spec.column(&key)).collect();
    PlainTable::inferring("mydev.t".parse().unwrap(), columns, &["id".to_owned()], BadValues::DeadLetter, known).unwrap()
}

#[test]
fn columns_are_inferred_from_the_first_records_and_more_come_later() {
    let mut table = inferring("'geo.at' = 'timestamp'\n", None);
    assert!(table.schema().is_none(), "the key isn't known yet");
    let (new, rows) = read(
        &mut table,
        &[
            r#"{"price": 1, "n": null, "other": "no key, so no row"}"#,
            r#"{"id": 7, "price": 5, "ok": true, "geo": {"city": "Sarh", "at": "2026-11-21", "deep": {"x": 1}}, "tags": [1, {"a": 2}], "sizes": [1, null], "n": null}"#,
            r#"{"id": 12345678901234567890, "price": 5.25, "ok": "maybe", "e-mail": "x@y", "sizes": [2.5], "long": 3.14159265358979323846}"#,
        ],
    );
    let types = "id decimal(38,0),price double,ok string,geo_city string,geo_deep_x bigint,tags json,sizes array<double>,e_mail string,long string";
    assert_eq!(new.join(","), types);
    assert_eq!(rows[0], Err("the key `id` is missing".into()));
    let first = rows[1].clone().unwrap();
    assert_eq!(first[0], Cell::Micros(1_795_219_200_000_000));
    assert_eq!(first[1..4], [Cell::Decimal(7), Cell::Double(5.0), text("true")]);
    assert_eq!(first[6..8], [text(r#"[1,{"a":2}]"#), Cell::List(vec![Cell::Double(1.0), Cell::Null])]);
    assert_eq!(rows[2].clone().unwrap()[9], text("3.14159265358979323846"));
    // later: a new column, and values that don't fit
    let (new, rows) = read(&mut table, &[r#"{"id": 8, "price": "x", "n": 5}"#, r#"{"id": 9, "n": 6}"#, r#"{"id": 9.5}"#]);
    assert_eq!(new, ["n bigint"]);
    assert_eq!(rows[0], Err("the value of `price` can't be read: it is no number".into()));
    assert_eq!(rows[1].clone().unwrap().last(), Some(&Cell::Int(6)));
    assert_eq!(rows[2], Err("the value of `id` can't be read: it doesn't fit the decimal".into()));
    // who reads on from the lake's shape infers the same
    let mut again = inferring("'geo.at' = 'timestamp'\n", Some(table.schema().unwrap()));
    assert_eq!(again.schema(), table.schema());
    assert_eq!(read(&mut again, &[r#"{"id": 1, "price": 2, "n": 3}"#]).0, Vec::<String>::new());
    assert_eq!(again.schema(), table.schema());
}

#[test]
fn fields_that_cannot_be_columns_of_their_own_are_said() {
    let mut table = inferring("", None);
    let many: String = (0..1500).map(|i| format!(", \"f{i}\": 1")).collect();
    let (new, rows) = read(
        &mut table,
        &[
            r#"{"id": 1, "name": "a"}"#,
            r#"{"id": 2, "Name": "b"}"#,
            r#"{"id": 3, "a": {"b": 1}, "a_b": 2}"#,
            r#"{"id": 4, "_position": "x"}"#,
            &format!("{{\"id\": 5{many}}}"),
        ],
    );
    assert_eq!(new.len(), 1000);
    assert!(rows[0].is_ok());
    let said = |row: usize| rows[row].clone().unwrap_err();
    assert!(said(1).contains("`Name` differs from the column `name` in its case alone"), "{}", said(1));
    assert!(said(2).contains("two fields would be the column `a_b`"), "{}", said(2));
    assert!(said(3).contains("`_position` can't be a column of its own"), "{}", said(3));
    assert!(said(4).contains("can't be a column of its own"), "{}", said(4));
}
