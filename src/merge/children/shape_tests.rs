//! What children's columns are, and what can't be one.

use super::ChildShape;
use super::table_tests::{schema, specs};
use crate::format::ChildSpecs;
use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use std::sync::Arc;

fn lake_shape() -> crate::merge::LakeShape {
    crate::merge::LakeShape::new(schema(), Some(&"part".parse().unwrap())).unwrap()
}

#[test]
fn a_childs_columns_begin_with_its_parents_key_and_end_with_its_partition() {
    let shapes = ChildShape::all(&specs().0, &lake_shape(), None).unwrap();
    let columns =
        |shape: &ChildShape| shape.columns().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>().join(" ");
    let names: Vec<String> = shapes.iter().map(|shape| shape.table().to_string()).collect();
    assert_eq!(names, ["s.orders_items", "s.orders_items_parts", "s.order_tags"]);
    assert_eq!(columns(&shapes[0]), "id _index sku price_amount parts _commit_ts _position part");
    assert_eq!(columns(&shapes[1]), "id _items_index code n _commit_ts _position part");
    assert_eq!(columns(&shapes[2]), "id tag n _commit_ts _position part");
    assert_eq!(shapes[1].key_names(), ["id", "_items_index", "code"]);
    let lake = lake_shape();
    let history = crate::merge::HistoryShape::new(&lake.source().table, lake.columns(), &lake.key_names(), None).unwrap();
    let with_histories = ChildShape::all(&specs().0, &lake, Some(&history)).unwrap();
    let names: Vec<String> = with_histories.iter().skip(3).map(|shape| shape.table().to_string()).collect();
    assert_eq!(names, ["s.orders_items_history", "s.orders_items_parts_history"]);
    let periods = "_valid_from _valid_to _system_from _system_to _place";
    assert_eq!(columns(&with_histories[4]), format!("id _items_index code n _commit_ts _position part {periods}"));
    assert_eq!(with_histories[4].key_names(), ["_valid_from", "_system_from", "id", "_items_index", "code"]);
    assert_eq!(shapes[1].claim().lists, ["items", "parts"]);
    let sample = include_str!("../../../tests/data/state/child-v1.json").trim();
    assert_eq!(shapes[1].claim().to_json().unwrap(), sample);
    assert_eq!(super::ChildClaim::from_json(sample).as_ref(), Some(shapes[1].claim()));
    assert_eq!(super::ChildClaim::from_json(&sample.replace(":1,", ":2,")), None);
}

#[test]
fn what_cannot_be_a_child_is_said() {
    let wrong = |text: &str| {
        let specs: ChildSpecs = toml::from_str(text).unwrap();
        ChildShape::all(&specs.0, &lake_shape(), None).unwrap_err().to_string()
    };
    assert!(wrong("[nothing]\ncolumns = { a = 'int' }\n").contains("a column that the table lacks"));
    assert!(wrong("[newness]\ncolumns = { a = 'int' }\n").contains("a column that has no JSON"));
    let twice = wrong("[items]\ncolumns = { id = 'int' }\n");
    assert!(twice.contains("s.orders_items has `id` twice") && twice.contains("items_id = { type = …, path = \"id\" }"), "{twice}");
    assert!(wrong("[items]\nname = 'other.items'\ncolumns = { a = 'int' }\n").contains("another database"));
}

/// What isn't read before the merge stops the table there.
#[test]
fn an_element_that_cannot_be_read_names_table_and_place() {
    let shapes = ChildShape::all(&specs().0, &lake_shape(), None).unwrap();
    let parents = |items: &str| {
        let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
        let int = || Arc::new(Int32Array::from(vec![1])) as ArrayRef;
        RecordBatch::try_from_iter([("id", int()), ("items", text(items)), ("tags", text("[]"))]).unwrap()
    };
    for (items, why) in [
        ("[1]", "element 0 of `items`: it is no object"),
        ("{}", "`items` is no list"),
        ("[{}, {\"price\": {\"amount\": \"x\"}}]", "element 1 of `items`: the value of `price.amount` can't be read"),
        (
            "[{\"parts\": [{\"code\": 1}, {\"code\": 1}]}]",
            "element 0 of `items`: element 1 of `parts`: an element before it has the same key",
        ),
        ("[{\"parts\": [{}]}]", "element 0 of `items`: element 0 of `parts`: the key `code` is missing"),
    ] {
        let error = shapes[0].explode(&parents(items), 0..1).unwrap_err();
        assert!(error.to_string().contains(why), "{items}: {error}");
        assert_eq!(error.kind(), crate::error::Kind::Data);
    }
}
