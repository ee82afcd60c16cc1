//! Appending groups: one write, one sync, one group in flight.

use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::{DiskFile, FileIdentity, read_exact_at};
use crate::error::{Error, Outcome, Result};

use super::deletion::{self, Deletion};
use super::directory::LogDir;
use super::frame::{self, Draft, FrameKind, MARK_LEN, MAX_SEQ, frame_len};
use super::segment::{self, FIRST_FRAME, MAX_SEGMENT, SegmentHeader};
use super::survey::{Survey, Witness, zero_piece_in};
use super::tail::TailFile;

/// The most bytes of frames that one atomic batch may take.
pub(crate) const MAX_BATCH: u64 = 32 * 1024 * 1024;

/// Sizes of segments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Size of the first segment in bytes; each later one is twice as large, up to `max_segment`.
    pub(crate) first_segment: u64,
    pub(crate) max_segment: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { first_segment: 256 * 1024, max_segment: 16 * 1024 * 1024 }
    }
}

impl Limits {
    /// The size of segment `number`, which must hold at least `frames` bytes of frames: those of one batch.
    /// Where that is a large part of it, the size is that of a few batches which differ little, because a batch
    /// is never split and would leave the rest empty.
    pub(crate) fn segment_size(&self, number: u64, frames: u64) -> u64 {
        /// More batches than these leave little space empty anyway.
        const FEW: u64 = 16;
        let doublings = (number - 1).min(20) as u32;
        let regular = self.first_segment.saturating_mul(1 << doublings).min(self.max_segment);
        let needed = FIRST_FRAME + frames + MARK_LEN;
        let alike = frames + frames / 64 + MARK_LEN;
        match regular.saturating_sub(FIRST_FRAME) / alike {
            0 => needed.next_multiple_of(4096).min(MAX_SEGMENT),
            fit @ 1..=FEW => (FIRST_FRAME + fit * alike).next_multiple_of(4096),
            _ => regular.min(MAX_SEGMENT),
        }
    }
}

/// One event to append.
#[derive(Clone, Debug)]
pub(crate) struct NewEvent {
    pub(crate) event_kind: u16,
    pub(crate) version: u16,
    /// The payload starts with an idempotency key.
    pub(crate) keyed: bool,
    pub(crate) payload: Vec<u8>,
}

/// The bytes that a batch takes in the log.
pub(crate) fn batch_len(batch: &[NewEvent]) -> u64 {
    batch.iter().map(|event| frame_len(event.payload.len() as u32)).sum()
}

/// A place in the log: everything before it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    /// The seq of the next event.
    pub(crate) seq: u64,
}

/// The one who appends. After a failed write or sync it takes nothing more (P10).
pub(crate) struct LogWriter {
    log: LogDir,
    limits: Limits,
    header: SegmentHeader,
    file: Arc<dyn DiskFile>,
    /// Which file it is, and where it must be found.
    identity: FileIdentity,
    path: PathBuf,
    seed: frame::Seed,
    /// Where the next frame goes, and what it must say to be in the chain.
    end: u64,
    next_seq: u64,
    previous: u32,
    /// Up to here a sync of this handle has succeeded.
    proved: u64,
    ends_in_mark: bool,
    /// The last event in the present segment.
    last_event: Option<Witness>,
    tail: TailFile,
    failed: bool,
    buffer: Vec<u8>,
    /// What stands where the buffer is to be written.
    before: Vec<u8>,
}

impl LogWriter {
    /// A writer at the end that recovery found, wrote again and synced.
    pub(super) fn new(
        log: LogDir,
        limits: Limits,
        header: SegmentHeader,
        file: Arc<dyn DiskFile>,
        surveyed: &Survey,
    ) -> Result<Self> {
        assert!(
            !surveyed.evidence.proof_beyond && surveyed.evidence.rest_is_zero,
            "P3: recovery comes first"
        );
        let path = log.segment_path(header.number);
        let identity = file.identity().map_err(|error| Error::io("look up", &path, error))?;
        let writer = Self {
            log,
            limits,
            identity,
            path,
            seed: frame::Seed::new(header.store, header.number),
            header,
            file,
            end: surveyed.end.offset,
            next_seq: surveyed.end.seq,
            previous: surveyed.end.previous,
            proved: surveyed.end.offset,
            ends_in_mark: surveyed.ends_in_mark || !surveyed.has_frames,
            last_event: surveyed.last_event,
            tail: TailFile::default(),
            failed: false,
            buffer: Vec::new(),
            before: Vec::new(),
        };
        writer.log.check()?;
        Ok(writer)
    }

