//! What recovery must make of a segment, said a second time: slow, byte by byte, and written from the
//! specification (the module docs of `log` and `log::recovery`), not from the code. It shares nothing
//! with the product, not even the checksum.

const FIRST: usize = 8192;
const GROUP: usize = 34 * 1024 * 1024;

/// A sound header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) store: [u8; 16],
    pub(super) number: u64,
    pub(super) first_seq: u64,
    pub(super) first_retained: u64,
    pub(super) size: u64,
    pub(super) previous: u32,
}

/// What a segment's file is, by its header alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum File {
    /// A segment; the offset of a copy of its header that is damaged.
    Segment(Segment, Option<usize>),
    /// Of a newer format.
    Newer,
    /// Not to be used.
    Refused,
}

/// What is to be done with a segment's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Corruption,
    CleanEnd,
    FillerOfSealed,
    TornTail,
    DamagedFiller,
}

/// The oracle's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) verdict: Verdict,
    /// X: the first offset where no valid frame follows.
    pub(super) end: usize,
    /// Events that a reader is given, with their payloads; a batch without its end is not among them.
    pub(super) events: Vec<(u64, Vec<u8>)>,
    /// From here on recovery leaves nothing but zeros, unless the verdict is corruption.
    pub(super) keep_to: usize,
    /// Up to here the segment is proved durable by what it holds itself.
    pub(super) proved: usize,
    /// The seq that the next event at `proved` has; `None` where no frame ends there.
    pub(super) proved_seq: Option<u64>,
    /// The seq that the next event has at `keep_to`.
    pub(super) next_seq: u64,
    /// Where the frame that tells of the witness's event ends, if it is here.
    pub(super) witness_end: Option<usize>,
}

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let mut value = 0;
    for index in (0..len).rev() {
        value = value * 256 + u64::from(bytes[at + index]);
    }
    value
}

/// Compared as a whole: a loop over single bytes is what takes a fuzzer's time.
pub(super) fn all_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|chunk| *chunk == ZEROS[..chunk.len()])
}

/// Behind the last byte that is not zero.
pub(super) fn last_byte(bytes: &[u8]) -> usize {
    let full = bytes.chunks(512).rposition(|chunk| !all_zero(chunk));
    full.map_or(0, |chunk| {
        let end = bytes.len().min((chunk + 1) * 512);
        (0..end).rev().find(|at| bytes[*at] != 0).map_or(0, |last| last + 1)
    })
}

fn crc(parts: &[&[u8]]) -> u32 {
    let mut sum = u32::MAX;
    for part in parts {
        for byte in *part {
            sum ^= u32::from(*byte);
            for _ in 0..8 {
                sum = if sum & 1 == 1 { sum >> 1 ^ 0xEDB8_8320 } else { sum >> 1 };
            }
        }
    }
    sum ^ u32::MAX
}

/// Reads one copy of a header: `Some(Err(()))` is a newer format.
fn copy(bytes: &[u8]) -> Option<Result<Segment, ()>> {
    if &bytes[..8] != b"SYNCLOG\n" || u64::from(crc(&[&bytes[..76]])) != number(bytes, 76, 4) {
        return None;
    }
    if number(bytes, 8, 4) > 1 {
        return Some(Err(()));
    }
    let mut store = [0; 16];
    store.copy_from_slice(&bytes[16..32]);
    let segment = Segment {
        store,
        number: number(bytes, 32, 8),
        first_seq: number(bytes, 40, 8),
        first_retained: number(bytes, 48, 8),
        size: number(bytes, 56, 8),
        previous: number(bytes, 72, 4) as u32,
    };
    let sound = number(bytes, 8, 4) == 1
        && number(bytes, 12, 4) == 1
        && segment.number >= 1
        && segment.number <= 1 << 62
        && segment.first_seq >= 1
        && segment.first_seq <= 1 << 62
        && segment.first_retained <= segment.first_seq
        && segment.size >= 8192
        && segment.size <= 134_217_728
        && all_zero(&bytes[80..4096]);
    sound.then_some(Ok(segment))
}

/// What the file of segment `name` is.
pub(super) fn file(bytes: &[u8], name: u64) -> File {
    if bytes.len() < FIRST {
        return File::Refused;
    }
    let (first, second) = (copy(&bytes[..4096]), copy(&bytes[4096..FIRST]));
    let (segment, damaged) = match (first, second) {
        (Some(Err(())), _) | (_, Some(Err(()))) => return File::Newer,
        (Some(Ok(one)), Some(Ok(other))) if bytes[..4096] == bytes[4096..FIRST] => {
            assert_eq!(one, other);
            (one, None)
        }
        (Some(Ok(one)), None) => (one, Some(4096)),
        (None, Some(Ok(other))) => (other, Some(0)),
        _ => return File::Refused,
    };
    if segment.number != name || segment.size != bytes.len() as u64 {
        return File::Refused;
    }
    File::Segment(segment, damaged)
}

