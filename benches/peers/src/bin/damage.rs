//! `damage [--json FILE] [--markdown] [--peer ID]… [--damage NAME]…`: the same damages to synclog and to
//! others.

use std::process::ExitCode;

use synclog_peers::damage::{Bench, Damage, child, report};
use synclog_peers::peer::Result;
use synclog_peers::peers;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|first| first == "child") {
        return child::run(&args[1..]);
    }
    let (mut json, mut markdown) = (None, false);
    let (mut names, mut damages) = (Vec::new(), Vec::new());
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--json" => json = Some(value()?),
            "--markdown" => markdown = true,
            "--peer" => names.push(value()?),
            "--damage" => {
                let name = value()?;
                let found = Damage::ALL.into_iter().find(|damage| damage.title() == name);
                damages.push(found.ok_or(format!("no damage {name}"))?);
            }
            _ => return Err(format!("unknown argument {arg}").into()),
        }
    }
    if damages.is_empty() {
        damages.extend(Damage::ALL);
    }
    let bench = Bench::new()?;
    let mut results = Vec::new();
    for peer in peers::all() {
        if names.is_empty() || names.iter().any(|name| name == peer.id()) {
            eprintln!("{}", peer.title());
            results.push(bench.run(peer.as_ref(), &damages)?);
        }
    }
    if let Some(file) = json {
        std::fs::write(file, serde_json::to_string_pretty(&report::json(&results))? + "\n")?;
    }
    print!("{}", if markdown { report::markdown(&results) } else { report::text(&results) });
    println!("{}", report::last_line(&results));
    Ok(())
}
