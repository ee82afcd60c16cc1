//! The log's directory: which segments there are, and whether they fit together.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::anchor::Anchor;
use crate::disk::{Disk, DiskFile, FileIdentity, LINK, Padded};
use crate::error::{Error, Result};
use crate::finding::{Finding, FindingKind};
use crate::lock::WriterLock;
use crate::store_id::StoreId;

use super::segment::{
    FORMAT_VERSION, HeaderRead, SegmentHeader, SegmentReader, file_name, is_unfinished, number_of,
    read_header,
};

/// Where a log lies.
#[derive(Clone)]
pub(crate) struct LogDir {
    pub(crate) disk: Arc<dyn Disk>,
    /// The store's directory; the segments are in `log` below it.
    pub(crate) store_dir: PathBuf,
    /// What its writer has opened and locked; none for whoever only reads.
    anchor: Option<Arc<Anchor>>,
}

/// The segments of a log, and what is wrong with them.
#[derive(Default)]
pub(crate) struct Listing {
    /// In order of their numbers; only those with a sound header.
    pub(crate) segments: Vec<SegmentHeader>,
    /// Segments with one damaged copy of the header: number and the copy's offset.
    pub(crate) damaged_copies: Vec<(u64, u64)>,
    /// Files with a segment's name that cannot be used as they are.
    pub(crate) unusable: Vec<Unusable>,
    /// Reasons to refuse appends.
    pub(crate) refusals: Vec<Finding>,
    /// Files that are no part of the log.
    pub(crate) notes: Vec<Finding>,
    /// Segments in the making that a crash left behind.
    pub(crate) unfinished: Vec<PathBuf>,
    /// Whether there was any file with a segment's name.
    pub(crate) any: bool,
}

/// A file with a segment's name that cannot be used as it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unusable {
    /// The number in its name.
    pub(crate) number: u64,
    /// The file's length in bytes.
    pub(crate) len: u64,
    pub(crate) why: Unfit,
}

/// What is wrong with a whole file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unfit {
    /// It belongs elsewhere: another store or another number; or it is no regular file.
    Foreign,
    /// Its header is sound and says another length.
    Length(SegmentHeader),
    /// Neither copy of its header is sound.
    Header,
}

impl LogDir {
    pub(crate) fn new(disk: Arc<dyn Disk>, store_dir: &Path) -> Self {
        Self { disk, store_dir: store_dir.into(), anchor: None }
    }

    /// The log of whoever holds the lock: looked up from the locked directories, wherever its path leads by
    /// then.
    pub(crate) fn locked(lock: &WriterLock) -> Self {
        Self { disk: lock.disk(), store_dir: lock.store_dir().into(), anchor: Some(lock.anchor()) }
    }

    /// Whether the path still leads to the store that is locked, in the process that locked it. An error
    /// otherwise, with the outcome of an event that is still to be written. Before anything is done by a path.
    pub(crate) fn check(&self) -> Result<()> {
        self.anchor.as_ref().map_or(Ok(()), |anchor| anchor.check())
    }

    /// The same by what is cheap, before and after each group: by the newest segment.
    pub(super) fn check_newest(&self, path: &Path, identity: FileIdentity) -> Result<()> {
        self.anchor.as_ref().map_or(Ok(()), |anchor| anchor.check_newest(path, identity))
    }

    /// The directory of the segments.
    pub(crate) fn log_dir(&self) -> PathBuf {
        self.store_dir.join("log")
    }

    /// The directory where damaged bytes are kept.
    pub(crate) fn quarantine_dir(&self) -> PathBuf {
        self.store_dir.join("quarantine")
    }

