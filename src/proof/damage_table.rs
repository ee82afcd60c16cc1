//! Every damage of [`super::damage_cases`], with the database and without: how does it end?
//!
//! Each case is read by a reader, opened for writing, and repaired where that is still needed. After
//! each of the three: what is returned was appended, bit for bit (P4); what is missing is named (P3),
//! unless no byte that is left proves it; a reader changes nothing (P11), a refusal nothing of the
//! log; and what was healed is in quarantine as it was found (P9). Counted in a table.
//!
//! `cargo test` takes a sample, and `SYNCLOG_DAMAGE=5` every fifth case. All of it, in about a quarter of an hour:
//! `SYNCLOG_DAMAGE=full cargo test --release --lib proof::damage -- --nocapture`

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result as LogResult};
use crate::finding::{Finding, FindingKind, Severity};
use crate::log::cursor::Entry;
use crate::log::deletion::{self, Deletion};
use crate::log::heal::{Donor, DonorFrame, NoDonor};
use crate::log::open::{OpenLog, Recovered, newest, open, repair};
use crate::log::survey::Witness;
use crate::log::view::LogView;

use super::damage_cases::{Damage, FrameAt, HEADER, Kind, LIMITS, Reference, SEGMENTS, SIZE};
use super::disk::SimDisk;
use super::{log_on, one};

/// How a case ended; the columns of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// Opening brought it back, bit for bit.
    HealedByOpen,
    /// Repair brought it back, bit for bit.
    HealedByRepair,
    /// Nothing was lost: stray bytes were put aside and told.
    PutAside,
    /// Not healed. Appends are refused; every missing event is named.
    Refused,
    /// Not healed. Appends are refused, and every event can still be read.
    RefusedForNothing,
    /// Not healed. In a sealed segment, which opening does not read: whoever reads is told.
    ToldToReaders,
    /// Not healed. Appends are refused, the file is named, and which events were in it is not known.
    FileNamed,
    /// Lost and not told, because the bytes are those of a crash before the append had ended.
    CannotBeKnown,
    /// The mark at the log's end is gone, all of it, and nothing else: as if it had never been written.
    MarkAlone,
}

impl End {
    const ALL: [Self; 9] = [
        Self::HealedByOpen,
        Self::HealedByRepair,
        Self::PutAside,
        Self::Refused,
        Self::RefusedForNothing,
        Self::ToldToReaders,
        Self::FileNamed,
        Self::CannotBeKnown,
        Self::MarkAlone,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::HealedByOpen => "healed: open",
            Self::HealedByRepair => "healed: repair",
            Self::PutAside => "put aside",
            Self::Refused => "refused, named",
            Self::RefusedForNothing => "refused, whole",
            Self::ToldToReaders => "readers told",
            Self::FileNamed => "file named",
            Self::CannotBeKnown => "cannot be known",
            Self::MarkAlone => "mark alone gone",
        }
    }
}

/// What there is beside the log's segments.
struct Beside {
    name: &'static str,
    /// The rows: events up to this one.
    rows: u64,
    /// The applied seq, where its row says the same.
    witness: Option<Witness>,
    /// The applied seq, where it has no row.
    claim: Option<Witness>,
    tail: bool,
}

impl Beside {
    /// A database that is as it should be, up to this event.
    fn database(name: &'static str, applied: Witness, tail: bool) -> Self {
        Self { name, rows: applied.seq, witness: Some(applied), claim: None, tail }
    }

    fn no_database(name: &'static str, tail: bool) -> Self {
        Self { name, rows: 0, witness: None, claim: None, tail }
    }
}

struct Case<'a> {
    reference: &'a Reference,
    beside: &'a Beside,
    damage: &'a Damage,
    disk: SimDisk,
}

/// The rows of the database: each gives its event's frame again.
struct Rows<'a> {
    reference: &'a Reference,
    newest: u64,
}

impl Donor for Rows<'_> {
    fn frame(&mut self, seq: u64) -> LogResult<Option<DonorFrame>> {
        let found = self.reference.events.get(&seq).filter(|_| seq <= self.newest);
        let found = found.filter(|_| !crate::erasures::covers(&self.reference.deleted, seq));
        Ok(found.map(|(header, payload)| DonorFrame { header: header.clone(), payload: payload.clone() }))
    }

    fn deleted(&mut self, last: u64) -> LogResult<Vec<(u64, u64)>> {
        Ok(self.reference.deleted.iter().copied().filter(|(_, end)| *end <= last.min(self.newest)).collect())
    }
}

