//! A table of sales that is joined with countries.

use crate::mysql::{Client, Flavour, Server};

/// Each sale with its country's name.
pub(super) const JOIN: &str =
    "transform = 'SELECT t.id, t.location, c.combinedname FROM input t LEFT JOIN country c ON t.location = c.countryname'\n";

/// A database of its own with five sales: two in India, one each in Chad and the USA, one nowhere.
pub(super) async fn sales(topic: &str) -> (&'static Server, String, Client) {
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let database = server.create_database(topic).await;
    let mut client = server.client().await;
    client
        .run_all(&format!(
            "USE {database}; CREATE TABLE sales (id INT PRIMARY KEY, location VARCHAR(40), year INT, note VARCHAR(20));
             INSERT INTO sales VALUES (1, 'India', 2025, 'a'), (2, 'Chad', 2026, 'b'), (3, NULL, 2026, 'c'), (4, 'USA', 2025, 'd'), (5, 'India', 2026, 'e')"
        ))
        .await;
    (server, database, client)
}
