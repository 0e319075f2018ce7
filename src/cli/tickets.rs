//! The tickets workload: tickets of sport events are bought, repriced and returned.

use super::workload::{Dice, Load, Made, Turn, Turns, Workload};
use crate::error::Result;
use crate::source::source_error;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Rows of one INSERT of the initial load.
const LOAD_ROWS: u64 = 1_000;

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

/// The table in a database.
#[derive(Debug, Clone)]
pub(super) struct Tickets {
    table: String,
}

impl Workload for Tickets {
    async fn create(conn: &mut Conn, database: &str) -> Result<(Self, u64)> {
        let failed = |error| source_error(error, "the workload's table can't be made");
        let database = format!("`{}`", database.replace('`', "``"));
        let table = format!("{database}.ticket_activity");
        conn.query_drop(format!("CREATE DATABASE IF NOT EXISTS {database}")).await.map_err(failed)?;
        conn.query_drop(format!("CREATE TABLE IF NOT EXISTS {table} ({COLUMNS})")).await.map_err(failed)?;
        let last: Option<Option<u64>> =
            conn.query_first(format!("SELECT MAX(ticketactivity_id) FROM {table}")).await.map_err(failed)?;
        Ok((Self { table }, last.flatten().unwrap_or(0)))
    }

    async fn load(&self, conn: &mut Conn, first_id: u64, rows: u64, bought_within: Duration, made: &Made) -> Result<()> {
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

    async fn transaction(
        &self,
        conn: &mut Conn,
        load: Load,
        turns: &mut Turns,
        (due, last_id): (u64, u64),
        made: &Made,
    ) -> Result<u64> {
        let failed = |error| source_error(error, "the workload's load fails");
        let (mut inserts, mut changes) = (0, Vec::new());
        for _ in 0..due {
            match turns.next(&load, last_id) {
                Turn::Insert => inserts += 1,
                turn => changes.push((turns.own_id(&load, last_id), turn == Turn::Update)),
            }
        }
        // in one order in all transactions
        changes.sort_unstable();
        conn.query_drop("START TRANSACTION").await.map_err(failed)?;
        if inserts > 0 {
            conn.query_drop(self.insert(&mut turns.dice, inserts, None, 1)).await.map_err(failed)?;
            made.inserted.fetch_add(inserts, Ordering::Relaxed);
        }
        for (id, is_update) in changes {
            let (sql, count) = if is_update {
                let price = 20 + turns.dice.below(480);
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
}

impl Tickets {
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
    fn rows_are_the_same_in_each_run_and_quoted_well() {
        let tickets = Tickets { table: "`sports`.ticket_activity".into() };
        let sql = |state| tickets.insert(&mut Dice { state }, 3, Some(7), 43_200);
        assert_eq!(sql(1), sql(1));
        assert_ne!(sql(1), sql(2));
        assert!(sql(1).starts_with("INSERT INTO `sports`.ticket_activity (ticketactivity_id, sport_type, "), "{}", sql(1));
        assert_eq!(sql(1).matches('\'').count(), 3 * 6 * 2);
    }
}
