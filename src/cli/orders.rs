//! The orders workload: orders and their lines, always changed in one transaction, so that an order's total is the sum of its lines at every moment.

use super::workload::{Dice, Load, Made, Turn, Turns, Workload};
use crate::error::Result;
use crate::source::source_error;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Orders of one transaction of the initial load.
const LOAD_ORDERS: u64 = 250;
/// Lines of an order, at most; three are usual.
const MOST_LINES: u64 = 5;

const ORDERS: &str = "order_id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, customer VARCHAR(80) NOT NULL, country CHAR(2) NOT NULL, \
    status ENUM('new','paid','shipped') NOT NULL, total DECIMAL(12,2) NOT NULL, placed_at DATETIME(3) NOT NULL, updated_at TIMESTAMP(6) NOT NULL";
const LINES: &str = "order_id BIGINT NOT NULL, line_no SMALLINT NOT NULL, product VARCHAR(80) NOT NULL, quantity INT NOT NULL, price DECIMAL(10,2) NOT NULL, \
    PRIMARY KEY (order_id, line_no)";

const CUSTOMERS: [&str; 12] = [
    "Ada Baker",
    "Björn Lund",
    "Chloé Diaz",
    "Dai Evans",
    "Elif Çelik",
    "Femi Haas",
    "Gus Ito",
    "Hana Jones",
    "Ivo Kovač",
    "Jana Lopez",
    "Kai Fischer",
    "Lea O''Neil",
];
const COUNTRIES: [&str; 6] = ["CA", "CN", "DE", "IN", "TR", "US"];
const PRODUCTS: [&str; 8] = ["ball", "boots", "cap", "gloves", "jersey", "racket", "scarf", "skates"];

/// The tables in a database.
#[derive(Debug, Clone)]
pub(super) struct Orders {
    database: String,
}

