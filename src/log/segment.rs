//! One segment file: its name, its header, making one, and reading bytes of one.
//!
//! A segment never grows. It is written as zeros at its final size, under a temporary name, synced,
//! renamed into place, and its directory synced, before the first frame goes into it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, access, read_exact_at};
use crate::error::{Error, Result};
use crate::store_id::StoreId;

use super::frame::{MAX_SEQ, Seed};

/// Bytes of one copy of the header, with its padding.
pub(crate) const HEADER_BLOCK: u64 = 4096;
/// The first frame's offset: behind two copies of the header.
pub(crate) const FIRST_FRAME: u64 = 2 * HEADER_BLOCK;
/// The newest format that this program reads and the one it writes.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// No segment is larger; offsets fit into 32 bits with room to spare.
pub(crate) const MAX_SEGMENT: u64 = 128 * 1024 * 1024;

const CRC32_IEEE: u32 = 1;
const MAGIC: [u8; 8] = *b"SYNCLOG\n";
const FIELDS_LEN: usize = 76;
const SUM_END: usize = FIELDS_LEN + 4;
const SUFFIX: &str = ".seg";
const NEW_SUFFIX: &str = ".seg.new";

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) store: StoreId,
    /// From 1, without gaps.
    pub(crate) number: u64,
    /// The seq of the first event in this segment.
    pub(crate) first_seq: u64,
    /// Events below this seq were given up by retention.
    pub(crate) first_retained: u64,
    /// The file's size in bytes, this header included.
    pub(crate) size: u64,
    /// When it was made, microseconds since 1970.
    pub(crate) created_at: i64,
    /// The header checksum of the last frame of the segment before; 0 in the first.
    pub(crate) previous: u32,
}

/// The file name of a segment, and back. These two are the only places that know it.
pub(crate) fn file_name(number: u64) -> String {
    format!("{number:020}{SUFFIX}")
}

/// The number in a segment's file name; `None` where it is no such name.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// True for the temporary name of a segment in the making, which a crash may leave behind.
pub(crate) fn is_unfinished(name: &str) -> bool {
    name.strip_suffix(NEW_SUFFIX).is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

impl SegmentHeader {
    /// One copy: [`HEADER_BLOCK`] bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BLOCK as usize);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&CRC32_IEEE.to_le_bytes());
        out.extend_from_slice(&self.store.0);
        for field in [self.number, self.first_seq, self.first_retained, self.size] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&self.created_at.to_le_bytes());
        out.extend_from_slice(&self.previous.to_le_bytes());
        let sum = crc32fast::hash(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out.resize(HEADER_BLOCK as usize, 0);
        out
    }

    /// Reads one copy. `Err(Some(version))` for a sound header of a newer format, `Err(None)` for
    /// damaged bytes; the padding counts as part of the copy.
    fn decode(raw: &[u8]) -> std::result::Result<Self, Option<u32>> {
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|index| raw[at + index]));
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| raw[at + index]));
        if raw[..8] != MAGIC || crc32fast::hash(&raw[..FIELDS_LEN]) != u32_at(FIELDS_LEN) {
            return Err(None);
        }
        let version = u32_at(8);
        if version > FORMAT_VERSION {
            return Err(Some(version));
        }
        let header = Self {
            store: StoreId(std::array::from_fn(|index| raw[16 + index])),
            number: u64_at(32),
            first_seq: u64_at(40),
            first_retained: u64_at(48),
            size: u64_at(56),
            created_at: u64_at(64) as i64,
            previous: u32_at(72),
        };
        let sound = version == FORMAT_VERSION
            && u32_at(12) == CRC32_IEEE
            && (1..=MAX_SEQ).contains(&header.number)
            && (1..=MAX_SEQ).contains(&header.first_seq)
            && header.first_retained <= header.first_seq
            && (FIRST_FRAME..=MAX_SEGMENT).contains(&header.size)
            // Not `all`, which looks at one byte at a time.
            && raw[SUM_END..].iter().fold(0, |any, byte| any | byte) == 0;
        if sound { Ok(header) } else { Err(None) }
    }
}

/// What the two copies of a header say.
pub(crate) enum HeaderRead {
    /// A sound header; `damaged_copy` is the offset of a copy that is not.
    Sound { header: SegmentHeader, damaged_copy: Option<u64> },
    /// A sound header of a newer format.
    Newer(u32),
    /// Neither copy is sound, or they contradict each other.
    Damaged,
    /// The file is too short to hold both copies. The first one, if it is there and sound.
    Short(Option<SegmentHeader>),
}

