//! `binlake rollback`, `restore`, `savepoint` and `cluster`: what is done to a table beside its changes.

use super::{Answer, Global, Ruled};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::event::TableId;
use crate::pipeline::{
    Asked, Done, Maintained, MaintainedTable, Maintenance, TableServices, Work, audited_as, no_such_commit, note_maintained,
    open_stream_to_read,
};
use crate::query::find_table;
use crate::state::{RunLabel, StateStore};
use crate::table::{InstantTime, TableOptions, TableView};
use clap::Args;
use indicatif::ProgressBar;
use std::time::Duration;

/// How long a running service may take to notice that it is asked.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);

/// Undoes a commit of a table, and all that came behind it
///
/// The table gets the rows again that it had before INSTANT, and with it its
/// history, its children and its dead letters. Nothing is deleted: what is
/// undone can be queried as of its instant, and gone back to, for as long as it
/// is retained.
///
/// What the source changed since comes again with the stream, so that the table
/// ends equal to the source: as the rules, lookups and this version of Binlake
/// make it now. With --skip-changes it doesn't.
///
/// A running service that has the table does it; else it is done here.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  binlake timeline prices.quotes
  binlake rollback prices.quotes 20261121141230755
  binlake rollback prices.quotes 20261121141230755 --skip-changes")]
pub(super) struct Rollback {
    #[command(flatten)]
    table: Named,
    /// The first commit that is undone: see `binlake timeline`
    instant: String,
    #[command(flatten)]
    going: Going,
}

/// Makes a table as it was at a commit that is retained, or a savepoint
///
/// As `binlake rollback`, but INSTANT itself stays: the table gets the rows
/// again that it had at it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  binlake restore prices.quotes 20261121141230755
  binlake restore prices.quotes 20261121141230755 --skip-changes")]
pub(super) struct Restore {
    #[command(flatten)]
    table: Named,
    /// The commit: see `binlake timeline`
    instant: String,
    #[command(flatten)]
    going: Going,
}

/// Keeps a table's state at a commit from being cleaned
///
/// Until the savepoint is deleted the table can be queried as of INSTANT, and
/// restored to it; its history, children and dead letters with it. The commits
/// since stay on the table's timeline as long, so delete what isn't needed any
/// more. `binlake timeline` lists savepoints.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  binlake savepoint prices.quotes
  binlake savepoint prices.quotes 20261121141230755 --delete")]
pub(super) struct Savepoint {
    #[command(flatten)]
    table: Named,
    /// The commit [default: the last]
    #[arg(required_if_eq("delete", "true"))]
    instant: Option<String>,
    /// The savepoint is deleted
    #[arg(long)]
    delete: bool,
}

/// Rewrites small files into large ones
///
/// Neighbouring files of at most half of lake.target_file_size become one, in
/// the table, its history, its children and its dead letters; what other writers
/// left unsorted is sorted. No row changes.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  binlake cluster prices.quotes")]
pub(super) struct Cluster {
    #[command(flatten)]
    table: Named,
}

#[derive(Debug, Args)]
struct Named {
    /// The table: database.table, or table alone where only one database has it
    table: String,
}

#[derive(Debug, Args)]
struct Going {
    /// Leaves out what the source changed since: the table differs from it then
    /// until it is copied anew
    #[arg(long)]
    skip_changes: bool,
}

impl Rollback {
    pub(super) async fn run(self, global: &Global) -> Result<Answer> {
        let undone = instant(&self.instant)?;
        maintain(global, &self.table, |table, view| {
            let instants = view.instants();
            let at = instants.iter().position(|known| known.instant == undone).ok_or_else(|| no_such_commit(table, &undone))?;
            if instants[at].is_undone {
                return Err(Error::config("the commit is undone already")
                    .with("table", table)
                    .with("instant", &undone)
                    .remedy("`binlake timeline` shows what stands"));
            }
            let before = at.checked_sub(1).map(|before| &instants[before]).ok_or_else(|| {
                Error::config("there is no commit before that one")
                    .with("table", table)
                    .with("instant", &undone)
                    .remedy("`binlake timeline` lists those that there are; `binlake backfill --table` makes a table anew")
            })?;
            Ok(go_back(&before.instant, &self.going))
        })
        .await
    }
}

