//! The life of a log: appends, rolls, marks, crashes, damage and readers in any order, on the simulated
//! disk, against a plain list of what was acknowledged.

use std::path::PathBuf;

use crate::disk::Disk as _;
use crate::error::{Error, Outcome};
use crate::finding::FindingKind;
use crate::log::cursor::{Cursor, Entry};
use crate::log::damage::any_damage;
use crate::log::heal::{Donor, NoDonor};
use crate::log::loss;
use crate::log::open;
use crate::log::survey::Witness;
use crate::log::view::LogView;
use crate::log::writer::{LogWriter, batch_len};
use crate::proof::disk::{Fault, Frames, Rng, SimDisk};
use crate::proof::{KnownFrames, Ledger, log_on, open_log, open_with, segments};

use super::recovery::batches;

/// Operations of one script at most.
const LONGEST: usize = 60;

/// A log, what is known of it, and those who look at it.
struct Life {
    disk: SimDisk,
    writer: Option<LogWriter>,
    ledger: Ledger,
    /// What SQLite would hold: the frames of the first events, and the newest of them.
    rows: Frames,
    witness: Option<Witness>,
    /// A reader that follows, and the seq it has come to.
    follower: Option<Follower>,
}

struct Follower {
    cursor: Cursor,
    next: u64,
}

/// A script, one choice a byte.
pub fn script(data: &[u8]) {
    let mut rng = Rng::from_tape(data);
    let disk = SimDisk::default();
    disk.create_parents();
    let mut life = Life {
        disk,
        writer: None,
        ledger: Ledger::default(),
        rows: Frames::new(),
        witness: None,
        follower: None,
    };
    life.reopen(&mut rng);
    for _ in 0..LONGEST {
        if rng.is_spent() {
            break;
        }
        life.step(&mut rng);
    }
    // In the end everything acknowledged is there, whatever happened last.
    life.disk.set_fault(None);
    life.writer = None;
    life.follower = None;
    life.disk = life.disk.after_kill();
    life.reopen(&mut rng);
}

impl Life {
    fn step(&mut self, rng: &mut Rng) {
        match rng.below(16) {
            0..=3 => self.append(rng),
            4 => self.quietly(|writer| writer.roll(0)),
            5 => self.quietly(LogWriter::mark),
            6 => {
                if let Some(writer) = &mut self.writer {
                    writer.note_tail();
                }
            }
            7 => {
                self.quietly(LogWriter::mark);
                if let Some(mut writer) = self.writer.take() {
                    writer.note_tail();
                }
                self.disk.set_fault(None);
                self.reopen(rng);
            }
            8 => self.crash(rng),
            9 => {
                let fault = Fault {
                    at: rng.below(12),
                    fatal: rng.chance(70),
                    partial: rng.below(16) as usize * 300,
                    errno: if rng.chance(50) { 5 } else { 28 },
                };
                self.disk.set_fault(Some(fault));
            }
            10 => self.disk.set_full(rng.chance(50)),
            11 => self.project(rng),
            12 => self.look(rng),
            13 => self.follow(),
            14 => self.damage(rng),
            _ => self.forget(rng),
        }
    }

    /// What the next opening may rest on is lost: rows, the file `tail`, or both.
    fn forget(&mut self, rng: &mut Rng) {
        let choice = rng.below(4);
        if choice != 1 {
            self.rows.clear();
            self.witness = None;
        }
        // The writer keeps the file open; without it, it is as if it had never been.
        if choice != 0 && self.writer.is_none() {
            drop(self.disk.remove(&log_on(&self.disk).tail_path()));
        }
    }

    fn quietly(&mut self, act: impl FnOnce(&mut LogWriter) -> crate::Result<()>) {
        if let Some(writer) = &mut self.writer
            && let Err(error) = act(writer)
        {
            assert!(matches!(error, Error::Io { .. } | Error::Closed), "{error}");
        }
    }

