//! The command line.

use std::path::PathBuf;

use crate::contestant::Result;

/// What `--help` prints.
pub const HELP: &str = "\
speed: synclog beside what one would use instead, and beside what the disk can do

  --rounds N       rounds of each work, each contestant once in each [5]
  --seconds S      how long a contestant appends in a round of S1 to S5 [1]
  --events N       events of S6 to S13 [1000000]
  --huge           10000000 events in S10 and S11, and in the growth table
  --only S1,S2     only these rows
  --growth         only the growth table
  --check-syncs    only the check that each append is synced
  --quick          tiny counts and one round: shows that it works, and nothing else
  --dir DIR        where the files go [the directory for temporary files]
  --synclog PATH   the program for S13 [target/release/synclog, built where it is missing]
  --json FILE      also write the figures as JSON
  --markdown       print Markdown
";

/// The rows that `--only` takes.
const ROWS: [&str; 13] = ["S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9", "S10", "S11", "S12", "S13"];

/// What a huge run counts.
pub const HUGE: u64 = 10_000_000;

/// What is to be done.
pub struct Args {
    pub rounds: usize,
    pub seconds: f64,
    pub events: u64,
    pub prefill: u64,
    pub huge: bool,
    pub only: Vec<String>,
    pub growth: bool,
    pub check_syncs: bool,
    pub quick: bool,
    pub help: bool,
    pub dir: PathBuf,
    pub synclog: Option<PathBuf>,
    pub json: Option<PathBuf>,
    pub markdown: bool,
}

impl Args {
    /// Reads the arguments, without the program's name.
    pub fn parse(args: impl Iterator<Item = String>) -> Result<Self> {
        let mut found = Self {
            rounds: 5,
            seconds: 1.0,
            events: 1_000_000,
            prefill: 100_000,
            huge: false,
            only: Vec::new(),
            growth: false,
            check_syncs: false,
            quick: false,
            help: false,
            dir: std::env::temp_dir(),
            synclog: None,
            json: None,
            markdown: false,
        };
        let args: Vec<String> = args.collect();
        // First, so that other options have the last word.
        if args.iter().any(|arg| arg == "--quick") {
            (found.quick, found.rounds, found.seconds) = (true, 1, 0.1);
            (found.events, found.prefill) = (2_000, 1_000);
        }
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--rounds" => found.rounds = value()?.parse()?,
                "--seconds" => found.seconds = value()?.parse()?,
                "--events" => found.events = value()?.parse()?,
                "--only" => found.only = value()?.split(',').map(str::to_uppercase).collect(),
                "--dir" => found.dir = value()?.into(),
                "--synclog" => found.synclog = Some(value()?.into()),
                "--json" => found.json = Some(value()?.into()),
                "--huge" => found.huge = true,
                "--growth" => found.growth = true,
                "--check-syncs" => found.check_syncs = true,
                "--markdown" => found.markdown = true,
                "--help" | "-h" => found.help = true,
                "--quick" => {}
                _ => return Err(format!("unknown argument {arg}; try --help").into()),
            }
        }
        if let Some(unknown) = found.only.iter().find(|only| !ROWS.contains(&only.as_str())) {
            return Err(format!("there is no row {unknown}").into());
        }
        if found.rounds == 0 || found.events == 0 || found.seconds <= 0.0 {
            return Err("rounds, events and seconds must be more than 0".into());
        }
        Ok(found)
    }

    /// Whether this row is wanted.
    pub fn wants(&self, id: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == id)
    }

    /// Whether any of these rows is wanted.
    pub fn wants_any(&self, ids: &[&str]) -> bool {
        ids.iter().any(|id| self.wants(id))
    }

    /// How many events the largest store has.
    pub fn most_events(&self) -> u64 {
        if self.huge { HUGE } else { self.events }
    }
}
