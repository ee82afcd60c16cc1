//! Damage to the copy of a store, from a seed.

use std::fs;
use std::path::{Path, PathBuf};

use super::Dice;

const FIRST_FRAME: usize = 8192;
const SECTOR: usize = 512;

/// The segments of a store, oldest first.
pub fn segments(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir.join("log")) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    paths.sort();
    paths
}

fn number_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// Offsets of the frames of a sound segment, and where the last one ends.
fn frames(bytes: &[u8]) -> (Vec<usize>, usize) {
    let (mut offsets, mut at) = (Vec::new(), FIRST_FRAME);
    while at + 48 <= bytes.len() && bytes[at] == 0xF1 {
        offsets.push(at);
        at += 48 + (number_at(bytes, at + 24) / 8 + 1) * 8;
    }
    (offsets, at)
}

/// One kind of damage: it changes the bytes of a segment, of which the frames are at `frames.0`.
type Change = fn(&mut Dice, &mut Vec<u8>, &(Vec<usize>, usize));

fn flip(dice: &mut Dice, bytes: &mut [u8], from: usize, to: usize) {
    if from < to {
        bytes[from + dice.below(to - from)] ^= 1 << dice.below(8);
    }
}

fn zero(bytes: &mut [u8], from: usize, to: usize) {
    let to = to.min(bytes.len());
    bytes[from.min(to)..to].fill(0);
}