struct Head {
    kind: u8,
    flags: u8,
    seq: u64,
    payload: usize,
    durable_end: usize,
    previous: u32,
    body_sum: u32,
    sum: u32,
    /// How many seqs it uses up, and what the next frame must name.
    seqs: u64,
    link: u32,
    /// Where the frame ends.
    end: usize,
}

fn frame_sum(segment: &Segment, at: usize, data: &[&[u8]]) -> u32 {
    let (number, offset) = (segment.number.to_le_bytes(), (at as u64).to_le_bytes());
    let mut parts: Vec<&[u8]> = vec![&segment.store, &number, &offset];
    parts.extend(data);
    crc(&parts)
}

/// Conditions 1 to 6.
fn header(bytes: &[u8], segment: &Segment, at: usize) -> Option<Head> {
    // 1
    if !at.is_multiple_of(8) || at < FIRST || at + 48 > bytes.len() {
        return None;
    }
    let raw = &bytes[at..at + 48];
    // 2
    if raw[0] != 0xF1 || raw[47] != 0x1F || raw[7] != 0 || raw[44] != 0 || raw[45] != 0 || raw[46] != 0 {
        return None;
    }
    // 3
    let sum = frame_sum(segment, at, &[&raw[..40], &raw[44..48]]);
    if u64::from(sum) != number(raw, 40, 4) {
        return None;
    }
    // 4
    let (kind, event_type, version, flags) = (raw[1], number(raw, 2, 2), number(raw, 4, 2), raw[6]);
    let (seq, time, payload) = (number(raw, 8, 8), number(raw, 16, 8), number(raw, 24, 4));
    let durable_end = number(raw, 28, 4);
    let fits = match kind {
        1 => event_type != 0 && flags <= 3,
        2 => {
            event_type == 0
                && flags == 0
                && version == 0
                && time == 0
                && payload == 0
                && durable_end == at as u64
        }
        3 => event_type == 0 && flags == 0,
        4 => flags == 0 && seq <= 1 << 62 && seq + number(raw, 16, 4) <= 1 << 62,
        _ => false,
    };
    if !fits || !(1..=1 << 62).contains(&seq) {
        return None;
    }
    // 5
    let body = (payload + 1).div_ceil(8) * 8;
    let end = at as u64 + 48 + body;
    if payload > 16_778_240 || end > bytes.len() as u64 {
        return None;
    }
    // 6
    if !durable_end.is_multiple_of(8) || durable_end < FIRST as u64 || durable_end > at as u64 {
        return None;
    }
    Some(Head {
        kind,
        flags,
        seq,
        payload: payload as usize,
        durable_end: durable_end as usize,
        previous: number(raw, 32, 4) as u32,
        body_sum: number(raw, 36, 4) as u32,
        sum,
        seqs: match kind {
            1 => 1,
            4 => number(raw, 16, 4),
            _ => 0,
        },
        link: if kind == 4 { number(raw, 2, 4) as u32 } else { sum },
        end: end as usize,
    })
}

/// Walking from the start: what is valid, and where that ends.
struct Walk {
    /// X, the seq that the next event has, the checksum that the next frame names.
    end: usize,
    seq: u64,
    previous: u32,
    events: Vec<(u64, Vec<u8>)>,
    /// Where a batch that goes on started, and how many events were before it.
    batch: Option<(usize, usize)>,
    witness_end: Option<usize>,
    /// Where frames end, and the seq that the next event has there.
    frame_ends: Vec<(usize, u64)>,
    /// Where deletion records stand, and the seqs that they cover.
    deleted: Vec<(usize, u64, u64)>,
}

/// `erased` says of a seq at an offset whether an erased event is lawful there.
fn walk(
    bytes: &[u8],
    segment: &Segment,
    witness: Option<(u64, u32)>,
    erased: impl Fn(usize, u64) -> bool,
) -> Walk {
    let mut walk = Walk {
        end: FIRST,
        seq: segment.first_seq,
        previous: segment.previous,
        events: Vec::new(),
        batch: None,
        witness_end: None,
        frame_ends: vec![(FIRST, segment.first_seq)],
        deleted: Vec::new(),
    };
    while let Some(head) = header(bytes, segment, walk.end) {
        let at = walk.end;
        // 7, 8
        let inside = walk.batch.is_some();
        if head.previous != walk.previous
            || head.seq != walk.seq
            || (inside && head.kind != 1 && head.kind != 4)
        {
            break;
        }
        // 9
        let body = &bytes[at + 48..head.end];
        if frame_sum(segment, at + 48, &[body]) != head.body_sum {
            let zeros = all_zero(&body[..body.len() - 1]) && body[body.len() - 1] == 0x5A;
            if !(head.kind == 1 && head.payload > 0 && zeros && erased(at, head.seq)) {
                break;
            }
        }
        let payload = &body[..head.payload];
        if head.kind == 1 {
            walk.events.push((head.seq, payload.to_vec()));
        }
        walk.seq += head.seqs;
        // A gap stands for the last event that it gave up.
        if head.seqs > 0 && witness == Some((walk.seq - 1, head.sum)) {
            walk.witness_end = Some(head.end);
        }
        if head.kind == 3 && payload.len() >= 56 {
            for stretch in payload[56..].chunks_exact(16) {
                walk.deleted.push((at, number(stretch, 0, 8), number(stretch, 8, 8)));
            }
        }
        walk.batch = match (head.flags & 1 == 1, walk.batch) {
            (true, None) => Some((at, walk.events.len() - 1)),
            (true, open) => open,
            (false, _) => None,
        };
        (walk.end, walk.previous) = (head.end, head.link);
        walk.frame_ends.push((head.end, walk.seq));
    }
    walk
}

