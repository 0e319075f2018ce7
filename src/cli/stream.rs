//! `binlake stream …`.

mod lines;

use super::{Answer, Global};
use crate::error::{Area, Error, Kind, Result};
use crate::event::TableId;
use crate::pipeline::open_stream_to_read;
use crate::stream::{Consumer, EventLog, LaneProtocol, StartAt};
use clap::{Args, Subcommand, ValueEnum};
use std::io::{BufWriter, ErrorKind, Write};

/// Looks into the stream
#[derive(Debug, Args)]
pub(super) struct Stream {
    #[command(subcommand)]
    command: StreamCommand,
}

#[derive(Debug, Subcommand)]
enum StreamCommand {
    Tail(Tail),
}

/// Prints the events in the stream as JSON lines
///
/// One line for each changed row, in the order in which they are read (of one key: the source's order), and one for each cut, truncated table, new shape and
/// new producer. It ends where the stream ends, unless --follow is given.
#[derive(Debug, Args)]
struct Tail {
    /// Where to begin: with the oldest record that is kept, or about at the last cut
    #[arg(long, value_name = "WHERE", default_value = "oldest")]
    from: From,
    /// Only this table's events, as database.table (may be given more than once)
    #[arg(long, value_name = "TABLE")]
    table: Vec<TableId>,
    /// Stop after so many lines
    #[arg(long, value_name = "LINES")]
    limit: Option<u64>,
    /// Go on when more comes
    #[arg(long, short, overrides_with = "no_follow")]
    follow: bool,
    /// Stop at the stream's end (the default)
    #[arg(long, overrides_with = "follow")]
    no_follow: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum From {
    Oldest,
    Latest,
}

impl Stream {
    pub(super) async fn run(self, global: &Global) -> Result<Answer> {
        match self.command {
            StreamCommand::Tail(tail) => {
                let config = global.config()?;
                config.ensure_source(
                    "there is no stream of binlake's own: all tables are fed by streams that others write",
                    "read those with their own tools; `binlake dead-letter list` shows what of them can't be read",
                )?;
                let log = open_stream_to_read(&config).await?.ok_or_else(|| {
                    Error::new(Area::Stream, Kind::Refused, "there is no stream yet")
                        .with("stream", &config.stream.url)
                        .remedy("start `binlake run`, which makes it")
                })?;
                tail.print(log.as_ref(), &mut BufWriter::new(std::io::stdout().lock())).await?;
                Ok(Answer::Done)
            }
        }
    }
}

impl Tail {
    async fn print(&self, log: &dyn EventLog, out: &mut impl Write) -> Result<()> {
        let position = match self.from {
            From::Oldest => None,
            From::Latest => log.recent(0).await?,
        };
        let protocol = LaneProtocol::new(log.identity().lanes, StartAt::Anywhere);
        let mut consumer = Consumer::open(log, position.as_ref(), protocol).await?;
        let mut left = self.limit.unwrap_or(u64::MAX);
        loop {
            let Some(event) = consumer.next_if_any().await? else {
                match out.flush() {
                    Ok(()) if self.follow => continue,
                    outcome => return written(outcome).map(|_| ()),
                }
            };
            for line in lines::lines(&event, &self.table) {
                if left == 0 {
                    return written(out.flush()).map(|_| ());
                }
                left -= 1;
                if !written(writeln!(out, "{line}"))? {
                    return Ok(());
                }
            }
        }
    }
}

/// Whether somebody still reads: who has seen enough closes the pipe.
fn written(outcome: std::io::Result<()>) -> Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::config("the lines can't be written").caused_by(error).remedy("check where the output goes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Cut, Epoch, Lane, Section, sample};
    use crate::stream::{MemoryLog, take_over};
    use std::sync::Arc;

    async fn stream() -> Arc<MemoryLog> {
        let log = Arc::new(MemoryLog::new(2));
        let mut producer = take_over(log.clone(), async |_| Ok(Epoch(1))).await.unwrap().producer;
        let rows = sample::ticket_changes(0, 3, 2);
        let stamp = rows.transactions[0].clone();
        producer.send(Lane(1), vec![Section::Rows(rows)]).await.unwrap();
        producer.flush().await.unwrap();
        let truncate = Section::Truncate { table: TableId::new("shop", "orders"), stamp: stamp.clone() };
        let shape = Section::NewShape { schema: sample::tickets(), fill: None, stamp };
        let cut: Cut = sample::cut(1);
        let both = vec![truncate, shape];
        producer.cut(vec![both.clone(), both], cut).await.unwrap();
        producer.flush().await.unwrap();
        let mut producer = take_over(log.clone(), async |_| Ok(Epoch(2))).await.unwrap().producer;
        producer.cut(vec![], sample::cut(2)).await.unwrap();
        producer.flush().await.unwrap();
        log
    }

    async fn printed(tail: Tail) -> String {
        let mut out = Vec::new();
        tail.print(stream().await.as_ref(), &mut out).await.unwrap();
        String::from_utf8(out).unwrap()
    }

    fn tail() -> Tail {
        Tail { from: From::Oldest, table: Vec::new(), limit: None, follow: false, no_follow: false }
    }

    #[tokio::test]
    async fn each_kind_of_event_is_a_line() {
        insta::assert_snapshot!(printed(tail()).await);
    }

    #[tokio::test]
    async fn a_table_and_a_limit() {
        let of_orders = printed(Tail { table: vec![TableId::new("shop", "orders")], ..tail() }).await;
        assert_eq!(of_orders.lines().count(), 1, "{of_orders}");
        assert_eq!(printed(Tail { limit: Some(2), ..tail() }).await.lines().count(), 2);
        let latest = printed(Tail { from: From::Latest, ..tail() }).await;
        assert!(latest.contains(r#""op":"cut","cut":2"#), "{latest}");
    }
}
