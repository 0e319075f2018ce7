//! The tickets workload: tickets of sport events are bought, repriced and returned.

use crate::error::Result;
use crate::source::source_error;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// Rows of one INSERT of the initial load.
const LOAD_ROWS: u64 = 1_000;
/// Rows of one INSERT, or changes of one transaction, at most, whatever is due.
const MOST_ROWS: u64 = 1_000;
/// How often the load gives the server a transaction, at least.
const TICK: Duration = Duration::from_millis(100);

const COLUMNS: &str = "ticketactivity_id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, sport_type VARCHAR(256) NOT NULL, start_date DATETIME NOT NULL, \
    location VARCHAR(256) NOT NULL, seat_level VARCHAR(256) NOT NULL, seat_location VARCHAR(256) NOT NULL, ticket_price INT NOT NULL, \
    customer_name VARCHAR(256) NOT NULL, email_address VARCHAR(256) NOT NULL, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL";
const NAMES: &str = "sport_type, start_date, location, seat_level, seat_location, ticket_price, customer_name, email_address, created_at, updated_at";

const SPORTS: [&str; 7] = ["baseball", "basketball", "football", "ice hockey", "soccer", "tennis", "volleyball"];
const PLACES: [&str; 8] = [
    "Boston, Fenway Park",
    "Chicago, United Center",
    "Dallas, AT&T Stadium",
    "Los Angeles, Dodger Stadium",
    "Montréal, Centre Bell",
    "München, Allianz Arena",
    "New York, Madison Square Garden",
    "Seattle, Lumen Field",
];
const LEVELS: [&str; 4] = ["Club", "Luxury", "Premium", "Standard"];
const FIRST_NAMES: [&str; 16] =
    ["Ada", "Ben", "Chloé", "Dai", "Elif", "Femi", "Gus", "Hana", "Ivo", "Jana", "Kai", "Lea", "Max", "Nina", "Otto", "Pia"];
const LAST_NAMES: [&str; 12] =
    ["Arias", "Baker", "Çelik", "Diaz", "Evans", "Fischer", "Garcia", "Haas", "Ito", "Jones", "Kovač", "Lopez"];

/// Shares of a load's changes, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mix {
    inserts: u64,
    updates: u64,
    deletes: u64,
}

impl Default for Mix {
    /// Six of ten changes are new tickets, three another price, one a return.
    fn default() -> Self {
        Self { inserts: 60, updates: 30, deletes: 10 }
    }
}

impl std::str::FromStr for Mix {
    type Err = String;

    /// Reads `60/30/10`.
    fn from_str(text: &str) -> Result<Self, String> {
        let shares: Option<Vec<u64>> = text.split('/').map(|share| share.trim().parse().ok()).collect();
        match shares.as_deref() {
            Some(&[inserts, updates, deletes]) if inserts + updates + deletes == 100 => Ok(Self { inserts, updates, deletes }),
            _ => Err(format!("`{text}` is not a mix; write the percent of inserts, updates and deletes, 100 in all: 60/30/10")),
        }
    }
}

/// Changes made so far.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// Rows inserted.
    pub(super) inserted: AtomicU64,
    /// Rows updated.
    pub(super) updated: AtomicU64,
    /// Rows deleted.
    pub(super) deleted: AtomicU64,
}

impl Made {
    /// All of them.
    pub(super) fn changes(&self) -> u64 {
        [&self.inserted, &self.updated, &self.deleted].iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// A steady load on one of several connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Row changes a second, of this connection.
    pub(super) rate: f64,
    /// What they are.
    pub(super) mix: Mix,
    /// Changes of one transaction, at most.
    pub(super) transaction_rows: u64,
    /// This connection, counted from 0. It updates and deletes rows of its own, so that none waits for another.
    pub(super) connection: u64,
    /// All connections.
    pub(super) connections: u64,
}

/// The table in a database.
#[derive(Debug, Clone)]
pub(super) struct Tickets {
    table: String,
}

/// Random enough, and the same in each run.
#[derive(Debug)]
struct Dice {
    state: u64,
}

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_add(1);
        xxh3_64(&self.state.to_le_bytes()) % end.max(1)
    }

    fn choose<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words.get(self.below(words.len() as u64) as usize).copied().unwrap_or_default()
    }
}

