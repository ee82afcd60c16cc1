//! From the arguments to the exit code.

mod append;
mod args;
mod exit;
mod export;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod generate;
mod import;
mod list;
mod out;
mod repair;
mod replay;
mod runs;
mod signals;
mod status;
mod stdin;
mod stdin_line;
mod tail;
mod tail_files;
mod text;
mod time;
mod verify;
mod wait;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use exit::{Exit, Stop};
use out::Out;

/// What SQLite may take in bytes: several times as much as the longest row and all its caches.
const SQLITE_MEMORY: u64 = 512 * 1024 * 1024;

/// Runs the command that the arguments name.
#[cfg_attr(fuzzing, allow(dead_code))]
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    start_tracing(&cli);
    signals::outlive_file_limit();
    synclog::limit_sqlite_memory(SQLITE_MEMORY);
    let exit = match run(&cli) {
        Ok(exit) => exit,
        // Whoever read our output has seen enough.
        Err(Stop::OutputClosed) => Exit::Ok,
        Err(Stop::Failed(failure)) => {
            failure.tell();
            failure.exit
        }
    };
    ExitCode::from(exit.code())
}

#[cfg_attr(fuzzing, allow(dead_code))]
fn run(cli: &Cli) -> Result<Exit, Stop> {
    run_into(cli, Out::new())
}

fn run_into(cli: &Cli, mut out: Out) -> Result<Exit, Stop> {
    let global = &cli.global;
    let exit = match &cli.command {
        Command::Append(args) => append::run(global, args, &mut out),
        Command::List(args) => list::run(global, args, &mut out),
        Command::Tail(args) => tail::run(global, args, &mut out),
        Command::Runs(args) => runs::run(global, args, &mut out),
        Command::Status => status::run(global, &mut out),
        Command::Verify(args) => verify::run(global, args, &mut out),
        Command::Replay(args) => replay::run(global, args, &mut out),
        Command::Repair(args) => repair::run(global, args, &mut out),
        Command::Export(args) => export::run(global, args, &mut out),
        Command::Import(args) => import::run(global, args, &mut out),
        Command::Completions(args) => generate::completions(args, &mut out),
        Command::Man(args) => generate::man(args, &mut out),
    }?;
    out.flush()?;
    Ok(exit)
}

/// Shows the help that was asked for, or what is wrong with the arguments. Not through clap's own
/// printing, because an argument may hold anything, and a closed pipe must not matter.
fn refuse(error: &clap::Error) -> ExitCode {
    let text = text::escape_lines(&error.render().to_string());
    if error.use_stderr() {
        out::tell_raw(&text);
        return ExitCode::from(Exit::Usage.code());
    }
    let mut out = Out::new();
    match out.text(&text).and_then(|()| out.flush()) {
        Ok(()) | Err(Stop::OutputClosed) => ExitCode::from(Exit::Ok.code()),
        Err(Stop::Failed(failure)) => {
            failure.tell();
            ExitCode::from(failure.exit.code())
        }
    }
}

/// What the library reports goes to stderr, escaped like everything else there.
fn start_tracing(cli: &Cli) {
    // Replay lists what it found itself, so the same warnings would come twice.
    let warnings = !matches!(cli.command, Command::Replay(_));
    tracing_subscriber::fmt()
        .with_max_level(cli.global.tracing_level(warnings))
        .with_writer(|| out::EscapedStderr)
        .with_ansi(false)
        .with_target(false)
        .without_time()
        // It would tell of them with a macro that panics where stderr takes nothing.
        .log_internal_errors(false)
        .init();
}
