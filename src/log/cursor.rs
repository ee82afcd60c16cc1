//! Reading events in seq order, from any seq on, through damage and across segments.

use crate::error::Result;
use crate::finding::{Finding, FindingKind};

use super::directory::LogDir;
use super::frame::{ALIGN, FrameKind, HEADER_LEN, Header, MARK_LEN, decode_header, may_be_header};
use super::segment::{FIRST_FRAME, SegmentHeader, SegmentReader};
use super::survey::{Chain, Fault, first_set, frame_at};
use super::writer::Position;

/// Where reading stops. Everything before it must be sound; what is not is damage.
pub(crate) type Horizon = Position;

/// Behind damage, the bodies of frames that may be sound are read: at most as many bytes as this many times the
/// segment has, because somebody could make headers that all claim the same ones (P12).
const MOST_SEARCHED: u64 = 4;

/// The number of a segment, and where a walk stands in it.
pub(super) type Place = (u64, Chain);

/// The segments of a log, and what is known of the last one.
#[derive(Clone, Default)]
pub(crate) struct Segments {
    /// In order of their numbers.
    pub(crate) headers: Vec<SegmentHeader>,
    /// Those of them that are not whole, and of which readers read what is left.
    pub(crate) parts: Vec<SegmentHeader>,
    /// Places in the last one where a walk may start without what lies before them, in order.
    pub(crate) waypoints: Vec<Chain>,
}

impl From<Vec<SegmentHeader>> for Segments {
    fn from(headers: Vec<SegmentHeader>) -> Self {
        Self { headers, ..Self::default() }
    }
}

impl Segments {
    /// The last segment, and the last place in it, from which event `from` is still ahead.
    fn start(&self, from: u64, horizon: Horizon) -> Option<(SegmentHeader, Chain)> {
        let header = self
            .headers
            .iter()
            .filter(|header| header.number <= horizon.segment)
            .rev()
            .find(|header| header.first_seq <= from)
            .or(self.headers.first())?;
        let last = self.headers.last().is_some_and(|last| last.number == header.number);
        let known =
            self.waypoints.partition_point(|place| place.seq <= from && place.offset <= horizon.offset);
        let waypoint = self.waypoints[..known].last().filter(|_| last);
        Some((*header, waypoint.copied().unwrap_or(Chain::start_of(header))))
    }
}

/// What stands next in the log.
pub(crate) enum Entry<'a> {
    /// An event. The payload lies in the cursor's window.
    Event { header: Header, raw: &'a [u8; HEADER_LEN], payload: &'a [u8] },
    /// A deletion record.
    Deletion { payload: &'a [u8] },
    /// An event whose payload was erased. A deletion record further on must cover it.
    Erased { seq: u64, sum: u32, segment: u64, offset: u64 },
    /// Events that were lost, and that somebody has given up.
    Gap { header: Header, segment: u64, offset: u64 },
    /// Something that must be there is not, or not whole. The cursor is behind it now.
    Damage(Finding),
}

/// A place in the log, moving forward. Memory: one window.
pub(crate) struct Cursor {
    log: LogDir,
    horizon: Horizon,
    reader: Option<SegmentReader>,
    /// The segment after the present one, once it was looked up.
    later: Option<SegmentHeader>,
    /// The segments behind a missing one, listed once for all that are missing, and the horizon at that time.
    listed: Option<(u64, Vec<SegmentHeader>)>,
    /// Bytes of bodies that the search for sound frames in this segment may still read.
    search_left: u64,
    /// Segments that are not whole, and are read all the same.
    parts: Vec<SegmentHeader>,
    segment: u64,
    chain: Chain,
    /// Events below this seq are passed over.
    from: u64,
    failed_over: bool,
    /// Where the last damage starts that was passed over.
    damaged_at: Option<Place>,
    /// Bytes that are not zero behind the last frame of a sealed segment: no event is missing there,
    /// so reading does not stop at them.
    stray: Vec<Finding>,
}

impl Cursor {
    /// A cursor before event `from`, or before the first event that the log still has.
    pub(crate) fn new(
        log: LogDir,
        segments: &Segments,
        from: u64,
        horizon: Horizon,
    ) -> Result<(Self, Vec<Finding>)> {
        let start = segments.start(from, horizon);
        let mut cursor = match start {
            Some((header, chain)) => {
                Self { chain, ..Self::at_segment_of(log, header, segments.parts.clone(), horizon)? }
            }
            None => Self::nowhere(log, horizon),
        };
        cursor.from = from;
        let first = start.map_or(horizon.seq, |(header, _)| header.first_seq);
        let retained = segments.headers.last().map_or(1, |header| header.first_retained);
        // Events before the first segment that retention did not give up are missing.
        let wanted = from.max(retained);
        let mut findings = Vec::new();
        if wanted < first {
            let what = "no segment holds these events";
            findings.push(Finding::new(FindingKind::MissingEvents, what).seqs(wanted, first - 1));
        }
        Ok((cursor, findings))
    }

