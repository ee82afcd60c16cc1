//! Where the figures come from: the machine, the toolchain, the versions.

use std::path::Path;
use std::process::Command;

use crate::contestant::version;

/// Crates whose versions are told.
const CRATES: [&str; 8] =
    ["synclog", "rusqlite", "raft-engine", "okaywal", "fjall", "redb", "seglog", "crc32fast"];

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn cpu() -> String {
    let info = read("/proc/cpuinfo");
    let model = info.lines().find(|line| line.starts_with("model name"));
    model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown").to_owned()
}

/// The type of the file system that a directory lies on, and its device.
fn file_system(dir: &Path) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.into());
    let mounts = read("/proc/self/mounts");
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let above = fields.filter(|fields| fields.len() > 3 && dir.starts_with(fields[1]));
    // Of two mounts at the same place, the later one is seen.
    above.max_by_key(|fields| fields[1].len()).map_or("unknown".into(), |fields| {
        let memory = if fields[2] == "tmpfs" { "; in memory, so syncs cost nothing: use --dir" } else { "" };
        format!("{} on {} ({}){memory}", fields[2], fields[0], fields[3])
    })
}

fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

/// Name and value of everything worth knowing.
pub fn facts(dir: &Path) -> Vec<(String, String)> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let versions: Vec<String> = CRATES.iter().map(|name| format!("{name} {}", version(name))).collect();
    let command: Vec<String> = std::env::args().skip(1).collect();
    let rustc = first_line(Command::new("rustc").arg("-V")).unwrap_or_else(|| "unknown".into());
    [
        ("machine", format!("{cores} cores, {}", cpu())),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("load when it started", read("/proc/loadavg").trim().to_owned()),
        ("file system", file_system(dir)),
        ("rustc", rustc),
        ("versions", format!("{}, SQLite {}", versions.join(", "), rusqlite::version())),
        ("command", format!("speed {}", command.join(" "))),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The first line that `program argument` prints; `None` where there is no such program.
pub fn program_version(program: &str, argument: &str) -> Option<String> {
    first_line(Command::new(program).arg(argument))
}
