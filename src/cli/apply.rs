//! `binlake apply`: other rules for a running service.

use super::{Answer, Global};
use crate::config::{Config, in_terminal_lines};
use crate::error::{Error, Result};
use crate::pipeline::{RulesBook, RulesOutcome, RulesPlan, origin_of, user};
use crate::setting::parse_duration;
use clap::Args;
use std::sync::Arc;
use std::time::Duration;

/// Has a running service go by the file's tables, lookups and deliveries
///
/// The rules are checked as at a start, and what differs from those in force is
/// shown. Then they are proposed; the service takes them up at a cut, which is
/// printed: rows up to it are of the rules before, all behind it of the new
/// ones, on all workers. Nothing is lost, and nothing restarts. What a running
/// service can't do (a table's key, its partitions) is refused with the remedy.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  binlake apply --dry-run
  binlake apply
  binlake apply --rollback
  binlake apply --rollback 3

Exit code 1: proposed, but no service has taken it up in time.")]
pub(super) struct Apply {
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
    /// Propose an earlier revision again; without a number, the one before
    #[arg(long, value_name = "REVISION", num_args = 0..=1)]
    rollback: Option<Option<u64>>,
    /// How long to wait until it is in force
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    timeout: Duration,
}

impl Apply {
    pub(super) async fn run(self, global: &Global) -> Result<Answer> {
        let config = Arc::new(global.config()?);
        let book = RulesBook::look_into(config.clone()).await?;
        let plan = match self.rollback {
            None => book.plan_of_file().await?,
            Some(revision) => book.plan_of_revision(revision).await?,
        };
        if plan.is_empty() {
            println!("no change: revision {} is in force", plan.against);
            if self.rollback.is_none() && !self.dry_run {
                book.note_file().await?;
            }
            return Ok(Answer::Done);
        }
        print!("{}", in_terminal_lines(&plan.shown()));
        if self.dry_run {
            return Ok(Answer::Done);
        }
        self.propose(&book, &plan, &config).await
    }

    async fn propose(&self, book: &RulesBook, plan: &RulesPlan, config: &Config) -> Result<Answer> {
        let number = book.propose(plan, &user(), &origin_of(&config.file)).await?;
        println!("revision {number} is proposed");
        if self.rollback.is_none() {
            book.note_file().await?;
        }
        match book.outcome(number, self.timeout).await? {
            RulesOutcome::InForce(revision) => {
                match (revision.since, revision.position) {
                    (Some(cut), Some(position)) => println!("in force since cut {cut}\n  at {position}"),
                    (Some(cut), None) => println!("in force since cut {cut}"),
                    (None, _) => println!("in force"),
                }
                Ok(Answer::Done)
            }
            RulesOutcome::Refused(revision) => {
                Err(Error::config(format!("the service refused the rules: {}", revision.reason.unwrap_or_default()))
                    .with("revision", number)
                    .remedy("correct the file and apply it again"))
            }
            RulesOutcome::Waiting => {
                println!("no service has taken it up yet; the next one that captures does, and `binlake rules` tells");
                Ok(Answer::No)
            }
        }
    }
}
