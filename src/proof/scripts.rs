//! Scripts: what a log lives through. They are drawn from a seed; each seed has a theme, so that a few
//! seeds in a row exercise everything.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Outcome, Result};
use crate::log::writer::{LogWriter, NewEvent, batch_len};
use crate::store_id::StoreId;

use super::check::{Batch, Expect, Opener, Planned, deletion, verify};
use super::disk::{Fault, Point, Rng, SimDisk};

/// One step of a script.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// One group of batches; the log rolls first where it must. Zeros, or bytes of the log itself, or
    /// anything.
    Group { batches: u64, events: u64, fill: Fill },
    /// A new segment.
    Roll,
    /// A mark and the file `tail`: the log falls idle.
    Idle,
    /// A mark alone.
    Mark,
    /// A deletion record.
    Delete,
    /// The file `tail` alone.
    Tail,
    /// The log is closed and opened again.
    Close,
    /// The process is killed, and the log opened again.
    Kill,
    /// The power fails, and the log is opened again.
    PowerCut,
    /// As `Kill`, but `repair` comes first.
    Repair,
    /// The step after this one dies at a call of its own, by a kill or a power cut.
    Die { at: u64, power: bool },
}

/// What payloads are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    Any,
    /// Runs of zeros.
    Zeros,
    /// Raw bytes of the segment that the payload goes into.
    OwnBytes,
}

pub(crate) const THEMES: [&str; 12] = [
    "single appends",
    "batches",
    "groups of several batches",
    "rolling",
    "idle marks",
    "the file tail, and closing",
    "kills",
    "power cuts",
    "repair",
    "zeros",
    "its own bytes",
    "dying in the middle of a step",
];

/// The script of a seed.
pub(crate) fn script(seed: u64) -> Vec<Step> {
    let mut rng = Rng::new(seed.wrapping_add(0x5C21));
    let theme = seed as usize % THEMES.len();
    let mut steps = Vec::new();
    for _ in 0..3 + rng.below(6) {
        let fill = match rng.below(10) {
            _ if theme == 9 => Fill::Zeros,
            _ if theme == 10 => Fill::OwnBytes,
            0 | 1 => Fill::Zeros,
            2 => Fill::OwnBytes,
            _ => Fill::Any,
        };
        let (batches, events) = match theme {
            0 => (1, 1),
            1 => (1, 2 + rng.below(3)),
            2 => (2 + rng.below(2), 1 + rng.below(2)),
            _ => (1 + rng.below(3), 1 + rng.below(2)),
        };
        let group = Step::Group { batches, events, fill };
        let own = match theme {
            3 => Step::Roll,
            4 => Step::Idle,
            5 => [Step::Tail, Step::Close][rng.below(2) as usize],
            6 => Step::Kill,
            7 => Step::PowerCut,
            8 => Step::Repair,
            11 => Step::Die { at: rng.below(12), power: rng.chance(50) },
            _ => group,
        };
        let other = match rng.below(16) {
            0 => Step::Roll,
            1 | 2 => Step::Idle,
            3 => Step::Mark,
            4 => Step::Tail,
            5 => Step::Close,
            6 => Step::Kill,
            7 => Step::PowerCut,
            8 => Step::Repair,
            9 | 10 => Step::Die { at: rng.below(12), power: rng.chance(50) },
            11 => Step::Delete,
            _ => group,
        };
        steps.push(group);
        if rng.chance(if theme < 3 { 0 } else { 60 }) {
            steps.push(own);
        }
        if rng.chance(50) {
            steps.push(other);
        }
    }
    steps
}

/// What must and may be in the log during one step.
#[derive(Clone)]
pub(crate) struct Ledger {
    /// So many events of the script's history were acknowledged.
    pub(crate) acknowledged: usize,
    pub(crate) pending: Vec<Batch>,
    /// The numbers of deletion records that were acknowledged.
    pub(crate) deletions: Vec<i64>,
}

/// A log that lives through a script.
pub(crate) struct Life {
    pub(crate) disk: SimDisk,
    pub(crate) store: StoreId,
    pub(crate) writer: Option<LogWriter>,
    /// Acknowledged events, in order of their seqs.
    pub(crate) history: Vec<Arc<Planned>>,
    /// Batches of unknown outcome; the next opening settles them.
    pub(crate) pending: Vec<Batch>,
    /// The numbers of deletion records that were acknowledged, and the newest of all.
    pub(crate) deletions: Vec<i64>,
    last_deletion: i64,
    pub(crate) recorded: Option<(Vec<Point>, Vec<Ledger>)>,
    pub(crate) rng: Rng,
    planned: u16,
    /// The present step dies here, whatever disk it goes on with.
    dying: Option<Fault>,
    /// What the fault hit, on a disk that is gone.
    hit: Option<(&'static str, PathBuf)>,
}

impl Life {
    pub(crate) fn new(seed: u64, record: bool) -> Self {
        let disk = SimDisk::default();
        disk.create_parents();
        let mut store = [0xA5; 16];
        store[..8].copy_from_slice(&seed.to_le_bytes());
        let mut life = Self {
            disk,
            store: StoreId(store),
            writer: None,
            history: Vec::new(),
            pending: Vec::new(),
            deletions: Vec::new(),
            last_deletion: 0,
            recorded: None,
            rng: Rng::new(seed.wrapping_mul(31).wrapping_add(7)),
            planned: 0,
            dying: None,
            hit: None,
        };
        if record {
            life.disk.record();
            life.recorded = Some((Vec::new(), Vec::new()));
        }
        life
    }

