//! Rules that change while the service runs: each row is of the rules that its place in the stream says, whatever is killed meanwhile, and nothing is lost.

mod changes;
mod commands;
mod feeds;
mod gone;
mod lost;
mod refusals;
mod shapes;
mod workers;

use crate::mysql::{Client, Flavour, PATIENCE, Server, within};
use crate::service::{Answer, Pipeline};
use binlake::event::GtidSet;

/// A table whose transform says by which rules a row came: `era`.
pub(crate) fn of_era(table: &str, era: &str) -> String {
    format!("[[table]]\nsource = '{table}'\ntransform = '''\nSELECT *, '{era}' AS era FROM input'''\n")
}

/// A delivery of a table `(id, value)`, as items of `stock`.
pub(crate) const MAPPING: &str = r#"{"rules": [
  {"rule-type": "selection", "rule-id": "1", "rule-name": "1", "rule-action": "include", "object-locator": {"schema-name": "%", "table-name": "%"}},
  {"rule-type": "object-mapping", "rule-id": "2", "rule-name": "2", "rule-action": "map-record-to-record",
   "object-locator": {"schema-name": "%", "table-name": "%"}, "target-table-name": "stock",
   "mapping-parameters": {"partition-key-name": "id"}}]}"#;

/// A server with a database and the means to change the rules.
pub(crate) struct Stage {
    pub(crate) server: &'static Server,
    pub(crate) database: String,
    pub(crate) client: Client,
    pub(crate) pipeline: Pipeline,
    /// What the configuration says but the rules.
    base: String,
    next: u64,
}

/// Where rules took effect.
#[derive(Debug, Clone)]
pub(crate) struct Effect {
    pub(crate) position: GtidSet,
}

impl Stage {
    /// Tables `(id, value)` with a few rows; `rules` makes the configuration's sections for the database.
    pub(crate) async fn new(topic: &str, tables: &[&str], rules: impl Fn(&str) -> String) -> Self {
        let server = Server::shared(Flavour::MySql);
        server.create_repl_user().await;
        let database = server.create_database(topic).await;
        let mut client = server.client().await;
        client.run(&format!("USE {database}")).await;
        for table in tables {
            client.run(&format!("CREATE TABLE {table} (id INT PRIMARY KEY, value VARCHAR(40))")).await;
            client.run(&format!("INSERT INTO {table} VALUES (1, 'one'), (2, 'two')")).await;
        }
        let pipeline = Pipeline::new(server, "");
        let base = pipeline.config();
        let stage = Self { server, database: database.clone(), client, pipeline, base, next: 100 };
        stage.write(&rules(&database));
        stage
    }

    /// Writes the file with other rules.
    pub(crate) fn write(&self, rules: &str) {
        self.pipeline.set_config(&format!("{}{rules}", self.base));
    }

    /// A new row and a change of an old one.
    pub(crate) async fn change(&mut self, table: &str) {
        self.next += 1;
        let id = self.next;
        self.client.run(&format!("INSERT INTO {table} VALUES ({id}, 'row {id}')")).await;
        self.client.run(&format!("UPDATE {table} SET value = 'seen {id}' WHERE id = 1")).await;
    }

    /// Applies the file while rows flow.
    pub(crate) fn apply(&mut self, tables: &[&str], arguments: &[&str]) -> Answer {
        // rows flow as fast as they can, and the machine may have more to do
        let timeout: &[&str] = if arguments.contains(&"--timeout") { &[] } else { &["--timeout", "150s"] };
        let arguments: Vec<String> = ["apply"].iter().chain(arguments).chain(timeout).map(|word| (*word).to_owned()).collect();
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        std::thread::scope(|scope| {
            let applied = scope.spawn(|| self.pipeline.answer(&words));
            let next = &mut self.next;
            let client = &mut self.client;
            tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(async {
                    while !applied.is_finished() {
                        for table in tables {
                            *next += 1;
                            let id = *next;
                            client.run(&format!("INSERT INTO {table} VALUES ({id}, 'row {id}')")).await;
                            client.run(&format!("UPDATE {table} SET value = 'seen {id}' WHERE id = 1")).await;
                        }
                    }
                });
            });
            applied.join().unwrap()
        })
    }

    /// The rows `id value` of a table at the source, sorted.
    pub(crate) async fn rows_at_source(&mut self, table: &str) -> Vec<String> {
        let rows = self.client.rows(&format!("SELECT id, value FROM {table}")).await;
        let mut rows: Vec<String> = rows.into_iter().map(|row| row.into_iter().flatten().collect::<Vec<_>>().join(" ")).collect();
        rows.sort();
        rows
    }

    /// The same of the items that are delivered into `data/items.db`.
    pub(crate) fn items(&self) -> Vec<String> {
        let Ok(file) = rusqlite::Connection::open(self.pipeline.path().join("data/items.db")) else { return Vec::new() };
        file.busy_timeout(PATIENCE).unwrap();
        let Ok(mut found) = file.prepare("SELECT item FROM stock") else { return Vec::new() };
        let item = |text: String| {
            let item: serde_json::Value = serde_json::from_str(&text).unwrap();
            format!("{} {}", item["id"], item["value"].as_str().unwrap_or_default())
        };
        let mut items: Vec<String> = found.query_map([], |row| row.get(0)).unwrap().map(|text| item(text.unwrap())).collect();
        items.sort();
        items
    }

    /// Where the revisions in force took effect, oldest first; those that count from the beginning left out.
    pub(crate) fn effects(&self) -> Vec<Effect> {
        let listed = self.pipeline.ok(&["rules", "--format", "json"]);
        let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
        let effect = |revision: &serde_json::Value| {
            (revision["status"] == "InForce" && revision["position"].is_string())
                .then(|| Effect { position: revision["position"].as_str().unwrap().parse().unwrap() })
        };
        listed.iter().filter_map(effect).collect()
    }

    /// Waits until the lake's table has the source's rows, then checks each row's era: `eras[i]` is what the rules behind the i-th effect give.
    pub(crate) async fn each_row_is_of_its_era(&mut self, table: &str, effects: &[Effect], eras: &[&str]) {
        assert_eq!(effects.len() + 1, eras.len(), "{effects:?}\n{}", self.pipeline.log_tail());
        let mut expected: Vec<Vec<Option<String>>> = self.client.rows(&format!("SELECT id, value FROM {table}")).await;
        expected.sort();
        let lake = self.pipeline.table(&self.database, table);
        let mut found = Vec::new();
        let same = within(PATIENCE, async || {
            found = lake.values(None, &["id", "value", "_position", "era"]).unwrap_or_default();
            found.sort();
            found.iter().map(|row| row[..2].to_vec()).eq(expected.iter().cloned())
        });
        assert!(same.await, "{table}: {} rows expected, {} found\n{}", expected.len(), found.len(), self.pipeline.log_tail());
        for row in &found {
            // rows of a snapshot have no GTID, and were there before all changes of the rules
            let position: GtidSet = row[2].as_ref().unwrap().parse().unwrap_or_default();
            let passed = effects.iter().filter(|effect| !position.is_subset(&effect.position)).count();
            let at = if position.is_empty() { 0 } else { passed };
            assert_eq!(row[3].as_deref(), Some(eras[at]), "{table}: {row:?}\n{effects:?}\n{}", self.pipeline.log_tail());
        }
        let has = |era: &str| found.iter().any(|row| row[3].as_deref() == Some(era));
        assert!(has(eras[0]) && has(eras[eras.len() - 1]), "{table}: {found:?}");
    }
}