    pub(crate) fn store(&self) -> crate::StoreId {
        self.header.store
    }

    /// Where the log ends; everything before it is durable.
    pub(crate) fn position(&self) -> Position {
        Position { segment: self.header.number, offset: self.end, seq: self.next_seq }
    }

    /// Bytes of frames that still fit into the present segment, with room for a mark behind them.
    pub(crate) fn room(&self) -> u64 {
        (self.header.size - self.end).saturating_sub(MARK_LEN)
    }

    /// Goes on in a new segment that has room for `frames` bytes. Everything before it is synced
    /// first. A full disk is not final: nothing of the log itself was touched.
    pub(crate) fn roll(&mut self, frames: u64) -> Result<()> {
        self.roll_at(frames, crate::time::Timestamp::now().as_micros())
    }

    /// Goes on in a segment that was made at this time.
    pub(crate) fn roll_at(&mut self, frames: u64, now: i64) -> Result<()> {
        self.check_alive()?;
        self.check_seq(0)?;
        // By all that is held, because a new segment is made in its directory.
        let checked = self.log.check();
        self.final_unless_ok(checked, Outcome::NotWritten)?;
        self.check_place(Outcome::NotWritten)?;
        self.check_end()?;
        self.sync()?;
        let number = self.header.number + 1;
        let header = SegmentHeader {
            number,
            first_seq: self.next_seq,
            size: self.limits.segment_size(number, frames),
            created_at: now,
            previous: self.previous,
            ..self.header
        };
        let path = self.log.segment_path(number);
        // Whatever became of the segment, no event was in it.
        let made = segment::create(self.log.disk.as_ref(), &self.log.log_dir(), &header)
            .map_err(|error| error.with_outcome(Outcome::NotWritten));
        let file = match made {
            Ok(file) => file,
            // Where the segment may be in its place, going on in the old one could contradict it.
            Err(error) => {
                self.failed = !matches!(self.log.disk.open(&path, false), Err(gone) if gone.kind() == std::io::ErrorKind::NotFound);
                return Err(error);
            }
        };
        // From now on the one before is looked at no more.
        self.check_place(Outcome::NotWritten)?;
        self.check_end()?;
        let identity = file.identity().map_err(|error| Error::io("look up", &path, error));
        self.identity = self.final_unless_ok(identity, Outcome::NotWritten)?;
        self.path = path;
        self.seed = frame::Seed::new(header.store, number);
        self.header = header;
        self.file = file;
        self.end = FIRST_FRAME;
        self.proved = FIRST_FRAME;
        self.ends_in_mark = true;
        Ok(())
    }

