//! Golden segments of format version 1, both ways: these bytes give these events, and these events
//! give these bytes. The files are never edited; a new version gets new ones.
//!
//! `SYNCLOG_WRITE_GOLDEN=1` writes files that are not there yet.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::proof::disk::SimDisk;
use crate::store_id::StoreId;

use super::cursor::{Cursor, Entry, Horizon};
use super::deletion::{self, Deletion, Reason};
use super::directory::LogDir;
use super::frame::{self, Draft, FLAG_KEY, FLAG_MORE, FrameKind, Gap, HEADER_LEN, Seed};
use super::segment::{FIRST_FRAME, HEADER_BLOCK, SegmentHeader, file_name};
use super::view::LogView;

const STORE: StoreId = StoreId([0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE, 1, 2, 3, 4, 5, 6, 7, 8]);
const SIZE: u64 = 16 * 1024;
const TIME: i64 = 1_765_962_000_123_456;

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden")
}

/// A log's directory among the golden files, and its segments.
type Golden = (&'static str, Vec<(u64, Vec<u8>)>);

/// A segment built frame by frame, with nothing of the writer in it.
struct Builder {
    header: SegmentHeader,
    seed: Seed,
    bytes: Vec<u8>,
    previous: u32,
    seq: u64,
}

impl Builder {
    fn new(number: u64, seq: u64, previous: u32) -> Self {
        let header = SegmentHeader {
            store: STORE,
            number,
            first_seq: seq,
            first_retained: 1,
            size: SIZE,
            created_at: TIME,
            previous,
        };
        let mut bytes = header.encode();
        bytes.extend(header.encode());
        assert_eq!(bytes.len() as u64, 2 * HEADER_BLOCK);
        Self { header, seed: Seed::new(STORE, number), bytes, previous, seq }
    }

    fn frame(&mut self, kind: FrameKind, flags: u8, durable_end: u64, payload: &[u8]) -> &mut Self {
        let offset = self.bytes.len() as u64;
        let event = kind == FrameKind::Event;
        let draft = match kind {
            FrameKind::Mark => Draft::mark(offset, self.seq, self.previous),
            _ => Draft {
                kind,
                event_kind: u16::from(event),
                version: if event { 1 } else { deletion::VERSION },
                flags,
                seq: self.seq,
                appended_at: TIME + self.seq as i64,
                durable_end: durable_end as u32,
                previous: self.previous,
                payload,
            },
        };
        self.previous = frame::encode(&self.seed, offset, &draft, &mut self.bytes);
        self.seq += u64::from(event);
        self
    }

    fn gap(&mut self, events: u32, goes_on: u32, filler: usize) -> &mut Self {
        let gap = Gap { events, accepted_at: (TIME / 1_000_000) as u32, goes_on };
        let filler = vec![0; filler];
        let draft = Draft::gap(self.seq, gap, FIRST_FRAME, self.previous, &filler);
        frame::encode(&self.seed, self.bytes.len() as u64, &draft, &mut self.bytes);
        self.seq += u64::from(events);
        self.previous = goes_on;
        self
    }

    fn end(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.header.size as usize, 0);
        self.bytes
    }
}

/// Two segments: single events, a batch, a key, an erased event, marks, and a deletion record.
fn build() -> Golden {
    let mut first = Builder::new(1, 1, 0);
    first.frame(FrameKind::Event, 0, FIRST_FRAME, b"saltsaltone");
    let one = first.end();
    first.frame(FrameKind::Event, FLAG_MORE, one, b"SALT0002two, of a batch");
    first.frame(FrameKind::Event, 0, one, &[0xE0; 700]);
    let three = first.end();
    first.frame(FrameKind::Mark, 0, 0, &[]);
    let erased = first.end() as usize + HEADER_LEN;
    first.frame(FrameKind::Event, 0, three, b"SALT0004erased later");
    first.bytes[erased..erased + 20].fill(0);
    let keyed = [&b"SALT0005"[..], &[3, 0], b"keyfive"].concat();
    let four = first.end();
    first.frame(FrameKind::Event, FLAG_KEY, four, &keyed);
    first.frame(FrameKind::Mark, 0, 0, &[]);
    let mut second = Builder::new(2, first.seq, first.previous);
    let record =
        Deletion { reason: Reason::Erasure, subject: [0xAB; 32], cut_off: i64::MAX, ranges: vec![(4, 4)] };
    second.frame(FrameKind::Deletion, 0, FIRST_FRAME, &record.encode());
    let deletion = second.end();
    second.frame(FrameKind::Event, 0, deletion, b"SALT0006");
    second.frame(FrameKind::Mark, 0, 0, &[]);
    ("log-v1", vec![(1, first.finish()), (2, second.finish())])
}

