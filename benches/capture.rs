//! The capture alone: from the binlog to encoded chunks in the embedded log.
//!
//! `cargo bench --bench capture [-- bulk small]` loads a private MySQL with the two workloads and reads its binlog over a connection: 1,000,000 inserts, 200,000
//! updates and 20,000 deletes in transactions of 1,000 rows, and 200,000 inserts in transactions of one. `BENCH_SCALE` (default 1.0) makes them smaller.
//! `BENCH_BINLOGS=folder` reads the binlog files in that folder instead, without a server; `BENCH_KEEP=folder` keeps the files that were made.
//! Each prints rows/s (best and median of `BENCH_RUNS`, default 5), CPU seconds and the peak RSS of the process.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panic")]

#[path = "../tests/integration/mysql.rs"]
mod mysql;
mod usage;

use binlake::error::Result;
use binlake::event::{BinlogCoordinates, Cut, Epoch, Lineage, SourcePosition};
use binlake::pipeline::{Follower, Link, Pace, Status, Until};
use binlake::source::{
    BinlogFile, BinlogReader, CaptureRule, DumpSettings, LaneBuffers, Progress, TrackedTables, connection_options,
};
use binlake::stream::{EmbeddedLog, EmbeddedOptions, EventLog, Producer, StreamConfig, take_over};
use binlake::time::Timestamp;
use mysql::{Options, Server};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use usage::{setting, usage};

const LANES: u16 = 16;
const CHUNK_BYTES: usize = 1 << 20;
const CUT_INTERVAL: Duration = Duration::from_secs(1);

struct Target {
    _folder: tempfile::TempDir,
    log: Arc<dyn EventLog>,
}

impl Target {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir().expect("a folder for the log");
        let log = EmbeddedLog::open(folder.path(), LANES, EmbeddedOptions::default())?;
        Ok(Self { _folder: folder, log: Arc::new(log) })
    }

    async fn producer(&self) -> Producer {
        take_over(self.log.clone(), async |_| Ok(Epoch(1))).await.expect("a producer").producer
    }
}

fn reader(position: SourcePosition) -> BinlogReader {
    let select = Arc::new(|table: &binlake::event::TableId| (table.database() == "shop").then(CaptureRule::default));
    BinlogReader::new(TrackedTables::new(select, LANES, false), position, Timestamp::from_micros(0))
}

fn beginning(file: &str) -> SourcePosition {
    SourcePosition {
        lineage: Lineage(String::new()),
        coordinates: BinlogCoordinates { file: file.into(), offset: 4 },
        gtid_set: Some(Default::default()),
    }
}

/// Reads binlog files as fast as they come; gives the rows.
async fn read_files(files: &[PathBuf]) -> Result<u64> {
    let target = Target::new()?;
    let mut producer = target.producer().await;
    let mut lanes = LaneBuffers::new(LANES, CHUNK_BYTES);
    let mut reader = reader(beginning("binlog.000001"));
    let mut rows = 0;
    let mut next_cut = Instant::now() + CUT_INTERVAL;
    let dry = std::env::var("BENCH_DRY").is_ok();
    for file in files {
        for event in BinlogFile::open(file)? {
            let mut progress = reader.feed(&event?, &mut lanes)?;
            loop {
                while let Some((lane, sections)) = lanes.take_full() {
                    if !dry {
                        producer.send(lane, sections).await?;
                    }
                }
                if progress != Progress::More {
                    break;
                }
                progress = reader.resume(&mut lanes)?;
            }
            if progress == Progress::Boundary && Instant::now() >= next_cut {
                cut(&mut reader, &mut lanes, &mut producer).await?;
                next_cut = Instant::now() + CUT_INTERVAL;
            }
        }
    }
    cut(&mut reader, &mut lanes, &mut producer).await?;
    producer.flush().await?;
    rows += reader.take_counts().iter().map(|(_, counts)| counts.created + counts.updated + counts.deleted).sum::<u64>();
    Ok(rows)
}

async fn cut(reader: &mut BinlogReader, lanes: &mut LaneBuffers, producer: &mut Producer) -> Result<()> {
    let cut = Cut {
        number: producer.next_cut(),
        position: reader.position().clone(),
        source_commit_time: reader.source_commit_time(),
        tables: reader.tables().states(),
        schemas: reader.tables().schemas(),
        rules: None,
        complete_until: None,
    };
    producer.cut(lanes.take_rest()?, cut).await
}

/// Reads a server's binlog from its first event on; gives the rows.
async fn read_server(url: &str, lineage: Lineage, rows: u64) -> Result<u64> {
    let target = Target::new()?;
    let options = connection_options(&url.parse().expect("a URL"))?;
    let settings = DumpSettings {
        server_id: DumpSettings::random_server_id(),
        connect_timeout: Duration::from_secs(10),
        read_timeout: Duration::from_secs(60),
        heartbeat_interval: Duration::from_secs(1),
    };
    let status = Status::new();
    let position = SourcePosition { lineage, ..beginning("") };
    let lanes = LaneBuffers::new(LANES, CHUNK_BYTES);
    let follower = Follower::new(
        reader(position),
        lanes,
        target.producer().await,
        Link { options, settings },
        status.clone(),
        Pace { cut_interval: Duration::from_millis(100), ..Pace::of(&StreamConfig::default()) },
    );
    let (stop, stopped) = watch::channel(false);
    let follow = tokio::spawn(follower.run(None, Until::Stopped, stopped));
    while status.view().captured_rows < rows && !follow.is_finished() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    stop.send_replace(true);
    follow.await.expect("the capture ends")?;
    Ok(status.view().captured_rows)
}