    /// Appends whole batches as one group and makes them durable. The caller has made room. Returns
    /// the seq of the first event; the rest follow without gaps.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn append(&mut self, batches: &[Vec<NewEvent>], now: i64) -> Result<u64> {
        self.append_and(batches, now, |_| {})
    }

    /// The same, with work to do while the disk is busy: `meanwhile` is told where the group ends. Nothing
    /// that it does may outlive a failure of the sync (P2).
    pub(crate) fn append_and(
        &mut self,
        batches: &[Vec<NewEvent>],
        now: i64,
        meanwhile: impl FnOnce(Position),
    ) -> Result<u64> {
        self.check_alive()?;
        self.check_seq(batches.iter().map(|batch| batch.len() as u64).sum())?;
        let len: u64 = batches.iter().map(|batch| batch_len(batch)).sum();
        assert!(len <= self.room() && len > 0, "a group lies in one segment");
        assert!(self.proved <= self.end, "P1: one group in flight");
        let first_seq = self.next_seq;
        let start = self.end;
        let mut last_event = None;
        self.buffer.clear();
        for batch in batches {
            for (index, event) in batch.iter().enumerate() {
                let more = if index + 1 < batch.len() { frame::FLAG_MORE } else { 0 };
                let key = if event.keyed { frame::FLAG_KEY } else { 0 };
                let draft = Draft {
                    kind: FrameKind::Event,
                    event_kind: event.event_kind,
                    version: event.version,
                    flags: more | key,
                    seq: self.next_seq,
                    appended_at: now,
                    durable_end: self.proved as u32,
                    previous: self.previous,
                    payload: &event.payload,
                };
                let offset = start + self.buffer.len() as u64;
                self.previous = frame::encode(&self.seed, offset, &draft, &mut self.buffer);
                last_event = Some(Witness { seq: self.next_seq, sum: self.previous });
                self.next_seq += 1;
            }
        }
        // The frames lie next to each other, and each starts and ends in a byte that is not zero: a
        // sector of zeros lies inside one frame.
        let needs_mark = zero_piece_in(&self.buffer, start);
        self.check_before_write(start)?;
        self.write(start)?;
        self.start_sync(start)?;
        meanwhile(self.position());
        self.sync()?;
        self.proved = self.end;
        self.ends_in_mark = false;
        if needs_mark {
            // A frame with a sector of zeros looks torn; only a durable mark tells it from one.
            self.mark().map_err(|error| error.with_outcome(Outcome::Unknown))?;
            self.sync()?;
            self.proved = self.end;
        }
        self.check_place(Outcome::Unknown)?;
        self.last_event = last_event;
        if self.buffer.capacity() > 4 * 1024 * 1024 {
            self.buffer = Vec::new();
        }
        Ok(first_seq)
    }

    /// Records that events are deleted, and makes that durable. The record has no seq of its own.
    pub(crate) fn append_deletion(&mut self, record: &Deletion, now: i64) -> Result<()> {
        let payload = record.encode();
        let len = frame_len(payload.len() as u32);
        if len > self.room() {
            self.roll(len)?;
        }
        self.check_alive()?;
        self.check_seq(0)?;
        assert!(self.proved <= self.end, "P1: one group in flight");
        let start = self.end;
        let draft = deletion::draft(&payload, self.next_seq, now, self.proved, self.previous);
        self.buffer.clear();
        self.previous = frame::encode(&self.seed, start, &draft, &mut self.buffer);
        self.check_before_write(start)?;
        self.write(start)?;
        self.sync()?;
        self.proved = self.end;
        self.ends_in_mark = false;
        // Nothing may follow for long, and the record may hold a sector of zeros.
        self.mark().map_err(|error| error.with_outcome(Outcome::Unknown))?;
        self.sync()?;
        self.proved = self.end;
        self.check_place(Outcome::Unknown)
    }

    /// Writes a mark, which proves the last group, unless the log ends in one. Needs no sync.
    pub(crate) fn mark(&mut self) -> Result<()> {
        self.check_alive()?;
        if self.ends_in_mark || self.header.size - self.end < MARK_LEN || self.next_seq > MAX_SEQ {
            return Ok(());
        }
        assert_eq!(self.proved, self.end, "P10: no mark without a successful sync");
        self.buffer.clear();
        let draft = Draft::mark(self.end, self.next_seq, self.previous);
        self.previous = frame::encode(&self.seed, self.end, &draft, &mut self.buffer);
        self.check_before_write(self.end)?;
        self.write(self.end)?;
        self.ends_in_mark = true;
        Ok(())
    }

    /// Notes the newest event, which must be durable, in the file `tail`.
    pub(crate) fn note_tail(&mut self) {
        if let Some(newest) = self.last_event.filter(|_| !self.failed) {
            self.tail.write(&self.log, &self.header, newest);
        }
    }

    /// Whether the log ends in a group that no mark proves.
    pub(crate) fn wants_mark(&self) -> bool {
        !self.failed && !self.ends_in_mark
    }

    fn check_alive(&self) -> Result<()> {
        if self.failed { Err(Error::Closed) } else { Ok(()) }
    }

    /// Whether so many events can still come, and what stands behind them: before a byte is written that no reader
    /// would take for a frame.
    fn check_seq(&self, events: u64) -> Result<()> {
        if self.next_seq.saturating_add(events) <= MAX_SEQ {
            return Ok(());
        }
        Err(Error::invalid("seq", format!("is at its limit: no event can come after {MAX_SEQ}")))
    }

    /// What is found is final, as a failed write is (P10).
    fn final_unless_ok<T>(&mut self, found: Result<T>, outcome: Outcome) -> Result<T> {
        found.map_err(|error| {
            self.failed = true;
            error.with_outcome(outcome)
        })
    }

    /// The path still leads to the segment and the lock that this handle holds, in the process that opened
    /// them (P1).
    fn check_place(&mut self, outcome: Outcome) -> Result<()> {
        let checked = self.log.check_newest(&self.path, self.identity);
        self.final_unless_ok(checked, outcome)
    }

    /// The same for whoever answers without a write.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.check_alive()?;
        self.check_place(Outcome::NotWritten)
    }

    /// Nothing is written where the store is not, nor over bytes that are not the zeros which this handle has
    /// left there: somebody else's acknowledged events, who got in without the lock (P3).
    fn check_before_write(&mut self, at: u64) -> Result<()> {
        self.check_place(Outcome::NotWritten)?;
        let checked = self.find_zeros(at, self.buffer.len() as u64);
        self.final_unless_ok(checked, Outcome::NotWritten)
    }

    /// Nobody else has gone on where this handle leaves the segment.
    fn check_end(&mut self) -> Result<()> {
        let checked = self.find_zeros(self.end, MARK_LEN.min(self.header.size - self.end));
        self.final_unless_ok(checked, Outcome::NotWritten)
    }

    fn find_zeros(&mut self, at: u64, len: u64) -> Result<()> {
        /// As much as stays in a core's nearer cache.
        const PIECE: usize = 64 * 1024;
        let end = at + len;
        self.before.resize(len.min(PIECE as u64) as usize, 0);
        let mut offset = at;
        while offset < end {
            let part = &mut self.before[..(end - offset).min(PIECE as u64) as usize];
            read_exact_at(self.file.as_ref(), part, offset)
                .map_err(|error| Error::io_at("read", &self.path, offset, error))?;
            // Not `all`, which looks at one byte at a time.
            if part.iter().fold(0, |any, byte| any | byte) != 0 {
                let seen = format!(
                    "bytes that are not this handle's were written behind its last event, at {offset}"
                );
                let (path, outcome) = (self.path.clone(), Outcome::NotWritten);
                return Err(Error::Displaced { path, seen, outcome });
            }
            offset += part.len() as u64;
        }
        Ok(())
    }

    fn write(&mut self, at: u64) -> Result<()> {
        if let Err(error) = self.file.write_all_at(&self.buffer, at) {
            self.failed = true;
            return Err(Error::io_at("write", &self.path, at, error).with_outcome(Outcome::Unknown));
        }
        self.end = at + self.buffer.len() as u64;
        Ok(())
    }

    /// Sends what was written from `start` on to the disk, without waiting for it.
    fn start_sync(&mut self, start: u64) -> Result<()> {
        let started = self.file.start_sync(start, self.end - start);
        self.synced(started)
    }

    fn sync(&mut self) -> Result<()> {
        let synced = self.file.sync();
        self.synced(synced)
    }

    fn synced(&mut self, result: std::io::Result<()>) -> Result<()> {
        result.map_err(|error| {
            self.failed = true;
            Error::io("sync", &self.path, error).with_outcome(Outcome::Unknown)
        })
    }

    /// Whether the handle is dead.
    pub(crate) fn is_failed(&self) -> bool {
        self.failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_batches_that_differ_little_leave_little_space_empty() {
        let limits = Limits::default();
        for batch in [1 << 20, 2_950_000, 5 << 20, 8_000_000, 9 << 20, 16_000_000] {
            let size = limits.segment_size(20, batch);
            assert!(size <= limits.max_segment);
            // The next ones may be a little larger, and each may need a mark of its own.
            let each = batch + batch / 80 + MARK_LEN;
            let used = (size - FIRST_FRAME) / each * each;
            assert!(used > 0 && used + size / 16 > size, "{batch}: {used} of {size}");
        }
        let largest = limits.segment_size(20, MAX_BATCH);
        assert!(largest > MAX_BATCH && largest < MAX_BATCH + 16 * 1024);
        assert_eq!(limits.segment_size(1, 0), limits.first_segment);
        assert_eq!(limits.segment_size(3, 300), 4 * limits.first_segment);
        assert_eq!(limits.segment_size(20, 300), limits.max_segment);
    }
}
