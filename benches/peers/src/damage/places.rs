//! Where the records lie in the files, and what is done there.

use std::path::{Path, PathBuf};

use super::Damage;
use super::child::written;
use super::files::{self, Place};
use crate::peer::{Peer, Result};
use crate::records::{RECORDS, TARGET};

/// Where in a payload the bit is flipped.
const INTO_PAYLOAD: u64 = 10;

/// How many pages are zeroed, each in a copy of its own.
const PAGES: u64 = 64;

/// What happens to one copy.
pub(super) enum Edit {
    Nothing,
    Flip(Place, u32),
    Zero(Place),
}

/// Where the records lie in the files.
pub(super) struct Places {
    target: Place,
    pages: Vec<Place>,
    last: Place,
    framing: Vec<Place>,
}

impl Places {
    pub(super) fn find(peer: &dyn Peer, dir: &Path) -> Result<Self> {
        let mut files = files::contents(dir)?;
        files.retain(|(path, _)| path.to_string_lossy().contains(peer.data_files()));
        let place = |number: usize| {
            let record = written(number);
            let needle = peer.needle(&record);
            let found = |(path, bytes): &(PathBuf, Vec<u8>)| {
                files::find(bytes, needle).map(|at| (path.clone(), at, at + needle.len()))
            };
            files.iter().find_map(found).ok_or_else(|| format!("record {number} is in no file as it is"))
        };
        let (file, at, _) = place(TARGET)?;
        let (_, _, before) = place(TARGET - 1)?;
        let bytes = files.iter().find(|(path, _)| *path == file).map_or(&[][..], |(_, bytes)| bytes);
        let framing = peer.framing(bytes, before, at).ok_or("the framing was not found")?;
        let (last, last_at, _) = place(RECORDS - 1)?;
        let (first, first_at, _) = place(0)?;
        // Neither the page of the first record nor that of the last one: SQLite fills pages from the end.
        let page_of = |path: &Path, at: usize| (*path == file).then_some(at as u64 / files::PAGE);
        let ends = [page_of(&first, first_at), page_of(&last, last_at)];
        let middle = at as u64 / files::PAGE;
        let whole = bytes.len() as u64 / files::PAGE;
        let lowest = ends.iter().flatten().min().map_or(1, |page| page + 1);
        let highest = match ends {
            [Some(one), Some(other)] => one.max(other),
            _ => whole,
        };
        let pages = lowest.max(middle.saturating_sub(PAGES / 2))..highest.min(middle + PAGES / 2);
        let mut pages: Vec<u64> = pages.collect();
        pages.sort_by_key(|page| page.abs_diff(middle));
        Ok(Self {
            pages: pages
                .iter()
                .map(|page| Place { file: file.clone(), offset: page * files::PAGE })
                .collect(),
            target: Place { file: file.clone(), offset: at as u64 },
            last: Place { file: last, offset: last_at as u64 },
            framing: framing.map(|offset| Place { file: file.clone(), offset: offset as u64 }).collect(),
        })
    }

    /// The edits of a damage, and where, in words.
    pub(super) fn edits(&self, damage: Damage) -> (String, Vec<Edit>) {
        let inside = |place: &Place| Place { offset: place.offset + INTO_PAYLOAD, ..place.clone() };
        match damage {
            Damage::None | Damage::FailedSync => (String::new(), vec![Edit::Nothing]),
            Damage::Payload => {
                let place = inside(&self.target);
                (words(&place), vec![Edit::Flip(place, 0)])
            }
            Damage::Last => {
                let place = inside(&self.last);
                (words(&place), vec![Edit::Flip(place, 0)])
            }
            Damage::Page => {
                let place = self.pages.first().map(words).unwrap_or_default();
                let pages = format!("{} pages around {place}", self.pages.len());
                (pages, self.pages.iter().cloned().map(Edit::Zero).collect())
            }
            Damage::Framing => {
                let flips =
                    |place: &Place| (0..8).map(|bit| Edit::Flip(place.clone(), bit)).collect::<Vec<_>>();
                let place = self.framing.first().map(words).unwrap_or_default();
                let bytes = self.framing.len();
                (format!("{bytes} bytes from {place}"), self.framing.iter().flat_map(flips).collect())
            }
        }
    }
}

fn words(place: &Place) -> String {
    format!("{} at {}", place.file.display(), place.offset)
}