const CHANGES: &[(&str, Change)] = &[
    ("a bit of a frame's header", |dice, bytes, (frames, _)| {
        if !frames.is_empty() {
            let at = frames[dice.below(frames.len())];
            flip(dice, bytes, at, at + 48);
        }
    }),
    ("a bit of the last frames", |dice, bytes, (frames, end)| {
        if !frames.is_empty() {
            let at = frames[frames.len() - 1 - dice.below(frames.len().min(3))];
            flip(dice, bytes, at, *end);
        }
    }),
    ("a bit of a body", |dice, bytes, (frames, _)| {
        if !frames.is_empty() {
            let at = frames[dice.below(frames.len())];
            let end = at + 48 + (number_at(bytes, at + 24) / 8 + 1) * 8;
            flip(dice, bytes, at + 48, end);
        }
    }),
    ("a bit of the filler", |dice, bytes, (_, end)| {
        let length = bytes.len();
        flip(dice, bytes, *end, length);
    }),
    ("a bit of the segment's header", |dice, bytes, _| flip(dice, bytes, 0, FIRST_FRAME)),
    ("a bit of each copy of the segment's header", |dice, bytes, _| {
        flip(dice, bytes, 0, 76);
        flip(dice, bytes, 4096, 4096 + 76);
    }),
    ("sectors of zeros", |dice, bytes, (_, end)| {
        for _ in 0..=dice.below(3) {
            let sector = (FIRST_FRAME + dice.below(end - FIRST_FRAME + 1)) / SECTOR * SECTOR;
            zero(bytes, sector, sector + SECTOR);
        }
    }),
    ("a zero sector at the end", |dice, bytes, (_, end)| {
        let sector = (end - 1).saturating_sub(dice.below(1200)).max(FIRST_FRAME) / SECTOR * SECTOR;
        zero(bytes, sector, sector + SECTOR);
    }),
    ("zeros from somewhere near the end", |dice, bytes, (frames, end)| {
        if !frames.is_empty() {
            let at = frames[frames.len() - 1 - dice.below(frames.len().min(3))];
            let cut = at + dice.below(end - at);
            zero(bytes, cut, *end);
        }
    }),
    ("a zeroed header of the segment", |dice, bytes, _| {
        let at = dice.below(16) * SECTOR;
        zero(bytes, at, at + SECTOR * (1 + dice.below(9)));
    }),
    ("a shorter file", |dice, bytes, _| {
        let length = if dice.one_in(3) { dice.below(9000) } else { dice.below(bytes.len()) };
        bytes.truncate(length);
    }),
    ("a longer file", |dice, bytes, _| {
        let length = bytes.len() + 1 + dice.below(9000);
        bytes.resize(length, 0);
    }),
    ("bytes from elsewhere in the segment", |dice, bytes, (frames, end)| {
        if !frames.is_empty() {
            let from = frames[dice.below(frames.len())];
            let to = if dice.one_in(2) { *end } else { frames[dice.below(frames.len())] };
            let length = (80 + dice.below(400)).min(bytes.len() - from.max(to));
            bytes.copy_within(from..from + length, to);
        }
    }),
    ("noise", |dice, bytes, (_, end)| {
        let from = FIRST_FRAME + dice.below(end - FIRST_FRAME + 600);
        for at in from..(from + 1 + dice.below(2000)).min(bytes.len()) {
            bytes[at] = dice.next() as u8;
        }
    }),
    ("a forged frame header", |dice, bytes, (frames, _)| {
        if !frames.is_empty() {
            let at = frames[if dice.one_in(2) { frames.len() - 1 } else { dice.below(frames.len()) }];
            let value = dice.below(8) as u8;
            forge_header(bytes, at, dice.below(FIELDS), value);
        }
    }),
    ("a forged body", |dice, bytes, (frames, _)| {
        if frames.is_empty() {
            return;
        }
        // With every checksum right: padding and last byte are not looked at, a key may be too long.
        let at = frames[frames.len() - 1 - dice.below(frames.len().min(2))];
        let length = number_at(bytes, at + 24);
        let end = at + 48 + (length / 8 + 1) * 8;
        match dice.below(4) {
            0 => bytes[end - 1] = 0,
            1 => bytes[at + 48 + length..end].fill(7),
            2 if length >= 10 => bytes[at + 6] |= 2,
            _ if length >= 12 => bytes[at + 56..at + 60].fill(0xFF),
            _ => {}
        }
        let sum = seeded(bytes, at + 48, &[&bytes[at + 48..end]]);
        bytes[at + 36..at + 40].copy_from_slice(&sum.to_le_bytes());
        let sum = seeded(bytes, at, &[&bytes[at..at + 40], &bytes[at + 44..at + 48]]);
        bytes[at + 40..at + 44].copy_from_slice(&sum.to_le_bytes());
    }),
    ("a deletion record", |dice, bytes, (frames, end)| {
        let Some(&at) = frames.last() else { return };
        let mark = bytes[at + 1] == 2;
        let next = u64::from_le_bytes(bytes[at + 8..at + 16].try_into().unwrap()) + u64::from(!mark);
        let (mut head, mut payload) = (bytes[at..at + 48].to_vec(), vec![0; 72]);
        let first = 1 + dice.below(next as usize) as u64;
        payload[0] = 1 + dice.below(3) as u8;
        payload[48] = 1;
        payload[56..64].copy_from_slice(&first.to_le_bytes());
        payload[64..72].copy_from_slice(&(first + dice.below(3) as u64).to_le_bytes());
        if end + 48 + 80 > bytes.len() {
            return;
        }
        head[..8].copy_from_slice(&[0xF1, 3, 0, 0, 1, 0, 0, 0]);
        head[8..16].copy_from_slice(&next.to_le_bytes());
        head[24] = 72;
        head[25..28].fill(0);
        head[28..32].copy_from_slice(&(*end as u32).to_le_bytes());
        head[32..36].copy_from_slice(&bytes[at + 40..at + 44]);
        payload.extend([0, 0, 0, 0, 0, 0, 0, 0x5A]);
        let sum = seeded(bytes, end + 48, &[&payload]);
        head[36..40].copy_from_slice(&sum.to_le_bytes());
        let sum = seeded(bytes, *end, &[&head[..40], &head[44..]]);
        head[40..44].copy_from_slice(&sum.to_le_bytes());
        bytes[*end..end + 48].copy_from_slice(&head);
        bytes[end + 48..end + 48 + 80].copy_from_slice(&payload);
    }),
    ("a forged segment header", |dice, bytes, _| {
        let (at, value) = match dice.below(10) {
            0 => (8, 2),
            1 => (8, 0),
            2 => (12, 2),
            3 => (32, bytes[32].wrapping_add(1)),
            4 => (40, bytes[40].wrapping_add(1)),
            5 => (40, bytes[40].wrapping_sub(1)),
            6 => (48, bytes[48].wrapping_add(dice.below(4) as u8)),
            7 => (57, bytes[57] ^ 0x10),
            8 => (64, bytes[64] ^ 1),
            _ => (72, bytes[72] ^ 1),
        };
        for copy in [0, 4096] {
            if copy == 0 || !dice.one_in(3) {
                bytes[copy + at] = value;
                let sum = crc32fast::hash(&bytes[copy..copy + 76]);
                bytes[copy + 76..copy + 80].copy_from_slice(&sum.to_le_bytes());
            }
        }
    }),
];

