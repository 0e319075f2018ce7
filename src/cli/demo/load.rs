//! The demo's load: tickets are bought, repriced and returned at a steady rate.

use super::server::failed;
use crate::error::Result;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// Rows of one INSERT of the initial load.
const LOAD_ROWS: u64 = 1_000;
/// How often the load gives the server a transaction.
const TICK: Duration = Duration::from_millis(100);

const CREATE: &str = "CREATE TABLE sports.ticket_activity (ticketactivity_id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, \
    sport_type VARCHAR(256) NOT NULL, start_date DATETIME NOT NULL, location VARCHAR(256) NOT NULL, seat_level VARCHAR(256) NOT NULL, \
    seat_location VARCHAR(256) NOT NULL, ticket_price INT NOT NULL, customer_name VARCHAR(256) NOT NULL, email_address VARCHAR(256) NOT NULL, \
    created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL)";
const INSERT: &str = "INSERT INTO sports.ticket_activity (sport_type, start_date, location, seat_level, seat_location, ticket_price, \
    customer_name, email_address, created_at, updated_at) VALUES ";

/// Changes made so far; shared with the screen.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// Rows inserted, updated and deleted since the load began.
    pub(super) changes: AtomicU64,
}

/// Random enough, and the same in each run.
#[derive(Debug)]
struct Dice {
    state: u64,
}

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.state += 1;
        xxh3_64(&self.state.to_le_bytes()) % end.max(1)
    }

    fn choose<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words.get(self.below(words.len() as u64) as usize).copied().unwrap_or_default()
    }
}

/// Makes the table with `rows` tickets of the last day; `progress` is told how many there are.
pub(super) async fn prepare(connection: &mut Conn, rows: u64, mut progress: impl FnMut(u64)) -> Result<()> {
    let drop_failed = |error| failed("the demo's table can't be made", error);
    connection.query_drop("CREATE DATABASE sports").await.map_err(drop_failed)?;
    connection.query_drop(CREATE).await.map_err(drop_failed)?;
    let mut dice = Dice { state: 0 };
    let mut done = 0;
    while done < rows {
        let some = LOAD_ROWS.min(rows - done);
        let minutes_ago = |dice: &mut Dice| dice.below(24 * 60);
        connection.query_drop(insert(&mut dice, some, minutes_ago)).await.map_err(drop_failed)?;
        done += some;
        progress(done);
    }
    Ok(())
}

fn insert(dice: &mut Dice, rows: u64, minutes_ago: impl Fn(&mut Dice) -> u64) -> String {
    let mut sql = String::from(INSERT);
    for row in 0..rows {
        let (minutes, days) = (minutes_ago(dice), dice.below(300));
        let name = format!(
            "{} {}",
            dice.choose(&["Ada", "Ben", "Chloé", "Dai", "Elif", "Femi"]),
            dice.choose(&["Arias", "Baker", "Çelik", "Diaz"])
        );
        // writing to a String doesn't fail
        let _ = write!(
            sql,
            "{comma}('{sport}', NOW() + INTERVAL {days} DAY, '{location}', '{level}', '{row}-{seat}', {price}, '{name}', 'c{id}@example.com', \
             NOW() - INTERVAL {minutes} MINUTE, NOW())",
            comma = if row == 0 { "" } else { ", " },
            sport = dice.choose(&["baseball", "basketball", "football", "hockey", "tennis"]),
            location = dice.choose(&["Boston", "Chicago", "Denver", "Houston", "Miami", "Seattle"]),
            level = dice.choose(&["Premium", "Standard", "Upper"]),
            seat = dice.below(900),
            price = 20 + dice.below(480),
            id = dice.below(1_000_000),
        );
    }
    sql
}

/// Changes rows at `rate` a second for ever: six of ten are new tickets, three get another price, one is returned.
pub(super) async fn run(mut connection: Conn, rate: u64, rows: u64, made: &Made) -> Result<()> {
    let mut dice = Dice { state: rows };
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut last_id, mut owed) = (rows, 0.0);
    loop {
        ticks.tick().await;
        owed += rate as f64 * TICK.as_secs_f64();
        let due = owed as u64;
        owed -= due as f64;
        if due == 0 {
            continue;
        }
        let (updates, deletes) = (due * 3 / 10, due / 10);
        let inserts = due - updates - deletes;
        let mut statements = vec!["START TRANSACTION".to_owned()];
        if inserts > 0 {
            statements.push(insert(&mut dice, inserts, |_| 0));
        }
        for i in 0..updates + deletes {
            let id = 1 + dice.below(last_id);
            statements.push(match i < updates {
                true => format!(
                    "UPDATE sports.ticket_activity SET ticket_price = {}, updated_at = NOW() WHERE ticketactivity_id = {id}",
                    20 + dice.below(480)
                ),
                false => format!("DELETE FROM sports.ticket_activity WHERE ticketactivity_id = {id}"),
            });
        }
        statements.push("COMMIT".to_owned());
        let mut changed = 0;
        for statement in &statements {
            connection.query_drop(statement).await.map_err(|error| failed("the demo's load fails", error))?;
            changed += connection.affected_rows();
        }
        last_id += inserts;
        made.changes.fetch_add(changed, Ordering::Relaxed);
    }
}
