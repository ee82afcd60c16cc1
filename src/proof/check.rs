//! What must hold of a log after a crash: everything acknowledged is there bit for bit, of what was in
//! flight a prefix of whole batches, and nothing else. And what may stand beside a log: any earlier
//! state of its rows, or rows that lie.

use std::sync::{Arc, OnceLock};

use crate::error::Result;
use crate::log::cursor::Entry;
use crate::log::damage::any_damage;
use crate::log::deletion::{Deletion, Reason};
use crate::log::frame::{HEADER_LEN, MAX_SEQ};
use crate::log::heal::{Donor, DonorFrame};
use crate::log::open::{OpenLog, create_as, open, repair};
use crate::log::survey::Witness;
use crate::log::view::LogView;
use crate::log::writer::{Limits, LogWriter, NewEvent};
use crate::store_id::StoreId;

use super::disk::SimDisk;
use super::log_on;

/// Small, so that logs roll often and a state is cheap.
pub(crate) const TINY: Limits = Limits { first_segment: 12 * 1024, max_segment: 16 * 1024 };

/// One event of a script. Its number is its event type as well, so that no two are alike.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) number: u16,
    pub(crate) payload: Vec<u8>,
    /// The frame's header, once the event was found in a log.
    pub(crate) raw: OnceLock<[u8; HEADER_LEN]>,
}

pub(crate) type Batch = Vec<Arc<Planned>>;

impl Planned {
    pub(crate) fn new(number: u16, payload: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { number, payload, raw: OnceLock::new() })
    }

    pub(crate) fn event(&self) -> NewEvent {
        NewEvent { event_kind: self.number, version: 1, keyed: false, payload: self.payload.clone() }
    }

    pub(crate) fn witness(&self, seq: u64) -> Option<Witness> {
        let raw = self.raw.get()?;
        Some(Witness { seq, sum: u32::from_le_bytes([raw[40], raw[41], raw[42], raw[43]]) })
    }
}

/// What must be in a log and what may be.
#[derive(Clone, Copy)]
pub(crate) struct Expect<'a> {
    /// In order of their seqs, from 1.
    pub(crate) acknowledged: &'a [Arc<Planned>],
    /// Whole batches that may follow, in order.
    pub(crate) pending: &'a [Batch],
    /// The numbers of deletion records that were acknowledged, of those whoever asks knows of.
    pub(crate) deletions: &'a [i64],
}

/// A deletion record of a script. Its number tells it from others; it covers no event that there is.
pub(crate) fn deletion(number: i64) -> Deletion {
    Deletion {
        reason: Reason::Retention,
        subject: [0; 32],
        cut_off: number,
        ranges: vec![(MAX_SEQ, MAX_SEQ)],
    }
}

