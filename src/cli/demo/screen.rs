//! What the demo shows, in 80 columns: drawn in place on a terminal, one line at a time elsewhere.

use crate::admin::grouped;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// The longest bar.
const BAR: usize = 50;

/// The state at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Scene {
    /// The server, as `MySQL 9.7.0`.
    pub(super) server: String,
    /// Since the load began.
    pub(super) running: Duration,
    /// Row changes a second, lately.
    pub(super) rate: f64,
    /// Row changes since the load began.
    pub(super) changes: u64,
    /// Rows that commits brought into the lake.
    pub(super) committed: u64,
    /// From the source's commit to its being visible in the lake, at the last commit.
    pub(super) freshness: Option<Duration>,
    /// The last commit: its instant, how long ago it became visible, how long it took.
    pub(super) last_commit: Option<(String, Duration, Duration)>,
    /// Hour and tickets, as the lake has them.
    pub(super) tickets_by_hour: Vec<(String, u64)>,
    /// The folder with the lake and the configuration.
    pub(super) folder: String,
}

/// Draws scenes.
#[derive(Debug)]
pub(super) struct Screen {
    is_terminal: bool,
    lines: usize,
}

impl Screen {
    /// On standard output.
    pub(super) fn new() -> Self {
        Self { is_terminal: std::io::stdout().is_terminal(), lines: 0 }
    }

    /// Shows the scene. `with_chart`: off a terminal the chart is printed only then.
    pub(super) fn show(&mut self, scene: &Scene, with_chart: bool) {
        let mut out = std::io::stdout().lock();
        let text = if self.is_terminal {
            let text = dashboard(scene);
            // back to the first line; clear each line's rest, and what is below
            let up = if self.lines > 0 { format!("\x1b[{}A", self.lines) } else { String::new() };
            self.lines = text.lines().count();
            format!("{up}{}\x1b[J", text.replace('\n', "\x1b[K\n"))
        } else {
            let mut text = line(scene);
            if with_chart {
                text.push_str(&chart(&scene.tickets_by_hour));
            }
            text
        };
        // nobody reads any more: the demo goes on until it is stopped
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// All of it, for a terminal.
fn dashboard(scene: &Scene) -> String {
    let seconds = scene.running.as_secs();
    let mut text =
        format!("Binlake demo: {} to a Hudi table, all on this machine  {:02}:{:02}\n\n", scene.server, seconds / 60, seconds % 60);
    // writing to a String doesn't fail
    let _ =
        writeln!(text, "  source  {:>9} row changes/s   {:>12} so far", grouped(scene.rate.round() as u64), grouped(scene.changes));
    let _ = write!(text, "  lake    {:>9} rows committed  ", grouped(scene.committed));
    let _ = match &scene.last_commit {
        Some((instant, ago, took)) => {
            writeln!(text, "last commit {:.1} s ago, took {} ms\n          instant {instant}", ago.as_secs_f64(), took.as_millis())
        }
        None => writeln!(text, "no commit yet\n"),
    };
    let _ = match scene.freshness {
        Some(lag) => writeln!(text, "  lag     {:>9.1} s from the source's commit to visible in the lake\n", lag.as_secs_f64()),
        None => writeln!(text, "  lag             –\n"),
    };
    let _ = writeln!(text, "  Tickets by hour (UTC), asked of the lake");
    text.push_str(&chart(&scene.tickets_by_hour));
    let _ = write!(text, "\n{}\n  Ctrl-C stops everything and removes the folder.\n", hints(&scene.folder));
    text
}

/// How to look at the lake oneself. Paths may be longer than a line.
pub(super) fn hints(folder: &str) -> String {
    format!(
        "  Ask it yourself, meanwhile:\n\
         \x20   binlake query -c {folder}/binlake.toml \\\n\
         \x20     \"SELECT count(*), max(ticket_price) FROM ticket_activity\"\n\
         \x20   duckdb -init {folder}/lake/views.sql \\\n\
         \x20     -c \"FROM sports.ticket_activity LIMIT 5\"\n"
    )
}

/// One line, for a file or a pipe.
fn line(scene: &Scene) -> String {
    let (instant, lag) = match (&scene.last_commit, scene.freshness) {
        (Some((instant, ..)), Some(lag)) => (instant.as_str(), format!("{:.1}s", lag.as_secs_f64())),
        _ => ("-", "-".to_owned()),
    };
    format!(
        "{:>4}s  {:>6.0} rows/s  lag {lag:>5}  {:>9} rows in  commit {instant}\n",
        scene.running.as_secs(),
        scene.rate,
        scene.committed
    )
}

/// Bars of the last twelve hours.
fn chart(bars: &[(String, u64)]) -> String {
    let last = &bars[bars.len().saturating_sub(12)..];
    let most = last.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    let mut text = String::new();
    for (hour, count) in last {
        let eighths = (*count as u128 * BAR as u128 * 8 / u128::from(most)) as usize;
        let mut bar = "█".repeat(eighths / 8);
        if let Some(part) = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"].get(eighths % 8) {
            bar.push_str(part);
        }
        let _ = writeln!(text, "  {hour:>5} {bar} {}", grouped(*count));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene() -> Scene {
        Scene {
            server: "MySQL 9.7.0".into(),
            running: Duration::from_secs(75),
            rate: 12_345.4,
            changes: 1_234_567,
            committed: 1_230_000,
            freshness: Some(Duration::from_millis(1_234)),
            last_commit: Some(("20261121141230755".into(), Duration::from_millis(812), Duration::from_millis(120))),
            tickets_by_hour: (0..14).map(|hour| (format!("{hour:02}:00"), 1_000 + hour * 317)).collect(),
            folder: "/tmp/binlake-demo-x".into(),
        }
    }

    #[test]
    fn the_dashboard_fits_80_columns() {
        let text = dashboard(&scene());
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn before_the_first_commit_and_off_a_terminal() {
        let early = Scene { server: "MariaDB 10.11.6".into(), folder: "/tmp/x".into(), ..Scene::default() };
        insta::assert_snapshot!(format!("{}\n{}{}", dashboard(&early), line(&early), line(&scene())));
    }
}
