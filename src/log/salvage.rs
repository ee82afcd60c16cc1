//! Whole files that are no segments as they stand, and whose frames may be sound all the same: of the
//! wrong length, or without a header. They are put together again; what is missing in them is then
//! damage like any other.

use crate::disk::DiskFile;
use crate::error::{Error, Result};
use crate::finding::{Finding, FindingKind};
use crate::store_id::StoreId;

use super::directory::{Listing, LogDir, Unfit, Unusable};
use super::fork;
use super::frame::{HEADER_LEN, MAX_SEQ, Seed, decode_header};
use super::open::{OpenLog, Recovered, newest};
use super::quarantine;
use super::segment::{self, FIRST_FRAME, HEADER_BLOCK, MAX_SEGMENT, SegmentHeader};
use super::survey::{Chain, Survey, Witness, frame_at, survey, survey_from};
use super::tail;

/// Puts every file together again for which that is possible. One that is whole again may tell what its
/// neighbours need. A dry run returns the headers that those files would have.
pub(super) fn salvage(
    log: &LogDir,
    with: &mut OpenLog<'_>,
    dry_run: bool,
    done: &mut Recovered,
) -> Result<Vec<SegmentHeader>> {
    let mut unusable = usize::MAX;
    loop {
        let listing = log.list()?;
        if listing.unusable.len() >= unusable {
            return Ok(Vec::new());
        }
        unusable = listing.unusable.len();
        let mended = salvage_once(log, &listing, with, dry_run, done)?;
        if dry_run {
            return Ok(mended);
        }
    }
}

fn salvage_once(
    log: &LogDir,
    listing: &Listing,
    with: &mut OpenLog<'_>,
    dry_run: bool,
    done: &mut Recovered,
) -> Result<Vec<SegmentHeader>> {
    let mut mended = Vec::new();
    for unusable in &listing.unusable {
        let header = match unusable.why {
            Unfit::Foreign => None,
            Unfit::Length(header) => Some(header),
            Unfit::Header => infer_header(log, unusable, &listing.segments)?,
        };
        let Some(header) = header else { continue };
        let end = end_of(log, unusable, &header, &listing.segments, with)?;
        if end == End::Unknown && !with.trust_log {
            continue;
        }
        let path = log.segment_path(header.number);
        let lacks = match unusable.why {
            Unfit::Length(_) => format!("its {} bytes are made {} again", unusable.len, header.size),
            _ => "its header is made again from its frames and its neighbours".into(),
        };
        if let End::SeenUpTo(seq) = end {
            let what = format!(
                "the newest segment is not whole ({} bytes of {}); whether events after {seq} stood in it, or \
                 deletions that no row has followed, nothing tells: if there were any, they are lost, unless a \
                 copy of this file holds them",
                unusable.len, header.size
            );
            let finding = Finding::new(FindingKind::CutSegment, what).seq(seq + 1);
            done.findings.push(finding.at(&path, unusable.len));
        }
        mended.push(header);
        if dry_run {
            done.findings.push(
                Finding::new(FindingKind::HealedFrame, format!("would be mended: {lacks}")).at(path, 0),
            );
            continue;
        }
        let file = log.open_file(header.number, false)?;
        let kept = quarantine::keep(log, file.as_ref(), header.number, 0, unusable.len)?;
        copy(log, file.as_ref(), unusable.len, &header)?;
        let what = format!("{lacks}; the old file is in {}", kept.display());
        done.findings.push(Finding::new(FindingKind::HealedFrame, what).at(path, 0));
        done.quarantined.push(kept);
    }
    Ok(mended)
}

/// What tells where a segment ended that is put together again. Zeros in the place of what was cut off look
/// like the log's end, so events could be lost in silence (P3).
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The next segment, or a place in the file where the next frame would start and does not.
    Known,
    /// A witness that has seen all that is left, or more: up to this event. It may not have seen the last one.
    SeenUpTo(u64),
    /// Nothing.
    Unknown,
}

fn end_of(
    log: &LogDir,
    unusable: &Unusable,
    header: &SegmentHeader,
    segments: &[SegmentHeader],
    with: &mut OpenLog<'_>,
) -> Result<End> {
    if segments.iter().any(|later| later.number > unusable.number) {
        return Ok(End::Known);
    }
    let surveyed = survey(&mut log.reader_of_part(header)?, None, None)?;
    let is_whole = surveyed.evidence.rest_is_zero
        && surveyed.open_batch.is_none()
        && surveyed.end.offset < unusable.len
        // Without its header and without a sound frame, nothing tells that the zeros were ever the log's.
        && (surveyed.has_frames || !matches!(unusable.why, Unfit::Header));
    let witness = newest(with.witness, tail::of_store(tail::read(log)?, header.store));
    let witness = newest(witness, seen_by_rows(header, &surveyed, with)?);
    let seen = witness.filter(|witness| witness.seq + 1 >= surveyed.end.seq);
    Ok(match seen {
        _ if is_whole => End::Known,
        Some(witness) => End::SeenUpTo(witness.seq),
        None => End::Unknown,
    })
}

/// The newest event that rows know: one behind the last frame, or the last one itself.
fn seen_by_rows(
    header: &SegmentHeader,
    surveyed: &Survey,
    with: &mut OpenLog<'_>,
) -> Result<Option<Witness>> {
    if with.trust_log {
        return Ok(None);
    }
    let behind = fork::rows_behind(header, surveyed, with.donor)?.seen;
    let Some(last) = surveyed.last_event.filter(|_| behind.is_none()) else { return Ok(behind) };
    let row = fork::sum_of_row(last.seq, with.donor)?;
    Ok(Some(last).filter(|last| row == Some(last.sum)))
}

