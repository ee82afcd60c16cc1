//! Runs all damages on one peer.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

use super::Damage;
use super::child::{REJECTED, Step};
use super::copies::{Copies, Usual, acknowledged, without};
use super::places::{Edit, Places};
use super::process::{self, Process};
use super::verdict::{Cell, Outcome};
use crate::peer::{Peer, Result};
use crate::records::RECORDS;

/// How many appends follow the failed one: one that may end where a rejected record begins, and many.
const FURTHER_APPENDS: [usize; 2] = [1, 20];

/// A directory to work in, and the library that makes syncs fail.
pub struct Bench {
    dir: tempfile::TempDir,
    shim: PathBuf,
}

/// All cells of one peer.
#[derive(Debug, Serialize)]
pub struct PeerResult {
    /// The name on the command line.
    pub id: &'static str,
    /// Name, version and setup.
    pub title: String,
    /// How appends are made durable.
    pub means: &'static str,
    /// What `framing` covers.
    pub framing: &'static str,
    /// The smallest number of syncs between the start of an append and its acknowledgement.
    pub syncs_per_append: u64,
    /// Why there are no cells, where that is so.
    pub unusable: Option<String>,
    /// One for each damage.
    pub cells: Vec<Cell>,
}

impl Bench {
    /// Makes the directory and compiles the library.
    pub fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let source = dir.path().join("failsync.c");
        let shim = dir.path().join("failsync.so");
        fs::write(&source, include_str!("failsync.c"))?;
        let status = Command::new("cc")
            .args(["-O1", "-shared", "-fPIC", "-o"])
            .args([&shim, &source])
            .arg("-ldl")
            .status()
            .map_err(|error| format!("cc cannot be run: {error}"))?;
        if !status.success() {
            return Err(format!("cc ended with {status}").into());
        }
        Ok(Self { dir, shim })
    }

    /// Runs the damages on a peer.
    pub fn run(&self, peer: &dyn Peer, damages: &[Damage]) -> Result<PeerResult> {
        let dir = self.dir.path().join(peer.id());
        fs::create_dir(&dir)?;
        let mut result = PeerResult {
            id: peer.id(),
            title: peer.title(),
            means: peer.means(),
            framing: peer.framing_words(),
            syncs_per_append: 0,
            unusable: None,
            cells: Vec::new(),
        };
        let base = dir.join("base");
        let steps = self.write(peer, &base, &["write"])?;
        result.syncs_per_append = fewest_syncs(&steps);
        if result.syncs_per_append == 0 {
            result.unusable = Some("does not sync before it acknowledges".into());
            return Ok(result);
        }
        peer.before_damage(&base)?;
        let acknowledged: Vec<usize> = acknowledged(&steps);
        if acknowledged.len() < RECORDS {
            result.unusable = Some(format!("acknowledged {} of {RECORDS} records", acknowledged.len()));
            return Ok(result);
        }
        let places = Places::find(peer, &base)?;
        let copies = Copies { peer, base: &base, dir: &dir, steps: &steps };
        let usual = copies.usual()?;
        for &damage in damages {
            let (place, outcomes) = if damage == Damage::FailedSync {
                ("while record 500 is written".into(), self.fail_sync(peer, &dir, &usual)?)
            } else {
                let (place, edits) = places.edits(damage);
                (place, copies.judge_all(&edits, &usual)?)
            };
            result.cells.push(Cell::new(damage.title(), place, &outcomes));
        }
        fs::remove_dir_all(&dir)?;
        Ok(result)
    }

    /// Lets a process write, and returns its steps. Where `Done` is missing, it hung.
    fn write(&self, peer: &dyn Peer, dir: &Path, task: &[&str]) -> Result<Vec<Step>> {
        fs::create_dir(dir)?;
        let out = dir.with_extension("steps");
        let (count, arm) = (dir.with_extension("count"), dir.with_extension("arm"));
        let mut env: Vec<(&str, &OsStr)> = vec![
            ("LD_PRELOAD", self.shim.as_os_str()),
            ("SYNCLOG_PEERS_COUNT", count.as_os_str()),
            ("SYNCLOG_PEERS_ARM", arm.as_os_str()),
            ("SYNCLOG_PEERS_FILE", OsStr::new(peer.data_files())),
        ];
        env.extend(peer.env().map(|name| (name, dir.as_os_str())));
        let mut args = vec![OsStr::new(task[0]), OsStr::new(peer.id()), dir.as_os_str(), out.as_os_str()];
        args.extend(task[1..].iter().map(OsStr::new));
        let is_done = || process::lines(&out).last().is_some_and(|line| line == "\"Done\"");
        let text = dir.with_extension("text");
        let ended = Process::start(&args, &env, &text)?.wait_for(is_done)?;
        if let Some(crash) = ended.and_then(process::crash) {
            let said = process::lines(&text.with_extension("err")).join("\n");
            return Err(format!("{}: the process that writes ended: {crash}: {said}", peer.id()).into());
        }
        let steps = process::lines(&out)
            .iter()
            .map(|line| serde_json::from_str(line))
            .collect::<Result<_, serde_json::Error>>();
        Ok(steps?)
    }

    fn fail_sync(&self, peer: &dyn Peer, dir: &Path, usual: &Usual) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        for further in FURTHER_APPENDS {
            let base = dir.join(format!("fail{further}"));
            let steps = self.write(peer, &base, &["fail", &further.to_string()])?;
            let copies = Copies { peer, base: &base, dir, steps: &steps };
            let mut outcome = copies.judge(&Edit::Nothing, &format!("failed{further}"), usual)?;
            outcome.handle_hung = !steps.iter().any(|step| matches!(step, Step::Done));
            outcome.answers = answers(&steps).iter().map(|answer| without(answer, dir)).collect();
            let refused = steps.iter().filter(|step| matches!(step, Step::Refused { .. })).count();
            outcome.handle_stops = refused > further;
            let hung = outcome.handle_hung;
            outcomes.push(outcome);
            fs::remove_dir_all(base)?;
            if hung {
                break;
            }
        }
        Ok(outcomes)
    }
}

fn fewest_syncs(steps: &[Step]) -> u64 {
    let syncs = |step: &Step| match step {
        Step::Acknowledged { syncs, .. } => Some(*syncs),
        _ => None,
    };
    steps.iter().filter_map(syncs).min().unwrap_or(0)
}

/// What the failed append and the first one after it answered.
fn answers(steps: &[Step]) -> Vec<String> {
    let answer = |step: &Step| match step {
        Step::Acknowledged { number, syncs } if *number >= REJECTED[0] => {
            Some(format!("acknowledged after {syncs} successful syncs"))
        }
        Step::Refused { error, .. } => Some(error.clone()),
        _ => None,
    };
    steps.iter().filter_map(answer).take(2).collect()
}
