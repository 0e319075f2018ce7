//! `binlake generate`: load on the source, or on a stream.

mod events;
mod stream_load;

use super::orders::Orders;
use super::service::stop_signal;
use super::tickets::Tickets;
use super::workload::{self, Load, Made, Mix};
use super::{Answer, Global};
use crate::error::{Error, Result};
use crate::setting::parse_duration;
use crate::source::{connect, connection_options, parse_mysql_url};
use crate::stream::StreamUrl;
use crate::stream::kinesis::KinesisUrl;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use mysql_async::Opts;
use std::io::IsTerminal;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use stream_load::StreamLoad;
use tokio::task::JoinSet;

/// How often progress is shown: on a terminal, and as log lines elsewhere.
const BAR_INTERVAL: Duration = Duration::from_millis(200);
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// An order, and three lines on average.
const ROWS_OF_AN_ORDER: u64 = 4;
/// What is there at the start was made within a month.
const BOUGHT_WITHIN: Duration = Duration::from_secs(30 * 24 * 3600);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes load: writes a workload's rows into the source, then changes them; or puts its events on a stream
///
/// On MySQL, the table is made where it doesn't exist, filled with --rows rows, and
/// then changed at --rate row changes a second until --duration is over or Ctrl-C.
/// On Kinesis, --rows JSON records are put (0: no end) at --rate records a second
/// (0: as many as it takes); then it is said what was accepted, throttled and sent
/// again, and how long records took.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  binlake generate --workload tickets --rows 1000000
  binlake generate --workload tickets --rate 5000 --mix 20/70/10 --duration 60s
  binlake generate --workload orders --rows 100000 --rate 500
  binlake generate --workload tickets --rate 50 --url mysql://root@127.0.0.1
  binlake generate --workload impressions --target kinesis --rate 2000 --duration 60s \\
      --url 'kinesis://impressions?region=eu-west-1&create=4'")]
pub(super) struct Generate {
    /// What is written
    #[arg(long)]
    workload: Workload,
    /// Where it goes; impressions go to Kinesis, whatever is said here
    #[arg(long, value_name = "TARGET", default_value = "mysql")]
    target: Target,
    /// Rows to insert at the start, as fast as the server takes them
    #[arg(long, value_name = "N", default_value = "0")]
    rows: u64,
    /// Row changes a second after that; 0 for none
    #[arg(long, value_name = "N", default_value = "0")]
    rate: u64,
    /// Stop changing rows after so long, as 30s; without it, at Ctrl-C
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Percent of inserts, updates and deletes
    #[arg(long, value_name = "I/U/D", default_value = "60/30/10")]
    mix: Mix,
    /// Changes of one transaction, at most
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u64).range(1..=1000))]
    transaction_rows: u64,
    /// Connections that write at once
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u64).range(1..=64))]
    connections: u64,
    /// The database that holds the workload's tables [default: sports, shop]
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// The server, with a user who may write, or the stream; without it, [source] url or [stream] url of the configuration
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    /// A MySQL server
    Mysql,
    /// A Kinesis stream
    Kinesis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Tickets of sport events: one table, inserts, price changes, returns
    Tickets,
    /// Orders and their lines: two tables in each transaction, and an order's
    /// total is always the sum of its lines; to MySQL alone
    Orders,
    /// Who looked at what: plain JSON, with the faults that real events have; to a stream alone
    Impressions,
}