/// Reads both copies of the header of an open segment.
pub(crate) fn read_header(file: &dyn DiskFile, path: &Path) -> Result<HeaderRead> {
    let len = file.len().map_err(|error| Error::io("read the length of", path, error))?;
    let mut raw = vec![0; len.min(FIRST_FRAME) as usize];
    read_exact_at(file, &mut raw, 0).map_err(|error| Error::io_at("read", path, 0, error))?;
    if len < FIRST_FRAME {
        let first = raw.get(..HEADER_BLOCK as usize).map(SegmentHeader::decode);
        return Ok(match first {
            Some(Err(Some(version))) => HeaderRead::Newer(version),
            first => HeaderRead::Short(first.and_then(std::result::Result::ok)),
        });
    }
    let (first, second) = raw.split_at(HEADER_BLOCK as usize);
    Ok(match (SegmentHeader::decode(first), SegmentHeader::decode(second)) {
        (Ok(header), Ok(copy)) if header == copy => HeaderRead::Sound { header, damaged_copy: None },
        (Ok(header), Err(None)) => HeaderRead::Sound { header, damaged_copy: Some(HEADER_BLOCK) },
        (Err(None), Ok(header)) => HeaderRead::Sound { header, damaged_copy: Some(0) },
        (Err(Some(version)), _) | (_, Err(Some(version))) => HeaderRead::Newer(version),
        _ => HeaderRead::Damaged,
    })
}

/// Makes a segment file and returns it open for writing. On failure nothing was put into place,
/// except where only the last directory sync failed.
pub(crate) fn create(disk: &dyn Disk, dir: &Path, header: &SegmentHeader) -> Result<Arc<dyn DiskFile>> {
    create_with(disk, dir, header, |_| Ok(()))
}

/// The same, with frames that `fill` writes before the file gets its name. Replaces a file of that name.
pub(super) fn create_with(
    disk: &dyn Disk,
    dir: &Path,
    header: &SegmentHeader,
    fill: impl FnOnce(&dyn DiskFile) -> Result<()>,
) -> Result<Arc<dyn DiskFile>> {
    let path = dir.join(file_name(header.number));
    let unfinished = dir.join(format!("{:020}{NEW_SUFFIX}", header.number));
    let written = write_new(disk, &unfinished, (dir, &path), header, fill);
    let file = match written {
        Ok(file) => file,
        Err(error) => {
            // The space may be what was short; the name is never read as a segment either way.
            drop(disk.remove(&unfinished));
            return Err(error);
        }
    };
    disk.rename(&unfinished, &path).map_err(|error| Error::io("rename into place", &path, error))?;
    disk.sync_dir(dir).map_err(|error| Error::io("sync the directory", dir, error))?;
    Ok(file)
}

fn write_new(
    disk: &dyn Disk,
    path: &Path,
    (dir, target): (&Path, &Path),
    header: &SegmentHeader,
    fill: impl FnOnce(&dyn DiskFile) -> Result<()>,
) -> Result<Arc<dyn DiskFile>> {
    const CHUNK: u64 = 1024 * 1024;
    let neighbours = [header.number - 1, header.number + 1].map(|number| dir.join(file_name(number)));
    let create = || access::create(disk, path, &[target], &neighbours.each_ref().map(PathBuf::as_path));
    let file = match create() {
        // A crash or a full disk left one in the making; nobody ever reads it.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            disk.remove(path).and_then(|()| create())
        }
        other => other,
    };
    let file = file.map_err(|error| Error::io("create", path, error))?;
    let zeros = vec![0; CHUNK.min(header.size) as usize];
    let mut offset = FIRST_FRAME;
    while offset < header.size {
        let end = header.size.min((offset / CHUNK + 1) * CHUNK);
        file.write_all_at(&zeros[..(end - offset) as usize], offset)
            .map_err(|error| Error::io_at("write", path, offset, error))?;
        offset = end;
    }
    fill(file.as_ref())?;
    let copy = header.encode();
    for at in [0, HEADER_BLOCK] {
        file.write_all_at(&copy, at).map_err(|error| Error::io_at("write", path, at, error))?;
    }
    file.sync().map_err(|error| Error::io("sync", path, error))?;
    Ok(Arc::from(file))
}

/// An open segment with a window of its bytes in memory. Memory stays at the window's size: 64 KiB,
/// or one frame where that is larger. Nothing is mapped: a file that is cut, or a sector that cannot be read, is an
/// error of the read that meets it, and would end a process that has it mapped.
pub(crate) struct SegmentReader {
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
    pub(crate) seed: Seed,
    file: Arc<dyn DiskFile>,
    /// The window lies in here from `window_from` on, where a page starts.
    buffer: Vec<u8>,
    window_from: usize,
    window_len: usize,
    window_at: u64,
    /// Nothing behind this offset is read ahead.
    read_to: u64,
}