    fn append(&mut self, rng: &mut Rng) {
        let group = batches(rng);
        let Some(writer) = &mut self.writer else { return };
        let need: u64 = group.iter().map(|batch| batch_len(batch)).sum();
        if need > writer.room() && (writer.roll(need).is_err() || need > writer.room()) {
            return;
        }
        let dead = writer.is_failed();
        let first = writer.position().seq;
        match writer.append(&group, 7) {
            Ok(seq) => {
                assert!(!dead && seq == first, "P10");
                // From here on no power cut may take it back.
                let payloads = group.iter().flatten().map(|event| event.payload.clone());
                self.ledger.acknowledged.extend((first..).zip(payloads));
            }
            Err(_) if dead => {}
            Err(error) => {
                assert_eq!(error.outcome(), Outcome::Unknown, "P10");
                assert!(writer.append(&group, 7).is_err() && writer.mark().is_err(), "P10");
                let mut seq = first;
                for batch in group {
                    let next = seq + batch.len() as u64;
                    self.ledger.unknown.push((seq, batch.into_iter().map(|event| event.payload).collect()));
                    seq = next;
                }
            }
        }
    }

    /// A kill or a power cut, then the next opening; which may die as well.
    fn crash(&mut self, rng: &mut Rng) {
        self.writer = None;
        self.follower = None;
        for _ in 0..=rng.below(2) {
            self.disk = if rng.chance(50) { self.disk.after_kill() } else { self.disk.after_power_cut(rng) };
            self.check_beside_nobody();
            if rng.chance(40) {
                let fault = Fault { at: rng.below(10), fatal: true, partial: 512, errno: 5 };
                self.disk.set_fault(Some(fault));
                if log_on(&self.disk).list().is_ok_and(|listing| listing.any) {
                    drop(open_log(&self.disk, self.witness, &mut NoDonor));
                }
            }
        }
        self.disk = self.disk.after_kill();
        self.reopen(rng);
    }

    /// Opens for writing, which must work after anything that a crash can do (P5), and compares what
    /// the log holds with the ledger.
    fn reopen(&mut self, rng: &mut Rng) {
        self.writer = None;
        self.follower = None;
        self.disk.set_fault(None);
        self.disk.set_full(false);
        let mut rows = KnownFrames(self.rows.clone());
        let donor: &mut dyn Donor = if rng.chance(50) { &mut rows } else { &mut NoDonor };
        match open_log(&self.disk, self.witness, donor) {
            Ok((writer, recovered)) => {
                assert!(!any_damage(&recovered.findings), "P5: no damage: {:?}", recovered.findings);
                self.writer = Some(writer);
            }
            Err(error) => panic!("P5: {error}"),
        }
        self.settle();
    }

    /// Batches whose append failed, and which are there up to event `last`, are history from now on.
    fn adopt(&mut self, last: u64) {
        let mut next = self.ledger.acknowledged.len() as u64 + 1;
        for (first, batch) in std::mem::take(&mut self.ledger.unknown) {
            let end = first + batch.len() as u64;
            if first == next && last >= first {
                assert!(last >= end - 1, "P4: a batch is whole");
                self.ledger.acknowledged.extend((first..end).zip(batch));
                next = end;
            } else {
                self.ledger.unknown.push((first, batch));
            }
        }
    }

    /// Compares the log with the ledger. What an append that failed left there is history from now on.
    fn settle(&mut self) {
        let view = LogView::open(log_on(&self.disk), None, false).unwrap_or_else(|error| panic!("{error}"));
        let Some(view) = view else { panic!("the log is there") };
        let events = read(&view, 1);
        let known = self.ledger.acknowledged.len();
        assert!(events.len() >= known, "P1: {} of {known} events", events.len());
        self.check_prefix(&events, 1);
        self.adopt(events.len() as u64);
        self.ledger.unknown.clear();
        assert_eq!(events.len(), self.ledger.acknowledged.len(), "P4: nothing is invented");
        for (seq, payload) in &events {
            assert_eq!(self.ledger.acknowledged.get(seq), Some(payload), "P4: event {seq}");
        }
    }

