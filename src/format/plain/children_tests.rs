//! Lists of objects as tables: what is read, what is inferred, what is refused.

use super::{BadValues, ChildSpecs, DeclaredColumns, PlainColumn, PlainTable, Unreadable, declare_lists};
use crate::event::{SourceType, TableSchema};
use crate::format::cell::Cell;
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
struct Section {
    #[serde(default)]
    columns: Option<DeclaredColumns>,
    #[serde(default)]
    children: ChildSpecs,
}

/// A table `mydev.orders` with the key `id`.
fn table(text: &str, known: Option<&TableSchema>) -> Result<PlainTable, String> {
    let section: Section = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    let mut columns: Vec<PlainColumn> = section.columns.map(|columns| columns.0).unwrap_or_default();
    let is_inferred = columns.is_empty();
    declare_lists(&mut columns, &section.children.0)?;
    let (name, key) = ("mydev.orders".parse().unwrap(), ["id".to_owned()]);
    let made = match is_inferred {
        true => PlainTable::inferring(name, columns, &key, BadValues::DeadLetter, known)?,
        false => PlainTable::new(name, columns, &key, BadValues::DeadLetter)?,
    };
    made.with_children(&section.children.0, &[], known)
}

fn record(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap()
}

fn refused(table: &PlainTable, text: &str) -> String {
    let Err(Unreadable(why)) = table.row(&record(text)) else { panic!("{text} can be read") };
    why
}

const DECLARED: &str =
    "columns = { id = 'int' }\n[children.'order.lines']\ncolumns = { sku = 'string', qty = 'int' }\nkey = ['sku']\n";

