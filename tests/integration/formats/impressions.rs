//! The impressions of scenario S2 as they arrive on Kinesis: all columns declared strings but those that order, `uuid` as a number, dates as `2/15/11`, months 13 to
//! 15, one record an object, some aggregated; upserted by `uuid` with the ordering `orderdate`, in windows of the commit interval.

use super::on_kinesis::credentials;
use crate::kinesis::{OnKinesis, StandIn};
use crate::mysql::{PATIENCE, eventually, free_address, within};
use crate::readers::{duckdb, hudi_rs};
use crate::service::Pipeline;
use crate::surface::ask;
use aws_sdk_kinesis::primitives::Blob;
use binlake::format::{UserRecord, aggregate};

/// A record as the known system's generator makes them.
fn impression(uuid: u64, country: &str, orderdate: &str, impressiontime: &str) -> String {
    format!(
        r#"{{"uuid": {uuid}, "country": "{country}", "itemtype": "Office Supplies", "saleschannel": "Offline", "orderpriority": "M", "orderdate": "{orderdate}", "region": "Sub-Saharan Africa", "shipdate": "3/1/11", "unitssold": "1593", "unitprice": "651.21", "unitcost": "524.96", "totalrevenue": "1037377.53", "totalcost": "836261.28", "totalprofit": "201116.25", "impressiontime": "{impressiontime}"}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn impressions_are_merged_as_they_arrive() {
    let stand_in = StandIn::shared();
    let client = stand_in.client().await;
    let name = OnKinesis::new(stand_in.endpoint(), 1).fresh_url().aws.name;
    client.create_stream().stream_name(&name).shard_count(1).send().await.unwrap();
    let is_active = within(PATIENCE, async || {
        let summary = client.describe_stream_summary().stream_name(&name).send().await.unwrap();
        summary.stream_description_summary.unwrap().stream_status.as_str() == "ACTIVE"
    });
    assert!(is_active.await);
    let address = free_address();
    let strings = [
        "uuid",
        "country",
        "itemtype",
        "saleschannel",
        "orderpriority",
        "region",
        "shipdate",
        "unitssold",
        "unitprice",
        "unitcost",
        "totalrevenue",
        "totalcost",
        "totalprofit",
    ];
    let strings: String = strings.iter().map(|column| format!("{column} = \"string\", ")).collect();
    let pipeline = credentials(Pipeline::from_text(&format!(
        "[lake]\nurl = \"file:./data/lake\"\ncommit_interval = \"100ms\"\n[state]\nurl = \"sqlite:./data/state.db\"\n[admin]\nlisten = \"{address}\"\n\
         [[table]]\nstream = \"kinesis://{name}?endpoint={}&poll=20ms\"\nname = \"mydev.impressions\"\n\
         columns = {{ {strings}orderdate = {{ type = \"date\", format = \"M/d/yy\" }}, impressiontime = \"timestamp\" }}\n\
         key = [\"uuid\"]\nordering = \"orderdate\"\n",
        stand_in.endpoint()
    )));
    let put = async |data: Vec<u8>| {
        client.put_record().stream_name(&name).partition_key("impressions").data(Blob::new(data)).send().await.unwrap();
    };
    let at = "2026-11-21 10:11:12";
    // from the oldest record on: these were there before anybody read
    put(impression(1, "Chad", "2/15/11", at).into_bytes()).await;
    put(impression(12_345_678_901_234_567_890, "Canada", "2/15/11", at).into_bytes()).await;
    let service = pipeline.run();
    let rows = || {
        let columns = ["uuid", "country", "orderdate", "impressiontime", "unitprice"];
        let rows = pipeline.table("mydev", "impressions").values(None, &columns).unwrap_or_default();
        let mut rows: Vec<String> = rows.into_iter().map(|row| row.into_iter().flatten().collect::<Vec<_>>().join(" ")).collect();
        rows.sort();
        rows
    };
    let first =
        ["1 Chad 2011-02-15 2026-11-21 10:11:12 651.21", "12345678901234567890 Canada 2011-02-15 2026-11-21 10:11:12 651.21"];
    assert!(within(PATIENCE, async || rows() == first).await, "{:?}\n{}", rows(), pipeline.log_tail());

    assert!(service.terminate().success(), "{}", pipeline.log_tail());

    // one window: a record after a quiet time is committed at once, and what comes then waits for the next commit
    pipeline.set_config(&pipeline.config().replace("100ms", "1h"));
    put(impression(1, "Chad again", "2/15/11", at).into_bytes()).await;
    let service = pipeline.run();
    let first =
        ["1 Chad again 2011-02-15 2026-11-21 10:11:12 651.21", "12345678901234567890 Canada 2011-02-15 2026-11-21 10:11:12 651.21"];
    assert!(within(PATIENCE, async || rows() == first).await, "{:?}\n{}", rows(), pipeline.log_tail());
    let commits = pipeline.table("mydev", "impressions").instants().len();
    let user = |record: String| UserRecord { partition_key: "impressions".into(), explicit_hash_key: None, bytes: record.into() };
    let aggregated = [
        impression(1, "late", "12/31/10", at),
        impression(2, "first", "1/2/12", at),
        impression(2, "second of two equal ones", "1/2/12", at),
        impression(2, "late within the window", "1/1/12", at),
        impression(4, "month 13", "1/2/12", "2026-13-21 10:11:12"),
    ];
    put(aggregate(&aggregated.map(user)).to_vec()).await;
    for month in [14, 15] {
        put(impression(4 + month, "a month that isn't", "1/2/12", &format!("2026-{month}-21 10:11:12")).into_bytes()).await;
    }
    put(impression(12_345_678_901_234_567_890, "newer", "10/15/11", at).into_bytes()).await;
    // the last, which is counted: when it was read, all were
    put(impression(3, "a day that isn't", "2/30/11", at).into_bytes()).await;
    let metric = async |line: &str| ask(&address, "/metrics").await.is_some_and(|(_, metrics)| metrics.contains(line));
    eventually("all were read", async || metric("binlake_dead_letters_total{table=\"mydev.impressions\"} 4").await).await;
    assert_eq!(rows(), first, "the window isn't over");
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    let second = [
        "1 Chad again 2011-02-15 2026-11-21 10:11:12 651.21",
        "12345678901234567890 newer 2011-10-15 2026-11-21 10:11:12 651.21",
        "2 second of two equal ones 2012-01-02 2026-11-21 10:11:12 651.21",
    ];
    assert_eq!(rows(), second);
    assert_eq!(pipeline.table("mydev", "impressions").instants().len(), commits + 1, "one commit a window");
    pipeline.assert_calm_log();
    let letters = pipeline.ok(&["dead-letter", "list", "--format", "csv"]);
    assert_eq!(letters.matches("`impressiontime` can't be read: it is no timestamp").count(), 3, "{letters}");
    assert_eq!(letters.matches("`orderdate` can't be read: it is no date").count(), 1, "{letters}");

    // another window, in which a late record comes alone: it is counted, and changes nothing
    pipeline.set_config(&pipeline.config().replace("1h", "100ms"));
    put(impression(2, "late", "1/1/12", at).into_bytes()).await;
    let service = pipeline.run();
    eventually("the late record is counted", async || metric("binlake_late_rows_total{table=\"mydev.impressions\"} 1").await).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    assert_eq!(rows(), second);
    let columns = ["uuid", "country", "orderdate"].map(str::to_owned);
    let mut by_hudi_rs = hudi_rs(&pipeline.table("mydev", "impressions").folder().display().to_string(), &columns, &[]);
    let mut by_duckdb = duckdb(&pipeline.lake().join("views.sql"), "mydev.impressions", &columns);
    by_hudi_rs.sort();
    by_duckdb.sort();
    assert_eq!(by_hudi_rs, by_duckdb);
    assert_eq!(by_hudi_rs.len(), 3);
}
