//! Copies of what one process wrote: damaged, read by another process, and judged.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::child::{FURTHER, REJECTED, Report, Step, written};
use super::files;
use super::places::Edit;
use super::process::{self, Process};
use super::verdict::{How, Outcome};
use crate::peer::{Peer, Result};

/// How much of what a peer said is kept.
const SAID_LINES: usize = 6;

/// What a peer says of files without damage: it is not counted. Numbers are left out.
pub(super) type Usual = BTreeSet<String>;

/// Copies of the files that one process wrote.
pub(super) struct Copies<'a> {
    pub(super) peer: &'a dyn Peer,
    pub(super) base: &'a Path,
    pub(super) dir: &'a Path,
    pub(super) steps: &'a [Step],
}

impl Copies<'_> {
    pub(super) fn usual(&self) -> Result<Usual> {
        let read = self.read(&Edit::Nothing, "usual")?;
        if let Some(error) = read.report.error {
            return Err(format!("{} without damage: {error}", self.peer.id()).into());
        }
        Ok(read
            .report
            .told
            .iter()
            .chain(&read.warned)
            .chain(&read.printed)
            .map(|line| general(line))
            .collect())
    }

    /// All edits, each on a copy of its own, on as many threads as there are processors.
    pub(super) fn judge_all(&self, edits: &[Edit], usual: &Usual) -> Result<Vec<Outcome>> {
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Vec::new());
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(edit) = edits.get(number) else { return };
                        let outcome = self.judge(edit, &format!("copy{number}"), usual);
                        done.lock().unwrap_or_else(PoisonError::into_inner).push((number, outcome));
                    }
                });
            }
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(number, _)| *number);
        done.into_iter().map(|(_, outcome)| outcome).collect()
    }

    pub(super) fn judge(&self, edit: &Edit, name: &str, usual: &Usual) -> Result<Outcome> {
        let read = self.read(edit, name)?;
        let news = |lines: &[String]| -> Vec<String> {
            lines.iter().filter(|line| !usual.contains(&general(line))).cloned().collect()
        };
        let (told, warned, printed) = (news(&read.report.told), news(&read.warned), news(&read.printed));
        let how = match (&read.crash, &read.report) {
            (Some(how), _) => how.clone(),
            (None, Report { opened: false, .. }) => How::Refused,
            (None, Report { error: Some(_), .. }) => How::Error,
            _ if !told.is_empty() => How::Said,
            _ if !warned.is_empty() => How::Logged,
            _ if !printed.is_empty() => How::Debug,
            _ => How::Silent,
        };
        let said = read.report.error.into_iter().chain(told).chain(warned).chain(printed);
        let said = said.take(SAID_LINES).map(|line| without(&line, &self.dir.join(name))).collect();
        Ok(compare(self.steps, &read.records, how, said))
    }

    fn read(&self, edit: &Edit, name: &str) -> Result<Read> {
        let copy = self.dir.join(name);
        files::copy(self.base, &copy)?;
        match edit {
            Edit::Nothing => {}
            Edit::Flip(place, bit) => files::flip(&copy, place, *bit)?,
            Edit::Zero(place) => files::zero_page(&copy, place)?,
        }
        let out = copy.with_extension("report");
        let text = copy.with_extension("text");
        let env: Vec<(&str, &OsStr)> =
            self.peer.env().map(|name| (name, copy.as_os_str())).into_iter().collect();
        let args = [OsStr::new("read"), OsStr::new(self.peer.id()), copy.as_os_str(), out.as_os_str()];
        let crash = match Process::start(args, &env, &text)?.wait()? {
            None => Some(How::Hung),
            Some(status) => process::crash(status).map(How::Crashed),
        };
        let report = fs::read(&out).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let records = fs::read(out.with_extension("records")).unwrap_or_default();
        let read = Read {
            crash,
            report: report.unwrap_or_default(),
            records: split(&records),
            warned: process::lines(&text.with_extension("err")),
            printed: process::lines(&text.with_extension("out")),
        };
        fs::remove_dir_all(&copy)?;
        for ending in ["report", "records", "out", "err"] {
            let _ = fs::remove_file(copy.with_extension(ending));
        }
        Ok(read)
    }
}

