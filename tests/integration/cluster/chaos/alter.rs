//! A second load: tables that are altered, emptied and made while it runs, and counters whose every step is an event.
//!
//! `steps(id, n)`: each change raises `n` by one, so that whoever reads a key's events sees whether one is missing or came too early.

use crate::mysql::Client;
use crate::random::Random;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The keys of `steps`.
pub(super) const STEPS: u64 = 12;
/// Each column that is added rewrites the table at each of its defaults: there is an end to it.
const MOST_COLUMNS: u64 = 12;
const MOST_TABLES: u64 = 5;

/// Makes the tables, in the database that the connection uses.
pub(super) async fn create(client: &mut Client) {
    client
        .run_all(
            "CREATE TABLE steps (id INT PRIMARY KEY, n INT NOT NULL);
             CREATE TABLE extras (id INT AUTO_INCREMENT PRIMARY KEY, amount INT, name VARCHAR(20))",
        )
        .await;
    let rows: Vec<String> = (0..STEPS).map(|id| format!("({id}, 0)")).collect();
    client.run(&format!("INSERT INTO steps VALUES {}", rows.join(","))).await;
}

/// Goes on until `stop`.
pub(super) async fn run(mut client: Client, mut random: Random, stop: Arc<AtomicBool>, pause: Duration) {
    let (mut columns, mut tables) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(pause).await;
        client.run("BEGIN").await;
        for _ in 0..=random.below(3) {
            client.run(&format!("UPDATE steps SET n = n + 1 WHERE id = {}", random.below(STEPS))).await;
        }
        client.run(if random.below(15) == 0 { "ROLLBACK" } else { "COMMIT" }).await;
        match random.below(120) {
            0..=40 => client.run("INSERT INTO extras (amount, name) VALUES (1, 'eins'), (2, NULL)").await,
            41..=60 => client.run("UPDATE extras SET amount = amount + 1 ORDER BY id DESC LIMIT 3").await,
            61..=70 => client.run("DELETE FROM extras ORDER BY id LIMIT 2").await,
            71 => client.run("TRUNCATE TABLE extras").await,
            72 => client.run("ALTER TABLE extras MODIFY amount BIGINT").await,
            73 if columns < MOST_COLUMNS => {
                columns += 1;
                let definition = match columns % 3 {
                    0 => format!("added_{columns} VARCHAR(20)"),
                    1 => format!("added_{columns} INT NOT NULL DEFAULT {columns}"),
                    _ => format!("added_{columns} DATETIME DEFAULT '2026-01-01 00:00:00' AFTER id"),
                };
                client.run(&format!("ALTER TABLE extras ADD COLUMN {definition}")).await;
            }
            74 if tables < MOST_TABLES => {
                tables += 1;
                client.run(&format!("CREATE TABLE late_{tables} (id INT PRIMARY KEY, made TIMESTAMP(6) NULL)")).await;
                client.run(&format!("INSERT INTO late_{tables} VALUES (1, UTC_TIMESTAMP(6)), (2, NULL)")).await;
            }
            75..=80 if tables > 0 => {
                let (table, id) = (1 + random.below(tables), random.below(1000));
                client.run(&format!("REPLACE INTO late_{table} VALUES ({id}, UTC_TIMESTAMP(6))")).await;
            }
            _ => {}
        }
    }
}