    /// Hands out no event below this seq, and everything else that it meets.
    pub(super) fn starting_at(self, from: u64) -> Self {
        Self { from, ..self }
    }

    /// A cursor at the start of one segment.
    pub(super) fn at_segment(log: LogDir, header: SegmentHeader, horizon: Horizon) -> Result<Self> {
        Self::at_segment_of(log, header, Vec::new(), horizon)
    }

    /// The same where some segments are not whole, and are read all the same.
    pub(super) fn at_segment_of(
        log: LogDir,
        header: SegmentHeader,
        parts: Vec<SegmentHeader>,
        horizon: Horizon,
    ) -> Result<Self> {
        let reader = log.reader_of(&header, &parts)?;
        Ok(Self {
            log,
            horizon,
            reader: Some(reader),
            later: None,
            listed: None,
            search_left: MOST_SEARCHED * header.size,
            parts,
            segment: header.number,
            chain: Chain::start_of(&header),
            from: 0,
            failed_over: false,
            damaged_at: None,
            stray: Vec::new(),
        })
    }

    /// A cursor in one segment at a place where a walk stood before, or at its start.
    pub(super) fn at_place(
        log: LogDir,
        header: SegmentHeader,
        place: Option<Chain>,
        horizon: Horizon,
    ) -> Result<Self> {
        let cursor = Self::at_segment(log, header, horizon)?;
        Ok(match place {
            Some(chain) => Self { chain, ..cursor },
            None => cursor,
        })
    }

    fn nowhere(log: LogDir, horizon: Horizon) -> Self {
        let chain = Chain { offset: FIRST_FRAME, seq: horizon.seq, previous: 0, in_batch: false };
        Self {
            log,
            horizon,
            reader: None,
            later: None,
            listed: None,
            search_left: 0,
            parts: Vec::new(),
            segment: horizon.segment,
            chain,
            from: 0,
            failed_over: false,
            damaged_at: None,
            stray: Vec::new(),
        }
    }

    /// Moves the horizon forward, to what has become durable since.
    pub(crate) fn extend(&mut self, horizon: Horizon) {
        debug_assert!((horizon.segment, horizon.offset) >= (self.horizon.segment, self.horizon.offset));
        self.horizon = horizon;
        if let Some(reader) = &mut self.reader {
            reader.refresh();
            let active = self.segment == horizon.segment;
            reader.read_to(if active { horizon.offset } else { u64::MAX });
        }
    }

    /// Reads no further than this, which is the start of a later segment.
    pub(super) fn stop_at(&mut self, start: Horizon) {
        self.horizon = start;
    }

    /// Where reading stands, if that is in this segment.
    pub(super) fn chain_in(&self, segment: u64) -> Option<Chain> {
        (self.segment == segment && self.reader.is_some()).then_some(self.chain)
    }

    /// Where reading stands: behind what was read last.
    pub(super) fn place(&self) -> Place {
        (self.segment, self.chain)
    }

    /// Where the last damage starts that was passed over, and where reading goes on behind it; the
    /// latter is `None` where nothing is left to read.
    pub(super) fn around_damage(&self) -> Option<(Place, Option<Place>)> {
        let behind = self.reader.as_ref().map(|_| (self.segment, self.chain));
        self.damaged_at.map(|before| (before, behind))
    }

    /// The log that is read.
    pub(crate) fn log(&self) -> &LogDir {
        &self.log
    }

    /// The seq of the next event.
    pub(crate) fn next_seq(&self) -> u64 {
        self.chain.seq.max(self.from)
    }

