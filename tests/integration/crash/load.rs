//! A load whose transactions keep sums and counts: whoever sees half of one sees a wrong sum.
//!
//! | table    | key                  | each transaction keeps                                   |
//! |----------|----------------------|----------------------------------------------------------|
//! | accounts | id                   | the sum of balances, and the number of rows              |
//! | ledger   | AUTO_INCREMENT       | the sum of amounts (0); balance = start + its amounts    |
//! | words    | a string             | the number of rows, though keys change and rows come and go |
//! | stock    | (warehouse, item)    | the sum of quantities                                    |
//! | orders   | id, by month(placed) | the number of rows, though rows move between partitions  |

use crate::lake::{LakeTable, Values};
use crate::mysql::Client;
use crate::random::Random;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;

pub(crate) const TABLES: [&str; 5] = ["accounts", "ledger", "words", "stock", "orders"];

const ACCOUNTS: u64 = 100;
const START: i64 = 1000;
const WORDS: u64 = 300;
const STOCK: u64 = 200;
const ORDERS: u64 = 150;

/// Makes the tables and their first rows, in the database that the connection uses.
pub(crate) async fn create(client: &mut Client) {
    client
        .run_all(
            "CREATE TABLE accounts (id INT PRIMARY KEY, balance BIGINT NOT NULL, note VARCHAR(100));
             CREATE TABLE ledger (id BIGINT AUTO_INCREMENT PRIMARY KEY, account INT NOT NULL, amount BIGINT NOT NULL, booked DATETIME NOT NULL);
             CREATE TABLE words (word VARCHAR(60) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PRIMARY KEY, uses INT, text TEXT);
             CREATE TABLE stock (warehouse SMALLINT UNSIGNED, item VARCHAR(20) COLLATE utf8mb4_bin, quantity DECIMAL(18,3) NOT NULL, PRIMARY KEY (warehouse, item));
             CREATE TABLE orders (id INT PRIMARY KEY, placed DATETIME NOT NULL, price DECIMAL(10,2), state ENUM('new','paid','sent'))",
        )
        .await;
    let rows = |count: u64, row: &dyn Fn(u64) -> String| (0..count).map(row).collect::<Vec<_>>().join(",");
    client.run(&format!("INSERT INTO accounts VALUES {}", rows(ACCOUNTS, &|i| format!("({i},{START},NULL)")))).await;
    client.run(&format!("INSERT INTO words VALUES {}", rows(WORDS, &|i| format!("('wört-{i}',0,'first')")))).await;
    client.run(&format!("INSERT INTO stock VALUES {}", rows(STOCK, &|i| format!("({},'item {}',100.125)", i % 5, i / 5)))).await;
    client
        .run(&format!("INSERT INTO orders VALUES {}", rows(ORDERS, &|i| format!("({i},'2026-0{}-15',9.99,'new')", i % 9 + 1))))
        .await;
}

/// Runs random transactions until `stop`, with a pause before each; `committed` counts them.
pub(crate) async fn run(
    mut client: Client,
    mut random: Random,
    committed: watch::Sender<u64>,
    stop: Arc<AtomicBool>,
    pause: Duration,
) {
    let mut fresh = WORDS;
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(pause).await;
        client.run("BEGIN").await;
        for _ in 0..=random.below(3) {
            fresh += 1;
            for statement in step(&mut random, fresh) {
                client.run(&statement).await;
            }
        }
        if random.below(20) == 0 {
            client.run("ROLLBACK").await;
        } else {
            client.run("COMMIT").await;
        }
        committed.send_modify(|count| *count += 1);
    }
}