/// What a reader saw.
#[derive(Default)]
struct Seen {
    lost: Vec<u64>,
    findings: Vec<Finding>,
    /// What deletion records cover.
    deleted: Vec<(u64, u64)>,
}

impl Seen {
    fn tells_damage(&self) -> bool {
        self.findings.iter().any(is_damage)
    }
}

fn is_damage(finding: &Finding) -> bool {
    finding.kind.severity() == Severity::LogDamaged
}

fn names(findings: &[Finding], seq: u64) -> bool {
    findings.iter().filter(|finding| is_damage(finding)).any(|finding| {
        let first = finding.seq.unwrap_or(u64::MAX);
        (first..=finding.last_seq.unwrap_or(first)).contains(&seq)
    })
}

/// Whether a segment as a whole is said to be unusable.
fn names_file(findings: &[Finding], path: &Path) -> bool {
    let bad = |kind| matches!(kind, FindingKind::BadSegment | FindingKind::MissingSegment);
    findings.iter().any(|finding| bad(finding.kind) && finding.file.as_deref() == Some(path))
}

impl Case<'_> {
    fn rows(&self) -> Rows<'_> {
        Rows { reference: self.reference, newest: self.beside.rows }
    }

    fn with<'d>(&self, donor: &'d mut dyn Donor) -> OpenLog<'d> {
        let Beside { witness, claim, .. } = *self.beside;
        OpenLog { limits: LIMITS, witness, claim, donor, unread: None, trust_log: false, tail: None }
    }

    /// Reads everything; an error where that breaks a promise.
    fn look(&self, disk: &SimDisk) -> Result<Seen, String> {
        let events = &self.reference.events;
        disk.set_fault(None);
        let mut seen = Seen::default();
        let Beside { witness, claim, .. } = *self.beside;
        let view = match LogView::open_beside(log_on(disk), witness, claim, &mut self.rows(), false) {
            Ok(Some(view)) => view,
            Ok(None) => return Err("P3: no store here, says the reader".into()),
            Err(error) => return Err(format!("the reader fails: {error}")),
        };
        let (mut cursor, missing) = view.cursor(1).map_err(|error| error.to_string())?;
        seen.findings.extend(view.findings);
        seen.findings.extend(missing);
        let mut next = 1;
        while let Some(entry) = cursor.next().map_err(|error| error.to_string())? {
            match entry {
                Entry::Event { header, raw, payload } => {
                    if header.seq < next {
                        return Err(format!("P4: event {} comes after {}", header.seq, next - 1));
                    }
                    let known = events.get(&header.seq).ok_or_else(|| format!("P4: event {}", header.seq))?;
                    if known.0 != raw || known.1 != payload {
                        return Err(format!("P4: event {} is not what was appended", header.seq));
                    }
                    seen.lost.extend(next..header.seq);
                    next = header.seq + 1;
                }
                Entry::Damage(finding) => seen.findings.push(finding),
                // Nothing was ever erased here: the layer above names it.
                Entry::Erased { seq, .. } => {
                    seen.findings.push(Finding::new(FindingKind::DamagedFrame, "erased").seq(seq));
                }
                Entry::Deletion { payload } => {
                    let record = Deletion::decode(payload).ok_or("P4: a record that was never written")?;
                    seen.deleted.extend(record.ranges);
                }
                Entry::Gap { .. } => return Err("P4: no gaps here".into()),
            }
        }
        seen.deleted = deletion::merged(std::mem::take(&mut seen.deleted));
        if !deletion::without(&seen.deleted, &self.reference.deleted).is_empty() {
            return Err(format!("P4: {:?} are deleted", seen.deleted));
        }
        seen.lost.extend(next..=self.reference.newest.seq);
        seen.findings.extend(cursor.take_stray());
        if disk.operations() > 0 {
            return Err("P11: a reader wrote".into());
        }
        Ok(seen)
    }

    /// Whether any byte that is left proves that an event was durable: a witness, a sound header
    /// further on in its segment, or a later segment.
    fn is_proved(&self, seq: u64) -> bool {
        let reference = self.reference;
        let tail = reference.tail.as_ref().filter(|_| self.beside.tail).map(|_| reference.newest);
        let seen = newest(self.beside.witness, tail).is_some_and(|witness| witness.seq >= seq);
        if seen || self.beside.rows >= seq {
            return true;
        }
        let Some(place) = reference.frames.iter().find(|frame| frame.seq == Some(seq)) else { return true };
        self.is_place_proved(place)
    }

    /// The same without a witness.
    fn is_place_proved(&self, place: &FrameAt) -> bool {
        let (reference, damage) = (self.reference, self.damage);
        let sound_segment = |segment: usize| {
            let (image, whole) = (damage.image(reference, segment)?, &reference.images[segment]);
            let copy = |at: usize| image[at..at + 4096] == whole[at..at + 4096];
            (image.len() == SIZE && (copy(0) || copy(4096))).then_some(image)
        };
        if (place.segment + 1..SEGMENTS).any(|segment| sound_segment(segment).is_some()) {
            return true;
        }
        sound_segment(place.segment).is_some_and(|image| {
            let whole = &reference.images[place.segment];
            let headers = reference
                .frames
                .iter()
                .filter(|frame| frame.segment == place.segment && frame.durable_end > place.start);
            headers.map(|frame| frame.start..frame.start + HEADER).any(|at| image[at.clone()] == whole[at])
        })
    }

    /// Whether deletions are recorded, where nothing is said to be damaged. What no byte proves need not be, unless
    /// the end of the log was made again from rows.
    fn judge_deletions(&self, who: &str, seen: &Seen, told: &[Finding]) -> Result<(), String> {
        let cut = self.beside.rows > 0 && told.iter().any(|found| found.kind == FindingKind::CutSegment);
        let missing = deletion::without(&self.reference.deleted, &seen.deleted);
        if missing.is_empty() || (!cut && told.iter().chain(&seen.findings).any(is_damage)) {
            return Ok(());
        }
        let records = self.reference.records.iter().map(|index| &self.reference.frames[*index]);
        let lost = records.filter(|record| {
            let range = record.start..record.end;
            self.damage.image(self.reference, record.segment).and_then(|image| image.get(range.clone()))
                != Some(&self.reference.images[record.segment][range])
        });
        if cut || lost.clone().any(|record| self.is_place_proved(record)) {
            return Err(format!("P8: {missing:?} are not recorded as deleted, {who}: {told:?}"));
        }
        Ok(())
    }

    /// Whether all that is lost is named. What no byte proves need not be.
    fn judge_loss(&self, who: &str, lost: &[u64], findings: &[Finding]) -> Result<Loss, String> {
        let mut worst = Loss::Named;
        for seq in lost {
            if names(findings, *seq) {
                continue;
            }
            let place = self.reference.frames.iter().find(|frame| frame.seq == Some(*seq));
            let path = place.map(|frame| &self.reference.paths[frame.segment]);
            if path.is_some_and(|path| names_file(findings, path)) {
                worst = worst.max(Loss::FileNamed);
            } else if self.is_proved(*seq) {
                return Err(format!("P3: event {seq} is lost and not named, {who}: {findings:?}"));
            } else {
                worst = Loss::CannotBeKnown;
            }
        }
        Ok(worst)
    }

    /// Whether every byte of the log is as it was found, or as it was before the damage.
    fn is_only_healed(&self) -> bool {
        let now = self.disk.paths();
        (0..2 * SEGMENTS).all(|segment| {
            let path = log_on(&self.disk).segment_path(segment as u64 + 1);
            let Some(found) = self.damage.image(self.reference, segment) else { return !now.contains(&path) };
            if self.disk.holds(&path, found) {
                return true;
            }
            let bytes = self.disk.bytes(&path);
            let whole = self.reference.images.get(segment).map_or(found, Vec::as_slice);
            bytes.len() == found.len()
                && (0..bytes.len()).all(|at| bytes[at] == found[at] || whole.get(at) == Some(&bytes[at]))
        })
    }

    /// Whether every segment is as it was before the damage. When a segment was made stands in its header
    /// alone, and is lost with both copies of that.
    fn is_whole(&self) -> bool {
        let paths: Vec<_> =
            self.disk.paths().into_iter().filter(|path| path.starts_with("/parent/store/log")).collect();
        let is_same = |(segment, whole): (usize, &Vec<u8>)| {
            if self.disk.holds(&paths[segment], whole) {
                return true;
            }
            let found = self.damage.image(self.reference, segment).unwrap_or_default();
            let copy = |at: usize| found.get(at..at + 4096) == Some(&whole[at..at + 4096]);
            // Two sound copies that differ prove nothing.
            let of_another = |at: usize| {
                let others = self.reference.images.iter().filter(|image| *image != whole);
                others.into_iter().any(|image| found.get(at..at + 4096) == Some(&image[..4096]))
            };
            let no_header = !(copy(0) || copy(4096)) || of_another(0) || of_another(4096);
            let may_differ = |at: usize| no_header && at < 8192 && (64..80).contains(&(at % 4096));
            let now = self.disk.bytes(&paths[segment]);
            now.len() == whole.len() && (0..now.len()).all(|at| now[at] == whole[at] || may_differ(at))
        };
        paths == self.reference.paths && self.reference.images.iter().enumerate().all(is_same)
    }

    /// Every damaged byte that is whole again is in quarantine as it was found.
    fn check_quarantine(&self) -> Result<(), String> {
        let mut changed = Vec::new();
        for (segment, image) in &self.damage.0 {
            let Some((path, image)) = self.reference.paths.get(*segment).zip(image.as_ref()) else {
                continue;
            };
            if !self.disk.holds(path, image) {
                changed.push((*segment, image, self.disk.bytes(path)));
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        let quarantined = |path: &PathBuf| {
            let name = path.file_name()?.to_str()?.strip_prefix("segment-")?.strip_suffix(".bin")?;
            let (number, rest) = name.split_once("-offset-")?;
            let (offset, _) = rest.split_once('-')?;
            Some((number.parse::<usize>().ok()?, offset.parse::<usize>().ok()?, self.disk.bytes(path)))
        };
        let kept: Vec<_> = self.disk.paths().iter().filter_map(quarantined).collect();
        for (segment, at) in self.damage.places(self.reference) {
            let Some((_, image, now)) = changed.iter().find(|(found, _, _)| *found == segment) else {
                continue;
            };
            let is_kept = kept.iter().any(|(number, offset, bytes)| {
                *number == segment + 1
                    && at.checked_sub(*offset).and_then(|at| bytes.get(at)) == Some(&image[at])
            });
            // Closing writes a mark behind the last event: over zeros, that keeps nothing.
            let last_event = self.reference.frames.iter().rfind(|frame| frame.seq.is_some());
            let is_new_mark =
                image[at] == 0 && last_event.is_some_and(|event| event.segment == segment && event.end <= at);
            if now.get(at) != Some(&image[at]) && !is_kept && !is_new_mark {
                return Err(format!("P9: byte {at} of segment {} is not in quarantine", segment + 1));
            }
        }
        Ok(())
    }

    /// The whole life of a case: a reader, a writer, a repair where it is needed, a reader.
    fn run(&self) -> Result<End, String> {
        let before = self.look(&self.disk)?;
        self.judge_loss("says the reader", &before.lost, &before.findings)?;

        let (opened, refused) = match self.open_and_close()? {
            Ok(recovered) => (Some(recovered), Vec::new()),
            Err(findings) => (None, findings),
        };
        let after = self.look(&self.disk)?;
        if opened.is_none() {
            self.judge_refusal(&after, &refused)?;
        }
        if let Some(recovered) = &opened {
            self.judge_deletions("after opening", &after, &recovered.findings)?;
            let told: Vec<_> = after.findings.iter().chain(&recovered.findings).cloned().collect();
            let loss = self.judge_loss("after opening", &after.lost, &told)?;
            if self.is_whole() {
                return self.whole(recovered, End::HealedByOpen, &before, &after);
            }
            if loss == Loss::CannotBeKnown {
                return Ok(End::CannotBeKnown);
            }
        }

        let (done, lost) = match repair(&log_on(&self.disk), &mut self.with(&mut self.rows()), false) {
            Ok(repaired) => repaired,
            Err(error) => return Err(format!("repair fails: {error}")),
        };
        self.check_quarantine()?;
        if lost.is_empty()
            && let Err(findings) = self.open_and_close()?
        {
            return Err(format!("P5: repair was content, opening is not: {findings:?}"));
        }
        let last = self.look(&self.disk)?;
        if lost.is_empty() {
            self.judge_deletions("after repair", &last, &done.findings)?;
        }
        if lost.is_empty() && self.is_whole() {
            return self.whole(&done, End::HealedByRepair, &before, &last);
        }
        // All that rows or the file `tail` know of is there; that there may have been more is told.
        let behind = (self.beside.witness.is_some() || self.beside.rows > 0 || self.beside.tail)
            && !last.lost.iter().any(|seq| self.is_proved(*seq));
        let cut = done.findings.iter().find(|finding| finding.kind == FindingKind::CutSegment);
        if lost.is_empty()
            && behind
            && cut.is_some_and(|cut| last.lost.iter().all(|seq| cut.seq <= Some(*seq)))
        {
            return Ok(End::FileNamed);
        }
        let unrecorded = last.deleted != self.reference.deleted;
        if lost.is_empty() && last.lost.is_empty() && unrecorded {
            return Ok(End::CannotBeKnown); // a record and the mark behind it, as if they had never been written
        }
        if lost.is_empty() {
            return Err(format!("P3: repair is content, {:?} are lost: {:?}", last.lost, last.findings));
        }
        // The list that the user must agree to is complete by itself.
        let loss = self.judge_loss("says repair", &last.lost, &lost)?;
        if !last.tells_damage() {
            return Err(format!("P3: readers do not tell what repair tells: {lost:?}"));
        }
        Ok(match (loss, &opened) {
            // It is told that something is wrong; of an event that left no trace no more can be said.
            (Loss::CannotBeKnown, _)
                if last.lost.iter().any(|seq| self.has_header(*seq) && !names(&lost, *seq)) =>
            {
                return Err(format!("P3: {:?} are lost, not all are named: {lost:?}", last.lost));
            }
            (Loss::CannotBeKnown, Some(_)) => return Err(format!("P3: {:?} are lost", last.lost)),
            (Loss::FileNamed, _) => End::FileNamed,
            (Loss::Named, Some(_)) => End::ToldToReaders,
            (Loss::Named, None) if last.lost.is_empty() => End::RefusedForNothing,
            (Loss::Named | Loss::CannotBeKnown, None) => End::Refused,
        })
    }

    /// A refusal names file and events, and changes nothing but what could be healed.
    fn judge_refusal(&self, seen: &Seen, findings: &[Finding]) -> Result<(), String> {
        if !findings.iter().any(is_damage) || !findings.iter().all(|finding| finding.file.is_some()) {
            return Err(format!("P3: refused, and no file is named: {findings:?}"));
        }
        if !self.is_only_healed() {
            return Err("P3: refused, and yet something was changed".into());
        }
        // Opening does not read sealed segments, and names what is in the last one.
        let sealed = |frame: &&FrameAt| frame.segment + 1 < SEGMENTS && frame.seq.is_some();
        let last = self.reference.frames.iter().rfind(sealed);
        let sealed = last.and_then(|frame| frame.seq).unwrap_or(0);
        let lost: Vec<u64> = seen.lost.iter().copied().filter(|seq| *seq > sealed).collect();
        self.judge_loss("says the refusal", &lost, findings)?;
        Ok(())
    }

    /// Opens for writing, and closes as a store does. The inner error is a refusal.
    fn open_and_close(&self) -> Result<Result<Recovered, Vec<Finding>>, String> {
        let opened = open(&log_on(&self.disk), self.with(&mut self.rows()));
        self.check_quarantine()?;
        match opened {
            Ok((mut writer, recovered)) => {
                if self.reference.tail.is_some() {
                    writer.mark().map_err(|error| format!("closing: {error}"))?;
                }
                Ok(Ok(recovered))
            }
            Err(Error::Damaged { findings, .. }) => Ok(Err(findings)),
            Err(error) => Err(format!("opening fails: {error}")),
        }
    }

    /// Whether the header of an event's frame is in its place, whatever became of the rest.
    fn has_header(&self, seq: u64) -> bool {
        let Some(frame) = self.reference.frames.iter().find(|frame| frame.seq == Some(seq)) else {
            return false;
        };
        let header = frame.start..frame.start + HEADER;
        let found =
            self.damage.image(self.reference, frame.segment).and_then(|image| image.get(header.clone()));
        found == Some(&self.reference.images[frame.segment][header])
    }

    /// A log that is whole again: healed, or freed of stray bytes. Either was told, and the next event
    /// can follow.
    fn whole(&self, done: &Recovered, healed: End, before: &Seen, now: &Seen) -> Result<End, String> {
        if !now.lost.is_empty() || now.tells_damage() {
            return Err(format!("whole, and yet {:?} are lost: {:?}", now.lost, now.findings));
        }
        self.goes_on()?;
        let has = |kind| done.findings.iter().any(|finding| finding.kind == kind);
        let end = if has(FindingKind::HealedFrame) {
            healed
        } else if has(FindingKind::TornTail) || has(FindingKind::DamagedFiller) {
            End::PutAside
        } else if self.is_a_mark_alone() {
            return Ok(End::MarkAlone);
        } else {
            return Err(format!("whole again without a word: {:?}", done.findings));
        };
        if before.findings.is_empty() {
            return Err(format!("{end:?}, and the reader had told nothing"));
        }
        Ok(end)
    }

    /// Whether the damage took away nothing but a mark at the log's end: the bytes are those of a log
    /// whose mark was never written, which is lawful.
    fn is_a_mark_alone(&self) -> bool {
        let Some(mark) = self.reference.frames.last().filter(|frame| frame.seq.is_none()) else {
            return false;
        };
        let [(segment, Some(image))] = &self.damage.0[..] else { return false };
        let whole = &self.reference.images[*segment];
        *segment == mark.segment
            && image[mark.start..mark.end].iter().all(|byte| *byte == 0)
            && (0..SIZE).all(|at| (mark.start..mark.end).contains(&at) || image[at] == whole[at])
    }

    /// The log takes the next event.
    fn goes_on(&self) -> Result<(), String> {
        let disk = self.disk.after_kill();
        let (mut writer, _) = open(&log_on(&disk), self.with(&mut NoDonor))
            .map_err(|error| format!("opened again: {error}"))?;
        match writer.append(&one(b"next"), 1) {
            Ok(seq) if seq == self.reference.newest.seq + 1 => Ok(()),
            other => Err(format!("P3: the next event: {other:?}")),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Loss {
    Named,
    FileNamed,
    CannotBeKnown,
}

/// Counts by kind of damage and end, and the first failures in words.
#[derive(Default)]
struct Table {
    counts: BTreeMap<(usize, End), u64>,
    failures: Vec<String>,
    failed: u64,
}

impl Table {
    fn add(&mut self, other: Self) {
        for (cell, count) in other.counts {
            *self.counts.entry(cell).or_default() += count;
        }
        self.failed += other.failed;
        self.failures.extend(other.failures);
    }

    fn count(&self, end: End) -> u64 {
        self.counts.iter().filter(|((_, found), _)| *found == end).map(|(_, count)| count).sum()
    }

    fn print(&self, name: &str) {
        print!("\n{name:<24} {:>9}", "cases");
        End::ALL.iter().for_each(|end| print!(" {:>15}", end.name()));
        println!(" {:>11}", "SILENT LOSS");
        for (index, kind) in Kind::ALL.iter().enumerate() {
            let counts: Vec<u64> =
                End::ALL.iter().map(|end| self.counts.get(&(index, *end)).copied().unwrap_or(0)).collect();
            let total: u64 = counts.iter().sum();
            if total > 0 {
                print!("{:<24} {total:>9}", kind.name());
                counts.iter().for_each(|count| print!(" {count:>15}"));
                println!(" {:>11}", if self.failed == 0 { "0" } else { "?" });
            }
        }
        let total: u64 = self.counts.values().sum();
        print!("{:<24} {total:>9}", "all");
        End::ALL.iter().for_each(|end| print!(" {:>15}", self.count(*end)));
        println!(" {:>11}", self.failed);
    }
}

/// Runs every `stride`-th case of each kind that has many; all of the others.
fn enumerate(reference: &Reference, beside: &Beside, stride: usize) -> Table {
    const CHUNK: usize = 256;
    let whole = reference.disk(beside.tail);
    let total = Mutex::new(Table::default());
    for (row, kind) in Kind::ALL.into_iter().enumerate() {
        let cases = kind.cases(reference);
        let step = if cases > 1000 { stride } else { 1 };
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(2) {
                scope.spawn(|| {
                    let mut table = Table::default();
                    loop {
                        let start = next.fetch_add(CHUNK, Ordering::Relaxed);
                        if start * step >= cases {
                            break;
                        }
                        for index in (start..start + CHUNK).map(|at| at * step).filter(|at| *at < cases) {
                            let Some(damage) = kind.damage(reference, index) else { continue };
                            let disk = damage.on(&whole);
                            let case = Case { reference, beside, damage: &damage, disk };
                            // P12: a panic is a failure like any other.
                            let ended = catch_unwind(AssertUnwindSafe(|| case.run()))
                                .unwrap_or_else(|_| Err("P12: a panic".into()));
                            match ended {
                                Ok(end) => *table.counts.entry((row, end)).or_default() += 1,
                                Err(why) => {
                                    table.failed += 1;
                                    if table.failures.len() < 5 {
                                        table.failures.push(format!("{kind:?} {index}: {why}"));
                                    }
                                }
                            }
                        }
                    }
                    total.lock().unwrap().add(table);
                });
            }
        });
    }
    total.into_inner().unwrap()
}

/// All cases, or every so many: a prime, so that a sample takes every bit of a byte and every place in a frame in
/// turn.
fn stride() -> usize {
    match std::env::var("SYNCLOG_DAMAGE").as_deref() {
        Ok("full") => 1,
        Ok(number) => number.parse().expect("SYNCLOG_DAMAGE is `full`, or takes every so many cases"),
        Err(_) => 211,
    }
}

fn judge(reference: &Reference, about: &str, besides: &[Beside], stride: usize) -> Vec<Table> {
    let mut tables = Vec::new();
    for beside in besides {
        let started = std::time::Instant::now();
        let table = enumerate(reference, beside, stride);
        table.print(&format!("{about}, {}", beside.name));
        println!("({:.1} s)", started.elapsed().as_secs_f64());
        for failure in &table.failures {
            println!("FAILED: {failure}");
        }
        tables.push(table);
    }
    assert!(tables.iter().all(|table| table.failed == 0), "promises were broken; see above");
    tables
}

#[test]
fn damage_to_a_closed_log() {
    let reference = Reference::new(true);
    let besides = [
        Beside::database("database", reference.newest, true),
        Beside::no_database("no database", true),
        Beside::no_database("nothing else", false),
    ];
    judge(&reference, "closed", &besides, stride());
}

/// Rows that have followed every deletion record are all that still tells of one that is gone.
#[test]
fn damage_to_a_log_with_deletions() {
    let reference = Reference::with_deletions();
    let segments: std::collections::BTreeSet<_> =
        reference.records.iter().map(|index| reference.frames[*index].segment).collect();
    assert_eq!(segments.len(), SEGMENTS);
    let besides =
        [Beside::database("database", reference.newest, true), Beside::no_database("nothing else", false)];
    judge(&reference, "deletions", &besides, stride());
}

#[test]
fn damage_to_a_log_whose_writer_was_killed() {
    let reference = Reference::new(false);
    let besides = [
        Beside::database("database", reference.newest, false),
        Beside::database("rows behind", reference.before_last_group, false),
        Beside::no_database("nothing else", false),
    ];
    judge(&reference, "killed", &besides, stride());
}

/// A database that is whole, and not as it should be: its rows say the same without the applied seq, and the applied
/// seq still says something without its row. What else may differ is in `tests/evidence.rs`.
#[test]
fn damage_to_a_log_beside_a_database_that_was_edited() {
    let reference = Reference::new(false);
    let (newest, before) = (reference.newest, reference.before_last_group);
    let rows = newest.seq;
    let besides = [
        Beside { name: "no applied seq", rows, witness: None, claim: None, tail: false },
        Beside { name: "applied seq behind", rows, witness: Some(before), claim: None, tail: false },
        Beside { name: "newest row gone", rows: rows - 1, witness: None, claim: Some(newest), tail: false },
    ];
    let tables = judge(&reference, "edited", &besides, 7 * stride());
    for table in &tables[..2] {
        assert_eq!(table.count(End::CannotBeKnown), 0, "a row tells of each event");
    }
}