    /// The next entry; `None` at the horizon.
    pub(crate) fn next(&mut self) -> Result<Option<Entry<'_>>> {
        loop {
            if (self.segment, self.chain.offset) >= (self.horizon.segment, self.horizon.offset) {
                return Ok(None);
            }
            let Some(reader) = &mut self.reader else { return Ok(None) };
            let sealed = self.segment < self.horizon.segment;
            let frame = match frame_at(reader, &self.chain)? {
                Ok(frame) if !frame.erased || sealed => frame,
                Ok(frame) => {
                    if let Some(finding) = self.pass_over(Fault::Body(frame.header))? {
                        return Ok(Some(Entry::Damage(finding)));
                    }
                    continue;
                }
                Err(fault) => {
                    let ended = matches!(fault, Fault::Header(_)) && sealed && self.at_end_of_sealed()?;
                    let finding = if ended { None } else { self.pass_over(fault)? };
                    if ended {
                        self.note_stray()?;
                    }
                    if ended || self.failed_over {
                        self.next_segment()?;
                    }
                    match finding {
                        Some(finding) => return Ok(Some(Entry::Damage(finding))),
                        None => continue,
                    }
                }
            };
            let header = frame.header;
            self.chain = Chain::after(frame.offset, &header);
            match header.kind {
                FrameKind::Mark => {}
                FrameKind::Event | FrameKind::Gap if header.next_seq() <= self.from.max(header.seq) => {}
                FrameKind::Gap => {
                    return Ok(Some(Entry::Gap { header, segment: self.segment, offset: frame.offset }));
                }
                FrameKind::Event if frame.erased => {
                    return Ok(Some(Entry::Erased {
                        seq: header.seq,
                        sum: header.sum,
                        segment: self.segment,
                        offset: frame.offset,
                    }));
                }
                kind => {
                    let Some(reader) = &mut self.reader else { return Ok(None) };
                    let bytes = reader.bytes(frame.offset, HEADER_LEN + header.payload_len as usize)?;
                    // `frame_at` has just had all of it in the window.
                    let Some((raw, payload)) = bytes.split_first_chunk() else { return Ok(None) };
                    return Ok(Some(match kind {
                        FrameKind::Event => Entry::Event { header, raw, payload },
                        _ => Entry::Deletion { payload },
                    }));
                }
            }
        }
    }

    /// Whether the present segment ends here, by what the next one says.
    fn at_end_of_sealed(&mut self) -> Result<bool> {
        Ok(self.later()?.is_some_and(|later| {
            later.number == self.segment + 1
                && !self.chain.in_batch
                && later.first_seq == self.chain.seq
                && later.previous == self.chain.previous
        }))
    }

    /// Whether stray bytes were met that nobody has taken yet.
    pub(crate) fn has_stray(&self) -> bool {
        !self.stray.is_empty()
    }

    /// Stray bytes that were met so far, each stretch once.
    pub(crate) fn take_stray(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.stray)
    }

    /// Behind the last frame of a sealed segment only zeros may follow.
    fn note_stray(&mut self) -> Result<()> {
        const STEP: usize = 128 * 1024;
        let Some(reader) = &mut self.reader else { return Ok(()) };
        let mut offset = self.chain.offset;
        while offset < reader.header.size {
            let bytes = reader.bytes(offset, STEP)?;
            if let Some(at) = first_set(bytes) {
                let what = "stray bytes behind the last frame, no event is missing; `synclog repair` puts them aside";
                let place = offset + at as u64;
                self.stray
                    .push(Finding::new(FindingKind::DamagedFiller, what).at(reader.path.clone(), place));
                return Ok(());
            }
            offset += STEP as u64;
        }
        Ok(())
    }

    /// The next segment that can be read.
    fn later(&mut self) -> Result<Option<SegmentHeader>> {
        if self.later.is_none() {
            // A segment of another store is none of this log, whatever its name (P4).
            let own = self.reader.as_ref().map(|reader| reader.header.store);
            self.later = self.log.header_of(self.segment + 1)?.filter(|later| Some(later.store) == own);
        }
        if self.later.is_none() {
            let listed = match self.listed.take() {
                Some((horizon, listed)) if horizon == self.horizon.segment => listed,
                _ => {
                    let mut listed = self.log.list()?.segments;
                    listed.extend_from_slice(&self.parts);
                    listed.sort_by_key(|header| header.number);
                    listed
                }
            };
            self.later = listed.get(listed.partition_point(|header| header.number <= self.segment)).copied();
            self.listed = Some((self.horizon.segment, listed));
        }
        Ok(self.later.filter(|later| later.number <= self.horizon.segment))
    }

    fn next_segment(&mut self) -> Result<()> {
        self.failed_over = false;
        let Some(header) = self.later()? else {
            self.reader = None;
            return Ok(());
        };
        self.later = None;
        self.reader = Some(self.log.reader_of(&header, &self.parts)?);
        self.segment = header.number;
        self.search_left = MOST_SEARCHED * header.size;
        self.chain = Chain::start_of(&header);
        Ok(())
    }

    /// Gets behind damage at the present place: to the next frame of this segment that proves
    /// itself, or out of the segment. Names what was passed over, unless that lies before `from`.
    fn pass_over(&mut self, fault: Fault) -> Result<Option<Finding>> {
        let start = self.chain;
        self.damaged_at = Some((self.segment, start));
        let path = self.log.segment_path(self.segment);
        if let Fault::Body(header) = fault {
            self.chain = Chain::after(start.offset, &header);
            let what = match header.kind {
                FrameKind::Deletion => {
                    "the payload's checksum of a deletion record does not fit (condition 9)"
                }
                _ => fault.describe(),
            };
            let finding = Finding::new(FindingKind::DamagedFrame, what).at(path, start.offset);
            return Ok(match header.kind {
                FrameKind::Event if header.seq < self.from => None,
                FrameKind::Event => Some(finding.seq(header.seq)),
                _ if start.seq < self.from => None,
                _ => Some(finding),
            });
        }
        let next_seq = if let Some(chain) = self.resync()? {
            self.chain = chain;
            chain.seq
        } else {
            self.failed_over = true;
            match self.later()? {
                Some(later) => later.first_seq,
                None => self.horizon.seq,
            }
        };
        let first = start.seq.max(self.from);
        let mut what = fault.describe().to_owned();
        if self.search_left == 0 && self.failed_over {
            what.push_str("; so many false headers follow that the rest of the segment was not searched");
        }
        if next_seq > first {
            let finding = Finding::new(FindingKind::MissingEvents, what);
            return Ok(Some(finding.seqs(first, next_seq - 1).at(path, start.offset)));
        }
        what.push_str("; no event was in it, a deletion record may have been");
        Ok((start.seq >= self.from)
            .then(|| Finding::new(FindingKind::DamagedFrame, what).at(path, start.offset)))
    }

    /// The next place in this segment where a frame stands that proves itself: it is whole, and the
    /// frame behind it names it. A payload can hold the bytes of a frame, but not that.
    fn resync(&mut self) -> Result<Option<Chain>> {
        const STEP: usize = 64 * 1024;
        let sealed = self.segment < self.horizon.segment;
        let later = if sealed { self.later()? } else { None };
        let limit = if sealed { u64::MAX } else { self.horizon.offset };
        let min_seq = self.chain.seq;
        let Some(reader) = &mut self.reader else { return Ok(None) };
        let (seed, size) = (reader.seed.clone(), reader.header.size);
        let limit = limit.min(size);
        let mut offset = self.chain.offset + ALIGN;
        while offset < limit {
            let raw = reader.bytes(offset, STEP + HEADER_LEN)?;
            let own = raw.len().min(STEP);
            let candidates: Vec<(u64, Header)> = (0..own)
                .step_by(ALIGN as usize)
                .map(|at| (offset + at as u64, &raw[at..]))
                .take_while(|(place, _)| *place < limit)
                .filter(|(_, raw)| may_be_header(raw))
                .filter_map(|(place, raw)| {
                    // What is no header is passed over.
                    Some((place, decode_header(&seed, place, raw, FIRST_FRAME, size).ok()?))
                })
                .filter(|(_, header)| header.seq >= min_seq)
                .collect();
            for (place, header) in candidates {
                let chain =
                    Chain { offset: place, seq: header.seq, previous: header.previous, in_batch: false };
                let after = Chain::after(place, &header);
                let behind = reader.peek::<HEADER_LEN>(after.offset)?;
                let named = decode_header(&seed, after.offset, &behind, FIRST_FRAME, size)
                    // A header that is not sound continues nothing.
                    .is_ok_and(|behind| behind.previous == after.previous && behind.seq == after.seq)
                    || later.is_some_and(|later| {
                        later.previous == after.previous && later.first_seq == after.seq
                    })
                    || (header.kind == FrameKind::Mark && header.frame_len() == MARK_LEN);
                if !named {
                    continue;
                }
                // Bodies do not overlap, unless somebody has made headers whose checksums fit.
                self.search_left = self.search_left.saturating_sub(header.frame_len());
                if self.search_left == 0 {
                    return Ok(None);
                }
                if frame_at(reader, &chain)?.is_ok() {
                    return Ok(Some(chain));
                }
            }
            offset += STEP as u64;
        }
        Ok(None)
    }
}