impl Generate {
    pub(super) async fn run(self, global: &Global) -> Result<Answer> {
        match (self.workload, self.target) {
            (Workload::Orders, Target::Kinesis) => {
                return Err(Error::config("the workload `orders` is one of transactions, which a stream has none of")
                    .remedy("leave --target out, or use --workload tickets"));
            }
            (Workload::Impressions, _) | (_, Target::Kinesis) => return self.run_on_stream(global).await,
            (Workload::Tickets | Workload::Orders, Target::Mysql) => {}
        }
        let url = match &self.url {
            Some(url) => parse_mysql_url(url).map_err(|error| Error::config(format!("--url: {error}")).remedy("correct --url"))?,
            None => global.config()?.source.url,
        };
        let options = connection_options(url.expose())?;
        let made = Arc::new(Made::default());
        let stopped = stop_signal()?;
        let started = Instant::now();
        let work: Pin<Box<dyn Future<Output = Result<()>> + Send + '_>> = match self.workload {
            Workload::Orders => Box::pin(self.write::<Orders>(&options, "shop", ROWS_OF_AN_ORDER, &made)),
            Workload::Tickets | Workload::Impressions => Box::pin(self.write::<Tickets>(&options, "sports", 1, &made)),
        };
        let outcome = tokio::select! {
            outcome = work => outcome,
            () = stopped => Ok(()),
        };
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let (inserted, updated, deleted) = (count(&made.inserted), count(&made.updated), count(&made.deleted));
        println!(
            "{inserted} inserted, {updated} updated, {deleted} deleted in {:.1} s: {:.0} rows/s",
            started.elapsed().as_secs_f64(),
            made.changes() as f64 / started.elapsed().as_secs_f64()
        );
        outcome.map(|()| Answer::Done)
    }

    async fn run_on_stream(self, global: &Global) -> Result<Answer> {
        let url = match &self.url {
            Some(url) => {
                KinesisUrl::parse(url).map_err(|error| Error::config(format!("--url: {error}")).remedy("correct --url"))?
            }
            None => match global.config()?.stream.url {
                StreamUrl::Kinesis(url) => *url,
                StreamUrl::File(_) => {
                    return Err(Error::config("the configuration names no Kinesis stream")
                        .with("key", "stream.url")
                        .remedy("name one with --url 'kinesis://name?region=…'"));
                }
            },
        };
        let Self { workload, rate, rows, duration, .. } = self;
        StreamLoad { url, workload, rate, records: rows, duration }.run(stop_signal()?).await?;
        Ok(Answer::Done)
    }

    /// `rows_each`: rows that one thing of the workload has, about.
    async fn write<W: workload::Workload>(&self, options: &Opts, database: &str, rows_each: u64, made: &Arc<Made>) -> Result<()> {
        let database = self.database.as_deref().unwrap_or(database);
        let (tables, last_id) = W::create(&mut connect(options, CONNECT_TIMEOUT).await?, database).await?;
        let count = self.rows.div_ceil(rows_each);
        let mut showing = JoinSet::new();
        if self.rows > 0 {
            showing.spawn(show(Arc::clone(made), Some(self.rows)));
            self.load(options, &tables, (last_id, count), made).await?;
            showing.shutdown().await;
        }
        if self.rate == 0 {
            return Ok(());
        }
        showing.spawn(show(Arc::clone(made), None));
        let changing = Box::pin(self.change(options, &tables, last_id + count, made));
        match self.duration {
            None => changing.await,
            Some(duration) => tokio::time::timeout(duration, changing).await.unwrap_or(Ok(())),
        }
    }

    /// Inserts the initial rows, each connection its own range of ids.
    async fn load(
        &self,
        options: &Opts,
        tables: &impl workload::Workload,
        (last_id, count): (u64, u64),
        made: &Arc<Made>,
    ) -> Result<()> {
        let share = count.div_ceil(self.connections);
        let mut writers = JoinSet::new();
        for first in (0..count).step_by(usize::try_from(share.max(1)).unwrap_or(usize::MAX)) {
            let some = share.min(count - first);
            let (options, tables, made) = (options.clone(), tables.clone(), Arc::clone(made));
            writers.spawn(async move {
                let mut conn = connect(&options, CONNECT_TIMEOUT).await?;
                tables.load(&mut conn, last_id + 1 + first, some, BOUGHT_WITHIN, &made).await
            });
        }
        join_all(writers).await
    }

    /// Changes rows until it is dropped.
    async fn change(&self, options: &Opts, tables: &impl workload::Workload, last_id: u64, made: &Arc<Made>) -> Result<()> {
        let mut writers = JoinSet::new();
        for connection in 0..self.connections {
            let load = Load {
                rate: self.rate as f64 / self.connections as f64,
                mix: self.mix,
                transaction_rows: self.transaction_rows,
                connection,
                connections: self.connections,
            };
            let (options, tables, made) = (options.clone(), tables.clone(), Arc::clone(made));
            writers.spawn(async move {
                let mut conn = connect(&options, CONNECT_TIMEOUT).await?;
                workload::run(&tables, &mut conn, load, last_id, &made).await
            });
        }
        join_all(writers).await
    }
}

async fn join_all(mut writers: JoinSet<Result<()>>) -> Result<()> {
    while let Some(ended) = writers.join_next().await {
        ended.map_err(|error| Error::bug("a writer ended unexpectedly").caused_by(error))??;
    }
    Ok(())
}

/// Shows how many rows were changed: a bar where the end is known, a line each few seconds off a terminal.
async fn show(made: Arc<Made>, total: Option<u64>) {
    let is_terminal = std::io::stderr().is_terminal();
    let bar = match (is_terminal, total) {
        (false, _) => ProgressBar::hidden(),
        (true, Some(total)) => ProgressBar::new(total),
        (true, None) => ProgressBar::new_spinner(),
    };
    let template = match total {
        Some(_) => "{bar:30} {human_pos}/{human_len} rows  {per_sec}  {eta} left",
        None => "{spinner} {elapsed}  {msg}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    let mut timer = tokio::time::interval(if is_terminal { BAR_INTERVAL } else { LINE_INTERVAL });
    timer.tick().await;
    let mut before = (Instant::now(), made.changes());
    loop {
        timer.tick().await;
        let now = (Instant::now(), made.changes());
        let rate = (now.1 - before.1) as f64 / now.0.duration_since(before.0).as_secs_f64().max(1e-3);
        before = now;
        bar.set_position(now.1);
        bar.set_message(format!("{} row changes, {rate:.0}/s", now.1));
        if !is_terminal {
            tracing::info!(changes = now.1, per_second = rate.round(), "generating");
        }
    }
}
