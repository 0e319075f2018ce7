//! `binlake demo`: everything on this machine.

mod screen;
mod server;

use super::service::{serve, stop_signal};
use super::tickets::Tickets;
use super::workload::{self, Load, Made, Mix, Workload};
use super::{Answer, Global};
use crate::config::{Config, Needs};
use crate::error::{Area, Error, Kind, Result};
use crate::pipeline::{Halves, LastCommit, Status};
use crate::query::{Engine, QueryOptions};
use crate::setting::parse_duration;
use crate::table::{Lake, LakeUrl};
use crate::time::Timestamp;
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use clap::Args;
use futures::TryStreamExt;
use screen::{Scene, Screen, hints};
use server::{Program, Server};
use std::collections::VecDeque;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often the screen is drawn on a terminal, and a line printed elsewhere.
const FRAME: Duration = Duration::from_millis(500);
const LINE: Duration = Duration::from_secs(2);
/// The tickets of the start were bought within a day.
const BOUGHT_WITHIN: Duration = Duration::from_secs(24 * 3600);
/// How often the lake is asked for the chart.
const CHART: Duration = Duration::from_secs(3);
/// The rate shown is that of so many frames.
const RATE_FRAMES: usize = 8;

const BY_HOUR: &str = "SELECT to_char(date_trunc('hour', created_at), '%H:00') AS hour, count(*) AS tickets \
    FROM sports.ticket_activity GROUP BY date_trunc('hour', created_at) ORDER BY date_trunc('hour', created_at)";

/// Shows it all on this machine: a private MySQL, load, the service, a chart
///
/// Starts a MySQL server of its own in a temporary folder (on 127.0.0.1 only),
/// loads tickets and changes them at a steady rate, replicates them into a Hudi
/// table, and asks that table for the tickets by hour. Ctrl-C stops everything
/// and removes the folder.
///
/// The server is the one that BINLAKE_MYSQLD names, else mysqld or mariadbd on
/// the PATH; `make demo` gets one.
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Row changes a second
    #[arg(long, value_name = "N", default_value = "500")]
    rate: u64,
    /// Tickets that there are at the start
    #[arg(long, value_name = "N", default_value = "20000")]
    rows: u64,
    /// Stop by itself after so long, as 30s
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Leave the temporary folder, with the lake in it
    #[arg(long)]
    keep: bool,
}

impl Demo {
    pub(super) async fn run(self, _global: &Global) -> Result<Answer> {
        let program = Program::find()?;
        let stopped = stop_signal()?;
        let folder = tempfile::Builder::new()
            .prefix("binlake-demo-")
            .tempdir()
            .map_err(|error| Error::new(Area::Lake, Kind::Refused, "no temporary folder can be made").caused_by(error))?;
        let demo = Box::pin(self.demo(&program, folder.path()));
        let outcome = tokio::select! {
            outcome = demo => outcome,
            () = stopped => Ok(()),
        };
        let path = folder.path().display().to_string();
        if self.keep {
            // from here on it is the user's
            let _ = folder.keep();
            println!("\nstopped; the lake is kept:\n{}", hints(&path));
        } else {
            drop(folder);
            println!("\nstopped; {path} is removed");
        }
        outcome.map(|()| Answer::Done)
    }