    /// Makes the directory where damaged bytes are kept. A link in its place is not followed: it may lead anywhere
    /// (P12).
    pub(crate) fn make_quarantine(&self) -> io::Result<PathBuf> {
        let dir = self.quarantine_dir();
        if self.disk.access(&dir)?.is_some_and(|found| found.is_link) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{LINK}; take it away")));
        }
        self.disk.create_dir(&dir)?;
        Ok(dir)
    }

    /// The path of the file that tells the newest event.
    pub(crate) fn tail_path(&self) -> PathBuf {
        self.store_dir.join("tail")
    }

    /// The path of a segment.
    pub(crate) fn segment_path(&self, number: u64) -> PathBuf {
        self.log_dir().join(file_name(number))
    }

    /// Opens a segment's file.
    pub(crate) fn open_file(&self, number: u64, writable: bool) -> Result<Arc<dyn DiskFile>> {
        let path = self.segment_path(number);
        let file = self.disk.open(&path, writable).map_err(|error| Error::io("open", &path, error))?;
        Ok(Arc::from(file))
    }

    /// Opens a segment whose header is known.
    pub(crate) fn reader(&self, header: &SegmentHeader) -> Result<SegmentReader> {
        let file = self.open_file(header.number, false)?;
        Ok(SegmentReader::new(self.segment_path(header.number), *header, file))
    }

    /// Opens a segment, one of `parts` or whole.
    pub(crate) fn reader_of(&self, header: &SegmentHeader, parts: &[SegmentHeader]) -> Result<SegmentReader> {
        if parts.contains(header) { self.reader_of_part(header) } else { self.reader(header) }
    }

    /// Opens a segment that may be shorter than its header says: what is not there reads as zeros. For whoever
    /// has told that it is short, and wants what is left of it.
    pub(crate) fn reader_of_part(&self, header: &SegmentHeader) -> Result<SegmentReader> {
        Ok(SegmentReader::new(self.segment_path(header.number), *header, self.padded(header.number)?))
    }

    /// Opens a file that may be shorter than it was: what is not there reads as zeros.
    pub(super) fn padded(&self, number: u64) -> Result<Arc<dyn DiskFile>> {
        let path = self.segment_path(number);
        let file = self.open_file(number, false)?;
        let len = file.len().map_err(|error| Error::io("read the length of", &path, error))?;
        Ok(Arc::new(Padded { file, len }))
    }

    /// Takes segments in that are not whole, as if they were. What is said of their files stays.
    pub(super) fn add_parts(&self, listing: &mut Listing, parts: &[SegmentHeader]) {
        if parts.is_empty() {
            return;
        }
        listing.segments.extend_from_slice(parts);
        listing.segments.sort_by_key(|header| header.number);
        listing.refusals.retain(|finding| finding.kind != FindingKind::MissingSegment);
        let missing = self.check_numbers(&listing.segments).into_iter();
        listing.refusals.extend(missing.filter(|finding| finding.kind == FindingKind::MissingSegment));
    }

    /// The header of one segment; `None` where it is not there or not sound.
    pub(crate) fn header_of(&self, number: u64) -> Result<Option<SegmentHeader>> {
        let path = self.segment_path(number);
        let file = match self.disk.open(&path, false) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {
                return Ok(None);
            }
            Err(error) => return Err(Error::io("open", &path, error)),
        };
        let len = file.len().map_err(|error| Error::io("read the length of", &path, error))?;
        Ok(match read_header(file.as_ref(), &path)? {
            HeaderRead::Sound { header, .. } if header.number == number && header.size == len => Some(header),
            _ => None,
        })
    }

    /// Lists the segments and checks that they belong together. A directory that is not there is an
    /// empty listing. A newer format is an error, because nothing here may judge it.
    pub(crate) fn list(&self) -> Result<Listing> {
        let dir = self.log_dir();
        let mut listing = Listing::default();
        let names = match self.disk.list(&dir) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(listing),
            Err(error) => return Err(Error::io("list", &dir, error)),
        };
        let mut newer = None;
        for name in names {
            let path = dir.join(&name);
            let Some(number) = number_of(&name) else {
                if is_unfinished(&name) {
                    listing.unfinished.push(path);
                } else {
                    let what = "is no part of the log and was left alone";
                    listing.notes.push(Finding::new(FindingKind::UnknownFile, what).file(path));
                }
                continue;
            };
            listing.any = true;
            let bad = |what: String| Finding::new(FindingKind::BadSegment, what).at(&path, 0);
            let file = match self.disk.open(&path, false) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    listing.refusals.push(bad(error.to_string()));
                    listing.unusable.push(Unusable { number, len: 0, why: Unfit::Foreign });
                    continue;
                }
                Err(error) => return Err(Error::io("open", &path, error)),
            };
            let len = match file.len() {
                Ok(len) => len,
                Err(error) => return Err(Error::io("read the length of", &path, error)),
            };
            let mut unfit = |why| listing.unusable.push(Unusable { number, len, why });
            match read_header(file.as_ref(), &path)? {
                HeaderRead::Sound { header, .. } if header.number != number => {
                    unfit(Unfit::Foreign);
                    let what = format!("holds segment {}: a copy under a wrong name", header.number);
                    listing.refusals.push(bad(what));
                }
                HeaderRead::Sound { header, .. } if header.size != len => {
                    unfit(Unfit::Length(header));
                    let what = format!("has {len} bytes, but was made with {}", header.size);
                    listing.refusals.push(bad(what));
                }
                HeaderRead::Sound { header, damaged_copy } => {
                    listing.segments.push(header);
                    listing.damaged_copies.extend(damaged_copy.map(|at| (number, at)));
                }
                HeaderRead::Newer(version) => newer = Some((path, version)),
                HeaderRead::Damaged => {
                    unfit(Unfit::Header);
                    listing.refusals.push(bad("both copies of the segment's header are damaged".into()));
                }
                HeaderRead::Short(header) => {
                    let own = header.filter(|header| header.number == number);
                    unfit(own.map_or(Unfit::Header, Unfit::Length));
                    listing.refusals.push(bad(format!("has only {len} bytes, too few for a header")));
                }
            }
        }
        if let Some((path, found)) = newer {
            return Err(Error::NewerFormat { path, found, supported: FORMAT_VERSION });
        }
        self.check_order(&mut listing);
        Ok(listing)
    }

    /// All segments are of one store, and go on from one to the next.
    fn check_order(&self, listing: &mut Listing) {
        let lengths = listing.unusable.iter().filter_map(|unusable| match unusable.why {
            Unfit::Length(header) => Some(header),
            _ => None,
        });
        // Where no file is whole, those of another length tell it.
        let told = majority_store(&listing.segments);
        let Some(own) = told.or_else(|| majority_store(&lengths.collect::<Vec<_>>())) else { return };
        let (kept, foreign): (Vec<SegmentHeader>, Vec<SegmentHeader>) =
            listing.segments.iter().partition(|header| header.store == own);
        for header in foreign {
            let what = format!("belongs to the store {}, this one is {own}", header.store);
            let path = self.segment_path(header.number);
            listing.refusals.push(Finding::new(FindingKind::BadSegment, what).at(path, 0));
            let (number, len) = (header.number, header.size);
            listing.unusable.push(Unusable { number, len, why: Unfit::Foreign });
        }
        // A header of this store alone says what is of this store.
        for unusable in &mut listing.unusable {
            if matches!(unusable.why, Unfit::Length(header) if header.store != own) {
                unusable.why = Unfit::Foreign;
            }
        }
        listing.segments = kept;
        listing.refusals.extend(self.check_numbers(&listing.segments));
    }

    /// Numbers and first seqs must go on from segment to segment.
    pub(super) fn check_numbers(&self, segments: &[SegmentHeader]) -> Vec<Finding> {
        let mut refusals = Vec::new();
        let first_retained = segments.last().map_or(1, |header| header.first_retained);
        let (mut number, mut seq) = (1, 1);
        for header in segments {
            let lawful_start = number == 1 && header.first_seq <= first_retained;
            if header.number != number && !lawful_start {
                let what = format!(
                    "segments {number} to {} are not there or cannot be read; `synclog repair` makes them again as \
                     far as rows prove them; or put them back from a copy of the store",
                    header.number - 1
                );
                let mut finding =
                    Finding::new(FindingKind::MissingSegment, what).file(self.segment_path(number));
                if header.first_seq > seq && number == 1 {
                    finding = finding.seqs(seq, header.first_seq - 1);
                }
                refusals.push(finding);
            } else if header.first_seq < seq {
                let what = format!("starts at event {}, before its predecessor", header.first_seq);
                let path = self.segment_path(header.number);
                refusals.push(Finding::new(FindingKind::BadSegment, what).at(path, 0));
            }
            number = header.number + 1;
            seq = header.first_seq;
        }
        refusals
    }
}

/// The store that most segments name; of equals the one of the latest segment.
fn majority_store(segments: &[SegmentHeader]) -> Option<StoreId> {
    let mut votes: HashMap<StoreId, u64> = HashMap::new();
    for header in segments {
        *votes.entry(header.store).or_default() += 1;
    }
    segments.iter().map(|header| header.store).max_by_key(|store| votes.get(store).copied())
}