impl Restore {
    pub(super) async fn run(self, global: &Global) -> Result<Answer> {
        let to = instant(&self.instant)?;
        maintain(global, &self.table, |_, _| Ok(go_back(&to, &self.going))).await
    }
}

impl Savepoint {
    pub(super) async fn run(self, global: &Global) -> Result<Answer> {
        let named = self.instant.as_deref().map(instant).transpose()?;
        maintain(global, &self.table, |table, view| {
            let last = view.instants().last().map(|last| last.instant.clone());
            let instant =
                named.clone().or(last).ok_or_else(|| Error::config("the table has no commit yet").with("table", table))?;
            Ok(if self.delete { Maintenance::KeepNoLonger { instant } } else { Maintenance::Keep { instant } })
        })
        .await
    }
}

impl Cluster {
    pub(super) async fn run(self, global: &Global) -> Result<Answer> {
        maintain(global, &self.table, |_, _| Ok(Maintenance::Cluster)).await
    }
}

fn go_back(to: &InstantTime, going: &Going) -> Maintenance {
    let request = uuid::Uuid::new_v4().simple().to_string();
    Maintenance::GoBack { to: to.clone(), skips_changes: going.skip_changes, request }
}

fn instant(text: &str) -> Result<InstantTime> {
    InstantTime::parse(text).ok_or_else(|| {
        Error::config(format!("`{text}` is no instant")).remedy("write its 17 digits: `binlake timeline` lists the table's")
    })
}

/// How a command writes tables.
pub(super) fn table_options(config: &Config, command: &str) -> TableOptions {
    TableOptions {
        target_file_bytes: config.lake.target_file_size.0,
        retained_commits: config.lake.retained_commits,
        rewrite_threads: config.lake.rewrite_threads(),
        memory_bytes: config.lake.memory.0,
        writer_name: format!("binlake {command}, process {}", std::process::id()),
    }
}

async fn maintain(global: &Global, named: &Named, wanted: impl Fn(&TableId, &TableView) -> Result<Maintenance>) -> Result<Answer> {
    let Ruled { config, lake } = global.ruled_lake().await?;
    let lake = lake?;
    let (database, name) = find_table(&lake.tables().await?, &named.table)?;
    let table = TableId::new(database, name);
    let services = TableServices::new(lake.clone(), table_options(&config, "maintenance"));
    let maintenance = wanted(&table, &services.known(&table).await?)?;
    services.ensure_maintainable(&table, &maintenance).await?;
    let state = StateStore::open(&config.state).await?;
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(100));
    bar.set_message("looking for a service that has the table");
    let asked = Asked::ask(&state, lake.url(), &table, Work::Maintain { maintenance: maintenance.clone() }).await?;
    let is_taken = asked.is_taken_within(PATIENCE).await?;
    bar.set_message(if is_taken { "by the service" } else { maintenance.name() });
    let done = match is_taken {
        true => asked.answer(|_, _| {}).await,
        false => alone(&config, &services, &state, &table, &maintenance).await.map(Done::Maintained),
    };
    bar.finish_and_clear();
    match done? {
        Done::Maintained(done) => {
            let is_fed = config.fed.iter().any(|fed| fed.table == table);
            print!("{}", text(&table, &maintenance, &done, is_fed));
        }
        Done::Erased(_) => return Err(Error::bug("the service has done something else")),
    }
    Ok(Answer::Done)
}

