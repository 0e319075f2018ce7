//! Each way in which a transform can be wrong, and what the right ones make of rows.

use super::*;
use crate::lookup::{Lookup, LookupConfig};
use crate::time::Timestamp;
use arrow::array::{ArrayRef, AsArray, BooleanArray, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use arrow::util::pretty::pretty_format_batches;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

fn rows(ids: &[i32], names: &[Option<&str>], prices: &[Option<i32>]) -> RecordBatch {
    let position: Vec<String> = ids.iter().map(|id| format!("gtid:{id}")).collect();
    RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int32Array::from(ids.to_vec())) as ArrayRef, false),
        ("Name", Arc::new(StringArray::from(names.to_vec())) as ArrayRef, true),
        ("price", Arc::new(Int32Array::from(prices.to_vec())) as ArrayRef, true),
        ("_position", Arc::new(StringArray::from(position)) as ArrayRef, true),
    ])
    .unwrap()
}

fn sample() -> RecordBatch {
    rows(&[1, 2, 3], &[Some("India"), Some("Peru"), None], &[Some(10), Some(0), Some(-3)])
}

fn input() -> SchemaRef {
    sample().schema()
}

fn country(extra: &str) -> Arc<Lookup> {
    let config: LookupConfig = toml::from_str(&format!("url = 'file:country.csv'\n{extra}")).unwrap();
    Arc::new(Lookup::new("country", config))
}

fn fill(lookup: &Lookup, items: &str) {
    let items: Vec<_> = serde_json::from_str(items).unwrap();
    lookup.replace(lookup.content_of(&items).unwrap(), Timestamp::default());
}

const COUNTRIES: &str =
    r#"[{"name": "India", "combined": "IN-India", "code": 91}, {"name": "Peru", "combined": "PE-Peru", "code": 51}]"#;

fn bind(sql: &str, lookup: &Arc<Lookup>) -> crate::error::Result<BoundTransform> {
    let mut transform: Transform = sql.parse().map_err(|text: String| crate::error::Error::config(text))?;
    transform.attach(&BTreeMap::from([("country".to_owned(), lookup.clone())]))?;
    transform.bind(&input(), &["id".to_owned()], &["_position"]).map_err(crate::error::Error::into_config)
}

fn bound(sql: &str) -> BoundTransform {
    let lookup = country("");
    fill(&lookup, COUNTRIES);
    bind(sql, &lookup).unwrap()
}

fn run(bound: &BoundTransform, rows: &RecordBatch, deletes: &[bool]) -> crate::error::Result<(String, Vec<bool>)> {
    let made = bound.run(rows, &BooleanArray::from(deletes.to_vec()), &bound.freeze()?)?;
    let columns = bound.columns().map(|column| column.field.name().clone()).zip(made.columns.iter().cloned());
    let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).unwrap();
    Ok((pretty_format_batches(&[batch]).unwrap().to_string(), made.is_delete.iter().map(Option::unwrap_or_default).collect()))
}