/// What one process read.
struct Read {
    crash: Option<How>,
    report: Report,
    records: Vec<Vec<u8>>,
    warned: Vec<String>,
    printed: Vec<String>,
}

/// A text on one line, without the directory that it names.
pub(super) fn without(text: &str, dir: &Path) -> String {
    text.replace(&*dir.to_string_lossy(), "").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A line without its numbers, names of copies and paths.
fn general(line: &str) -> String {
    line.split_whitespace()
        .map(|word| if word.contains('/') { "PATH" } else { word })
        .collect::<Vec<_>>()
        .join(" ")
        .replace(|digit: char| digit.is_ascii_digit(), "")
}

fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk::<4>() {
        let Some((record, rest)) = rest.split_at_checked(u32::from_le_bytes(*len) as usize) else { break };
        records.push(record.to_vec());
        bytes = rest;
    }
    records
}

/// Compares what was read with what was acknowledged and refused.
fn compare(steps: &[Step], records: &[Vec<u8>], how: How, said: Vec<String>) -> Outcome {
    let acknowledged = acknowledged(steps);
    let order: HashMap<Vec<u8>, usize> =
        acknowledged.iter().enumerate().map(|(place, &number)| (written(number), place)).collect();
    let refused: BTreeSet<Vec<u8>> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Refused { numbers, .. } => Some(numbers),
            _ => None,
        })
        .flatten()
        .map(|&number| written(number))
        .collect();
    let went_on = acknowledged.iter().filter(|&&number| number >= FURTHER).count();
    let unsynced = acknowledged.iter().filter(|number| REJECTED.contains(number)).count();
    let mut outcome = Outcome {
        acknowledged: acknowledged.len(),
        left: 0,
        wrong: 0,
        repeated: 0,
        disordered: false,
        came_back: 0,
        went_on,
        unsynced,
        handle_hung: false,
        handle_stops: false,
        answers: Vec::new(),
        how,
        said,
    };
    let mut seen = BTreeSet::new();
    for record in records {
        match order.get(record) {
            Some(place) if seen.contains(place) => outcome.repeated += 1,
            Some(place) => {
                outcome.disordered |= seen.last().is_some_and(|last| last > place);
                seen.insert(*place);
                outcome.left += 1;
            }
            None if refused.contains(record) => outcome.came_back += 1,
            None => outcome.wrong += 1,
        }
    }
    outcome
}

/// The numbers of the records that were acknowledged, in order.
pub(super) fn acknowledged(steps: &[Step]) -> Vec<usize> {
    let number = |step: &Step| match step {
        Step::Acknowledged { number, .. } => Some(*number),
        _ => None,
    };
    steps.iter().filter_map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledge(number: usize) -> Step {
        Step::Acknowledged { number, syncs: 1 }
    }

    #[test]
    fn the_comparison_tells_lost_wrong_repeated_and_rejected_apart() {
        let steps = vec![
            acknowledge(0),
            acknowledge(1),
            acknowledge(2),
            Step::Refused { numbers: REJECTED.to_vec(), error: "EIO".into() },
            acknowledge(FURTHER),
        ];
        let mut changed = written(1);
        changed[20] ^= 1;
        let records = [written(0), changed, written(FURTHER), written(2), written(0), written(REJECTED[1])];
        let outcome = compare(&steps, &records, How::Silent, Vec::new());
        assert_eq!((outcome.acknowledged, outcome.left), (4, 3));
        assert_eq!((outcome.wrong, outcome.repeated, outcome.came_back), (1, 1, 1));
        assert!(outcome.disordered && outcome.has_ghosts());
    }

    #[test]
    fn the_first_record_after_the_failed_batch_ends_where_the_second_rejected_one_begins() {
        assert_eq!(written(FURTHER).len() + 17, written(REJECTED[0]).len());
    }

    #[test]
    fn what_is_usual_is_not_counted_as_said() {
        assert_eq!(general("[recovery] file /a/b3, 17 blocks"), general("[recovery] file /a/b4, 18 blocks"));
        assert_ne!(general("checksum mismatch at 3"), general("checksum ok at 3"));
    }
}
