//! The conformance suite while calls are throttled, fail, lose their answers and let iterators expire.

use super::fan_out::reads_back;
use super::proxy::{Fate, Proxy};
use super::{OnKinesis, StandIn};
use crate::event_log_suite::all;
use crate::random::Random;
use std::time::{Duration, Instant};

/// What Amazon's servers do now and then, all of it and far too often.
pub(crate) fn judge(seed: u64) -> super::proxy::Judge {
    let mut random = Random::new(seed);
    Box::new(move |call| {
        let chance = random.below(100);
        match call {
            "PutRecords" => match chance {
                0..4 => Fate::Fails("ProvisionedThroughputExceededException"),
                4..8 => Fate::Fails("InternalFailureException"),
                8..14 => Fate::AnswerLost,
                14..30 => Fate::SomeRefused("ProvisionedThroughputExceededException", 40),
                30..38 => Fate::SomeRefused("InternalFailure", 40),
                38..40 => Fate::Fails("ExpiredTokenException"),
                _ => Fate::Works,
            },
            "GetRecords" => match chance {
                0..5 => Fate::Fails("ExpiredIteratorException"),
                5..8 => Fate::Fails("ProvisionedThroughputExceededException"),
                8..10 => Fate::AnswerLost,
                10..12 => Fate::Fails("InternalFailureException"),
                _ => Fate::Works,
            },
            "GetShardIterator" | "ListShards" => match chance {
                0..5 => Fate::Fails("LimitExceededException"),
                _ => Fate::Works,
            },
            _ => Fate::Works,
        }
    })
}

/// The same for DynamoDB: throttled, answers lost, and now and then away for longer than leases last.
pub(crate) fn judge_of_state(seed: u64) -> super::proxy::Judge {
    let mut random = Random::new(seed);
    let mut back_at = Instant::now();
    Box::new(move |_| {
        if Instant::now() < back_at {
            return Fate::Fails("InternalServerError");
        }
        if random.below(1500) == 0 {
            back_at = Instant::now() + Duration::from_secs(4);
        }
        match random.below(100) {
            0..6 => Fate::Fails("ProvisionedThroughputExceededException"),
            6..10 => Fate::AnswerLost,
            10..11 => Fate::Fails("ThrottlingException"),
            _ => Fate::Works,
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_on_a_kinesis_that_fails() {
    let proxy = Proxy::start(StandIn::shared().port(), judge(7)).await;
    all(&mut OnKinesis::new(proxy.endpoint(), 2)).await;
    // how many calls there are is up to the machine: as many as it needs until each has happened
    for what in ["PutRecords lost", "refused records", "GetRecords ExpiredIteratorException", "PutRecords ExpiredTokenException"] {
        for _ in 0..20 {
            if proxy.count(what) == 0 {
                reads_back(&OnKinesis::new(proxy.endpoint(), 2)).await;
            }
        }
        assert!(proxy.count(what) > 0, "no {what} happened");
    }
}
