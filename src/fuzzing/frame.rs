//! Pure bytes: headers of frames and of segments, payloads, deletion records, the file `tail`.

use std::path::Path;
use std::sync::Arc;

use crate::StoreId;
use crate::SyncEvent;
use crate::codec::{self, Decoded};
use crate::disk::Disk as _;
use crate::log::deletion::Deletion;
use crate::log::directory::LogDir;
use crate::log::frame::{self, Draft, FrameKind, HEADER_LEN, Header, Seed, decode_header};
use crate::log::segment::{FIRST_FRAME, HEADER_BLOCK, HeaderRead, read_header};
use crate::log::tail;
use crate::proof::disk::SimDisk;

const SIZE: u64 = 1 << 16;

/// Bytes as a frame's header, with and without a fitting checksum; as a body; as an event's payload;
/// as a deletion record; as a segment's header; as the file `tail`.
pub fn frame(data: &[u8]) {
    let seed = Seed::new(StoreId([7; 16]), 3);
    let offset = FIRST_FRAME + data.first().map_or(0, |byte| u64::from(*byte) * 8);
    if let Ok(header) = decode_header(&seed, offset, data, FIRST_FRAME, SIZE) {
        check_header(&seed, offset, &header, data);
    }
    resealed_header(&seed, offset, data);
    if let Some(record) = Deletion::decode(data) {
        assert_eq!(record.encode(), data, "a record that is taken is written the same way");
    }
    event_payload(&seed, offset, data);
    match data.first().map(|byte| byte & 7) {
        Some(0) => segment_header(&data[1..]),
        Some(1) => tail_file(&data[1..]),
        _ => {}
    }
}

fn check_header(seed: &Seed, offset: u64, header: &Header, raw: &[u8]) {
    let durable_end = u64::from(header.durable_end);
    assert!(offset + header.frame_len() <= SIZE && (FIRST_FRAME..=offset).contains(&durable_end));
    // What is a valid header is what this program would write there.
    let draft = Draft {
        kind: header.kind,
        event_kind: header.event_kind,
        version: header.version,
        flags: header.flags,
        seq: header.seq,
        appended_at: header.appended_at,
        durable_end: header.durable_end,
        previous: header.previous,
        payload: &vec![0; header.payload_len as usize],
    };
    let mut again = Vec::new();
    frame::encode(seed, offset, &draft, &mut again);
    assert_eq!(again[..36], raw[..36]);
}

/// The same bytes with magic bytes and a checksum that fit, so that the fields are looked at.
fn resealed_header(seed: &Seed, offset: u64, data: &[u8]) {
    let Some(raw) = data.first_chunk::<HEADER_LEN>() else { return };
    let mut raw = *raw;
    (raw[0], raw[7], raw[HEADER_LEN - 1]) = (0xF1, 0, 0x1F);
    raw[44..47].fill(0);
    // The sum of a header is that of a body with the same bytes, 48 bytes before.
    let parts = [&raw[..40], &raw[44..]].concat();
    let sum = seed.body_sum(offset - HEADER_LEN as u64, &parts);
    raw[40..44].copy_from_slice(&sum.to_le_bytes());
    match decode_header(seed, offset, &raw, FIRST_FRAME, SIZE) {
        Ok(header) => check_header(seed, offset, &header, &raw),
        Err(fault) => {
            use frame::HeaderFault::{Checksum, Magic, NoRoom, Zero};
            assert!(!matches!(fault, Checksum | Magic | NoRoom | Zero), "{fault:?}");
        }
    }
}

