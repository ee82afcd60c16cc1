//! What runs in the processes that may crash or hang. Results go to a file as they come.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::peer::{Found, Peer, Result};
use crate::records::{self, RECORDS, TARGET};

/// Numbers of the records that the failing append is given.
pub const REJECTED: [usize; 2] = [100_000, 100_001];

/// Numbers of the records that are appended after it, from here on.
pub const FURTHER: usize = 200_000;

/// How much shorter the first record after the failed batch is than the batch's first one: the size of
/// seglog's commit marker. So a log that writes over a rejected batch ends where its second record begins.
const SHORTER: usize = 17;

/// One line in the file of results of a process that writes.
#[derive(Debug, Serialize, Deserialize)]
pub enum Step {
    /// The record with this number is acknowledged, after so many syncs since its append began.
    Acknowledged { number: usize, syncs: u64 },
    /// An append was refused.
    Refused { numbers: Vec<usize>, error: String },
    /// All is done.
    Done,
}

/// What a process that reads leaves, beside the records themselves.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Whether opening succeeded.
    pub opened: bool,
    /// The error that ended opening or reading.
    pub error: Option<String>,
    /// What the API told otherwise.
    pub told: Vec<String>,
}

/// The record with this number, as it was written.
pub fn written(number: usize) -> Vec<u8> {
    if number == FURTHER {
        records::record_of_len(number, records::record(REJECTED[0]).len() - SHORTER)
    } else {
        records::record(number)
    }
}

/// Runs what the arguments after `child` say.
pub fn run(args: &[String]) -> Result<()> {
    // Warnings of `tracing` and of `log` go to standard error, where they count as said.
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .init();
    let [task, peer, dir, out, rest @ ..] = args else { return Err("child TASK PEER DIR OUT".into()) };
    let peer = crate::peers::all().into_iter().find(|known| known.id() == peer).ok_or("unknown peer")?;
    let (dir, out) = (Path::new(dir), Path::new(out));
    match (task.as_str(), rest) {
        ("write", []) => write(peer.as_ref(), dir, out),
        ("fail", [further]) => fail(peer.as_ref(), dir, out, further.parse()?),
        ("read", []) => read(peer.as_ref(), dir, out),
        _ => Err("unknown task".into()),
    }
}

struct Steps(File);

impl Steps {
    fn put(&mut self, step: &Step) -> Result<()> {
        let mut line = serde_json::to_vec(step)?;
        line.push(b'\n');
        Ok(self.0.write_all(&line)?)
    }
}

fn syncs() -> u64 {
    let count = std::env::var_os("SYNCLOG_PEERS_COUNT").unwrap_or_default();
    fs::metadata(count).map_or(0, |file| file.len())
}

/// Appends one record and notes the outcome. False where it was refused.
fn append(log: &mut dyn crate::peer::Log, steps: &mut Steps, numbers: &[usize]) -> Result<bool> {
    let records: Vec<_> = numbers.iter().map(|&number| written(number)).collect();
    let batch: Vec<_> = records.iter().map(Vec::as_slice).collect();
    let before = syncs();
    match log.append(&batch) {
        Ok(()) => {
            let syncs = syncs() - before;
            for &number in numbers {
                steps.put(&Step::Acknowledged { number, syncs })?;
            }
            Ok(true)
        }
        Err(error) => {
            steps.put(&Step::Refused { numbers: numbers.to_vec(), error: error.to_string() })?;
            Ok(false)
        }
    }
}

/// Waits to be killed, with the log still open, as in a crash while nothing is being written.
fn park(mut steps: Steps) -> Result<()> {
    std::thread::sleep(Duration::from_millis(200));
    steps.put(&Step::Done)?;
    // Nobody kills it where the program that started it is gone.
    std::thread::sleep(Duration::from_secs(60));
    Ok(())
}

fn write(peer: &dyn Peer, dir: &Path, out: &Path) -> Result<()> {
    let mut steps = Steps(File::create(out)?);
    let mut log = peer.open(dir)?;
    for number in 0..RECORDS {
        append(log.as_mut(), &mut steps, &[number])?;
    }
    if peer.closes() {
        drop(log);
        return steps.put(&Step::Done);
    }
    park(steps)
}

/// Writes half of the records, then a batch whose sync fails, then `further` records.
fn fail(peer: &dyn Peer, dir: &Path, out: &Path, further: usize) -> Result<()> {
    let mut steps = Steps(File::create(out)?);
    let mut log = peer.open(dir)?;
    for number in 0..TARGET {
        append(log.as_mut(), &mut steps, &[number])?;
    }
    let arm = PathBuf::from(std::env::var_os("SYNCLOG_PEERS_ARM").ok_or("nothing to arm")?);
    File::create(&arm)?;
    append(log.as_mut(), &mut steps, if peer.has_batches() { &REJECTED } else { &REJECTED[..1] })?;
    if arm.exists() {
        return Err("no sync was made to fail".into());
    }
    for number in FURTHER..FURTHER + further {
        append(log.as_mut(), &mut steps, &[number])?;
    }
    park(steps)
}

/// Reads everything. Records go to `OUT.records` one by one, each with its length before it.
fn read(peer: &dyn Peer, dir: &Path, out: &Path) -> Result<()> {
    let mut file = File::create(out.with_extension("records"))?;
    let mut trouble = None;
    let mut each = |record: &[u8]| {
        let mut bytes = (record.len() as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(record);
        if let Err(error) = file.write_all(&bytes) {
            trouble = Some(error);
        }
    };
    let mut found = Found::new(&mut each);
    let error = peer.read(dir, &mut found).err().map(|error| error.to_string());
    let report = Report { opened: found.opened, error, told: found.told };
    if let Some(error) = trouble {
        return Err(error.into());
    }
    Ok(fs::write(out, serde_json::to_vec(&report)?)?)
}