/// How many fields of a frame's header [`forge_header`] knows.
pub const FIELDS: usize = 11;

/// Changes a field of a frame's header, and its checksum with it.
fn forge_header(bytes: &mut [u8], at: usize, field: usize, value: u8) {
    match field {
        0 => bytes[at + 1] = [0, 1, 2, 3, 5][usize::from(value % 5)],
        1 => bytes[at + 2..at + 4].fill(0),
        2 => bytes[at + 4] ^= 3,
        3 => bytes[at + 6] ^= 1 << value,
        4 => bytes[at + 7] = 1,
        5 => bytes[at + 8] = bytes[at + 8].wrapping_add(value).wrapping_sub(3),
        6 => bytes[at + 15] = 0x40,
        7 => bytes[at + 24] = bytes[at + 24].wrapping_add(8),
        8 => bytes[at + 26] ^= 1 << value,
        9 => bytes[at + 28] = bytes[at + 28].wrapping_add(1 << (value % 6)),
        _ => bytes[at + 32] ^= 1,
    }
    let sum = seeded(bytes, at, &[&bytes[at..at + 40], &bytes[at + 44..at + 48]]);
    bytes[at + 40..at + 44].copy_from_slice(&sum.to_le_bytes());
}

/// Forges a field in the header of the store's last frame.
pub fn forge_last(dir: &Path, field: usize, value: u8) {
    let path = segments(dir).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    if let Some(&at) = frames(&bytes).0.last() {
        forge_header(&mut bytes, at, field, value);
        fs::write(path, bytes).unwrap();
    }
}

/// A checksum with the seed of an offset in a segment.
fn seeded(bytes: &[u8], at: usize, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[16..40]);
    hasher.update(&(at as u64).to_le_bytes());
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

/// What happens to whole files.
const FILE_CHANGES: &[&str] = &[
    "a segment removed",
    "the last segment removed",
    "two segments swapped",
    "one segment in two places",
    "a segment of another store",
    "no file tail",
    "a bit of the file tail",
    "a forged file tail",
    "strange files",
];

/// What random damage seldom makes of segments that are not whole; each is done to a copy of a store.
pub const NOT_WHOLE: &[&str] = &[
    "all of other lengths, one of another store",
    "all of other lengths, one without a header",
    "cut in a batch",
];

/// Does one of [`NOT_WHOLE`]; false where the store is not of a shape for it.
pub fn not_whole(dir: &Path, other: &Path, how: &str) -> bool {
    let (paths, others) = (segments(dir), segments(other));
    let Some(last) = paths.last() else { return false };
    let _ = fs::remove_file(dir.join("tail"));
    if how == NOT_WHOLE[2] {
        let bytes = fs::read(last).unwrap();
        let frames = frames(&bytes).0;
        let goes_on = |at: &&usize| bytes[**at + 1] == 1 && bytes[**at + 6] & 1 == 1;
        let Some(index) = frames.iter().rposition(|at| goes_on(&at)) else { return false };
        fs::write(last, &bytes[..frames[index + 1]]).unwrap();
        return true;
    }
    if paths.len() < 3 || others.is_empty() {
        return false;
    }
    if how == NOT_WHOLE[0] {
        fs::copy(&others[0], &paths[0]).unwrap();
    }
    for path in &paths {
        let mut bytes = fs::read(path).unwrap();
        if how == NOT_WHOLE[1] && path == last {
            bytes[..FIRST_FRAME].fill(0);
        } else {
            bytes.resize(bytes.len() + 8, 0);
        }
        fs::write(path, bytes).unwrap();
    }
    true
}

