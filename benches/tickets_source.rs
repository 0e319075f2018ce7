//! The source of benchmarks that need one: a private MySQL with a table of tickets, and load for it.
#![allow(unreachable_pub, dead_code, reason = "a module of several benchmarks")]

use crate::mysql::{Options, Server};
use std::time::Duration;

const TABLE: &str = "CREATE TABLE ticket_activity (ticketactivity_id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, sport_type VARCHAR(256) NOT NULL,
    start_date DATETIME NOT NULL, location VARCHAR(256) NOT NULL, seat_level VARCHAR(256) NOT NULL, seat_location VARCHAR(256) NOT NULL, ticket_price INT NOT NULL,
    customer_name VARCHAR(256) NOT NULL, email_address VARCHAR(256) NOT NULL, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL)";

/// Inserts `count` tickets in one transaction, made by the server itself from a table of 1,000 numbers.
pub fn insert(count: u64) -> String {
    format!(
        "INSERT INTO ticket_activity (sport_type,start_date,location,seat_level,seat_location,ticket_price,customer_name,email_address,created_at,updated_at)
         SELECT ELT(n % 5 + 1,'baseball','football','basketball','ice hockey','tennis'), '2026-01-01' + INTERVAL n MINUTE,
           ELT(n % 4 + 1,'Seattle, Lumen Field','New York, Madison Square Garden','Boston, Fenway Park','Münster, Preußenstadion'),
           ELT(n % 3 + 1,'Standard','Premium','Luxury'), CONCAT(CHAR(65 + n % 8),'-',n % 59,'-',n % 397), 20 + n % 880, CONCAT('Customer ', n * 7919 % 100003),
           CONCAT('customer.', n * 7919 % 1000003, '@example.com'), UTC_TIMESTAMP(), UTC_TIMESTAMP()
         FROM (SELECT a.n + 1000 * b.n + 1000000 * c.n AS n FROM numbers a, numbers b, numbers c WHERE c.n < 10 LIMIT {count}) AS made"
    )
}

/// A setting of the environment.
pub fn setting(name: &str, unless_told: u64) -> u64 {
    std::env::var(name).map_or(unless_told, |text| text.parse().unwrap())
}

/// A private MySQL with the database `sports`.
pub struct Source {
    pub server: Server,
    pub database: &'static str,
}

impl Source {
    pub async fn new() -> Self {
        let options = ["--innodb-buffer-pool-size=512M", "--binlog-cache-size=1M", "--innodb-redo-log-capacity=512M"];
        let server = Server::start(options.into_iter().fold(Options::default(), Options::with));
        server.create_repl_user().await;
        let source = Source { server, database: "sports" };
        source.server.client().await.run("CREATE DATABASE sports").await;
        source.sql("CREATE TABLE numbers (n BIGINT PRIMARY KEY)").await;
        source
            .sql(&format!("INSERT INTO numbers VALUES {}", (0..1000).map(|n| format!("({n})")).collect::<Vec<_>>().join(",")))
            .await;
        source.sql(TABLE).await;
        source
    }

    pub async fn sql(&self, statement: &str) {
        let mut client = self.server.client().await;
        client.run("USE sports").await;
        client.run(statement).await;
    }

    /// `rate` row changes a second: half inserts, half updates of earlier rows, in transactions of a fiftieth second.
    pub async fn load(&self, rate: u64, seconds: u64) {
        let mut client = self.server.client().await;
        client.run("USE sports").await;
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        for i in 0..seconds * 50 {
            tick.tick().await;
            let half = rate / 100;
            client.run("BEGIN").await;
            client.run(&insert(half)).await;
            let from = (i * 7919) % (i * half + 1) + 1;
            client.run(&format!("UPDATE ticket_activity SET ticket_price = {i}, updated_at = UTC_TIMESTAMP() WHERE ticketactivity_id BETWEEN {from} AND {}", from + half - 1)).await;
            client.run("COMMIT").await;
        }
    }
}
