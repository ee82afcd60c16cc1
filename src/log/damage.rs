//! Naming damage: which seqs, which file, which offset (P3).

use std::collections::HashSet;

use crate::error::Result;
use crate::finding::{Finding, FindingKind, Severity};

use super::cursor::{Cursor, Entry, Horizon, Segments};
use super::directory::LogDir;
use super::frame::MARK_LEN;
use super::segment::{FIRST_FRAME, SegmentHeader};
use super::survey::{Chain, Sighting, Survey, Witness};

/// Each damage in a segment, found by reading it to the end of what it is known to have held. `parts` are segments
/// that are not whole.
pub(crate) fn name_damage(
    log: &LogDir,
    surveyed: &Survey,
    header: &SegmentHeader,
    later: Option<&SegmentHeader>,
    parts: &[SegmentHeader],
) -> Result<Vec<Finding>> {
    let horizon = match later {
        Some(later) => Horizon { segment: later.number, offset: FIRST_FRAME, seq: later.first_seq },
        None => known_end(header.number, surveyed),
    };
    let mut cursor = Cursor::at_segment_of(log.clone(), *header, parts.to_vec(), horizon)?;
    let mut findings = Vec::new();
    while let Some(entry) = cursor.next()? {
        match entry {
            Entry::Damage(finding) => findings.push(finding),
            // Recovery has no place for an erased event, so here it is what was found damaged.
            Entry::Erased { seq, segment, offset, .. } => {
                let what = "the payload is zeros, and recovery knows no deletion record that covers it";
                let path = log.segment_path(segment);
                findings.push(Finding::new(FindingKind::DamagedFrame, what).seq(seq).at(path, offset));
            }
            _ => {}
        }
    }
    // A batch in a file that is not whole may have had its end in what is gone.
    let cut_batch = surveyed.open_batch.is_some() && parts.contains(header);
    let something = !surveyed.evidence.rest_is_zero || cut_batch;
    if later.is_none() && horizon.offset <= surveyed.end.offset && something {
        let what = format!(
            "{}, and nothing tells whether it was acknowledged; `synclog repair` heals it if its row is there",
            surveyed.fault.describe()
        );
        let (first, last) = unproved_events(surveyed);
        let path = log.segment_path(header.number);
        findings.push(
            Finding::new(FindingKind::DamagedFrame, what).seqs(first, last).at(path, surveyed.end.offset),
        );
    }
    Ok(findings)
}

/// The events of the last group, of which a part is damaged and nothing proves any: from the start of
/// the batch that the damage cuts, to the last event whose header is still there. None is given out.
fn unproved_events(surveyed: &Survey) -> (u64, u64) {
    let end = surveyed.end;
    let first = surveyed.open_batch.map_or(end.seq, |batch| batch.seq);
    let beyond = surveyed.beyond.map_or(end.seq, |(offset, header)| {
        // A payload may hold the bytes of a header; no more events fit in between than this.
        let most = end.seq.saturating_add((offset - end.offset) / MARK_LEN);
        (Chain::after(offset, &header).seq - 1).min(most)
    });
    (first, beyond.max(end.seq))
}

/// How far the frames of the last segment must once have reached: behind the last sound header.
pub(crate) fn known_end(segment: u64, surveyed: &Survey) -> Horizon {
    let valid = Horizon { segment, offset: surveyed.end.offset, seq: surveyed.end.seq };
    if !surveyed.evidence.proof_beyond {
        return valid;
    }
    match surveyed.beyond {
        Some((offset, header)) if header.seq >= surveyed.end.seq => {
            let after = Chain::after(offset, &header);
            Horizon { segment, offset: after.offset, seq: after.seq }
        }
        _ if surveyed.proved_end > surveyed.end.offset => {
            let seq = surveyed.proved_seq.max(surveyed.end.seq);
            Horizon { segment, offset: surveyed.proved_end, seq }
        }
        _ => valid,
    }
}

/// The finding for a witness that has seen more than the log holds.
pub(crate) fn beyond_finding(
    log: &LogDir,
    surveyed: &Survey,
    header: &SegmentHeader,
    witness: Option<Witness>,
) -> Option<Finding> {
    let witness = witness.filter(|_| surveyed.sighting == Sighting::Beyond)?;
    let end = known_end(header.number, surveyed);
    (witness.seq >= end.seq).then(|| {
        let what = format!(
            "events up to {} were durable (SQLite or the file `tail` has seen them), the log ends before {}; put \
             back a copy of the log, let `synclog repair` bring back what rows can prove, or give the events up \
             with `synclog repair --trust-log`",
            witness.seq, end.seq
        );
        Finding::new(FindingKind::AppliedBeyondLog, what)
            .seqs(end.seq, witness.seq)
            .at(log.segment_path(header.number), end.offset)
    })
}

/// The finding for a batch that was durable, and whose end is not there.
pub(crate) fn cut_batch_finding(log: &LogDir, surveyed: &Survey, header: &SegmentHeader) -> Option<Finding> {
    let end = known_end(header.number, surveyed);
    let cut = surveyed.evidence.proof_beyond && end.offset <= surveyed.end.offset;
    surveyed.open_batch.filter(|_| cut).map(|_| {
        let what = "a batch was durable, and its last events are not there";
        Finding::new(FindingKind::MissingEvents, what)
            .seq(surveyed.end.seq)
            .at(log.segment_path(header.number), surveyed.end.offset)
    })
}

/// The finding for a log of which no segment is left, and whose newest event somebody has seen.
pub(crate) fn all_gone(log: &LogDir, seen: Option<Witness>) -> Finding {
    let what = "the rest of a store is here, but no segment of its log; `synclog repair` makes the log again as \
                far as rows prove it; or put the directory `log` back from a copy";
    let finding = Finding::new(FindingKind::MissingSegment, what).file(log.log_dir());
    seen.map_or(finding.clone(), |seen| finding.seqs(1, seen.seq))
}

/// Whether any of the findings says that the log is damaged.
pub(crate) fn any_damage(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.kind.severity() == Severity::LogDamaged)
}

/// Adds which events went with the segments that cannot be used, as far as their neighbours tell.
pub(super) fn name_gaps(log: &LogDir, segments: &Segments, lost: &mut Vec<Finding>) -> Result<()> {
    let Some(last) = segments.headers.last() else { return Ok(()) };
    let horizon = Horizon { segment: last.number, offset: FIRST_FRAME, seq: last.first_seq };
    let (mut cursor, missing) = Cursor::new(log.clone(), segments, 1, horizon)?;
    let mut named = missing;
    while let Some(entry) = cursor.next()? {
        if let Entry::Damage(finding) = entry {
            named.push(finding);
        }
    }
    let known: HashSet<_> = lost.iter().map(|known| (known.seq, known.last_seq)).collect();
    named.retain(|finding| !known.contains(&(finding.seq, finding.last_seq)));
    lost.extend(named);
    Ok(())
}