    /// Lives through all steps; an error breaks a promise.
    pub(crate) fn run(&mut self, steps: &[Step]) -> std::result::Result<(), String> {
        self.open()?;
        let mut index = 0;
        while index < steps.len() {
            let mut step = steps[index];
            let mut dies = None;
            if let Step::Die { at, power } = step {
                index += 1;
                let Some(next) = steps.get(index) else { break };
                step = *next;
                dies = Some(power);
                let partial = self.rng.below(3000) as usize;
                self.arm(Fault { at, fatal: true, partial, errno: 5 });
            }
            let done = self.step(step);
            if let Some(power) = dies {
                self.dying = None;
                self.writer = None;
                self.crash(power);
                self.open()?;
            } else {
                done.map_err(|error| format!("{step:?} fails on a sound disk: {error}"))?;
            }
            index += 1;
        }
        self.note_step();
        Ok(())
    }

    /// From now on this fault waits for its call, on whatever disk.
    pub(crate) fn arm(&mut self, fault: Fault) {
        self.dying = Some(fault);
        self.disk.set_fault(self.dying);
    }

    /// How many calls lie before the fault.
    pub(crate) fn calls_left(&self) -> Option<u64> {
        Some(self.dying?.at.saturating_sub(self.disk.operations()))
    }

    /// What the fault hit, if it hit anything.
    pub(crate) fn hit(&self) -> Option<(&'static str, PathBuf)> {
        self.hit.clone().or(self.disk.hit())
    }

    /// Takes one step.
    pub(crate) fn step(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Group { batches, events, fill } => {
                let batches = self.plan(batches, events, fill);
                return self.append(&batches);
            }
            Step::Die { .. } => {}
            Step::Close => {
                self.note_step();
                let Some(mut writer) = self.writer.take() else { return Err(Error::Closed) };
                writer.mark()?;
                writer.note_tail();
                drop(writer);
                self.reopen(false)?;
            }
            Step::Kill | Step::PowerCut | Step::Repair => {
                self.writer = None;
                self.crash(matches!(step, Step::PowerCut));
                self.reopen(matches!(step, Step::Repair))?;
            }
            Step::Delete => {
                self.note_step();
                let Some(writer) = &mut self.writer else { return Err(Error::Closed) };
                self.last_deletion += 1;
                writer.append_deletion(&deletion(self.last_deletion), 2)?;
                self.deletions.push(self.last_deletion);
            }
            Step::Roll | Step::Idle | Step::Mark | Step::Tail => {
                self.note_step();
                let Some(writer) = &mut self.writer else { return Err(Error::Closed) };
                match step {
                    Step::Roll => writer.roll_at(0, 2)?,
                    Step::Idle => {
                        writer.mark()?;
                        writer.note_tail();
                    }
                    Step::Mark => writer.mark()?,
                    _ => writer.note_tail(),
                }
            }
        }
        Ok(())
    }

    fn note_step(&mut self) {
        if let Some((_, ledgers)) = &mut self.recorded {
            let ledger = Ledger {
                acknowledged: self.history.len(),
                pending: self.pending.clone(),
                deletions: self.deletions.clone(),
            };
            ledgers.push(ledger);
            self.disk.step(ledgers.len() - 1);
        }
    }

    /// Replaces the disk by what a crash leaves of it.
    pub(crate) fn crash(&mut self, power: bool) {
        let points = self.disk.take_points();
        let left = if power { self.disk.after_power_cut(&mut self.rng) } else { self.disk.after_kill() };
        // A fault that is still to come finds the new disk.
        let calls = self.disk.operations();
        let fault = self.dying.filter(|fault| fault.fatal || fault.at >= calls);
        self.dying = fault.map(|fault| Fault { at: fault.at.saturating_sub(calls), ..fault });
        self.hit = self.hit.take().or(self.disk.hit());
        self.disk = left;
        self.disk.set_fault(self.dying);
        if let Some((all, _)) = &mut self.recorded {
            all.extend(points);
            self.disk.record();
        }
    }