/// The headers of files that are no segments as they stand, and of which frames can be read all the same.
pub(super) fn readable(log: &LogDir, listing: &Listing) -> Result<Vec<SegmentHeader>> {
    // Where no file is whole, one of another length tells all the same which store this is.
    let lengths = listing.unusable.iter().filter_map(|unusable| match unusable.why {
        Unfit::Length(header) => Some(header),
        _ => None,
    });
    let known: Vec<_> =
        if listing.segments.is_empty() { lengths.collect() } else { listing.segments.clone() };
    let header = |unusable: &Unusable| match unusable.why {
        Unfit::Foreign => Ok(None),
        Unfit::Length(header) => Ok(Some(header)),
        Unfit::Header => infer_header(log, unusable, &known),
    };
    listing.unusable.iter().filter_map(|unusable| header(unusable).transpose()).collect()
}

/// What the header must have said: by the first frame, or by the end of the segment before.
fn infer_header(
    log: &LogDir,
    unusable: &Unusable,
    segments: &[SegmentHeader],
) -> Result<Option<SegmentHeader>> {
    let number = unusable.number;
    let neighbour = segments.iter().min_by_key(|header| header.number.abs_diff(number));
    let store = match neighbour {
        Some(header) => Some(header.store),
        None => tail::read(log)?.map(|(store, _)| store),
    };
    let (Some(store), size) = (store, unusable.len.next_multiple_of(HEADER_BLOCK)) else { return Ok(None) };
    let possible = (1..=MAX_SEQ).contains(&number);
    if !possible || unusable.len < FIRST_FRAME + HEADER_LEN as u64 || size > MAX_SEGMENT {
        return Ok(None);
    }
    let start = match first_frame(log, unusable, store)? {
        None if has_frame(log, unusable, store, size)? => end_of_predecessor(log, number, segments)?,
        found => found,
    };
    let Some((start, created_at)) = start else { return Ok(None) };
    Ok(Some(SegmentHeader {
        store,
        number,
        first_seq: start.seq,
        first_retained: neighbour.map_or(1, |header| header.first_retained).min(start.seq),
        size,
        created_at,
        previous: start.previous,
    }))
}

/// What the header of the first frame says of the frame before it. Its checksum proves that it stood here.
fn first_frame(log: &LogDir, unusable: &Unusable, store: StoreId) -> Result<Option<(Chain, i64)>> {
    let file = log.open_file(unusable.number, false)?;
    let mut raw = [0; HEADER_LEN];
    crate::disk::read_exact_at(file.as_ref(), &mut raw, FIRST_FRAME)
        .map_err(|error| Error::io_at("read", &log.segment_path(unusable.number), FIRST_FRAME, error))?;
    let seed = Seed::new(store, unusable.number);
    // Without a sound frame nothing is inferred.
    Ok(decode_header(&seed, FIRST_FRAME, &raw, FIRST_FRAME, MAX_SEGMENT).ok().map(|header| {
        let (seq, previous) = (header.seq, header.previous);
        (Chain { offset: FIRST_FRAME, seq, previous, in_batch: false }, header.appended_at)
    }))
}

/// Whether the file holds the header of any frame of this segment. One that does not is no trace of it.
fn has_frame(log: &LogDir, unusable: &Unusable, store: StoreId, size: u64) -> Result<bool> {
    let header = SegmentHeader {
        store,
        number: unusable.number,
        first_seq: 1,
        first_retained: 1,
        size,
        created_at: 0,
        previous: 0,
    };
    let surveyed = survey(&mut log.reader_of_part(&header)?, None, None)?;
    Ok(surveyed.has_frames || surveyed.beyond.is_some())
}

/// Where the segment before ends, if it can be read to its end.
fn end_of_predecessor(log: &LogDir, number: u64, segments: &[SegmentHeader]) -> Result<Option<(Chain, i64)>> {
    let created_at = crate::time::Timestamp::now().as_micros();
    if number == 1 {
        let start = Chain { offset: FIRST_FRAME, seq: 1, previous: 0, in_batch: false };
        return Ok(Some((start, created_at)));
    }
    let Some(before) = segments.iter().find(|header| header.number == number - 1) else { return Ok(None) };
    // One of another length does not tell where it ended.
    let Some(mut reader) = log.header_of(before.number)?.map(|header| log.reader(&header)).transpose()?
    else {
        return Ok(None);
    };
    let mut end = Chain::start_of(before);
    // It is not the last segment, so events in it may be erased.
    while let Ok(frame) = frame_at(&mut reader, &end)? {
        end = Chain::after(frame.offset, &frame.header);
    }
    let whole = !end.in_batch && survey_from(&mut reader, end, None, None)?.evidence.rest_is_zero;
    Ok(whole.then_some((end, created_at)))
}

/// Makes the segment anew from the bytes behind the headers, and puts it in the place of the old file.
fn copy(log: &LogDir, from: &dyn DiskFile, len: u64, header: &SegmentHeader) -> Result<()> {
    let path = log.segment_path(header.number);
    let wrap = |error| Error::io("put together", &path, error);
    segment::create_with(log.disk.as_ref(), &log.log_dir(), header, |new| {
        let end = len.min(header.size);
        let mut buf = Vec::new();
        let mut offset = FIRST_FRAME;
        while offset < end {
            buf.resize((end - offset).min(1024 * 1024) as usize, 0);
            crate::disk::read_exact_at(from, &mut buf, offset).map_err(wrap)?;
            new.write_all_at(&buf, offset).map_err(wrap)?;
            offset += buf.len() as u64;
        }
        Ok(())
    })?;
    Ok(())
}
