//! The arguments: global options and the list of commands.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use jiff::tz::TimeZone;
use synclog::Options;
use tracing_subscriber::filter::LevelFilter;

use super::exit::{Exit, Stop};
use super::{append, export, generate, import, list, out, repair, replay, runs, tail, time, verify};

/// Keeps the history of sync runs in a checksummed, append-only log.
///
/// When `append` returns, the event is on disk. SQLite is a view of the log that anyone may query and
/// anyone may delete.
#[derive(Parser)]
#[command(name = "synclog", version, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 ok; 1 failure; 2 usage; 3 the database differs from the log \
    (`synclog replay` heals it); 4 the log is damaged or events are missing; 5 done, but some input was \
    rejected; 10 no store here; 11 another writer holds it; 13 newer format; 130 and 143 signals.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What the program does.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Append one event, or many from stdin
    Append(append::AppendArgs),
    /// List rows, newest first
    List(list::ListArgs),
    /// Show the last events of the log, and what follows
    Tail(tail::TailArgs),
    /// List runs, oldest first: open, stuck, ok and failed ones
    Runs(runs::RunsArgs),
    /// Tell where the store is and how it is
    Status,
    /// Check every frame and every row; changes nothing
    Verify(verify::VerifyArgs),
    /// Mend the database from the log
    Replay(replay::ReplayArgs),
    /// Mend the log from what the database proves
    Repair(repair::RepairArgs),
    /// Write every event of the log as JSON lines
    Export(export::ExportArgs),
    /// Take in history from a file, each record once
    Import(import::ImportArgs),
    /// Write completions for a shell
    Completions(generate::CompletionsArgs),
    /// Write the manual page
    Man(generate::ManArgs),
}

/// In which form data is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// One JSON array
    Json,
    /// One JSON object a line
    Ndjson,
}

/// When to use colors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Options of every command.
#[derive(Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The directory of the store [default: the platform's data directory]
    #[arg(short, long, global = true, env = "SYNCLOG_DIR", hide_env_values = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The form of the output [default: table on a terminal, ndjson otherwise]
    #[arg(short, long, global = true, value_enum)]
    pub(crate) output: Option<Output>,
    /// How long a writer waits for another one, such as 500ms, 10s or 0
    #[arg(long, global = true, value_name = "TIME", default_value = "10s", value_parser = time::duration)]
    pub(crate) wait: Duration,
    /// When to color tables
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value = "auto")]
    color: Color,
    /// Show times in tables in UTC
    #[arg(long, global = true, conflicts_with = "tz")]
    utc: bool,
    /// Show times in tables in this zone, and read times without a zone in it
    /// [default: show in the system's zone, read as UTC]
    #[arg(long, global = true, value_name = "ZONE", value_parser = time::zone, allow_hyphen_values = true)]
    tz: Option<TimeZone>,
    /// Say less on stderr
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more on stderr; twice for even more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

impl Global {
    /// The directory of the store: as given, or the platform's. Never the working directory by default.
    pub(crate) fn dir(&self) -> Result<PathBuf, Stop> {
        if let Some(dir) = &self.dir {
            return Ok(dir.clone());
        }
        match directories::ProjectDirs::from("", "", "synclog") {
            Some(dirs) if dirs.data_dir().is_absolute() => Ok(dirs.data_dir().to_owned()),
            _ => Err(Stop::new(Exit::Usage, "there is no data directory for this user")
                .hint("name the directory of the store with --dir or SYNCLOG_DIR")),
        }
    }

    /// How to open the store for writing.
    pub(crate) fn options(&self, create: bool) -> Options {
        Options::default().create(create).lock_wait(self.wait)
    }

    /// The form of the output.
    pub(crate) fn output(&self) -> Output {
        self.output
            .unwrap_or_else(|| if std::io::stdout().is_terminal() { Output::Table } else { Output::Ndjson })
    }

    /// Whether tables are colored.
    pub(crate) fn color(&self) -> bool {
        match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                std::io::stdout().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                    && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
            }
        }
    }

    /// The zone of times in tables.
    pub(crate) fn shown_zone(&self) -> TimeZone {
        match &self.tz {
            Some(zone) => zone.clone(),
            None if self.utc => TimeZone::UTC,
            None => TimeZone::system(),
        }
    }

    /// The zone of times in arguments that name none.
    pub(crate) fn read_zone(&self) -> TimeZone {
        self.tz.clone().unwrap_or(TimeZone::UTC)
    }

    /// Writes a note to stderr, unless the user wants it quiet.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            out::tell(text);
        }
    }

    /// How much of the library's own reports is shown. Without `warnings` only errors are by default.
    pub(crate) fn tracing_level(&self, warnings: bool) -> LevelFilter {
        match (self.quiet, self.verbose) {
            (true, _) => LevelFilter::ERROR,
            (false, 0) if !warnings => LevelFilter::ERROR,
            (false, 0) => LevelFilter::WARN,
            (false, 1) => LevelFilter::INFO,
            (false, 2) => LevelFilter::DEBUG,
            (false, _) => LevelFilter::TRACE,
        }
    }
}

/// Which company.
#[derive(Args)]
pub(crate) struct CompanyArgs {
    /// Only companies with this guid
    #[arg(long, value_name = "GUID")]
    pub(crate) company_guid: Option<String>,
    /// Only companies with this alterid
    #[arg(long, value_name = "ALTERID")]
    pub(crate) company_alterid: Option<String>,
}

/// A parser for one of a few words, in any letter case.
pub(crate) fn word<T>(
    words: impl IntoIterator<Item = &'static str>,
) -> impl clap::builder::TypedValueParser<Value = T>
where
    T: std::str::FromStr<Err = synclog::Error> + Clone + Send + Sync + 'static,
{
    use clap::builder::TypedValueParser;
    clap::builder::PossibleValuesParser::new(words).try_map(|text| text.parse::<T>())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