/// No service has the table: it is done here.
async fn alone(
    config: &Config,
    services: &TableServices,
    state: &StateStore,
    table: &TableId,
    maintenance: &Maintenance,
) -> Result<Maintained> {
    let label = RunLabel::begin(&audited_as(config).await?, maintenance.name());
    // a table that others' streams feed is told what they still have when the service reads them
    let log = match config.fed.iter().any(|fed| fed.table == *table) {
        true => None,
        false => open_stream_to_read(config).await?,
    };
    let done = services.maintain(table, maintenance, log.as_deref()).await?;
    services.publish().await?;
    let noted = note_maintained(state, &label, &done).await;
    noted.map_err(|error| error.remedy("it is done, but the audit doesn't say so"))?;
    Ok(done)
}

/// What was done, in lines of at most 80 columns where names are short; of a table that others' stream feeds, if it `is_fed`.
fn text(table: &TableId, maintenance: &Maintenance, done: &Maintained, is_fed: bool) -> String {
    let mut out = String::new();
    for one in &done.tables {
        out.push_str(&line(maintenance, one));
    }
    let has_gone_back = done.tables.first().is_some_and(|one| one.instant.is_some());
    match maintenance {
        Maintenance::GoBack { skips_changes: false, .. } if has_gone_back => {
            out.push_str("what the source changed since comes again with the stream\n");
        }
        Maintenance::GoBack { skips_changes: true, .. } if has_gone_back && is_fed => {
            out.push_str("what the stream brought since is left out\n");
        }
        Maintenance::GoBack { skips_changes: true, .. } if has_gone_back => out.push_str(&format!(
            "what the source changed since is left out: `binlake verify` shows where they\ndiffer, `binlake backfill --table {table}` has it copied anew\n"
        )),
        _ => {}
    }
    out
}

fn line(maintenance: &Maintenance, one: &MaintainedTable) -> String {
    let MaintainedTable { table, instant, undone, files_before, files } = one;
    match (maintenance, instant) {
        (Maintenance::GoBack { to, .. }, None) => format!("{table}: {to} is its last commit, nothing is undone\n"),
        (Maintenance::GoBack { .. }, Some(instant)) => {
            format!("{table}: {undone} commits are undone, by the commit {instant}\n")
        }
        (Maintenance::Cluster, None) => format!("{table}: {files} files, none to be rewritten\n"),
        (Maintenance::Cluster, Some(_)) => format!("{table}: {files} files in the place of {files_before}\n"),
        (Maintenance::Keep { .. }, Some(instant)) => format!("{table}: {files} files of {instant} are kept\n"),
        (Maintenance::Keep { .. }, None) => format!("{table}: {files} files were kept already\n"),
        (Maintenance::KeepNoLonger { .. }, Some(instant)) => format!("{table}: the files of {instant} are kept no longer\n"),
        (Maintenance::KeepNoLonger { .. }, None) => format!("{table}: there was no such savepoint\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_fits_80_columns() {
        let at = |text: &str| InstantTime::parse(text).unwrap();
        let one = |name: &str, instant: Option<&str>| MaintainedTable {
            table: TableId::new("prices", name),
            instant: instant.map(at),
            undone: 12,
            files_before: 31,
            files: 7,
        };
        let to = at("20261121141230755");
        let mut shown = String::new();
        for maintenance in [
            go_back(&to, &Going { skip_changes: false }),
            go_back(&to, &Going { skip_changes: true }),
            Maintenance::Cluster,
            Maintenance::Keep { instant: to.clone() },
            Maintenance::KeepNoLonger { instant: to },
        ] {
            let did = Maintained {
                tables: vec![one("quotes", Some("20261121141245001")), one("quotes_history", Some("20261121141245001"))],
                ..Maintained::default()
            };
            let nothing = Maintained { tables: vec![one("quotes", None)], ..Maintained::default() };
            let table = TableId::new("prices", "quotes");
            shown.push_str(&text(&table, &maintenance, &did, false));
            shown.push_str(&text(&table, &maintenance, &nothing, true));
        }
        assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
        insta::assert_snapshot!(shown);
    }
}