/// How many events a reader finds; an error where that breaks a promise. Learns their headers.
pub(crate) fn verify(
    disk: &SimDisk,
    expect: Expect<'_>,
    witness: Option<Witness>,
) -> std::result::Result<usize, String> {
    let fail = |what: String| Err(what);
    let view = match LogView::open(log_on(disk), witness, false) {
        Ok(Some(view)) => view,
        Ok(None) if expect.acknowledged.is_empty() => return Ok(0),
        Ok(None) => return fail("P3: the log is gone".into()),
        Err(error) => return fail(format!("P5: a reader is told: {error}")),
    };
    if any_damage(&view.findings) {
        return fail(format!("P5: a reader is told of damage: {:?}", view.findings));
    }
    let (mut cursor, missing) = view.cursor(1).map_err(|error| format!("P5: {error}"))?;
    if !missing.is_empty() {
        return fail(format!("P3: {missing:?}"));
    }
    let mut lawful = expect.acknowledged.iter().chain(expect.pending.iter().flatten());
    let (mut count, mut deletions) = (0, Vec::new());
    loop {
        match cursor.next().map_err(|error| format!("P5: event {}: {error}", count + 1))? {
            None => break,
            Some(Entry::Event { header, raw, payload }) => {
                count += 1;
                let Some(planned) = lawful.next() else {
                    return fail(format!("P4: event {count} was never appended"));
                };
                if header.seq != count as u64
                    || header.event_kind != planned.number
                    || planned.payload != *payload
                {
                    return fail(format!(
                        "P3, P4: event {count}: seq {}, number {} instead of {}",
                        header.seq, header.event_kind, planned.number
                    ));
                }
                planned.raw.get_or_init(|| *raw);
            }
            Some(Entry::Damage(finding)) => return fail(format!("P3: {finding}")),
            Some(Entry::Deletion { payload }) => {
                let number = Deletion::decode(payload).map_or(0, |record| record.cut_off);
                let after = deletions.last().copied().unwrap_or(0);
                if number <= after || payload != deletion(number).encode() {
                    return fail(format!("P4: a deletion record {number} after {after}"));
                }
                deletions.push(number);
            }
            Some(_) => return fail("P4: neither gaps nor erasures here".into()),
        }
    }
    if let Some(lost) = expect.deletions.iter().find(|number| !deletions.contains(number)) {
        return fail(format!("P1, P8: the deletion record {lost} was acknowledged and is gone"));
    }
    let mut whole = expect.acknowledged.len();
    if count < whole {
        return fail(format!("P1, P3: {count} of {whole} acknowledged events are there"));
    }
    for batch in expect.pending.iter().take_while(|_| whole < count).collect::<Vec<_>>() {
        whole += batch.len();
        if whole > count {
            return fail(format!("P4: a batch is cut at event {count}"));
        }
        if whole == count {
            break;
        }
    }
    Ok(count)
}

/// Rows up to some event, as the projection has them.
pub(crate) struct Rows<'a> {
    pub(crate) known: &'a [Arc<Planned>],
    /// They are not what was written.
    pub(crate) lie: bool,
}

impl Donor for Rows<'_> {
    fn frame(&mut self, seq: u64) -> Result<Option<DonorFrame>> {
        let Some(planned) = self.known.get((seq as usize).wrapping_sub(1)) else {
            // A liar has a row for everything.
            let made_up = || DonorFrame { header: vec![0xF1; HEADER_LEN], payload: vec![1; 40] };
            return Ok(self.lie.then(made_up));
        };
        let Some(raw) = planned.raw.get() else { return Ok(None) };
        let mut frame = DonorFrame { header: raw.to_vec(), payload: planned.payload.clone() };
        if self.lie {
            frame.payload.push(seq as u8);
            frame.header[seq as usize % HEADER_LEN] ^= 4;
        }
        Ok(Some(frame))
    }
}

/// Who opens a log, and what stands beside it.
pub(crate) struct Opener<'a> {
    pub(crate) store: StoreId,
    pub(crate) limits: Limits,
    pub(crate) witness: Option<Witness>,
    pub(crate) rows: Rows<'a>,
    pub(crate) trust_log: bool,
}

impl Opener<'_> {
    /// Nothing stands beside the log.
    pub(crate) fn alone(store: StoreId) -> Self {
        let rows = Rows { known: &[], lie: false };
        Self { store, limits: TINY, witness: None, rows, trust_log: false }
    }

    fn with(&mut self) -> OpenLog<'_> {
        OpenLog {
            limits: self.limits,
            witness: self.witness,
            claim: None,
            donor: &mut self.rows,
            unread: None,
            trust_log: self.trust_log,
            tail: None,
        }
    }

    /// Opens the log for writing, or makes it.
    pub(crate) fn open(&mut self, disk: &SimDisk) -> Result<LogWriter> {
        let log = log_on(disk);
        if super::segments(disk).is_empty() {
            return create_as(&log, self.limits, 1, self.store).map(|(writer, _)| writer);
        }
        open(&log, self.with()).map(|(writer, _)| writer)
    }

    /// Repairs the log; what is lost comes back in words.
    pub(crate) fn repair(&mut self, disk: &SimDisk) -> Result<Vec<String>> {
        let (_, lost) = repair(&log_on(disk), &mut self.with(), false)?;
        Ok(lost.iter().map(ToString::to_string).collect())
    }
}