/// A line: product, quantity, price in cents.
type Line = (&'static str, u64, u64);

impl Workload for Orders {
    async fn create(conn: &mut Conn, database: &str) -> Result<(Self, u64)> {
        let failed = |error| source_error(error, "the workload's tables can't be made");
        let orders = Self { database: format!("`{}`", database.replace('`', "``")) };
        let database = &orders.database;
        conn.query_drop(format!("CREATE DATABASE IF NOT EXISTS {database}")).await.map_err(failed)?;
        conn.query_drop(format!("CREATE TABLE IF NOT EXISTS {database}.orders ({ORDERS})")).await.map_err(failed)?;
        conn.query_drop(format!("CREATE TABLE IF NOT EXISTS {database}.order_lines ({LINES})")).await.map_err(failed)?;
        let last: Option<Option<u64>> =
            conn.query_first(format!("SELECT MAX(order_id) FROM {database}.orders")).await.map_err(failed)?;
        Ok((orders, last.flatten().unwrap_or(0)))
    }

    async fn load(&self, conn: &mut Conn, first_id: u64, count: u64, within: Duration, made: &Made) -> Result<()> {
        let failed = |error| source_error(error, "the workload's rows can't be inserted");
        let mut dice = Dice { state: first_id << 8 };
        for first in (first_id..first_id + count).step_by(LOAD_ORDERS as usize) {
            let some = LOAD_ORDERS.min(first_id + count - first);
            let (mut orders, mut lines) = (String::new(), String::new());
            let mut rows = some;
            for id in first..first + some {
                let its = draw(&mut dice);
                rows += its.len() as u64;
                self.add(&mut orders, &mut lines, &id.to_string(), &its, &mut dice, within.as_secs());
            }
            for sql in ["START TRANSACTION", &orders, &lines, "COMMIT"] {
                conn.query_drop(sql).await.map_err(failed)?;
            }
            made.inserted.fetch_add(rows, Ordering::Relaxed);
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
        let (mut inserted, mut done, mut changes) = (0, 0, Vec::new());
        conn.query_drop("START TRANSACTION").await.map_err(failed)?;
        while done < due {
            match turns.next(&load, last_id) {
                Turn::Insert => {
                    let its = draw(&mut turns.dice);
                    let (mut order, mut lines) = (String::new(), String::new());
                    self.add(&mut order, &mut lines, "LAST_INSERT_ID()", &its, &mut turns.dice, 1);
                    // the server gives the id, and the lines take it
                    let order = order.replacen("(LAST_INSERT_ID(), ", "(NULL, ", 1);
                    conn.query_drop(order).await.map_err(failed)?;
                    conn.query_drop(lines).await.map_err(failed)?;
                    let rows = 1 + its.len() as u64;
                    made.inserted.fetch_add(rows, Ordering::Relaxed);
                    (inserted, done) = (inserted + 1, done + rows);
                }
                Turn::Update => {
                    changes.push((turns.own_id(&load, last_id), true));
                    done += 2;
                }
                Turn::Delete => {
                    changes.push((turns.own_id(&load, last_id), false));
                    done += 1 + MOST_LINES / 2;
                }
            }
        }
        // in one order in all transactions
        changes.sort_unstable();
        for (id, is_update) in changes {
            let (statements, count) = match is_update {
                true => (self.update(id, &mut turns.dice), &made.updated),
                false => (self.delete(id), &made.deleted),
            };
            for sql in statements {
                conn.query_drop(sql).await.map_err(failed)?;
                count.fetch_add(conn.affected_rows(), Ordering::Relaxed);
            }
        }
        conn.query_drop("COMMIT").await.map_err(failed)?;
        Ok(inserted)
    }
}

impl Orders {
    /// Adds an order and its lines to two INSERTs. `id` is SQL.
    fn add(&self, orders: &mut String, order_lines: &mut String, id: &str, its: &[Line], dice: &mut Dice, seconds: u64) {
        let database = &self.database;
        let total: u64 = its.iter().map(|(_, quantity, cents)| quantity * cents).sum();
        orders.push_str(&match orders.is_empty() {
            true => {
                format!("INSERT INTO {database}.orders (order_id, customer, country, status, total, placed_at, updated_at) VALUES ")
            }
            false => ", ".to_owned(),
        });
        // writing to a String doesn't fail
        let _ = write!(
            orders,
            "({id}, '{}', '{}', 'new', {}, NOW(3) - INTERVAL {} SECOND, NOW(6))",
            dice.choose(&CUSTOMERS),
            dice.choose(&COUNTRIES),
            money(total),
            dice.below(seconds),
        );
        for (line, (product, quantity, cents)) in (1..).zip(its) {
            order_lines.push_str(&match order_lines.is_empty() {
                true => format!("INSERT INTO {database}.order_lines (order_id, line_no, product, quantity, price) VALUES "),
                false => ", ".to_owned(),
            });
            let _ = write!(order_lines, "({id}, {line}, '{product}', {quantity}, {})", money(*cents));
        }
    }

    /// Another quantity, with the new total, or the order's next state.
    fn update(&self, id: u64, dice: &mut Dice) -> Vec<String> {
        let database = &self.database;
        if dice.below(3) == 0 {
            let status = dice.choose(&["paid", "shipped"]);
            return vec![format!("UPDATE {database}.orders SET status = '{status}', updated_at = NOW(6) WHERE order_id = {id}")];
        }
        let quantity = 1 + dice.below(9);
        vec![
            format!("UPDATE {database}.order_lines SET quantity = {quantity} WHERE order_id = {id} AND line_no = 1"),
            format!(
                "UPDATE {database}.orders SET updated_at = NOW(6), \
                 total = (SELECT SUM(quantity * price) FROM {database}.order_lines l WHERE l.order_id = {id}) WHERE order_id = {id}"
            ),
        ]
    }

    fn delete(&self, id: u64) -> Vec<String> {
        let delete = |table: &str| format!("DELETE FROM {}.{table} WHERE order_id = {id}", self.database);
        vec![delete("order_lines"), delete("orders")]
    }
}

/// An order's lines.
fn draw(dice: &mut Dice) -> Vec<Line> {
    let count = 1 + dice.below(MOST_LINES);
    (0..count).map(|_| (dice.choose(&PRODUCTS), 1 + dice.below(5), 100 + dice.below(20_000))).collect()
}

fn money(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orders_total_is_the_sum_of_its_lines() {
        let orders = Orders { database: "`shop`".into() };
        let (mut order, mut lines) = (String::new(), String::new());
        let its = [("ball", 2, 1050), ("cap", 1, 99)];
        orders.add(&mut order, &mut lines, "7", &its, &mut Dice { state: 1 }, 10);
        assert!(order.contains("(7, '") && order.contains("'new', 21.99, "), "{order}");
        assert!(lines.ends_with("(7, 1, 'ball', 2, 10.50), (7, 2, 'cap', 1, 0.99)"), "{lines}");
        orders.add(&mut order, &mut lines, "8", &its, &mut Dice { state: 1 }, 10);
        assert_eq!((order.matches("INSERT").count(), lines.matches("(8, ").count()), (1, 2));
        assert!((1..=5).contains(&draw(&mut Dice { state: 3 }).len()));
    }
}
