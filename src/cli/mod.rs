//! The commands of `binlake`: one file each. Help texts are the doc comments.

mod apply;
mod backfill;
mod clean;
mod ddl;
mod dead_letter;
mod demo;
mod doctor;
mod erase;
mod generate;
mod list;
mod logging;
mod maintain;
mod orders;
mod query;
mod rules;
mod run;
mod runs;
mod scale;
mod service;
mod stream;
mod tables;
mod tickets;
mod timeline;
mod verify;
mod workload;

pub use logging::LogFormat;

use crate::config::{Config, Needs};
use crate::error::{Error, Result};
use crate::pipeline::rules_in_force;
use crate::table::Lake;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Replicates MySQL tables into a data lake: continuously, exactly once, in the order in which the source committed them.
///
/// One process reads the binlog, keeps the rows in a log of its own and writes Apache Hudi tables, which Athena, Spark, Trino,
/// DuckDB and `binlake query` read.
#[derive(Debug, Parser)]
#[command(name = "binlake", version, max_term_width = 80, arg_required_else_help = true)]
#[command(after_help = "\
Exit codes: 0 done, 1 the answer is no (verify, doctor), 2 usage or
configuration, 3 source, 4 stream, 5 lake, 70 a fault of binlake's own.

Try it, with nothing set up:   binlake demo")]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// The heading of the options that every command takes.
const EVERYWHERE: &str = "Options of every command";

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", global = true, help_heading = EVERYWHERE, long_help = "The configuration file [default: ./binlake.toml]")]
    config: Option<PathBuf>,
    /// Log lines and errors on stderr: text, or json with one object a line
    #[arg(long, value_name = "FORMAT", default_value = "text", global = true, help_heading = EVERYWHERE, hide_possible_values = true)]
    log_format: LogFormat,
    /// error, warn, info (default), debug, trace; or info,binlake::source=debug
    #[arg(long, value_name = "LEVEL", global = true, help_heading = EVERYWHERE)]
    log_level: Option<String>,
}

impl Global {
    /// Reads the configuration.
    pub fn config(&self) -> Result<Config> {
        Config::load(self.config.as_deref(), Needs::All)
    }

    /// Reads the configuration for a command that needs the lake alone.
    pub fn lake_config(&self) -> Result<Config> {
        Config::load(self.config.as_deref(), Needs::Lake)
    }

    /// Reads the configuration, for a command that goes by the rules in force.
    pub async fn ruled(&self) -> Result<Ruled> {
        Ok(by_rules_in_force(self.config()?).await)
    }

    /// The same for a command that needs the lake alone.
    pub async fn ruled_lake(&self) -> Result<Ruled> {
        Ok(by_rules_in_force(self.lake_config()?).await)
    }
}

/// What a command goes by.
#[derive(Debug)]
pub struct Ruled {
    /// The configuration, by the rules in force.
    pub config: Config,
    /// Its lake, opened once for the rules and the command.
    pub lake: Result<Lake>,
}

/// Where the service has other rules than the file, these count, and a line says so.
async fn by_rules_in_force(config: Config) -> Ruled {
    let lake = Lake::open(&config.lake.url);
    let config = match rules_in_force(config.clone(), lake.as_ref().ok()).await {
        Ok(ruled) => {
            if let (Some(revision), false) = (ruled.revision, ruled.difference.is_empty()) {
                tracing::warn!(
                    revision,
                    file = %config.file.display(),
                    "the service goes by other rules than the file has, and so does this command; `binlake apply --dry-run` shows in what they differ"
                );
            }
            ruled.config
        }
        Err(error) => {
            tracing::warn!(%error, "the rules in force can't be looked at: this command goes by the file's");
            config
        }
    };
    Ruled { config, lake }
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Capture(run::Capture),
    Merge(run::Merge),
    Backfill(backfill::Backfill),
    Apply(apply::Apply),
    Query(query::Query),
    Tables(tables::Tables),
    Timeline(timeline::Timeline),
    Rollback(maintain::Rollback),
    Savepoint(maintain::Savepoint),
    Restore(maintain::Restore),
    Clean(clean::Clean),
    Erase(erase::Erase),
    Ddl(ddl::Ddl),
    Cluster(maintain::Cluster),
    Verify(verify::Verify),
    Doctor(doctor::Doctor),
    Scale(scale::Scale),
    Runs(runs::Runs),
    Rules(rules::Rules),
    Stream(stream::Stream),
    DeadLetter(dead_letter::DeadLetter),
    Generate(generate::Generate),
    Demo(demo::Demo),
}

impl Command {
    /// What is logged if the command line doesn't say: the demo's screen leaves no room for more.
    fn log_level(&self) -> &'static str {
        if matches!(self, Command::Demo(_)) { "error" } else { "info" }
    }
}

/// What a command that went well answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Done: exit code 0.
    Done,
    /// The answer is no (verify, doctor): exit code 1.
    No,
}

/// Reads the command line, does what it says, and returns the exit code that the contract has for the outcome.
pub fn main() -> ExitCode {
    end_without_reader();
    // clap prints help and usage errors itself: 0 and 2
    let cli = Cli::parse();
    let format = cli.global.log_format;
    match logging::start(&cli.global, cli.command.log_level()).and_then(|()| runtime()?.block_on(dispatch(cli))) {
        Ok(Answer::Done) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(error) => {
            logging::print_error(format, &error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Whoever read what is printed may have seen enough, as `| head` has: then there is nothing to do any more, and nothing to say.
fn end_without_reader() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let said = panic.payload().downcast_ref::<String>().map_or("", String::as_str);
        if said.starts_with("failed printing to stdout") && said.contains("Broken pipe") {
            // as a shell says it of those that the signal ends
            std::process::exit(141);
        }
        usual(panic);
    }));
}

/// As many workers as cores; few threads for blocking calls, each gone after some idle seconds.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(64)
        .thread_keep_alive(std::time::Duration::from_secs(5))
        .thread_name("binlake")
        .build()
        .map_err(|error| {
            Error::config("the process can't start its threads").caused_by(error).remedy("raise the limit of threads (ulimit -u)")
        })
}

async fn dispatch(cli: Cli) -> Result<Answer> {
    let global = &cli.global;
    match cli.command {
        Command::Run(args) => args.run(global).await,
        Command::Capture(args) => args.run(global).await,
        Command::Merge(args) => args.run(global).await,
        Command::Backfill(args) => args.run(global).await,
        Command::Apply(args) => args.run(global).await,
        Command::Query(args) => args.run(global).await,
        Command::Tables(args) => args.run(global).await,
        Command::Timeline(args) => args.run(global).await,
        Command::Clean(args) => args.run(global).await,
        Command::Erase(args) => args.run(global).await,
        Command::Ddl(args) => args.run(global).await,
        Command::Verify(args) => args.run(global).await,
        Command::Doctor(args) => args.run(global).await,
        Command::Scale(args) => args.run(global).await,
        Command::Runs(args) => args.run(global).await,
        Command::Rules(args) => args.run(global).await,
        Command::Stream(args) => args.run(global).await,
        Command::DeadLetter(args) => args.run(global).await,
        Command::Generate(args) => args.run(global).await,
        Command::Demo(args) => args.run(global).await,
        Command::Rollback(args) => args.run(global).await,
        Command::Savepoint(args) => args.run(global).await,
        Command::Restore(args) => args.run(global).await,
        Command::Cluster(args) => args.run(global).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
