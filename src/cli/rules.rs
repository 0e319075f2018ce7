//! `binlake rules`: the revisions of a pipeline's rules.

use super::list::print_list;
use super::{Answer, Global};
use crate::config::in_terminal_lines;
use crate::error::{Error, Result};
use crate::event::TableId;
use crate::pipeline::RulesBook;
use crate::query::OutputFormat;
use crate::state::{RulesRevision, RulesStatus};
use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use clap::Args;
use std::sync::Arc;

/// Lists how the rules were changed: by whom, when, and from which cut on
///
/// Rules are tables, transforms, lookups and deliveries. `binlake apply` and the
/// admin interface change them while the service runs; an edited file changes
/// them when it starts. With a revision's number: what it changed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  binlake rules
  binlake rules 3
  binlake rules --format json")]
pub(super) struct Rules {
    /// Show this revision: what it changed, and the rules
    revision: Option<u64>,
    /// table, csv or json
    #[arg(long, value_name = "FORMAT", default_value = "table", hide_possible_values = true)]
    format: OutputFormat,
}

impl Rules {
    pub(super) async fn run(self, global: &Global) -> Result<Answer> {
        let book = RulesBook::look_into(Arc::new(global.config()?)).await?;
        let mut revisions = book.revisions();
        if let Some(number) = self.revision {
            revisions.retain(|revision| revision.number == number);
            let Some(revision) = revisions.first() else {
                return Err(Error::config("there is no such revision")
                    .with("revision", number)
                    .remedy("`binlake rules` lists them"));
            };
            if self.format == OutputFormat::Table {
                print!("{}", one(revision, &book.fed_since(number).await?, book.newest()));
                return Ok(Answer::Done);
            }
        }
        let mut fed = Vec::new();
        for revision in revisions.iter().filter(|_| self.format != OutputFormat::Table) {
            fed.push(fed_text(&book.fed_since(revision.number).await?));
        }
        print_list(self.format, || shown(&revisions, book.newest()), batch(&revisions, fed)).await
    }
}

/// From where on fed tables go by a revision: a line a table.
fn fed_text(fed: &[(TableId, String)]) -> Option<String> {
    let lines: Vec<String> = fed.iter().map(|(table, position)| format!("{table} since {position}")).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn status(revision: &RulesRevision, newest: u64) -> &'static str {
    match revision.status {
        RulesStatus::InForce if revision.number == newest => "in force",
        RulesStatus::InForce => "replaced",
        RulesStatus::Proposed => "proposed",
        RulesStatus::Refused => "refused",
    }
}

fn batch(revisions: &[RulesRevision], fed: Vec<Option<String>>) -> Result<RecordBatch> {
    let texts =
        |value: fn(&RulesRevision) -> Option<String>| Arc::new(revisions.iter().map(value).collect::<StringArray>()) as ArrayRef;
    let numbers: UInt64Array = revisions.iter().map(|revision| Some(revision.number)).collect();
    RecordBatch::try_from_iter_with_nullable([
        ("revision", Arc::new(numbers) as ArrayRef, false),
        ("status", texts(|revision| Some(revision.status.text().to_owned())), false),
        ("cut", texts(|revision| revision.since.map(|cut| cut.to_string())), true),
        ("position", texts(|revision| revision.position.clone()), true),
        ("proposed", texts(|revision| Some(revision.proposed_at.clone())), false),
        ("decided", texts(|revision| revision.decided_at.clone()), true),
        ("author", texts(|revision| Some(revision.author.clone())), false),
        ("origin", texts(|revision| Some(revision.origin.clone())), false),
        ("difference", texts(|revision| Some(revision.difference.clone())), false),
        ("reason", texts(|revision| revision.reason.clone()), true),
        (
            "fed_tables",
            Arc::new(fed.into_iter().chain(std::iter::repeat(None)).take(revisions.len()).collect::<StringArray>()),
            true,
        ),
    ])
    .map_err(|error| Error::bug("the list can't be made").caused_by(error))
}

/// The first characters of a text.
fn clipped(text: &str, most: usize) -> &str {
    text.char_indices().nth(most).map_or(text, |(end, _)| &text[..end])
}

/// For people, in 80 columns, newest first.
fn shown(revisions: &[RulesRevision], newest: u64) -> String {
    let mut out = format!("{:>8}  {:8}  {:12}  {:19}  {}\n", "REVISION", "STATUS", "SINCE CUT", "DECIDED", "BY");
    for revision in revisions.iter().rev() {
        let cut = revision.since.map_or_else(|| "-".to_owned(), |cut| cut.to_string());
        let decided = revision.decided_at.as_deref().map_or("-", |time| clipped(time, 19));
        let by = clipped(&revision.author, 25);
        out += &format!("{:>8}  {:8}  {cut:12}  {decided:19}  {by}\n", revision.number, status(revision, newest));
    }
    out
}

fn one(revision: &RulesRevision, fed: &[(TableId, String)], newest: u64) -> String {
    let mut out = format!(
        "revision  {}, {}\nby        {}\nfrom      {}\n",
        revision.number,
        status(revision, newest),
        revision.author,
        revision.origin
    );
    out += &format!("proposed  {}\n", revision.proposed_at);
    let optional = [
        ("decided", revision.decided_at.clone()),
        ("cut", revision.since.map(|cut| cut.to_string())),
        ("position", revision.position.clone()),
        ("reason", revision.reason.clone()),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            out += &format!("{name:8}  {value}\n");
        }
    }
    for (table, position) in fed {
        out += &format!("fed       {table} since {position}\n");
    }
    if !revision.difference.is_empty() {
        out += &format!("\n{}", in_terminal_lines(&revision.difference));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::RulesDecision;

    #[test]
    fn the_list_fits_80_columns() {
        let proposal = |number| RulesRevision {
            proposed_at: "2026-11-22T01:00:00.000001Z".into(),
            ..RulesRevision::proposal("p", number, "somebody@a-machine-with-a-long-name.example.com", "file /etc/binlake.toml")
        };
        let decided = |number, decision| RulesRevision {
            decided_at: Some("2026-11-22T01:00:01.000001Z".into()),
            ..proposal(number).decided(decision)
        };
        let since = Some("3/1234567".parse().unwrap());
        let all = [
            decided(1, RulesDecision::InForce { since: None, position: None }),
            decided(2, RulesDecision::InForce { since, position: Some("uuid:1-5".into()) }),
            decided(3, RulesDecision::Refused("no such table".into())),
            RulesRevision { difference: "+ table s.t\n".into(), ..proposal(4) },
        ];
        let text = shown(&all, 2);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        insta::assert_snapshot!(text, @"
        REVISION  STATUS    SINCE CUT     DECIDED              BY
               4  proposed  -             -                    somebody@a-machine-with-a
               3  refused   -             2026-11-22T01:00:01  somebody@a-machine-with-a
               2  in force  3/1234567     2026-11-22T01:00:01  somebody@a-machine-with-a
               1  replaced  -             2026-11-22T01:00:01  somebody@a-machine-with-a
        ");
        let fed = [("s.f".parse().unwrap(), "shardId-0:17".to_owned())];
        let said = one(&all[3], &fed, 2);
        assert!(
            said.ends_with("proposed  2026-11-22T01:00:00.000001Z\nfed       s.f since shardId-0:17\n\n+ table s.t\n"),
            "{said}"
        );
        assert_eq!(batch(&all, vec![fed_text(&fed)]).unwrap().num_rows(), 4);
    }
}
