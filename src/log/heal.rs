//! Bringing damaged frames back, with proof (P9).
//!
//! A frame comes back only where the bytes it would have are vouched for by a checksum held
//! elsewhere: its own sound header, the `previous` of a sound header behind it, the next segment's
//! header, or the header checksum that a witness keeps for the last frame. Marks hold nothing that
//! does not follow from their place, so they are built again from nothing.

use crate::error::Result;
use crate::store_id::StoreId;

use super::frame::{self, Draft, FrameKind, HEADER_LEN, Header, MARK_LEN, Seed, body_of, decode_header};
use super::segment::{FIRST_FRAME, SegmentHeader, SegmentReader};
use super::survey::{Chain, Fault, Witness, body_at, frame_at, header_at};

/// Somebody outside the log who may still know a frame.
pub(crate) trait Donor {
    /// The header and the payload of the frame that carried event `seq`, as far as the donor knows.
    /// Nothing it says is believed without proof.
    fn frame(&mut self, seq: u64) -> Result<Option<DonorFrame>>;

    /// Which events up to `last` it says were deleted, as stretches in their order. Their records have neither
    /// seq nor row, so where one is lost, nobody else tells of it.
    fn deleted(&mut self, _last: u64) -> Result<Vec<(u64, u64)>> {
        Ok(Vec::new())
    }

    /// The store that it says its frames are of.
    fn store(&self) -> Option<StoreId> {
        None
    }
}

/// What a donor gives.
pub(crate) struct DonorFrame {
    pub(crate) header: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

/// A donor that knows nothing.
#[cfg(any(test, fuzzing))]
pub(crate) struct NoDonor;

#[cfg(any(test, fuzzing))]
impl Donor for NoDonor {
    fn frame(&mut self, _seq: u64) -> Result<Option<DonorFrame>> {
        Ok(None)
    }
}

/// Bytes that belong at an offset.
pub(crate) struct Patch {
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
    /// The event that comes back; `None` for a mark.
    pub(crate) seq: Option<u64>,
}

/// A mark may differ from its computed bytes in this many bytes and is still known as that mark: an
/// event's header at the same place differs in its kind, time, length and both checksums.
const MARK_MAY_DIFFER: usize = 4;

/// The frames that belong at `chain` and behind it, as far as they can be proved; `None` where the
/// damage there cannot be healed. All patches lie next to each other, the first one at `chain`.
pub(crate) fn plan(
    reader: &mut SegmentReader,
    mut chain: Chain,
    witnesses: &[Option<Witness>],
    later: Option<&SegmentHeader>,
    donor: &mut dyn Donor,
) -> Result<Option<Vec<Patch>>> {
    let mut patches: Vec<Patch> = Vec::new();
    // So many patches are proved by a witness.
    let mut proved = 0;
    loop {
        let goes_on_later = |seq: u64, previous: u32| {
            later.is_some_and(|later| later.first_seq == seq && later.previous == previous)
        };
        if !patches.is_empty() && goes_on_later(chain.seq, chain.previous) {
            return Ok(Some(patches));
        }
        match frame_at(reader, &chain)? {
            // A sound header here names the header of the last patch: all patches are proved.
            Ok(_) | Err(Fault::Body(_)) if !patches.is_empty() => return Ok(Some(patches)),
            Ok(_) => return Ok(None),
            Err(Fault::Body(header)) => return heal_body(reader, &chain, &header, donor),
            // What is not sound is what is to be healed.
            Err(_) => {}
        }

        let seed = reader.seed.clone();
        let size = reader.header.size;
        let from_donor = donor.frame(chain.seq)?;
        if chain.offset + MARK_LEN <= size {
            let mut bytes = Vec::new();
            let sum = frame::encode(
                &seed,
                chain.offset,
                &Draft::mark(chain.offset, chain.seq, chain.previous),
                &mut bytes,
            );
            let behind = chain.offset + MARK_LEN;
            // A header that is not sound names nothing.
            let named_behind = header_at(reader, behind)?.is_ok_and(|header| header.previous == sum);
            let found = reader.bytes(chain.offset, MARK_LEN as usize)?;
            let differing = found.iter().zip(&bytes).filter(|(found, built)| found != built).count();
            let proved = named_behind || differing <= MARK_MAY_DIFFER || goes_on_later(chain.seq, sum);
            let expected_by_donor = from_donor.as_ref().is_some_and(|frame| {
                decode_header(&seed, behind, &frame.header, FIRST_FRAME, size)
                    // Nor does one that cannot be.
                    .is_ok_and(|header| header.previous == sum && header.seq == chain.seq)
            });
            if !chain.in_batch && (proved || expected_by_donor) {
                patches.push(Patch { offset: chain.offset, bytes, seq: None });
                if proved {
                    return Ok(Some(patches));
                }
                chain = Chain { offset: behind, previous: sum, ..chain };
                continue;
            }
        }

        let Some((header, bytes)) = from_donor.and_then(|frame| frame_of(&seed, &chain, size, &frame)) else {
            return Ok(proved_part(patches, proved));
        };
        patches.push(Patch { offset: chain.offset, bytes, seq: Some(header.seq) });
        chain = Chain::after(chain.offset, &header);
        if witnesses.contains(&Some(Witness { seq: header.seq, sum: header.sum })) {
            proved = patches.len();
        }
    }
}

/// The frame of the next event at `chain`, as a donor knows it, if that is where it stood: its header's checksum
/// says so.
pub(super) fn frame_of(
    seed: &Seed,
    chain: &Chain,
    size: u64,
    frame: &DonorFrame,
) -> Option<(Header, Vec<u8>)> {
    // What is no header proves nothing.
    let header = decode_header(seed, chain.offset, &frame.header, FIRST_FRAME, size).ok()?;
    let fits = header.kind == FrameKind::Event
        && header.seq == chain.seq
        && header.previous == chain.previous
        && header.payload_len as usize == frame.payload.len();
    let body = if fits { body_of(&frame.payload) } else { return None };
    let mut bytes = frame.header[..HEADER_LEN].to_vec();
    bytes.extend_from_slice(&body);
    (seed.body_sum(chain.offset, &body) == header.body_sum).then_some((header, bytes))
}

/// The patches up to the last one that a witness has vouched for.
fn proved_part(mut patches: Vec<Patch>, proved: usize) -> Option<Vec<Patch>> {
    patches.truncate(proved);
    (proved > 0).then_some(patches)
}

/// The body of a frame whose header is sound: its checksum is the proof.
fn heal_body(
    reader: &mut SegmentReader,
    chain: &Chain,
    header: &frame::Header,
    donor: &mut dyn Donor,
) -> Result<Option<Vec<Patch>>> {
    let seed = reader.seed.clone();
    let found = body_at(reader, chain.offset, header)?[..header.payload_len as usize].to_vec();
    let mut payloads = vec![found];
    if header.kind == FrameKind::Gap {
        payloads.push(vec![0; header.payload_len as usize]);
    }
    if header.kind == FrameKind::Event
        && let Some(frame) = donor.frame(header.seq)?
    {
        payloads.push(frame.payload);
    }
    for payload in payloads {
        let body = body_of(&payload);
        if payload.len() == header.payload_len as usize
            && seed.body_sum(chain.offset, &body) == header.body_sum
        {
            let offset = chain.offset + HEADER_LEN as u64;
            let seq = (header.kind == FrameKind::Event).then_some(header.seq);
            return Ok(Some(vec![Patch { offset, bytes: body, seq }]));
        }
    }
    Ok(None)
}

#[cfg(test)]
#[path = "heal_tests.rs"]
mod tests;