impl Tickets {
    /// Makes database and table where they don't exist; returns the largest id.
    pub(super) async fn create(conn: &mut Conn, database: &str) -> Result<(Self, u64)> {
        let failed = |error| source_error(error, "the workload's table can't be made");
        let database = format!("`{}`", database.replace('`', "``"));
        let table = format!("{database}.ticket_activity");
        conn.query_drop(format!("CREATE DATABASE IF NOT EXISTS {database}")).await.map_err(failed)?;
        conn.query_drop(format!("CREATE TABLE IF NOT EXISTS {table} ({COLUMNS})")).await.map_err(failed)?;
        let last: Option<Option<u64>> =
            conn.query_first(format!("SELECT MAX(ticketactivity_id) FROM {table}")).await.map_err(failed)?;
        Ok((Self { table }, last.flatten().unwrap_or(0)))
    }

    /// Inserts the tickets `first_id..first_id + rows`, bought within the last `bought_within`.
    pub(super) async fn load(&self, conn: &mut Conn, first_id: u64, rows: u64, bought_within: Duration, made: &Made) -> Result<()> {
        let mut dice = Dice { state: first_id << 8 };
        let mut next = first_id;
        while next < first_id + rows {
            let some = LOAD_ROWS.min(first_id + rows - next);
            let sql = self.insert(&mut dice, some, Some(next), bought_within.as_secs() / 60);
            conn.query_drop(sql).await.map_err(|error| source_error(error, "the workload's rows can't be inserted"))?;
            made.inserted.fetch_add(some, Ordering::Relaxed);
            next += some;
        }
        Ok(())
    }

