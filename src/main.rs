//! The command line of synclog.
//!
//! `cli/mod.rs` starts everything, `cli/args.rs` has the global options, and each command has a file
//! of its own. Exit codes are in `cli/exit.rs`, all output goes through `cli/out.rs`.

mod cli;
mod standing;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