    /// What a reader is shown before anybody opens the log for writing: everything acknowledged.
    fn check_beside_nobody(&self) {
        let Ok(Some(view)) = LogView::open(log_on(&self.disk), self.witness, false) else {
            assert!(self.ledger.acknowledged.is_empty(), "P1");
            return;
        };
        assert!(!any_damage(&view.findings), "P5: a crash is no damage: {:?}", view.findings);
        let events = read(&view, 1);
        assert!(events.len() >= self.ledger.acknowledged.len(), "P1: {} events", events.len());
        self.check_prefix(&events, 1);
    }

    /// Events from `first` on are those that were acknowledged, or given to an append that failed.
    fn check_prefix(&self, events: &[(u64, Vec<u8>)], first: u64) {
        for ((seq, payload), wanted) in events.iter().zip(first..) {
            assert_eq!(*seq, wanted, "P4: no gaps");
            let unknown = self.ledger.unknown.iter().any(|(start, batch)| {
                seq.checked_sub(*start)
                    .and_then(|at| batch.get(at as usize))
                    .is_some_and(|own| own == payload)
            });
            assert!(self.ledger.acknowledged.get(seq) == Some(payload) || unknown, "P4: event {seq}");
        }
    }

    /// Rows follow the log as far as the tape says.
    fn project(&mut self, rng: &mut Rng) {
        let upto = rng.below(self.ledger.acknowledged.len() as u64 + 1);
        if self.writer.is_none() || upto == 0 {
            return;
        }
        self.rows.clear();
        let view = LogView::open(log_on(&self.disk), None, false).unwrap_or_else(|error| panic!("{error}"));
        let Some(view) = view else { return };
        let (mut cursor, _) = view.cursor(1).unwrap_or_else(|error| panic!("{error}"));
        while let Ok(Some(Entry::Event { header, raw, payload })) = cursor.next() {
            if header.seq > upto {
                break;
            }
            self.witness = Some(Witness { seq: header.seq, sum: header.sum });
            self.rows.insert(header.seq, (raw.to_vec(), payload.to_vec()));
        }
    }

    /// A reader from anywhere, beside the writer: nothing that a power cut could take back.
    fn look(&mut self, rng: &mut Rng) {
        let from = 1 + rng.below(self.ledger.acknowledged.len() as u64 + 3);
        let view = LogView::open(log_on(&self.disk), self.witness, true);
        let Some(view) = view.unwrap_or_else(|error| panic!("{error}")) else { return };
        assert!(view.findings.is_empty(), "P5: {:?}", view.findings);
        // A group can be durable though its append failed: at the sync of the mark behind it. What a reader
        // was shown must stay.
        self.adopt(view.horizon.seq - 1);
        let events = read(&view, from);
        for ((seq, payload), wanted) in events.iter().zip(from..) {
            assert_eq!(*seq, wanted, "P4");
            assert_eq!(self.ledger.acknowledged.get(seq), Some(payload), "only what is durable");
        }
        assert_eq!(events.len() as u64, (view.horizon.seq).saturating_sub(from), "P3");
    }

    /// A cursor that was opened long ago goes on.
    fn follow(&mut self) {
        let Some(writer) = self.writer.as_ref().filter(|writer| !writer.is_failed()) else { return };
        let horizon = writer.position();
        let mut follower = self.follower.take().unwrap_or_else(|| {
            let log = log_on(&self.disk);
            let segments = log.list().unwrap_or_else(|error| panic!("{error}")).segments.into();
            let cursor = Cursor::new(log, &segments, 1, horizon);
            Follower { cursor: cursor.unwrap_or_else(|error| panic!("{error}")).0, next: 1 }
        });
        follower.cursor.extend(horizon);
        while let Some(entry) = follower.cursor.next().unwrap_or_else(|error| panic!("{error}")) {
            let Entry::Event { header, payload, .. } = entry else { panic!("P3: an event and nothing else") };
            assert_eq!(header.seq, follower.next, "P4");
            let known = self.ledger.acknowledged.get(&header.seq);
            assert_eq!(known.map(Vec::as_slice), Some(payload), "P4");
            follower.next += 1;
        }
        assert_eq!(follower.next, horizon.seq, "P3: the follower sees everything");
        self.follower = Some(follower);
    }