#[test]
fn every_error_says_what_where_and_the_remedy() {
    let lookup = country("");
    fill(&lookup, COUNTRIES);
    let cases = [
        "SELEC * FROM input",
        "SELECT * FROM input; SELECT 1",
        "DELETE FROM input",
        "SELECT * FROM orders",
        "SELECT id, nam FROM input",
        "SELECT id, t.pric FROM input t",
        "SELECT id, uper(Name) AS n FROM input",
        "SELECT id, zzz(Name) AS n FROM input",
        "SELECT id, upper(Name) FROM input",
        "SELECT id, now() AS at FROM input",
        "SELECT id, current_date AS at FROM input",
        "SELECT id, random() AS r FROM input",
        "SELECT id, uuid() AS r FROM input",
        "SELECT id, count(*) AS n FROM input GROUP BY id",
        "SELECT id, sum(price) AS n FROM input",
        "SELECT id, row_number() OVER (ORDER BY id) AS n FROM input",
        "SELECT DISTINCT id FROM input",
        "SELECT id FROM input ORDER BY id",
        "SELECT id FROM input LIMIT 3",
        "SELECT id FROM input UNION ALL SELECT id FROM input",
        "SELECT id, (SELECT max(price) FROM input) AS m FROM input",
        "SELECT id FROM input WHERE id IN (SELECT id FROM input)",
        "SELECT id, unnest(make_array(1, 2)) AS u FROM input",
        "WITH a AS (SELECT 1) SELECT id FROM input",
        "SELECT t.* FROM input t JOIN country c ON t.Name = c.name",
        "SELECT t.* FROM input t LEFT JOIN contry c ON t.Name = c.name",
        "SELECT t.* FROM input t LEFT JOIN country c ON t.Name > c.name",
        "SELECT t.*, c.nme FROM input t LEFT JOIN country c ON t.Name = c.name",
        "SELECT t.*, c.* FROM input t LEFT JOIN country c ON t.Name = c.name",
        "SELECT Name FROM input",
        "SELECT id + 1 AS id, Name FROM input",
        "SELECT id, Name AS price, price FROM input",
        "SELECT id, Name AS _position FROM input",
        "SELECT id, NULL AS n FROM input",
        "SELECT id, make_array(make_array(id)) AS n FROM input",
        "SELECT id, Name,\n       upper(price, 1) AS p FROM input",
        "SELECT id FROM input WHERE price + 1",
        "SELECT id, sha256_hex() AS h FROM input",
        "SELECT id,\n       Name AS a, price AS A FROM input",
        "SELECT id, Name AS _hoodie_record_key FROM input",
        "SELECT id, Name AS \"full name\" FROM input",
        "SELECT t.id, i.price FROM input t LEFT JOIN input i ON t.id = i.id",
        "SELECT id, mask(Name, price) AS m FROM input",
        "SELECT id, mask(Name, -1) AS m FROM input",
        "SELECT id,\n       hmac_sha256(Name, '') AS m FROM input",
        "SELECT *,\n       upper(Name) AS PRICE FROM input",
        "SELECT t.*, 1 AS price FROM input t",
    ];
    let mut shown = String::new();
    for sql in cases {
        match bind(sql, &lookup) {
            Ok(_) => writeln!(shown, "{sql}\n  NO ERROR").unwrap(),
            Err(error) => {
                assert_eq!(error.exit_code(), 2, "{sql}");
                let error = error.to_string();
                writeln!(shown, "{sql}\n  {error}").unwrap();
            }
        }
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn columns_are_computed_cast_masked_and_hashed() {
    let bound = bound(
        "SELECT t.*, upper(name) AS shout, CAST(price AS DOUBLE) / 4 AS quarter, mask(name, 2) AS masked, sha256_hex(name) AS h,
                hmac_sha256(name, 'key') AS m, CASE WHEN price > 0 THEN 'paid' ELSE 'free' END AS kind
         FROM input t",
    );
    let (shown, deletes) = run(&bound, &sample(), &[false; 3]).unwrap();
    insta::assert_snapshot!(shown);
    assert_eq!(deletes, [false; 3]);
    let columns: Vec<_> = bound.columns().map(|column| (column.field.name().as_str(), column.passes.as_deref())).collect();
    assert_eq!(columns[..3], [("id", Some("id")), ("Name", Some("Name")), ("price", Some("price"))]);
    assert_eq!(columns[3], ("shout", None));
}

#[test]
fn parts_of_times() {
    let bound = bound(
        "SELECT id, year(TIMESTAMP '2026-03-04 05:06:07') AS y, hour('2026-03-04T05:06:07+02:00') AS h, day(DATE '2026-03-04') AS d FROM input",
    );
    let (shown, _) = run(&bound, &sample(), &[false; 3]).unwrap();
    insta::assert_snapshot!(shown);
}

#[test]
fn a_row_that_where_drops_becomes_a_delete_and_a_delete_passes_by_its_key() {
    let bound = bound("SELECT id, 100 / price AS share FROM input WHERE price <> 0");
    let (shown, deletes) = run(&bound, &sample(), &[false, false, true]).unwrap();
    assert_eq!(deletes, [false, true, true]);
    insta::assert_snapshot!(shown, @r"
    +----+-------+
    | id | share |
    +----+-------+
    | 1  | 10    |
    | 2  |       |
    | 3  |       |
    +----+-------+
    ");
    let (_, deletes) = run(&bound, &sample(), &[true; 3]).unwrap();
    assert_eq!(deletes, [true; 3], "nothing is computed of deletes");
}

#[test]
fn a_row_whose_expression_fails_is_named_without_its_values() {
    let bound = bound("SELECT id, 100 / price AS share FROM input");
    let error = run(&bound, &sample(), &[false; 3]).unwrap_err();
    assert_eq!(error.kind(), crate::error::Kind::Data);
    let said = error.to_string();
    assert!(said.starts_with("a row's transform fails: division by zero column=share key=id:2 position=gtid:2; "), "{said}");
    let cast = super::tests::bound("SELECT id, CAST(Name AS INT) AS n FROM input");
    let said = run(&cast, &sample(), &[false; 3]).unwrap_err().to_string();
    assert!(said.contains("can't be cast") && said.contains("key=id:1") && !said.contains("India"), "{said}");
}

/// Sums that would begin again at the other end, and bytes that are no text, are no values.
#[test]
fn nothing_is_altered_that_does_not_fit() {
    let large = rows(&[1, 2], &[None, None], &[Some(3), Some(2_000_000_000)]);
    for computed in [
        "price * price",
        "price + price",
        "price - CAST(-2000000000 AS INT)",
        "CAST(price AS DECIMAL(38, 28)) * CAST(6 AS DECIMAL(38, 0))",
        "CAST(price AS DECIMAL(9, 0))",
    ] {
        let bound = bound(&format!("SELECT id, CAST(price AS INT) AS same, {computed} AS n FROM input"));
        let made = run(&bound, &large, &[false; 2]);
        let Err(error) = made else { panic!("{computed}: {}", made.unwrap().0) };
        assert!(error.to_string().starts_with("a row's transform fails: a number is too large column=n key=id:2"), "{error}");
    }
    let least =
        run(&bound("SELECT id, -price AS n FROM input"), &rows(&[1, 2], &[None; 2], &[Some(7), Some(i32::MIN)]), &[false; 2]);
    let said = least.unwrap_err().to_string();
    assert!(said.starts_with("a row's transform fails: a number is too large column=n key=id:2"), "{said}");
    for computed in ["mask(decode(Name, 'hex'))", "CAST(decode(Name, 'hex') AS VARCHAR)"] {
        let said = run(
            &bound(&format!("SELECT id, {computed} AS n FROM input")),
            &rows(&[1, 2], &[Some("41"), Some("ff")], &[None, None]),
            &[false; 2],
        );
        let said = said.unwrap_err().to_string();
        assert!(said.starts_with("a row's transform fails: the bytes are no text in UTF-8 column=n key=id:2"), "{said}");
    }
}

#[test]
fn a_lookup_joins_rows_in_their_order_and_counts() {
    let lookup = country("");
    fill(&lookup, COUNTRIES);
    let sql = "SELECT t.*, c.combined, c.code + 1 AS next FROM input t LEFT JOIN country c ON t.Name = c.name";
    let bound = bind(sql, &lookup).unwrap();
    let rows = rows(&[1, 2, 3, 4], &[Some("Peru"), Some("India"), None, Some("Chad")], &[None; 4]);
    let (shown, _) = run(&bound, &rows, &[false; 4]).unwrap();
    insta::assert_snapshot!(shown, @r"
    +----+-------+-------+----------+------+
    | id | Name  | price | combined | next |
    +----+-------+-------+----------+------+
    | 1  | Peru  |       | PE-Peru  | 52   |
    | 2  | India |       | IN-India | 92   |
    | 3  |       |       |          |      |
    | 4  | Chad  |       |          |      |
    +----+-------+-------+----------+------+
    ");
    let health = lookup.health();
    assert_eq!((health.hits, health.misses), (2, 1), "NULL is looked for nowhere");
    // new content counts from the next batch on
    fill(&lookup, r#"[{"name": "Chad", "combined": "TD-Chad", "code": 235}]"#);
    let (shown, _) = run(&bound, &rows, &[false; 4]).unwrap();
    assert!(shown.contains("TD-Chad") && !shown.contains("PE-Peru"), "{shown}");
}

#[test]
fn a_join_key_of_another_type_is_cast_and_two_columns_join_together() {
    let lookup = country("columns = { code = 'string', kind = 'string', text = 'string' }");
    fill(&lookup, r#"[{"code": 2, "kind": "Peru", "text": "both"}, {"code": 2, "kind": "India", "text": "one"}]"#);
    let sql = "SELECT t.id, c.text FROM input t LEFT JOIN country c ON c.code = t.id AND t.name = c.kind";
    let bound = bind(sql, &lookup).unwrap();
    let made = bound.run(&sample(), &BooleanArray::from(vec![false; 3]), &bound.freeze().unwrap()).unwrap();
    let texts: Vec<Option<&str>> = made.columns[1].as_string::<i32>().iter().collect();
    assert_eq!(texts, [None, Some("both"), None]);
}

#[test]
fn two_items_with_one_key_never_multiply_rows() {
    let twice = r#"[{"name": "India", "combined": "a"}, {"name": "India", "combined": "b"}]"#;
    let sql = "SELECT t.id, c.combined FROM input t LEFT JOIN country c ON t.Name = c.name";
    let joined = |extra: &str| {
        let lookup = country(extra);
        fill(&lookup, twice);
        run(&bind(sql, &lookup).unwrap(), &sample(), &[false; 3])
    };
    let said = joined("").unwrap_err().to_string();
    assert!(said.contains("item=name:India") && said.contains("duplicates"), "{said}");
    assert!(joined("duplicates = 'first'").unwrap().0.contains("| a "));
    assert!(joined("duplicates = 'last'").unwrap().0.contains("| b "));
}

#[test]
fn a_lookup_may_hold_rows_until_their_item_is_there() {
    let lookup = country("missing = 'hold'");
    fill(&lookup, COUNTRIES);
    let sql = "SELECT t.id, c.combined FROM input t LEFT JOIN country c ON t.Name = c.name";
    let bound = bind(sql, &lookup).unwrap();
    let chad = rows(&[7], &[Some("Chad")], &[None]);
    let error = run(&bound, &chad, &[false]).unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("lookup=country"), "{error}");
    fill(&lookup, r#"[{"name": "Chad", "combined": "TD-Chad"}]"#);
    assert!(run(&bound, &chad, &[false]).unwrap().0.contains("TD-Chad"));
    assert!(run(&bound, &rows(&[8], &[Some("Nowhere")], &[None]), &[true]).is_ok(), "deletes look for nothing");
}

#[test]
fn an_item_that_does_not_fit_names_lookup_item_and_attribute() {
    let lookup = country("columns = { name = 'string', code = 'int' }");
    let items: Vec<_> = serde_json::from_str(r#"[{"name": "India", "code": "ninety-one"}]"#).unwrap();
    let said = lookup.content_of(&items).unwrap_err().to_string();
    assert!(said.contains("lookup=country item=name:India attribute=code type=Int32"), "{said}");
}

#[test]
fn rows_that_fail_become_letters_and_the_others_are_made() {
    let lookup = country("missing = 'dead_letter'");
    fill(&lookup, COUNTRIES);
    let make = |sql: &str| {
        let transform: Transform = sql.parse().unwrap();
        let mut transform = transform.with_on_error(OnError::DeadLetter);
        transform.attach(&BTreeMap::from([("country".to_owned(), lookup.clone())])).unwrap();
        transform.bind(&input(), &["id".to_owned()], &["_position"]).unwrap()
    };
    let failed = |bound: &BoundTransform, rows: &RecordBatch, deletes: &[bool]| {
        let made = bound.run(rows, &BooleanArray::from(deletes.to_vec()), &bound.freeze().unwrap()).unwrap();
        let failed: Vec<_> = made.failed.iter().map(|f| format!("{} {} {}", f.row, f.column, f.reason)).collect();
        (failed, made.is_delete.iter().flatten().collect::<Vec<_>>(), made.dropped)
    };
    let ids: Vec<i32> = (0..9).collect();
    let names: Vec<Option<&str>> = ["1", "x", "3", "4", "y", "z", "7", "8", "w"].into_iter().map(Some).collect();
    let prices: Vec<Option<i32>> = [1, 1, 0, 1, 0, 1, 1, -1, 1].into_iter().map(Some).collect();
    let bound = make("SELECT id, CAST(Name AS INT) AS n, 12 / price AS d FROM input WHERE price >= 0");
    let (found, is_delete, dropped) =
        failed(&bound, &rows(&ids, &names, &prices), &[false, false, false, false, false, false, false, false, true]);
    let cast = "a value can't be cast to the type";
    assert_eq!(found, [format!("1 n {cast}"), "2 d division by zero".into(), format!("4 n {cast}"), format!("5 n {cast}")]);
    assert_eq!((is_delete, dropped), (vec![false, true, true, false, true, true, false, true, true], 1));
    // in WHERE, in a join's key, and without an item
    let bound = make("SELECT id FROM input WHERE CAST(Name AS INT) > 3");
    let (found, is_delete, dropped) = failed(&bound, &rows(&ids, &names, &prices), &[false; 9]);
    assert_eq!((found.len(), dropped, is_delete.iter().filter(|gone| !**gone).count()), (4, 2, 3));
    let bound = make("SELECT id, c.combined FROM input t LEFT JOIN country c ON CAST(t.Name AS INT) = c.code");
    let (found, ..) = failed(&bound, &rows(&[1, 2, 3, 4], &[Some("91"), Some("x"), Some("7"), None], &[None; 4]), &[false; 4]);
    assert_eq!(found, [format!("1 country.code {cast}"), "2 country.code the lookup `country` has no item for it".into()]);
    // all of them, and none
    let (found, is_delete, _) = failed(&bound, &rows(&[1, 2], &[Some("x"), Some("y")], &[None; 2]), &[false; 2]);
    assert_eq!((found.len(), is_delete), (2, vec![true, true]));
    let source = make("SELECT id, CAST(Name AS INT) AS n FROM input").source_rows(&rows(&ids, &names, &prices)).unwrap().unwrap();
    assert_eq!(source.num_rows(), 5, "verify leaves out what is a dead letter");
}

#[test]
fn rows_of_the_table_are_joined_anew() {
    let lookup = country("on_change = 'reapply'");
    fill(&lookup, COUNTRIES);
    let bound = bind(
        "SELECT id, t.Name AS place, price * 2 AS twice, c.combined, t.Name || c.code AS x FROM input t LEFT JOIN country c ON t.Name = c.name",
        &lookup,
    );
    let bound = bound.unwrap();
    assert_eq!(bound.reapply_reads().into_iter().collect::<Vec<_>>(), ["combined", "place", "x"]);
    let text = |values: &[Option<&str>]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    let of_table = RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int32Array::from(vec![1, 2, 3])) as ArrayRef, false),
        ("place", text(&[Some("India"), Some("Peru"), None]), true),
        ("combined", text(&[Some("IN-India"), Some("old"), None]), true),
        ("x", text(&[Some("India91"), Some("Peru51"), None]), true),
    ])
    .unwrap();
    let before = bound.freeze().unwrap();
    let made = bound.reapplied(&of_table, &before).unwrap();
    assert_eq!(made.is_changed, BooleanArray::from(vec![false, true, false]));
    assert_eq!(made.columns[0].1.as_string::<i32>().value(1), "PE-Peru");
    // other items, another mark; the same in another order, the same mark
    let marks = bound.marks(&before);
    fill(&lookup, &COUNTRIES.replace("51", "52"));
    assert_ne!(bound.marks(&bound.freeze().unwrap()), marks);
    let made = bound.reapplied(&of_table, &bound.freeze().unwrap()).unwrap();
    assert_eq!(made.columns[1].1.as_string::<i32>().value(1), "Peru52");
    let turned = r#"[{"name": "Peru", "combined": "PE-Peru", "code": 51}, {"name": "India", "combined": "IN-India", "code": 91}]"#;
    fill(&lookup, turned);
    assert_eq!(bound.marks(&bound.freeze().unwrap()), marks);
    for (sql, said) in [
        ("SELECT id, c.combined FROM input t LEFT JOIN country c ON t.Name = c.name", "it needs the column `Name`"),
        (
            "SELECT id, t.Name, c.code * t.price AS x FROM input t LEFT JOIN country c ON t.Name = c.name",
            "it needs the column `price`",
        ),
        ("SELECT t.* FROM input t LEFT JOIN country c ON t.Name = c.name WHERE c.code > 1", "WHERE reads a lookup"),
    ] {
        let error = bind(sql, &lookup).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn functions_that_stand_for_other_expressions_work() {
    let bound = bound(
        "SELECT id, COALESCE(TRY_CAST(Name AS INT), price, -1) AS n, NVL2(Name, 'yes', 'no') AS there, NULLIF(price, 0) AS z FROM input",
    );
    let (text, _) = run(&bound, &rows(&[1, 2, 3], &[Some("7"), Some("x"), None], &[Some(1), Some(0), None]), &[false; 3]).unwrap();
    insta::assert_snapshot!(text, @r"
    +----+----+-------+---+
    | id | n  | there | z |
    +----+----+-------+---+
    | 1  | 7  | yes   | 1 |
    | 2  | 0  | yes   |   |
    | 3  | -1 | no    |   |
    +----+----+-------+---+
    ");
}