/// Events that were given up: within a batch, without an event in it, and at the end of a segment.
fn build_gaps() -> Golden {
    let mut first = Builder::new(1, 1, 0);
    first.frame(FrameKind::Event, FLAG_MORE, FIRST_FRAME, b"SALT0001before");
    first.gap(3, 0x1234_5678, 200);
    first.frame(FrameKind::Event, 0, FIRST_FRAME, b"SALT0005behind");
    first.gap(0, 0x9ABC_DEF0, 0);
    first.frame(FrameKind::Event, 0, FIRST_FRAME, b"SALT0006");
    first.gap(2, 0xFFFF_FFFF, 0);
    let mut second = Builder::new(2, first.seq, first.previous);
    second.frame(FrameKind::Event, 0, FIRST_FRAME, b"SALT0009");
    second.frame(FrameKind::Mark, 0, 0, &[]);
    ("log-v1-gaps", vec![(1, first.finish()), (2, second.finish())])
}

/// One line for each entry that a reader meets.
fn describe(cursor: &mut Cursor) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(entry) = cursor.next().unwrap() {
        lines.push(match entry {
            Entry::Event { header, payload, .. } => format!(
                "event {} type {} version {} flags {} time {} payload {}",
                header.seq,
                header.event_kind,
                header.version,
                header.flags,
                header.appended_at,
                payload.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
            ),
            Entry::Deletion { payload } => {
                format!("deletion {:?}", Deletion::decode(payload).unwrap().ranges)
            }
            Entry::Erased { seq, .. } => format!("erased {seq}"),
            Entry::Gap { header, .. } => {
                let at = header.gap().unwrap().accepted_at;
                format!("lost {} to {}, given up at {at}", header.seq, header.next_seq() - 1)
            }
            Entry::Damage(finding) => panic!("{finding}"),
        });
    }
    lines
}

fn golden(dir: &str, name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = golden_dir().join(dir).join(name);
    if std::env::var_os("SYNCLOG_WRITE_GOLDEN").is_some() && !path.exists() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn these_events_give_these_bytes() {
    for (dir, segments) in [build(), build_gaps()] {
        for (number, bytes) in segments {
            let name = file_name(number);
            assert!(golden(dir, &name, &bytes) == bytes, "{dir}/{name} differs from what is written today");
        }
    }
}

#[test]
fn these_bytes_give_these_events() {
    for ((dir, segments), next_seq) in [(build(), 7), (build_gaps(), 10)] {
        let disk = SimDisk::default();
        disk.create_parents();
        let log = LogDir::new(Arc::new(disk.clone()), Path::new("/parent/store"));
        crate::disk::Disk::create_dir(&disk, &log.log_dir()).unwrap();
        for (number, bytes) in segments {
            disk.put(&log.segment_path(number), golden(dir, &file_name(number), &bytes));
        }
        let view = LogView::open(log.clone(), None, false).unwrap().unwrap();
        assert!(view.findings.is_empty(), "{:?}", view.findings);
        assert_eq!(view.store, STORE);
        let (mut cursor, _) = view.cursor(1).unwrap();
        let text = describe(&mut cursor).join("\n") + "\n";
        assert_eq!(text.as_bytes(), golden(dir, "events.txt", text.as_bytes()));
        assert_eq!(view.horizon, Horizon { segment: 2, offset: view.horizon.offset, seq: next_seq });
    }
}