    /// Damages a copy of a log that was closed: it is named, healed, or has cost nothing (P3, P9).
    fn damage(&mut self, rng: &mut Rng) {
        self.disk.set_fault(None);
        self.disk.set_full(false);
        self.quietly(LogWriter::mark);
        match &mut self.writer {
            Some(writer) if !writer.is_failed() => writer.note_tail(),
            _ => return,
        }
        let whole = self.disk.after_kill();
        let copy = self.disk.after_kill();
        let keep_tail = rng.chance(50);
        if !keep_tail {
            drop(copy.remove(&log_on(&copy).tail_path()));
        }
        let more_than_one = rng.below(3);
        let mut zeroed = false;
        for _ in 0..=more_than_one {
            zeroed |= damage_one(&copy, rng);
        }
        let count = self.ledger.acknowledged.len();
        let newest = self.witness.map_or(0, |witness| witness.seq) as usize;
        // Without a witness of the newest event, a zeroed tail cannot be told from a crash; nor can a frame
        // with a sector of zeros, where it and the mark behind it are both damaged.
        let may_be_silent = (zeroed || more_than_one > 0) && !keep_tail && newest < count;
        let silent_from = if may_be_silent { newest } else { count };
        let view = LogView::open(log_on(&copy), self.witness, false);
        let Some(view) = view.unwrap_or_else(|error| panic!("{error}")) else { panic!("the log is there") };
        let named = any_damage(&view.findings);
        let (events, more) = read_lenient(&view);
        for (seq, payload) in &events {
            assert_eq!(self.ledger.acknowledged.get(seq), Some(payload), "P4");
        }
        assert!(named || more || events.len() >= silent_from, "P3: {} of {count}", events.len());
        self.repair(&copy, &whole, silent_from);
    }

    /// Repair with the rows that there are, then opening.
    fn repair(&self, copy: &SimDisk, whole: &SimDisk, silent_from: usize) {
        let before: Vec<(PathBuf, Vec<u8>)> =
            copy.paths().into_iter().map(|path| (path.clone(), copy.bytes(&path))).collect();
        let mut lost_dry = true;
        for dry_run in [true, false] {
            let mut rows = KnownFrames(self.rows.clone());
            let mut with = open_with(self.witness, &mut rows);
            let done = open::repair(&log_on(copy), &mut with, dry_run);
            let (recovered, lost) = done.unwrap_or_else(|error| panic!("{error}"));
            if dry_run {
                for (path, bytes) in &before {
                    assert_eq!(&copy.bytes(path), bytes, "a dry run changes nothing");
                }
                // A dry run cannot look behind what it would heal, and says so by what it counts.
                let healed = recovered.findings.iter().any(|found| found.kind == FindingKind::HealedFrame);
                lost_dry = healed || !lost.is_empty();
            } else {
                assert!(lost_dry || lost.is_empty(), "a dry run tells of every loss: {lost:?}");
                self.check_repaired(copy, whole, lost.is_empty(), silent_from);
            }
        }
    }

    fn check_repaired(&self, copy: &SimDisk, whole: &SimDisk, healed: bool, silent_from: usize) {
        let every_row = self.rows.len() == self.ledger.acknowledged.len();
        if healed {
            let opened = open_log(copy, self.witness, &mut KnownFrames(self.rows.clone()));
            assert!(opened.is_ok(), "P9: what is repaired opens: {:?}", opened.err());
            let view = LogView::open(log_on(copy), None, false).unwrap_or_else(|error| panic!("{error}"));
            let Some(view) = view else { panic!("the log is there") };
            let events = read(&view, 1);
            self.check_prefix(&events, 1);
            assert!(events.len() >= silent_from, "P3: {} events", events.len());
        } else {
            assert!(open_log(copy, self.witness, &mut NoDonor).is_err() || !every_row, "P3");
            self.give_up(copy);
        }
        if healed && silent_from == self.ledger.acknowledged.len() {
            for path in segments(copy) {
                let (own, wanted) = (copy.bytes(&path), whole.bytes(&path));
                let last = Some(&path) == segments(copy).last();
                // A mark at the very end is taken for one that was never written.
                assert!(
                    if last { frames(&wanted).starts_with(frames(&own)) } else { own == wanted },
                    "P9, bit for bit: {}",
                    path.display()
                );
            }
        }
    }