async fn measure(name: &str, runs: usize, mut run: impl AsyncFnMut() -> Result<u64>) {
    let mut seconds = Vec::new();
    let (mut rows, mut cpu) = (0, f64::MAX);
    for _ in 0..runs {
        let (before, started) = (usage().0, Instant::now());
        rows = run().await.expect("the capture works");
        seconds.push(started.elapsed().as_secs_f64());
        cpu = cpu.min(usage().0 - before);
    }
    seconds.sort_by(f64::total_cmp);
    let rate = |seconds: f64| (rows as f64 / seconds).round();
    println!("| {name} | {rows} | {} | {} | {cpu:.2} | {} |", rate(seconds[0]), rate(seconds[seconds.len() / 2]), usage().1);
}

fn binlog_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("the folder").filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|number| number.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit())));
    files.sort();
    files
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let runs = setting("BENCH_RUNS", 5_usize);
    println!("| workload | rows | rows/s best | rows/s median | CPU s | peak RSS MiB |\n|---|---|---|---|---|---|");
    if let Ok(folder) = std::env::var("BENCH_BINLOGS") {
        let files = binlog_files(Path::new(&folder));
        measure(&format!("files in {folder}"), runs, async || read_files(&files).await).await;
        return;
    }
    let scale = setting("BENCH_SCALE", 1.0_f64);
    for workload in ["bulk", "small"] {
        if !asked.is_empty() && !asked.iter().any(|name| name == workload) {
            continue;
        }
        let options =
            ["--innodb-buffer-pool-size=512M", "--sync-binlog=0", "--innodb-flush-log-at-trx-commit=2", "--max-binlog-size=1G"];
        let server = Server::start(options.into_iter().fold(Options::default(), Options::with));
        server.create_repl_user().await;
        let rows = load(&server, workload, scale).await;
        let lineage = Lineage(server.client().await.value("SELECT @@server_uuid").await);
        measure(workload, runs, async || read_server(&server.repl_url(), lineage.clone(), rows).await).await;
        if let Ok(folder) = std::env::var("BENCH_KEEP") {
            let folder = Path::new(&folder).join(workload);
            std::fs::create_dir_all(&folder).expect("the folder can be made");
            for file in binlog_files(&server.data_folder()) {
                std::fs::copy(&file, folder.join(file.file_name().expect("a name"))).expect("the file can be copied");
            }
        }
    }
}

const TABLE: &str = "CREATE TABLE ticket_activity (ticketactivity_id INT AUTO_INCREMENT PRIMARY KEY, sport_type VARCHAR(256), start_date DATETIME,
    location VARCHAR(256), seat_level VARCHAR(256), seat_location VARCHAR(256), ticket_price INT, customer_name VARCHAR(256), email_address VARCHAR(256),
    created_at DATETIME, updated_at DATETIME)";

/// The peers' workloads; gives the row changes.
async fn load(server: &Server, workload: &str, scale: f64) -> u64 {
    let mut client = server.client().await;
    for statement in ["RESET BINARY LOGS AND GTIDS", "CREATE DATABASE shop", "USE shop", TABLE] {
        client.run(statement).await;
    }
    let mut state = 7_u64;
    let mut pick = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % below
    };
    let mut row = || {
        let sport = ["baseball", "football", "basketball", "ice hockey", "soccer", "tennis"][pick(6) as usize];
        let place = [
            "Seattle, Lumen Field",
            "New York, Madison Square Garden",
            "Boston, Fenway Park",
            "Los Angeles, Dodger Stadium",
            "Münster, Preußenstadion",
        ][pick(5) as usize];
        let level = ["Standard", "Premium", "Luxury", "Club"][pick(4) as usize];
        let name =
            ["ada", "ben", "cara", "dan", "eve", "finn", "gus", "hana", "ivo", "jana", "kai", "lea", "max", "nina", "otto", "pia"]
                [pick(16) as usize];
        let family = ["smith", "jones", "brown", "garcia", "miller", "davis", "lopez", "wilson", "moore", "taylor", "lee", "clark"]
            [pick(12) as usize];
        format!(
            "('{sport}','2026-{:02}-{:02} {:02}:{:02}:{:02}','{place}','{level}','{}-{}-{}',{},'{name} {family}','{name}.{family}{}@example.com','2026-11-01 08:00:{:02}','2026-11-01 08:00:00')",
            1 + pick(12),
            1 + pick(28),
            pick(24),
            pick(60),
            pick(60),
            char::from(b'A' + pick(8) as u8),
            1 + pick(59),
            1 + pick(399),
            20 + pick(880),
            pick(1_000_000),
            pick(60)
        )
    };
    const INSERT: &str = "INSERT INTO ticket_activity (sport_type,start_date,location,seat_level,seat_location,ticket_price,customer_name,email_address,created_at,updated_at) VALUES ";
    if workload == "small" {
        let count = (200_000.0 * scale) as u64;
        for _ in 0..count {
            client.run(&format!("{INSERT}{}", row())).await;
        }
        return count;
    }
    let thousands = (1000.0 * scale) as u64;
    for _ in 0..thousands {
        let rows: Vec<String> = (0..1000).map(|_| row()).collect();
        client.run(&format!("{INSERT}{}", rows.join(","))).await;
    }
    for k in 0..thousands / 5 {
        let from = k * 5000 + 1;
        client.run(&format!("UPDATE ticket_activity SET ticket_price = ticket_price + 1, updated_at = '2026-11-02 09:00:00' WHERE ticketactivity_id BETWEEN {from} AND {}", from + 999)).await;
    }
    for k in 0..thousands / 50 {
        let from = k * 50_000 + 2001;
        client.run(&format!("DELETE FROM ticket_activity WHERE ticketactivity_id BETWEEN {from} AND {}", from + 999)).await;
    }
    thousands * 1000 + thousands / 5 * 1000 + thousands / 50 * 1000
}
