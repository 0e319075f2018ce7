//! Selection, filters and transformations, after the examples that DMS documents them by.

use super::*;
use crate::deliver::ItemChange;
use crate::event::Column;
use serde_json::{Map, json};

fn staff() -> TableSchema {
    let text = || SourceType::Text { charset: "utf8mb4".into(), max_bytes: 0 };
    let column = |name: &str, source_type| Column { name: name.into(), source_type, nullable: true };
    TableSchema {
        table: "Test.Staff".parse().unwrap(),
        columns: vec![
            column("Pre_no", SourceType::Int { unsigned: false }),
            column("first_name", text()),
            column("LAST", text()),
            column("pay", SourceType::Decimal { precision: 12, scale: 2 }),
            column("since", SourceType::DateTime { fsp: 0 }),
            column("active", SourceType::Bool),
            column("photo", SourceType::Binary { fixed_bytes: 0 }),
        ],
        key: vec![0],
    }
}

fn ada() -> Value {
    json!({"Pre_no": 100, "first_name": "Ada", "LAST": "Lovelace", "pay": 1234.50, "since": "2002-01-01T00:00:00.000000", "active": true, "photo": null,
           "_position": "gtid:7", "_commit_ts": "2026-01-02T03:04:05.000006Z"})
}

fn rule(kind: &str, action: &str, locator: Value, more: Value) -> Value {
    let mut rule =
        json!({"rule-type": kind, "rule-id": "7", "rule-name": action, "rule-action": action, "object-locator": locator});
    rule.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    rule
}

fn of_table() -> Value {
    json!({"schema-name": "Test", "table-name": "Staff"})
}

/// A mapping by `rules` with the key `no`, which is `Pre_no`.
fn mapping(rules: Vec<Value>) -> Result<ItemMapping, String> {
    let key = json!({"partition-key-name": "no", "exclude-columns": ["Pre_no"],
                     "attribute-mappings": [{"target-attribute-name": "no", "attribute-sub-type": "number", "value": "${Pre_no}"}]});
    let object = rule("object-mapping", "map-record-to-record", of_table(), json!({"mapping-parameters": key}));
    let file = json!({"rules": rules.into_iter().chain([object]).collect::<Vec<_>>()});
    ItemMapping::parse(&file.to_string(), &"Test.Staff".parse().unwrap())
}

fn include(more: Value) -> Value {
    rule("selection", "include", of_table(), more)
}

fn transformed(action: &str, target: &str, column: Option<&str>, more: Value) -> Value {
    let mut locator = of_table();
    if let Some(column) = column {
        locator["column-name"] = column.into();
    }
    let mut rule = rule("transformation", action, locator, more);
    rule["rule-target"] = target.into();
    rule
}

/// The item of a row; "-" if it has none.
fn item_of(mapping: &ItemMapping, row: &Value) -> String {
    let row: Map<String, Value> = row.as_object().unwrap().clone();
    let schema = staff();
    match mapping.shaped(&schema).and_then(|shaped| shaped.changes_of(vec![(row, false)], |_| None)) {
        Ok(mut changes) => match changes.remove(0) {
            ItemChange::Put(item) => Value::Object(item.to_json()).to_string(),
            ItemChange::Delete(_) => "-".to_owned(),
        },
        Err(error) => error.to_string(),
    }
}

fn said(mapping: Result<ItemMapping, String>) -> String {
    match mapping {
        Ok(mapping) => item_of(&mapping, &ada()),
        Err(said) => said,
    }
}

fn conditions(column: &str, conditions: Value) -> Value {
    json!({"filter-type": "source", "column-name": column, "filter-conditions": conditions})
}

fn passes(filters: Value, row: &Value) -> bool {
    let mapping = mapping(vec![include(json!({"filters": filters}))]).unwrap();
    let item = item_of(&mapping, row);
    assert!(item == "-" || item.starts_with('{'), "{item}");
    item != "-"
}