    /// What repair could not bring back is given up: then the log opens, and each event is there or among
    /// those that were given up (P3).
    fn give_up(&self, copy: &SimDisk) {
        let log = log_on(copy);
        let plan = loss::plan(&log, self.witness, None).unwrap_or_else(|error| panic!("{error}"));
        let Some(plan) = plan else {
            panic!(
                "bytes were changed, no more: this can be given up: {:?}",
                open_log(copy, self.witness, &mut NoDonor).err()
            )
        };
        let done = loss::give_up(&log, &plan, 1_700_000_000_000_000);
        done.unwrap_or_else(|error| panic!("{error}"));
        let opened = open_log(copy, self.witness, &mut NoDonor);
        let (writer, _) = opened.unwrap_or_else(|error| panic!("P5: {error}"));
        let view = LogView::open(log, self.witness, false).unwrap_or_else(|error| panic!("{error}"));
        let Some(view) = view else { panic!("the log is there") };
        assert!(!any_damage(&view.findings), "{:?}", view.findings);
        let (mut cursor, missing) = view.cursor(1).unwrap_or_else(|error| panic!("{error}"));
        assert!(missing.is_empty(), "{missing:?}");
        let mut next = 1;
        while let Some(entry) = cursor.next().unwrap_or_else(|error| panic!("{error}")) {
            match entry {
                Entry::Event { header, payload, .. } => {
                    assert_eq!(header.seq, next, "P3, P4: no gap without a word");
                    assert_eq!(self.ledger.acknowledged.get(&next).map(Vec::as_slice), Some(payload), "P4");
                    next += 1;
                }
                Entry::Gap { header, .. } => {
                    assert_eq!(header.seq, next, "P3");
                    next = header.next_seq();
                }
                Entry::Damage(finding) => panic!("{finding}"),
                _ => panic!("neither deletions nor erasures here"),
            }
        }
        assert_eq!(writer.position().seq, next);
        if let Some(witness) = self.witness {
            assert!(next > witness.seq, "no seq is used again");
        }
    }
}

/// What is left of a segment without the zeros at its end.
fn frames(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)]
}

/// Changes bytes of a segment behind its header. Whether they were zeroed.
fn damage_one(disk: &SimDisk, rng: &mut Rng) -> bool {
    let paths = segments(disk);
    let path = &paths[rng.below(paths.len() as u64) as usize];
    let mut bytes = disk.bytes(path);
    let end = frames(&bytes).len().max(8192 + 64);
    let at = 8192 + rng.below((end - 8192) as u64) as usize;
    let kind = rng.below(4);
    match kind {
        0 | 1 => bytes[at] ^= 1 << rng.below(8),
        2 => bytes[at / 512 * 512..][..512].fill(0),
        _ => bytes[at / 4096 * 4096..][..4096].fill(0),
    }
    disk.put(path, bytes);
    kind > 1
}

fn read(view: &LogView, from: u64) -> Vec<(u64, Vec<u8>)> {
    let (mut cursor, missing) = view.cursor(from).unwrap_or_else(|error| panic!("{error}"));
    assert!(missing.is_empty(), "P3: {missing:?}");
    let mut events = Vec::new();
    while let Some(entry) = cursor.next().unwrap_or_else(|error| panic!("{error}")) {
        match entry {
            Entry::Event { header, payload, .. } => events.push((header.seq, payload.to_vec())),
            Entry::Damage(finding) => panic!("P3: {finding}"),
            _ => panic!("neither deletions nor erasures here"),
        }
    }
    events
}

fn read_lenient(view: &LogView) -> (Vec<(u64, Vec<u8>)>, bool) {
    let (mut cursor, missing) = view.cursor(1).unwrap_or_else(|error| panic!("{error}"));
    let (mut events, mut named) = (Vec::new(), !missing.is_empty());
    while let Some(entry) = cursor.next().unwrap_or_else(|error| panic!("{error}")) {
        match entry {
            Entry::Event { header, payload, .. } => events.push((header.seq, payload.to_vec())),
            _ => named = true,
        }
    }
    (events, named)
}
