//! What the disk can do: one write and one fdatasync, into blocks that were written before.
//!
//! A file whose blocks are written has no metadata to sync. A frame is a length, a checksum and the payload,
//! rounded up to 256 bytes: the size of a frame of synclog without its header.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

use super::lock;
use crate::contestant::{Contestant, Result, Unit};

/// The size of the file. Where it is used up, writing starts again at the front.
const FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Frames are rounded up to this.
const FRAME_BYTES: usize = 256;

pub struct Limit {
    file: File,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    offset: u64,
    frames: Vec<u8>,
}

impl Limit {
    pub fn open(dir: &Path) -> Result<Self> {
        let file =
            File::options().create(true).truncate(true).read(true).write(true).open(dir.join("frames"))?;
        let zeros = vec![0; 1024 * 1024];
        for offset in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, offset)?;
        }
        file.sync_all()?;
        Ok(Self { file, state: Mutex::default() })
    }
}

impl Contestant for Limit {
    fn append(&self, _worker: usize, unit: Unit) -> Result<()> {
        let mut state = lock(&self.state);
        let State { offset, frames } = &mut *state;
        frames.clear();
        for record in unit.records()? {
            let start = frames.len();
            frames.extend_from_slice(&u32::try_from(record.len())?.to_le_bytes());
            frames.extend_from_slice(&crc32fast::hash(&record).to_le_bytes());
            frames.extend_from_slice(&record);
            frames.resize(start + (8 + record.len()).next_multiple_of(FRAME_BYTES), 0);
        }
        if *offset + frames.len() as u64 > FILE_BYTES {
            *offset = 0;
        }
        self.file.write_all_at(frames, *offset)?;
        *offset += frames.len() as u64;
        Ok(self.file.sync_data()?)
    }
}