    /// The recording; the script is over.
    pub(crate) fn take_recording(&mut self) -> (Vec<Point>, Vec<Ledger>) {
        let (mut points, ledgers) = self.recorded.take().unwrap_or_default();
        points.extend(self.disk.take_points());
        (points, ledgers)
    }

    fn open(&mut self) -> std::result::Result<(), String> {
        self.reopen(false).map_err(|error| format!("P5: {error}"))
    }

    /// Opens the log, which settles what was pending. The rows beside it are some earlier state.
    pub(crate) fn reopen(&mut self, repair: bool) -> Result<()> {
        self.note_step();
        let applied = self.rng.below(self.history.len() as u64 + 1) as usize;
        let mut opener = Opener::alone(self.store);
        opener.rows.known = &self.history[..applied];
        opener.witness = applied.checked_sub(1).and_then(|last| self.history[last].witness(applied as u64));
        if repair {
            let lost = opener.repair(&self.disk)?;
            assert!(lost.is_empty(), "P3: {lost:?}");
        }
        let writer = opener.open(&self.disk)?;
        self.settle();
        self.writer = Some(writer);
        self.note_step();
        Ok(())
    }

    /// Takes what is in the log for history.
    pub(crate) fn settle(&mut self) {
        let expect =
            Expect { acknowledged: &self.history, pending: &self.pending, deletions: &self.deletions };
        let count = verify(&self.disk, expect, None).unwrap_or_else(|broken| panic!("{broken}"));
        let pending = std::mem::take(&mut self.pending);
        let left = count - self.history.len();
        self.history.extend(pending.into_iter().flatten().take(left));
    }

    fn plan(&mut self, batches: u64, events: u64, fill: Fill) -> Vec<Batch> {
        (0..batches)
            .map(|_| {
                (0..events)
                    .map(|_| {
                        let payload = self.payload(fill);
                        self.planned += 1;
                        Planned::new(self.planned, payload)
                    })
                    .collect()
            })
            .collect()
    }

    fn payload(&mut self, fill: Fill) -> Vec<u8> {
        let rng = &mut self.rng;
        let len = [1, 5, 40, 130, 410, 463, 700, 1100, 1700][rng.below(9) as usize];
        match fill {
            Fill::Zeros if rng.chance(40) => vec![0; len],
            Fill::Zeros => {
                let mut payload = vec![0; len];
                payload[rng.below(len as u64) as usize] = 1;
                payload
            }
            Fill::OwnBytes => {
                let paths = super::segments(&self.disk);
                let Some(path) = paths.last() else { return vec![1; len] };
                let bytes = self.disk.bytes(path);
                let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                let start = [0, 8192, used.saturating_sub(len), used / 2][rng.below(4) as usize];
                bytes[start.min(bytes.len() - len)..][..len].to_vec()
            }
            Fill::Any => {
                let zeros = [10, 60, 95][rng.below(3) as usize];
                (0..len).map(|_| if rng.chance(zeros) { 0 } else { rng.next() as u8 }).collect()
            }
        }
    }

    /// Appends one group.
    pub(crate) fn append(&mut self, batches: &[Batch]) -> Result<()> {
        let Some(writer) = &mut self.writer else { return Err(Error::Closed) };
        let events: Vec<Vec<NewEvent>> =
            batches.iter().map(|batch| batch.iter().map(|event| event.event()).collect()).collect();
        let need: u64 = events.iter().map(|batch| batch_len(batch)).sum();
        let alive = !writer.is_failed();
        self.pending = batches.to_vec();
        self.note_step();
        let Some(writer) = &mut self.writer else { return Err(Error::Closed) };
        if need > writer.room()
            && let Err(error) = writer.roll_at(need, 2)
        {
            // What a failed roll was for has not been written, whatever became of the segment.
            self.pending.clear();
            return Err(error.with_outcome(Outcome::NotWritten));
        }
        let first = writer.position().seq;
        match writer.append(&events, 7) {
            Ok(seq) => {
                assert_eq!((seq, seq), (first, self.history.len() as u64 + 1), "P4");
                self.history.extend(std::mem::take(&mut self.pending).into_iter().flatten());
                self.learn();
                Ok(())
            }
            Err(error) => {
                if error.outcome() == Outcome::NotWritten {
                    self.pending.clear();
                }
                assert!(alive || error.outcome() == Outcome::NotWritten, "P10: {error}");
                Err(error)
            }
        }
    }

    /// Learns the headers of the newest frames.
    fn learn(&mut self) {
        let expect = Expect { acknowledged: &self.history, pending: &[], deletions: &self.deletions };
        let copy = self.disk.after_kill();
        verify(&copy, expect, None).unwrap_or_else(|broken| panic!("{broken}"));
    }
}
