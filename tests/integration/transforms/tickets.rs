//! Scenario S1: the table is made and loaded, customers buy, an administrator changes a ticket, and a dashboard asks the lake.

use crate::mysql::{Flavour, Server, eventually};
use crate::service::Pipeline;

#[tokio::test]
async fn an_administrators_change_is_seen_by_a_query() {
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let database = server.create_database("s1").await;
    let root = server.root_url();
    let pipeline = Pipeline::new(server, &format!("[[table]]\nsource = '{database}.ticket_activity'\n"));
    let generate = |more: &[&str]| {
        let common = ["generate", "--workload", "tickets", "--database", &database, "--url", &root];
        pipeline.ok(&[&common[..], more].concat())
    };
    generate(&["--rows", "500"]);
    let service = pipeline.run();
    let asked = |sql: &str| {
        let answer = pipeline.answer(&["query", "--format", "csv", sql]);
        // there may be no table yet
        if answer.code == 0 { answer.out.lines().skip(1).map(str::to_owned).collect() } else { Vec::new() }
    };
    let tickets = format!("{database}.ticket_activity");
    eventually("the load is there", async || asked(&format!("SELECT count(*) FROM {tickets}")) == ["500"]).await;
    generate(&["--rate", "200", "--mix", "100/0/0", "--duration", "1s"]);
    let mut client = server.client().await;
    client.run(&format!("UPDATE {tickets} SET ticket_price = 500, updated_at = now() WHERE ticketactivity_id = 46")).await;
    let ticket = format!("SELECT ticket_price, updated_at FROM {tickets} WHERE ticketactivity_id = 46");
    let row = client.rows(&ticket).await.remove(0);
    let expected = format!("500,{}", row[1].as_ref().unwrap().replace(' ', "T"));
    eventually("the change is seen", async || asked(&ticket).iter().any(|row| row.trim_end_matches('Z') == expected)).await;
    // the chart: tickets by hour of the day, the same on both sides
    let by_hour = client.rows(&format!("SELECT hour(created_at) h, count(*) FROM {tickets} GROUP BY h ORDER BY h")).await;
    let by_hour: Vec<String> = by_hour.iter().map(|row| row.iter().flatten().cloned().collect::<Vec<_>>().join(",")).collect();
    let chart = format!("SELECT date_part('hour', created_at) AS h, count(*) FROM {tickets} GROUP BY h ORDER BY h");
    eventually("the chart is the source's", async || asked(&chart) == by_hour).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
}