    /// All of it; dropped, nothing of it is left running.
    async fn demo(&self, program: &Program, folder: &Path) -> Result<()> {
        println!("starting a private {} in {}", program.version, folder.display());
        let server = Server::start(program, folder).await?;
        let is_terminal = std::io::stdout().is_terminal();
        println!("loading {} tickets", self.rows);
        let mut connection = server.connect().await?;
        let (tickets, last_id) = Tickets::create(&mut connection, "sports").await?;
        tickets.load(&mut connection, last_id + 1, self.rows, BOUGHT_WITHIN, &Made::default()).await?;
        let config = write_config(folder, &server.url())?;
        let lake = config.lake.url.clone();
        let status = Status::new();
        let (stop, mut stop_seen) = watch::channel(false);
        let service = serve(config, Halves::Both, status.clone(), async move {
            let _ = stop_seen.wait_for(|stop| *stop).await;
        });
        let made = Arc::new(Made::default());
        let load = Load { rate: self.rate as f64, mix: Mix::default(), transaction_rows: 100, connection: 0, connections: 1 };
        let load = workload::run(&tickets, &mut connection, load, last_id + self.rows, &made);
        let show = show(Show { program, folder, lake, status, made: &made, is_terminal });
        let end = async {
            match self.duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        let mut service = Box::pin(service);
        let outcome = tokio::select! {
            outcome = &mut service => outcome,
            outcome = load => outcome,
            never = show => match never {},
            () = end => {
                stop.send_replace(true);
                service.await
            }
        };
        server.stop(self.keep);
        outcome
    }
}

/// The configuration: a file, so that other commands can be tried on it meanwhile.
fn write_config(folder: &Path, url: &str) -> Result<Config> {
    let text = format!(
        "[source]\nurl = \"{url}\"\n\n[lake]\nurl = \"file:./lake\"\ncommit_interval = \"2s\"\n\n\
         [stream]\nurl = \"file:./stream\"\n\n[state]\nurl = \"sqlite:./state.db\"\n\n[[table]]\nsource = \"sports.*\"\n"
    );
    let file = folder.join("binlake.toml");
    std::fs::write(&file, &text).map_err(|error| Error::config("the demo's configuration can't be written").caused_by(error))?;
    Config::parse(&file, &text, Needs::All, &|_| None)
}

/// What the screen shows.
struct Show<'a> {
    program: &'a Program,
    folder: &'a Path,
    lake: LakeUrl,
    status: Status,
    made: &'a Made,
    is_terminal: bool,
}

async fn show(show: Show<'_>) -> std::convert::Infallible {
    let started = Instant::now();
    let mut screen = Screen::new();
    let mut scene = Scene { server: show.program.version.clone(), folder: show.folder.display().to_string(), ..Scene::default() };
    let mut frames = tokio::time::interval(if show.is_terminal { FRAME } else { LINE });
    let mut counts: VecDeque<(Instant, u64)> = VecDeque::new();
    let mut charted: Option<Instant> = None;
    loop {
        frames.tick().await;
        let view = show.status.view();
        let changes = show.made.changes();
        counts.push_back((Instant::now(), changes));
        if counts.len() > RATE_FRAMES {
            counts.pop_front();
        }
        if let (Some((first, before)), Some((last, now))) = (counts.front(), counts.back()) {
            let seconds = last.duration_since(*first).as_secs_f64();
            scene.rate = if seconds > 0.0 { (now - before) as f64 / seconds } else { 0.0 };
        }
        scene.running = started.elapsed();
        scene.changes = changes;
        scene.committed = view.tables.values().map(|table| table.inserted + table.updated + table.deleted).sum();
        let last = view.tables.values().filter_map(|table| table.last_commit.clone()).max_by_key(|commit| commit.visible_at);
        scene.freshness = last.as_ref().map(|commit| commit.visible_at.since(commit.source_commit_time));
        scene.last_commit =
            last.map(|LastCommit { instant, visible_at, took, .. }| (instant, Timestamp::now().since(visible_at), took));
        let is_due = charted.is_none_or(|at| at.elapsed() >= CHART) && scene.last_commit.is_some();
        if is_due {
            match tickets_by_hour(&show.lake).await {
                Ok(bars) => scene.tickets_by_hour = bars,
                Err(error) => tracing::warn!(%error, "the chart can't be asked for"),
            }
            charted = Some(Instant::now());
        }
        screen.show(&scene, is_due);
    }
}

/// The seeded query, answered from the lake's files.
async fn tickets_by_hour(lake: &LakeUrl) -> Result<Vec<(String, u64)>> {
    let engine = Engine::new(Lake::open(lake)?, QueryOptions::default());
    let (_, rows) = engine.query(BY_HOUR).await?;
    let batches: Vec<RecordBatch> = rows.try_collect().await?;
    let mut bars = Vec::new();
    for batch in &batches {
        let hours = batch.column(0).as_string_opt::<i32>();
        let counts = batch.column(1).as_primitive_opt::<Int64Type>();
        let (Some(hours), Some(counts)) = (hours, counts) else {
            return Err(Error::bug("the chart's query answers other types"));
        };
        bars.extend(
            hours
                .iter()
                .zip(counts.iter())
                .map(|(hour, count)| (hour.unwrap_or_default().to_owned(), u64::try_from(count.unwrap_or_default()).unwrap_or(0))),
        );
    }
    Ok(bars)
}
