//! Sealed segments mapped into memory: the one module with unsafe code.
#![allow(unsafe_code)]

use crate::disk::DiskFile;

/// A read-only map of a whole segment.
pub(crate) struct Map(memmap2::Mmap);

impl Map {
    /// Maps `size` bytes; `None` where the file is no real one, is shorter, or cannot be mapped:
    /// the caller then reads instead.
    pub(crate) fn new(file: &dyn DiskFile, size: u64) -> Option<Self> {
        let real = file.as_real()?;
        if file.len().ok()? < size {
            return None;
        }
        // SAFETY: the map is read-only and private to this process. A sealed segment is never
        // written or cut again by this program: erasure puts a new file in its place. Somebody else
        // who cuts it while it is mapped gets this process a SIGBUS, as does a sector that cannot be
        // read. So nothing else is ever mapped, and opening, replay, verify and repair read instead:
        // only a caller who reads events in bulk gets the speed and the risk.
        let map = unsafe { memmap2::MmapOptions::new().len(size as usize).map(real) }.ok()?;
        #[cfg(unix)]
        let _ = map.advise(memmap2::Advice::Sequential);
        Some(Self(map))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