#[test]
fn a_row_passes_one_condition_of_each_filter() {
    let with = |column: &str, value: Value| {
        let mut row = ada();
        row[column] = value;
        row
    };
    let number = |value: i64| with("Pre_no", value.into());
    let some = |filters: &Value, rows: Vec<Value>| rows.iter().map(|row| passes(filters.clone(), row)).collect::<Vec<_>>();
    let at_least = json!([conditions("Pre_no", json!([{"filter-operator": "gte", "value": "100"}]))]);
    assert_eq!(some(&at_least, vec![number(99), number(100), number(1000), with("Pre_no", 100.into())]), [false, true, true, true]);
    // several conditions: any of them
    let ranges = json!([conditions(
        "Pre_no",
        json!([{"filter-operator": "lte", "value": 10},
        {"filter-operator": "between", "start-value": "50", "end-value": "75"}, {"filter-operator": "gte", "value": "100"}])
    )]);
    let rows = [10, 11, 49, 50, 75, 76, 100].map(number);
    assert_eq!(some(&ranges, rows.to_vec()), [true, false, false, true, true, false, true]);
    let not_between =
        json!([conditions("Pre_no", json!([{"filter-operator": "notbetween", "start-value": "50", "end-value": "75"}]))]);
    assert_eq!(some(&not_between, [49, 50, 75, 76].map(number).to_vec()), [true, false, false, true]);
    // several filters: all of them
    let both = json!([
        conditions("Pre_no", json!([{"filter-operator": "ste", "value": "100"}])),
        conditions("LAST", json!([{"filter-operator": "eq", "value": "Lovelace"}]))
    ]);
    assert_eq!(some(&both, vec![ada(), number(101), with("LAST", "lovelace".into())]), [true, false, false]);
    let not = json!([
        conditions("pay", json!([{"filter-operator": "noteq", "value": "1234.5"}])),
        conditions("LAST", json!([{"filter-operator": "notnull"}]))
    ]);
    let other_pay = with("pay", json!(50));
    let mut nameless = other_pay.clone();
    nameless["LAST"] = Value::Null;
    assert_eq!(some(&not, vec![ada(), other_pay, nameless, with("pay", Value::Null)]), [false, true, false, false]);
    let null = json!([conditions("LAST", json!([{"filter-operator": "null"}, {"filter-operator": "eq", "value": ""}]))]);
    assert_eq!(some(&null, vec![ada(), with("LAST", Value::Null), with("LAST", "".into())]), [false, true, true]);
    // dates: a day is its midnight
    let since = json!([conditions("since", json!([{"filter-operator": "gte", "value": "2002-01-01"}]))]);
    let times = ["2001-12-31T23:59:59.000000", "2002-01-01T00:00:00.000000", "2010-01-01T00:00:00.000000"];
    assert_eq!(some(&since, times.map(|time| with("since", time.into())).to_vec()), [false, true, true]);
    let minute = json!([conditions(
        "since",
        json!([{"filter-operator": "between", "start-value": "2002-01-01 10:00:00", "end-value": "2002-01-01 10:01:00"}])
    )]);
    let times =
        ["2002-01-01T09:59:59.999999", "2002-01-01T10:00:00.000000", "2002-01-01T10:01:00.000000", "2002-01-01T10:01:00.000001"];
    assert_eq!(some(&minute, times.map(|time| with("since", time.into())).to_vec()), [false, true, true, false]);
    let active = json!([conditions("active", json!([{"filter-operator": "eq", "value": "1"}]))]);
    assert_eq!(some(&active, vec![ada(), with("active", false.into())]), [true, false]);
    // numbers are compared with all their digits, and below zero
    let exact = json!([conditions(
        "pay",
        json!([{"filter-operator": "between", "start-value": "-1e2", "end-value": "9007199254740993.25"}])
    )]);
    let number: fn(&str) -> Value = |text| Value::Number(text.parse().unwrap());
    let rows = ["-100.01", "-100", "-99.5", "0.00", "9007199254740993.25", "9007199254740993.26"];
    assert_eq!(some(&exact, rows.map(|text| with("pay", number(text))).to_vec()), [false, true, true, true, true, false]);
}

