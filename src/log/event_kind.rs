//! Which event type a log is of: the number in the header of its first event.

use crate::error::Result;

use super::directory::LogDir;
use super::frame::{FrameKind, HEADER_LEN, decode_header};
use super::segment::{FIRST_FRAME, SegmentHeader, number_of};

/// Headers that are looked at in one segment. The first event stands behind a mark or two, unless somebody
/// made a log of marks and gaps alone.
const MOST_HEADERS: usize = 10_000;

/// The event type of the log; `None` where it holds no event whose header can be read. The oldest event counts:
/// behind it there may be others of other types, which older versions let in. `wanted` is what a caller hopes
/// for, so that one look is enough where it is right.
pub(crate) fn event_kind(log: &LogDir, wanted: u16) -> Result<Option<u16>> {
    // A directory that cannot be listed is told by whoever opens it.
    let names = log.disk.list(&log.log_dir()).unwrap_or_default();
    let numbers = || names.iter().filter_map(|name| number_of(name));
    let header = |number: Option<u64>| log.header_of(number?).ok().flatten();
    if let Some((oldest, newest)) = header(numbers().min()).zip(header(numbers().max()))
        && oldest.store == newest.store
        && first_kind(log, &oldest) == Some(wanted)
    {
        return Ok(Some(wanted));
    }
    // Only segments that belong to this store say of which type it is.
    let segments = log.list()?.segments;
    Ok(segments.iter().find_map(|header| first_kind(log, header)))
}

/// The type of the first event in a segment; `None` where none can be read before the first damage.
fn first_kind(log: &LogDir, header: &SegmentHeader) -> Option<u16> {
    // What cannot be read says nothing; whoever needs it meets the error.
    let mut reader = log.reader(header).ok()?;
    reader.read_to(FIRST_FRAME + 4096);
    let mut offset = FIRST_FRAME;
    for _ in 0..MOST_HEADERS {
        // What cannot be read tells no kind.
        let raw = reader.bytes(offset, HEADER_LEN).ok()?.to_vec();
        let frame = decode_header(&reader.seed, offset, &raw, FIRST_FRAME, header.size).ok()?;
        if frame.kind == FrameKind::Event {
            return Some(frame.event_kind);
        }
        offset += frame.frame_len();
    }
    None
}