/// Judges the end of a segment. `witness` is the seq and the header checksum of an event that was durable;
/// `later` the first seq and the previous checksum in the header of the next segment, which is empty.
pub(super) fn judge(
    bytes: &[u8],
    segment: &Segment,
    witness: Option<(u64, u32)>,
    later: Option<(u64, u32)>,
) -> Judgement {
    // An erased event is lawful in a segment that is not the last, under a record further on.
    let deleted = walk(bytes, segment, witness, |_, _| later.is_some()).deleted;
    let lawful = |at: usize, seq: u64| {
        later.is_some()
            && deleted.iter().any(|(place, first, last)| *place > at && (*first..=*last).contains(&seq))
    };
    let Walk { end, seq, previous, mut events, batch, witness_end, frame_ends, .. } =
        walk(bytes, segment, witness, lawful);

    // Any valid header at any multiple of 8, in the chain or not, proves what is before its durable_end.
    let mut proved = FIRST;
    for at in (FIRST..bytes.len()).step_by(8) {
        if let Some(head) = header(bytes, segment, at) {
            proved = proved.max(head.durable_end);
        }
    }
    let seq_at = |place| frame_ends.iter().find(|(at, _)| *at == place).map(|(_, seq)| *seq);
    let proved_seq = seq_at(proved);

    let stray = (last_byte(&bytes[end..]) > 0).then(|| last_byte(&bytes[end..]));
    let goes_on = later == Some((seq, previous)) && batch.is_none();
    // A batch without its end is dropped, so the log ends where it starts.
    let ends_at = batch.and_then(|(start, _)| seq_at(start)).unwrap_or(seq);
    let sees_beyond = witness_end.is_none() && witness.is_some_and(|(newest, _)| newest >= ends_at);
    // A batch lies in one group, and a group is durable as a whole.
    let batch_was_durable = batch.is_some_and(|(start, _)| {
        proved > start || witness_end.is_some_and(|witness_end| witness_end > start)
    });
    let proof = proved > end || sees_beyond || batch_was_durable || (later.is_some() && !goes_on);

    let (keep_to, kept) = match batch {
        Some((start, before)) if later.is_none() => (start, before),
        _ => (end, events.len()),
    };
    let verdict = match stray {
        _ if proof => Verdict::Corruption,
        None => Verdict::CleanEnd,
        Some(_) if goes_on => Verdict::FillerOfSealed,
        Some(far) => {
            let extent = header(bytes, segment, end).map_or(end + 48, |head| head.end).min(bytes.len());
            let never_written = pieces(end, extent).any(|(from, to)| all_zero(&bytes[from..to]));
            let nothing_here = bytes.len() >= end + 48 && all_zero(&bytes[end..end + 48]);
            match (far <= GROUP, never_written, nothing_here) {
                (true, true, _) => Verdict::TornTail,
                (false, _, true) => Verdict::DamagedFiller,
                _ => Verdict::Corruption,
            }
        }
    };
    if verdict != Verdict::Corruption {
        events.truncate(kept);
    }
    let next_seq = seq_at(keep_to).unwrap_or(seq);
    Judgement { verdict, end, events, keep_to, proved, proved_seq, next_seq, witness_end }
}

/// The pieces of an extent, cut at multiples of 512.
fn pieces(start: usize, end: usize) -> impl Iterator<Item = (usize, usize)> {
    (start / 512..end.div_ceil(512)).map(move |sector| (start.max(sector * 512), end.min((sector + 1) * 512)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_the_one_of_the_specification() {
        assert_eq!(super::crc(&[b"1234", b"56789"]), 0xCBF4_3926);
    }

    #[test]
    fn pieces_cover_the_extent() {
        assert_eq!(super::pieces(500, 1030).collect::<Vec<_>>(), [(500, 512), (512, 1024), (1024, 1030)]);
        assert_eq!(super::pieces(512, 1024).collect::<Vec<_>>(), [(512, 1024)]);
    }
}