#[test]
fn selections_include_and_exclude() {
    let like = |schema: &str, table: &str| json!({"schema-name": schema, "table-name": table});
    let with = |rules: Vec<Value>| said(mapping(rules));
    let all = || rule("selection", "include", like("%", "%"), json!({}));
    assert!(with(vec![all()]).starts_with(r#"{"LAST""#));
    assert!(with(vec![rule("selection", "explicit", of_table(), json!({})), all()]).starts_with(r#"{"LAST""#));
    // whatever their order: what is excluded is out
    for rules in [
        vec![all(), rule("selection", "exclude", like("Test", "St%"), json!({}))],
        vec![rule("selection", "exclude", like("Te_t", "%ff"), json!({})), all()],
        vec![rule("selection", "include", like("test", "%"), json!({}))],
        vec![],
    ] {
        assert_eq!(with(rules), "no selection rule includes Test.Staff, or one excludes it; add one with the action include");
    }
    assert!(with(vec![all(), rule("selection", "exclude", like("Test", "Staffs"), json!({}))]).starts_with('{'));
    // settings of how tables are read say nothing here
    assert!(with(vec![all(), rule("table-settings", "", of_table(), json!({"parallel-load": {"type": "none"}}))]).starts_with('{'));
}

#[test]
fn names_are_changed_and_columns_left_out() {
    let with = |rules: Vec<Value>| said(mapping([vec![include(json!({}))], rules].concat()));
    let names = |item: String| {
        item.trim_matches(['{', '}']).split(',').map(|pair| pair.split(':').next().unwrap().replace('"', "")).collect::<Vec<_>>()
    };
    let column = |action: &str, column: &str, more: Value| transformed(action, "column", Some(column), more);
    let renamed = with(vec![column("rename", "first_name", json!({"value": "fname"}))]);
    assert_eq!(names(renamed), ["LAST", "active", "fname", "no", "pay", "since"]);
    let upper = with(vec![column("convert-uppercase", "%", json!({}))]);
    assert_eq!(names(upper), ["ACTIVE", "FIRST_NAME", "LAST", "PAY", "SINCE", "no"]);
    let lower = with(vec![column("convert-lowercase", "%", json!({})), column("add-suffix", "LAST", json!({"value": "_name"}))]);
    assert_eq!(names(lower), ["active", "first_name", "last_name", "no", "pay", "since"], "in the order of the file");
    let affixes = with(vec![
        column("add-prefix", "p%", json!({"value": "DMS_"})),
        column("remove-prefix", "first_%", json!({"value": "first_"})),
        column("replace-prefix", "%", json!({"old-value": "si", "value": "Si"})),
        column("replace-suffix", "%", json!({"old-value": "ive", "value": "ion"})),
        column("remove-suffix", "LAST", json!({"value": "ST"})),
    ]);
    assert_eq!(names(affixes), ["DMS_pay", "LA", "Since", "action", "name", "no"]);
    assert_eq!(
        names(with(vec![column("remove-column", "%a%", json!({})), column("remove-column", "LAST", json!({}))])),
        ["no", "since"]
    );
    assert_eq!(
        names(with(vec![column("include-column", "pay", json!({})), column("include-column", "s%", json!({}))])),
        ["no", "pay", "since"]
    );
    // rules for other tables, and for schemas, of which items have none
    let mut of_another = column("remove-column", "%", json!({}));
    of_another["object-locator"]["table-name"] = "Others".into();
    let mut schema = transformed("rename", "schema", None, json!({"value": "Test1"}));
    schema["object-locator"] = json!({"schema-name": "Test"});
    assert_eq!(names(with(vec![of_another, schema])).len(), 6);
    // the target's name, where the mapping gives none
    let target = |rules: Vec<Value>| mapping([vec![include(json!({}))], rules].concat()).unwrap().target;
    assert_eq!(target(vec![]), "Staff");
    assert_eq!(target(vec![transformed("rename", "table", None, json!({"value": "Actor1"}))]), "Actor1");
    let lower = transformed("convert-lowercase", "table", None, json!({}));
    assert_eq!(target(vec![lower, transformed("add-prefix", "table", None, json!({"value": "DMS_"}))]), "DMS_staff");
    let twice = with(vec![column("rename", "pay", json!({"value": "LAST"}))]);
    assert!(twice.contains("two columns become the attribute `LAST`"), "{twice}");
}

#[test]
fn columns_are_computed() {
    let added = |expression: &str, data_type: Value| {
        let more = json!({"value": "ADDED", "expression": expression, "data-type": data_type});
        let item = said(mapping(vec![include(json!({})), transformed("add-column", "column", None, more)]));
        match serde_json::from_str::<Value>(&item) {
            Ok(item) => item.get("ADDED").cloned().unwrap_or(Value::Null).to_string(),
            Err(_) => item,
        }
    };
    let text = || json!({"type": "string", "length": 50});
    assert_eq!(added("$first_name||'_'||$LAST", text()), r#""Ada_Lovelace""#);
    assert_eq!(added("CASE WHEN $pay > 1000 THEN 'high' ELSE '$low' END", text()), r#""high""#);
    assert_eq!(added("$Pre_no * 2 + 1", json!({"type": "int4"})), "201");
    assert_eq!(added("round($pay * 2, 1)", json!({"type": "numeric", "precision": 10, "scale": 2})), "2469.0");
    assert_eq!(added("strftime('%Y', $since)", json!({"type": "int2"})), "2002");
    assert_eq!(added("date($since, '+1 day')", json!({"type": "date"})), r#""2002-01-02""#);
    assert_eq!(added("$active", json!({"type": "boolean"})), "true");
    assert_eq!(added("nullif($LAST, 'Lovelace')", text()), "null", "NULL is left out");
    assert_eq!(added("$AR_M_SOURCE_SCHEMA||'.'||$AR_M_SOURCE_TABLE_NAME", text()), r#""Test.Staff""#);
    assert_eq!(added("$AR_H_STREAM_POSITION||' '||$AR_H_COMMIT_TIMESTAMP", text()), r#""gtid:7 2026-01-02 03:04:05.000006""#);
    // what would not be the same in a replay, what SQLite doesn't have, and what isn't there
    for (expression, why) in [
        ("random()", "non-deterministic"),
        ("$first_name || datetime('now')", "non-deterministic"),
        ("operation_indicator('D', 'U', 'I')", "no such function: operation_indicator"),
        ("(SELECT 1)", "subqueries prohibited"),
        ("first_name", "no such column"),
        ("$LAST ||", "syntax error"),
        ("$AR_H_USER", "the expression reads $AR_H_USER; of DMS's headers there are"),
        ("$nothing", "there is no column `nothing`"),
        ("$photo", "expressions can't read the column `photo`"),
    ] {
        let said = added(expression, text());
        assert!(said.contains(why), "{expression}: {said}");
    }
    assert!(added("$first_name", json!({"type": "string", "length": 2})).contains("it is longer than its type attribute=ADDED"));
    // a column without an expression is NULL
    let plain = json!({"value": "last_updated", "data-type": {"type": "datetime", "precision": 6}});
    assert!(!said(mapping(vec![include(json!({})), transformed("add-column", "column", None, plain)])).contains("last_updated"));
}

#[test]
fn values_take_other_types_or_are_refused() {
    let changed = |column: &str, data_type: Value, value: Value| {
        let rule = transformed("change-data-type", "column", Some(column), json!({"data-type": data_type}));
        let mapping = mapping(vec![include(json!({})), rule]).unwrap();
        let mut row = ada();
        row[column] = value;
        let item = item_of(&mapping, &row);
        match serde_json::from_str::<Value>(&item) {
            Ok(item) => item[column].to_string(),
            Err(_) => item,
        }
    };
    assert_eq!(changed("pay", json!({"type": "int8"}), json!(1234.0)), "1234");
    assert!(changed("pay", json!({"type": "int8"}), json!(1234.5)).contains("it is no whole number"));
    assert!(changed("pay", json!({"type": "uint1"}), json!(-1)).contains("it is out of its type's range"));
    assert_eq!(changed("pay", json!({"type": "string"}), json!(1234.5)), r#""1234.5""#);
    assert_eq!(changed("LAST", json!({"type": "int4"}), json!("42")), "42");
    assert_eq!(changed("LAST", json!({"type": "numeric", "precision": 4, "scale": 2}), json!("12.50")), "12.50");
    assert!(
        changed("LAST", json!({"type": "numeric", "precision": 4, "scale": 2}), json!("123.5"))
            .contains("it has more digits than its type")
    );
    assert!(changed("LAST", json!({"type": "real8"}), json!("x")).contains("it is no number"));
    assert_eq!(changed("since", json!({"type": "date"}), ada()["since"].clone()), r#""2002-01-01""#);
    assert_eq!(changed("LAST", json!({"type": "datetime"}), json!("2002-01-01")), r#""2002-01-01T00:00:00.000000""#);
    assert!(changed("photo", json!({"type": "string"}), json!("AAAA")).contains("the column `photo` has bytes"));
}

#[test]
fn a_key_is_what_a_rule_defines_or_the_mapping_says() {
    let parse = |object: Value, rules: Vec<Value>| {
        let object = rule("object-mapping", "map-record-to-record", of_table(), object);
        let rules = [vec![include(json!({}))], rules, vec![object]].concat();
        let file = json!({"rules": rules});
        ItemMapping::parse(&format!("\u{feff}{file}"), &"Test.Staff".parse().unwrap())
    };
    let define = |columns: Value| {
        transformed("define-primary-key", "table", None, json!({"primary-key-def": {"name": "k", "columns": columns}}))
    };
    let renamed = || transformed("rename", "column", Some("Pre_no"), json!({"value": "id"}));
    let keys = |mapping: &ItemMapping| mapping.key_columns().into_iter().collect::<Vec<_>>();
    let mapping = parse(json!({}), vec![define(json!(["Pre_no", "LAST"])), renamed()]).unwrap();
    assert_eq!(keys(&mapping), ["LAST", "Pre_no"]);
    let kinds = mapping.key_kinds(&staff());
    assert_eq!(
        (kinds.partition, kinds.sort),
        (("id".to_owned(), AttributeKind::Number), Some(("LAST".to_owned(), AttributeKind::Text)))
    );
    // a column by the name that a rule gives it
    let named = json!({"mapping-parameters": {"partition-key-name": "id"}});
    assert_eq!(keys(&parse(named.clone(), vec![renamed()]).unwrap()), ["Pre_no"]);
    let said = |mapping: Result<ItemMapping, String>| mapping.unwrap_err();
    assert!(said(parse(json!({}), vec![define(json!(["a", "b", "c"]))])).contains("an item's key has one or two attributes"));
    assert!(
        said(parse(named.clone(), vec![renamed(), define(json!(["LAST"]))]))
            .contains("made of Pre_no, but define-primary-key says LAST")
    );
    let by = |name: &str| json!({"mapping-parameters": {"partition-key-name": name}});
    assert!(said(parse(by("Pre_no"), vec![renamed()])).contains("nothing gives the key's attribute `Pre_no`"));
    let lower = transformed("convert-lowercase", "column", Some("%"), json!({}));
    assert!(said(parse(by("LAST"), vec![lower.clone()])).contains("nothing gives the key's attribute `LAST`"));
    let added = transformed("add-column", "column", None, json!({"value": "x", "expression": "lower($LAST)"}));
    assert!(said(parse(by("x"), vec![added])).contains("is a column that a rule adds"));
}

#[test]
fn rules_that_cannot_be_followed_are_refused() {
    let filter = |filter: Value| mapping(vec![include(json!({"filters": [filter]}))]);
    let with = |rule: Value| mapping(vec![include(json!({})), rule]);
    let filters = json!({"filters": [conditions("pay", json!([{"filter-operator": "notnull"}]))]});
    let wild = json!({"schema-name": "Test", "table-name": "%"});
    let wrong = [
        filter(conditions("pay", json!([{"filter-operator": "like", "value": "a%"}]))),
        filter(conditions("pay", json!([{"filter-operator": "between", "value": "1"}]))),
        filter(conditions("pay", json!([{"filter-operator": "null", "value": "1"}]))),
        filter(conditions("pay", json!([]))),
        filter(json!({"filter-type": "target", "column-name": "pay", "filter-conditions": []})),
        filter(conditions("pay", json!([{"filter-operator": "gte", "value": "much"}]))),
        filter(conditions("since", json!([{"filter-operator": "gte", "value": "1.1.2002"}]))),
        filter(conditions("photo", json!([{"filter-operator": "eq", "value": "x"}]))),
        filter(conditions("wage", json!([{"filter-operator": "gte", "value": "1"}]))),
        mapping(vec![rule("selection", "include", wild.clone(), filters.clone())]),
        mapping(vec![rule("selection", "explicit", wild.clone(), json!({}))]),
        mapping(vec![rule("selection", "exclude", of_table(), filters.clone())]),
        mapping(vec![rule("selection", "include", wild, json!({})), include(filters)]),
        with(transformed("add-before-image-columns", "column", Some("%"), json!({"before-image-def": {}}))),
        with(transformed("data-masking-hash-mask", "column", Some("LAST"), json!({}))),
        with(transformed("rename", "column", Some("LAST"), json!({}))),
        with(transformed("rename", "column", None, json!({"value": "x"}))),
        with(transformed("rename", "index", None, json!({"value": "x"}))),
        with(transformed("change-data-type", "column", Some("LAST"), json!({"data-type": {"type": "geometry"}}))),
        with(transformed(
            "change-data-type",
            "column",
            Some("LAST"),
            json!({"data-type": {"type": "string"}, "expression": "$LAST"}),
        )),
    ];
    let said: String = wrong.into_iter().map(|mapping| said(mapping) + "\n").collect();
    insta::assert_snapshot!(said);
}

#[test]
fn columns_that_are_not_there_are_named_with_their_rule() {
    let said = |rules: Vec<Value>| -> Vec<String> {
        let mapping = mapping([vec![include(json!({}))], rules].concat()).unwrap();
        mapping.misfits(&staff()).iter().map(Error::to_string).collect()
    };
    let column = |action: &str, column: &str, more: Value| transformed(action, "column", Some(column), more);
    let fitting = vec![
        column("rename", "first_name", json!({"value": "fname"})),
        column("remove-column", "photo%", json!({})),
        column("remove-column", "nothing%", json!({})),
        column("remove-column", "_AST", json!({})),
        transformed(
            "add-column",
            "column",
            None,
            json!({"value": "shout", "expression": "upper($first_name)||$AR_H_STREAM_POSITION"}),
        ),
    ];
    assert_eq!(said(fitting), Vec::<String>::new());
    let filter =
        json!({"filters": [{"filter-type": "source", "column-name": "Pay", "filter-conditions": [{"filter-operator": "null"}]}]});
    let mut elsewhere = column("remove-column", "of_another_table", json!({}));
    elsewhere["object-locator"]["table-name"] = "%".into();
    let found = [
        said(vec![elsewhere]),
        said(vec![column("rename", "frist_name", json!({"value": "fname"}))]),
        said(vec![transformed("add-column", "column", None, json!({"value": "x", "expression": "$zip"}))]),
    ];
    let no_column = |rule: &str, column: &str, remedy: &str| {
        let what = "a rule of the table mapping names a column that the table doesn't have";
        format!("{what} rule={rule} column={column} source=Test.Staff; {remedy}, or take it out of the rule")
    };
    let any = "name a column of the table";
    assert_eq!(
        found,
        [vec![], vec![no_column("rename", "frist_name", "write `first_name`")], vec![no_column("add-column", "zip", any)],]
    );
    let filtered = rule("selection", "include", of_table(), filter);
    let key = |mapped: Value| {
        let object = rule("object-mapping", "map-record-to-record", of_table(), json!({"mapping-parameters": mapped}));
        let file = json!({"rules": [filtered.clone(), object]});
        let mapping = ItemMapping::parse(&file.to_string(), &"Test.Staff".parse().unwrap()).unwrap();
        mapping.misfits(&staff()).iter().map(Error::to_string).collect::<Vec<_>>()
    };
    let one = |value: &str| json!([{"target-attribute-name": "no", "value": value}]);
    let (object, pay) = ("map-record-to-record", no_column("include", "Pay", "write `pay`"));
    let nothing = "nothing makes the attribute that is the items' key: the table has no column of this name rule=map-record-to-record attribute=number \
                   source=Test.Staff; add it to the rule's attribute-mappings, or name a column of the table's key";
    assert_eq!(key(json!({"partition-key-name": "number"})), [pay.clone(), nothing.into()]);
    let wrong = json!({"partition-key-name": "no", "attribute-mappings": one("${Pre_nr}"), "exclude-columns": ["zip"]});
    assert_eq!(key(wrong), [pay.clone(), no_column(object, "zip", any), no_column(object, "Pre_nr", "write `Pre_no`")]);
    let other = "the items' key isn't made of the table's key rule=map-record-to-record source=Test.Staff table_key=Pre_no item_key=LAST; \
                 map the table's key, or set `key` in the table's [[table]] to the columns of the items' key";
    assert_eq!(key(json!({"partition-key-name": "no", "attribute-mappings": one("${LAST}")})), [pay.clone(), other.into()]);
    assert_eq!(key(json!({"partition-key-name": "Pre_no"})), [pay]);
}

/// DynamoDB has no booleans as keys, and lets items expire by numbers alone.
#[test]
fn keys_and_expiry_are_of_their_types() {
    let with = |parameters: Value| {
        let file = json!({"rules": [include(json!({})), rule("object-mapping", "map-record-to-record", of_table(), json!({"mapping-parameters": parameters}))]});
        ItemMapping::parse(&file.to_string(), &"Test.Staff".parse().unwrap()).unwrap()
    };
    let one = |kind: &str| json!([{"target-attribute-name": "k", "attribute-type": "scalar", "attribute-sub-type": kind, "value": "${Pre_no}"}]);
    for kind in ["string", "number", "binary"] {
        let mapping = with(json!({"partition-key-name": "k", "attribute-mappings": one(kind)}));
        assert_eq!(mapping.misfits(&staff()).len(), 0, "{kind}");
        let expires = |attribute: &str| mapping.expires_by(attribute, &staff()).map_err(|error| error.what().to_owned());
        assert_eq!(expires("k").is_ok(), kind == "number", "{kind}");
        assert_eq!(expires("pay"), Ok(()));
        assert_eq!(expires("LAST").unwrap_err(), "the attribute by which items expire is no number, so none ever would");
        assert_eq!(expires("ttl").unwrap_err(), "nothing makes the attribute by which items expire");
    }
    let mapping = with(json!({"partition-key-name": "k", "attribute-mappings": one("boolean")}));
    let said: Vec<String> = mapping.misfits(&staff()).iter().map(Error::to_string).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with(
            "a key is text, a number or bytes, and this one is not rule=map-record-to-record attribute=k source=Test.Staff; "
        ),
        "{said:?}"
    );
}
