//! `binlake scale`: how many shards, how many workers.

use super::{Answer, Global};
use crate::error::{Error, Result};
use crate::pipeline::{Capacity, ScaleRequest, Workers, capacity, scale};
use clap::Args;

/// Shows or changes how many shards and workers a pipeline has
///
/// Without options it shows them, and who has which tables. Nothing is lost by
/// a change: a worker that is to stand by commits first, and shards are split
/// and merged under the running service. By the clock: [[scale]] in the
/// configuration.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  binlake scale
  binlake scale --shards 8 --workers 4
  binlake scale --workers all

By the clock (UTC), in binlake.toml:
  [[scale]]
  at = \"30 6 * * MON-FRI\"
  shards = 8
  workers = 4")]
pub(super) struct Scale {
    /// Shards of the Kinesis stream (UpdateShardCount)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    shards: Option<u32>,
    /// How many `binlake merge` take tables; others stand by. Or: all
    #[arg(long, value_name = "N", value_parser = workers)]
    workers: Option<Workers>,
}

fn workers(text: &str) -> std::result::Result<Workers, String> {
    match text {
        "all" => Ok(Workers::All),
        _ => match text.parse() {
            Ok(count @ 1..=9999) => Ok(Workers::Most(count)),
            _ => Err("write a number from 1 to 9999, or all".into()),
        },
    }
}

impl Scale {
    pub(super) async fn run(self, global: &Global) -> Result<Answer> {
        let config = global.config()?;
        let before = capacity(&config).await?;
        if self.shards.is_none() && self.workers.is_none() {
            print!("{}", shown(&before));
            return Ok(Answer::Done);
        }
        if self.shards.is_some() && before.shards.is_none() {
            return Err(Error::config("the stream has no shards")
                .with("stream", &config.stream.url)
                .remedy("shards are Kinesis's; leave --shards out"));
        }
        let after = scale(&config, ScaleRequest { shards: self.shards, workers: self.workers }).await?;
        if let (Some(before), Some(after)) = (before.shards, after.shards) {
            println!("shards   {before} -> {after}");
        }
        println!("workers  {} -> {}", before.workers, after.workers);
        Ok(Answer::Done)
    }
}

fn shown(capacity: &Capacity) -> String {
    let mut lines = String::new();
    if let Some(shards) = capacity.shards {
        lines += &format!("shards   {shards}\n");
    }
    lines += &format!("workers  {}\n", capacity.workers);
    for (worker, tables) in &capacity.tables {
        let names: Vec<String> = tables.iter().map(ToString::to_string).collect();
        lines += &format!("  {worker}: {}\n", names.join(" "));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn who_has_what_is_shown() {
        let tables = BTreeMap::from([("host:17:ab".to_owned(), vec!["s.a".parse().unwrap(), "s.b".parse().unwrap()])]);
        let capacity = Capacity { shards: Some(4), workers: Workers::Most(2), tables };
        assert_eq!(shown(&capacity), "shards   4\nworkers  2\n  host:17:ab: s.a s.b\n");
        assert_eq!((workers("all"), workers("3")), (Ok(Workers::All), Ok(Workers::Most(3))));
        assert!(workers("0").is_err() && workers("many").is_err());
    }
}
