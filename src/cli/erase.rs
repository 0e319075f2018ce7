//! `binlake erase`: a person's rows go.

use super::maintain::{PATIENCE, table_options};
use super::{Answer, Global, Ruled};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::event::{CutPoint, Section, TableId};
use crate::merge::{CHECKPOINT_KEY, Checkpoint};
use crate::pipeline::{Asked, Done, ERASE_STEPS, Erased, TableServices, Work, audited_as, note_erased, open_stream_to_read};
use crate::query::find_table;
use crate::state::{RunLabel, StateStore};
use crate::stream::{Consumer, LaneEvent, LogPosition};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

/// Removes keys from a table, its history, and every retained file
///
/// The rows of these keys are deleted from the table and from its history; all
/// files that held them are written anew or deleted, so queries as of earlier
/// commits are no longer possible. Dead letters go in which a key's text
/// occurs, also those of a table that has no row yet. The commit says how much
/// was erased, and so does the audit.
///
/// A running service that has the table does it, between two commits, after all
/// that the source had by now; else it is done here. Delete the rows at the
/// source as well, first: what the source still has comes back with the next
/// backfill. The stream keeps its copy until its retention ends.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  binlake erase shop.customers 4711
  binlake erase shop.seats A,17 A,18        a key of two columns
  binlake erase shop.seats '\"A, left\",17'   a value with a comma")]
pub(super) struct Erase {
    /// The table: database.table, or table alone where only one database has it
    table: String,
    /// The keys: for each the values of the key's columns, in the key's order,
    /// joined by commas; a value that has commas in double quotes; bytes as 0x…
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<String>,
}

/// What the bar says where the service waits.
const WAITING: &str = "the service waits";

impl Erase {
    pub(super) async fn run(self, global: &Global) -> Result<Answer> {
        let Ruled { config, lake } = global.ruled_lake().await?;
        let lake = lake?;
        let services = TableServices::new(lake.clone(), table_options(&config, "erase"));
        let (database, name) = find_table(&services.tables().await?, &self.table)?;
        let table = TableId::new(database, name);
        let key = config.key_of(&table);
        services.ensure_erasable(&table, &self.keys, key).await?;
        let state = StateStore::open(&config.state).await?;
        let bar = ProgressBar::new(ERASE_STEPS);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} steps {msg}") {
            bar.set_style(style);
        }
        bar.set_message("looking for a service that has the table");
        bar.tick();
        let asked = Asked::ask(&state, lake.url(), &table, Work::erase(&self.keys)).await?;
        let is_taken = asked.is_taken_within(PATIENCE).await?;
        bar.set_message(if is_taken { "by the service" } else { "" });
        let done = match is_taken {
            true => match asked.answer(|steps, waits| show(&bar, steps, waits)).await {
                Ok(Done::Erased(erased)) => Ok(erased),
                Ok(Done::Maintained(_)) => Err(Error::bug("the service has done something else")),
                Err(error) => Err(error),
            },
            false => {
                let label = RunLabel::begin(&audited_as(&config).await?, "erase");
                alone(services.clone(), (&state, &label), &table, (&self.keys, key), &bar).await
            }
        };
        let lacks_more = match &done {
            Ok(_) if !is_taken => {
                bar.set_message("reading what the stream has besides");
                // the erasure is done: what can't be read now may be there
                lacks_of_stream(&config, &services, &table).await.unwrap_or(true)
            }
            _ => false,
        };
        bar.finish_and_clear();
        let erased = done?;
        println!(
            "{table}: erased {} rows, {} versions of its history, {} rows of its children and {} dead letters; {} files of before are deleted",
            erased.rows, erased.versions, erased.elements, erased.letters, erased.files
        );
        if lacks_more {
            eprintln!(
                "the stream has changes that the table lacks; what of them is about these keys comes back with them: run the service until it has caught up, then erase again"
            );
        }
        Ok(Answer::Done)
    }
}

/// Whether the pipeline's stream has rows that the table lacks.
async fn lacks_of_stream(config: &Config, services: &TableServices, table: &TableId) -> Result<bool> {
    let Some(log) = open_stream_to_read(config).await? else { return Ok(false) };
    let view = services.view(table).await?;
    let checkpoint = view.and_then(|view| view.extra_metadata(CHECKPOINT_KEY).map(Checkpoint::from_json)).transpose()?;
    // another stream's says nothing of this one
    let checkpoint = checkpoint.filter(|checkpoint| checkpoint.stream_id == log.identity().stream_id);
    let resume = checkpoint.as_ref().and_then(|checkpoint| checkpoint.resume.as_ref());
    let start = resume.map(|resume| (resume.point(), LogPosition(resume.log_position.clone())));
    let mut consumer = Consumer::resume(log.as_ref(), start.as_ref().map(|(cut, position)| (*cut, position))).await?;
    while let Some(event) = consumer.next_if_any().await? {
        let LaneEvent::Sections { epoch, window, sections, .. } = event else { continue };
        let is_behind = checkpoint.as_ref().is_none_or(|checkpoint| checkpoint.at() < CutPoint { epoch, number: window });
        if is_behind && sections.iter().any(|section| matches!(section, Section::Rows(_)) && section.table() == table) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Shows how far the service is. What it waits for is said in a line, once.
fn show(bar: &ProgressBar, steps: u64, waits: Option<&str>) {
    bar.set_position(steps);
    let Some(waits) = waits else { return bar.set_message("by the service") };
    if bar.message() != WAITING {
        bar.set_message(WAITING);
        bar.suspend(|| eprintln!("the service waits {waits}\nit erases then, also if you stop here (Ctrl-C)"));
    }
}

/// No service has the table: it is done here.
async fn alone(
    services: TableServices,
    (state, label): (&StateStore, &RunLabel),
    table: &TableId,
    (keys, declared): (&[String], &[String]),
    bar: &ProgressBar,
) -> Result<Erased> {
    let erased = services.erase(table, keys, declared, || bar.inc(1)).await?;
    services.publish().await?;
    let noted = note_erased(state, label, table, &erased).await;
    noted.map_err(|error: Error| error.remedy("the rows are erased, but the audit doesn't say so"))?;
    Ok(erased)
}
