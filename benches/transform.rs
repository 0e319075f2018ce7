//! What a transform costs a row: `cargo bench --bench transform`.
//!
//! Batches of 16,384 ticket sales, as the fold gives them, go through a transform that passes all columns, one that computes, one that filters, and one that
//! joins a lookup, and one of which rows become dead letters; beside them what binding costs, which is done once for a shape of the table.

use arrow::array::{ArrayRef, BooleanArray, Int32Array, RecordBatch, StringArray};
use binlake::lookup::{Items, Lookup, LookupConfig, LookupUrl};
use binlake::transform::{OnError, Transform};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

const ROWS: usize = 16_384;
const BATCHES: usize = 64;

fn rows() -> RecordBatch {
    let ids = Int32Array::from_iter_values(0..ROWS as i32);
    let texts = |prefix: &str, kinds: usize| -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..ROWS).map(|i| format!("{prefix} {}", i * 7919 % kinds))))
    };
    RecordBatch::try_from_iter([
        ("id", Arc::new(ids) as ArrayRef),
        ("sport_type", texts("sport", 20)),
        ("location", texts("country", 200)),
        ("customer_name", texts("customer", 10_000)),
        ("email_address", texts("somebody@example.org", 10_000)),
        ("ticket_price", Arc::new(Int32Array::from_iter_values((0..ROWS as i32).map(|i| i % 500))) as ArrayRef),
    ])
    .expect("the columns have one length")
}

fn country() -> Arc<Lookup> {
    let config = LookupConfig::of(LookupUrl::File("country.csv".into()));
    let lookup = Lookup::new("country", config);
    let names = |prefix: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values((0..150).map(|i| format!("{prefix} {i}")))) };
    let items = RecordBatch::try_from_iter([("countryname", names("country")), ("combinedname", names("combined"))]);
    lookup.take(Items::Typed(items.expect("the columns have one length"))).expect("items are taken");
    Arc::new(lookup)
}

fn main() {
    let (rows, lookups) = (rows(), BTreeMap::from([("country".to_owned(), country())]));
    let is_delete = BooleanArray::from(vec![false; ROWS]);
    let cases = [
        ("all columns as they are", "SELECT * FROM input"),
        ("a sum and a text", "SELECT *, ticket_price * 2 AS twice, upper(sport_type) AS sport FROM input"),
        ("a mask and a hash", "SELECT *, mask(email_address, 4) AS masked, sha256_hex(customer_name) AS hashed FROM input"),
        ("a filter", "SELECT * FROM input WHERE ticket_price > 100"),
        ("a join", "SELECT t.*, c.combinedname FROM input t LEFT JOIN country c ON t.location = c.countryname"),
        ("a division that fails for 0.2 %", "SELECT *, 1000 / ticket_price AS share FROM input"),
    ];
    for (name, sql) in cases {
        let transform: Transform = sql.parse().expect("the transform is right");
        let mut transform = transform.with_on_error(OnError::DeadLetter);
        transform.attach(&lookups).expect("its lookup is known");
        let started = Instant::now();
        let bound = transform.bind(&rows.schema(), &["id".to_owned()], &[]).expect("it fits the table");
        let binding = started.elapsed();
        let frozen = bound.freeze().expect("the lookup was read");
        bound.run(&rows, &is_delete, &frozen).expect("it runs");
        let started = Instant::now();
        for _ in 0..BATCHES {
            bound.run(&rows, &is_delete, &frozen).expect("it runs");
        }
        let nanos = started.elapsed().as_nanos() / (ROWS * BATCHES) as u128;
        println!("{name:<32} {nanos:>6} ns a row   bound in {:.1} ms", binding.as_secs_f64() * 1e3);
    }
}