fn event_payload(seed: &Seed, offset: u64, data: &[u8]) {
    // A frame around the bytes, so that what lies behind the checksums is reached as well.
    let Some((fields, payload)) = data.split_at_checked(4) else { return };
    let draft = Draft {
        kind: FrameKind::Event,
        event_kind: 1,
        version: u16::from(fields[0] % 3),
        flags: fields[1] & 3,
        seq: 1 + u64::from(fields[2]),
        appended_at: i64::from(fields[3]),
        durable_end: FIRST_FRAME as u32,
        previous: 9,
        payload,
    };
    let mut raw = Vec::new();
    let sum = frame::encode(seed, offset, &draft, &mut raw);
    let header = match decode_header(seed, offset, &raw, FIRST_FRAME, SIZE) {
        Ok(header) => header,
        Err(fault) => {
            assert!(offset + raw.len() as u64 > SIZE, "{fault:?}");
            return;
        }
    };
    assert_eq!((header.sum, header.seq, header.previous), (sum, draft.seq, 9));
    assert_eq!(seed.body_sum(offset, &raw[HEADER_LEN..]), header.body_sum);
    if let Decoded::Event { event, key } = codec::decode::<SyncEvent>(&header, payload) {
        // What can be decoded gives its bytes again, through a row as well.
        let head: [u8; HEADER_LEN] = raw[..HEADER_LEN].try_into().unwrap_or([0; HEADER_LEN]);
        let row = codec::row::<SyncEvent>(&header, &head, payload)
            .unwrap_or_else(|unread| panic!("{}", unread.reason));
        let again: SyncEvent = crate::Event::from_row(&row.values).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(again, event);
        let (kept, bytes) = codec::frame_again(&again, key.as_deref(), &row.frame)
            .unwrap_or_else(|error| panic!("P9: {error}"));
        assert_eq!(kept, head, "P9");
        // Only what this program writes comes back from a row: other bytes may mean the same event.
        if bytes != payload {
            let decoded = codec::decode::<SyncEvent>(&header, &bytes);
            assert!(matches!(decoded, Decoded::Event { event: other, .. } if other == event), "P4");
        }
    }
}

fn sim_with(name: &str, bytes: Vec<u8>) -> (SimDisk, LogDir) {
    let disk = SimDisk::default();
    disk.create_parents();
    disk.put(&Path::new("/parent/store").join(name), bytes);
    let log = LogDir::new(Arc::new(disk.clone()), Path::new("/parent/store"));
    (disk, log)
}

/// Fields of a segment's header, in one copy or in both, with checksums that fit.
fn segment_header(data: &[u8]) {
    let Some((mode, fields)) = data.split_first() else { return };
    let mut block = vec![0; HEADER_BLOCK as usize];
    let len = fields.len().min(block.len());
    block[..len].copy_from_slice(&fields[..len]);
    if mode & 1 == 0 {
        block[..8].copy_from_slice(b"SYNCLOG\n");
        let sum = crc32fast::hash(&block[..76]).to_le_bytes();
        block[76..80].copy_from_slice(&sum);
    }
    let other = if mode & 2 == 0 { block.clone() } else { vec![0; HEADER_BLOCK as usize] };
    let bytes = if mode & 4 == 0 { [block.clone(), other].concat() } else { [other, block.clone()].concat() };
    let (disk, _) = sim_with("segment", bytes);
    let path = Path::new("/parent/store/segment");
    let file = disk.open(path, false).unwrap_or_else(|error| panic!("{error}"));
    match read_header(file.as_ref(), path).unwrap_or_else(|error| panic!("{error}")) {
        HeaderRead::Sound { header, .. } => {
            assert!((1..=1 << 62).contains(&header.number) && (1..=1 << 62).contains(&header.first_seq));
            assert!(header.size <= 128 << 20 && header.first_retained <= header.first_seq);
            assert_eq!(header.encode(), block);
        }
        HeaderRead::Newer(version) => assert!(version > 1),
        HeaderRead::Damaged | HeaderRead::Short(_) => {}
    }
}

fn tail_file(data: &[u8]) {
    let mut bytes = data.to_vec();
    // A checksum that fits, where there is room for one.
    if bytes.len() == 72 && bytes[70] & 1 == 0 {
        let sum = format!(" {:08x}\n", crc32fast::hash(&bytes[..62]));
        bytes[62..].copy_from_slice(sum.as_bytes());
    }
    let (_, log) = sim_with("tail", bytes);
    let found = tail::read(&log).unwrap_or_else(|error| panic!("{error}"));
    assert!(found.is_none_or(|(_, witness)| witness.seq > 0));
}