/// As much as stays in a core's nearer cache between the copy from the system and the checksums.
const WINDOW: usize = 64 * 1024;
/// Processors copy fastest from one page to another, as the system does where both ends are aligned.
const PAGE: usize = 4096;

impl SegmentReader {
    pub(crate) fn new(path: PathBuf, header: SegmentHeader, file: Arc<dyn DiskFile>) -> Self {
        let seed = Seed::new(header.store, header.number);
        Self {
            path,
            header,
            seed,
            file,
            buffer: Vec::new(),
            window_from: 0,
            window_len: 0,
            window_at: 0,
            read_to: u64::MAX,
        }
    }

    /// Forgets what was read, because a writer may have written since.
    pub(crate) fn refresh(&mut self) {
        self.window_len = 0;
    }

    /// Reads no farther ahead than `offset`: whoever follows a writer wants the last group, not the
    /// zeros behind it.
    pub(crate) fn read_to(&mut self, offset: u64) {
        self.read_to = offset;
    }

    /// The next `N` bytes from `offset` on, zeros behind the segment's end: a look far ahead that leaves the window
    /// where it is.
    pub(crate) fn peek<const N: usize>(&mut self, offset: u64) -> Result<[u8; N]> {
        let mut found = [0; N];
        let len = self.header.size.saturating_sub(offset).min(N as u64) as usize;
        if offset >= self.window_at && offset + len as u64 <= self.window_at + self.window_len as u64 {
            found[..len].copy_from_slice(self.bytes(offset, len)?);
            return Ok(found);
        }
        read_exact_at(self.file.as_ref(), &mut found[..len], offset)
            .map_err(|error| Error::io_at("read", &self.path, offset, error))?;
        Ok(found)
    }

    /// The bytes `offset..offset + len`, cut at the segment's end.
    #[inline]
    pub(crate) fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8]> {
        let end = (offset + len as u64).min(self.header.size);
        if offset >= end {
            return Ok(&[]);
        }
        if offset < self.window_at || end > self.window_at + self.window_len as u64 {
            let at = offset - offset % PAGE as u64;
            let ahead = (at + WINDOW as u64).min(self.read_to);
            let len = (ahead.max(end).min(self.header.size) - at) as usize;
            let window = room_for(&mut self.buffer, &mut self.window_from, len);
            self.window_len = 0;
            read_exact_at(self.file.as_ref(), window, at)
                .map_err(|error| Error::io_at("read", &self.path, at, error))?;
            (self.window_at, self.window_len) = (at, len);
        }
        let start = self.window_from + (offset - self.window_at) as usize;
        Ok(&self.buffer[start..start + (end - offset) as usize])
    }
}

/// `len` bytes of a buffer from a page's start on, which is told as well. A frame that is larger than the usual
/// window does not make the buffer large for good.
fn room_for<'b>(buffer: &'b mut Vec<u8>, from: &mut usize, len: usize) -> &'b mut [u8] {
    const USUAL: usize = WINDOW + PAGE;
    if buffer.len() < len + PAGE || (len <= WINDOW && buffer.len() > USUAL) {
        *buffer = vec![0; USUAL.max(len + PAGE)];
    }
    *from = buffer.as_ptr().align_offset(PAGE).min(PAGE);
    &mut buffer[*from..*from + len]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways_and_nothing_else_is_a_name() {
        assert_eq!(number_of(&file_name(7)), Some(7));
        assert_eq!(number_of(&file_name(u64::MAX)), Some(u64::MAX));
        for name in [
            "7.seg",
            "00000000000000000007.seg.new",
            "0000000000000000000a.seg",
            "x",
            "99999999999999999999.seg",
        ] {
            assert_eq!(number_of(name), None, "{name}");
        }
        assert!(is_unfinished("00000000000000000007.seg.new") && !is_unfinished(&file_name(7)));
    }

    #[test]
    fn a_header_survives_no_flipped_bit() {
        let header = SegmentHeader {
            store: StoreId([3; 16]),
            number: 2,
            first_seq: 10,
            first_retained: 1,
            size: 262_144,
            created_at: 1,
            previous: 9,
        };
        let mut raw = header.encode();
        assert_eq!(SegmentHeader::decode(&raw), Ok(header));
        for bit in 0..raw.len() * 8 {
            raw[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&raw).is_err(), "bit {bit}");
            raw[bit / 8] ^= 1 << (bit % 8);
        }
        raw[8] = 2;
        let sum = crc32fast::hash(&raw[..FIELDS_LEN]).to_le_bytes();
        raw[FIELDS_LEN..SUM_END].copy_from_slice(&sum);
        assert_eq!(SegmentHeader::decode(&raw), Err(Some(2)));
    }
}
