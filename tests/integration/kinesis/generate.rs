//! `binlake generate --target kinesis`: what it says about a stream that throttles.

use super::StandIn;
use super::proxy::{Fate, Proxy};
use crate::formats::credentials;
use crate::service::Pipeline;

#[tokio::test(flavor = "multi_thread")]
async fn generate_says_what_was_accepted_throttled_and_sent_again() {
    let mut call = 0_u64;
    let judge = Box::new(move |name: &str| {
        call += u64::from(name == "PutRecords");
        let is_refused = name == "PutRecords" && call % 2 == 1;
        if is_refused { Fate::SomeRefused("ProvisionedThroughputExceededException", 50) } else { Fate::Works }
    });
    let proxy = Proxy::start(StandIn::shared().port(), judge).await;
    let url = format!("kinesis://t{}?endpoint={}&create=2", uuid::Uuid::new_v4(), proxy.endpoint());
    let pipeline = credentials(Pipeline::from_text(""));
    for workload in ["tickets", "impressions"] {
        let before = proxy.count("refused records");
        let said = pipeline.ok(&["generate", "--workload", workload, "--target", "kinesis", "--rows", "300", "--url", &url]);
        assert!(said.starts_with("accepted    300 of 300 records in "), "{said}");
        let refused = proxy.count("refused records") - before;
        assert!(refused > 0 && said.contains(&format!("throttled   {refused} records; {refused} sent again")), "{said}");
        assert!(said.contains("latency ms  p50 ") && said.contains("p99.9 "), "{said}");
    }
}