/// Zeroes a few sectors of frames somewhere.
pub fn zero_sectors(dice: &mut Dice, dir: &Path) {
    let (name, change) = CHANGES.iter().find(|(name, _)| *name == "sectors of zeros").unwrap();
    change_bytes(dice, dir, name, *change);
}

/// Damages a store, and tells how.
pub fn damage(dice: &mut Dice, dir: &Path, other: &Path) -> String {
    let mut told = Vec::new();
    for round in 0..=usize::from(dice.one_in(4)) {
        let kind = dice.below(CHANGES.len() + FILE_CHANGES.len());
        let Some((name, change)) = CHANGES.get(kind) else {
            told.push(change_files(dice, dir, other, FILE_CHANGES[kind - CHANGES.len()]));
            continue;
        };
        // What no disk does is tried on sound stores.
        let forged = name.contains("forged") || name.contains("record");
        if round == 0 || !forged {
            told.push(change_bytes(dice, dir, name, *change));
        }
        if forged {
            break;
        }
    }
    if dice.one_in(3) {
        let _ = fs::remove_file(dir.join("tail"));
    }
    told.join(", ")
}

fn change_bytes(dice: &mut Dice, dir: &Path, name: &str, change: Change) -> String {
    let paths = segments(dir);
    if paths.is_empty() {
        return "nothing".into();
    }
    let index = if dice.one_in(2) { paths.len() - 1 } else { dice.below(paths.len()) };
    let mut bytes = fs::read(&paths[index]).unwrap();
    let frames = if bytes.len() > FIRST_FRAME { frames(&bytes) } else { (Vec::new(), FIRST_FRAME) };
    if bytes.len() > frames.1 {
        change(dice, &mut bytes, &frames);
        fs::write(&paths[index], bytes).unwrap();
    }
    format!("{name} in segment {} of {}", index + 1, paths.len())
}

fn change_files(dice: &mut Dice, dir: &Path, other: &Path, kind: &str) -> String {
    let paths = segments(dir);
    let any = paths.get(dice.below(paths.len()));
    let second = paths.get(dice.below(paths.len()));
    match (kind, any, second) {
        ("a segment removed", Some(path), _) => fs::remove_file(path).unwrap(),
        ("the last segment removed", Some(_), _) => fs::remove_file(&paths[paths.len() - 1]).unwrap(),
        ("two segments swapped", Some(one), Some(two)) if one != two => {
            let bytes = fs::read(one).unwrap();
            fs::copy(two, one).unwrap();
            fs::write(two, bytes).unwrap();
        }
        ("one segment in two places", Some(one), Some(two)) if one != two => {
            fs::copy(two, one).unwrap();
        }
        ("a segment of another store", Some(path), _) => {
            let from = other.join("log").join(path.file_name().unwrap());
            if from.exists() {
                fs::copy(from, path).unwrap();
            }
        }
        ("no file tail", ..) => drop(fs::remove_file(dir.join("tail"))),
        ("a bit of the file tail", ..) => {
            if let Ok(mut bytes) = fs::read(dir.join("tail")) {
                let length = bytes.len();
                flip(dice, &mut bytes, 0, length);
                fs::write(dir.join("tail"), bytes).unwrap();
            }
        }
        ("a forged file tail", ..) => {
            if let Ok(line) = fs::read_to_string(dir.join("tail")) {
                let seq: u64 = line[33..53].parse().unwrap();
                let (seq, sum) = match dice.below(3) {
                    0 => (seq + 1 + dice.below(3) as u64, line[54..62].to_owned()),
                    1 => (seq.saturating_sub(1 + dice.below(3) as u64), line[54..62].to_owned()),
                    _ => (seq, format!("{:08x}", dice.next() as u32)),
                };
                let line = format!("{} {seq:020} {sum}", &line[..32]);
                let line = format!("{line} {:08x}\n", crc32fast::hash(line.as_bytes()));
                fs::write(dir.join("tail"), line).unwrap();
            }
        }
        _ => {
            fs::write(dir.join("log/00000000000000000009.seg.new"), "unfinished").unwrap();
            fs::write(dir.join("log/notes.txt"), "mine").unwrap();
        }
    }
    format!("{kind}: {:?}", any.and_then(|path| path.file_name()))
}
