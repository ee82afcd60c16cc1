//! The bytes of one simulated file: what the page cache holds, and what the disk may hold.
//!
//! The disk may hold, for each 512-byte sector on its own, any content that the sector has had since it
//! was last made durable: the kernel writes back when it likes. A successful sync settles the sectors
//! that are dirty. A failed one marks them clean without settling them, so the next sync passes them
//! over and says yes: that is what Linux does.

use std::sync::{Arc, OnceLock};

pub(crate) const SECTOR: usize = 512;

type Sector = [u8; SECTOR];

/// A sector that may be something else on disk than in the page cache.
#[derive(Clone)]
struct Unsettled {
    sector: usize,
    dirty: bool,
    /// What the disk may hold besides what the cache holds, oldest first.
    older: Vec<Arc<Sector>>,
}

/// One file's bytes.
#[derive(Clone, Default)]
pub(crate) struct Content {
    cache: Vec<u8>,
    unsettled: Vec<Unsettled>,
    /// Lengths that the disk may hold besides the cache's.
    older_lens: Vec<usize>,
    len_dirty: bool,
    sum: OnceLock<u64>,
}

impl Content {
    /// Bytes that are durable as they are.
    pub(crate) fn settled(cache: Vec<u8>) -> Self {
        Self { cache, ..Self::default() }
    }

    /// What a reader sees.
    pub(crate) fn cache(&self) -> &[u8] {
        &self.cache
    }

    /// Whether disk and cache are known to be alike.
    pub(crate) fn is_settled(&self) -> bool {
        self.unsettled.is_empty() && self.older_lens.is_empty()
    }

    fn sector(&self, index: usize) -> Sector {
        let mut sector = [0; SECTOR];
        let start = (index * SECTOR).min(self.cache.len());
        let end = (start + SECTOR).min(self.cache.len());
        sector[..end - start].copy_from_slice(&self.cache[start..end]);
        sector
    }

    /// Writes into the cache.
    pub(crate) fn write(&mut self, buf: &[u8], offset: usize) {
        let end = offset + buf.len();
        if end > self.cache.len() {
            if !self.older_lens.contains(&self.cache.len()) {
                self.older_lens.push(self.cache.len());
            }
            self.cache.resize(end, 0);
        }
        self.len_dirty |= self.older_lens.iter().any(|len| end > *len);
        self.older_lens.retain(|len| *len != self.cache.len());
        let mut at = offset;
        while at < end {
            let index = at / SECTOR;
            let stop = end.min((index + 1) * SECTOR);
            let new = &buf[at - offset..stop - offset];
            let place = self.unsettled.binary_search_by_key(&index, |known| known.sector);
            if self.cache[at..stop] != *new {
                let before = self.sector(index);
                self.cache[at..stop].copy_from_slice(new);
                let after = self.sector(index);
                let known = match place {
                    Ok(place) => &mut self.unsettled[place],
                    Err(place) => {
                        self.unsettled.insert(place, Unsettled { sector: index, dirty: true, older: vec![] });
                        &mut self.unsettled[place]
                    }
                };
                known.dirty = true;
                known.older.retain(|older| **older != after);
                if !known.older.iter().any(|older| **older == before) {
                    known.older.push(Arc::new(before));
                }
            } else if let Ok(place) = place {
                self.unsettled[place].dirty = true;
            }
            at = stop;
        }
        self.sum = OnceLock::new();
    }

    /// A sync that succeeds.
    pub(crate) fn sync(&mut self) {
        self.unsettled.retain(|known| !known.dirty);
        if std::mem::take(&mut self.len_dirty) {
            self.older_lens.clear();
        }
    }

    /// A sync that fails: what was dirty is taken for clean from now on, and may be durable or not.
    pub(crate) fn fail_sync(&mut self) {
        self.unsettled.iter_mut().for_each(|known| known.dirty = false);
        self.len_dirty = false;
    }

    /// How many choices a power cut has for each thing that is not settled: the length, the sectors.
    pub(crate) fn options(&self) -> impl Iterator<Item = usize> {
        let len = (!self.older_lens.is_empty()).then_some(self.older_lens.len() + 1);
        len.into_iter().chain(self.unsettled.iter().map(|known| known.older.len() + 1))
    }

    /// What a power cut leaves. `pick` chooses: 0 is the newest, `count - 1` the oldest.
    pub(crate) fn cut(&self, pick: &mut dyn FnMut(usize) -> usize) -> Self {
        let mut cache = self.cache.clone();
        let len = match self.older_lens.len() {
            0 => cache.len(),
            count => match pick(count + 1) {
                0 => cache.len(),
                newest_first => self.older_lens[count - newest_first],
            },
        };
        for known in &self.unsettled {
            let count = known.older.len();
            let chosen = pick(count + 1);
            if chosen > 0 {
                let start = known.sector * SECTOR;
                let end = (start + SECTOR).min(cache.len());
                cache[start..end].copy_from_slice(&known.older[count - chosen][..end - start]);
            }
        }
        cache.resize(len, 0);
        Self::settled(cache)
    }

    /// The kernel drops clean pages from the cache: after a failed sync the next read of such a page
    /// gives what the disk holds. Dirty pages stay.
    pub(crate) fn evict(&self, pick: &mut dyn FnMut(usize) -> usize) -> Self {
        let mut left = self.clone();
        left.unsettled.retain(|known| known.dirty);
        let mut gone = self.clone();
        gone.unsettled.retain(|known| !known.dirty);
        gone.older_lens.clear();
        left.cache = gone.cut(pick).cache;
        left.sum = OnceLock::new();
        left
    }

    /// A number for what a reader sees, the same for the same bytes.
    pub(crate) fn sum(&self) -> u64 {
        *self.sum.get_or_init(|| hash_bytes(&self.cache))
    }

    /// A number for what a reader sees and for everything that the disk may hold.
    pub(crate) fn full_sum(&self) -> u64 {
        let mut sum = self.sum();
        for known in &self.unsettled {
            sum = mix(sum, known.sector as u64 * 2 + u64::from(known.dirty));
            for older in &known.older {
                sum = mix(sum, hash_bytes(&older[..]));
            }
        }
        self.older_lens.iter().fold(sum, |sum, len| mix(sum, *len as u64 + 1))
    }
}

/// Takes `value` into a running number.
pub(crate) fn mix(sum: u64, value: u64) -> u64 {
    let mixed = (sum ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) ^ (mixed >> 32)
}

fn hash_bytes(bytes: &[u8]) -> u64 {
    let (mut even, mut odd) = (bytes.len() as u64, 0x1234_5678_9ABC_DEF1_u64);
    let mut chunks = bytes.chunks_exact(16);
    for chunk in &mut chunks {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| chunk[at + index]));
        even = (even ^ word(0)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        odd = (odd ^ word(8)).wrapping_mul(0xBF58_476D_1CE4_E5B9).rotate_left(31);
    }
    for byte in chunks.remainder() {
        even = (even ^ u64::from(*byte)).wrapping_mul(0x94D0_49BB_1331_11EB).rotate_left(27);
    }
    mix(even, odd)
}