/// A few statements that together keep every sum.
fn step(random: &mut Random, fresh: u64) -> Vec<String> {
    match random.below(8) {
        0..=2 => {
            let (from, amount) = (random.below(ACCOUNTS), random.below(500));
            let to = (from + 1 + random.below(ACCOUNTS - 1)) % ACCOUNTS;
            let book = |account, sign| {
                format!("INSERT INTO ledger (account, amount, booked) VALUES ({account}, {sign}{amount}, UTC_TIMESTAMP())")
            };
            vec![
                format!("UPDATE accounts SET balance = balance - {amount}, note = 'to {to}' WHERE id = {from}"),
                book(from, "-"),
                format!("UPDATE accounts SET balance = balance + {amount}, note = NULL WHERE id = {to}"),
                book(to, ""),
            ]
        }
        // A row goes and another comes, or its key changes.
        3 => vec![
            format!("INSERT INTO words VALUES ('ünïcödé-{fresh}', {fresh}, REPEAT('x', {}))", random.below(200)),
            format!("DELETE FROM words WHERE word <> 'ünïcödé-{fresh}' ORDER BY uses LIMIT 1"),
        ],
        4 => vec![format!("UPDATE words SET word = '{fresh}-😀', uses = uses + 1 ORDER BY uses, word LIMIT 1")],
        // Quantities move; a key may change.
        5 => {
            let (warehouse, other) = (random.below(5), random.below(5));
            vec![
                format!("UPDATE stock SET quantity = quantity - 0.125 WHERE warehouse = {warehouse} ORDER BY item LIMIT 1"),
                format!("UPDATE stock SET quantity = quantity + 0.125 WHERE warehouse = {warehouse} ORDER BY item LIMIT 1"),
                format!("INSERT INTO stock VALUES ({other}, 'new {fresh}', 0)"),
                format!("DELETE FROM stock WHERE quantity = 0 AND item <> 'new {fresh}' LIMIT 1"),
            ]
        }
        6 => vec![format!("UPDATE stock SET item = 'moved {fresh}', warehouse = (warehouse + 1) % 5 ORDER BY item DESC LIMIT 1")],
        // Orders move between the partitions; REPLACE is a delete and an insert.
        _ => {
            let (id, month) = (random.below(ORDERS), random.below(9) + 1);
            vec![
                format!("UPDATE orders SET placed = '2026-0{month}-01 12:00:00', state = 'paid' WHERE id = {id}"),
                format!("REPLACE INTO orders VALUES ({}, '2026-10-10', {fresh}.5, 'sent')", random.below(ORDERS)),
            ]
        }
    }
}

fn number(text: Option<&String>) -> i64 {
    text.unwrap().parse().unwrap()
}

/// A decimal with three digits after the point, in thousandths.
fn thousandths(text: Option<&String>) -> i64 {
    number(Some(&text.unwrap().replacen('.', "", 1)))
}

fn column(rows: &[Values], index: usize) -> impl Iterator<Item = Option<&String>> {
    rows.iter().map(move |row| row[index].as_ref())
}

/// What is wrong with the table `name` as it was at `instant`; `None`: nothing.
pub(crate) fn fault(table: &LakeTable, name: &str, instant: &str) -> Option<String> {
    let mut keys = table.record_keys(Some(instant));
    let count = keys.len() as u64;
    keys.sort();
    keys.dedup();
    if keys.len() as u64 != count {
        return Some(format!("{} keys are there twice", count - keys.len() as u64));
    }
    let rows = |columns: &[&str]| table.values(Some(instant), columns).unwrap();
    let (found, expected) = match name {
        "accounts" if count == ACCOUNTS => (column(&rows(&["balance"]), 0).map(number).sum(), START * ACCOUNTS as i64),
        "ledger" => (column(&rows(&["amount"]), 0).map(number).sum(), 0),
        "words" => (count as i64, WORDS as i64),
        "stock" => (column(&rows(&["quantity"]), 0).map(thousandths).sum(), 100_125 * STOCK as i64),
        "accounts" | "orders" => (count as i64, if name == "orders" { ORDERS } else { ACCOUNTS } as i64),
        _ => unreachable!("no such table"),
    };
    (found != expected).then(|| format!("{found} instead of {expected}, in {count} rows"))
}

/// What is wrong between the two tables at two commits of one cut: each balance is the start and what the ledger says.
pub(crate) fn fault_between(accounts: &LakeTable, at: &str, ledger: &LakeTable, ledger_at: &str) -> Option<String> {
    let mut balances = vec![START; ACCOUNTS as usize];
    for row in ledger.values(Some(ledger_at), &["account", "amount"]).unwrap() {
        balances[number(row[0].as_ref()) as usize] += number(row[1].as_ref());
    }
    let rows = accounts.values(Some(at), &["id", "balance"]).unwrap();
    let wrong = rows.iter().find(|row| balances[number(row[0].as_ref()) as usize] != number(row[1].as_ref()))?;
    Some(format!("account {:?} has {:?}, not what the ledger says", wrong[0], wrong[1]))
}