#[test]
fn the_parent_keeps_its_list_and_its_elements_are_read() {
    let table = table(DECLARED, None).unwrap();
    let names: Vec<&str> = table.schema().unwrap().columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["id", "order_lines"]);
    let read = table.read(&record(r#"{"id": 1, "order": {"lines": [{"sku": "a", "qty": "2"}, {"sku": 7}]}}"#)).unwrap();
    assert_eq!(read.row[1], Cell::Text(r#"[{"sku":"a","qty":"2"},{"sku":7}]"#.into()));
    let rows: Vec<&Vec<Cell<'_>>> = read.children[0].iter().map(|element| &element.row).collect();
    assert_eq!(rows, [&vec![Cell::Text("a".into()), Cell::Int(2)], &vec![Cell::Text("7".into()), Cell::Null]]);
    for none in [r#"{"id": 1}"#, r#"{"id": 1, "order": null}"#, r#"{"id": 1, "order": {"lines": []}}"#] {
        assert!(table.read(&record(none)).unwrap().children[0].is_empty(), "{none}");
    }
}

#[test]
fn a_record_with_an_element_that_cannot_be_read_is_none() {
    let table = table(DECLARED, None).unwrap();
    for (lines, why) in [
        (r#"[3]"#, "element 0 of `order_lines`: it is no object"),
        (r#"[null]"#, "element 0 of `order_lines`: it is no object"),
        (r#"{"sku": 1}"#, "`order_lines` is no list"),
        (r#"[{"sku": 1}, {"qty": 1}]"#, "element 1 of `order_lines`: the key `sku` is missing"),
        (r#"[{"sku": 1}, {"sku": "1"}]"#, "element 1 of `order_lines`: an element before it has the same key"),
        (r#"[{"sku": 1, "qty": "many"}]"#, "element 0 of `order_lines`: the value of `qty` can't be read: it is no int"),
    ] {
        assert_eq!(refused(&table, &format!(r#"{{"id": 1, "order": {{"lines": {lines}}}}}"#)), why);
    }
}

#[test]
fn bad_values_may_be_null_but_neither_keys_nor_what_is_no_object() {
    let table = table(&format!("{DECLARED}bad_values = 'null'\n"), None).unwrap();
    let read = table.read(&record(r#"{"id": 1, "order": {"lines": [{"sku": "a", "qty": "many"}]}}"#)).unwrap();
    assert_eq!((read.nulls, read.children[0][0].row[1].clone()), (1, Cell::Null));
    let read = table.read(&record(r#"{"id": 1, "order": {"lines": "none"}}"#)).unwrap();
    assert_eq!((read.nulls, read.children[0].len()), (1, 0));
    assert!(refused(&table, r#"{"id": 1, "order": {"lines": [1]}}"#).contains("no object"));
    assert!(refused(&table, r#"{"id": 1, "order": {"lines": [{}]}}"#).contains("the key `sku` is missing"));
}

#[test]
fn columns_of_elements_are_inferred_kept_and_named_apart_from_the_parents_key() {
    let text = "[children.items]\n[children.items.children.parts]\nkey = ['code']\n";
    let mut inferring = table(text, None).unwrap();
    let records =
        [r#"{"id": 1, "items": [{"id": 5, "price": {"amount": 1}}, {"id": 6, "parts": [{"code": "x", "n": 1}]}]}"#, r#"{"id": 2}"#];
    let records: Vec<Map<String, Value>> = records.iter().map(|text| record(text)).collect();
    let learned = inferring.learn(&records.iter().collect::<Vec<_>>());
    let shown: Vec<String> = learned
        .iter()
        .map(|(table, columns)| {
            let columns: Vec<String> = columns.iter().map(|column| format!("{} {}", column.name, column.kind)).collect();
            format!("{table}: {}", columns.join(", "))
        })
        .collect();
    assert_eq!(
        shown,
        [
            "mydev.orders: id bigint",
            "mydev.orders_items: items_id bigint, price_amount bigint",
            "mydev.orders_items_parts: code string, n bigint"
        ]
    );
    let read = inferring.read(&records[0]).unwrap();
    assert_eq!(read.children[0][1].children[0][0].row, [Cell::Text("x".into()), Cell::Int(1)]);
    // the parent's shape has it all: another process goes on from there
    let schema = inferring.schema().unwrap().as_ref().clone();
    let shape: TableSchema = serde_json::from_str(&serde_json::to_string(&schema).unwrap()).unwrap();
    assert!(matches!(shape.columns[0].source_type, SourceType::Objects { .. }), "{shape:?}");
    let mut again = table(text, Some(&shape)).unwrap();
    assert_eq!(again.schema().unwrap().as_ref(), &shape);
    assert!(again.learn(&records.iter().collect::<Vec<_>>()).is_empty());
    // what doesn't fit is a dead letter, a new field a new column
    assert!(refused(&again, r#"{"id": 3, "items": [{"id": "five"}]}"#).contains("element 0 of `items`: the value of `items_id`"));
    let more = record(r#"{"id": 3, "items": [{"note": "new"}]}"#);
    assert_eq!(again.learn(&[&more])[0].1[0].name, "note");
    assert_ne!(again.schema().unwrap().as_ref(), &shape);
}

#[test]
fn wrong_declarations_of_children_are_said() {
    let wrong = |text: &str| table(&format!("columns = {{ id = 'int', n = 'array<int>' }}\n{text}"), None).unwrap_err();
    assert!(wrong("[children.n]\ncolumns = { a = 'int' }\n").contains("which has children, as array<int>; write json"));
    assert!(wrong("[children.items]\ncolumns = { a = 'int' }\nkey = ['b']\n").contains("doesn't declare the key `b`; add it"));
    assert!(wrong("[children.items]\ncolumns = { a = 'double' }\nkey = ['a']\n").contains("`a` is double, which can't be a key"));
    assert!(wrong("[children.items]\ncolumns = { a = 'int' }\nordering = 'a'\n").contains("unknown field `ordering`"));
    assert!(wrong("[children.items]\ninfer = false\n").contains("missing field `columns`"));
    assert!(wrong("[children.items]\ncolumns = { id = 'int' }\n").contains("has `id` twice"));
    assert!(wrong("[children.items]\ncolumns = { _index = 'int' }\n").contains("has `_index` twice"));
    assert!(wrong("[children.items]\nname = 'a.b'\ncolumns = { a = 'int' }\n").contains("write name = \"mydev.b\""));
}