    /// Changes rows for ever. `last_id` is the largest id at the start.
    pub(super) async fn run(&self, conn: &mut Conn, load: Load, last_id: u64, made: &Made) -> Result<()> {
        let mut dice = Dice { state: (last_id + load.connection) << 8 };
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut last_id, mut owed) = (last_id, 0.0);
        let mut turn = load.connection;
        loop {
            let asked = ticks.tick().await;
            // what a slow server couldn't take isn't made up for in one go
            owed = f64::min(owed + load.rate * TICK.as_secs_f64(), load.rate.max(1.0));
            while owed >= 1.0 && asked.elapsed() < 5 * TICK {
                let due = (owed as u64).min(load.transaction_rows).clamp(1, MOST_ROWS);
                owed -= due as f64;
                last_id += self.transaction(conn, load, &mut dice, &mut turn, (due, last_id), made).await?;
            }
        }
    }

    /// One transaction of `due` changes; returns how many rows it inserted.
    async fn transaction(
        &self,
        conn: &mut Conn,
        load: Load,
        dice: &mut Dice,
        turn: &mut u64,
        (due, last_id): (u64, u64),
        made: &Made,
    ) -> Result<u64> {
        let failed = |error| source_error(error, "the workload's load fails");
        let (mut inserts, mut changes) = (0, Vec::new());
        for _ in 0..due {
            *turn += 1;
            // spread evenly, whatever the size of a transaction
            let share = *turn * 61 % 100;
            if share < load.mix.inserts || last_id < load.connections {
                inserts += 1;
                continue;
            }
            let id = 1 + dice.below(last_id);
            let id = (id - id % load.connections + load.connection).clamp(1, last_id);
            changes.push((id, share < load.mix.inserts + load.mix.updates));
        }
        // in one order in all transactions
        changes.sort_unstable();
        conn.query_drop("START TRANSACTION").await.map_err(failed)?;
        if inserts > 0 {
            conn.query_drop(self.insert(dice, inserts, None, 1)).await.map_err(failed)?;
            made.inserted.fetch_add(inserts, Ordering::Relaxed);
        }
        for (id, is_update) in changes {
            let (sql, count) = if is_update {
                let price = 20 + dice.below(480);
                (
                    format!("UPDATE {} SET ticket_price = {price}, updated_at = NOW() WHERE ticketactivity_id = {id}", self.table),
                    &made.updated,
                )
            } else {
                (format!("DELETE FROM {} WHERE ticketactivity_id = {id}", self.table), &made.deleted)
            };
            conn.query_drop(sql).await.map_err(failed)?;
            count.fetch_add(conn.affected_rows(), Ordering::Relaxed);
        }
        conn.query_drop("COMMIT").await.map_err(failed)?;
        Ok(inserts)
    }

    /// An INSERT of tickets bought within the last `minutes`; ids from `first_id` on, else the server's.
    fn insert(&self, dice: &mut Dice, rows: u64, first_id: Option<u64>, minutes: u64) -> String {
        let mut sql = String::with_capacity(200 + rows as usize * 220);
        let id = if first_id.is_some() { "ticketactivity_id, " } else { "" };
        let _ = write!(sql, "INSERT INTO {} ({id}{NAMES}) VALUES ", self.table);
        for row in 0..rows {
            sql.push_str(if row == 0 { "(" } else { ", (" });
            if let Some(first) = first_id {
                // writing to a String doesn't fail
                let _ = write!(sql, "{}, ", first + row);
            }
            let (first, last) = (dice.choose(&FIRST_NAMES), dice.choose(&LAST_NAMES));
            let ago = bought(dice, minutes);
            let _ = write!(
                sql,
                "'{sport}', NOW() + INTERVAL {hours} HOUR, '{place}', '{level}', '{block}-{line}-{seat}', {price}, '{first} {last}', \
                 '{}.{}{number}@example.com', NOW() - INTERVAL {ago} MINUTE, NOW() - INTERVAL {ago} MINUTE)",
                first.to_lowercase().replace('é', "e"),
                last.to_lowercase().replace(['ç', 'č'], "c"),
                sport = dice.choose(&SPORTS),
                hours = 24 + dice.below(300 * 24),
                place = dice.choose(&PLACES),
                level = dice.choose(&LEVELS),
                block = char::from(b'A' + dice.below(8) as u8),
                line = 1 + dice.below(60),
                seat = 1 + dice.below(400),
                price = 20 + dice.below(880),
                number = dice.below(1_000_000),
            );
        }
        sql
    }
}

/// Minutes ago, below `minutes`: people buy more by day than by night.
fn bought(dice: &mut Dice, minutes: u64) -> u64 {
    let ago = dice.below(minutes);
    if minutes < 24 * 60 {
        return ago;
    }
    let hour = ago / 60 % 24;
    // the hours around twelve hours ago are thinned out
    if (8..16).contains(&hour) && dice.below(10) < 7 { dice.below(minutes) } else { ago }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes() {
        assert_eq!("60/30/10".parse(), Ok(Mix { inserts: 60, updates: 30, deletes: 10 }));
        for wrong in ["60/30", "60/30/20", "a/b/c", "100"] {
            assert!(wrong.parse::<Mix>().unwrap_err().contains("60/30/10"), "{wrong}");
        }
    }

    #[test]
    fn rows_are_the_same_in_each_run_and_quoted_well() {
        let tickets = Tickets { table: "`sports`.ticket_activity".into() };
        let sql = |state| tickets.insert(&mut Dice { state }, 3, Some(7), 43_200);
        assert_eq!(sql(1), sql(1));
        assert_ne!(sql(1), sql(2));
        assert!(sql(1).starts_with("INSERT INTO `sports`.ticket_activity (ticketactivity_id, sport_type, "), "{}", sql(1));
        assert_eq!(sql(1).matches('\'').count(), 3 * 6 * 2);
    }
}
