//! `completions` and `man`: both from the definition of the arguments.

use clap::{Args, CommandFactory};

use super::args::Cli;
use super::exit::{Exit, Stop};
use super::out::Out;

/// Options of `completions`.
#[derive(Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// Options of `man`.
#[derive(Args)]
pub(crate) struct ManArgs {
    /// The page of one command, instead of the page of the program
    command: Option<String>,
}

/// Runs `completions`.
pub(crate) fn completions(args: &CompletionsArgs, out: &mut Out) -> Result<Exit, Stop> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "synclog", &mut script);
    out.bytes(&script)?;
    Ok(Exit::Ok)
}

/// Runs `man`.
pub(crate) fn man(args: &ManArgs, out: &mut Out) -> Result<Exit, Stop> {
    let mut program = Cli::command();
    program.build();
    let page = match &args.command {
        None => clap_mangen::Man::new(program),
        Some(name) => {
            let found = program.get_subcommands().find(|command| command.get_name() == name).cloned();
            let command = found.ok_or_else(|| Stop::usage(format!("there is no command {name:?}")))?;
            clap_mangen::Man::new(command).title(format!("synclog-{name}"))
        }
    };
    let mut roff = Vec::new();
    page.render(&mut roff).map_err(|error| Stop::output(&error))?;
    out.bytes(&roff)?;
    Ok(Exit::Ok)
}
